//! Plans and packets at random.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::Index;

pub(super) const BOARD: &str = include_str!("six-lan-ports.toml");

const HEAD: &str = r#"
version = 1
[site]
id = "model"
name = "model"
board = "lab-namespace"
timezone = "Asia/Tokyo"
[inside]
ipv4 = "100.127.0.0/16"
ipv6 = "fd53:6569:6d6f::/64"
[lines.carrier]
port = "WAN1"
ipv4 = "10.10.0.1/30"
gateway4 = "10.10.0.2"
ipv6 = "2001:db8:1::2/64"
gateway6 = "2001:db8:1::1"
[lines.internet]
port = "WAN2"
ipv4 = "192.0.2.2/30"
gateway4 = "192.0.2.1"
ipv6 = "2001:db8:2::2/64"
gateway6 = "2001:db8:2::1"
[paths.direct]
line = "internet"
kind = "plain"
ipv6 = "nat66"
resolvers = ["203.0.113.53", "2001:db8:113::53"]
[echo]
ipv4 = "203.0.113.7"
ipv6 = "2001:db8:113::7"
port = 7007
[gateway]
paths = ["direct", "closed"]
"#;

const TUNNEL: &str = r#"
[paths.closed.wireguard]
endpoint = "203.0.113.20:51820"
public_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
private_key_file = "key"
ipv4 = "10.60.1.2/30"
ipv6 = "2001:db8:60::2/64"
"#;

const ZONES: [&str; 6] = ["affairs", "learning", "printers", "staff", "guest", "a-zone-of-a-long-name"];
const GROUPS: [&str; 2] = ["marks", "lessons"];
pub(super) const PATHS: [&str; 2] = ["closed", "direct"];
/// Behind the hub, nested, single addresses.
const PREFIXES: [&[&str]; 4] = [
    &[],
    &["198.51.100.0/24", "2001:db8:77::/48"],
    &["198.51.100.128/25", "203.0.113.99/32", "2001:db8:77:1::/64"],
    &["10.50.9.0/24", "2001:db8:50:9::/64"],
];
const PORTS: [&str; 5] = [
    r#""tcp/443""#,
    r#""tcp/443", "udp/443""#,
    r#""udp/7000-7100""#,
    r#""tcp/80-90", "udp/53""#,
    r#""tcp/1-65535""#,
];

#[derive(Clone, Debug)]
pub(super) struct ZoneShape {
    open: bool,
    ipv6: bool,
    internet: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct ServiceShape {
    group: usize,
    names: usize,
    prefixes: usize,
    ports: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) closed_ipv6: &'static str,
    /// The line that the closed path is a tunnel over, where it is one.
    pub(super) tunnel: Option<&'static str>,
    pub(super) zones: Vec<ZoneShape>,
    pub(super) services: Vec<ServiceShape>,
    /// Zone, service.
    pub(super) service_permits: Vec<(Index, Index)>,
    /// From, to, ports (none: everything).
    pub(super) zone_permits: Vec<(Index, Index, Option<usize>)>,
    pub(super) routes: Vec<Vec<usize>>,
    pub(super) hub: Option<(usize, Vec<Index>)>,
    /// By route: a path's place in it; beyond: blocked.
    pub(super) choices: Vec<usize>,
    /// By (name, path, family) in order: whether the real address is known.
    pub(super) known: Vec<bool>,
    /// By route: the paths that client 1 has used, and whether over IPv4.
    pub(super) kept: Vec<(Vec<usize>, bool)>,
}

/// One path or both, either first.
fn order() -> impl Strategy<Value = Vec<usize>> {
    prop::sample::select(vec![vec![0], vec![1], vec![0, 1], vec![1, 0]])
}

pub(super) fn shape() -> impl Strategy<Value = Shape> {
    let zone = (any::<bool>(), prop::bool::weighted(0.8), order())
        .prop_map(|(open, ipv6, internet)| ZoneShape { open, ipv6, internet });
    let service = (0..2usize, 0..3usize, 0..PREFIXES.len(), 0..PORTS.len())
        .prop_map(|(group, names, prefixes, ports)| ServiceShape { group, names, prefixes, ports });
    let hub = prop::option::of((0..2usize, prop::collection::vec(any::<Index>(), 1..3)));
    let plan = (
        (
            prop::sample::select(vec!["none", "native"]),
            prop::sample::select(vec![None, Some("carrier"), Some("internet")]),
        ),
        prop::collection::vec(zone, 2..=6),
        prop::collection::vec(service, 1..5),
        prop::collection::vec(any::<(Index, Index)>(), 0..8),
        prop::collection::vec((any::<Index>(), any::<Index>(), prop::option::of(0..PORTS.len())), 0..8),
        prop::collection::vec(order(), 12),
        hub,
    );
    let state = (
        prop::collection::vec(0..3usize, 18),
        prop::collection::vec(prop::bool::weighted(0.8), 64),
        prop::collection::vec((prop::sample::subsequence(vec![0, 1], 0..=2), any::<bool>()), 18),
    );
    (plan, state).prop_map(
        |(
            ((closed_ipv6, tunnel), zones, services, service_permits, zone_permits, routes, hub),
            (choices, known, kept),
        )| Shape {
            closed_ipv6,
            tunnel,
            zones,
            services,
            service_permits,
            zone_permits,
            routes,
            hub,
            choices,
            known,
            kept,
        },
    )
}

