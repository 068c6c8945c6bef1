//! What the probe does with one order of echoes: sends them, gives up those that nobody answers, and asks quickly again
//! when two in a row were not answered.

use std::net::IpAddr;
use std::time::Duration;

use seimon_board::Instant;
use seimon_core::health::{EchoOrder, EchoOutcome, EchoSize, Health};

/// Every so many echoes one's round trip is measured.
const MEASURED: u64 = 15;
/// Between echoes while it is to be found out whether there is silence.
const QUICK: u64 = 100;
/// An answer takes no longer, where there is one.
const ANSWER: u64 = 50;

#[derive(Debug)]
pub struct Pulse {
    pub order: EchoOrder,
    next: u64,
    sent: u64,
    /// Not answered yet and not given up, by when they were sent.
    open: Vec<u64>,
    /// Sent since the last answer.
    in_row: u32,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Pulse {
    pub const fn new(order: EchoOrder, now: u64) -> Self {
        Self { order, next: now, sent: 0, open: Vec::new(), in_row: 0 }
    }

    /// When [`Self::turn`] is due.
    pub fn poll_timeout(&self) -> u64 {
        let given_up = self.open.first().map(|sent| sent + millis(self.order.timeout));
        given_up.map_or(self.next, |at| at.min(self.next))
    }

    /// `ask`: sends one and gives the address that was seen, if there is an answer.
    pub fn turn(
        &mut self,
        now: u64,
        mono: Instant,
        health: &mut Health,
        ask: &mut dyn FnMut() -> Option<IpAddr>,
    ) {
        let timeout = millis(self.order.timeout);
        let silent = self.order.silence.is_some_and(|count| self.in_row >= count)
            && self.open.last().is_some_and(|sent| sent + ANSWER <= now);
        while self.open.first().is_some_and(|sent| silent || sent + timeout <= now) {
            self.open.remove(0);
            self.tell(EchoOutcome::Lost, mono, health);
        }
        if self.next > now {
            return;
        }
        self.sent += 1;
        match ask() {
            Some(seen) => {
                let measured = self.sent % MEASURED == 1;
                let round_trip = measured.then(|| Duration::from_millis(5));
                self.in_row = 0;
                self.tell(EchoOutcome::Answered { round_trip, seen }, mono, health);
            }
            None => {
                self.in_row = self.in_row.saturating_add(1);
                self.open.push(now);
            }
        }
        let every = millis(self.order.every).max(1);
        let doubtful = self.order.silence.is_some_and(|count| (2..count).contains(&self.in_row));
        self.next = now + if doubtful { every.min(QUICK) } else { every };
    }

    fn tell(&self, outcome: EchoOutcome, mono: Instant, health: &mut Health) {
        match self.order.size {
            EchoSize::Small => health.handle_echo(&self.order.path, self.order.family, outcome, mono),
            EchoSize::Full(_) => health.handle_large(&self.order.path, outcome, mono),
        }
    }
}
