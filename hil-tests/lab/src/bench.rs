//! Benches: ratios of interleaved pairs, within one run.

mod gate;
mod groups;
mod pairs;
mod stats;

use std::path::Path;

use anyhow::{Result, bail};

pub use pairs::{Pairs, run_pairs};
pub use stats::{median, ratio_interval};

use crate::result::{Check, Goal, Results};

/// What a group needs.
#[derive(Debug)]
pub struct Bench<'a> {
    /// Folder of the gateway's programs.
    pub bin_dir: &'a Path,
}

type Group = fn(&Bench<'_>, &mut dyn FnMut(&str)) -> Result<Vec<Check>>;

/// The groups of `--only`, in the order they are measured.
const GROUPS: &[(&str, &str, Group)] = &[
    ("forward", "steady forwarding against the bare ruleset", groups::forward),
    ("newconn", "new connections a second", groups::newconn),
    ("firstpacket", "cost of first packets as permits grow", groups::firstpacket),
    ("move", "a move's latency as sets grow", groups::moving),
    ("footprint", "binary size", footprint),
];

/// Checks that this version does not measure yet: they are in every result, as `unclear`, so that nobody takes silence
/// for success.
const NOT_YET: &[(&str, &str, &str, Goal)] = &[
    ("death", "silent_death_ms", "ms", Goal::AtMost(3000.0)),
    ("policy", "before_policy_packets", "packets", Goal::Equal(0.0)),
];

/// Measures all groups, or one.
///
/// # Errors
/// No group has that name. A group that fails is an `unclear` check with the reason.
pub fn run(only: Option<&str>, bin_dir: &Path, say: &mut dyn FnMut(&str)) -> Result<Results> {
    let wanted = |group: &str| only.is_none_or(|only| only == group);
    let known = GROUPS.iter().map(|(name, ..)| *name).chain(NOT_YET.iter().map(|(name, ..)| *name));
    if let Some(only) = only
        && !known.clone().any(|name| name == only)
    {
        let mut names: Vec<&str> = known.collect();
        names.dedup();
        bail!("no group `{only}`; there are: {}", names.join(", "));
    }
    let bench = Bench { bin_dir };
    let mut checks = Vec::new();
    for (name, about, group) in GROUPS.iter().filter(|(name, ..)| wanted(name)) {
        say(&format!("== {name}: {about}"));
        match group(&bench, say) {
            Ok(more) => checks.extend(more),
            Err(error) => {
                say(&format!("   {error:#}"));
                checks.push(
                    Check::number(*name, None, "0 or 1", Goal::Equal(1.0)).with_note(format!("{error:#}")),
                );
            }
        }
    }
    for (_, name, unit, goal) in NOT_YET.iter().filter(|(group, ..)| wanted(group)) {
        checks.push(Check::number(*name, None, unit, *goal).with_note("not measured by this version"));
    }
    Ok(Results::new("bench", only.unwrap_or("all"), 1, checks))
}

fn footprint(bench: &Bench<'_>, _: &mut dyn FnMut(&str)) -> Result<Vec<Check>> {
    let bytes = std::fs::metadata(bench.bin_dir.join("seimon-agent"))?.len();
    let size = bytes as f64 / (1024.0 * 1024.0);
    Ok(vec![Check::number("agent_binary_mib", Some(size), "MiB", Goal::AtMost(12.0))])
}
