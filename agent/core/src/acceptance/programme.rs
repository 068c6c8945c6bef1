//! What is to be tried, from the plan alone.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use jiff::Timestamp;
use seimon_plan::{Internet, PathId, PermitTarget, PortSpec, Protocol, ValidSitePlan, ZoneId};

use super::words::{path_word, service_word, zone_word};
use super::{Item, Topic, Trial};
use crate::status::Sentence;

/// Tried where a zone must not reach another: file sharing, the remote desktop, the printers' raw port, the secure shell.
const FORBIDDEN: [u16; 4] = [445, 3389, 9100, 22];

/// What is to be tried, in the order of the page. `hosts`: where the probe has a host; nothing is planned from elsewhere.
pub fn programme(plan: &ValidSitePlan, hosts: &BTreeSet<(ZoneId, PathId)>, now: Timestamp) -> Vec<Item> {
    let mut items = lines(plan);
    items.extend(names(plan, hosts, now));
    items.extend(services(plan, hosts, now));
    items.extend(devices(plan, hosts));
    items.extend(separation(plan, hosts));
    items.extend(speed(plan, hosts));
    items.sort_by_key(|item| item.topic);
    items
}

fn lines(plan: &ValidSitePlan) -> Vec<Item> {
    plan.paths
        .iter()
        .map(|(id, path)| Item {
            topic: Topic::Line,
            subject: path_word(plan, id),
            trial: Trial::Line { line: path.line.clone(), path: id.clone() },
        })
        .collect()
}

/// Any host of the zone: for what does not leave the school, the path is all one.
fn some_path<'a>(hosts: &'a BTreeSet<(ZoneId, PathId)>, zone: &ZoneId) -> Option<&'a PathId> {
    hosts.iter().find(|(of, _)| of == zone).map(|(_, path)| path)
}

fn names(plan: &ValidSitePlan, hosts: &BTreeSet<(ZoneId, PathId)>, now: Timestamp) -> Vec<Item> {
    let mut items = Vec::new();
    for zone in plan.zones.keys() {
        let name = plan.services_of_zone(zone, now).find_map(|(_, service)| service.names.first().cloned());
        let (Some(name), Some(path)) = (name, some_path(hosts, zone)) else { continue };
        let word = zone_word(plan, zone);
        items.push(Item {
            topic: Topic::Names,
            subject: Sentence::new(format!("{}の案内", word.ja), format!("name server of {}", word.en)),
            trial: Trial::Name { zone: zone.clone(), path: path.clone(), name },
        });
    }
    items
}

fn services(plan: &ValidSitePlan, hosts: &BTreeSet<(ZoneId, PathId)>, now: Timestamp) -> Vec<Item> {
    let mut items = Vec::new();
    for zone in plan.zones.keys() {
        for (id, service) in plan.services_of_zone(zone, now) {
            let Some(route) = plan.route(zone, &service.group) else { continue };
            if service.health.is_none() {
                continue;
            }
            for path in route.paths.iter().filter(|path| hosts.contains(&(zone.clone(), (*path).clone()))) {
                let (name, from, over) =
                    (service_word(plan, id), zone_word(plan, zone), path_word(plan, path));
                let topic = if plan.school.identity.contains(id) { Topic::Identity } else { Topic::Service };
                items.push(Item {
                    topic,
                    subject: Sentence::new(
                        format!("{}（{}・{}）", name.ja, from.ja, over.ja),
                        format!("{} ({}, {})", name.en, from.en, over.en),
                    ),
                    trial: Trial::Service { zone: zone.clone(), path: path.clone(), service: id.clone() },
                });
            }
        }
    }
    items
}

fn devices(plan: &ValidSitePlan, hosts: &BTreeSet<(ZoneId, PathId)>) -> Vec<Item> {
    let mut items = Vec::new();
    for device in &plan.school.devices {
        // What is behind the hub is reached over the hub's path, whichever host asks; one pinned to it is the surest.
        let hub = plan.hub.as_ref().map(|hub| &hub.path);
        let pinned = hub.filter(|path| hosts.contains(&(device.from.clone(), (*path).clone())));
        let Some(path) = pinned.or_else(|| some_path(hosts, &device.from)) else { continue };
        let from = zone_word(plan, &device.from);
        items.push(Item {
            topic: Topic::Device(device.kind),
            subject: Sentence::new(
                format!("{}（{}から）", device.name, from.ja),
                format!("{} (from {})", device.name, from.en),
            ),
            trial: Trial::Reach {
                zone: device.from.clone(),
                path: path.clone(),
                target: SocketAddr::new(device.address, device.port.first),
            },
        });
    }
    items
}

