//! Which flows leave the rules: those under way whose packets need nothing any more. Where the kernel has flowtables, their
//! packets are taken at the interface that they come in by, translated, and sent out by the route of their path.
//!
//! ```text
//!  between ─ established, mark in @swift ─▶ flowtable ─ deleted from connection tracking, ended, silent, route gone ─▶ the rules
//! ```
//! A flow's path is in its mark, and its route was found by that mark: a move changes neither. Bytes go on being counted for
//! each flow. What has been taken out of the plan is taken out of connection tracking ([`super::ended`]), and so out of here.
//!
//! Not in `swift`: emergency lines, for how much they carry is measured packet by packet.

use std::collections::BTreeSet;

use super::builder::Builder;
use crate::network_plan::{Flowtable, Key, KeyPart, KeyType, Mark, Ruleset, Terrain};

const SWIFT: &str = "swift";

pub(super) fn entry() -> (String, &'static str) {
    let rule = format!(
        "ct state established ct mark & {:#x} @{SWIFT} flow add @{}",
        Mark::PATH_MASK,
        Ruleset::FLOWTABLE
    );
    (rule, "flows under way go on without further questions")
}

/// Bridges, not their ports: a client that is plugged in elsewhere is found there by the bridge, as ever.
pub(super) fn declare(terrain: &Terrain<'_>, builder: &mut Builder) {
    let paths = terrain.paths.values().filter(|path| !terrain.plan.is_emergency(path.id));
    let marks = paths.map(|path| path.index.mark()).chain([Mark(Mark::LOCAL)]);
    builder.set(SWIFT, &[KeyType::Mark], marks.map(|mark| Key(vec![KeyPart::Mark(mark)])).collect());
    let zones = terrain.zones.values().map(|zone| zone.bridge.clone());
    let uplinks = terrain.paths.values().map(|path| path.uplink.clone());
    let devices: BTreeSet<_> = zones.chain(uplinks).collect();
    builder.flowtable(Flowtable { devices });
}
