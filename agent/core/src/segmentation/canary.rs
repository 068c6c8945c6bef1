//! Who tries a new path first: rooms by address, and a share of all clients by hardware address.
//!
//! ```text
//!  zg_<n> ─ affinity first ─▶ use_<n>_<path so far>
//!    │
//!    └─ @canary (only while one is under way) ─▶ pick_<n>_<candidate> ─ one of them? ─▶ use_<n>_<candidate>
//!                                                        └─ no ─▶ @current, as everybody
//! ```
//! A canary begins and ends with one element of the map. Who has begun on the candidate is kept there by affinity, as anywhere;
//! who is in the middle of work on the old path stays there.

use std::collections::BTreeMap;

use ipnet::IpNet;
use seimon_plan::Canary;

use super::builder::Builder;
use crate::network_plan::{
    CANARY, CURRENT, CompileError, KeyType, Mark, REFUSE, RouteGround, Terrain, ValueType, pick_chain,
    use_chain,
};

/// With the group's number: other groups have other clients try first.
const SEED: u32 = 0x5e1f_0000;

fn canary_of<'a>(terrain: &Terrain<'a>, route: &RouteGround<'_>) -> Option<&'a Canary> {
    let of = |r: &&seimon_plan::MigrationRoute| r.zone == *route.zone && r.group == *route.group;
    terrain.plan.migration.routes.iter().find(of)?.canary.as_ref()
}

/// The rule that sends new flows through the choice, if the plan has one for this group.
pub(super) fn rule(terrain: &Terrain<'_>, route: &RouteGround<'_>) -> Option<String> {
    canary_of(terrain, route).map(|_| format!("ct mark & {:#x} vmap @{CANARY}", Mark::OURS))
}

/// Nothing where the plan has no canary.
pub(super) fn chains(terrain: &Terrain<'_>, builder: &mut Builder) -> Result<(), CompileError> {
    let mut any = false;
    for route in &terrain.routes {
        let Some(canary) = canary_of(terrain, route) else { continue };
        any = true;
        for id in &route.paths {
            pick(terrain, builder, route, canary, terrain.path(id)?.index);
        }
    }
    if any {
        builder.runtime_map(CANARY, &[KeyType::Mark], ValueType::Verdict, BTreeMap::new());
    }
    Ok(())
}

fn pick(
    terrain: &Terrain<'_>,
    builder: &mut Builder,
    route: &RouteGround<'_>,
    canary: &Canary,
    path: crate::network_plan::PathIndex,
) {
    let who = format!("zone {}, group {}", route.zone, route.group);
    let there = use_chain(route.index, path);
    let mut chain = builder.chain(pick_chain(route.index, path));
    for id in &canary.rooms {
        let Some(room) = terrain.plan.migration.rooms.get(id) else { continue };
        for net in &room.prefixes {
            let ip = match net {
                IpNet::V4(_) => "ip",
                IpNet::V6(_) => "ip6",
            };
            let because = format!("{who}: room {id} tries the new path first");
            chain.rule(format!("{ip} saddr {} goto {there}", net.trunc()), because);
        }
    }
    if canary.share > 0 {
        let seed = SEED | u32::from(route.index.0);
        chain.rule(
            format!("jhash ether saddr mod 100 seed {seed:#x} < {} goto {there}", canary.share),
            format!("{who}: {} in a hundred clients try the new path first", canary.share),
        );
    }
    chain
        .rule(format!("ct mark & {:#x} vmap @{CURRENT}", Mark::OURS), format!("{who}: the current path"))
        .rule(format!("goto {REFUSE}"), format!("{who}: no path"));
}
