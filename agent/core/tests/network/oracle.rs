//! What a plan permits, in the administrator's words and no other: zones, permits, services, the hub, the open internet, routes,
//! choices. Knows nothing of marks, chains, sets or routing tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use seimon_core::network_plan::{Allocation, PathChoice};
use seimon_plan::{
    GroupId, Internet, PathId, PathIpv6, PermitTarget, PortSpec, Protocol, Service, ValidSitePlan, ZoneId,
};

/// Who sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// A machine of the zone, with the paths on which it has been logged in.
    Machine { kept: BTreeSet<(GroupId, PathId)>, by_ipv4: BTreeSet<GroupId> },
    /// Our probe host for the path.
    Probe(PathId),
    /// A source that is not the sender's.
    Forged,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Neither arrives nor leaves.
    No,
    Gateway,
    Zone(ZoneId),
    /// Out on the path, to this address.
    Path(PathId, IpAddr),
}

/// Everything that is known besides the packet.
pub(crate) struct Town<'a> {
    pub(crate) plan: &'a ValidSitePlan,
    /// Which inside address was given to whom.
    pub(crate) allocation: &'a Allocation,
    pub(crate) choice: &'a BTreeMap<(ZoneId, GroupId), PathChoice>,
    /// Where a zone's name is on a path, by family (4 or 6).
    pub(crate) real: &'a BTreeMap<(ZoneId, String, PathId, u8), IpAddr>,
}

pub(crate) struct Question<'a> {
    pub(crate) zone: &'a ZoneId,
    pub(crate) client: &'a Client,
    pub(crate) to: IpAddr,
    /// IANA number.
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

fn opens(ports: &[PortSpec], protocol: u8, port: u16) -> bool {
    ports.iter().any(|spec| {
        let number = match spec.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        number == protocol && (spec.first..=spec.last).contains(&port)
    })
}

const PRIVATE: [&str; 15] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
    "::/96",
    "::ffff:0:0/96",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
    "255.255.255.255/32",
];

