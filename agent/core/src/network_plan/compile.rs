//! From intent to everything that the kernel is to be told.
//!
//! Routing rules, by priority:
//!
//! | priority | rule | so that |
//! |---|---|---|
//! | 90 | from a zone's or line's interface, unmarked: prohibit | nothing is forwarded when our table is gone |
//! | 100 | table of the zones | answers find the zones before any path |
//! | 110 | from a line's interface: dropped | what comes in by a line goes to a zone or nowhere, whatever flow it claims |
//! | 140 | our own, from a tunnel's UDP port: its line's table | a tunnel never goes through itself |
//! | 150 | from a path's local source: that path's table | a process chooses a path by its source address |
//! | 200 | marked: that path's table | |
//! | 900 | from a zone, marked, from a tunnel's port or a path's source: prohibit | a path without a route leads nowhere else |
//! | 33000 | our own, still without a route: the gateway's first path | a source address can be chosen |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use seimon_board::InterfaceName;
use seimon_plan::{GroupId, PathId, ValidSitePlan, Wireguard, ZoneId};
use serde::{Deserialize, Serialize};

use super::allocation::Allocation;
use super::elements::{gateway_element, initial_current};
use super::link::{Address, IpRule, Link, LinkKind, Route, RouteKind, RuleAction, RuleMatch, Sysctl};
use super::mark::{Mark, PathIndex, ZONES_TABLE};
use super::naming::{TRUNK, vlan_name};
use super::ruleset::Family;
use super::terrain::{PathGround, Terrain};
use super::tunnel::{Peer, Tunnel};
use super::{Generation, NetworkPlan};
use crate::segmentation;

/// Where new flows of a group in a zone go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PathChoice {
    On(PathId),
    /// Nowhere, and why: they are refused at once.
    Blocked(String),
}

