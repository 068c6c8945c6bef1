//! Liveness of one path from single light packets.
//!
//! ```text
//!            3 answers in a row                  k of the last n lost
//!  Unknown ─────────────────────▶ Up ─────────────────────────────────────▶ Down
//!     └─────────── k of n lost ───│──────────────────────────────────────────▲│
//!                                 └◀── up_count in a row, and hold-down over ──┘
//! ```
//! The first recovery waits for `up_count` only. A path that goes down again within [`LivenessConfig::calm`] is also
//! held down, twice as long each time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use seimon_board::Instant;
use seimon_plan::Thresholds;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    Up,
    Down,
    /// Not enough packets yet.
    #[default]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivenessConfig {
    /// A packet without an answer for this long is lost.
    pub timeout: Duration,
    /// Down when `down_lost` of the last `down_of` are lost.
    pub down_lost: u32,
    pub down_of: u32,
    /// Up again after this many answers in a row.
    pub up_count: u32,
    /// Hold-down at the second failure within `calm`; doubled at each further one, at most 64-fold.
    pub hold: Duration,
    /// A path that has not failed for this long is forgiven.
    pub calm: Duration,
}

impl LivenessConfig {
    pub fn from_thresholds(thresholds: &Thresholds) -> Self {
        Self {
            timeout: thresholds.liveness_timeout.0,
            down_lost: thresholds.down_lost,
            down_of: thresholds.down_of,
            up_count: thresholds.up_count,
            hold: Duration::from_secs(5),
            calm: Duration::from_secs(600),
        }
    }
}

/// Answers in a row after which a path that was never judged is up.
const FIRST_VERDICT: u32 = 3;
/// Results that the loss share is taken over: a minute at five a second.
const LOSS_RESULTS: usize = 300;
const ROUND_TRIPS: usize = 64;
const MAX_OUTSTANDING: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Answered,
    Lost,
}

/// State of one path. Every method that may change the verdict returns the new one when it did.
#[derive(Clone, Debug)]
pub struct PathLiveness {
    config: LivenessConfig,
    verdict: Liveness,
    outstanding: BTreeMap<u64, Instant>,
    /// The last `LOSS_RESULTS` results, newest last.
    results: VecDeque<Outcome>,
    /// Results since the verdict last changed, for `down_of`.
    fresh: u32,
    answers_in_row: u32,
    round_trips: VecDeque<Duration>,
    failures: u32,
    last_failure: Option<Instant>,
    held_until: Option<Instant>,
}

impl PathLiveness {
    pub fn new(config: LivenessConfig) -> Self {
        Self {
            config,
            verdict: Liveness::Unknown,
            outstanding: BTreeMap::new(),
            results: VecDeque::new(),
            fresh: 0,
            answers_in_row: 0,
            round_trips: VecDeque::new(),
            failures: 0,
            last_failure: None,
            held_until: None,
        }
    }

    pub fn verdict(&self) -> Liveness {
        self.verdict
    }

    /// While down: not up again before this instant, whatever is answered.
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// Share of recent packets lost (0 to 1) over at most a minute; `None` before the first ten.
    pub fn loss(&self) -> Option<f64> {
        if self.results.len() < 10 {
            return None;
        }
        let lost = self.results.iter().filter(|&&r| r == Outcome::Lost).count();
        Some(lost as f64 / self.results.len() as f64)
    }

