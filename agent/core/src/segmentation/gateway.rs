//! The gateway as a zone of its own: what reaches it, and which path its own traffic takes.

use std::collections::BTreeMap;

use super::builder::Builder;
use super::classify::{write_ct, write_packet};
use crate::network_plan::{
    CURRENT, CompileError, Hook, Key, KeyPart, KeyType, Mark, Terrain, Value, ValueType, ZoneGroupIndex,
    gateway_chain, goto,
};

pub(super) fn chains(terrain: &Terrain<'_>, builder: &mut Builder) -> Result<(), CompileError> {
    input(terrain, builder);
    output(terrain, builder)
}

fn input(terrain: &Terrain<'_>, builder: &mut Builder) {
    let mut from = BTreeMap::new();
    for zone in terrain.zones.values() {
        from.insert(Key(vec![KeyPart::Ifname(zone.bridge.clone())]), goto("from_zone"));
    }
    for (line, port) in &terrain.lines {
        let carrier = terrain.carriers.get(*line);
        let chain =
            carrier.map_or_else(|| "from_line".to_owned(), |carrier| format!("carrier_{}", carrier.index.0));
        from.insert(Key(vec![KeyPart::Ifname(port.clone())]), goto(chain));
    }
    for (path, _) in terrain.tunnels() {
        from.insert(Key(vec![KeyPart::Ifname(path.uplink.clone())]), goto("from_tunnel"));
    }
    carried(terrain, builder);
    builder.map("arrivals", &[KeyType::Ifname], ValueType::Verdict, from);
    builder
        .base("arriving", "filter", Hook::Input, 0)
        .rule("ct state established,related accept", "answers to the gateway; ICMP about its flows")
        .rule("iifname vmap @arrivals", "by where it comes from; other interfaces are not ours");
    let discovery = "ct state untracked meta l4proto ipv6-icmp accept";
    builder
        .chain("from_zone")
        .rule(
            format!("ct mark & {:#x} == {:#x} accept", Mark::PATH_MASK, Mark::LOCAL),
            "DNS, the status page, DHCP, NTP and ping, as seen at the entrance",
        )
        .rule(discovery, "neighbour and router discovery")
        .rule("drop", "nothing else of the gateway is for the zones");
    builder
        .chain("from_line")
        .rule(discovery, "neighbour and router discovery")
        .rule("icmp type echo-request limit rate 50/second accept", "ping from outside, bounded")
        .rule("icmpv6 type echo-request limit rate 50/second accept", "ping from outside, bounded")
        .rule("udp sport 67 udp dport 68 accept", "the line's DHCP server answers")
        .rule("udp sport 547 udp dport 546 accept", "the line's DHCPv6 server answers")
        .rule("drop", "nothing else of the gateway is for the lines");
}

/// What tunnels need: their port is open on their line and nowhere else; from inside a tunnel the gateway is only pinged.
fn carried(terrain: &Terrain<'_>, builder: &mut Builder) {
    for carrier in terrain.carriers.values() {
        let mut chain = builder.chain(format!("carrier_{}", carrier.index.0));
        for port in &carrier.ports {
            chain.rule(format!("udp dport {port} accept"), format!("the tunnel over line {}", carrier.id));
        }
        chain.rule("goto from_line", format!("line {}", carrier.id));
    }
    if terrain.carriers.is_empty() {
        return;
    }
    builder
        .chain("from_tunnel")
        .rule("icmp type echo-request limit rate 50/second accept", "ping from the far end, bounded")
        .rule("icmpv6 type echo-request limit rate 50/second accept", "ping from the far end, bounded")
        .rule("drop", "nothing else of the gateway is for the far end");
}