impl Town<'_> {
    pub(crate) fn expect(&self, question: &Question<'_>) -> Expected {
        let Question { zone, client, to, protocol, port } = question;
        if *client == &Client::Forged {
            return Expected::No;
        }
        if self.asks_the_gateway(question) {
            return Expected::Gateway;
        }
        if let Client::Probe(path) = client
            && self.is_for_probes(path, *to, *protocol, *port)
        {
            return self.on(path, *to, None);
        }
        // The gateway is nobody's service and no machine of a zone.
        if self.is_gateways(*to) {
            return Expected::No;
        }
        if let Some((name, service)) = self.named_service(question) {
            return self.by_group(question, &service.group, Some(&name));
        }
        if self.is_inside(*to) {
            return Expected::No;
        }
        if let Some(there) = self.zone_of(*to) {
            let permitted = self.plan.permits.iter().any(|permit| {
                permit.from == **zone
                    && permit.to == PermitTarget::Zone(there.clone())
                    && (permit.ports.is_empty() || opens(&permit.ports, *protocol, *port))
            });
            return if permitted { Expected::Zone(there.clone()) } else { Expected::No };
        }
        if let Some(service) = self.service_by_address(question) {
            return self.by_group(question, &service.group, None);
        }
        if let Some(hub) = &self.plan.hub
            && hub.prefixes.iter().any(|net| net.contains(to))
        {
            let pinned_elsewhere = matches!(client, Client::Probe(path) if *path != hub.path);
            if !hub.zones.contains(zone) || pinned_elsewhere {
                return Expected::No;
            }
            return self.on(&hub.path, *to, None);
        }
        if self.plan.zones[*zone].internet == Internet::Open && !self.is_private(*to) {
            return self.by_group(question, &GroupId::new("internet").unwrap(), None);
        }
        Expected::No
    }

    /// DNS, NTP, DHCP and ping, at the gateway's address in the asking zone.
    fn asks_the_gateway(&self, question: &Question<'_>) -> bool {
        let zone = &self.plan.zones[question.zone];
        let own = match question.to {
            IpAddr::V4(to) => zone.ipv4.addr() == to,
            IpAddr::V6(to) => zone.ipv6.is_some_and(|net| net.addr() == to),
        };
        let served = [(17, 53), (6, 53), (6, 80), (17, 123), (17, 67), (17, 547)];
        own && (served.contains(&(question.protocol, question.port)) || is_ping(question.protocol))
    }

    fn is_gateways(&self, to: IpAddr) -> bool {
        let plan = self.plan;
        let zones =
            plan.zones.values().flat_map(|zone| [Some(IpNet::V4(zone.ipv4)), zone.ipv6.map(IpNet::V6)]);
        let lines = plan.lines.values().flat_map(|line| [line.ipv4.map(IpNet::V4), line.ipv6.map(IpNet::V6)]);
        zones.chain(lines).flatten().any(|net| net.addr() == to)
    }

    fn is_for_probes(&self, path: &PathId, to: IpAddr, protocol: u8, port: u16) -> bool {
        let echo = &self.plan.echo;
        let echoes = to == IpAddr::V4(echo.ipv4) || echo.ipv6.map(IpAddr::V6) == Some(to);
        let resolver = self.plan.paths[path].resolvers.contains(&to);
        (echoes && (protocol, port) == (17, echo.port))
            || (resolver && port == 53 && [6, 17].contains(&protocol))
    }

    /// The zone's own name at this inside address, where a permitted service has the port.
    fn named_service(&self, question: &Question<'_>) -> Option<(String, &Service)> {
        let (_, name) = self.allocation.inside.iter().find_map(|((zone, name), (four, six))| {
            let here = IpAddr::V4(*four) == question.to || IpAddr::V6(*six) == question.to;
            (here && zone == question.zone).then_some((zone, name))
        })?;
        let service = self.permitted_services(question).find(|service| service.names.contains(name))?;
        Some((name.clone(), service))
    }

    fn permitted_services(&self, question: &Question<'_>) -> impl Iterator<Item = &Service> {
        let (zone, protocol, port) = (question.zone.clone(), question.protocol, question.port);
        self.plan
            .permits
            .iter()
            .filter(move |permit| permit.from == zone)
            .filter_map(|permit| match &permit.to {
                PermitTarget::Service(id) => self.plan.services.get(id),
                PermitTarget::Zone(_) => None,
            })
            .filter(move |service| opens(&service.ports, protocol, port))
    }

    /// The most specific prefix decides; the first permit among equals.
    fn service_by_address(&self, question: &Question<'_>) -> Option<&Service> {
        let mut best: Option<(u8, &Service)> = None;
        for service in self.permitted_services(question) {
            for net in service.prefixes.iter().filter(|net| net.contains(&question.to)) {
                if best.is_none_or(|(length, _)| net.prefix_len() > length) {
                    best = Some((net.prefix_len(), service));
                }
            }
        }
        best.map(|(_, service)| service)
    }

    fn by_group(&self, question: &Question<'_>, group: &GroupId, name: Option<&str>) -> Expected {
        let key = (question.zone.clone(), group.clone());
        let Some(route) = self.plan.route(question.zone, group) else { return Expected::No };
        let path = match question.client {
            Client::Probe(path) if route.paths.contains(path) => Some(path),
            Client::Probe(_) | Client::Forged => None,
            Client::Machine { kept, by_ipv4 } => {
                let with_ipv6 = route.paths.iter().filter(|path| self.has_ipv6(path)).count();
                let mixed = with_ipv6 != 0 && with_ipv6 != route.paths.len();
                let twin = name.is_some_and(|name| {
                    self.real.keys().any(|(zone, known, _, family)| {
                        zone == question.zone && known == name && *family == 4
                    })
                });
                if question.to.is_ipv6() && mixed && twin && by_ipv4.contains(group) {
                    return Expected::No;
                }
                let kept = route.paths.iter().find(|path| kept.contains(&(group.clone(), (*path).clone())));
                kept.or(match &self.choice[&key] {
                    PathChoice::On(path) => Some(path),
                    PathChoice::Blocked(_) => None,
                })
            }
        };
        path.map_or(Expected::No, |path| self.on(path, question.to, name.map(|name| (question.zone, name))))
    }

    fn has_ipv6(&self, path: &PathId) -> bool {
        self.plan.paths[path].ipv6 != PathIpv6::None
    }

    fn on(&self, path: &PathId, to: IpAddr, name: Option<(&ZoneId, &str)>) -> Expected {
        if to.is_ipv6() && !self.has_ipv6(path) {
            return Expected::No;
        }
        let Some((zone, name)) = name else { return Expected::Path(path.clone(), to) };
        let family = if to.is_ipv4() { 4 } else { 6 };
        match self.real.get(&(zone.clone(), name.to_owned(), path.clone(), family)) {
            Some(real) => Expected::Path(path.clone(), *real),
            None => Expected::No,
        }
    }

    fn is_inside(&self, to: IpAddr) -> bool {
        let inside = &self.plan.inside;
        [IpNet::V4(inside.ipv4), IpNet::V6(inside.ipv6)].iter().any(|net| net.contains(&to))
    }

    fn zone_of(&self, to: IpAddr) -> Option<&ZoneId> {
        let holds = |zone: &seimon_plan::Zone| {
            IpNet::V4(zone.ipv4).contains(&to) || zone.ipv6.is_some_and(|net| IpNet::V6(net).contains(&to))
        };
        self.plan.zones.iter().find(|(_, zone)| holds(zone)).map(|(id, _)| id)
    }

    fn is_private(&self, to: IpAddr) -> bool {
        let lines = self.plan.lines.values();
        let lines = lines.flat_map(|line| [line.ipv4.map(IpNet::V4), line.ipv6.map(IpNet::V6)]).flatten();
        let hub = self.plan.hub.iter().flat_map(|hub| hub.prefixes.iter().copied());
        if let IpAddr::V6(to) = to
            && to.segments()[0] >> 13 != 1
            && to.segments()[..6] != [0x64, 0xff9b, 0, 0, 0, 0]
        {
            return true;
        }
        PRIVATE
            .iter()
            .map(|net| net.parse().unwrap())
            .chain(lines)
            .chain(hub)
            .any(|net: IpNet| net.contains(&to))
    }
}

/// Echo request, by protocol alone: the model's packets carry no other ICMP.
fn is_ping(protocol: u8) -> bool {
    protocol == 1 || protocol == 58
}
