//! From the hub plan to everything that the kernel is to be told.
//!
//! Routing rules, by priority:
//!
//! | priority | rule | so that |
//! |---|---|---|
//! | 90 | from the tunnel or a line, unmarked: prohibit | nothing is forwarded when our table is gone |
//! | 100 | from a line, and our own: table of the schools | answers find the schools; from the tunnel nothing leads into it |
//! | 110 | from a line: dropped | what comes in by a line goes to a school or nowhere |
//! | 140 | our own, from the tunnel's UDP port: the table of its line | outer packets take their line |
//! | 200 | from the tunnel, marked; outer packets, marked: that way's table | |
//! | 210 | our own: the town | |
//! | 900 | from the tunnel, marked or from its port: prohibit | a way without a route leads nowhere else |
//! | 33000 | our own, still without a route: the tunnel's line | |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use seimon_board::InterfaceName;
use seimon_plan::{Line, LineId, ValidHubPlan};

use super::ruleset::{Ground, ruleset};
use super::{OUTER, Roster, TO_INTERNET, TO_TOWN, Today, sources};
use crate::network_plan::{
    Address, Allocation, Family, Generation, IpRule, Link, LinkKind, Mark, NetworkPlan, PathIndex, Peer,
    Route, RouteKind, RuleAction, RuleMatch, Sysctl, Tunnel, ZONES_TABLE,
};

/// The one interface that all schools' tunnels end in.
pub const TUNNEL: &str = "wg-hub";

/// A valid plan that cannot be made into a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubCompileError {
    #[error("the plan names line {0}, which it does not define, or whose port this board does not have")]
    NoSuchLine(LineId),
    #[error("port {0} of the board is an interface that the hub makes itself: rename it in the board file")]
    NameTaken(InterfaceName),
}

struct Lines<'a> {
    tunnel: InterfaceName,
    lo: InterfaceName,
    outer: (&'a Line, &'a InterfaceName),
    town: (&'a Line, &'a InterfaceName),
    egress: Option<(&'a Line, &'a InterfaceName)>,
    all: BTreeMap<&'a LineId, (&'a Line, &'a InterfaceName)>,
}

/// Makes the hub's network plan of one generation: with the keys that count today, sources at those that schools use.
pub fn compile(
    plan: &ValidHubPlan,
    roster: &Roster,
    today: Today,
    parent: Option<Generation>,
    generation: Generation,
) -> Result<NetworkPlan, HubCompileError> {
    let lines = Lines::survey(plan)?;
    let control = plan.control.as_ref().map(|control| lines.find(plan, &control.line)).transpose()?;
    let ground = Ground {
        plan,
        tunnel: &lines.tunnel,
        outer: lines.outer.1,
        town: lines.town.1,
        egress: lines.egress.map(|(_, port)| port),
        control: control.map(|(_, port)| port),
        ports: lines.all.values().map(|(_, port)| *port).collect(),
    };
    Ok(NetworkPlan {
        generation,
        parent,
        allocation: Allocation::default(),
        links: links(plan, &lines),
        tunnels: BTreeMap::from([(lines.tunnel.clone(), tunnel(plan, roster, today))]),
        addresses: addresses(plan, &lines),
        routes: routes(plan, &lines),
        rules: rules(plan, &lines),
        sysctls: sysctls(&lines),
        ruleset: ruleset(&ground),
    })
}

impl<'a> Lines<'a> {
    fn survey(plan: &'a ValidHubPlan) -> Result<Self, HubCompileError> {
        let find = |id: &LineId| plan.line(id).ok_or_else(|| HubCompileError::NoSuchLine(id.clone()));
        let own = |name: &str| InterfaceName::new(name);
        let (Ok(tunnel), Ok(lo)) = (own(TUNNEL), own("lo")) else {
            return Err(HubCompileError::NoSuchLine(plan.tunnel.line.clone()));
        };
        let all: BTreeMap<_, _> =
            plan.lines.keys().map(|id| Ok((id, find(id)?))).collect::<Result<_, HubCompileError>>()?;
        if let Some((_, port)) = all.values().find(|(_, port)| **port == tunnel || **port == lo) {
            return Err(HubCompileError::NameTaken((*port).clone()));
        }
        Ok(Self {
            tunnel,
            lo,
            outer: find(&plan.tunnel.line)?,
            town: find(&plan.town.line)?,
            egress: plan.egress.as_ref().map(|egress| find(&egress.line)).transpose()?,
            all,
        })
    }

    fn find(
        &self,
        plan: &'a ValidHubPlan,
        id: &LineId,
    ) -> Result<(&'a Line, &'a InterfaceName), HubCompileError> {
        plan.line(id).ok_or_else(|| HubCompileError::NoSuchLine(id.clone()))
    }
}

