//! When to check which service. A site's checks are few however many services it has: where there are more targets than
//! [`ScheduleConfig::checks_per_interval`], each has its turn less often. Times are spread by a hash of seed, target and round: the same seed gives the same
//! schedule, and a town's schools do not ask in step. (Echoes are sent by the probe by itself.)

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use seimon_board::Instant;
use seimon_plan::{GroupId, PathId, ServiceId, ZoneId};

/// One whole service check: from the probe host of `zone` that is pinned to `path`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckTarget {
    pub zone: ZoneId,
    pub group: GroupId,
    pub service: ServiceId,
    pub path: PathId,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pace {
    #[default]
    Steady,
    /// A canary: a few people try what may not be sound, perhaps for days.
    Trying,
    /// Qualifying, cutting over, soaking, rolling back.
    Moving,
}

/// A canary's checks are so many times less often than those of what moves.
const TRYING: u32 = 5;

#[derive(Clone, Debug)]
pub struct ScheduleConfig {
    pub check_interval: Duration,
    /// So many steady checks begin within one `check_interval`, evenly spread, for the whole site. Not counted: the first
    /// of each target, those of what moves, and those that look again after a failure.
    pub checks_per_interval: u32,
    pub check_interval_moving: Duration,
    /// A check that has not reported by then is given up, so that the next can start.
    pub check_timeout: Duration,
    /// Checks under way at a time, for the whole site.
    pub max_checks: usize,
    pub seed: u64,
}

#[derive(Clone, Debug)]
struct Slot {
    next: Instant,
    /// `next` is because something may be wrong.
    hurried: bool,
    round: u64,
    under_way: Option<Instant>,
}

/// See the module. Emits nothing before [`Schedule::handle_timeout`].
#[derive(Clone, Debug)]
pub struct Schedule {
    config: ScheduleConfig,
    checks: BTreeMap<CheckTarget, Slot>,
    paces: BTreeMap<(ZoneId, GroupId), Pace>,
    due: VecDeque<CheckTarget>,
    /// No steady check begins before.
    steady_at: Instant,
}

impl Schedule {
    pub fn new(config: ScheduleConfig, targets: impl IntoIterator<Item = CheckTarget>, now: Instant) -> Self {
        let checks = targets
            .into_iter()
            .map(|target| {
                let next = now + spread(config.seed, &target, 0, config.check_interval_moving);
                (target, Slot { next, hurried: false, round: 0, under_way: None })
            })
            .collect();
        Self { config, checks, paces: BTreeMap::new(), due: VecDeque::new(), steady_at: now }
    }

    /// Between two checks of one target while nothing moves.
    pub fn steady_interval(&self) -> Duration {
        let targets = u32::try_from(self.checks.len()).unwrap_or(u32::MAX);
        self.config.check_interval.max(self.gap().saturating_mul(targets))
    }

    /// Between two steady checks of whatever target.
    fn gap(&self) -> Duration {
        self.config.check_interval / self.config.checks_per_interval.max(1)
    }

    fn pace(&self, target: &CheckTarget) -> Pace {
        self.paces.get(&(target.zone.clone(), target.group.clone())).copied().unwrap_or_default()
    }

    /// Whether this one waits for its turn among the steady ones.
    fn takes_turn(&self, target: &CheckTarget, slot: &Slot) -> bool {
        !slot.hurried && slot.round > 0 && self.pace(target) == Pace::Steady
    }

    pub fn set_pace(&mut self, zone: &ZoneId, group: &GroupId, pace: Pace, now: Instant) {
        let old = self.paces.insert((zone.clone(), group.clone()), pace).unwrap_or_default();
        // More often than before, from now on; less often after the next one.
        if pace <= old {
            return;
        }
        for (target, slot) in &mut self.checks {
            if target.zone == *zone && target.group == *group {
                let soon =
                    now + spread(self.config.seed, target, slot.round, self.config.check_interval_moving);
                slot.next = slot.next.min(soon);
            }
        }
    }

    /// Takes over the paces of the schedule before a change of plan.
    pub(super) fn continue_after(&mut self, parent: &Self) {
        self.paces.clone_from(&parent.paces);
    }

    /// The check is over, whatever came of it.
    pub fn handle_done(&mut self, target: &CheckTarget) {
        if let Some(slot) = self.checks.get_mut(target) {
            slot.under_way = None;
        }
    }

