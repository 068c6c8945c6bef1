//! Hold-down of paths that failed: twice as long each time, at most 64-fold, forgiven after that long without a failure.

use std::collections::BTreeMap;
use std::time::Duration;

use seimon_board::Instant;
use seimon_plan::PathId;

const MAX_FACTOR: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) until: Instant,
    pub(super) failures: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holds(pub(super) BTreeMap<PathId, Hold>);

impl Holds {
    pub(super) fn fail(&mut self, path: &PathId, base: Duration, now: Instant) {
        let hold = self.0.entry(path.clone()).or_insert(Hold { until: now, failures: 0 });
        if now.since(hold.until) > base.saturating_mul(MAX_FACTOR) {
            hold.failures = 0;
        }
        let factor = 1_u32 << hold.failures.min(MAX_FACTOR.ilog2());
        hold.until = now + base.saturating_mul(factor);
        hold.failures = hold.failures.saturating_add(1);
    }

    pub(super) fn forgive(&mut self, path: &PathId) {
        self.0.remove(path);
    }

    pub(super) fn until(&self, path: &PathId) -> Option<Instant> {
        self.0.get(path).map(|hold| hold.until)
    }

    pub(super) fn left(&self, path: &PathId, now: Instant) -> Option<Duration> {
        self.until(path).map(|until| until.since(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hold_down_doubles_to_sixty_four_fold_and_is_forgiven_after_a_calm() {
        let mut holds = Holds::default();
        let path = PathId::new("direct").expect("an identifier");
        let base = Duration::from_secs(1);
        let mut now = Instant::ZERO;
        let mut seen = Vec::new();
        for _ in 0..9 {
            holds.fail(&path, base, now);
            let left = holds.left(&path, now).expect("held");
            seen.push(left.as_secs());
            now = now + left;
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        now = now + Duration::from_secs(65);
        holds.fail(&path, base, now);
        assert_eq!(holds.left(&path, now), Some(base));
    }
}
