//! What a start needs: to be alone, to hear of the kernel's changes, and to go on where the run before this one was.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};
use seimon_core::health::HealthConfig;
use seimon_core::migration::{BootId, Checkpoint, Config, Machine, Mechanisms, ZoneGroup};
use seimon_core::network_plan::PathChoice;
use seimon_dataplane::Watch;
use seimon_ipc::control::Bilingual;
use seimon_plan::ValidSitePlan;
use tokio::io::unix::AsyncFd;

use crate::clock::Reading;
use crate::conduct::bare_view;
use crate::events::Happening;
use crate::network::{Choices, Trials};
use crate::sabotage::Sabotage;

/// One agent for a runtime directory, as long as the file is open.
pub(crate) fn alone(runtime_dir: &Path) -> Result<File> {
    let path = runtime_dir.join("agent.lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("{}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            anyhow::bail!("an agent is already running here: {} is in use", path.display())
        }
        Err(error) => Err(error).with_context(|| format!("{} cannot be locked", path.display())),
    }
}

pub(crate) fn register(watch: Watch) -> Result<AsyncFd<Watch>> {
    #[expect(unsafe_code, reason = "tokio has no other way to wait for a descriptor of our own")]
    // SAFETY: the descriptor is owned by the `Watch`, which the `AsyncFd` owns in turn; a `Watch` returns the same one for
    // its whole life and closes it only when dropped, after the `AsyncFd` has deregistered it.
    let registered = unsafe { AsyncFd::register(watch) };
    registered.map_err(std::io::Error::from).context("the kernel's notifications")
}

type Restored = (BTreeMap<ZoneGroup, Machine>, Choices, Vec<Happening>);

/// A machine for every route, continuing from its checkpoint where there is a believable one.
pub(crate) fn restore_machines(
    plan: &ValidSitePlan,
    mechanisms: Mechanisms,
    checkpoint: impl Fn(&ZoneGroup) -> Option<Checkpoint>,
    boot: &BootId,
    now: Reading,
) -> Restored {
    let (mut machines, mut choices, mut happenings) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for route in plan.routes() {
        let config = Config::from_plan(plan, route, mechanisms);
        let zone_group = config.zone_group.clone();
        let view = bare_view(plan, boot, now);
        let machine = match checkpoint(&zone_group) {
            None => Machine::new(config, &view, now.mono),
            Some(saved) => {
                Machine::restore_or_rest(config, &saved, &view, now.mono).map(|(machine, error)| {
                    if let Some(error) = error {
                        let text = error.to_string();
                        happenings.push(Happening {
                            kind: "agent",
                            zone: Some(zone_group.zone.clone()),
                            group: Some(zone_group.group.clone()),
                            reason: Bilingual {
                                ja: format!("前回の記録を使えないため、安全な経路から始めます（{text}）"),
                                en: format!(
                                    "the checkpoint is not usable, starting on the safe path: {text}"
                                ),
                            },
                            ..Happening::default()
                        });
                    }
                    machine
                })
            }
        };
        // No valid plan has a route without paths.
        let Some(machine) = machine else { continue };
        let choice = PathChoice::On(machine.current().clone());
        choices.insert((zone_group.zone.clone(), zone_group.group.clone()), choice);
        machines.insert(zone_group, machine);
    }
    (machines, choices, happenings)
}

/// Canaries that go on.
pub(super) fn trials_of(machines: &BTreeMap<ZoneGroup, Machine>) -> Trials {
    let trial = |(group, machine): (&ZoneGroup, &Machine)| {
        Some(((group.zone.clone(), group.group.clone()), machine.state().trial()?.clone()))
    };
    machines.iter().filter_map(trial).collect()
}

/// What the plan asks to be examined.
pub(crate) fn health_config(plan: &ValidSitePlan, sabotage: &Sabotage) -> HealthConfig {
    let mut config = HealthConfig::from_plan(plan, seed(plan));
    if sabotage.off("liveness") {
        config.thresholds.down_lost = u32::MAX;
    }
    if sabotage.off("patience") {
        (config.thresholds.down_lost, config.thresholds.down_of, config.more_in_row) = (1, 1, 0);
    }
    config
}

/// Different for each site, so that thousands of sites do not ask at the same instant.
fn seed(plan: &ValidSitePlan) -> u64 {
    crate::store::digest(plan.site.id.as_str().as_bytes())
}
