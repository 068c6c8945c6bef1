//! What may be reached, as elements: hash maps for single ports of inside addresses, interval maps for prefixes and wide
//! ranges.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use seimon_board::InterfaceName;
use seimon_plan::{Permit, PermitTarget, PortSpec, Protocol, Service};

use super::builder::{Builder, begins_with};
use super::intervals::{Opening, aggregate4, aggregate6, carve, disjoint, disjoint_nets};
use crate::network_plan::{
    CompileError, Key, KeyPart, KeyType, Mark, REFUSE, Terrain, Value, ZoneGround, goto, via_chain,
};

/// Ranges up to this many ports are written port by port: a hash finds them.
const WIDE: u16 = 64;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// Chain for permitted traffic that stays in the school.
pub(super) const AS_LOCAL: &str = "as_local";
/// What an open zone's internet is, one set a family.
pub(super) const INTERNET: [&str; 2] = ["internet4", "internet6"];
pub(super) const PERMIT: [&str; 2] = ["permit4", "permit6"];
pub(super) const WIDE_MAP: [&str; 2] = ["wide4", "wide6"];
pub(super) const ANY: [&str; 2] = ["any4", "any6"];
pub(super) const PROBE_EXTRA: [&str; 2] = ["probe_extra4", "probe_extra6"];

/// Where hosts of the internet are: all of IPv4, the global unicast part of IPv6 (RFC 4291, 2.4), and IPv4 behind a
/// translator (RFC 6052).
const GLOBAL: [&str; 3] = ["0.0.0.0/0", "2000::/3", "64:ff9b::/96"];
/// Destinations that an open zone's internet never includes, whatever else is private here (RFC 6890).
const SPECIAL4: [&str; 10] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

pub(super) const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

#[derive(Default)]
struct Lookups {
    exact: [BTreeMap<Key, Value>; 2],
    wide: BTreeMap<InterfaceName, Vec<Opening>>,
    any: BTreeMap<InterfaceName, Vec<(IpNet, Value)>>,
}

impl Lookups {
    fn ports(&mut self, from: &InterfaceName, to: IpNet, ports: &[PortSpec], verdict: &Value) {
        for spec in ports {
            let single = to.prefix_len() == to.max_prefix_len();
            if single && spec.last - spec.first < WIDE {
                for port in spec.first..=spec.last {
                    self.exact(from, to, number(spec.protocol), port, verdict);
                }
            } else {
                self.wide.entry(from.clone()).or_default().push(Opening {
                    net: to.trunc(),
                    protocol: number(spec.protocol),
                    first: spec.first,
                    last: spec.last,
                    verdict: verdict.clone(),
                });
            }
        }
    }

    fn exact(&mut self, from: &InterfaceName, to: IpNet, protocol: u8, port: u16, verdict: &Value) {
        let (family, address) = match to {
            IpNet::V4(net) => (0, KeyPart::Ipv4(net.addr())),
            IpNet::V6(net) => (1, KeyPart::Ipv6(net.addr())),
        };
        let key =
            Key(vec![KeyPart::Ifname(from.clone()), address, KeyPart::Proto(protocol), KeyPart::Port(port)]);
        self.exact[family].entry(key).or_insert_with(|| verdict.clone());
    }

    fn service(
        &mut self,
        terrain: &Terrain<'_>,
        permit: &Permit,
        service: &Service,
    ) -> Result<(), CompileError> {
        let bridge = &terrain.zone(&permit.from)?.bridge;
        let Some(route) = terrain.route(&permit.from, &service.group) else {
            return Ok(());
        };
        let verdict = goto(format!("zg_{}", route.index.0));
        for name in &service.names {
            let key = (permit.from.clone(), name.clone());
            let (v4, v6) = terrain
                .allocation
                .inside
                .get(&key)
                .ok_or_else(|| CompileError::Unnumbered { what: "name", id: name.clone() })?;
            self.ports(bridge, IpNet::from(std::net::IpAddr::from(*v4)), &service.ports, &verdict);
            self.ports(bridge, IpNet::from(std::net::IpAddr::from(*v6)), &service.ports, &verdict);
        }
        for prefix in &service.prefixes {
            self.ports(bridge, *prefix, &service.ports, &verdict);
        }
        Ok(())
    }

    fn gateway(&mut self, terrain: &Terrain<'_>) {
        let local = goto(AS_LOCAL);
        for zone in terrain.zones.values() {
            let own = [Some(IpNet::from(std::net::IpAddr::from(zone.zone.ipv4.addr())))];
            let six = [zone.zone.ipv6.map(|net| IpNet::from(std::net::IpAddr::from(net.addr())))];
            for address in own.into_iter().chain(six).flatten() {
                // Names, the status page, time, leases.
                for (protocol, port) in [(UDP, 53), (TCP, 53), (TCP, 80), (UDP, 123), (UDP, 67), (UDP, 547)] {
                    self.exact(&zone.bridge, address, protocol, port, &local);
                }
            }
        }
    }
}