fn links(plan: &ValidHubPlan, lines: &Lines<'_>) -> Vec<Link> {
    let uplink = |(line, port): &(&Line, &InterfaceName)| Link {
        name: (*port).clone(),
        kind: LinkKind::Uplink,
        mtu: Some(line.mtu),
    };
    let mut links: Vec<Link> = lines.all.values().map(uplink).collect();
    links.push(Link { name: lines.tunnel.clone(), kind: LinkKind::Tunnel, mtu: Some(plan.tunnel.mtu) });
    links
}

/// A peer for each key that counts. A school's sources are with one of them.
fn tunnel(plan: &ValidHubPlan, roster: &Roster, today: Today) -> Tunnel {
    let mut peers = BTreeMap::new();
    for (id, school) in &plan.schools {
        let in_use = roster.key_in_use(id).filter(|used| today.keys(school).any(|key| key == *used));
        let in_use = in_use.or_else(|| today.keys(school).next());
        for key in today.keys(school) {
            let allowed = if in_use == Some(key) { sources(school).collect() } else { BTreeSet::new() };
            // Schools keep the way open; a hub that did would wake thousands of lines.
            peers.insert(key, Peer { endpoint: roster.endpoint(&key), allowed, keepalive: None });
        }
    }
    Tunnel {
        private_key_file: plan.tunnel.private_key_file.clone().into(),
        own: None,
        listen_port: plan.tunnel.listen_port,
        mark: OUTER.mark().0,
        peers,
    }
}

fn addresses(plan: &ValidHubPlan, lines: &Lines<'_>) -> Vec<Address> {
    let mut all = BTreeSet::new();
    for (line, port) in lines.all.values() {
        let nets = line.ipv4.map(IpNet::V4).into_iter().chain(line.ipv6.map(IpNet::V6));
        all.extend(nets.map(|address| Address { interface: (*port).clone(), address }));
    }
    let inner = [Some(IpNet::V4(plan.tunnel.ipv4)), plan.tunnel.ipv6.map(IpNet::V6)];
    let inner = inner.into_iter().flatten();
    all.extend(inner.map(|address| Address { interface: lines.tunnel.clone(), address }));
    if let (Some(egress), Some((line, port))) = (&plan.egress, lines.egress) {
        let four = egress.ipv4.iter().filter(|a| line.ipv4.is_none_or(|net| net.addr() != **a));
        let six = egress.ipv6.iter().filter(|a| line.ipv6.is_none_or(|net| net.addr() != **a));
        let hosts =
            four.map(|a| IpNet::V4(Ipv4Net::from(*a))).chain(six.map(|a| IpNet::V6(Ipv6Net::from(*a))));
        all.extend(hosts.map(|address| Address { interface: port.clone(), address }));
    }
    all.into_iter().collect()
}

fn routes(plan: &ValidHubPlan, lines: &Lines<'_>) -> Vec<Route> {
    let mut all = BTreeSet::new();
    let tunnel = &plan.tunnel;
    let source = |net: &IpNet| match net {
        IpNet::V4(_) => Some(IpAddr::V4(tunnel.ipv4.addr())),
        IpNet::V6(_) => tunnel.ipv6.map(|net| IpAddr::V6(net.addr())),
    };
    let whole = [Some(IpNet::V4(tunnel.ipv4.trunc())), tunnel.ipv6.map(|net| IpNet::V6(net.trunc()))];
    let prefixes = plan.schools.values().flat_map(|school| school.prefixes.iter().map(IpNet::trunc));
    for destination in whole.into_iter().flatten().chain(prefixes) {
        let kind = RouteKind::Onlink { interface: lines.tunnel.clone(), source: source(&destination) };
        all.insert(Route { table: ZONES_TABLE, destination, kind, mtu: None });
    }
    for net in plan.town.prefixes.iter().map(IpNet::trunc) {
        all.extend(towards(lines.town, net).map(|kind| route(TO_TOWN, net, kind)));
    }
    for net in on_link(lines.town.0) {
        let own = |town: &&IpNet| town.contains(&net);
        if plan.town.prefixes.iter().any(|town| own(&town)) {
            all.extend(directly(lines.town, net).map(|kind| route(TO_TOWN, net, kind)));
        }
    }
    everywhere(&mut all, OUTER, lines.outer);
    if let Some(egress) = lines.egress {
        everywhere(&mut all, TO_INTERNET, egress);
    }
    all.into_iter().collect()
}

fn route(way: PathIndex, destination: IpNet, kind: RouteKind) -> Route {
    Route { table: way.table(), destination, kind, mtu: None }
}

fn on_link(line: &Line) -> impl Iterator<Item = IpNet> {
    let four = line.ipv4.map(|net| IpNet::V4(net.trunc()));
    four.into_iter().chain(line.ipv6.map(|net| IpNet::V6(net.trunc())))
}

