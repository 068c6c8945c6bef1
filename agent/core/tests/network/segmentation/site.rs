//! A plan made into a table, with clients that have been there before, and packets between those who are there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::sample::Index;
use seimon_board::{Board, MacAddress};
use seimon_core::network_plan::{
    Allocation, Element, Generation, Key, KeyPart, NetworkPlan, PathChoice, PathIndex, bridge_name, compile,
    real_elements, twin_element,
};
use seimon_plan::{GroupId, PathId, PermitTarget, ValidSitePlan, ZoneId, parse};

use super::shapes::{BOARD, PATHS, PacketShape, Shape};
use crate::interpreter::{Machine, Packet};
use crate::oracle::Client;

type LoggedIn = (BTreeSet<(GroupId, PathId)>, BTreeSet<GroupId>);

/// A plan, what it was made into, and what has happened since.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) plan: ValidSitePlan,
    pub(super) net: NetworkPlan,
    pub(super) choice: BTreeMap<(ZoneId, GroupId), PathChoice>,
    pub(super) real: BTreeMap<(ZoneId, String, PathId, u8), IpAddr>,
    /// Where client 1 of each zone is logged in, and where it began over IPv4.
    pub(super) kept: BTreeMap<ZoneId, LoggedIn>,
}

const CLIENT: [MacAddress; 2] = [MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2])];

impl Site {
    pub(super) fn build(shape: &Shape) -> Self {
        let board = Board::parse(BOARD, "board.toml").unwrap();
        let text = shape.text();
        let plan = parse(&text, "model.toml", &board).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        let allocation = Allocation::default().extend(&plan).unwrap();
        let mut choice = BTreeMap::new();
        let mut kept: BTreeMap<ZoneId, LoggedIn> = BTreeMap::new();
        for ((route, chosen), (used, by_ipv4)) in plan.routes().iter().zip(&shape.choices).zip(&shape.kept) {
            let now = route.paths.get(*chosen);
            let now =
                now.map_or_else(|| PathChoice::Blocked("model".into()), |path| PathChoice::On(path.clone()));
            choice.insert((route.zone.clone(), route.group.clone()), now);
            let (paths, groups) = kept.entry(route.zone.clone()).or_default();
            paths.extend(used.iter().map(|path| (route.group.clone(), PathId::new(PATHS[*path]).unwrap())));
            if *by_ipv4 {
                groups.insert(route.group.clone());
            }
        }
        let mut net = compile(&plan, &allocation, &choice, None, Generation(1)).unwrap();
        let mut real = BTreeMap::new();
        let mut known = shape.known.iter().cycle();
        for (i, (zone, name)) in allocation.inside.keys().enumerate() {
            let mut has_ipv4 = false;
            for (j, path) in PATHS.into_iter().enumerate() {
                let path = PathId::new(path).unwrap();
                let (i, j) = (i as u8, j as u8);
                let four = known.next().unwrap().then_some(Ipv4Addr::new(203, 0, 113 + j, 128 + i));
                let six = known.next().unwrap();
                let six = six.then_some(Ipv6Addr::new(0x2001, 0xdb8, 0xaa, j.into(), 0, 0, 0, i.into()));
                has_ipv4 |= four.is_some();
                put(&mut net, real_elements(&allocation, zone, name, &path, four, six));
                let reals = [(4, four.map(IpAddr::V4)), (6, six.map(IpAddr::V6))];
                for (family, address) in reals {
                    if let Some(address) = address {
                        real.insert((zone.clone(), name.clone(), path.clone(), family), address);
                    }
                }
            }
            if has_ipv4 {
                put(&mut net, twin_element(&allocation, zone, name));
            }
        }
        Self { plan, net, choice, real, kept }
    }

