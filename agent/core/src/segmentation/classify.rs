//! The first packet of a flow: whose it is, whether it may, and which path it takes from then on.

use std::collections::BTreeMap;

use seimon_plan::INTERNET_GROUP;

use super::builder::{Builder, Filling, begins_with};
use super::is_internet;
use super::permits::{ANY, AS_LOCAL, INTERNET, PERMIT, PROBE_EXTRA, WIDE_MAP, simply_internet};
use crate::network_plan::{
    CURRENT, CompileError, Hook, Key, KeyPart, KeyType, Mark, PathGround, PathIndex, REFUSE, RouteGround,
    TWIN6, Terrain, Value, ValueType, ZoneGround, affinity_set, goto, use_chain, via_chain,
};

/// Learnt clients a path: 65,536 entries take about 8 MiB of kernel memory.
const AFFINITY_SIZE: u32 = 65_536;
const STRAY: &str = "stray";
/// What hosts assume of a path, in bytes.
const ETHERNET_MTU: u16 = 1500;
const FOREIGN: u32 = !Mark::OURS;
/// Everything but the path field.
const NOT_PATH: u32 = !Mark::PATH_MASK;

/// Statement that writes our two fields of the ct mark and nothing else.
pub(crate) fn write_ct(value: Mark) -> String {
    format!("ct mark set ct mark & {FOREIGN:#010x} | {:#010x}", value.0)
}

/// Statements that write the path field of the packet's mark and nothing else, and let the packet pass.
pub(crate) fn write_packet(path: u32) -> String {
    format!("meta mark set meta mark & {NOT_PATH:#010x} | {path:#010x} accept")
}

pub(super) fn chains(terrain: &Terrain<'_>, builder: &mut Builder) -> Result<(), CompileError> {
    entry(terrain, builder);
    builder.learnt_set(&affinity_set(PathIndex::BY_IPV4), &[KeyType::Mark, KeyType::Ether], AFFINITY_SIZE);
    builder.runtime_map(TWIN6, &[KeyType::Ipv6], ValueType::Verdict, BTreeMap::new());
    for path in terrain.paths.values() {
        let set = affinity_set(path.index);
        builder.learnt_set(&set, &[KeyType::Mark, KeyType::Ether], AFFINITY_SIZE);
        keep(builder, path);
        via(builder, path);
    }
    for carrier in terrain.bare_carriers() {
        let chain = builder.chain(keep_chain(carrier.index));
        fill(chain, &[write_packet(u32::from(carrier.index.0))], KNOWN);
    }
    let local = builder.chain("keep_local");
    fill(local, &[write_packet(Mark::LOCAL)], "known flow inside the school");
    as_local(builder);
    refuse(builder);
    for path in terrain.first_paths().into_values() {
        let from = match path.tunnel() {
            None => format!("from line {}", path.path.line),
            Some(_) => format!("from tunnel {}", path.id),
        };
        from_line(terrain, builder, path.index, &from);
    }
    for carrier in terrain.bare_carriers() {
        from_line(terrain, builder, carrier.index, &format!("from line {}", carrier.id));
    }
    for zone in terrain.zones.values() {
        if zone.is_open() {
            let names = [4, 6].map(|digit| format!("simply{digit}_{}", zone.slug));
            simply_internet(builder, zone, [&names[0], &names[1]]);
        }
        zone4(terrain, builder, zone)?;
        zone6(terrain, builder, zone)?;
    }
    probes(terrain, builder)?;
    for route in &terrain.routes {
        zone_group(terrain, builder, route)?;
    }
    current(terrain, builder)
}

fn fill(mut chain: Filling<'_>, statements: &[String], because: &str) {
    for statement in statements {
        chain.rule(statement.clone(), because);
    }
}

const KNOWN: &str = "known flows keep their path";

/// Known flows leave the classification here.
fn known_flow() -> String {
    format!("ct mark & {:#x} vmap @restore", Mark::PATH_MASK)
}