/// A valid plan that cannot be made into a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("port {0} is not on this board")]
    NoSuchPort(String),
    #[error(
        "path {0} needs something that this version does not bring up yet (NPTv6): take it out of the plan"
    )]
    PathNotCarried(PathId),
    #[error("the plan names {what} {id}, which it does not define")]
    Unknown { what: &'static str, id: String },
    #[error("the allocation has no number for {what} {id}: extend it with this plan first")]
    Unnumbered { what: &'static str, id: String },
    #[error("zone {0}: its name is too like another's to make interface names of both; rename one")]
    ZoneName(ZoneId),
    #[error("path {0}: its name is too like another's to make interface names of both; rename one")]
    PathName(PathId),
    #[error("zone {zone}, group {group}: no path has been chosen")]
    NoChoice { zone: ZoneId, group: GroupId },
    #[error("zone {zone}, group {group}: its route does not offer path {path}")]
    ChoiceNotOffered { zone: ZoneId, group: GroupId, path: PathId },
    #[error("the plan gives the gateway's own traffic no path")]
    NoGatewayPath,
}

impl CompileError {
    pub(super) fn unknown(what: &'static str, id: impl fmt::Display) -> Self {
        Self::Unknown { what, id: id.to_string() }
    }

    pub(super) fn unnumbered(what: &'static str, id: impl fmt::Display) -> Self {
        Self::Unnumbered { what, id: id.to_string() }
    }
}

/// Makes the network plan of one generation. `allocation` must have been extended with this plan; `choice` needs an
/// entry for every migration route.
///
/// Permits are taken as they stand, whatever their last day: whoever calls leaves out those that have run out.
pub fn compile(
    plan: &ValidSitePlan,
    allocation: &Allocation,
    choice: &BTreeMap<(ZoneId, GroupId), PathChoice>,
    parent: Option<Generation>,
    generation: Generation,
) -> Result<NetworkPlan, CompileError> {
    let terrain = Terrain::survey(
        plan,
        &|port| plan.interface_of(port).cloned(),
        &|group| plan.session_idle(group).0,
        allocation,
    )?;
    check_choice(&terrain, choice)?;
    let mut ruleset = segmentation::ruleset(&terrain)?;
    let gateway = plan.gateway.paths.first().ok_or(CompileError::NoGatewayPath)?;
    let own =
        gateway_element(allocation, gateway).ok_or_else(|| CompileError::unnumbered("path", gateway))?;
    for element in initial_current(allocation, choice).into_iter().chain([own]) {
        if let (Some(map), Some(value)) = (ruleset.maps.get_mut(&element.container), element.value) {
            map.elements.insert(element.key, value);
        }
    }
    Ok(NetworkPlan {
        generation,
        parent,
        allocation: allocation.clone(),
        links: links(&terrain)?,
        tunnels: tunnels(&terrain)?,
        addresses: addresses(&terrain)?,
        routes: routes(&terrain)?,
        rules: rules(&terrain, gateway)?,
        sysctls: sysctls(&terrain),
        ruleset,
    })
}

fn check_choice(
    terrain: &Terrain<'_>,
    choice: &BTreeMap<(ZoneId, GroupId), PathChoice>,
) -> Result<(), CompileError> {
    for route in &terrain.routes {
        let (zone, group) = (route.zone.clone(), route.group.clone());
        match choice.get(&(zone.clone(), group.clone())) {
            None => return Err(CompileError::NoChoice { zone, group }),
            Some(PathChoice::On(path)) if !route.paths.contains(&path) => {
                return Err(CompileError::ChoiceNotOffered { zone, group, path: path.clone() });
            }
            Some(PathChoice::On(_) | PathChoice::Blocked(_)) => {}
        }
    }
    for (zone, group) in choice.keys() {
        if terrain.route(zone, group).is_none() {
            return Err(CompileError::unknown("a route for group", group));
        }
    }
    Ok(())
}

fn links(terrain: &Terrain<'_>) -> Result<Vec<Link>, CompileError> {
    let mut links = Vec::new();
    for (line, interface) in &terrain.lines {
        let mtu = terrain.plan.lines.get(*line).map(|line| line.mtu);
        links.push(Link { name: interface.clone(), kind: LinkKind::Uplink, mtu });
    }
    let (trunk, ports) = (InterfaceName::new(TRUNK), terrain.trunk());
    let trunk = trunk.map_err(|_| CompileError::unknown("interface", TRUNK))?;
    if !ports.is_empty() {
        links.push(Link { name: trunk.clone(), kind: LinkKind::Trunk { ports }, mtu: None });
    }
    for zone in terrain.zones.values() {
        let mut members = zone.ports.clone();
        if let Some(id) = zone.vlan {
            let name = vlan_name(id).map_err(|_| CompileError::ZoneName(zone.id.clone()))?;
            members = vec![name.clone()];
            links.push(Link { name, kind: LinkKind::Vlan { over: trunk.clone(), id }, mtu: None });
        }
        let kind = LinkKind::Bridge { members };
        links.push(Link { name: zone.bridge.clone(), kind, mtu: None });
    }
    for (zone, _, host) in terrain.probes()? {
        let kind = LinkKind::Probe { bridge: zone.bridge.clone(), far: host.far.clone(), far_mac: host.mac };
        links.push(Link { name: host.near.clone(), kind, mtu: None });
    }
    for (path, tunnel) in terrain.tunnels() {
        links.push(Link { name: path.uplink.clone(), kind: LinkKind::Tunnel, mtu: Some(tunnel.mtu) });
    }
    Ok(links)
}

fn tunnels(terrain: &Terrain<'_>) -> Result<BTreeMap<InterfaceName, Tunnel>, CompileError> {
    let mut tunnels = BTreeMap::new();
    for (path, settings) in terrain.tunnels() {
        let line = &path.path.line;
        let carrier = terrain.carriers.get(line).ok_or_else(|| CompileError::unknown("line", line))?;
        let mut allowed = BTreeSet::from([IpNet::V4(Ipv4Net::default())]);
        if path.has_ipv6() {
            allowed.insert(IpNet::V6(Ipv6Net::default()));
        }
        let keepalive = u16::try_from(settings.keepalive.0.as_secs()).unwrap_or(u16::MAX);
        let hub = Peer {
            endpoint: settings.endpoint.address(),
            allowed,
            keepalive: (keepalive > 0).then_some(keepalive),
        };
        let tunnel = Tunnel {
            private_key_file: settings.private_key_file.clone().into(),
            own: None,
            listen_port: settings.listen_port,
            mark: carrier.index.mark().0,
            peers: BTreeMap::from([(settings.public_key, hub)]),
        };
        tunnels.insert(path.uplink.clone(), tunnel);
    }
    Ok(tunnels)
}

fn host4(address: Ipv4Addr) -> IpNet {
    IpNet::V4(Ipv4Net::from(address))
}

fn host6(address: Ipv6Addr) -> IpNet {
    IpNet::V6(Ipv6Net::from(address))
}

fn addresses(terrain: &Terrain<'_>) -> Result<Vec<Address>, CompileError> {
    let mut all = Vec::new();
    for (id, interface) in &terrain.lines {
        let Some(line) = terrain.plan.lines.get(*id) else { continue };
        let nets = line.ipv4.map(IpNet::V4).into_iter().chain(line.ipv6.map(IpNet::V6));
        all.extend(nets.map(|address| Address { interface: interface.clone(), address }));
    }
    for zone in terrain.zones.values() {
        let nets = [IpNet::V4(zone.zone.ipv4)].into_iter().chain(zone.zone.ipv6.map(IpNet::V6));
        all.extend(nets.map(|address| Address { interface: zone.bridge.clone(), address }));
    }
    for (path, tunnel) in terrain.tunnels() {
        let inner = [Some(IpNet::V4(tunnel.ipv4)), tunnel.ipv6.map(IpNet::V6).filter(|_| path.has_ipv6())];
        all.extend(
            inner.into_iter().flatten().map(|address| Address { interface: path.uplink.clone(), address }),
        );
    }
    let lo = InterfaceName::new("lo").map_err(|_| CompileError::unknown("interface", "lo"))?;
    for path in terrain.paths.values() {
        let (v4, v6) = terrain
            .allocation
            .path_sources
            .get(path.id)
            .ok_or_else(|| CompileError::unnumbered("path source", path.id))?;
        all.extend([host4(*v4), host6(*v6)].map(|address| Address { interface: lo.clone(), address }));
    }
    Ok(all)
}

fn routes(terrain: &Terrain<'_>) -> Result<Vec<Route>, CompileError> {
    let mut all = Vec::new();
    let mut zones = |destination: IpNet, kind: RouteKind| {
        all.push(Route { table: ZONES_TABLE, destination, kind, mtu: None });
    };
    let onlink =
        |interface: &InterfaceName, source| RouteKind::Onlink { interface: interface.clone(), source };
    for zone in terrain.zones.values() {
        let v4 = zone.zone.ipv4;
        zones(v4.trunc().into(), onlink(&zone.bridge, Some(v4.addr().into())));
        if let Some(v6) = zone.zone.ipv6 {
            zones(v6.trunc().into(), onlink(&zone.bridge, Some(v6.addr().into())));
        }
    }
    for (zone, _, host) in terrain.probes()? {
        zones(host4(host.ipv4), onlink(&zone.bridge, Some(zone.zone.ipv4.addr().into())));
        let source = zone.zone.ipv6.map(|net| net.addr().into());
        zones(host6(host.ipv6), onlink(&zone.bridge, source));
    }
    // An inside address that was not translated must not follow a path's default route.
    zones(terrain.plan.inside.ipv4.trunc().into(), RouteKind::Prohibit);
    zones(terrain.plan.inside.ipv6.trunc().into(), RouteKind::Prohibit);
    for path in terrain.paths.values() {
        match path.tunnel() {
            None => line_routes(&mut all, path.index, &path.uplink, path.line, path.has_ipv6()),
            Some(tunnel) => tunnel_routes(&mut all, path, tunnel),
        }
    }
    for carrier in terrain.bare_carriers() {
        line_routes(&mut all, carrier.index, &carrier.port, carrier.line, true);
    }
    Ok(all)
}

/// Everything goes to the next routers of the line.
fn line_routes(
    all: &mut Vec<Route>,
    index: PathIndex,
    port: &InterfaceName,
    line: &seimon_plan::Line,
    has_ipv6: bool,
) {
    let table = index.table();
    let mut add = |destination: IpNet, kind: RouteKind| {
        all.push(Route { table, destination, kind, mtu: None });
    };
    let onlink = |source: IpAddr| RouteKind::Onlink { interface: port.clone(), source: Some(source) };
    let via = |gateway, source| RouteKind::Via { gateway, interface: port.clone(), source: Some(source) };
    if let Some(net) = line.ipv4 {
        let source = net.addr().into();
        add(net.trunc().into(), onlink(source));
        if let Some(gateway) = line.gateway4 {
            add(Ipv4Net::default().into(), via(gateway.into(), source));
        }
    }
    if let (true, Some(net)) = (has_ipv6, line.ipv6) {
        let source = net.addr().into();
        add(net.trunc().into(), onlink(source));
        if let Some(gateway) = line.gateway6 {
            add(Ipv6Net::default().into(), via(gateway.into(), source));
        }
    }
}

/// Everything goes into the tunnel: there is no next router inside.
fn tunnel_routes(all: &mut Vec<Route>, path: &PathGround<'_>, tunnel: &Wireguard) {
    let table = path.index.table();
    let mut add = |destination: IpNet, source: IpAddr| {
        let kind = RouteKind::Onlink { interface: path.uplink.clone(), source: Some(source) };
        all.push(Route { table, destination, kind, mtu: None });
    };
    add(Ipv4Net::default().into(), tunnel.ipv4.addr().into());
    if let (true, Some(net)) = (path.has_ipv6(), tunnel.ipv6) {
        add(Ipv6Net::default().into(), net.addr().into());
    }
}

fn rules(terrain: &Terrain<'_>, gateway: &PathId) -> Result<Vec<IpRule>, CompileError> {
    let mut all = Vec::new();
    let mask = Mark::PATH_MASK;
    let from = |iif: &str| InterfaceName::new(iif).ok();
    for family in [Family::Ipv4, Family::Ipv6] {
        let mut add = |priority: u32, matches: RuleMatch, action: RuleAction| {
            all.push(IpRule { family, priority, matches, action });
        };
        let zones = terrain.zones.values().map(|zone| &zone.bridge);
        let outside: Vec<&InterfaceName> =
            terrain.lines.values().chain(terrain.tunnels().map(|(path, _)| &path.uplink)).collect();
        let inputs: Vec<&InterfaceName> = zones.chain(outside.iter().copied()).collect();
        for iif in &inputs {
            let matches =
                RuleMatch { iif: Some((*iif).clone()), fwmark: Some((0, mask)), ..RuleMatch::default() };
            add(90, matches, RuleAction::Prohibit);
            // A forged packet of a known flow would be marked, and leave by that flow's line. To answer it would be to
            // answer the one whose source was forged.
            let is_line = outside.contains(iif);
            let (priority, action) =
                if is_line { (110, RuleAction::Blackhole) } else { (900, RuleAction::Prohibit) };
            add(priority, RuleMatch { iif: Some((*iif).clone()), ..RuleMatch::default() }, action);
        }
        add(100, RuleMatch::default(), RuleAction::Table(ZONES_TABLE));
        for path in terrain.paths.values() {
            let table = RuleAction::Table(path.index.table());
            if let Some((v4, v6)) = terrain.allocation.path_sources.get(path.id) {
                let source = match family {
                    Family::Ipv4 => host4(*v4),
                    Family::Ipv6 => host6(*v6),
                };
                let matches = RuleMatch { from: Some(source), ..RuleMatch::default() };
                add(150, matches.clone(), table.clone());
                add(900, matches, RuleAction::Prohibit);
            }
            let marked = Some((path.index.mark().0, mask));
            let matches = RuleMatch { fwmark: marked, ..RuleMatch::default() };
            add(200, matches.clone(), table);
            add(900, matches, RuleAction::Prohibit);
        }
        for carrier in terrain.bare_carriers() {
            let matches = RuleMatch { fwmark: Some((carrier.index.mark().0, mask)), ..RuleMatch::default() };
            add(200, matches.clone(), RuleAction::Table(carrier.index.table()));
            add(900, matches, RuleAction::Prohibit);
        }
        for carrier in terrain.carriers.values() {
            for port in &carrier.ports {
                let matches =
                    RuleMatch { iif: from("lo"), udp_source_port: Some(*port), ..RuleMatch::default() };
                add(140, matches.clone(), RuleAction::Table(carrier.index.table()));
                add(900, matches, RuleAction::Prohibit);
            }
        }
        let own = RuleMatch { iif: from("lo"), ..RuleMatch::default() };
        add(33_000, own, RuleAction::Table(terrain.path(gateway)?.index.table()));
    }
    all.sort();
    Ok(all)
}

/// In the order in which they are to be set. Forwarding comes last.
fn sysctls(terrain: &Terrain<'_>) -> Vec<Sysctl> {
    let mut all = Vec::new();
    let mut set = |path: String, value: &str| all.push(Sysctl { path, value: value.to_owned() });
    for (path, value) in [
        // Bytes per flow, for affinity and for the share of users served.
        ("net/netfilter/nf_conntrack_acct", "1"),
        // A flow whose entry was deleted must not be adopted in mid-stream: its next packet is answered with a reset.
        ("net/netfilter/nf_conntrack_tcp_loose", "0"),
        // ...and one whose windows the kernel misread must not be.
        ("net/netfilter/nf_conntrack_tcp_be_liberal", "1"),
        ("net/ipv4/fwmark_reflect", "1"),
        ("net/ipv6/fwmark_reflect", "1"),
        // The strictest of `all` and the interface's wins: strict on zones, off on uplinks.
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/all/src_valid_mark", "1"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/all/accept_source_route", "0"),
        ("net/ipv6/conf/all/accept_redirects", "0"),
    ] {
        set(path.to_owned(), value);
    }
    for interface in terrain.lines.values().chain(terrain.tunnels().map(|(path, _)| &path.uplink)) {
        set(format!("net/ipv4/conf/{interface}/rp_filter"), "0");
        set(format!("net/ipv4/conf/{interface}/send_redirects"), "0");
        set(format!("net/ipv6/conf/{interface}/accept_ra"), "0");
    }
    for zone in terrain.zones.values() {
        let bridge = &zone.bridge;
        set(format!("net/ipv4/conf/{bridge}/rp_filter"), "1");
        set(format!("net/ipv4/conf/{bridge}/send_redirects"), "0");
        set(format!("net/ipv6/conf/{bridge}/accept_ra"), "0");
    }
    if !terrain.trunk().is_empty() {
        // The trunk itself is nobody's network.
        set(format!("net/ipv6/conf/{TRUNK}/disable_ipv6"), "1");
    }
    set("net/ipv6/conf/all/forwarding".to_owned(), "1");
    set("net/ipv4/ip_forward".to_owned(), "1");
    all
}