    /// Median of recent round trips.
    pub fn round_trip(&self) -> Option<Duration> {
        let mut sorted: Vec<_> = self.round_trips.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    pub fn handle_sent(&mut self, seq: u64, now: Instant) {
        if self.outstanding.len() < MAX_OUTSTANDING {
            self.outstanding.insert(seq, now);
        }
    }

    /// An answer to `seq`. One that is unknown or already counted as lost changes nothing.
    pub fn handle_answer(&mut self, seq: u64, round_trip: Duration, now: Instant) -> Option<Liveness> {
        self.outstanding.remove(&seq)?;
        self.round_trips.push_back(round_trip);
        if self.round_trips.len() > ROUND_TRIPS {
            self.round_trips.pop_front();
        }
        self.answers_in_row = self.answers_in_row.saturating_add(1);
        self.record(Outcome::Answered, now)
    }

    /// The network said that `seq` will not be answered.
    pub fn handle_lost(&mut self, seq: u64, now: Instant) -> Option<Liveness> {
        self.outstanding.remove(&seq)?;
        self.answers_in_row = 0;
        self.record(Outcome::Lost, now)
    }

    pub fn handle_timeout(&mut self, now: Instant) -> Option<Liveness> {
        let overdue: Vec<u64> = self
            .outstanding
            .iter()
            .filter(|&(_, &sent)| sent + self.config.timeout <= now)
            .map(|(&seq, _)| seq)
            .collect();
        let before = self.verdict;
        for seq in overdue {
            self.handle_lost(seq, now);
        }
        (self.verdict != before).then_some(self.verdict)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.outstanding.values().min().map(|&sent| sent + self.config.timeout)
    }

    fn record(&mut self, outcome: Outcome, now: Instant) -> Option<Liveness> {
        self.results.push_back(outcome);
        if self.results.len() > LOSS_RESULTS {
            self.results.pop_front();
        }
        self.fresh = self.fresh.saturating_add(1);
        match self.verdict {
            Liveness::Up | Liveness::Unknown if self.lost_recently() >= self.config.down_lost => {
                Some(self.transition_to_down(now))
            }
            Liveness::Unknown if self.answers_in_row >= FIRST_VERDICT => Some(self.transition_to_up()),
            Liveness::Down
                if self.answers_in_row >= self.config.up_count
                    && self.held_until.is_none_or(|until| until <= now) =>
            {
                Some(self.transition_to_up())
            }
            Liveness::Up | Liveness::Unknown | Liveness::Down => None,
        }
    }

    fn lost_recently(&self) -> u32 {
        let window = self.config.down_of.min(self.fresh) as usize;
        let lost = self.results.iter().rev().take(window).filter(|&&r| r == Outcome::Lost).count();
        u32::try_from(lost).unwrap_or(u32::MAX)
    }

    fn transition_to_up(&mut self) -> Liveness {
        if self.verdict == Liveness::Down {
            // Losses of the outage are history; what counts now is how well it works since.
            self.results.clear();
        }
        self.held_until = None;
        self.fresh = 0;
        self.verdict = Liveness::Up;
        self.verdict
    }

    fn transition_to_down(&mut self, now: Instant) -> Liveness {
        let was_up = self.verdict == Liveness::Up;
        if self.last_failure.is_some_and(|last| now.since(last) > self.config.calm) {
            self.failures = 0;
        }
        if was_up {
            self.held_until =
                self.failures.checked_sub(1).map(|n| now + self.config.hold.saturating_mul(1 << n.min(6)));
            self.failures = self.failures.saturating_add(1);
            self.last_failure = Some(now);
        }
        self.fresh = 0;
        self.verdict = Liveness::Down;
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(200);
    const RTT: Duration = Duration::from_millis(10);

    struct Wire {
        path: PathLiveness,
        now: Instant,
        seq: u64,
    }

    impl Wire {
        fn new() -> Self {
            let path = PathLiveness::new(LivenessConfig::from_thresholds(&Thresholds::default()));
            Self { path, now: Instant::from_millis(1_000), seq: 0 }
        }

        /// One interval in which the packet is answered, or not.
        fn step(&mut self, answered: bool) {
            self.path.handle_timeout(self.now);
            self.seq += 1;
            self.path.handle_sent(self.seq, self.now);
            if answered {
                self.path.handle_answer(self.seq, RTT, self.now + RTT);
            }
            self.now = self.now + INTERVAL;
            self.path.handle_timeout(self.now);
        }

        fn until(&mut self, answered: bool, verdict: Liveness) -> Duration {
            let start = self.now;
            for _ in 0..10_000 {
                if self.path.verdict() == verdict {
                    return self.now.since(start);
                }
                self.step(answered);
            }
            panic!("never {verdict:?}");
        }
    }

    #[test]
    fn a_silent_death_is_seen_within_one_and_a_half_seconds() {
        let mut wire = Wire::new();
        wire.until(true, Liveness::Up);
        for _ in 0..50 {
            wire.step(true);
        }
        // The worst case: the path dies just after a packet was answered; the next goes 190 ms later.
        let took = wire.until(false, Liveness::Down);
        assert!(took <= Duration::from_millis(1_500), "{took:?}");
    }

    #[test]
    fn a_single_burst_of_four_losses_does_not_bring_a_path_down() {
        let mut wire = Wire::new();
        wire.until(true, Liveness::Up);
        for _ in 0..20 {
            for _ in 0..4 {
                wire.step(false);
            }
            for _ in 0..6 {
                wire.step(true);
            }
            assert_eq!(wire.path.verdict(), Liveness::Up);
        }
        assert!(wire.path.loss().is_some_and(|loss| (0.3..0.5).contains(&loss)));
    }

    #[test]
    fn a_path_that_flaps_is_held_down_longer_each_time() {
        let mut wire = Wire::new();
        wire.until(true, Liveness::Up);
        let mut recoveries = Vec::new();
        for _ in 0..5 {
            wire.until(false, Liveness::Down);
            recoveries.push(wire.until(true, Liveness::Up));
        }
        assert!(recoveries[0] <= Duration::from_secs(3), "{recoveries:?}");
        assert!(recoveries.windows(2).all(|pair| pair[1] > pair[0]), "{recoveries:?}");
        assert!(recoveries[4] >= Duration::from_secs(30), "{recoveries:?}");
    }

    #[test]
    fn a_path_that_was_calm_for_long_is_forgiven() {
        let mut wire = Wire::new();
        wire.until(true, Liveness::Up);
        for _ in 0..3 {
            wire.until(false, Liveness::Down);
            wire.until(true, Liveness::Up);
        }
        wire.now = wire.now + Duration::from_secs(601);
        wire.until(false, Liveness::Down);
        assert!(wire.until(true, Liveness::Up) <= Duration::from_secs(3));
    }

    #[test]
    fn a_path_that_never_answered_is_down_not_unknown() {
        let mut wire = Wire::new();
        assert_eq!(wire.path.verdict(), Liveness::Unknown);
        assert!(wire.until(false, Liveness::Down) <= Duration::from_secs(2));
    }

    #[test]
    fn an_answer_after_the_timeout_or_to_nothing_is_not_counted() {
        let mut wire = Wire::new();
        for _ in 0..4 {
            wire.step(false);
        }
        for seq in [1, 77] {
            assert_eq!(wire.path.handle_answer(seq, RTT, wire.now), None);
        }
        assert_eq!(wire.path.round_trip(), None);
    }
}
