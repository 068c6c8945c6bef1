//! The site plan with everything looked up: interfaces for ports, numbers for paths and groups, bridges for zones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use seimon_board::InterfaceName;
use seimon_plan::{
    GroupId, Internet, LineId, Nat4, Path, PathId, PathIpv6, PathKind, SitePlan, Zone, ZoneId,
};

use super::allocation::{Allocation, ProbeHost};
use super::compile::CompileError;
use super::mark::{PathIndex, ZoneGroupIndex};
use super::naming::{bridge_name, slug};

pub(crate) struct PathGround<'a> {
    pub(crate) id: &'a PathId,
    pub(crate) path: &'a Path,
    pub(crate) index: PathIndex,
    pub(crate) uplink: InterfaceName,
    pub(crate) line: &'a seimon_plan::Line,
}

impl PathGround<'_> {
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
    pub(crate) members: Vec<InterfaceName>,
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
    pub(crate) paths: Vec<&'a PathId>,
    pub(crate) idle: Duration,
}

pub(crate) struct Terrain<'a> {
    pub(crate) plan: &'a SitePlan,
    pub(crate) allocation: &'a Allocation,
    pub(crate) zones: BTreeMap<&'a ZoneId, ZoneGround<'a>>,
    pub(crate) paths: BTreeMap<&'a PathId, PathGround<'a>>,
    pub(crate) lines: BTreeMap<&'a LineId, InterfaceName>,
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
            if path.kind != PathKind::Plain || path.ipv6 == PathIpv6::Nptv6 {
                return Err(CompileError::PathNotCarried(id.clone()));
            }
            let line = plan.lines.get(&path.line).ok_or_else(|| CompileError::unknown("line", &path.line))?;
            let uplink =
                lines.get(&path.line).ok_or_else(|| CompileError::unknown("line", &path.line))?.clone();
            let index = *allocation.paths.get(id).ok_or_else(|| CompileError::unnumbered("path", id))?;
            paths.insert(id, PathGround { id, path, index, uplink, line });
        }
        let mut zones = BTreeMap::new();
        let mut names = BTreeSet::new();
        for (id, zone) in &plan.zones {
            let bridge = bridge_name(id).map_err(|_| CompileError::ZoneName(id.clone()))?;
            let slug = slug(id.as_str());
            if !names.insert(bridge.as_str().to_owned()) || !names.insert(format!("/{slug}")) {
                return Err(CompileError::ZoneName(id.clone()));
            }
            let members = zone.ports.iter().map(&port).collect::<Result<_, _>>()?;
            zones.insert(id, ZoneGround { id, zone, bridge, members, slug });
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
                paths: route.paths.iter().collect(),
                idle: session_idle(&route.group),
            });
        }
        Ok(Self { plan, allocation, zones, paths, lines, routes })
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

    /// The first path on each line: what enters there unasked is answered there.
    pub(crate) fn first_paths(&self) -> BTreeMap<&InterfaceName, &PathGround<'a>> {
        let mut first = BTreeMap::new();
        for path in self.paths.values() {
            first.entry(&path.uplink).or_insert(path);
        }
        first
    }

    pub(crate) fn zone_nets4(&self) -> impl Iterator<Item = Ipv4Net> + '_ {
        self.plan.zones.values().map(|zone| zone.ipv4.trunc())
    }

    pub(crate) fn zone_nets6(&self) -> impl Iterator<Item = Ipv6Net> + '_ {
        self.plan.zones.values().filter_map(|zone| zone.ipv6).map(|net| net.trunc())
    }
}
