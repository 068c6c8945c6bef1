//! What the resolver and the probe are told, derived from plan, allocation and path choice. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use seimon_core::network_plan::Allocation;
use seimon_ipc::probe::Host;
use seimon_ipc::resolver::{Family6, Forward, NamedService, PathUp, PathView, ResolverConfig, ZoneView};
use seimon_plan::{GroupId, INTERNET_GROUP, PathId, PathIpv6, ValidSitePlan, ZoneId};

/// Path of new flows by zone and group; `None`: blocked.
pub(crate) type Current = BTreeMap<(ZoneId, GroupId), Option<PathId>>;

/// The resolver's whole configuration. Paths that are not in `up` count as up. `without_ipv6`: those whose IPv6 is broken.
pub(crate) fn resolver_config(
    plan: &ValidSitePlan,
    allocation: &Allocation,
    current: &Current,
    up: &BTreeMap<PathId, PathUp>,
    without_ipv6: &BTreeSet<PathId>,
    now: Timestamp,
) -> ResolverConfig {
    let paths = plan
        .paths
        .iter()
        .filter_map(|(id, path)| {
            let &(source4, source6) = allocation.path_sources.get(id)?;
            let ipv6 = match path.ipv6 {
                _ if without_ipv6.contains(id) => Family6::Withheld,
                PathIpv6::Native | PathIpv6::Nat66 | PathIpv6::Nptv6 => Family6::Carried,
                PathIpv6::None => Family6::Withheld,
            };
            let up = up.get(id).copied().unwrap_or(PathUp::Up);
            Some((id.clone(), PathView { servers: path.resolvers.clone(), source4, source6, ipv6, up }))
        })
        .collect();
    let zones = plan
        .zones
        .keys()
        .map(|zone| (zone.clone(), zone_view(plan, allocation, current, zone, now)))
        .collect();
    ResolverConfig { paths, zones }
}

fn zone_view(
    plan: &ValidSitePlan,
    allocation: &Allocation,
    current: &Current,
    zone: &ZoneId,
    now: Timestamp,
) -> ZoneView {
    let mut services = BTreeMap::new();
    for (_, service) in plan.services_of_zone(zone, now) {
        let Some(route) = plan.route(zone, &service.group) else { continue };
        let current = current.get(&(zone.clone(), service.group.clone())).cloned().flatten();
        for name in &service.names {
            let name = name.to_ascii_lowercase();
            if let Some(&(inside4, inside6)) = allocation.inside.get(&(zone.clone(), name.clone())) {
                let paths = route.paths.clone();
                services.insert(name, NamedService { inside4, inside6, current: current.clone(), paths });
            }
        }
    }
    let forwards = plan
        .dns
        .forward
        .iter()
        .filter(|forward| forward.zones.contains(zone))
        .map(|forward| Forward {
            domain: forward.domain.to_ascii_lowercase(),
            servers: forward.servers.clone(),
            path: forward.path.clone(),
        })
        .collect();
    let others = GroupId::new(INTERNET_GROUP)
        .ok()
        .and_then(|internet| current.get(&(zone.clone(), internet)).cloned().flatten());
    ZoneView { services, forwards, others }
}

/// Interfaces of the probe host.
pub(crate) fn probe_hosts(plan: &ValidSitePlan, allocation: &Allocation) -> Vec<Host> {
    allocation
        .probes
        .iter()
        .filter_map(|((zone, path), probe)| {
            let gateway = plan.zones.get(zone)?;
            Some(Host {
                zone: zone.clone(),
                path: path.clone(),
                interface: probe.far.clone(),
                mac: probe.mac,
                ipv4: probe.ipv4,
                ipv6: probe.ipv6,
                gateway4: gateway.ipv4,
                gateway6: gateway.ipv6,
            })
        })
        .collect()
}

/// Where the zones' DNS is served: the gateway's own address in each zone that may ask for anything.
pub(crate) fn dns_addresses(plan: &ValidSitePlan) -> Vec<(ZoneId, SocketAddr)> {
    plan.zones
        .iter()
        .flat_map(|(zone, view)| {
            let addresses = [Some(IpAddr::V4(view.ipv4.addr())), view.ipv6.map(|net| IpAddr::V6(net.addr()))];
            addresses.into_iter().flatten().map(|address| (zone.clone(), SocketAddr::new(address, 53)))
        })
        .collect()
}
