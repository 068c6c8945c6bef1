//! What may be reached, as elements: hash maps for single ports of inside addresses, interval maps for prefixes and wide
//! ranges.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use seimon_board::InterfaceName;
use seimon_plan::{Permit, PermitTarget, PortSpec, Protocol, Service};

use super::builder::{Builder, begins_with};
use super::intervals::{Opening, aggregate4, aggregate6, disjoint, disjoint_nets};
use crate::network_plan::{
    CompileError, Key, KeyPart, KeyType, Mark, REFUSE, Terrain, Value, ZoneGround, goto, via_chain,
};

/// Ranges up to this many ports are written port by port: a hash finds them.
const WIDE: u16 = 64;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// Chain for permitted traffic that stays in the school.
pub(super) const AS_LOCAL: &str = "as_local";
pub(super) const CLOSED4: &str = "closed4";
pub(super) const CLOSED6: &str = "closed6";
pub(super) const PERMIT: [&str; 2] = ["permit4", "permit6"];
pub(super) const WIDE_MAP: [&str; 2] = ["wide4", "wide6"];
pub(super) const ANY: [&str; 2] = ["any4", "any6"];
pub(super) const PROBE_EXTRA: [&str; 2] = ["probe_extra4", "probe_extra6"];

/// Destinations that an open zone's internet never includes, whatever else is private here.
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
const SPECIAL6: [&str; 5] = ["::/96", "::ffff:0:0/96", "fc00::/7", "fe80::/10", "ff00::/8"];

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
                for (protocol, port) in [(UDP, 53), (TCP, 53), (UDP, 123), (UDP, 67), (UDP, 547)] {
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
    closed_destinations(terrain, builder);
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

/// What an open zone's internet does not include: everything private, everything of the school, of its lines and of
/// the hub.
fn closed_destinations(terrain: &Terrain<'_>, builder: &mut Builder) {
    let plan = terrain.plan;
    let hub = plan.hub.iter().flat_map(|hub| hub.prefixes.iter());
    let (mut four, mut six): (Vec<Ipv4Net>, Vec<Ipv6Net>) = Default::default();
    for prefix in hub {
        match prefix {
            IpNet::V4(net) => four.push(net.trunc()),
            IpNet::V6(net) => six.push(net.trunc()),
        }
    }
    four.extend(SPECIAL4.iter().filter_map(|net| net.parse::<Ipv4Net>().ok()));
    four.extend(terrain.zone_nets4().chain(plan.lines.values().filter_map(|l| l.ipv4).map(|n| n.trunc())));
    four.push(plan.inside.ipv4.trunc());
    six.extend(SPECIAL6.iter().filter_map(|net| net.parse::<Ipv6Net>().ok()));
    six.extend(terrain.zone_nets6().chain(plan.lines.values().filter_map(|l| l.ipv6).map(|n| n.trunc())));
    six.push(plan.inside.ipv6.trunc());
    let four = aggregate4(four).into_iter().map(|net| Key(vec![KeyPart::Ipv4Prefix(net)]));
    let six = aggregate6(six).into_iter().map(|net| Key(vec![KeyPart::Ipv6Prefix(net)]));
    builder.interval_set(CLOSED4, &[KeyType::Ipv4], four.collect());
    builder.interval_set(CLOSED6, &[KeyType::Ipv6], six.collect());
}

/// The destinations of one open zone that want a closer look: what its internet does not include, and whatever it is
/// permitted by prefix.
pub(super) fn not_simply_internet(builder: &mut Builder, zone: &ZoneGround<'_>, family: usize, name: &str) {
    let closed = builder.set_keys(if family == 0 { CLOSED4 } else { CLOSED6 });
    let permitted = [WIDE_MAP[family], ANY[family]].into_iter().flat_map(|map| builder.map_keys(map));
    let permitted = permitted.filter(|key| begins_with(key, &zone.bridge));
    let parts = closed.chain(permitted).flat_map(|key| key.0.iter());
    let (mut four, mut six): (Vec<Ipv4Net>, Vec<Ipv6Net>) = Default::default();
    for part in parts {
        match part {
            KeyPart::Ipv4Prefix(net) => four.push(*net),
            KeyPart::Ipv6Prefix(net) => six.push(*net),
            KeyPart::Ifname(_)
            | KeyPart::Ipv4(_)
            | KeyPart::Ipv6(_)
            | KeyPart::Ether(_)
            | KeyPart::Proto(_)
            | KeyPart::Port(_)
            | KeyPart::PortRange(..)
            | KeyPart::Mark(_) => {}
        }
    }
    let four = aggregate4(four).into_iter().map(|net| Key(vec![KeyPart::Ipv4Prefix(net)]));
    let six = aggregate6(six).into_iter().map(|net| Key(vec![KeyPart::Ipv6Prefix(net)]));
    builder.interval_set(name, &[ADDRESS[family]], four.chain(six).collect());
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
