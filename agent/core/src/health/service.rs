//! Whether a service works over a path, from whole checks: DNS, TCP, TLS, HTTP status, body.

use std::collections::VecDeque;
use std::time::Duration;

use seimon_board::Instant;
use serde::{Deserialize, Serialize};

/// How far a check came before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Dns,
    Tcp,
    Tls,
    HttpStatus,
    Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    Good { took: Duration },
    Failed { stage: Stage, detail: String },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceVerdict {
    Well,
    Ill,
    /// Not checked yet, or too long ago.
    #[default]
    Unknown,
}

/// What is known of one service over one path at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    pub verdict: ServiceVerdict,
    /// Where the latest check failed, and how; `None` when it succeeded.
    pub failing: Option<(Stage, String)>,
    /// Median time of recent successful checks; `None` before the third.
    pub median: Option<Duration>,
    pub last_good: Option<Instant>,
    /// End of the latest check that failed.
    pub last_bad: Option<Instant>,
    /// End of the first of the successes in a row; `None` while the latest check failed.
    pub good_since: Option<Instant>,
    /// End of the first of the failures in a row; `None` while the latest check succeeded.
    pub bad_since: Option<Instant>,
    pub failures_in_row: u32,
    pub successes_in_row: u32,
}

const LATENCIES: usize = 16;
/// Times that make a median: of one or two, a single slow check would be it.
const MEDIAN_LEAST: usize = 3;
/// Successes in a row after which an ill service is well again.
const WELL_COUNT: u32 = 2;

#[derive(Clone, Debug)]
pub struct ServiceHealth {
    ill_count: u32,
    verdict: ServiceVerdict,
    failures: u32,
    successes: u32,
    failing: Option<(Stage, String)>,
    last: Option<Instant>,
    last_good: Option<Instant>,
    last_bad: Option<Instant>,
    good_since: Option<Instant>,
    bad_since: Option<Instant>,
    latencies: VecDeque<Duration>,
}

impl ServiceHealth {
    /// `ill_count`: failures in a row that make the service ill; at least 1.
    pub fn new(ill_count: u32) -> Self {
        Self {
            ill_count: ill_count.max(1),
            verdict: ServiceVerdict::Unknown,
            failures: 0,
            successes: 0,
            failing: None,
            last: None,
            last_good: None,
            last_bad: None,
            good_since: None,
            bad_since: None,
            latencies: VecDeque::new(),
        }
    }

    /// Returns the new verdict when it changed.
    pub fn handle_check(&mut self, outcome: CheckOutcome, now: Instant) -> Option<ServiceVerdict> {
        let before = self.verdict;
        self.last = Some(now);
        match outcome {
            CheckOutcome::Good { took } => {
                self.failures = 0;
                self.successes = self.successes.saturating_add(1);
                self.failing = None;
                self.last_good = Some(now);
                self.good_since.get_or_insert(now);
                self.bad_since = None;
                self.latencies.push_back(took);
                if self.latencies.len() > LATENCIES {
                    self.latencies.pop_front();
                }
                if before == ServiceVerdict::Unknown || self.successes >= WELL_COUNT {
                    self.verdict = ServiceVerdict::Well;
                }
            }
            CheckOutcome::Failed { stage, detail } => {
                self.successes = 0;
                self.last_bad = Some(now);
                self.good_since = None;
                self.bad_since.get_or_insert(now);
                self.failures = self.failures.saturating_add(1);
                self.failing = Some((stage, detail));
                if self.failures >= self.ill_count {
                    self.verdict = ServiceVerdict::Ill;
                }
            }
        }
        (self.verdict != before).then_some(self.verdict)
    }

    /// A verdict whose latest check is older than `stale_after` counts no more.
    pub fn facts(&self, now: Instant, stale_after: Duration) -> ServiceFacts {
        let fresh = self.last.is_some_and(|last| now.since(last) <= stale_after);
        let mut sorted: Vec<_> = self.latencies.iter().copied().collect();
        sorted.sort_unstable();
        ServiceFacts {
            verdict: if fresh { self.verdict } else { ServiceVerdict::Unknown },
            failing: self.failing.clone(),
            median: sorted.get(sorted.len() / 2).copied().filter(|_| sorted.len() >= MEDIAN_LEAST),
            last_good: self.last_good,
            last_bad: self.last_bad,
            good_since: self.good_since,
            bad_since: self.bad_since,
            failures_in_row: self.failures,
            successes_in_row: self.successes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::from_secs(100);

    fn bad() -> CheckOutcome {
        CheckOutcome::Failed { stage: Stage::Tls, detail: "certificate expired".into() }
    }

    fn good(ms: u64) -> CheckOutcome {
        CheckOutcome::Good { took: Duration::from_millis(ms) }
    }

    #[test]
    fn failures_must_come_in_a_row_to_make_a_service_ill() {
        let mut service = ServiceHealth::new(3);
        let now = Instant::ZERO;
        for _ in 0..5 {
            service.handle_check(bad(), now);
            service.handle_check(bad(), now);
            service.handle_check(good(10), now);
        }
        assert_eq!(service.facts(now, FRESH).verdict, ServiceVerdict::Well);
        for _ in 0..3 {
            service.handle_check(bad(), now);
        }
        let facts = service.facts(now, FRESH);
        assert_eq!(facts.verdict, ServiceVerdict::Ill);
        assert_eq!(facts.failing, Some((Stage::Tls, "certificate expired".into())));
    }

    #[test]
    fn one_good_check_does_not_heal_an_ill_service_but_two_do() {
        let mut service = ServiceHealth::new(1);
        let now = Instant::ZERO;
        service.handle_check(bad(), now);
        assert_eq!(service.handle_check(good(10), now), None);
        assert_eq!(service.handle_check(good(10), now), Some(ServiceVerdict::Well));
    }

    #[test]
    fn a_row_of_successes_is_dated_by_its_first() {
        let mut service = ServiceHealth::new(3);
        let at = |s| Instant::ZERO + Duration::from_secs(s);
        let known = |service: &ServiceHealth| {
            let facts = service.facts(at(5), FRESH);
            (facts.good_since, facts.last_bad)
        };
        assert_eq!(known(&service), (None, None));
        service.handle_check(good(10), at(1));
        service.handle_check(good(10), at(2));
        assert_eq!(known(&service), (Some(at(1)), None));
        service.handle_check(bad(), at(3));
        assert_eq!(known(&service), (None, Some(at(3))));
        service.handle_check(good(10), at(4));
        assert_eq!(known(&service), (Some(at(4)), Some(at(3))));
    }

    #[test]
    fn an_old_verdict_is_no_verdict() {
        let mut service = ServiceHealth::new(3);
        service.handle_check(good(10), Instant::ZERO);
        let later = Instant::ZERO + FRESH + Duration::from_secs(1);
        assert_eq!(service.facts(later, FRESH).verdict, ServiceVerdict::Unknown);
    }

    #[test]
    fn one_slow_check_does_not_move_the_median() {
        let mut service = ServiceHealth::new(3);
        for ms in [10, 11, 12, 4_000, 10] {
            service.handle_check(good(ms), Instant::ZERO);
        }
        assert_eq!(service.facts(Instant::ZERO, FRESH).median, Some(Duration::from_millis(11)));
    }
}
