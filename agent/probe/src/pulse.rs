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
//!
//! Is a line dead, or does it only lose packets? After two echoes without an answer more are sent, quickly. One that comes
//! through ends the question. When as many regular ones as make a silence have had none, and the newest has had the time that
//! answers take here, all of them are told as lost, without waiting for each one's time to be over.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use seimon_ipc::echo::request_of;
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
/// Between echoes while it is asked whether the line is dead, and how many at the most.
const QUICK_EVERY: Duration = Duration::from_millis(20);
const MOST_QUICK: u32 = 40;
/// Regular echoes overdue after which quick ones are sent.
const QUICK_AFTER: usize = 2;
/// An answer is overdue after three times as long as one took lately, and not before this.
const SHORTEST_MARGIN: Duration = Duration::from_millis(50);
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
    pub(crate) length: usize,
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
    length: usize,
    every: Duration,
    timeout: Duration,
    next: Instant,
    measure_at: Instant,
    /// When the echo that is being measured was sent.
    measuring: Option<Instant>,
    under_way: VecDeque<UnderWay>,
    doubt: Doubt,
    told: Told,
}

/// Whether the line is dead.
#[derive(Debug)]
struct Doubt {
    silence: Option<usize>,
    /// An echo without an answer for so long is overdue.
    margin: Duration,
    /// When the regular echoes were sent that are younger than the youngest one answered.
    unanswered: VecDeque<Instant>,
    quick_at: Option<Instant>,
    quick_left: u32,
    /// The silence has been told.
    is_told: bool,
}

#[derive(Debug)]
struct UnderWay {
    socket: UdpSocket,
    nonce: u64,
    length: usize,
    sent: Instant,
    lost_at: Instant,
    /// Sent in doubt: counts only if it is answered, or all are lost.
    is_quick: bool,
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
                length: usize::from(echo.length),
                every: Duration::from_millis(echo.every_ms).max(SHORTEST),
                timeout: Duration::from_millis(echo.timeout_ms).max(SHORTEST),
                // All in step, so that the probe is woken once for all of them.
                next: now,
                measure_at: now,
                measuring: None,
                under_way: VecDeque::new(),
                doubt: Doubt::new(echo.silence, Duration::from_millis(echo.timeout_ms)),
                told: Told::new(now),
            })
            .collect();
        Self { watches, tell_at: now + TELL_EVERY }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let watches = self.watches.iter().map(|pulse| {
            let lost = pulse.under_way.front().map(|echo| echo.lost_at);
            lost.into_iter().chain(pulse.doubt.poll_timeout()).fold(pulse.next, Instant::min)
        });
        watches.min()
    }

    /// Takes in what has come, gives up what has not, and sends what is due. Returns the echoes to be waited for.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Measure> {
        self.watches.iter_mut().filter_map(|pulse| pulse.handle_timeout(now)).collect()
    }

    pub(crate) fn handle_measured(&mut self, watch: u64, outcome: EchoOutcome, now: Instant) {
        if let Some(pulse) = self.watches.iter_mut().find(|pulse| pulse.watch == watch) {
            pulse.handle_measured(outcome, now);
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
        self.take_in(now);
        if self.doubt.is_silent(now) {
            self.tell_silence(now);
        }
        if self.doubt.wants_quick(now) {
            // Whether it could be sent says nothing that the regular ones do not.
            self.send(now, true).ok();
        }
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
        if self.measure_at <= now && self.measuring.is_none() {
            self.measure_at = now + MEASURE_EVERY;
            self.measuring = Some(now);
            self.doubt.unanswered.push_back(now);
            let (source, target, timeout) = (source.clone(), self.target, self.timeout);
            return Some(Measure { watch: self.watch, source, target, length: self.length, timeout });
        }
        if self.under_way.len() >= MOST_UNDER_WAY {
            self.told.record(refused("the probe has too much to do"), now);
            return None;
        }
        match self.send(now, false) {
            Ok(()) => self.doubt.unanswered.push_back(now),
            Err(error) => self.told.record(refused(&in_words(&error)), now),
        }
        None
    }

    /// What has come, and what has not in its time.
    fn take_in(&mut self, now: Instant) {
        let (told, doubt) = (&mut self.told, &mut self.doubt);
        self.under_way.retain(|echo| match echo.end(now) {
            Some(outcome) => {
                if matches!(outcome, EchoOutcome::Answered { .. }) {
                    doubt.settle(echo.sent);
                }
                if !echo.is_quick || matches!(outcome, EchoOutcome::Answered { .. }) {
                    told.record(outcome, now);
                }
                false
            }
            None => true,
        });
        if self.doubt.quick_at.is_none() && !self.doubt.is_told {
            self.under_way.retain(|echo| !echo.is_quick);
        }
    }

    fn tell_silence(&mut self, now: Instant) {
        let lost = self.under_way.len() + usize::from(self.measuring.take().is_some());
        self.under_way.clear();
        for _ in 0..lost {
            self.told.record(EchoOutcome::Lost, now);
        }
        self.doubt.end_in_silence();
    }

    fn handle_measured(&mut self, outcome: EchoOutcome, now: Instant) {
        // Told as lost already?
        let Some(sent) = self.measuring.take() else { return };
        if let EchoOutcome::Answered { rtt_us, .. } = &outcome {
            self.doubt.settle(sent);
            if let Some(rtt) = rtt_us {
                let long = Duration::from_micros(*rtt).saturating_mul(3);
                self.doubt.margin = long.max(SHORTEST_MARGIN).min(self.timeout);
            }
        }
        self.told.record(outcome, now);
    }

    fn send(&mut self, now: Instant, is_quick: bool) -> io::Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        if self.under_way.len() >= MOST_UNDER_WAY {
            return Ok(());
        }
        let socket = source.udp_unattended(self.target)?;
        let nonce = nonce()?;
        socket.send(&request_of(nonce, self.length))?;
        let (length, lost_at) = (self.length, now + self.timeout);
        self.under_way.push_back(UnderWay { socket, nonce, length, sent: now, lost_at, is_quick });
        Ok(())
    }
}

