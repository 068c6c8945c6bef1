//! A wall clock that can be moved: libfaketime under the agent's process. The monotonic clocks stay true.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::params::parse_duration;

/// The towns are in Japan.
const ZONE: &str = "Asia/Tokyo";
/// Of threads, too. Debian names the folder after the architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
const FOLDERS: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];

/// The agent's wall clock, as far as it differs from the true one.
#[derive(Debug)]
pub(super) struct WallClock {
    library: PathBuf,
    /// What the library reads at each look at the clock.
    file: PathBuf,
    seconds_ahead: AtomicI64,
}

impl WallClock {
    pub(super) fn make(folder: &Path) -> Result<Self> {
        let library = FOLDERS
            .iter()
            .map(|folder| Path::new(folder).join(LIBRARY))
            .find(|file| file.is_file())
            .ok_or_else(|| {
                anyhow!("a clock that can be moved needs libfaketime (Debian package faketime)")
            })?;
        let clock = Self { library, file: folder.join("clock"), seconds_ahead: AtomicI64::new(0) };
        clock.set_ahead(0)?;
        Ok(clock)
    }

    /// Arguments for `env`, before the program.
    pub(super) fn wrap(&self, command: &mut Command) {
        command.arg(format!("LD_PRELOAD={}", self.library.display()));
        command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()));
        command.args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"]);
        command.arg("NO_FAKE_STAT=1");
    }

    pub(super) fn seconds_ahead(&self) -> i64 {
        self.seconds_ahead.load(Ordering::Relaxed)
    }

    /// The library must never read half of it: the new file takes the place of the old one at once.
    pub(super) fn set_ahead(&self, seconds: i64) -> Result<()> {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n"))?;
        std::fs::rename(&new, &self.file)?;
        self.seconds_ahead.store(seconds, Ordering::Relaxed);
        Ok(())
    }
}

/// `2h`, `-400d`: a jump.
pub(super) fn jump(text: &str) -> Result<i64> {
    let (sign, amount) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let seconds = match amount.strip_suffix('d').and_then(|days| days.parse::<i64>().ok()) {
        Some(days) => days.checked_mul(86_400),
        None => parse_duration(amount).and_then(|duration| i64::try_from(duration.as_secs()).ok()),
    };
    seconds
        .map(|seconds| sign * seconds)
        .with_context(|| format!("`{text}` is not a jump, as `2h` or `-400d`"))
}

/// `2028-09-02T05:59`, in Japan: how far ahead of `now` that is.
pub(super) fn ahead_of(now: Timestamp, text: &str) -> Result<i64> {
    let civil: DateTime =
        text.parse().with_context(|| format!("`{text}` is not a time, as 2028-09-02T05:59"))?;
    let there = civil.to_zoned(TimeZone::get(ZONE)?)?;
    Ok(there.timestamp().as_second() - now.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_go_both_ways_and_nonsense_is_refused() {
        assert_eq!(jump("2h").unwrap(), 7_200);
        assert_eq!(jump("-400d").unwrap(), -400 * 86_400);
        assert_eq!(jump("-90s").unwrap(), -90);
        for wrong in ["", "tomorrow", "--2h", "d", "9223372036854775807d"] {
            assert!(jump(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_is_meant_in_japan() {
        let now: Timestamp = "2028-09-01T20:58:00Z".parse().unwrap();
        assert_eq!(ahead_of(now, "2028-09-02T05:59").unwrap(), 60);
        assert!(ahead_of(now, "five").is_err());
    }
}