impl Shape {
    pub(super) fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        let _ = write!(
            text,
            "[paths.closed]\nline = \"{}\"\nkind = \"{}\"\nnat4 = \"routed\"\nresolvers = [\"10.50.0.53\"]\nipv6 = \"{}\"\n",
            self.tunnel.unwrap_or("carrier"),
            if self.tunnel.is_some() { "wireguard" } else { "plain" },
            self.closed_ipv6
        );
        if self.tunnel.is_some() {
            text.push_str(TUNNEL);
        }
        for (i, zone) in self.zones.iter().enumerate() {
            let internet = if zone.open { "open" } else { "listed" };
            let n = i + 1;
            let _ = write!(
                text,
                "[zones.{}]\nrole = \"staff\"\nports = [\"LAN{n}\"]\nipv4 = \"10.20.{n}.1/24\"\ninternet = \"{internet}\"\n",
                ZONES[i]
            );
            if zone.ipv6 {
                let _ = writeln!(text, "ipv6 = \"fd20:0:0:{n}::1/64\"");
            }
        }
        for (i, service) in self.services.iter().enumerate() {
            // A prefix belongs to one service.
            let first = self.services.iter().position(|other| other.prefixes == service.prefixes) == Some(i);
            let mut prefixes: Vec<&str> =
                if first { PREFIXES[service.prefixes].to_vec() } else { Vec::new() };
            if self.closed_ipv6 == "none" {
                prefixes.retain(|net| !net.starts_with("2001:db8:50"));
            }
            let names = service.names.max(usize::from(prefixes.is_empty()));
            let names: Vec<String> = (0..names).map(|n| format!("n{n}.s{i}.example")).collect();
            let _ = write!(
                text,
                "[services.s{i}]\ngroup = \"{}\"\nnames = {names:?}\nprefixes = {prefixes:?}\nports = [{}]\n",
                GROUPS[service.group], PORTS[service.ports]
            );
        }
        let mut seen = BTreeSet::new();
        let mut routed = BTreeSet::new();
        for (zone, service) in &self.service_permits {
            let (zone, service) = (zone.index(self.zones.len()), service.index(self.services.len()));
            if seen.insert((zone, service)) {
                permit(&mut text, zone, &format!("service:s{service}"), None);
                routed.insert((zone, self.services[service].group));
            }
        }
        let mut seen = BTreeSet::new();
        for (from, to, ports) in &self.zone_permits {
            let (from, to) = (from.index(self.zones.len()), to.index(self.zones.len()));
            if from != to && seen.insert((from, to, *ports)) {
                permit(&mut text, from, &format!("zone:{}", ZONES[to]), *ports);
            }
        }
        if let Some((path, zones)) = &self.hub {
            let zones: BTreeSet<&str> =
                zones.iter().map(|zone| ZONES[zone.index(self.zones.len())]).collect();
            let zones: Vec<&str> = zones.into_iter().collect();
            let six = if *path == 1 || self.closed_ipv6 != "none" { ", \"2001:db8:50::/48\"" } else { "" };
            let _ = write!(
                text,
                "[hub]\npath = \"{}\"\nprefixes = [\"10.50.0.0/16\", \"198.51.64.0/24\"{six}]\nzones = {zones:?}\n",
                PATHS[*path]
            );
        }
        if routed.is_empty() && !self.zones.iter().any(|zone| zone.open) {
            text.push_str("[migration]\nroutes = []\n");
        }
        for (zone, group) in routed {
            route(&mut text, zone, GROUPS[group], &self.routes[zone * 2 + group]);
        }
        for (i, zone) in self.zones.iter().enumerate().filter(|(_, zone)| zone.open) {
            route(&mut text, i, "internet", &zone.internet);
        }
        text
    }
}

fn permit(text: &mut String, zone: usize, to: &str, ports: Option<usize>) {
    let _ = write!(
        text,
        "[[permits]]\nfrom = \"{}\"\nto = \"{to}\"\nwho = \"w\"\nwhy = \"y\"\nuntil = \"2099-03-31\"\n",
        ZONES[zone]
    );
    if let Some(ports) = ports {
        let _ = writeln!(text, "ports = [{}]", PORTS[ports]);
    }
}

fn route(text: &mut String, zone: usize, group: &str, paths: &[usize]) {
    let paths: Vec<&str> = paths.iter().map(|path| PATHS[*path]).collect();
    let _ = write!(
        text,
        "[[migration.routes]]\nzone = \"{}\"\ngroup = \"{group}\"\npaths = {paths:?}\n",
        ZONES[zone]
    );
}

#[derive(Clone, Debug)]
pub(super) struct PacketShape {
    pub(super) zone: Index,
    /// 0–5: the client's own address, else another source.
    pub(super) source: u8,
    pub(super) any: Index,
    pub(super) destination: u8,
    pub(super) there: Index,
    pub(super) ipv6: bool,
    pub(super) protocol: u8,
    pub(super) port: u16,
    pub(super) foreign: u32,
    /// Which of two machines.
    pub(super) client: u8,
}

pub(super) fn packet() -> impl Strategy<Value = PacketShape> {
    let ports = vec![22, 53, 67, 80, 85, 123, 443, 547, 5353, 7000, 7007, 7050, 9100];
    (
        (any::<Index>(), 0..12u8, any::<Index>(), 0..16u8, any::<Index>(), prop::bool::weighted(0.4)),
        (
            prop::sample::select(vec![6u8, 6, 17, 17, 1, 47]),
            prop::sample::select(ports),
            any::<u32>(),
            0..2u8,
        ),
    )
        .prop_map(
            |((zone, source, any, destination, there, ipv6), (protocol, port, foreign, client))| {
                PacketShape {
                    zone,
                    source,
                    any,
                    destination,
                    there,
                    ipv6,
                    protocol,
                    port,
                    foreign: foreign & 0xfff0_0000,
                    client,
                }
            },
        )
}
