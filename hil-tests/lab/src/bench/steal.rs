//! How much of the processors others took while something was measured.

use std::time::{Duration, Instant};

/// What /proc/stat counts in.
const TICK: Duration = Duration::from_millis(10);

/// Time of the machine's processors, and how much of it was stolen by other machines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stolen {
    stolen: Duration,
    all: Duration,
}

impl Stolen {
    /// Of several measurements together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { stolen: self.stolen + other.stolen, all: self.all + other.all }
    }

    #[cfg(test)]
    pub(super) fn for_test(stolen: Duration, all: Duration) -> Self {
        Self { stolen, all }
    }

    /// 0 if nothing was measured.
    pub fn share(self) -> f64 {
        if self.all.is_zero() { 0.0 } else { self.stolen.as_secs_f64() / self.all.as_secs_f64() }
    }
}

/// Begun with a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    begin: Instant,
    ticks: u32,
    processors: u32,
}

impl Watch {
    pub fn begin() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        Self { begin: Instant::now(), ticks: ticks(), processors }
    }

    pub fn end(self) -> Stolen {
        Stolen {
            stolen: TICK * ticks().saturating_sub(self.ticks),
            all: self.begin.elapsed() * self.processors,
        }
    }
}

fn ticks() -> u32 {
    std::fs::read_to_string("/proc/stat").ok().and_then(|stat| parse(&stat)).unwrap_or(0)
}

/// The eighth number of `cpu user nice system idle iowait irq softirq steal guest guest_nice`.
fn parse(stat: &str) -> Option<u32> {
    stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_read_from_the_eighth_column() {
        assert_eq!(parse("cpu  150 0 100 840 3 4 5 10 7 8\ncpu0 1 1 1 1 1 1 1 1 1 1\n"), Some(10));
        assert_eq!(parse("cpu0 1 1 1 1 1 1 1 1 1 1\n"), None);
    }

    #[test]
    fn measurements_are_weighed_by_their_length() {
        let short = Stolen { stolen: TICK, all: 10 * TICK };
        let long = Stolen { stolen: Duration::ZERO, all: 90 * TICK };
        assert!((short.and(long).share() - 0.01).abs() < 1e-9);
    }
}