fn entry(terrain: &Terrain<'_>, builder: &mut Builder) {
    let mut restore = BTreeMap::new();
    for path in terrain.paths.values() {
        let key = Key(vec![KeyPart::Mark(path.index.mark())]);
        restore.insert(key, goto(keep_chain(path.index)));
    }
    for carrier in terrain.bare_carriers() {
        let key = Key(vec![KeyPart::Mark(carrier.index.mark())]);
        restore.insert(key, goto(keep_chain(carrier.index)));
    }
    restore.insert(Key(vec![KeyPart::Mark(Mark(Mark::LOCAL))]), goto("keep_local"));
    builder.map("restore", &[KeyType::Mark], ValueType::Verdict, restore);
    for family in [4, 6] {
        let mut ingress: BTreeMap<Key, Value> = BTreeMap::new();
        for zone in terrain.zones.values() {
            let key = Key(vec![KeyPart::Ifname(zone.bridge.clone())]);
            ingress.insert(key, goto(format!("zone{family}_{}", zone.slug)));
        }
        for (uplink, path) in terrain.first_paths() {
            let key = Key(vec![KeyPart::Ifname(uplink.clone())]);
            ingress.insert(key, goto(format!("up_{}", path.index.0)));
        }
        for carrier in terrain.bare_carriers() {
            let key = Key(vec![KeyPart::Ifname(carrier.port.clone())]);
            ingress.insert(key, goto(format!("up_{}", carrier.index.0)));
        }
        builder.map(&format!("ingress{family}"), &[KeyType::Ifname], ValueType::Verdict, ingress);
    }
    builder
        .base("pre", "filter", Hook::Prerouting, -150)
        .rule(format!("meta nfproto ipv4 {}", known_flow()), KNOWN)
        .rule("meta nfproto ipv4 iifname vmap @ingress4", "new flows by where they come from")
        // Routing finds forged IPv4 sources of known flows (rp_filter); for IPv6 the kernel has nothing like it.
        .rule("meta nfproto ipv6 iifname vmap @ingress6", "by where they come from, sources first");
}

fn keep_chain(path: PathIndex) -> String {
    format!("keep_{}", path.0)
}

fn keep(builder: &mut Builder, path: &PathGround<'_>) {
    let mut chain = builder.chain(keep_chain(path.index));
    clamp(&mut chain, path);
    chain.rule(write_packet(u32::from(path.index.0)), KNOWN);
}

/// On a path that carries less than Ethernet does, both ends are told in the handshake, whichever way it passes. The
/// numbers are constants: to ask the routes for them (`rt mtu`) would cost every new flow another route look-up.
fn clamp(chain: &mut Filling<'_>, path: &PathGround<'_>) {
    let mtu = path.mtu();
    if mtu >= ETHERNET_MTU {
        return;
    }
    for (family, headers) in [("ipv4", 40), ("ipv6", 60)] {
        let size = mtu.saturating_sub(headers);
        chain.rule(
            format!("meta nfproto {family} tcp flags syn tcp option maxseg size set {size}"),
            match path.tunnel() {
                None => format!("segments fit line {}", path.path.line),
                Some(_) => format!("segments fit tunnel {}", path.id),
            },
        );
    }
}

/// On a path without more ado: hub prefixes, probe hosts.
fn via(builder: &mut Builder, path: &PathGround<'_>) {
    let mut chain = builder.chain(via_chain(path.index));
    if !path.has_ipv6() {
        chain.rule(format!("meta nfproto ipv6 goto {REFUSE}"), format!("path {} has no IPv6", path.id));
    }
    clamp(&mut chain, path);
    let because = format!("fixed to path {}", path.id);
    chain
        .rule(write_ct(path.index.mark()), because.clone())
        .rule(write_packet(u32::from(path.index.0)), because);
}

fn as_local(builder: &mut Builder) {
    let chain = builder.chain(AS_LOCAL);
    let statements = [write_ct(Mark(Mark::LOCAL)), write_packet(Mark::LOCAL)];
    fill(chain, &statements, "permitted inside the school");
}

fn refuse(builder: &mut Builder) {
    let because = "not permitted, or no path: refused at once";
    builder
        .chain(REFUSE)
        .rule("meta pkttype != host drop", "nobody answers to broadcasts")
        .rule("meta l4proto tcp reject with tcp reset", because)
        .rule("reject with icmpx admin-prohibited", because);
    let because = "a packet of no known flow: the client is to connect again at once";
    builder.chain(STRAY).rule("meta l4proto tcp reject with tcp reset", because).rule("drop", because);
}

