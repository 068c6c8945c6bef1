//! A small town around one gateway, and the agent in it.
//!
//! ```text
//! affairs  10.20.1.100 ── lan1 ┐      ┌ wan1 ── carrier   10.10.0.2, 10.50.0.53 (DNS), 203.0.113.7 (echo)
//! learning 10.20.2.100 ── lan2 ┼─ gw ─┤
//! printers 10.20.3.100 ── lan3 ┘      └ wan2 ── internet  192.0.2.1, 203.0.113.53 (DNS), 203.0.113.7 (echo)
//! ```

pub(crate) mod agent;
pub(crate) mod control;
pub(crate) mod kernel;
pub(crate) mod traffic;
pub(crate) mod world;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks again and again until there is an answer. For what takes its time, never for what must hold all the time.
pub(crate) fn eventually<T>(
    within: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if begun.elapsed() > within {
            bail!("not within {within:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// [`eventually`] for a condition.
pub(crate) fn until(within: Duration, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    eventually(within, what, || Ok(holds()?.then_some(())))
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
