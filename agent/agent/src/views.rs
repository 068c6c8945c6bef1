//! What the resolver and the probe are told, derived from plan, allocation and path choice. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use seimon_core::network_plan::Allocation;
use seimon_core::proxy::wpad_names;
use seimon_ipc::probe::Host;
use seimon_ipc::resolver::{
    Family6, Forward, NamedService, OwnName, PathUp, PathView, ResolverConfig, ZoneView,
};
use seimon_plan::{GroupId, INTERNET_GROUP, Pac, PathId, PathIpv6, ValidSitePlan, ZoneId};

/// Path of new flows by zone and group; `None`: blocked.
pub(crate) type Current = BTreeMap<(ZoneId, GroupId), Option<PathId>>;

/// The resolver's whole configuration. Paths that are not in `up` count as up. `without_ipv6`: those whose IPv6 is broken.
/// `needed`: emergency lines' paths over which names are looked up now; over others of them nothing is asked.
pub(crate) fn resolver_config(
    plan: &ValidSitePlan,
    allocation: &Allocation,
    current: &Current,
    up: &BTreeMap<PathId, PathUp>,
    without_ipv6: &BTreeSet<PathId>,
    needed: &BTreeSet<PathId>,
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
        .map(|zone| (zone.clone(), zone_view(plan, allocation, current, needed, zone, now)))
        .collect();
    ResolverConfig { paths, zones }
}

fn zone_view(
    plan: &ValidSitePlan,
    allocation: &Allocation,
    current: &Current,
    needed: &BTreeSet<PathId>,
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
                let emergency = route
                    .emergency
                    .iter()
                    .filter(|path| needed.contains(*path) || current.as_ref() == Some(*path));
                let paths = route.paths.iter().chain(emergency).cloned().collect();
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
    ZoneView { services, forwards, others, own: own_names(plan, zone) }
}

/// Where browsers look for a PAC file by themselves, if the gateway serves one.
fn own_names(plan: &ValidSitePlan, zone: &ZoneId) -> BTreeMap<String, OwnName> {
    let serves = |proxy: &&seimon_plan::Proxy| proxy.pac == Pac::Serve && proxy.zones.contains(zone);
    let (Some(_), Some(own)) = (plan.proxy.as_ref().filter(serves), plan.zones.get(zone)) else {
        return BTreeMap::new();
    };
    let own = OwnName { ipv4: own.ipv4.addr(), ipv6: own.ipv6.map(|net| net.addr()) };
    wpad_names(plan, zone).into_iter().map(|name| (name, own.clone())).collect()
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
