//! The two clocks, read in one place and passed to everything else as values.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use seimon_board::Instant;

/// systemd-timesyncd makes this file when the clock has been synchronised since boot.
pub(crate) const TIMESYNC_FILE: &str = "/run/systemd/timesync/synchronized";

/// A clock that is put right by so little has not jumped.
const PUT_RIGHT: SignedDuration = SignedDuration::from_secs(30);

/// Reads `CLOCK_BOOTTIME`, the wall clock, and whether the wall clock deserves trust.
#[derive(Debug)]
pub(crate) struct Clock {
    trust_file: PathBuf,
    /// The latest wall time that was ever written down: the clock cannot be earlier than that.
    floor: Timestamp,
    synchronised: bool,
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) mono: Instant,
    pub(crate) wall: Timestamp,
    pub(crate) trusted: bool,
    /// By which permits run out: the wall clock where it is trusted, else the latest time that was once written down, so that
    /// a clock that runs wild cannot close a school.
    pub(crate) calendar: Timestamp,
}

impl Clock {
    pub(crate) fn new(trust_file: Option<&Path>, floor: Option<Timestamp>) -> Self {
        let mut clock = Self {
            trust_file: trust_file.unwrap_or(Path::new(TIMESYNC_FILE)).to_owned(),
            floor: floor.unwrap_or(Timestamp::UNIX_EPOCH),
            synchronised: false,
        };
        clock.look();
        clock
    }

    /// Asks anew whether the clock has been synchronised: now and then, not at every reading.
    pub(crate) fn look(&mut self) {
        self.synchronised = self.trust_file.exists();
    }

    pub(crate) fn raise_floor(&mut self, to: Timestamp) {
        self.floor = self.floor.max(to);
    }

    pub(crate) fn now(&self) -> Reading {
        let wall = Timestamp::now();
        let trusted =
            wall.saturating_add(PUT_RIGHT).is_ok_and(|wall| wall >= self.floor) && self.synchronised;
        Reading { mono: monotonic(), wall, trusted, calendar: if trusted { wall } else { self.floor } }
    }
}

/// Time since boot, time asleep included.
pub(crate) fn monotonic() -> Instant {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Instant::from_micros(seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000)
}

/// Changes at each boot; instants of [`monotonic`] compare only while it stays the same.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// Identity of this machine, for the journal: one that was copied from another box is refused.
pub(crate) fn machine_id() -> String {
    std::fs::read_to_string("/etc/machine-id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_behind_the_floor_is_not_trusted_even_if_synchronised() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("synchronized");
        let mut clock = Clock::new(Some(&file), None);
        assert!(!clock.now().trusted);
        std::fs::write(&file, "").unwrap();
        clock.look();
        assert!(clock.now().trusted);
        let later = Timestamp::now() + SignedDuration::from_hours(1);
        clock.raise_floor(later);
        assert!(!clock.now().trusted);
        assert_eq!(clock.now().calendar, later, "permits go by what is known");
    }

    #[test]
    fn a_clock_that_is_put_right_by_a_little_is_still_trusted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut clock = Clock::new(Some(file.path()), None);
        clock.raise_floor(Timestamp::now() + SignedDuration::from_secs(5));
        assert!(clock.now().trusted);
    }
}
