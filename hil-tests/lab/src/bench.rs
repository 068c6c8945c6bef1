//! Benches: ratios of interleaved pairs, within one run.

mod acceptance;
mod cost;
mod flood;
mod frames;
mod gate;
mod generator;
mod groups;
mod hub;
mod judgement;
mod lived;
mod pairs;
mod policy;
mod stats;
mod steady;
mod steal;
mod tunnel;

use std::path::Path;

use anyhow::{Result, bail};

pub use pairs::{Pairs, Sample, run_pairs};
pub use stats::{median, ratio_interval};
pub use steal::{Stolen, Watch};

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
    ("policy", "what passes without a policy", policy::policy),
    ("footprint", "size, memory, and work while idle", lived::footprint),
    ("hub", "a hub's packets and memory as schools grow", hub::hub),
    ("tunnel", "a tunnel in user space against wireguard-go", tunnel::tunnel),
    ("death", "the new line dies silently", lived::death),
    ("deathlimit", "a silent death, against what is unavoidable", judgement::death_limit),
    ("brownout", "a line that carries packets badly", judgement::brownout),
    ("probes", "packets to others' services at rest", judgement::probes),
    ("falsemoves", "a hundred hours of loss", judgement::false_moves),
    ("demo", "the demo's moves", lived::moves),
    ("acceptance", "the acceptance test, with everything well and with faults", acceptance::acceptance),
];

/// Measures all groups, or one.
///
/// # Errors
/// No group has that name. A group that fails is an `unclear` check with the reason.
pub fn run(only: Option<&str>, bin_dir: &Path, say: &mut dyn FnMut(&str)) -> Result<Results> {
    // The moves' latency is measured apart from the moves themselves; who asks for moves means both.
    let wanted = |group: &str| only.is_none_or(|only| only == group || (only == "move" && group == "demo"));
    let known = GROUPS.iter().map(|(name, ..)| *name);
    if let Some(only) = only
        && !known.clone().any(|name| name == only)
    {
        let names: Vec<&str> = known.collect();
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
    Ok(Results::new("bench", only.unwrap_or("all"), 1, checks))
}