/// Pairs of zones (from, to) that a permit joins.
pub(super) fn joined_zones<'a>(
    terrain: &Terrain<'a>,
) -> BTreeSet<(&'a seimon_plan::ZoneId, &'a seimon_plan::ZoneId)> {
    let pairs = terrain.plan.permits.iter().filter_map(|permit| match &permit.to {
        PermitTarget::Zone(to) if *to != permit.from => Some((&permit.from, to)),
        PermitTarget::Zone(_) | PermitTarget::Service(_) => None,
    });
    pairs.collect()
}

pub(super) fn lookups(terrain: &Terrain<'_>, builder: &mut Builder) -> Result<(), CompileError> {
    let mut found = Lookups::default();
    found.gateway(terrain);
    for permit in &terrain.plan.permits {
        match &permit.to {
            PermitTarget::Service(id) => {
                let service = terrain.plan.services.get(id);
                let service =
                    service.ok_or_else(|| CompileError::Unknown { what: "service", id: id.to_string() })?;
                found.service(terrain, permit, service)?;
            }
            PermitTarget::Zone(to) => {
                let from = terrain.zone(&permit.from)?.bridge.clone();
                let to = terrain.zone(to)?.zone;
                for net in [Some(IpNet::V4(to.ipv4)), to.ipv6.map(IpNet::V6)].into_iter().flatten() {
                    // The gateway has an address in that zone: a permit to the zone is none to the gateway.
                    let gateway = (IpNet::from(net.addr()), goto(REFUSE));
                    for (net, verdict) in [gateway, (net.trunc(), goto(AS_LOCAL))] {
                        if permit.ports.is_empty() {
                            found.any.entry(from.clone()).or_default().push((net, verdict));
                        } else {
                            found.ports(&from, net, &permit.ports, &verdict);
                        }
                    }
                }
            }
        }
    }
    if let Some(hub) = &terrain.plan.hub {
        let via = goto(via_chain(terrain.path(&hub.path)?.index));
        for zone in &hub.zones {
            let bridge = terrain.zone(zone)?.bridge.clone();
            let open = found.any.entry(bridge).or_default();
            open.extend(hub.prefixes.iter().map(|prefix| (prefix.trunc(), via.clone())));
        }
    }
    emit(found, builder);
    internet(terrain, builder);
    probe_extra(terrain, builder)
}

const ADDRESS: [KeyType; 2] = [KeyType::Ipv4, KeyType::Ipv6];

const fn prefix(net: IpNet) -> (usize, KeyPart) {
    match net {
        IpNet::V4(net) => (0, KeyPart::Ipv4Prefix(net)),
        IpNet::V6(net) => (1, KeyPart::Ipv6Prefix(net)),
    }
}

fn emit(found: Lookups, builder: &mut Builder) {
    let mut wide: [BTreeMap<Key, Value>; 2] = Default::default();
    for (from, openings) in found.wide {
        for opening in disjoint(&openings) {
            let (family, net) = prefix(opening.net);
            let ports = KeyPart::PortRange(opening.first, opening.last);
            let key = Key(vec![KeyPart::Ifname(from.clone()), net, KeyPart::Proto(opening.protocol), ports]);
            wide[family].insert(key, opening.verdict);
        }
    }
    let mut any: [BTreeMap<Key, Value>; 2] = Default::default();
    for (from, nets) in found.any {
        for (net, verdict) in disjoint_nets(&nets) {
            let (family, net) = prefix(net);
            any[family].insert(Key(vec![KeyPart::Ifname(from.clone()), net]), verdict);
        }
    }
    let [exact4, exact6] = found.exact;
    let ([wide4, wide6], [any4, any6]) = (wide, any);
    for (family, (exact, wide, any)) in [(exact4, wide4, any4), (exact6, wide6, any6)].into_iter().enumerate()
    {
        let full = [KeyType::Ifname, ADDRESS[family], KeyType::Proto, KeyType::Port];
        builder.map(PERMIT[family], &full, crate::network_plan::ValueType::Verdict, exact);
        builder.interval_map(WIDE_MAP[family], &full, wide);
        builder.interval_map(ANY[family], &full[..2], any);
    }
}