/// Unasked traffic from a line or tunnel: only to the gateway itself, and answered over the same path.
fn from_line(terrain: &Terrain<'_>, builder: &mut Builder, path: PathIndex, because: &str) {
    let because = because.to_owned();
    let inside = &terrain.plan.inside;
    let four = terrain.zone_nets4().chain([inside.ipv4.trunc()]).map(|net| format!("ip saddr {net}"));
    let six = terrain.zone_nets6().chain([inside.ipv6.trunc()]).map(|net| format!("ip6 saddr {net}"));
    let mut chain = builder.chain(format!("up_{}", path.0));
    chain
        .rule(format!("meta nfproto ipv6 {}", known_flow()), KNOWN)
        .rule("ct state invalid drop", because.clone())
        .rule("ct state untracked accept", "neighbour discovery");
    // One rule each: an interval set would be empty for a moment whenever the table is made anew.
    for source in four.chain(six) {
        chain.rule(format!("{source} drop"), "a source of ours comes from no line");
    }
    chain
        .rule(
            "fib daddr type != { local, broadcast, multicast, anycast } drop",
            "nobody outside begins a flow into the school",
        )
        .rule(write_ct(path.mark()), because.clone())
        .rule(write_packet(u32::from(path.0)), because);
}

/// What is looked up for a source that has been found good. In an open zone most flows go to the internet: they meet two
/// look-ups, and only what is private, or permitted by prefix, is looked at more closely.
fn look(
    terrain: &Terrain<'_>,
    builder: &mut Builder,
    zone: &ZoneGround<'_>,
    family: usize,
) -> Result<(), CompileError> {
    let ip = ["ip", "ip6"][family];
    let digit = [4, 6][family];
    let full = format!("iifname . {ip} daddr . meta l4proto . th dport vmap");
    let permits = format!("permits of zone {}", zone.id);
    let look = format!("look{digit}_{}", zone.slug);
    builder.chain(look.clone()).rule(format!("{full} @{}", PERMIT[family]), permits);
    let refused = if zone.is_open() {
        let route = terrain.routes.iter().find(|route| route.zone == zone.id && is_internet(route.group));
        let route = route.ok_or_else(|| CompileError::Unknown {
            what: "a route for group",
            id: format!("{INTERNET_GROUP} in zone {}", zone.id),
        })?;
        let away = |set: &str| format!("{ip} daddr @{set} goto zg_{}", route.index.0);
        let because = format!("zone {} is open to the internet", zone.id);
        builder.chain(look.clone()).rule(away(&format!("simply{digit}_{}", zone.slug)), because.clone());
        closer(builder, zone, family, &look);
        builder.chain(look.clone()).rule(away(INTERNET[family]), because);
        format!("zone {} is open to the internet, not to what is private here", zone.id)
    } else {
        closer(builder, zone, family, &look);
        format!("zone {} reaches only its permits", zone.id)
    };
    builder.chain(look).rule(format!("goto {REFUSE}"), refused);
    Ok(())
}

/// Permits by prefix and by wide ranges of ports, and the zone's gateway.
fn closer(builder: &mut Builder, zone: &ZoneGround<'_>, family: usize, chain: &str) {
    let ip = if family == 0 { "ip" } else { "ip6" };
    let has_wide = builder.map_has(WIDE_MAP[family], |key| begins_with(key, &zone.bridge));
    let has_any = builder.map_has(ANY[family], |key| begins_with(key, &zone.bridge));
    let permits = format!("permits of zone {}", zone.id);
    let mut chain = builder.chain(chain);
    if has_wide {
        let full = format!("iifname . {ip} daddr . meta l4proto . th dport vmap");
        chain.rule(format!("{full} @{}", WIDE_MAP[family]), permits.clone());
    }
    if has_any {
        chain.rule(format!("iifname . {ip} daddr vmap @{}", ANY[family]), permits);
    }
    let ping = format!("zone {} may ping its gateway", zone.id);
    if family == 0 {
        let own = zone.zone.ipv4.addr();
        chain.rule(format!("ip daddr {own} icmp type echo-request goto {AS_LOCAL}"), ping);
    } else if let Some(net) = zone.zone.ipv6 {
        chain.rule(format!("ip6 daddr {} icmpv6 type echo-request goto {AS_LOCAL}", net.addr()), ping);
    }
}