fn separation(plan: &ValidSitePlan, hosts: &BTreeSet<(ZoneId, PathId)>) -> Vec<Item> {
    let mut items = Vec::new();
    for from in plan.zones.keys() {
        let Some(path) = some_path(hosts, from) else { continue };
        let word = zone_word(plan, from);
        let mut apart = |subject: Sentence, target: SocketAddr| {
            let (zone, path) = (from.clone(), path.clone());
            items.push(Item {
                topic: Topic::Separation,
                subject,
                trial: Trial::Apart { zone, path, target },
            });
        };
        for (to, zone) in plan.zones.iter().filter(|(to, _)| *to != from) {
            let other = zone_word(plan, to);
            let subject = Sentence::new(
                format!("「{}」から「{}」へは入れない", word.ja, other.ja),
                format!("{} cannot enter {}", word.en, other.en),
            );
            let Some(port) = forbidden_port(plan, from, to) else { continue };
            // Nobody's address: a refusal can only be the gate's, not a machine's.
            let mut targets = vec![IpAddr::V4(last_host4(zone.ipv4))];
            let from_has_ipv6 = plan.zones.get(from).is_some_and(|zone| zone.ipv6.is_some());
            if let Some(net) = zone.ipv6.filter(|_| from_has_ipv6) {
                targets.push(IpAddr::V6(last_host6(net)));
            }
            for target in targets {
                apart(subject.clone(), SocketAddr::new(target, port));
            }
        }
        if !plan.zones.get(from).is_some_and(|zone| zone.internet == Internet::Open) {
            let subject = Sentence::new(
                format!("「{}」から、許可していない行き先へは出られない", word.ja),
                format!("{} reaches nothing outside that is not permitted", word.en),
            );
            // A host of the town's own: strangers are not bothered. Only its echo port is open to the probe, and what got
            // through would die before it gets there.
            apart(subject, SocketAddr::new(plan.echo.ipv4.into(), 443));
        }
    }
    items
}

/// A port that no permit opens between the zones; `None`: everything is open.
fn forbidden_port(plan: &ValidSitePlan, from: &ZoneId, to: &ZoneId) -> Option<u16> {
    let permits: Vec<&Vec<PortSpec>> = plan
        .permits
        .iter()
        .filter(|permit| permit.from == *from && permit.to == PermitTarget::Zone(to.clone()))
        .map(|permit| &permit.ports)
        .collect();
    if permits.iter().any(|ports| ports.is_empty()) {
        return None;
    }
    let open = |port: u16| {
        permits
            .iter()
            .flat_map(|ports| ports.iter())
            .any(|spec| spec.protocol == Protocol::Tcp && (spec.first..=spec.last).contains(&port))
    };
    FORBIDDEN.into_iter().find(|port| !open(*port))
}

/// The last but one before the broadcast address, which is seldom given to anybody.
fn last_host4(net: ipnet::Ipv4Net) -> Ipv4Addr {
    let host = u32::from(net.broadcast()).saturating_sub(2);
    if Ipv4Addr::from(host) == net.addr() { Ipv4Addr::from(host.saturating_add(1)) } else { host.into() }
}

fn last_host6(net: ipnet::Ipv6Net) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(net.broadcast()).saturating_sub(2))
}

fn speed(plan: &ValidSitePlan, hosts: &BTreeSet<(ZoneId, PathId)>) -> Vec<Item> {
    let permitted = |zone: &ZoneId| {
        plan.school.speed.as_ref().is_none_or(|speed| {
            let to = PermitTarget::Service(speed.service.clone());
            plan.permits.iter().any(|permit| permit.from == *zone && permit.to == to)
        })
    };
    let mut items = Vec::new();
    for path in plan.paths.keys() {
        let zone = hosts.iter().find(|(zone, of)| of == path && permitted(zone)).map(|(zone, _)| zone);
        let Some(zone) = zone else { continue };
        let over = path_word(plan, path);
        items.push(Item {
            topic: Topic::Speed,
            subject: over,
            trial: Trial::Speed { zone: zone.clone(), path: path.clone() },
        });
    }
    items
}