    /// Do not wait a whole steady interval for this one: something may be wrong.
    pub fn hurry(&mut self, target: &CheckTarget, now: Instant) {
        if let Some(slot) = self.checks.get_mut(target) {
            let soon = now + spread(self.config.seed, target, slot.round, self.config.check_interval_moving);
            slot.next = slot.next.min(soon);
            slot.hurried = true;
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let give_up = self.config.check_timeout.saturating_mul(2);
        for slot in self.checks.values_mut() {
            slot.under_way = slot.under_way.filter(|&since| now < since + give_up);
        }
        let under_way = self.checks.values().filter(|s| s.under_way.is_some()).count();
        let mut free = self.config.max_checks.saturating_sub(under_way);
        let mut due: Vec<(Instant, bool, CheckTarget)> = self
            .checks
            .iter()
            .filter(|(_, slot)| slot.next <= now && slot.under_way.is_none())
            .map(|(target, slot)| (slot.next, self.takes_turn(target, slot), target.clone()))
            .collect();
        due.sort();
        let (gap, steady) = (self.gap(), self.steady_interval());
        for (_, takes_turn, target) in due {
            if free == 0 {
                break;
            }
            if takes_turn {
                if self.steady_at > now {
                    continue;
                }
                self.steady_at = now + gap;
            }
            let interval = match self.pace(&target) {
                Pace::Steady => steady,
                Pace::Trying => steady.min(self.config.check_interval_moving * TRYING),
                Pace::Moving => self.config.check_interval_moving,
            };
            if let Some(slot) = self.checks.get_mut(&target) {
                free -= 1;
                slot.round += 1;
                slot.hurried = false;
                slot.under_way = Some(now);
                // Between three quarters and five quarters of the interval.
                let jitter = spread(self.config.seed, &target, slot.round, interval / 2);
                slot.next = now + (interval * 3 / 4 + jitter).max(Duration::from_millis(1));
                self.due.push_back(target);
            }
        }
    }

    /// The next check to be done; its end is to be told by [`Self::handle_done`].
    pub fn poll_check(&mut self) -> Option<CheckTarget> {
        self.due.pop_front()
    }

    /// Never in the past of the last `handle_timeout`, so that a driver cannot spin.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let under_way = self.checks.values().filter(|slot| slot.under_way.is_some()).count();
        let give_up = self.config.check_timeout.saturating_mul(2);
        let checks = self.checks.iter().filter_map(|(target, slot)| match slot.under_way {
            Some(since) => Some(since + give_up),
            None if under_way >= self.config.max_checks => None,
            None if self.takes_turn(target, slot) => Some(slot.next.max(self.steady_at)),
            None => Some(slot.next),
        });
        checks.min()
    }
}

