//! Liveness of one path from single light packets.
//!
//! ```text
//!            3 answers in a row             k of the last n lost, and k + 2 in a row
//!  Unknown ─────────────────────▶ Up ─────────────────────────────────────▶ Down
//!     └─────────── k of n lost ───│──────────────────────────────────────────▲│
//!                                 └◀── up_count in a row, and hold-down over ──┘
//! ```
//! In a row, because single losses say how well a path works, not whether it lives (that is [`super::PathQuality`]'s).
//!
//! The first recovery waits for `up_count` only. A path that goes down again within [`LivenessConfig::calm`] is also
//! held down, twice as long each time.

use std::collections::VecDeque;
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
    /// Down when `down_lost` of the last `down_of` are lost.
    pub down_lost: u32,
    pub down_of: u32,
    /// ...and this many more than `down_lost` in a row.
    pub more_in_row: u32,
    /// Up again after this many answers in a row.
    pub up_count: u32,
    /// Hold-down at the second failure within `calm`; doubled at each further one, at most 64-fold.
    pub hold: Duration,
    /// A path that has not failed for this long is forgiven.
    pub calm: Duration,
}

impl LivenessConfig {
    /// Losses in a row beside `down_lost`: at 5 % loss five of six are lost several times in 100 hours, seven in a row never.
    pub const MORE_IN_ROW: u32 = 2;

    pub fn from_thresholds(thresholds: &Thresholds) -> Self {
        Self {
            down_lost: thresholds.down_lost,
            down_of: thresholds.down_of,
            more_in_row: Self::MORE_IN_ROW,
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
/// Results that make a share: ten seconds at five a second. One packet lost of fewer would look like a bad line.
const LOSS_LEAST: usize = 50;
/// About a minute: not every packet is measured.
const ROUND_TRIPS: usize = 16;

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
    /// The last `LOSS_RESULTS` results, newest last.
    results: VecDeque<Outcome>,
    /// Results since the verdict last changed, for `down_of`.
    fresh: u32,
    answers_in_row: u32,
    losses_in_row: u32,
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
            results: VecDeque::new(),
            fresh: 0,
            answers_in_row: 0,
            losses_in_row: 0,
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

    /// Share of recent packets lost (0 to 1) over at most a minute; `None` before ten seconds' worth.
    pub fn loss(&self) -> Option<f64> {
        if self.results.len() < LOSS_LEAST {
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

    /// A packet was answered. Its round trip counts where it was measured.
    pub fn handle_answer(&mut self, round_trip: Option<Duration>, now: Instant) -> Option<Liveness> {
        if let Some(round_trip) = round_trip {
            self.round_trips.push_back(round_trip);
            if self.round_trips.len() > ROUND_TRIPS {
                self.round_trips.pop_front();
            }
        }
        self.answers_in_row = self.answers_in_row.saturating_add(1);
        self.losses_in_row = 0;
        self.record(Outcome::Answered, now)
    }

    /// A packet had no answer within its time, or the network refused it.
    pub fn handle_lost(&mut self, now: Instant) -> Option<Liveness> {
        self.answers_in_row = 0;
        self.losses_in_row = self.losses_in_row.saturating_add(1);
        self.record(Outcome::Lost, now)
    }

    fn record(&mut self, outcome: Outcome, now: Instant) -> Option<Liveness> {
        self.results.push_back(outcome);
        if self.results.len() > LOSS_RESULTS {
            self.results.pop_front();
        }
        self.fresh = self.fresh.saturating_add(1);
        match self.verdict {
            Liveness::Up | Liveness::Unknown
                if self.lost_recently() >= self.config.down_lost
                    && self.losses_in_row
                        >= self.config.down_lost.saturating_add(self.config.more_in_row) =>
            {
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
    }

    impl Wire {
        fn new() -> Self {
            let path = PathLiveness::new(LivenessConfig::from_thresholds(&Thresholds::default()));
            Self { path, now: Instant::from_millis(1_000) }
        }

        /// One interval in which the packet is answered, or not.
        fn step(&mut self, answered: bool) {
            self.now = self.now + INTERVAL;
            if answered {
                self.path.handle_answer(Some(RTT), self.now);
            } else {
                self.path.handle_lost(self.now);
            }
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
    fn seven_losses_in_a_row_are_a_death_and_take_two_seconds_at_the_most() {
        let mut wire = Wire::new();
        wire.until(true, Liveness::Up);
        for _ in 0..50 {
            wire.step(true);
        }
        // The worst case: the path dies just after a packet was answered. The last of the lost is known to be so when its
        // time is over.
        let took = wire.until(false, Liveness::Down) + Thresholds::default().liveness_timeout.0;
        assert!(took <= Duration::from_millis(2_000), "{took:?}");
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
    fn answers_whose_round_trip_was_not_measured_count_as_answers() {
        let mut wire = Wire::new();
        for _ in 0..3 {
            wire.path.handle_answer(None, wire.now);
        }
        assert_eq!((wire.path.verdict(), wire.path.round_trip()), (Liveness::Up, None));
    }
}
