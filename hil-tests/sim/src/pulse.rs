//! What the probe does with one order of echoes: sends them, gives up those that nobody answers, asks quickly again when two
//! are overdue, and tells a silence before its echoes have had all their time.

use std::net::IpAddr;
use std::time::Duration;

use seimon_board::Instant;
use seimon_core::health::{EchoOrder, EchoOutcome, EchoSize, Health};

/// Every so many echoes one's round trip is measured.
const MEASURED: u64 = 15;
/// Between quick echoes, while it is to be found out whether there is silence, and how many at the most.
const QUICK: u64 = 20;
const MOST_QUICK: u32 = 40;
/// Regular echoes overdue after which quick ones are sent.
const QUICK_AFTER: usize = 2;
/// An answer that is not there by then is overdue.
const MARGIN: u64 = 50;

#[derive(Debug)]
pub struct Pulse {
    pub order: EchoOrder,
    next: u64,
    sent: u64,
    /// Not answered and not given up: when they were sent, and whether as one of the quick ones.
    open: Vec<(u64, Speed)>,
    /// Regular ones since the last answer.
    unanswered: Vec<u64>,
    quick_at: Option<u64>,
    quick_left: u32,
    /// The silence has been told.
    told: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speed {
    Regular,
    Quick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    No,
    Yes,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Pulse {
    pub const fn new(order: EchoOrder, now: u64) -> Self {
        Self {
            order,
            next: now,
            sent: 0,
            open: Vec::new(),
            unanswered: Vec::new(),
            quick_at: None,
            quick_left: MOST_QUICK,
            told: Told::No,
        }
    }

    fn overdue(&self, number: usize) -> Option<u64> {
        self.unanswered.get(number.checked_sub(1)?).map(|sent| sent + MARGIN)
    }

    fn silence(&self) -> Option<usize> {
        let count = self.order.silence.filter(|_| self.told == Told::No)?;
        usize::try_from(count).ok().map(|count| count.max(QUICK_AFTER))
    }

    /// When [`Self::turn`] is due.
    pub fn poll_timeout(&self) -> u64 {
        let given_up = self.open.first().map(|(sent, _)| sent + millis(self.order.timeout));
        let silence = self.silence();
        let quick = silence.and_then(|_| match self.quick_at {
            Some(at) => (self.quick_left > 0).then_some(at),
            None => self.overdue(QUICK_AFTER),
        });
        let silent = silence.and_then(|count| self.overdue(count));
        given_up.into_iter().chain(quick).chain(silent).fold(self.next, u64::min)
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
        while self.open.first().is_some_and(|(sent, _)| sent + timeout <= now) {
            if self.open.remove(0).1 == Speed::Regular {
                self.tell(EchoOutcome::Lost, mono, health);
            }
        }
        if self.silence().and_then(|count| self.overdue(count)).is_some_and(|at| at <= now) {
            for _ in 0..std::mem::take(&mut self.open).len() {
                self.tell(EchoOutcome::Lost, mono, health);
            }
            self.told = Told::Yes;
            self.quick_at = None;
            self.unanswered.clear();
        }
        if let Some(begin) = self.silence().and_then(|_| self.overdue(QUICK_AFTER)) {
            if *self.quick_at.get_or_insert(begin) <= now && self.quick_left > 0 {
                self.quick_left -= 1;
                self.quick_at = Some(now + QUICK);
                self.send(Speed::Quick, now, mono, health, ask);
            }
        } else {
            self.quick_at = None;
        }
        if self.next <= now {
            self.next = now + millis(self.order.every).max(1);
            self.send(Speed::Regular, now, mono, health, ask);
        }
    }

    fn send(
        &mut self,
        speed: Speed,
        now: u64,
        mono: Instant,
        health: &mut Health,
        ask: &mut dyn FnMut() -> Option<IpAddr>,
    ) {
        self.sent += u64::from(speed == Speed::Regular);
        let Some(seen) = ask() else {
            self.open.push((now, speed));
            if speed == Speed::Regular {
                self.unanswered.push(now);
            }
            return;
        };
        let measured = speed == Speed::Regular && self.sent % MEASURED == 1;
        let round_trip = measured.then(|| Duration::from_millis(5));
        self.unanswered.clear();
        self.quick_at = None;
        self.quick_left = MOST_QUICK;
        self.told = Told::No;
        self.open.retain(|(_, speed)| *speed == Speed::Regular);
        self.tell(EchoOutcome::Answered { round_trip, seen }, mono, health);
    }

    fn tell(&self, outcome: EchoOutcome, mono: Instant, health: &mut Health) {
        match self.order.size {
            EchoSize::Small => health.handle_echo(&self.order.path, self.order.family, outcome, mono),
            EchoSize::Full(_) => health.handle_large(&self.order.path, outcome, mono),
        }
    }
}
