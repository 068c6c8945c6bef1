//! Who tries a new path first: rooms by address, ports of the gateway, and a share of all clients by hardware address.
//!
//! Routing sees a bridge, not the port behind it. So what comes in by a port that a canary names is looked at before the bridge
//! (`port_<…>`), and the hardware address goes into a set (`at_<…>`), fresh for each packet and forgotten soon after the last.
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

use std::net::IpAddr;

use ipnet::IpNet;
use seimon_board::{InterfaceName, MacAddress};
use seimon_plan::{Canary, SitePlan};

use super::builder::Builder;
use crate::network_plan::{
    CANARY, CURRENT, CompileError, KeyType, Mark, REFUSE, RouteGround, Terrain, ValueType, ZoneGroupIndex,
    pick_chain, port_names, use_chain,
};

/// With the group's number: other groups have other clients try first.
const SEED: u32 = 0x5e1f_0000;
/// Clients at one port, and how long one that says nothing is remembered.
const AT_PORT: u32 = 4096;
const AT_PORT_FOR: &str = "60s";

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
        for (name, interface) in ports(terrain, route, canary) {
            let (set, chain) = port_names(interface);
            let rule = format!("update @{set} {{ ether saddr timeout {AT_PORT_FOR} }}");
            builder.learnt_set(&set, &[KeyType::Ether], AT_PORT);
            let mut chain = builder.ingress(chain, interface.clone());
            if chain.is_empty() {
                chain.rule(rule, format!("clients at port {name} try new paths first"));
            }
        }
    }
    if any {
        builder.runtime_map(CANARY, &[KeyType::Mark], ValueType::Verdict, BTreeMap::new());
    }
    Ok(())
}

/// The canary's ports, as printed on the case and as the kernel calls them.
fn ports<'t>(
    terrain: &'t Terrain<'_>,
    route: &RouteGround<'_>,
    canary: &Canary,
) -> Vec<(&'t str, &'t InterfaceName)> {
    let Some(zone) = terrain.zones.get(route.zone) else { return Vec::new() };
    let all = zone.zone.ports.iter().map(String::as_str).zip(&zone.ports);
    all.filter(|(name, _)| canary.ports.iter().any(|port| port == name)).collect()
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
    for (name, interface) in ports(terrain, route, canary) {
        let (set, _) = port_names(interface);
        chain.rule(
            format!("ether saddr @{set} goto {there}"),
            format!("{who}: clients at port {name} try the new path first"),
        );
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

/// Whether a client is one of a canary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Picked {
    Yes,
    No,
    /// Its hardware address, or the port where it is plugged in, is not known.
    Unknown,
}

/// What is known of a client.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Client<'a> {
    pub(super) address: Option<IpAddr>,
    pub(super) mac: Option<MacAddress>,
    /// As printed on the case.
    pub(super) port: Option<&'a str>,
}

/// As the chain of [`pick`] decides it.
pub(super) fn picks(plan: &SitePlan, canary: &Canary, index: ZoneGroupIndex, client: Client<'_>) -> Picked {
    let rooms = canary.rooms.iter().filter_map(|id| plan.migration.rooms.get(id));
    let mut prefixes = rooms.flat_map(|room| &room.prefixes);
    if client.address.is_some_and(|address| prefixes.any(|net| net.contains(&address))) {
        return Picked::Yes;
    }
    if client.port.is_some_and(|port| canary.ports.iter().any(|named| named == port)) {
        return Picked::Yes;
    }
    let by_share = client.mac.map(|mac| share_of(mac, SEED | u32::from(index.0)) < u32::from(canary.share));
    match by_share {
        Some(true) => Picked::Yes,
        None if canary.share > 0 => Picked::Unknown,
        Some(false) | None if client.port.is_none() && !canary.ports.is_empty() => Picked::Unknown,
        Some(false) | None => Picked::No,
    }
}

/// `__jhash_final`: which word is mixed with which, turned by how much.
const FINAL: [(usize, usize, u32); 7] =
    [(2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24)];

/// `jhash ether saddr mod 100 seed SEED`: the kernel's (include/linux/jhash.h, `jhash`; net/netfilter/nft_hash.c).
fn share_of(MacAddress([m0, m1, m2, m3, m4, m5]): MacAddress, seed: u32) -> u32 {
    let begin = 0xdead_beef_u32.wrapping_add(6).wrapping_add(seed);
    let mut words = [
        begin.wrapping_add(u32::from_le_bytes([m0, m1, m2, m3])),
        begin.wrapping_add(u32::from_le_bytes([m4, m5, 0, 0])),
        begin,
    ];
    for (mixed, with, turn) in FINAL {
        words[mixed] = (words[mixed] ^ words[with]).wrapping_sub(words[with].rotate_left(turn));
    }
    let scaled = (u64::from(words[2]) * 100) >> 32;
    u32::try_from(scaled).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_the_kernels() {
        // As Linux 6.18 put them into a set: `update @seen { ether saddr . meta mark }` after
        // `meta mark set jhash ether saddr mod 100 seed 0x5e1f0001`.
        let seen = [48, 35, 16, 24, 3, 95, 39, 41, 69, 31, 73, 28];
        for (last, share) in (0_u8..).zip(seen) {
            assert_eq!(share_of(MacAddress([2, 0x20, 1, 0, 0, last]), 0x5e1f_0001), share, "{last}");
        }
        assert_eq!(share_of(MacAddress([2, 0x20, 1, 0, 0x0f, 0xff]), 0x5e1f_0001), 51);
    }
}
