//! The site plan with everything looked up: interfaces for ports, numbers for paths and groups, bridges for zones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use seimon_board::InterfaceName;
use seimon_plan::{
    GroupId, Internet, LineId, Nat4, Path, PathId, PathIpv6, PathKind, SitePlan, Wireguard, Zone, ZoneId,
};

use super::allocation::{Allocation, ProbeHost, outer_path};
use super::compile::CompileError;
use super::link::PortVlans;
use super::mark::{PathIndex, ZoneGroupIndex};
use super::naming::{bridge_name, slug, tunnel_name};

pub(crate) struct PathGround<'a> {
    pub(crate) id: &'a PathId,
    pub(crate) path: &'a Path,
    pub(crate) index: PathIndex,
    /// The interface by which the path's packets leave: the line's port, or the tunnel.
    pub(crate) uplink: InterfaceName,
    pub(crate) line: &'a seimon_plan::Line,
}

/// A line that carries tunnels.
pub(crate) struct CarrierGround<'a> {
    pub(crate) id: &'a LineId,
    pub(crate) line: &'a seimon_plan::Line,
    pub(crate) port: InterfaceName,
    /// What outer packets are marked with: a plain path on the line, or a number of the line's own.
    pub(crate) index: PathIndex,
    /// No plain path could carry them: the number is the line's own.
    pub(crate) is_bare: bool,
    /// UDP ports at which the tunnels listen.
    pub(crate) ports: BTreeSet<u16>,
}

impl<'a> PathGround<'a> {
    pub(crate) fn tunnel(&self) -> Option<&'a Wireguard> {
        match self.path.kind {
            PathKind::Plain => None,
            PathKind::Wireguard => self.path.wireguard.as_ref(),
        }
    }

    /// Bytes that a packet of the path may have.
    pub(crate) fn mtu(&self) -> u16 {
        self.tunnel().map_or(self.line.mtu, |tunnel| tunnel.mtu)
    }

    pub(crate) fn has_ipv6(&self) -> bool {
        !matches!(self.path.ipv6, PathIpv6::None)
    }

    pub(crate) fn masquerades4(&self) -> bool {
        matches!(self.path.nat4, Nat4::Masquerade)
    }

    pub(crate) fn masquerades6(&self) -> bool {
        matches!(self.path.ipv6, PathIpv6::Nat66)
    }
}

pub(crate) struct ZoneGround<'a> {
    pub(crate) id: &'a ZoneId,
    pub(crate) zone: &'a Zone,
    pub(crate) bridge: InterfaceName,
    /// Of the ports that are this zone's alone, in the plan's order.
    pub(crate) ports: Vec<InterfaceName>,
    /// Of its trunks, and its number there.
    pub(crate) trunks: Vec<InterfaceName>,
    pub(crate) vlan: Option<u16>,
    /// Part of chain names.
    pub(crate) slug: String,
}

impl ZoneGround<'_> {
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.zone.internet, Internet::Open)
    }
}

pub(crate) struct RouteGround<'a> {
    pub(crate) zone: &'a ZoneId,
    pub(crate) group: &'a GroupId,
    pub(crate) index: ZoneGroupIndex,
    /// Those for emergencies come last.
    pub(crate) paths: Vec<&'a PathId>,
    pub(crate) idle: Duration,
}

pub(crate) struct Terrain<'a> {
    pub(crate) plan: &'a SitePlan,
    pub(crate) allocation: &'a Allocation,
    pub(crate) zones: BTreeMap<&'a ZoneId, ZoneGround<'a>>,
    pub(crate) paths: BTreeMap<&'a PathId, PathGround<'a>>,
    /// Ports of the board.
    pub(crate) lines: BTreeMap<&'a LineId, InterfaceName>,
    pub(crate) carriers: BTreeMap<&'a LineId, CarrierGround<'a>>,
    pub(crate) routes: Vec<RouteGround<'a>>,
}