impl Doubt {
    fn new(silence: Option<u32>, timeout: Duration) -> Self {
        Self {
            silence: silence.map(|count| usize::try_from(count).unwrap_or(usize::MAX).max(QUICK_AFTER)),
            margin: timeout.max(SHORTEST),
            unanswered: VecDeque::new(),
            quick_at: None,
            quick_left: MOST_QUICK,
            is_told: false,
        }
    }

    /// An echo sent then was answered.
    fn settle(&mut self, sent: Instant) {
        self.unanswered.retain(|&other| other > sent);
        self.quick_at = None;
        self.quick_left = MOST_QUICK;
        self.is_told = false;
    }

    /// When the regular echo of this number is overdue.
    fn overdue(&self, number: usize) -> Option<Instant> {
        self.unanswered.get(number.checked_sub(1)?).map(|&sent| sent + self.margin)
    }

    fn is_silent(&self, now: Instant) -> bool {
        !self.is_told && self.silence.and_then(|count| self.overdue(count)).is_some_and(|at| at <= now)
    }

    fn wants_quick(&mut self, now: Instant) -> bool {
        let begin = self.overdue(QUICK_AFTER).filter(|_| self.silence.is_some() && !self.is_told);
        let Some(begin) = begin else {
            self.quick_at = None;
            return false;
        };
        let at = *self.quick_at.get_or_insert(begin);
        if at > now || self.quick_left == 0 {
            return false;
        }
        self.quick_left -= 1;
        self.quick_at = Some(now + QUICK_EVERY);
        true
    }

    /// From here on each echo has its time again, until one is answered.
    fn end_in_silence(&mut self) {
        self.is_told = true;
        self.quick_at = None;
        self.unanswered.clear();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let count = self.silence.filter(|_| !self.is_told)?;
        let quick = match self.quick_at {
            Some(at) => (self.quick_left > 0).then_some(at),
            None => self.overdue(QUICK_AFTER),
        };
        quick.into_iter().chain(self.overdue(count)).min()
    }
}

impl UnderWay {
    fn end(&self, now: Instant) -> Option<EchoOutcome> {
        match take_answer(&self.socket, self.nonce, self.length) {
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
            length: 32,
            silence: Some(5),
        };
        Pulses::new(vec![echo], &Sources::new(), now)
    }

    /// Results told one by one, each at the time that it comes, every 200 ms from `from` on.
    fn told(pulses: &mut Pulses, from: Instant, outcomes: &[EchoOutcome]) -> Vec<usize> {
        let mut told = Vec::new();
        for (outcome, round) in outcomes.iter().zip(0..) {
            let now = from + Duration::from_millis(200) * round;
            pulses.watches[0].told.record(outcome.clone(), now);
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

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A doubt about a line whose answers take 10 ms, and regular echoes sent every 200 ms from `start` on.
    fn doubt(start: Instant, sent: u32) -> Doubt {
        let mut doubt = Doubt::new(Some(5), ms(600));
        doubt.margin = SHORTEST_MARGIN;
        doubt.unanswered.extend((0..sent).map(|n| start + ms(200) * n));
        doubt
    }

    #[test]
    fn quick_echoes_begin_when_the_second_is_overdue_and_stop_at_the_first_answer() {
        let start = Instant::now();
        let mut one = doubt(start, 1);
        assert_eq!(one.poll_timeout(), None, "one echo may be late");
        assert!(!one.wants_quick(start + ms(500)));
        let mut two = doubt(start, 2);
        assert_eq!(two.poll_timeout(), Some(start + ms(250)));
        assert!(!two.wants_quick(start + ms(249)));
        assert!(two.wants_quick(start + ms(250)));
        assert!(!two.wants_quick(start + ms(260)));
        assert!(two.wants_quick(start + ms(270)));
        two.settle(start + ms(270));
        assert_eq!(two.poll_timeout(), None);
        assert!(!two.wants_quick(start + ms(300)));
    }

    #[test]
    fn five_regular_echoes_without_an_answer_are_a_silence_once_the_newest_is_overdue() {
        let start = Instant::now();
        assert!(!doubt(start, 4).is_silent(start + ms(5_000)));
        let mut five = doubt(start, 5);
        assert!(!five.is_silent(start + ms(849)));
        assert!(five.is_silent(start + ms(850)), "sent at 800 ms");
        five.end_in_silence();
        assert!(!five.is_silent(start + ms(9_000)), "told once");
        assert_eq!(five.poll_timeout(), None);
    }

    #[test]
    fn an_answer_that_is_late_settles_what_was_sent_before_it_and_not_what_came_after() {
        let start = Instant::now();
        let mut five = doubt(start, 5);
        five.settle(start + ms(200));
        assert_eq!(five.unanswered.len(), 3);
        assert!(!five.is_silent(start + ms(5_000)));
    }

    #[test]
    fn a_doubt_that_never_ends_sends_a_bounded_number_of_quick_echoes() {
        let start = Instant::now();
        let mut two = doubt(start, 2);
        let sent = (0..5_000).filter(|&n| two.wants_quick(start + ms(n))).count();
        assert_eq!(sent, usize::try_from(MOST_QUICK).unwrap());
    }
}
