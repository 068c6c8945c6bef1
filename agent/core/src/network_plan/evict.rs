//! Ending flows that may be in the flowtable.

use super::change::{ApplyError, Change, ChangeSet, Dataplane, FlowKill};
use super::render::flowtable_devices;
use super::ruleset::Ruleset;
use super::transaction::nft_diff;

/// Deletes the flows, from the flowtable as well. `ruleset` is what is in force.
///
/// Linux before 6.4 may refuse to delete a connection while it is in a flowtable (later 6.1 do not). There the flowtable is taken away for a moment: all
/// flows are back at the rules, those that are to end are deleted, and the others find their way in again with their next packet.
pub fn end_flows(
    dataplane: &mut impl Dataplane,
    ruleset: &Ruleset,
    kill: &FlowKill,
) -> Result<(), ApplyError> {
    let once = |change: Change| ChangeSet { changes: vec![change] };
    let outcome = dataplane.apply(&once(Change::Kill(kill.clone())));
    let (Err(ApplyError::Offloaded { .. }), Some(flowtable)) = (&outcome, &ruleset.flowtable) else {
        return outcome;
    };
    let plain = ruleset.clone().without_flowtable();
    let script = |from: &Ruleset, to: &Ruleset| nft_diff(from, to).map(|script| Change::Nft { script });
    dataplane.apply(&ChangeSet { changes: script(ruleset, &plain).into_iter().collect() })?;
    let killed = dataplane.apply(&once(Change::Kill(kill.clone())));
    let devices = flowtable_devices(&Default::default(), &flowtable.devices);
    let back = script(&plain, ruleset).into_iter().chain(devices.map(|script| Change::Nft { script }));
    dataplane.apply(&ChangeSet { changes: back.collect() })?;
    killed
}