fn output(terrain: &Terrain<'_>, builder: &mut Builder) -> Result<(), CompileError> {
    let mark = |value: u32| Key(vec![KeyPart::Mark(Mark(value))]);
    let (mut replies, mut adopt) = (BTreeMap::new(), BTreeMap::new());
    let (mut four, mut six): (BTreeMap<Key, Value>, BTreeMap<Key, Value>) = Default::default();
    let mut lines = BTreeMap::new();
    replies.insert(mark(Mark::LOCAL), Value::Verdict(crate::network_plan::Verdict::Accept));
    for uplink in terrain.lines.values() {
        lines.insert(Key(vec![KeyPart::Ifname(uplink.clone())]), goto("own"));
    }
    for (path, _) in terrain.tunnels() {
        lines.insert(Key(vec![KeyPart::Ifname(path.uplink.clone())]), goto("own"));
    }
    for zone in terrain.zones.values() {
        lines.insert(Key(vec![KeyPart::Ifname(zone.bridge.clone())]), goto("to_zone"));
    }
    let paths = terrain.paths.values().map(|path| (path.index, Some(path.id), format!("path {}", path.id)));
    let bare = terrain.bare_carriers().map(|c| (c.index, None, format!("line {}", c.id)));
    for (index, path, name) in paths.chain(bare) {
        let number = u32::from(index.0);
        let chain = gateway_chain(index);
        replies.insert(mark(number), goto(format!("reply_{}", index.0)));
        adopt.insert(mark(number), goto(format!("adopt_{}", index.0)));
        if let Some((v4, v6)) = path.and_then(|path| terrain.allocation.path_sources.get(path)) {
            four.insert(Key(vec![KeyPart::Ipv4(*v4)]), goto(chain.clone()));
            six.insert(Key(vec![KeyPart::Ipv6(*v6)]), goto(chain.clone()));
        }
        let own = Mark(ZoneGroupIndex::GATEWAY.mark().0 | number);
        let because = format!("the gateway's own traffic on {name}");
        builder.chain(chain).rule(write_ct(own), because.clone()).rule(write_packet(number), because.clone());
        builder
            .chain(format!("reply_{}", index.0))
            .rule(write_packet(number), "the gateway answers where it was asked");
        builder
            .chain(format!("adopt_{}", index.0))
            .rule(write_ct(own), "a socket's own choice of path stands")
            .rule("accept", "a socket's own choice of path stands");
    }
    builder.map("replies", &[KeyType::Mark], ValueType::Verdict, replies);
    builder.map("adopt", &[KeyType::Mark], ValueType::Verdict, adopt);
    builder.map("sources4", &[KeyType::Ipv4], ValueType::Verdict, four);
    builder.map("sources6", &[KeyType::Ipv6], ValueType::Verdict, six);
    builder.map("departures", &[KeyType::Ifname], ValueType::Verdict, lines);
    let path = Mark::PATH_MASK;
    let mut sending = builder.base("sending", "route", Hook::Output, -150);
    sending
        .rule("oifname \"lo\" accept", "inside the gateway")
        .rule("ct state untracked accept", "neighbour discovery")
        .rule(format!("ct mark & {path:#x} vmap @replies"), "answers and flows under way")
        .rule(format!("meta mark & {path:#x} vmap @adopt"), "a socket's own choice of path stands");
    // In user space WireGuard cannot mark its packets: that takes a privilege that it does not have.
    for carrier in terrain.carriers.values() {
        for port in &carrier.ports {
            let because = format!("a tunnel's outer packets take line {}", carrier.id);
            sending.rule(format!("udp sport {port} goto {}", gateway_chain(carrier.index)), because);
        }
    }
    sending
        .rule("ip saddr vmap @sources4", "a path's local source means that path")
        .rule("ip6 saddr vmap @sources6", "a path's local source means that path")
        .rule("oifname vmap @departures", "what leaves by a line takes the gateway's path");
    // Only the ct mark: answers are known by it, and the packet's way is right already.
    let to_zone = "the gateway's own traffic with a zone";
    builder.chain("to_zone").rule(write_ct(Mark(Mark::LOCAL)), to_zone).rule("accept", to_zone);
    builder
        .chain("own")
        .rule(write_ct(ZoneGroupIndex::GATEWAY.mark()), "the gateway's own traffic")
        .rule(format!("ct mark & {:#x} vmap @{CURRENT}", Mark::OURS), "the gateway's current path")
        .rule("drop", "the gateway has no path");
    Ok(())
}