fn own_address(line: &Line, net: &IpNet) -> Option<IpAddr> {
    match net {
        IpNet::V4(_) => line.ipv4.map(|own| IpAddr::V4(own.addr())),
        IpNet::V6(_) => line.ipv6.map(|own| IpAddr::V6(own.addr())),
    }
}

fn directly((line, port): (&Line, &InterfaceName), net: IpNet) -> Option<RouteKind> {
    let source = own_address(line, &net);
    source.is_some().then(|| RouteKind::Onlink { interface: port.clone(), source })
}

/// By the line's next router; directly where the destination is the line's own prefix.
fn towards(line: (&Line, &InterfaceName), net: IpNet) -> Option<RouteKind> {
    if on_link(line.0).any(|own| own.contains(&net)) {
        return directly(line, net);
    }
    let gateway = match net {
        IpNet::V4(_) => line.0.gateway4.map(IpAddr::V4),
        IpNet::V6(_) => line.0.gateway6.map(IpAddr::V6),
    }?;
    Some(RouteKind::Via { gateway, interface: line.1.clone(), source: own_address(line.0, &net) })
}

fn everywhere(all: &mut BTreeSet<Route>, way: PathIndex, line: (&Line, &InterfaceName)) {
    for net in on_link(line.0) {
        all.extend(directly(line, net).map(|kind| route(way, net, kind)));
    }
    for net in [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())] {
        all.extend(towards(line, net).map(|kind| route(way, net, kind)));
    }
}

fn rules(plan: &ValidHubPlan, lines: &Lines<'_>) -> Vec<IpRule> {
    let mut all = BTreeSet::new();
    let mask = Mark::PATH_MASK;
    for family in [Family::Ipv4, Family::Ipv6] {
        let mut add = |priority: u32, matches: RuleMatch, action: RuleAction| {
            all.insert(IpRule { family, priority, matches, action });
        };
        let from = |iif: &InterfaceName| RuleMatch { iif: Some(iif.clone()), ..RuleMatch::default() };
        let ports: BTreeSet<&InterfaceName> = lines.all.values().map(|(_, port)| *port).collect();
        for port in ports.iter().copied().chain([&lines.tunnel]) {
            add(90, RuleMatch { fwmark: Some((0, mask)), ..from(port) }, RuleAction::Prohibit);
        }
        for port in ports {
            add(100, from(port), RuleAction::Table(ZONES_TABLE));
            // To answer a forgery would be to answer the one whose source was forged.
            add(110, from(port), RuleAction::Blackhole);
        }
        add(100, from(&lines.lo), RuleAction::Table(ZONES_TABLE));
        let of_tunnel = RuleMatch { udp_source_port: Some(plan.tunnel.listen_port), ..from(&lines.lo) };
        add(140, of_tunnel.clone(), RuleAction::Table(OUTER.table()));
        add(900, of_tunnel, RuleAction::Prohibit);
        for way in [TO_TOWN, TO_INTERNET] {
            let matches = RuleMatch { fwmark: Some((way.mark().0, mask)), ..from(&lines.tunnel) };
            add(200, matches, RuleAction::Table(way.table()));
        }
        let outer = RuleMatch { fwmark: Some((OUTER.mark().0, mask)), ..from(&lines.lo) };
        add(200, outer.clone(), RuleAction::Table(OUTER.table()));
        add(900, outer, RuleAction::Prohibit);
        add(210, from(&lines.lo), RuleAction::Table(TO_TOWN.table()));
        add(900, from(&lines.tunnel), RuleAction::Prohibit);
        add(33_000, from(&lines.lo), RuleAction::Table(OUTER.table()));
    }
    all.into_iter().collect()
}

/// In the order in which they are to be set. Forwarding comes last.
fn sysctls(lines: &Lines<'_>) -> Vec<Sysctl> {
    let mut all = Vec::new();
    let mut set = |path: String, value: &str| all.push(Sysctl { path, value: value.to_owned() });
    for (path, value) in [
        ("net/netfilter/nf_conntrack_tcp_loose", "0"),
        ("net/netfilter/nf_conntrack_tcp_be_liberal", "1"),
        ("net/ipv4/fwmark_reflect", "1"),
        ("net/ipv6/fwmark_reflect", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/all/src_valid_mark", "1"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/all/accept_source_route", "0"),
        ("net/ipv6/conf/all/accept_redirects", "0"),
    ] {
        set(path.to_owned(), value);
    }
    let ports: BTreeSet<&InterfaceName> = lines.all.values().map(|(_, port)| *port).collect();
    for interface in ports.into_iter().chain([&lines.tunnel]) {
        set(format!("net/ipv4/conf/{interface}/rp_filter"), "0");
        set(format!("net/ipv4/conf/{interface}/send_redirects"), "0");
        set(format!("net/ipv6/conf/{interface}/accept_ra"), "0");
    }
    set("net/ipv6/conf/all/forwarding".to_owned(), "1");
    set("net/ipv4/ip_forward".to_owned(), "1");
    all
}
