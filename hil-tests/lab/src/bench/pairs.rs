//! Arms measured in interleaved pairs, A B B A, with pairs thrown away during which others took the machine.

use anyhow::Result;

use super::stats::ratio_interval;
use crate::result::{Check, Goal};

/// How many pairs, and when to give up.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    /// Good pairs wanted: at least 15.
    pub wanted: usize,
    /// Pairs tried at most, the thrown-away ones included.
    pub most: usize,
    /// Share of stolen time above which a pair does not count.
    pub steal: f64,
}

impl Pairs {
    /// For arms that take a fraction of a second: more of them may be thrown away.
    pub const SHORT: Self = Self { wanted: 21, most: 120, steal: 0.01 };
}

impl Default for Pairs {
    fn default() -> Self {
        Self { wanted: 15, most: 45, steal: 0.01 }
    }
}

/// Measures `ours / theirs` (`numerator / denominator`) and judges it. More pairs are taken while the answer is unclear.
///
/// # Errors
/// An arm failed.
pub fn run_pairs(
    name: &str,
    pairs: Pairs,
    goal: Goal,
    mut numerator: impl FnMut() -> Result<f64>,
    mut denominator: impl FnMut() -> Result<f64>,
) -> Result<Check> {
    let mut ratios = Vec::new();
    let mut thrown = 0;
    for pair in 0..pairs.most {
        let before = CpuTimes::now();
        let (a, b) = if pair % 2 == 0 {
            let a = numerator()?;
            (a, denominator()?)
        } else {
            let b = denominator()?;
            (numerator()?, b)
        };
        if CpuTimes::now().stolen_since(before) > pairs.steal {
            thrown += 1;
            continue;
        }
        if b > 0.0 {
            ratios.push(a / b);
        }
        if ratios.len() < pairs.wanted {
            continue;
        }
        if let Some(check) = judge(name, &ratios, goal)
            && check.status != crate::result::Status::Unclear
        {
            return Ok(note(check, thrown));
        }
    }
    match judge(name, &ratios, goal) {
        Some(check) if ratios.len() >= pairs.wanted => Ok(note(check, thrown)),
        _ => Ok(Check::number(name, None, "ratio", goal).with_note(format!(
            "only {} good pairs; {thrown} thrown away because others took the processor",
            ratios.len()
        ))),
    }
}

fn judge(name: &str, ratios: &[f64], goal: Goal) -> Option<Check> {
    let (middle, interval) = ratio_interval(ratios, ratios.len() as u64)?;
    Some(Check::ratio(name, middle, interval, ratios.len(), goal))
}

fn note(check: Check, thrown: usize) -> Check {
    if thrown == 0 { check } else { check.with_note(format!("{thrown} pairs thrown away: stolen time")) }
}

/// From the first line of /proc/stat.
#[derive(Clone, Copy, Debug, Default)]
struct CpuTimes {
    all: u64,
    stolen: u64,
}

impl CpuTimes {
    fn now() -> Self {
        std::fs::read_to_string("/proc/stat").ok().and_then(|s| Self::parse(&s)).unwrap_or_default()
    }

    /// `cpu user nice system idle iowait irq softirq steal guest guest_nice`; guest time is part of user.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<u64> = stat
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            .filter_map(|f| f.parse().ok())
            .collect();
        Some(Self { all: fields.iter().take(8).sum(), stolen: *fields.get(7)? })
    }

    fn stolen_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all);
        if all == 0 { 0.0 } else { self.stolen.saturating_sub(before.stolen) as f64 / all as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Status;

    const CALM: Pairs = Pairs { wanted: 15, most: 45, steal: 2.0 };

    #[test]
    fn arms_are_interleaved_a_b_b_a() {
        let order = std::cell::RefCell::new(String::new());
        let check = run_pairs(
            "r",
            CALM,
            Goal::AtLeast(0.9),
            || {
                order.borrow_mut().push('A');
                Ok(1.0)
            },
            || {
                order.borrow_mut().push('B');
                Ok(1.0)
            },
        )
        .unwrap();
        assert!(order.borrow().starts_with("ABBAABBA"), "{}", order.borrow());
        assert_eq!((check.status, check.n), (Status::Pass, Some(15)));
    }

    #[test]
    fn noise_around_the_goal_is_unclear_even_after_all_pairs() {
        let mut turn = 0;
        let wobbling = || {
            turn += 1;
            Ok(if turn % 2 == 0 { 0.9 } else { 1.1 })
        };
        let check = run_pairs("r", CALM, Goal::AtLeast(1.0), wobbling, || Ok(1.0)).unwrap();
        assert_eq!(check.status, Status::Unclear);
    }

    #[test]
    fn stolen_time_is_read_from_the_eighth_column() {
        let before = CpuTimes::parse("cpu  100 0 100 800 0 0 0 0 0 0\n").unwrap();
        let after = CpuTimes::parse("cpu  150 0 100 840 0 0 0 10 0 0\n").unwrap();
        assert!((after.stolen_since(before) - 0.1).abs() < 1e-9);
    }
}