    /// Client 1 of every zone has been here before.
    pub(super) fn machine(&self) -> Machine<'_> {
        let mut machine = Machine::read(&self.net).unwrap_or_else(|word| panic!("not understood: {word}"));
        let allocation = &self.net.allocation;
        for (zone, (paths, by_ipv4)) in &self.kept {
            let learnt = paths
                .iter()
                .map(|(group, path)| (group, allocation.paths[path]))
                .chain(by_ipv4.iter().map(|group| (group, PathIndex::BY_IPV4)));
            for (group, path) in learnt {
                let index = allocation.zone_groups[&(zone.clone(), group.clone())];
                let key = Key(vec![KeyPart::Mark(index.mark()), KeyPart::Ether(CLIENT[1])]);
                machine.learnt.entry(format!("aff_{}", path.0)).or_default().insert(key);
            }
        }
        machine
    }

    /// Whether a permit joins the zone and the one with that bridge, either way.
    pub(super) fn joined(&self, zone: &ZoneId, bridge: &str) -> bool {
        let is_there = |zone: &ZoneId| bridge_name(zone).unwrap().as_str() == bridge;
        self.plan.permits.iter().any(|permit| match &permit.to {
            PermitTarget::Zone(to) => {
                (permit.from == *zone && is_there(to)) || (to == zone && is_there(&permit.from))
            }
            PermitTarget::Service(_) => false,
        })
    }

    fn zone(&self, index: Index) -> &ZoneId {
        self.plan.zones.keys().nth(index.index(self.plan.zones.len())).unwrap()
    }

    /// The packet, and who sent it.
    pub(super) fn packet(&self, shape: &PacketShape) -> (ZoneId, Packet, Client) {
        let zone = self.zone(shape.zone).clone();
        let written = &self.plan.zones[&zone];
        // A zone without IPv6 has no IPv6 machines: whoever claims to be one is none of it.
        let family = if shape.ipv6 { 6 } else { 4 };
        let own: IpAddr = match (family, written.ipv6) {
            (4, _) => host(written.ipv4.into(), 100),
            (_, Some(net)) => host(net.into(), 100),
            (_, None) => "fd20:0:0:99::100".parse().unwrap(),
        };
        let machine = || {
            let kept = self.kept.get(&zone).filter(|_| shape.client == 1).cloned().unwrap_or_default();
            Client::Machine { kept: kept.0, by_ipv4: kept.1 }
        };
        let mut mac = CLIENT[usize::from(shape.client)];
        let probes: Vec<_> = self.net.allocation.probes.iter().collect();
        let (source, client) = match shape.source {
            0..=5 if family == 6 && written.ipv6.is_none() => (own, Client::Forged),
            0..=5 => (own, machine()),
            6..=8 if !probes.is_empty() => {
                let ((at, path), host) = probes[shape.any.index(probes.len())];
                let address = if family == 4 { IpAddr::V4(host.ipv4) } else { host.ipv6.into() };
                // With its own hardware address and in its own zone, or forged.
                if *at == zone && shape.source != 8 {
                    mac = host.mac;
                    (address, Client::Probe(path.clone()))
                } else {
                    (address, Client::Forged)
                }
            }
            _ => {
                let others = self.others(family);
                let source = others[shape.any.index(others.len())];
                let good = match source {
                    IpAddr::V4(source) => written.ipv4.contains(&source),
                    IpAddr::V6(source) => written.ipv6.is_some_and(|net| net.contains(&source)),
                };
                (source, if good { machine() } else { Client::Forged })
            }
        };
        let targets = self.targets(&zone, shape.destination, family);
        let destination = targets[shape.there.index(targets.len())];
        let protocol = if shape.protocol == 1 && family == 6 { 58 } else { shape.protocol };
        let port = if [6, 17].contains(&protocol) { shape.port } else { 0 };
        let packet = Packet {
            iif: bridge_name(&zone).unwrap().to_string(),
            mac,
            source,
            destination,
            protocol,
            source_port: if port == 0 { 0 } else { 40_000 },
            port,
            state: "new",
            ct_mark: shape.foreign,
            mark: shape.foreign.rotate_left(3) & 0xffff_ff00,
        };
        (zone, packet, client)
    }

    /// Machines of the school, of the lines and of nobody.
    fn others(&self, family: u8) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = [
            "203.0.113.200",
            "192.0.2.2",
            "10.10.0.1",
            "10.20.77.7",
            "100.127.0.1",
            "2001:db8:99::9",
            "2001:db8:2::2",
            "fd20:0:0:77::7",
            "fd53:6569:6d6f::1",
        ]
        .iter()
        .map(|address| address.parse().unwrap())
        .collect();
        for zone in self.plan.zones.values() {
            all.push(host(zone.ipv4.into(), 101));
            all.extend(zone.ipv6.map(|net| host(net.into(), 101)));
        }
        all.retain(|address| address.is_ipv4() == (family == 4));
        all
    }

    fn targets(&self, zone: &ZoneId, kind: u8, family: u8) -> Vec<IpAddr> {
        let plan = &self.plan;
        let parse = |words: &[&str]| words.iter().map(|word| word.parse().unwrap()).collect::<Vec<IpAddr>>();
        let nets = |zone: &seimon_plan::Zone| {
            [Some(IpNet::V4(zone.ipv4)), zone.ipv6.map(IpNet::V6)].into_iter().flatten()
        };
        let mut all: Vec<IpAddr> = match kind {
            0 => nets(&plan.zones[zone]).map(|net| net.addr()).collect(),
            1 => plan.zones.values().flat_map(nets).map(|net| net.addr()).collect(),
            2..=4 => plan
                .zones
                .iter()
                .filter(|(id, _)| *id != zone)
                .flat_map(|(_, zone)| nets(zone))
                .map(|net| host(net, 100))
                .collect(),
            5..=8 => {
                let names = self.net.allocation.inside.iter();
                // Mostly one's own.
                let names = names.filter(|((at, _), _)| kind == 8 || at == zone);
                names.flat_map(|(_, (four, six))| [IpAddr::V4(*four), IpAddr::V6(*six)]).collect()
            }
            9 => {
                let sources = self.net.allocation.path_sources.values();
                let mut all = parse(&[
                    "100.127.77.77",
                    "fd53:6569:6d6f::7777",
                    "192.0.2.2",
                    "10.10.0.1",
                    "2001:db8:2::2",
                ]);
                all.extend(sources.flat_map(|(four, six)| [IpAddr::V4(*four), IpAddr::V6(*six)]));
                all.extend(
                    self.net
                        .allocation
                        .probes
                        .values()
                        .flat_map(|host| [IpAddr::V4(host.ipv4), host.ipv6.into()]),
                );
                all
            }
            10..=11 => parse(&[
                "198.51.100.7",
                "198.51.100.200",
                "203.0.113.99",
                "203.0.113.98",
                "10.50.9.9",
                "2001:db8:77::1",
                "2001:db8:77:1::1",
                "2001:db8:50:9::1",
            ]),
            12 => parse(&[
                "10.50.0.53",
                "10.50.200.1",
                "198.51.64.9",
                "2001:db8:50::1",
                "203.0.113.53",
                "2001:db8:113::53",
                "203.0.113.7",
                "2001:db8:113::7",
            ]),
            13 => parse(&[
                "10.99.0.1",
                "192.168.1.1",
                "172.31.0.1",
                "169.254.0.9",
                "100.64.0.1",
                "198.19.0.1",
                "192.0.2.1",
                "10.10.0.2",
                "fd99::1",
                "2001:db8:2::1",
                "2001:db8:1::1",
            ]),
            _ => parse(&[
                "8.8.8.8",
                "203.0.113.77",
                "198.51.65.1",
                "2001:db8:ffff::8",
                "2606:4700::1",
                "64:ff9b::808:808",
                "4000::1",
                "1fff:ffff::1",
            ]),
        };
        all.retain(|address| address.is_ipv4() == (family == 4));
        if all.is_empty() {
            all = parse(if family == 4 { &["8.8.8.8"] } else { &["2606:4700::1"] });
        }
        all
    }
}

fn put(net: &mut NetworkPlan, elements: impl IntoIterator<Item = Element>) {
    for element in elements {
        let map = net.ruleset.maps.get_mut(&element.container).unwrap();
        map.elements.insert(element.key, element.value.unwrap());
    }
}

fn host(net: IpNet, number: u8) -> IpAddr {
    match net {
        IpNet::V4(net) => Ipv4Addr::from(u32::from(net.network()) | u32::from(number)).into(),
        IpNet::V6(net) => Ipv6Addr::from(u128::from(net.network()) | u128::from(number)).into(),
    }
}
