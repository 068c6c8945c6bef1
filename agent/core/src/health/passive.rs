//! The share of users' own new flows that get an answer, for one (zone, group, path).

use std::collections::VecDeque;
use std::time::Duration;

use seimon_board::Instant;

/// New flows counted, and how many of them had an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCount {
    pub answered: u64,
    pub total: u64,
}

impl FlowCount {
    /// 0 to 1; `None` when nothing was counted.
    pub fn share(self) -> Option<f64> {
        (self.total > 0).then(|| self.answered.min(self.total) as f64 / self.total as f64)
    }

    fn add(&mut self, other: Self) {
        self.answered = self.answered.saturating_add(other.answered);
        self.total = self.total.saturating_add(other.total);
    }
}

/// Counts within the last [`PassiveShare::WINDOW`], and what is usual: the share over the [`PassiveShare::PAST`] before
/// that, once there were enough flows.
#[derive(Clone, Debug, Default)]
pub struct PassiveShare {
    counts: VecDeque<(Instant, FlowCount)>,
    /// Sums of earlier windows, the oldest first.
    past: VecDeque<(Instant, FlowCount)>,
}

impl PassiveShare {
    pub const WINDOW: Duration = Duration::from_secs(30);
    pub const PAST: Duration = Duration::from_secs(1800);
    const MAX_COUNTS: usize = 256;
    /// Flows before which nothing is usual.
    const ENOUGH: u64 = 200;

    pub fn record(&mut self, count: FlowCount, now: Instant) {
        if count.total == 0 {
            return;
        }
        while self.counts.len() >= Self::MAX_COUNTS
            || self.counts.front().is_some_and(|(at, _)| now.since(*at) > Self::WINDOW)
        {
            let Some((at, old)) = self.counts.pop_front() else { break };
            match self.past.back_mut().filter(|(begun, _)| at.since(*begun) < Self::WINDOW) {
                Some((_, sum)) => sum.add(old),
                None => self.past.push_back((at, old)),
            }
        }
        while self.past.front().is_some_and(|(at, _)| now.since(*at) > Self::PAST) {
            self.past.pop_front();
        }
        self.counts.push_back((now, count));
    }

    /// 0 to 1; `None` while too little is known of the time before the window.
    pub fn usual(&self, now: Instant) -> Option<f64> {
        let mut sum = FlowCount::default();
        let old = self.counts.iter().filter(|(at, _)| now.since(*at) > Self::WINDOW);
        for (_, count) in self.past.iter().chain(old).filter(|(at, _)| now.since(*at) <= Self::PAST) {
            sum.add(*count);
        }
        sum.share().filter(|_| sum.total >= Self::ENOUGH)
    }

    pub fn count(&self, now: Instant) -> FlowCount {
        let mut sum = FlowCount::default();
        for (_, count) in self.counts.iter().filter(|(at, _)| now.since(*at) <= Self::WINDOW) {
            sum.add(*count);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_recent_flows_count() {
        let mut share = PassiveShare::default();
        share.record(FlowCount { answered: 0, total: 100 }, Instant::ZERO);
        let later = Instant::ZERO + Duration::from_secs(31);
        share.record(FlowCount { answered: 9, total: 10 }, later);
        assert_eq!(share.count(later).share(), Some(0.9));
        assert_eq!(share.count(later + Duration::from_secs(60)).share(), None);
    }

    #[test]
    fn what_is_usual_is_known_after_enough_flows_and_does_not_hold_the_latest() {
        let (mut share, mut now) = (PassiveShare::default(), Instant::ZERO);
        for _ in 0..30 {
            share.record(FlowCount { answered: 10, total: 10 }, now);
            assert_eq!(share.usual(now), None, "the window is not the past");
            now = now + Duration::from_secs(1);
        }
        for _ in 0..60 {
            share.record(FlowCount { answered: 9, total: 10 }, now);
            now = now + Duration::from_secs(1);
        }
        for _ in 0..29 {
            share.record(FlowCount { answered: 0, total: 10 }, now);
            now = now + Duration::from_secs(1);
        }
        assert!(
            share.usual(now).is_some_and(|usual| (0.92..0.95).contains(&usual)),
            "{:?}",
            share.usual(now)
        );
        assert!(share.count(now).share().is_some_and(|lately| lately < 0.1));
        let later = now + PassiveShare::PAST + PassiveShare::WINDOW;
        assert_eq!(share.usual(later), None);
    }
}
