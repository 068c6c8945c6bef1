//! Addresses: inside to real at the entrance, the school's to the line's at the exit; and what may pass in between.

use std::collections::{BTreeMap, BTreeSet};

use super::builder::Builder;
use super::permits::joined_zones;
use crate::network_plan::{
    CompileError, Hook, Key, KeyPart, KeyType, Mark, PathGround, REAL4, REAL6, REFUSE, Terrain, Value,
    ValueType, ZoneGroupIndex, goto,
};

pub(super) fn chains(terrain: &Terrain<'_>, builder: &mut Builder) -> Result<(), CompileError> {
    to_real(terrain, builder);
    between(terrain, builder)?;
    leaving(terrain, builder)
}

fn to_real(terrain: &Terrain<'_>, builder: &mut Builder) {
    for (name, key, value) in
        [(REAL4, KeyType::Ipv4, ValueType::Ipv4), (REAL6, KeyType::Ipv6, ValueType::Ipv6)]
    {
        builder.runtime_map(name, &[KeyType::Mark, key], value, BTreeMap::new());
    }
    let inside = &terrain.plan.inside;
    let unknown = "an inside address without a real one yet leads nowhere";
    let path = Mark::PATH_MASK;
    let mut entrance = builder.base("to_real", "nat", Hook::Prerouting, -100);
    for (ip, digit, net) in
        [("ip", 4, inside.ipv4.trunc().to_string()), ("ip6", 6, inside.ipv6.trunc().to_string())]
    {
        entrance.rule(format!("{ip} daddr {net} goto to_real{digit}"), "an inside address");
    }
    for (ip, digit, map) in [("ip", 4, REAL4), ("ip6", 6, REAL6)] {
        builder
            .chain(format!("to_real{digit}"))
            .rule(
                format!("dnat {ip} to ct mark & {path:#x} . {ip} daddr map @{map}"),
                "an inside address becomes the name's real one on the flow's path",
            )
            .rule(format!("fib daddr type != local goto {REFUSE}"), unknown);
    }
}

fn between(terrain: &Terrain<'_>, builder: &mut Builder) -> Result<(), CompileError> {
    let mut carry = BTreeSet::new();
    let mut add = |mark: u32, from: &seimon_board::InterfaceName, to: &seimon_board::InterfaceName| {
        let ends = [KeyPart::Ifname(from.clone()), KeyPart::Ifname(to.clone())];
        let [from, to] = ends;
        carry.insert(Key(vec![KeyPart::Mark(Mark(mark)), from, to]));
    };
    for route in &terrain.routes {
        for path in &route.paths {
            let path = terrain.path(path)?;
            add(u32::from(path.index.0), &terrain.zone(route.zone)?.bridge, &path.uplink);
        }
    }
    if let Some(hub) = &terrain.plan.hub {
        let path = terrain.path(&hub.path)?;
        for zone in &hub.zones {
            add(u32::from(path.index.0), &terrain.zone(zone)?.bridge, &path.uplink);
        }
    }
    for (from, to) in joined_zones(terrain) {
        add(Mark::LOCAL, &terrain.zone(from)?.bridge, &terrain.zone(to)?.bridge);
    }
    builder.set("carry", &[KeyType::Mark, KeyType::Ifname, KeyType::Ifname], carry);
    let capped = super::cap::entry(terrain);
    super::fast::declare(terrain, builder);
    let mut between = builder.closed_base("between", Hook::Forward, 0);
    if let Some((rule, because)) = capped {
        between.rule(rule, because);
    }
    let (offload, because) = super::fast::entry();
    between
        .rule(offload, because)
        .rule("ct state established accept", "answers and flows under way")
        .rule(
            format!("ct mark & {:#x} . iifname . oifname @carry accept", Mark::PATH_MASK),
            "a path, or a zone, that the plan lets this zone use",
        )
        // Errors about a flow travel its own way only: anybody may write one, with a source of its own.
        .rule(
            format!("ct state related ct mark & {:#x} . oifname . iifname @carry accept", Mark::PATH_MASK),
            "ICMP about a flow comes from where its answers come from",
        );
    Ok(())
}

fn leaving(terrain: &Terrain<'_>, builder: &mut Builder) -> Result<(), CompileError> {
    let (mut four, mut six): (BTreeMap<Key, Value>, BTreeMap<Key, Value>) = Default::default();
    for (zone, _, host) in terrain.probes()? {
        let own = Value::Ipv4(zone.zone.ipv4.addr());
        four.insert(Key(vec![KeyPart::Ipv4(host.ipv4)]), own);
        if let Some(net) = zone.zone.ipv6 {
            six.insert(Key(vec![KeyPart::Ipv6(host.ipv6)]), Value::Ipv6(net.addr()));
        }
    }
    builder.map("probe_as4", &[KeyType::Ipv4], ValueType::Ipv4, four);
    builder.map("probe_as6", &[KeyType::Ipv6], ValueType::Ipv6, six);
    let mut egress = BTreeMap::new();
    for path in terrain.paths.values() {
        let key = Key(vec![KeyPart::Mark(path.index.mark())]);
        egress.insert(key, goto(format!("nat_{}", path.index.0)));
        exit(builder, path);
    }
    for carrier in terrain.bare_carriers() {
        egress
            .insert(Key(vec![KeyPart::Mark(carrier.index.mark())]), goto(format!("nat_{}", carrier.index.0)));
        let because = format!("a tunnel's outer packets show the address of line {}", carrier.id);
        builder.chain(format!("nat_{}", carrier.index.0)).rule("masquerade", because);
    }
    builder.map("egress", &[KeyType::Mark], ValueType::Verdict, egress);
    builder
        .base("leaving", "nat", Hook::Postrouting, 100)
        .rule(format!("ct mark & {:#x} vmap @egress", Mark::PATH_MASK), "sources as the path wants them");
    Ok(())
}

fn exit(builder: &mut Builder, path: &PathGround<'_>) {
    let mut chain = builder.chain(format!("nat_{}", path.index.0));
    if path.masquerades4() && path.masquerades6() {
        chain.rule("masquerade", format!("path {} shows the line's address", path.id));
        return;
    }
    if path.masquerades4() {
        chain.rule("meta nfproto ipv4 masquerade", format!("path {}: nat4 masquerade", path.id));
    }
    if path.masquerades6() {
        chain.rule("meta nfproto ipv6 masquerade", format!("path {}: nat66", path.id));
    }
    let probe = format!("on path {} nobody knows our probe hosts' addresses", path.id);
    chain
        .rule("snat ip to ip saddr map @probe_as4", probe.clone())
        .rule("snat ip6 to ip6 saddr map @probe_as6", probe)
        .rule(
            format!(
                "ct mark & {:#x} == {:#x} masquerade",
                Mark::ZONE_GROUP_MASK,
                ZoneGroupIndex::GATEWAY.mark().0
            ),
            "the gateway's own traffic shows the line's address",
        );
}
