//! Packets at the school's borders: which to send, and how what became of them compares with the rules.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use seimon_core::migration::ZoneGroup;
use seimon_core::network_plan::bridge_name;
use seimon_plan::{PathId, Protocol, ValidSitePlan};

use crate::kernel::{Ask, Way};
use crate::reference::{Allowed, Rules, Target};
use crate::town::{ELSEWHERE, IN_THE_ROOM, Town};

const TCP: u8 = 6;
const UDP: u8 = 17;
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);

type Destination = (IpAddr, u8, u16);

/// Where people of the zone go for a service of the group: its first name's address in the zone.
pub fn destination(town: &Town, zone_group: &ZoneGroup) -> Option<Destination> {
    if ValidSitePlan::is_internet(&zone_group.group) {
        return Some((INTERNET.into(), TCP, 443));
    }
    let services = town.plan.group_services(&zone_group.group);
    services.filter(|(_, service)| service.health.is_some()).find_map(|(_, service)| {
        let key = (zone_group.zone.clone(), service.names.first()?.clone());
        let (inside4, _) = town.allocation.inside.get(&key)?;
        let port = service.ports.first()?;
        let protocol = match port.protocol {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
        };
        Some((IpAddr::V4(*inside4), protocol, port.first))
    })
}

/// The name that they ask for; `None` where they know the address.
pub fn name(town: &Town, zone_group: &ZoneGroup) -> Option<String> {
    let services = town.plan.group_services(&zone_group.group);
    let checked = services.filter(|(_, service)| service.health.is_some());
    checked.filter_map(|(_, service)| service.names.first().cloned()).next()
}

/// For each zone and group that moves, the first packet of somebody who was never there before.
pub fn newcomers(town: &Town) -> Vec<(ZoneGroup, Destination)> {
    town.plan
        .routes()
        .iter()
        .filter_map(|route| {
            let zone_group = ZoneGroup { zone: route.zone.clone(), group: route.group.clone() };
            let to = destination(town, &zone_group)?;
            Some((zone_group, to))
        })
        .collect()
}

pub fn path_of(town: &Town, index: u8) -> Option<PathId> {
    town.allocation.paths.iter().find(|(_, known)| known.0 == index).map(|(path, _)| path.clone())
}

/// From every zone to every kind of place.
pub fn questions(town: &Town) -> Vec<(Ask, Target)> {
    let mut all = Vec::new();
    let allocation = &town.allocation;
    for (zone, spec) in &town.plan.zones {
        let mut ask = |to: IpAddr, protocol, port, target: &Target| {
            if to.is_ipv6() && spec.ipv6.is_none() {
                return;
            }
            let zone = zone.clone();
            all.push((Ask { zone, host: ELSEWHERE, to, protocol, port, kept: Vec::new() }, target.clone()));
        };
        for (other, there) in town.plan.zones.iter().filter(|(other, _)| *other != zone) {
            let target = Target::Zone(other.as_str().to_owned());
            let four = Ipv4Addr::from(u32::from(there.ipv4.network()) | 100);
            let six = there.ipv6.map(|net| std::net::Ipv6Addr::from(u128::from(net.network()) | 0x100));
            for to in [Some(IpAddr::V4(four)), six.map(IpAddr::V6)].into_iter().flatten() {
                for (protocol, port) in [(TCP, 9100), (TCP, 631), (TCP, 445), (UDP, 53), (TCP, 443)] {
                    ask(to, protocol, port, &target);
                }
            }
        }
        for ((of, name), (four, six)) in &allocation.inside {
            let target = Target::Name { zone: of.as_str().to_owned(), name: name.clone() };
            for to in [IpAddr::V4(*four), IpAddr::V6(*six)] {
                for (protocol, port) in [(TCP, 443), (UDP, 7000), (TCP, 22)] {
                    ask(to, protocol, port, &target);
                }
            }
        }
        ask(INTERNET.into(), TCP, 443, &Target::Internet);
        let hub = town.plan.hub.iter().flat_map(|hub| &hub.prefixes).find_map(|net| match net {
            IpNet::V4(net) => Some(Ipv4Addr::from(u32::from(net.network()) | 0x0909)),
            IpNet::V6(_) => None,
        });
        if let Some(hub) = hub {
            ask(hub.into(), TCP, 445, &Target::Hub);
        }
    }
    // The same from the room where people try first.
    let rooms: Vec<&seimon_plan::ZoneId> =
        town.plan.migration.rooms.values().map(|room| &room.zone).collect();
    let from_rooms: Vec<(Ask, Target)> = all
        .iter()
        .filter(|(ask, _)| rooms.contains(&&ask.zone))
        .map(|(ask, target)| (Ask { host: IN_THE_ROOM, ..ask.clone() }, target.clone()))
        .collect();
    all.extend(from_rooms);
    // The same by people who are logged in.
    let logged_in = town.plan.routes().iter().flat_map(|route| {
        let index = allocation.zone_groups.get(&(route.zone.clone(), route.group.clone()));
        route
            .paths
            .iter()
            .filter_map(move |path| Some((route.zone.clone(), *allocation.paths.get(path)?, *index?)))
    });
    let mut again = Vec::new();
    for (zone, path, zone_group) in logged_in {
        let same = all.iter().filter(|(ask, target)| {
            ask.zone == zone && matches!(target, Target::Name { .. } | Target::Internet)
        });
        again.extend(same.map(|(ask, target)| {
            let kept = vec![(path, zone_group)];
            (Ask { kept, ..ask.clone() }, target.clone())
        }));
    }
    all.extend(again);
    all
}

/// `Err`: what must never happen.
pub fn judge(town: &Town, rules: &Rules, ask: &Ask, target: &Target, way: &Way) -> Result<(), &'static str> {
    let allowed = rules.allow(ask.zone.as_str(), target, ask.protocol, ask.port);
    match way {
        Way::No | Way::Gateway => Ok(()),
        Way::Zone { interface } => {
            let zones = town.plan.zones.keys();
            let there = zones
                .into_iter()
                .find(|zone| bridge_name(zone).is_ok_and(|bridge| bridge.as_str() == interface));
            match (&allowed, there) {
                (Allowed::Zone(to), Some(there)) if to == there.as_str() => Ok(()),
                (Allowed::Zone(_) | Allowed::Nothing | Allowed::Paths(_), _) => {
                    Err("a packet between zones without a permit")
                }
            }
        }
        Way::Out { path, interface, .. } => {
            let path = path_of(town, *path);
            let Allowed::Paths(paths) = allowed else { return Err("a packet left without a permit") };
            let Some(path) = path.filter(|path| paths.iter().any(|allowed| allowed == path.as_str())) else {
                return Err("a packet on a path that the plan does not allow");
            };
            let port = rules.lines.get(path.as_str()).cloned().flatten();
            let Some(port) = port else { return Ok(()) };
            match town.plan.interface_of(&port) {
                Some(uplink) if uplink.as_str() == interface => Ok(()),
                Some(_) | None => Err("a packet left by another line than its path's"),
            }
        }
    }
}
