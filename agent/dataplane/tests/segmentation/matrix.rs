//! Every zone to every zone, and out.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use seimon_plan::{PermitTarget, Protocol, ValidSitePlan, ZoneId};

use crate::probing::{Kind, Seen, ask_here};
use crate::schools;
use crate::world::{FAR, FAR6, HUB, World, at_once, host4, host6, in_namespaces};

const KINDS: [Kind; 8] = [
    Kind::Tcp(22),
    Kind::Tcp(445),
    Kind::Tcp(631),
    Kind::Tcp(9100),
    Kind::Udp(53),
    Kind::Udp(161),
    Kind::Udp(7000),
    Kind::Ping,
];

/// The permit in the administrator's words, and nothing else.
fn permitted(plan: &ValidSitePlan, from: &ZoneId, to: &ZoneId, kind: Kind) -> bool {
    plan.permits.iter().filter(|p| p.from == *from && p.to == PermitTarget::Zone(to.clone())).any(|permit| {
        permit.ports.is_empty()
            || permit.ports.iter().any(|spec| match (spec.protocol, kind) {
                (Protocol::Tcp, Kind::Tcp(port)) | (Protocol::Udp, Kind::Udp(port)) => {
                    (spec.first..=spec.last).contains(&port)
                }
                (Protocol::Tcp | Protocol::Udp, Kind::Tcp(_) | Kind::Udp(_) | Kind::Ping) => false,
            })
    })
}

fn addresses(plan: &ValidSitePlan, zone: &ZoneId) -> Vec<IpAddr> {
    [Some(IpAddr::V4(host4(plan, zone))), host6(plan, zone).map(IpAddr::V6)].into_iter().flatten().collect()
}

/// Gateway's own addresses in the zone.
fn own(plan: &ValidSitePlan, zone: &ZoneId) -> Vec<IpAddr> {
    let written = &plan.zones[zone];
    [Some(IpAddr::V4(written.ipv4.addr())), written.ipv6.map(|net| net.addr().into())]
        .into_iter()
        .flatten()
        .collect()
}

pub(crate) fn whole_matrix(plan: ValidSitePlan) -> Result<()> {
    let world = World::raise(plan)?;
    let plan = &world.plan;
    let zones: Vec<&str> = plan.zones.keys().map(|zone| zone.as_str()).collect();
    let wrong = at_once(&zones, |node| {
        let from = ZoneId::new(node)?;
        let has_ipv6 = host6(plan, &from).is_some();
        let mut wrong = Vec::new();
        let mut count = 0;
        for to in plan.zones.keys().filter(|to| **to != from) {
            for kind in KINDS {
                for address in addresses(plan, to).into_iter().filter(|a| a.is_ipv4() || has_ipv6) {
                    let seen = ask_here(address, kind)?;
                    let good = if permitted(plan, &from, to, kind) {
                        matches!((&seen, kind), (Seen::Answer { .. }, Kind::Ping))
                            || seen.node() == Some(to.as_str())
                    } else {
                        seen == Seen::Refused
                    };
                    count += 1;
                    if !good {
                        wrong.push(format!("{from} → {to} {address} {kind:?}: {seen:?}"));
                    }
                }
                // The gateway is in every zone; a permit to a zone is none to the gateway.
                for address in own(plan, to).into_iter().filter(|a| a.is_ipv4() || has_ipv6) {
                    let seen = ask_here(address, kind)?;
                    count += 1;
                    if !matches!(seen, Seen::Refused | Seen::Silent) {
                        wrong.push(format!("{from} → the gateway in {to} {address} {kind:?}: {seen:?}"));
                    }
                }
            }
        }
        ensure!(count >= 2 * KINDS.len(), "too little was tried: {count}");
        Ok(wrong)
    })?;
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn zones_reach_each_other_exactly_by_permits_in_the_two_line_town() -> Result<()> {
    in_namespaces(|| whole_matrix(schools::two_line_town()?))
}

#[test]
fn zones_reach_each_other_exactly_by_permits_among_six_zones() -> Result<()> {
    in_namespaces(|| whole_matrix(schools::six_zones()?))
}

#[test]
fn only_named_zones_reach_the_hub_and_only_open_ones_the_internet() -> Result<()> {
    in_namespaces(|| {
        let world = World::raise(schools::six_zones()?)?;
        let plan = &world.plan;
        let zones: Vec<&str> = plan.zones.keys().map(|zone| zone.as_str()).collect();
        let wrong = at_once(&zones, |node| {
            let named = ["affairs", "management"].contains(&node);
            let open = ["learning", "staff", "guest"].contains(&node);
            // Guests' internet is on the direct path, the others' on the closed one, which has no IPv6.
            let (line, six) = if node == "guest" { ("internet", true) } else { ("carrier", false) };
            let private =
                ["10.99.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "169.254.1.1", "198.18.0.1"];
            let uplinks = ["10.10.0.1", "10.10.0.2", "192.0.2.1", "192.0.2.2"];
            let uplinks6 = ["2001:db8:2::1", "2001:db8:2::2"];
            let mut targets: Vec<(IpAddr, Option<&str>)> = vec![
                (HUB.into(), named.then_some("carrier")),
                (FAR.into(), open.then_some(line)),
                (FAR6.into(), (open && six).then_some(line)),
            ];
            for text in private.into_iter().chain(uplinks).chain(uplinks6).chain(["fd99::1"]) {
                targets.push((text.parse()?, None));
            }
            let mut wrong = Vec::new();
            for (address, by) in targets {
                for kind in [Kind::Tcp(443), Kind::Udp(7000), Kind::Ping] {
                    let seen = ask_here(address, kind)?;
                    let good = match by {
                        Some(by) => seen.node() == Some(by) || (kind == Kind::Ping && seen.node().is_some()),
                        None => seen == Seen::Refused,
                    };
                    if !good {
                        wrong.push(format!("{node} → {address} {kind:?}: {seen:?}, not {by:?}"));
                    }
                }
            }
            Ok(wrong)
        })?;
        let wrong: Vec<String> = wrong.into_iter().flatten().collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        world.nothing_has_leaked()
    })
}