fn zone4(terrain: &Terrain<'_>, builder: &mut Builder, zone: &ZoneGround<'_>) -> Result<(), CompileError> {
    let slug = &zone.slug;
    let spoof = format!("sources in zone {} are {}", zone.id, zone.zone.ipv4.trunc());
    builder
        .chain(format!("zone4_{slug}"))
        .rule(format!("ct state invalid goto {STRAY}"), "a packet of no known flow")
        .rule(format!("ip saddr != {} goto odd4_{slug}", zone.zone.ipv4.trunc()), spoof.clone())
        .rule(format!("goto look4_{slug}"), format!("zone {}", zone.id));
    look(terrain, builder, zone, 0)?;
    builder
        .chain(format!("odd4_{slug}"))
        .rule("iifname . ip saddr . ether saddr vmap @probes4", "probe hosts")
        .rule(format!("ip saddr 0.0.0.0 udp dport 67 goto {AS_LOCAL}"), "DHCP")
        .rule("drop", spoof);
    Ok(())
}

fn zone6(terrain: &Terrain<'_>, builder: &mut Builder, zone: &ZoneGround<'_>) -> Result<(), CompileError> {
    let slug = &zone.slug;
    let mut chain = builder.chain(format!("zone6_{slug}"));
    let spoof = match zone.zone.ipv6 {
        Some(net) => format!("sources in zone {} are {}", zone.id, net.trunc()),
        None => format!("zone {} has no IPv6", zone.id),
    };
    match zone.zone.ipv6 {
        Some(net) => {
            let known = format!("ct state vmap {{ invalid : goto {STRAY}, untracked : accept }}");
            chain
                .rule(format!("ip6 saddr != {} goto odd6_{slug}", net.trunc()), spoof.clone())
                .rule(known_flow(), KNOWN)
                .rule(known, "a packet of no known flow; neighbour discovery")
                .rule(format!("goto look6_{slug}"), format!("zone {}", zone.id));
        }
        None => {
            chain.rule(format!("goto odd6_{slug}"), spoof.clone());
        }
    }
    // Also without IPv6 in the zone: its probe hosts have an address of ours.
    look(terrain, builder, zone, 1)?;
    let local = "ip6 saddr fe80::/10";
    builder
        .chain(format!("odd6_{slug}"))
        .rule("ct state untracked accept", "neighbour discovery")
        .rule("iifname . ip6 saddr . ether saddr vmap @probes6", "probe hosts")
        .rule(format!("{local} ct state established,related accept"), "answers to the gateway, on the link")
        .rule(format!("{local} udp dport 547 goto {AS_LOCAL}"), "DHCPv6")
        .rule(
            format!("{local} ip6 daddr fe80::/10 icmpv6 type echo-request goto {AS_LOCAL}"),
            "ping on the link",
        )
        .rule("drop", spoof);
    Ok(())
}

fn probes(terrain: &Terrain<'_>, builder: &mut Builder) -> Result<(), CompileError> {
    let (mut four, mut six) = (BTreeMap::new(), BTreeMap::new());
    for (zone, path, host) in terrain.probes()? {
        let place = [KeyPart::Ifname(zone.bridge.clone()), KeyPart::Ether(host.mac)];
        let key = |address| Key(vec![place[0].clone(), address, place[1].clone()]);
        let name = |family| format!("probe{family}_{}_{}", zone.slug, path.index.0);
        four.insert(key(KeyPart::Ipv4(host.ipv4)), goto(name(4)));
        six.insert(key(KeyPart::Ipv6(host.ipv6)), goto(name(6)));
        let because = format!("probe host of zone {} on path {}", zone.id, path.id);
        for (family, ip, extra) in [(4, "ip", PROBE_EXTRA[0]), (6, "ip6", PROBE_EXTRA[1])] {
            let hub = hub_elsewhere(terrain, zone, path, family == 6);
            let mut chain = builder.chain(name(family));
            if family == 6 {
                chain.rule(known_flow(), KNOWN);
            }
            chain.rule(write_ct(path.index.mark()), because.clone()).rule(
                format!(
                    "ct mark & {:#x} . {ip} daddr . meta l4proto . th dport vmap @{extra}",
                    Mark::PATH_MASK
                ),
                because.clone(),
            );
            for net in hub {
                chain.rule(
                    format!("{ip} daddr {net} goto {REFUSE}"),
                    "the hub is on another path than this probe host",
                );
            }
            chain.rule(format!("goto look{family}_{}", zone.slug), because.clone());
        }
    }
    builder.map("probes4", &[KeyType::Ifname, KeyType::Ipv4, KeyType::Ether], ValueType::Verdict, four);
    builder.map("probes6", &[KeyType::Ifname, KeyType::Ipv6, KeyType::Ether], ValueType::Verdict, six);
    Ok(())
}

