//! Echoes sent again and again: are the paths alive, and which source addresses does the outside see.
//!
//! Several a second for every path, all day: nearly all that the probe ever does. So it is woken for the sending, takes in
//! what was answered since the last time on the same occasion, and tells the agent about a second's worth at once. One
//! echo in three seconds is waited for, to measure its round trip. What may be news is told at once: a loss, everything
//! for some time after one, and an address not seen before.
//!
//! ```text
//!          every                    answered? it is known here at the latest
//!  send ──────────▶ send ──────────▶ send ──────────▶ …
//!    └────────────── timeout ─────────────┴▶ lost: told at once
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use seimon_ipc::echo::request;
use seimon_ipc::probe::{EchoOutcome, EchoWatch, Watched};

use crate::echo::{nonce, take_answer};
use crate::source::{Source, Sources, in_words};

/// Results of calm watches are told at the first occasion after so long.
const TELL_EVERY: Duration = Duration::from_millis(900);
/// Between echoes whose round trip is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(2_900);
/// After a loss (and the start) every result is told at once for so long.
const CALM_AFTER: Duration = Duration::from_secs(5);
/// Faster than any plan asks for; what is not sent in time is left out.
const SHORTEST: Duration = Duration::from_millis(10);
/// Echoes of one watch under way.
const MOST_UNDER_WAY: usize = 64;
/// Watches at once; each has a few sockets open at a time.
pub(crate) const MOST_WATCHES: usize = 64;

/// An echo that is to be waited for by itself, to see how long it takes; its end is told by [`Pulses::handle_measured`].
#[derive(Debug)]
pub(crate) struct Measure {
    pub(crate) watch: u64,
    pub(crate) source: Source,
    pub(crate) target: SocketAddr,
    pub(crate) timeout: Duration,
}

/// All watches, and what is to be told about them.
#[derive(Debug)]
pub(crate) struct Pulses {
    watches: Vec<Pulse>,
    tell_at: Instant,
}

#[derive(Debug)]
struct Pulse {
    watch: u64,
    source: Option<Source>,
    target: SocketAddr,
    every: Duration,
    timeout: Duration,
    next: Instant,
    measure_at: Instant,
    under_way: VecDeque<UnderWay>,
    told: Told,
}

#[derive(Debug)]
struct UnderWay {
    socket: UdpSocket,
    nonce: u64,
    lost_at: Instant,
}

/// Results that wait to be told, and whether they may wait.
#[derive(Debug)]
struct Told {
    outcomes: Vec<EchoOutcome>,
    calm_at: Instant,
    seen: Option<IpAddr>,
    urgent: bool,
}

impl Pulses {
    pub(crate) fn new(echoes: Vec<EchoWatch>, sources: &Sources, now: Instant) -> Self {
        let watches = echoes
            .into_iter()
            .take(MOST_WATCHES)
            .map(|echo| Pulse {
                watch: echo.watch,
                source: sources.get(&(echo.zone, echo.path)).cloned(),
                target: echo.target,
                every: Duration::from_millis(echo.every_ms).max(SHORTEST),
                timeout: Duration::from_millis(echo.timeout_ms).max(SHORTEST),
                // All in step, so that the probe is woken once for all of them.
                next: now,
                measure_at: now,
                under_way: VecDeque::new(),
                told: Told::new(now),
            })
            .collect();
        Self { watches, tell_at: now + TELL_EVERY }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let watches = self.watches.iter().map(|pulse| {
            let lost = pulse.under_way.front().map(|echo| echo.lost_at);
            lost.into_iter().fold(pulse.next, Instant::min)
        });
        watches.min()
    }

    /// Takes in what has come, gives up what has not, and sends what is due. Returns the echoes to be waited for.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Measure> {
        self.watches.iter_mut().filter_map(|pulse| pulse.handle_timeout(now)).collect()
    }

    pub(crate) fn handle_measured(&mut self, watch: u64, outcome: EchoOutcome, now: Instant) {
        if let Some(pulse) = self.watches.iter_mut().find(|pulse| pulse.watch == watch) {
            pulse.told.record(outcome, now);
        }
    }

    /// What is to be told now; empty when it may wait.
    pub(crate) fn poll_results(&mut self, now: Instant) -> Vec<Watched> {
        if self.tell_at > now && !self.watches.iter().any(|pulse| pulse.told.urgent) {
            return Vec::new();
        }
        self.tell_at = now + TELL_EVERY;
        self.watches
            .iter_mut()
            .filter_map(|pulse| {
                pulse.told.urgent = false;
                let outcomes = std::mem::take(&mut pulse.told.outcomes);
                (!outcomes.is_empty()).then_some(Watched { watch: pulse.watch, outcomes })
            })
            .collect()
    }
}

