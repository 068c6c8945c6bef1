//! Who may reach what over which paths, copied from the plan word by word.

use std::collections::{BTreeMap, BTreeSet};

use seimon_plan::{Internet, PathKind, PermitTarget, PortSpec, Protocol, SitePlan};

/// (IANA protocol number, first port, last port)
type Ports = Vec<(u8, u16, u16)>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// (from, to) → ports; no ports: all.
    pub between_zones: Vec<(String, String, Ports)>,
    /// (zone, name of a service's host) → its group and ports.
    pub services: Vec<(String, String, String, Ports)>,
    pub routes: BTreeMap<(String, String), Vec<String>>,
    pub open: BTreeSet<String>,
    /// The only path to the hub, and who may use it.
    pub hub: Option<(String, BTreeSet<String>)>,
    /// Groups of which some service asks for known addresses.
    pub asking: BTreeSet<String>,
    /// Path → port of its line; `None` where it leaves by a tunnel.
    pub lines: BTreeMap<String, Option<String>>,
}

/// What a packet is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Zone(String),
    /// The address given to this zone for this name.
    Name {
        zone: String,
        name: String,
    },
    Hub,
    Internet,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    Nothing,
    Zone(String),
    /// By any of these paths.
    Paths(Vec<String>),
}

fn ports(specs: &[PortSpec]) -> Ports {
    let number = |protocol| match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    specs.iter().map(|spec| (number(spec.protocol), spec.first, spec.last)).collect()
}

fn opens(ports: &Ports, protocol: u8, port: u16) -> bool {
    ports.iter().any(|&(p, first, last)| p == protocol && (first..=last).contains(&port))
}

impl Rules {
    /// Permits that run out are not looked at: the simulated times are long before any last day.
    pub fn of(plan: &SitePlan) -> Self {
        let mut rules = Self::default();
        for permit in &plan.permits {
            let from = permit.from.as_str().to_owned();
            match &permit.to {
                PermitTarget::Zone(to) => {
                    rules.between_zones.push((from, to.as_str().to_owned(), ports(&permit.ports)));
                }
                PermitTarget::Service(id) => {
                    let Some(service) = plan.services.get(id) else { continue };
                    for name in &service.names {
                        let group = service.group.as_str().to_owned();
                        rules.services.push((from.clone(), name.clone(), group, ports(&service.ports)));
                    }
                }
            }
        }
        for route in &plan.migration.routes {
            let key = (route.zone.as_str().to_owned(), route.group.as_str().to_owned());
            rules.routes.insert(key, route.paths.iter().map(|path| path.as_str().to_owned()).collect());
        }
        let open = plan.zones.iter().filter(|(_, zone)| zone.internet == Internet::Open);
        rules.open = open.map(|(id, _)| id.as_str().to_owned()).collect();
        rules.hub = plan.hub.as_ref().map(|hub| {
            (hub.path.as_str().to_owned(), hub.zones.iter().map(|zone| zone.as_str().to_owned()).collect())
        });
        let asking = plan.services.values().filter(|service| !service.registered_egress.is_empty());
        rules.asking = asking.map(|service| service.group.as_str().to_owned()).collect();
        for (id, path) in &plan.paths {
            let port = match path.kind {
                PathKind::Plain => plan.lines.get(&path.line).map(|line| line.port.clone()),
                PathKind::Wireguard => None,
            };
            rules.lines.insert(id.as_str().to_owned(), port);
        }
        rules
    }

    /// What may become of a packet from a machine of the zone.
    pub fn allow(&self, zone: &str, target: &Target, protocol: u8, port: u16) -> Allowed {
        match target {
            Target::Zone(to) => {
                let permitted = self.between_zones.iter().any(|(from, there, ports)| {
                    from == zone && there == to && (ports.is_empty() || opens(ports, protocol, port))
                });
                if permitted { Allowed::Zone(to.clone()) } else { Allowed::Nothing }
            }
            Target::Name { zone: of, name } => {
                let service = self.services.iter().find(|(from, known, _, ports)| {
                    of == zone && from == zone && known == name && opens(ports, protocol, port)
                });
                service.map_or(Allowed::Nothing, |(_, _, group, _)| self.by_route(zone, group))
            }
            Target::Hub => match &self.hub {
                Some((path, zones)) if zones.contains(zone) => Allowed::Paths(vec![path.clone()]),
                Some(_) | None => Allowed::Nothing,
            },
            Target::Internet if self.open.contains(zone) => self.by_route(zone, "internet"),
            Target::Internet => Allowed::Nothing,
        }
    }

    fn by_route(&self, zone: &str, group: &str) -> Allowed {
        let route = self.routes.get(&(zone.to_owned(), group.to_owned()));
        route.map_or(Allowed::Nothing, |paths| Allowed::Paths(paths.clone()))
    }
}