/// Statement that remembers the client until it has been quiet.
fn learn(set: String, route: &RouteGround<'_>) -> String {
    let (groups, idle) = (Mark::ZONE_GROUP_MASK, route.idle.as_secs().max(1));
    format!("update @{set} {{ ct mark & {groups:#x} . ether saddr timeout {idle}s }}")
}

fn zone_group(
    terrain: &Terrain<'_>,
    builder: &mut Builder,
    route: &RouteGround<'_>,
) -> Result<(), CompileError> {
    let who = format!("zone {}, group {}", route.zone, route.group);
    let groups = Mark::ZONE_GROUP_MASK;
    let mixed = terrain.carries_ipv6_in_part(route)?;
    let mut chain = builder.chain(format!("zg_{}", route.index.0));
    // The path field stays: a probe host's is written already, and is part of the key below.
    let keep = !groups;
    chain.rule(format!("ct mark set ct mark & {keep:#010x} | {:#010x}", route.index.mark().0), who.clone());
    if mixed {
        chain.rule(
            format!(
                "meta nfproto ipv6 ct mark & {groups:#x} . ether saddr @{} ip6 daddr vmap @{TWIN6}",
                affinity_set(PathIndex::BY_IPV4)
            ),
            format!("{who}: a log-in that began over IPv4 stays with it"),
        );
    }
    for id in &route.paths {
        let path = terrain.path(id)?;
        chain.rule(
            format!(
                "ct mark & {groups:#x} . ether saddr @{} goto {}",
                affinity_set(path.index),
                use_chain(route.index, path.index)
            ),
            format!("{who}: a client that is on path {id} stays there"),
        );
    }
    if let Some(rule) = super::canary::rule(terrain, route) {
        chain.rule(rule, format!("{who}: a few try a new path first"));
    }
    chain
        .rule(format!("ct mark & {:#x} vmap @{CURRENT}", Mark::OURS), format!("{who}: the current path"))
        .rule(format!("goto {REFUSE}"), format!("{who}: no path"));
    for id in &route.paths {
        let path = terrain.path(id)?;
        let mut chain = builder.chain(use_chain(route.index, path.index));
        if !path.has_ipv6() {
            chain.rule(format!("meta nfproto ipv6 goto {REFUSE}"), format!("path {id} has no IPv6"));
        }
        clamp(&mut chain, path);
        let because = format!("{who} on path {id}");
        let both = Mark(route.index.mark().0 | path.index.mark().0);
        chain
            .rule(write_ct(both), because.clone())
            .rule(learn(affinity_set(path.index), route), because.clone());
        if mixed {
            chain.rule(
                format!("meta nfproto ipv4 {}", learn(affinity_set(PathIndex::BY_IPV4), route)),
                because.clone(),
            );
        }
        chain.rule(write_packet(u32::from(path.index.0)), because);
    }
    Ok(())
}

/// The hub's prefixes of one family, where the zone reaches them over another path than this one.
fn hub_elsewhere(
    terrain: &Terrain<'_>,
    zone: &ZoneGround<'_>,
    path: &PathGround<'_>,
    ipv6: bool,
) -> Vec<String> {
    let hub = terrain.plan.hub.iter().filter(|hub| hub.zones.contains(zone.id) && hub.path != *path.id);
    hub.flat_map(|hub| &hub.prefixes)
        .filter(|net| net.addr().is_ipv6() == ipv6)
        .map(|net| net.trunc().to_string())
        .collect()
}

/// The map, with what never moves: a probe host's path is its own, and a path that a route does not offer is refused
/// to probe hosts as well.
fn current(terrain: &Terrain<'_>, builder: &mut Builder) -> Result<(), CompileError> {
    let mut fixed = BTreeMap::new();
    for route in &terrain.routes {
        let probed: Vec<&PathGround<'_>> = terrain
            .probes()?
            .into_iter()
            .filter(|(zone, ..)| zone.id == route.zone)
            .map(|(_, path, _)| path)
            .collect();
        for path in probed {
            let key = Key(vec![KeyPart::Mark(Mark(route.index.mark().0 | path.index.mark().0))]);
            let offered = route.paths.contains(&path.id);
            fixed.insert(key, if offered { goto(via_chain(path.index)) } else { goto(REFUSE) });
        }
    }
    builder.runtime_map(CURRENT, &[KeyType::Mark], ValueType::Verdict, fixed);
    Ok(())
}