impl Pulse {
    fn handle_timeout(&mut self, now: Instant) -> Option<Measure> {
        let told = &mut self.told;
        self.under_way.retain(|echo| match echo.end(now) {
            Some(outcome) => {
                told.record(outcome, now);
                false
            }
            None => true,
        });
        if self.next > now {
            return None;
        }
        // No burst to catch up after a pause.
        let due = self.next + self.every;
        self.next = if due <= now { now + self.every } else { due };
        let Some(source) = &self.source else {
            self.told.record(refused("the probe has no such host"), now);
            return None;
        };
        if self.measure_at <= now {
            self.measure_at = now + MEASURE_EVERY;
            let (source, target, timeout) = (source.clone(), self.target, self.timeout);
            return Some(Measure { watch: self.watch, source, target, timeout });
        }
        if self.under_way.len() >= MOST_UNDER_WAY {
            self.told.record(refused("the probe has too much to do"), now);
            return None;
        }
        match UnderWay::send(source, self.target, now + self.timeout) {
            Ok(echo) => self.under_way.push_back(echo),
            Err(error) => self.told.record(refused(&in_words(&error)), now),
        }
        None
    }
}

impl UnderWay {
    fn send(source: &Source, target: SocketAddr, lost_at: Instant) -> io::Result<Self> {
        let socket = source.udp_unattended(target)?;
        let nonce = nonce()?;
        socket.send(&request(nonce))?;
        Ok(Self { socket, nonce, lost_at })
    }

    fn end(&self, now: Instant) -> Option<EchoOutcome> {
        match take_answer(&self.socket, self.nonce) {
            Ok(Some(seen)) => Some(EchoOutcome::Answered { rtt_us: None, seen }),
            Ok(None) => (self.lost_at <= now).then_some(EchoOutcome::Lost),
            Err(error) => Some(refused(&in_words(&error))),
        }
    }
}

impl Told {
    fn new(now: Instant) -> Self {
        Self { outcomes: Vec::new(), calm_at: now + CALM_AFTER, seen: None, urgent: false }
    }

    fn record(&mut self, outcome: EchoOutcome, now: Instant) {
        match &outcome {
            EchoOutcome::Answered { seen, .. } => {
                self.urgent |= self.seen.replace(seen.ip()) != Some(seen.ip());
            }
            EchoOutcome::Lost | EchoOutcome::Refused { .. } => self.calm_at = now + CALM_AFTER,
        }
        self.urgent |= now < self.calm_at;
        self.outcomes.push(outcome);
    }
}

fn refused(reason: &str) -> EchoOutcome {
    EchoOutcome::Refused { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(seen: &str) -> EchoOutcome {
        EchoOutcome::Answered { rtt_us: None, seen: seen.parse().unwrap() }
    }

    fn pulses(now: Instant) -> Pulses {
        let echo = EchoWatch {
            watch: 7,
            zone: seimon_plan::ZoneId::new("affairs").unwrap(),
            path: seimon_plan::PathId::new("direct").unwrap(),
            target: "192.0.2.1:7".parse().unwrap(),
            every_ms: 200,
            timeout_ms: 600,
        };
        Pulses::new(vec![echo], &Sources::new(), now)
    }

    /// Results told one by one, each at the time that it comes, every 200 ms from `from` on.
    fn told(pulses: &mut Pulses, from: Instant, outcomes: &[EchoOutcome]) -> Vec<usize> {
        let mut told = Vec::new();
        for (outcome, round) in outcomes.iter().zip(0..) {
            let now = from + Duration::from_millis(200) * round;
            pulses.handle_measured(7, outcome.clone(), now);
            told.push(pulses.poll_results(now).into_iter().map(|watched| watched.outcomes.len()).sum());
        }
        told
    }

    #[test]
    fn results_are_gathered_only_after_a_time_without_a_loss() {
        let start = Instant::now();
        let mut pulses = pulses(start);
        let good = vec![answer("192.0.2.9:1"); 5];
        assert_eq!(told(&mut pulses, start, &good), [1; 5], "nothing is known yet");
        let calm = start + CALM_AFTER;
        assert_eq!(told(&mut pulses, calm, &vec![good[0].clone(); 11]), [1, 0, 0, 0, 0, 5, 0, 0, 0, 0, 5]);
        let ill = calm + Duration::from_millis(2_200);
        let lost = [good[0].clone(), EchoOutcome::Lost, good[0].clone(), good[0].clone()];
        assert_eq!(told(&mut pulses, ill, &lost), [0, 2, 1, 1], "told at once, with what had waited");
    }

    #[test]
    fn another_address_is_told_at_once() {
        let start = Instant::now();
        let mut pulses = pulses(start);
        told(&mut pulses, start, &[answer("192.0.2.9:1")]);
        let calm = start + CALM_AFTER;
        let outcomes = [answer("192.0.2.9:2"), answer("192.0.2.9:3"), answer("192.0.2.8:3")];
        assert_eq!(told(&mut pulses, calm, &outcomes), [1, 0, 2]);
    }

    #[test]
    fn a_pause_is_not_caught_up_in_a_burst_and_no_host_is_a_refusal() {
        let start = Instant::now();
        let mut pulses = pulses(start);
        let late = start + Duration::from_secs(60);
        assert!(pulses.handle_timeout(late).is_empty());
        assert_eq!(pulses.poll_results(late)[0].outcomes, [refused("the probe has no such host")]);
        assert_eq!(pulses.poll_timeout(), Some(late + Duration::from_millis(200)));
    }
}