/// The open zones' internet: nothing private, nothing of the school, of its lines or of the hub.
///
/// It is written as what may be reached, not as what may not: the kernel puts a transaction's rules into force a moment
/// before the elements of its interval sets, so that for this moment such a set is empty. What is looked up must then be
/// refused.
fn internet(terrain: &Terrain<'_>, builder: &mut Builder) {
    let plan = terrain.plan;
    let mut holes: Vec<IpNet> =
        plan.hub.iter().flat_map(|hub| hub.prefixes.iter()).map(IpNet::trunc).collect();
    holes.extend(SPECIAL4.iter().filter_map(|net| net.parse::<IpNet>().ok()));
    holes.extend(terrain.zone_nets4().map(IpNet::V4).chain(terrain.zone_nets6().map(IpNet::V6)));
    let lines = plan.lines.values();
    holes.extend(lines.clone().filter_map(|line| line.ipv4).map(|net| IpNet::V4(net.trunc())));
    holes.extend(lines.filter_map(|line| line.ipv6).map(|net| IpNet::V6(net.trunc())));
    holes.extend(terrain.tunnel_nets());
    holes.extend([IpNet::V4(plan.inside.ipv4.trunc()), IpNet::V6(plan.inside.ipv6.trunc())]);
    emit_without(builder, INTERNET, GLOBAL.iter().filter_map(|net| net.parse().ok()).collect(), &holes);
}

/// The destinations of one open zone that are simply internet: no permit by prefix says anything else of them.
pub(super) fn simply_internet(builder: &mut Builder, zone: &ZoneGround<'_>, names: [&str; 2]) {
    let prefixes = |key: &Key| {
        key.0.iter().find_map(|part| match part {
            KeyPart::Ipv4Prefix(net) => Some(IpNet::V4(*net)),
            KeyPart::Ipv6Prefix(net) => Some(IpNet::V6(*net)),
            KeyPart::Ifname(_)
            | KeyPart::Ipv4(_)
            | KeyPart::Ipv6(_)
            | KeyPart::Ether(_)
            | KeyPart::Proto(_)
            | KeyPart::Port(_)
            | KeyPart::PortRange(..)
            | KeyPart::Mark(_) => None,
        })
    };
    let internet = INTERNET.iter().flat_map(|set| builder.set_keys(set)).filter_map(prefixes).collect();
    let maps = WIDE_MAP.iter().chain(&ANY).flat_map(|map| builder.map_keys(map));
    let holes: Vec<IpNet> = maps.filter(|key| begins_with(key, &zone.bridge)).filter_map(prefixes).collect();
    emit_without(builder, names, internet, &holes);
}

/// One set a family, of these prefixes without the holes.
fn emit_without(builder: &mut Builder, names: [&str; 2], nets: Vec<IpNet>, holes: &[IpNet]) {
    let (mut four, mut six): (Vec<Ipv4Net>, Vec<Ipv6Net>) = Default::default();
    for net in nets {
        let mut pieces = Vec::new();
        carve(net, holes, &mut pieces);
        for piece in pieces {
            match piece {
                IpNet::V4(net) => four.push(net),
                IpNet::V6(net) => six.push(net),
            }
        }
    }
    let four = aggregate4(four).into_iter().map(|net| Key(vec![KeyPart::Ipv4Prefix(net)]));
    let six = aggregate6(six).into_iter().map(|net| Key(vec![KeyPart::Ipv6Prefix(net)]));
    builder.interval_set(names[0], &[KeyType::Ipv4], four.collect());
    builder.interval_set(names[1], &[KeyType::Ipv6], six.collect());
}

/// What probe hosts reach besides their zone's permits: the echo service, and the resolvers of their path.
fn probe_extra(terrain: &Terrain<'_>, builder: &mut Builder) -> Result<(), CompileError> {
    let mut extra: [BTreeMap<Key, Value>; 2] = Default::default();
    let echo = &terrain.plan.echo;
    for path in terrain.paths.values() {
        let via = goto(via_chain(path.index));
        let mut add = |address: std::net::IpAddr, protocol: u8, port: u16| {
            let (family, address) = match address {
                std::net::IpAddr::V4(v4) => (0, KeyPart::Ipv4(v4)),
                std::net::IpAddr::V6(v6) => (1, KeyPart::Ipv6(v6)),
            };
            let mark = KeyPart::Mark(Mark(u32::from(path.index.0)));
            let key = Key(vec![mark, address, KeyPart::Proto(protocol), KeyPart::Port(port)]);
            extra[family].insert(key, via.clone());
        };
        add(echo.ipv4.into(), UDP, echo.port);
        if let Some(ipv6) = echo.ipv6 {
            add(ipv6.into(), UDP, echo.port);
        }
        for resolver in &path.path.resolvers {
            add(*resolver, UDP, 53);
            add(*resolver, TCP, 53);
        }
    }
    for (family, elements) in extra.into_iter().enumerate() {
        let key = [KeyType::Mark, ADDRESS[family], KeyType::Proto, KeyType::Port];
        builder.map(PROBE_EXTRA[family], &key, crate::network_plan::ValueType::Verdict, elements);
    }
    Ok(())
}
