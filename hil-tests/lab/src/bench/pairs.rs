//! Arms measured in interleaved pairs, A B B A, with pairs thrown away during which others took the machine.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::stats::ratio_interval;
use super::steal::{Stolen, Watch};
use crate::result::{Check, Goal, Status};

/// One measurement of one arm.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub value: f64,
    /// While it was measured; what prepares and clears up does not count.
    pub stolen: Stolen,
}

impl Sample {
    /// For an arm that is measured from its first moment to its last.
    ///
    /// # Errors
    /// Those of the arm.
    pub fn of(arm: impl FnOnce() -> Result<f64>) -> Result<Self> {
        let watch = Watch::begin();
        let value = arm()?;
        Ok(Self { value, stolen: watch.end() })
    }
}

/// How many pairs, and when to give up.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    /// Good pairs wanted: at least 15.
    pub wanted: usize,
    /// No pair begins later than this.
    pub within: Duration,
    /// Share of stolen time above which a pair does not count.
    pub steal: f64,
}

impl Default for Pairs {
    fn default() -> Self {
        Self { wanted: 25, within: Duration::from_secs(40), steal: 0.01 }
    }
}

impl Pairs {
    /// Fewer than these decide nothing.
    const LEAST: usize = 15;
}

/// Measures `ours / theirs` (`numerator / denominator`) and judges it. More pairs are taken while the answer is unclear.
///
/// # Errors
/// An arm failed.
pub fn run_pairs(
    name: &str,
    pairs: Pairs,
    goal: Goal,
    mut numerator: impl FnMut() -> Result<Sample>,
    mut denominator: impl FnMut() -> Result<Sample>,
) -> Result<Check> {
    let begin = Instant::now();
    let mut ratios = Vec::new();
    let mut tried = 0;
    // Both arms once for nothing: caches, neighbours, the kernel's slabs.
    numerator()?;
    denominator()?;
    loop {
        let (a, b) = if tried % 2 == 0 {
            let a = numerator()?;
            (a, denominator()?)
        } else {
            let b = denominator()?;
            (numerator()?, b)
        };
        tried += 1;
        let calm = a.stolen.and(b.stolen).share() <= pairs.steal;
        if calm && b.value > 0.0 {
            ratios.push(a.value / b.value);
        }
        let late = begin.elapsed() > pairs.within;
        if !late && (!calm || ratios.len() < pairs.wanted) {
            continue;
        }
        let check = judge(name, &ratios, goal);
        if late || check.status != Status::Unclear {
            return Ok(match tried - ratios.len() {
                0 => check,
                thrown => check.with_note(format!("{thrown} of {tried} pairs thrown away: stolen time")),
            });
        }
    }
}

fn judge(name: &str, ratios: &[f64], goal: Goal) -> Check {
    match ratio_interval(ratios, ratios.len() as u64) {
        Some((middle, interval)) if ratios.len() >= Pairs::LEAST => {
            Check::ratio(name, middle, interval, ratios.len(), goal)
        }
        _ => Check { n: Some(ratios.len()), ..Check::number(name, None, "ratio", goal) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Pairs = Pairs { wanted: 15, within: Duration::from_secs(3600), steal: 0.01 };

    fn calm(value: f64) -> Result<Sample> {
        Ok(Sample { value, stolen: Stolen::default() })
    }

    #[test]
    fn arms_are_interleaved_a_b_b_a_after_one_round_of_each() {
        let order = std::cell::RefCell::new(String::new());
        let arm = |name| {
            order.borrow_mut().push(name);
            calm(1.0)
        };
        let check = run_pairs("r", CALM, Goal::AtLeast(0.9), || arm('A'), || arm('B')).unwrap();
        assert!(order.borrow().starts_with("ABABBAABBA"), "{}", order.borrow());
        assert_eq!((check.status, check.n), (Status::Pass, Some(15)));
    }

    #[test]
    fn noise_around_the_goal_is_unclear_even_after_all_pairs() {
        let mut turn = 0;
        let wobbling = || {
            turn += 1;
            calm(if turn % 2 == 0 { 0.9 } else { 1.1 })
        };
        let brief = Pairs { within: Duration::from_millis(20), ..CALM };
        let check = run_pairs("r", brief, Goal::AtLeast(1.0), wobbling, || calm(1.0)).unwrap();
        assert_eq!(check.status, Status::Unclear);
    }

    #[test]
    fn pairs_during_which_others_took_the_machine_do_not_count() {
        let all = Duration::from_secs(1);
        let mut turn = 0;
        let check = run_pairs(
            "r",
            CALM,
            Goal::AtLeast(0.9),
            || {
                turn += 1;
                let stolen = Stolen::for_test(if turn % 2 == 0 { all / 10 } else { Duration::ZERO }, all);
                Ok(Sample { value: if turn % 2 == 0 { 0.1 } else { 1.0 }, stolen })
            },
            || calm(1.0),
        )
        .unwrap();
        assert_eq!((check.status, check.n, check.value), (Status::Pass, Some(15), Some(1.0)));
        assert!(check.note.unwrap().contains("thrown away"));
    }

    #[test]
    fn too_few_good_pairs_are_unclear_whatever_they_say() {
        let brief = Pairs { within: Duration::ZERO, ..CALM };
        let check = run_pairs("r", brief, Goal::AtLeast(0.9), || calm(1.0), || calm(1.0)).unwrap();
        assert_eq!((check.status, check.value), (Status::Unclear, None));
    }
}