impl<'a> Terrain<'a> {
    pub(crate) fn survey(
        plan: &'a SitePlan,
        interface_of: &dyn Fn(&str) -> Option<InterfaceName>,
        session_idle: &dyn Fn(&GroupId) -> Duration,
        allocation: &'a Allocation,
    ) -> Result<Self, CompileError> {
        let port = |port: &String| interface_of(port).ok_or_else(|| CompileError::NoSuchPort(port.clone()));
        let lines: BTreeMap<&LineId, InterfaceName> = plan
            .lines
            .iter()
            .map(|(id, line)| Ok((id, port(&line.port)?)))
            .collect::<Result<_, CompileError>>()?;
        let mut paths = BTreeMap::new();
        for (id, path) in &plan.paths {
            if path.ipv6 == PathIpv6::Nptv6 {
                return Err(CompileError::PathNotCarried(id.clone()));
            }
            let line = plan.lines.get(&path.line).ok_or_else(|| CompileError::unknown("line", &path.line))?;
            let port = lines.get(&path.line).ok_or_else(|| CompileError::unknown("line", &path.line))?;
            let uplink = match path.kind {
                PathKind::Plain => port.clone(),
                PathKind::Wireguard => tunnel_name(id).map_err(|_| CompileError::PathName(id.clone()))?,
            };
            let mut others = paths.values().map(|path: &PathGround<'_>| &path.uplink);
            if path.kind == PathKind::Wireguard
                && (others.any(|o| *o == uplink) || lines.values().any(|o| *o == uplink))
            {
                return Err(CompileError::PathName(id.clone()));
            }
            let index = *allocation.paths.get(id).ok_or_else(|| CompileError::unnumbered("path", id))?;
            paths.insert(id, PathGround { id, path, index, uplink, line });
        }
        let carriers = carriers(plan, allocation, &lines, &paths)?;
        let mut zones = BTreeMap::new();
        let mut names = BTreeSet::new();
        for (id, zone) in &plan.zones {
            let bridge = bridge_name(id).map_err(|_| CompileError::ZoneName(id.clone()))?;
            let slug = slug(id.as_str());
            if !names.insert(bridge.as_str().to_owned()) || !names.insert(format!("/{slug}")) {
                return Err(CompileError::ZoneName(id.clone()));
            }
            let ports = zone.ports.iter().map(&port).collect::<Result<_, _>>()?;
            let trunks: Vec<_> = zone.trunks.iter().map(&port).collect::<Result<_, _>>()?;
            let vlan = zone.vlan.filter(|_| !trunks.is_empty());
            zones.insert(id, ZoneGround { id, zone, bridge, ports, trunks, vlan, slug });
        }
        let mut routes = Vec::new();
        for route in &plan.migration.routes {
            let key = (route.zone.clone(), route.group.clone());
            let index = *allocation
                .zone_groups
                .get(&key)
                .ok_or_else(|| CompileError::unnumbered("group", &route.group))?;
            if !zones.contains_key(&route.zone) {
                return Err(CompileError::unknown("zone", &route.zone));
            }
            routes.push(RouteGround {
                zone: &route.zone,
                group: &route.group,
                index,
                paths: route.all_paths().collect(),
                idle: session_idle(&route.group),
            });
        }
        Ok(Self { plan, allocation, zones, paths, lines, carriers, routes })
    }

    /// Ports of the trunk, and what each carries: tagged on trunks; a port of a zone that has a VLAN is one of that VLAN, so
    /// that a switch chip can pass frames between them by itself. Empty where no zone has a VLAN.
    pub(crate) fn trunk(&self) -> BTreeMap<InterfaceName, PortVlans> {
        let mut trunk: BTreeMap<InterfaceName, PortVlans> = BTreeMap::new();
        for zone in self.zones.values() {
            let Some(vlan) = zone.vlan else { continue };
            for port in &zone.trunks {
                trunk.entry(port.clone()).or_default().tagged.insert(vlan);
            }
            for port in &zone.ports {
                trunk.entry(port.clone()).or_default().untagged = Some(vlan);
            }
        }
        trunk
    }

    /// Some paths of the route carry IPv6 and others do not.
    pub(crate) fn carries_ipv6_in_part(&self, route: &RouteGround<'_>) -> Result<bool, CompileError> {
        let mut carrying = 0;
        for path in &route.paths {
            carrying += usize::from(self.path(path)?.has_ipv6());
        }
        Ok(carrying != 0 && carrying != route.paths.len())
    }

    pub(crate) fn path(&self, id: &PathId) -> Result<&PathGround<'a>, CompileError> {
        self.paths.get(id).ok_or_else(|| CompileError::unknown("path", id))
    }