/// A duration in `[0, below)` that depends only on the arguments.
fn spread(seed: u64, key: &impl Hash, round: u64, below: Duration) -> Duration {
    let mut hasher = Fnv(seed ^ 0xcbf2_9ce4_8422_2325);
    key.hash(&mut hasher);
    round.hash(&mut hasher);
    // SplitMix64's finaliser: FNV alone leaves the high bits poor.
    let mut x = hasher.finish();
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let micros = u64::try_from(below.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(if micros == 0 { 0 } else { x % micros })
}

/// FNV-1a: the standard library's hasher may change between releases, and a schedule must not.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(seed: u64) -> ScheduleConfig {
        ScheduleConfig {
            check_interval: Duration::from_secs(45),
            checks_per_interval: 7,
            check_interval_moving: Duration::from_secs(2),
            check_timeout: Duration::from_secs(5),
            max_checks: 2,
            seed,
        }
    }

    fn id<T: TryFrom<String>>(text: &str) -> T {
        T::try_from(text.to_owned()).ok().expect("an identifier")
    }

    fn target(service: &str) -> CheckTarget {
        CheckTarget { zone: id("affairs"), group: id("affairs"), service: id(service), path: id("direct") }
    }

    /// All checks of `span` with their times; they take no time.
    fn run(schedule: &mut Schedule, from: Instant, span: Duration) -> Vec<(Instant, CheckTarget)> {
        let mut seen = Vec::new();
        let mut now = from;
        while let Some(next) = schedule.poll_timeout().filter(|&next| next <= from + span) {
            assert!(next >= now, "a timeout in the past makes the driver spin");
            now = next;
            schedule.handle_timeout(now);
            while let Some(target) = schedule.poll_check() {
                schedule.handle_done(&target);
                seen.push((now, target));
            }
        }
        seen
    }

    fn schedule(seed: u64) -> Schedule {
        Schedule::new(config(seed), [target("affairs"), target("idp")], Instant::ZERO)
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_seed_another() {
        let span = Duration::from_secs(300);
        let one = run(&mut schedule(1), Instant::ZERO, span);
        assert_eq!(one, run(&mut schedule(1), Instant::ZERO, span));
        assert_ne!(one, run(&mut schedule(2), Instant::ZERO, span));
    }

    #[test]
    fn checks_are_faster_while_moving_and_slow_again_after() {
        let mut schedule = schedule(1);
        let minute = Duration::from_secs(60);
        run(&mut schedule, Instant::ZERO, minute);
        schedule.set_pace(&id("affairs"), &id("affairs"), Pace::Moving, Instant::ZERO + minute);
        let moving = run(&mut schedule, Instant::ZERO + minute, minute).len();
        assert!((50..=80).contains(&moving), "{moving}");
        schedule.set_pace(&id("affairs"), &id("affairs"), Pace::Trying, Instant::ZERO + minute * 2);
        let trying = run(&mut schedule, Instant::ZERO + minute * 2, minute).len();
        assert!((10..=18).contains(&trying), "{trying}");
        schedule.set_pace(&id("affairs"), &id("affairs"), Pace::Steady, Instant::ZERO + minute * 3);
        let steady = run(&mut schedule, Instant::ZERO + minute * 3, minute).len();
        assert!(steady <= 6, "{steady}");
    }

    #[test]
    fn checks_that_never_report_stay_bounded_and_are_given_up() {
        let targets = ["a", "b", "c", "d"].map(target);
        let mut schedule = Schedule::new(config(1), targets, Instant::ZERO);
        schedule.handle_timeout(Instant::from_millis(2_000));
        let started = std::iter::from_fn(|| schedule.poll_check()).count();
        assert_eq!(started, 2, "no more than max_checks at a time");
        assert_eq!(schedule.poll_timeout(), Some(Instant::from_millis(12_000)));
        schedule.handle_timeout(Instant::from_millis(12_000));
        assert_eq!(std::iter::from_fn(|| schedule.poll_check()).count(), 2, "the others get their turn");
    }

    #[test]
    fn twenty_services_over_two_paths_cost_few_checks_in_every_minute_and_all_have_their_turn() {
        let targets: Vec<CheckTarget> = (0..20)
            .flat_map(|n| {
                ["closed", "direct"].map(|path| CheckTarget { path: id(path), ..target(&format!("s{n}")) })
            })
            .collect();
        let config = ScheduleConfig { max_checks: 8, ..config(1) };
        let mut schedule = Schedule::new(config, targets.clone(), Instant::ZERO);
        let minute = Duration::from_secs(60);
        run(&mut schedule, Instant::ZERO, minute);
        let hour = run(&mut schedule, Instant::ZERO + minute, minute * 60);
        for (from, _) in &hour {
            let within = hour.iter().filter(|(at, _)| at >= from && at.since(*from) < minute).count();
            // About twenty packets each: at most 200.
            assert!(within <= 10, "{within} checks in the minute from {from:?}");
        }
        let longest = schedule.steady_interval() * 2;
        for target in &targets {
            let mut last = Instant::ZERO + minute;
            for (at, _) in hour.iter().filter(|(_, checked)| checked == target) {
                assert!(at.since(last) <= longest, "{target:?} waited {:?}", at.since(last));
                last = *at;
            }
            assert!(last > Instant::ZERO + minute * 50, "{target:?} was forgotten");
        }
    }

    #[test]
    fn a_failure_is_looked_at_again_without_waiting_for_a_turn() {
        let targets: Vec<CheckTarget> = (0..40).map(|n| target(&format!("s{n}"))).collect();
        let config = ScheduleConfig { max_checks: 8, ..config(1) };
        let mut schedule = Schedule::new(config, targets.clone(), Instant::ZERO);
        let now = Instant::ZERO + Duration::from_secs(300);
        run(&mut schedule, Instant::ZERO, Duration::from_secs(300));
        schedule.hurry(&targets[7], now);
        let soon = run(&mut schedule, now, Duration::from_secs(2));
        assert!(soon.iter().any(|(_, checked)| *checked == targets[7]), "{soon:?}");
    }
}
