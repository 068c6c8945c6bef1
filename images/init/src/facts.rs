//! What the image found out about its box, a file each in /run/seimon-facts, and words for the console.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use crate::{Doing as _, Result};

pub const FOLDER: &str = "/run/seimon-facts";

/// # Errors
/// /run cannot be written.
pub fn note(name: &str, value: &str) -> Result<()> {
    fs::create_dir_all(FOLDER).doing(FOLDER)?;
    fs::write(Path::new(FOLDER).join(name), format!("{value}\n")).doing(name)
}

/// `None`: not known.
pub fn noted(name: &str) -> Option<String> {
    Some(fs::read_to_string(Path::new(FOLDER).join(name)).ok()?.trim().to_owned())
}

/// Milliseconds since the kernel began.
pub fn uptime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec * 1000 + now.tv_nsec / 1_000_000).unwrap_or(0)
}

/// How loud a line is; the console shows what is louder than the command line's `loglevel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Somebody must come.
    Alert = 1,
    Warning = 4,
    /// In the log only.
    Information = 6,
}

/// To the kernel's log, and with it to every console. Without /dev/kmsg nobody can be told.
pub fn say(level: Level, text: &str) {
    if let Ok(mut log) = fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        // One write is one line.
        let _unheard = log.write_all(format!("<{}>seimon: {text}\n", level as u8).as_bytes());
    }
}