    pub(crate) fn zone(&self, id: &ZoneId) -> Result<&ZoneGround<'a>, CompileError> {
        self.zones.get(id).ok_or_else(|| CompileError::unknown("zone", id))
    }

    pub(crate) fn route(&self, zone: &ZoneId, group: &GroupId) -> Option<&RouteGround<'a>> {
        self.routes.iter().find(|route| route.zone == zone && route.group == group)
    }

    /// Probe hosts of this plan: those that the allocation still remembers for others are left out.
    pub(crate) fn probes(
        &self,
    ) -> Result<Vec<(&ZoneGround<'a>, &PathGround<'a>, &'a ProbeHost)>, CompileError> {
        let mut wanted = BTreeSet::new();
        for route in &self.routes {
            for path in &route.paths {
                wanted.insert((route.zone.clone(), (*path).clone()));
            }
        }
        wanted
            .iter()
            .map(|key| {
                let host = self.allocation.probes.get(key);
                let host = host.ok_or_else(|| CompileError::unnumbered("probe host", &key.0))?;
                Ok((self.zone(&key.0)?, self.path(&key.1)?, host))
            })
            .collect()
    }

    /// Lines with a number of their own.
    pub(crate) fn bare_carriers(&self) -> impl Iterator<Item = &CarrierGround<'a>> {
        self.carriers.values().filter(|carrier| carrier.is_bare)
    }

    pub(crate) fn tunnels(&self) -> impl Iterator<Item = (&PathGround<'a>, &'a Wireguard)> {
        self.paths.values().filter_map(|path| Some((path, path.tunnel()?)))
    }

    /// The first path by each interface: what enters there unasked is answered there.
    pub(crate) fn first_paths(&self) -> BTreeMap<&InterfaceName, &PathGround<'a>> {
        let mut first = BTreeMap::new();
        for path in self.paths.values() {
            first.entry(&path.uplink).or_insert(path);
        }
        first
    }

    /// Prefixes inside the tunnels.
    pub(crate) fn tunnel_nets(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.tunnels()
            .flat_map(|(_, tunnel)| {
                [Some(IpNet::V4(tunnel.ipv4.trunc())), tunnel.ipv6.map(|net| IpNet::V6(net.trunc()))]
            })
            .flatten()
    }

    pub(crate) fn zone_nets4(&self) -> impl Iterator<Item = Ipv4Net> + '_ {
        self.plan.zones.values().map(|zone| zone.ipv4.trunc())
    }

    pub(crate) fn zone_nets6(&self) -> impl Iterator<Item = Ipv6Net> + '_ {
        self.plan.zones.values().filter_map(|zone| zone.ipv6).map(|net| net.trunc())
    }
}

fn carriers<'a>(
    plan: &'a SitePlan,
    allocation: &Allocation,
    lines: &BTreeMap<&'a LineId, InterfaceName>,
    paths: &BTreeMap<&'a PathId, PathGround<'a>>,
) -> Result<BTreeMap<&'a LineId, CarrierGround<'a>>, CompileError> {
    let mut carriers: BTreeMap<&LineId, CarrierGround<'_>> = BTreeMap::new();
    for path in paths.values() {
        let Some(tunnel) = path.tunnel() else { continue };
        let id = &path.path.line;
        if let Some(carrier) = carriers.get_mut(id) {
            carrier.ports.insert(tunnel.listen_port);
            continue;
        }
        let plain = outer_path(plan, id).and_then(|plain| paths.get(plain));
        let index = match plain {
            Some(plain) => plain.index,
            None => *allocation.carriers.get(id).ok_or_else(|| CompileError::unnumbered("line", id))?,
        };
        let port = lines.get(id).ok_or_else(|| CompileError::unknown("line", id))?.clone();
        let (line, is_bare, ports) = (path.line, plain.is_none(), BTreeSet::from([tunnel.listen_port]));
        carriers.insert(id, CarrierGround { id, line, port, index, is_bare, ports });
    }
    Ok(carriers)
}
