//! When a client works and when it is quiet: `life`, then `pause`, over and over.

use std::time::{Duration, Instant};

use super::spec::LoadSpec;

/// One client's hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shift {
    origin: Instant,
    life: Duration,
    cycle: Duration,
    /// How far into its cycle the client was at `origin`.
    offset: Duration,
}

impl Shift {
    /// None: the load has no pause, its clients never rest. The phase depends on the device and the time since `origin`
    /// alone, so that all loads with the same hours leave a device quiet at the same time; phases of devices are spread
    /// evenly, whatever their number.
    pub(super) fn new(spec: &LoadSpec, device: usize, origin: Instant) -> Option<Self> {
        let (life, pause) = (spec.life?, spec.pause?);
        let cycle = life + pause;
        if pause.is_zero() || cycle.is_zero() {
            return None;
        }
        let offset = cycle.mul_f64(spread(u32::try_from(device).unwrap_or(0)));
        Some(Self { origin, life, cycle, offset })
    }

    /// How long the client is still quiet at `now`; None: it works.
    pub(super) fn quiet(&self, now: Instant) -> Option<Duration> {
        let passed =
            (now.saturating_duration_since(self.origin) + self.offset).as_nanos() % self.cycle.as_nanos();
        let passed = Duration::from_nanos(u64::try_from(passed).unwrap_or(0));
        (passed >= self.life).then(|| self.cycle.saturating_sub(passed))
    }

    /// Share of its time that the client works.
    pub(super) fn share(&self) -> f64 {
        (self.life.as_secs_f64() / self.cycle.as_secs_f64()).max(0.01)
    }
}

/// A share from 0 to 1 for each number; any run of numbers is spread evenly (multiples of the golden ratio).
pub(super) fn spread(number: u32) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    (f64::from(number) * GOLDEN).fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::spec::Kind;

    #[test]
    fn at_any_time_about_the_same_share_of_clients_works() {
        let spec = LoadSpec {
            life: Some(Duration::from_secs(6)),
            pause: Some(Duration::from_secs(7)),
            ..LoadSpec::new("drill", "learning", Kind::Udp)
        };
        let origin = Instant::now();
        let shifts: Vec<Shift> = (0..39).filter_map(|device| Shift::new(&spec, device, origin)).collect();
        assert_eq!(shifts.len(), 39);
        for second in 0..60 {
            let now = origin + Duration::from_secs(second);
            let working = shifts.iter().filter(|shift| shift.quiet(now).is_none()).count();
            assert!((16..=20).contains(&working), "{working} of 39 at {second} s");
        }
    }

    #[test]
    fn a_client_is_quiet_without_interruption_for_the_whole_pause() {
        let spec = LoadSpec {
            life: Some(Duration::from_secs(2)),
            pause: Some(Duration::from_secs(3)),
            ..LoadSpec::new("pupils", "learning", Kind::Request)
        };
        let origin = Instant::now();
        let shift = Shift::new(&spec, 0, origin).unwrap();
        assert_eq!(shift.quiet(origin + Duration::from_millis(1999)), None);
        assert_eq!(shift.quiet(origin + Duration::from_millis(2000)), Some(Duration::from_secs(3)));
        assert_eq!(shift.quiet(origin + Duration::from_millis(4999)), Some(Duration::from_millis(1)));
        assert_eq!(shift.quiet(origin + Duration::from_millis(5000)), None);
        assert_eq!(Shift::new(&LoadSpec { pause: None, ..spec }, 0, origin), None);
    }
}
