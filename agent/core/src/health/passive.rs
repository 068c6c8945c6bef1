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
}

/// Counts within the last [`PassiveShare::WINDOW`].
#[derive(Clone, Debug, Default)]
pub struct PassiveShare {
    counts: VecDeque<(Instant, FlowCount)>,
}

impl PassiveShare {
    pub const WINDOW: Duration = Duration::from_secs(30);
    const MAX_COUNTS: usize = 256;

    pub fn record(&mut self, count: FlowCount, now: Instant) {
        if count.total == 0 {
            return;
        }
        self.counts.push_back((now, count));
        if self.counts.len() > Self::MAX_COUNTS {
            self.counts.pop_front();
        }
    }

    pub fn count(&self, now: Instant) -> FlowCount {
        let mut sum = FlowCount::default();
        for (_, count) in self.counts.iter().filter(|(at, _)| now.since(*at) <= Self::WINDOW) {
            sum.answered = sum.answered.saturating_add(count.answered);
            sum.total = sum.total.saturating_add(count.total);
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
}
