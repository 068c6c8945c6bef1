//! Numbers and addresses that outlive a generation: a flow that was marked under the parent must mean the same under the
//! child, and an address that a client has cached must stay that service's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use seimon_board::{InterfaceName, MacAddress};
use seimon_plan::{GroupId, Inside, LineId, PathId, PathIpv6, PathKind, PermitTarget, SitePlan, ZoneId};
use serde::{Deserialize, Serialize};

use super::mark::{Mark, PathIndex, ZoneGroupIndex};

/// All numbers given out so far. Serialised as lists of pairs: keys are tuples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    pub paths: BTreeMap<PathId, PathIndex>,
    /// Lines that carry tunnels and no plain path that could carry them too: what the tunnels' outer packets are marked with.
    #[serde(default)]
    pub carriers: BTreeMap<LineId, PathIndex>,
    #[serde(with = "pairs")]
    pub zone_groups: BTreeMap<(ZoneId, GroupId), ZoneGroupIndex>,
    /// Stable inside addresses by zone and service name.
    #[serde(with = "pairs")]
    pub inside: BTreeMap<(ZoneId, String), (Ipv4Addr, Ipv6Addr)>,
    /// Local source addresses by which an unprivileged process chooses a path (`bind`).
    pub path_sources: BTreeMap<PathId, (Ipv4Addr, Ipv6Addr)>,
    /// Probe hosts, one for each zone and path that the zone may use.
    #[serde(with = "pairs")]
    pub probes: BTreeMap<(ZoneId, PathId), ProbeHost>,
}

/// A probe host's end of its veth pair, on the zone's bridge, pinned to a path by its MAC address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeHost {
    /// The end in the gateway's namespace.
    pub near: InterfaceName,
    /// The end in the probe's namespace.
    pub far: InterfaceName,
    pub mac: MacAddress,
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    #[error("no number is left for another {0}")]
    Exhausted(&'static str),
    #[error("the inside prefix {0} is too small for this plan")]
    InsideTooSmall(String),
}

impl Allocation {
    /// Keeps every number of the parent and adds what `plan` needs besides.
    ///
    /// Numbers are given out in the order of identifiers, so equal inputs give equal results. What left the plan keeps its
    /// number (flows and caches may still use it) until no other number is free. Inside addresses count up from the
    /// prefix's first; the gateway's own (path sources, probe hosts) count down from its last. Addresses outside the
    /// plan's inside prefixes are given anew.
    pub fn extend(&self, plan: &SitePlan) -> Result<Self, AllocationError> {
        let mut next = self.clone();
        let wanted = Wanted::of(plan);
        next.number_paths(&wanted.paths)?;
        next.number_carriers(&wanted.carriers)?;
        next.number_zone_groups(&wanted.zone_groups)?;
        next.place_addresses(&plan.inside, &wanted)?;
        Ok(next)
    }

    fn number_paths(&mut self, wanted: &BTreeSet<PathId>) -> Result<(), AllocationError> {
        for path in wanted {
            if self.paths.contains_key(path) {
                continue;
            }
            let index = match self.free_path_index() {
                Some(free) => free,
                None => take_retired(&mut self.paths, wanted).ok_or(AllocationError::Exhausted("path"))?,
            };
            self.paths.insert(path.clone(), index);
        }
        Ok(())
    }

    fn free_path_index(&self) -> Option<PathIndex> {
        let taken: BTreeSet<PathIndex> = self.paths.values().chain(self.carriers.values()).copied().collect();
        (1..=Mark::LAST_PATH).map(PathIndex).find(|index| !taken.contains(index))
    }

    fn number_carriers(&mut self, wanted: &BTreeSet<LineId>) -> Result<(), AllocationError> {
        for line in wanted {
            if self.carriers.contains_key(line) {
                continue;
            }
            let index = match self.free_path_index() {
                Some(free) => free,
                None => take_retired(&mut self.carriers, wanted).ok_or(AllocationError::Exhausted("path"))?,
            };
            self.carriers.insert(line.clone(), index);
        }
        Ok(())
    }

    fn number_zone_groups(&mut self, wanted: &BTreeSet<(ZoneId, GroupId)>) -> Result<(), AllocationError> {
        for pair in wanted {
            if self.zone_groups.contains_key(pair) {
                continue;
            }
            let taken: BTreeSet<u16> = self.zone_groups.values().map(|index| index.0).collect();
            let index = match (1..=ZoneGroupIndex::LAST).find(|n| !taken.contains(n)) {
                Some(free) => ZoneGroupIndex(free),
                None => take_retired(&mut self.zone_groups, wanted)
                    .ok_or(AllocationError::Exhausted("zone and group"))?,
            };
            self.zone_groups.insert(pair.clone(), index);
        }
        Ok(())
    }

    fn place_addresses(&mut self, inside: &Inside, wanted: &Wanted) -> Result<(), AllocationError> {
        let within = |(v4, v6): &(Ipv4Addr, Ipv6Addr)| inside.ipv4.contains(v4) && inside.ipv6.contains(v6);
        self.inside.retain(|_, pair| within(pair));
        self.path_sources.retain(|_, pair| within(pair));
        self.probes.retain(|_, host| within(&(host.ipv4, host.ipv6)));
        let mut space = Space::new(inside, self);
        for key in &wanted.inside {
            if self.inside.contains_key(key) {
                continue;
            }
            let pair = match space.take_lowest() {
                Some(pair) => pair,
                None => take_retired(&mut self.inside, &wanted.inside).ok_or_else(|| space.too_small())?,
            };
            self.inside.insert(key.clone(), pair);
        }
        for path in &wanted.paths {
            if self.path_sources.contains_key(path) {
                continue;
            }
            let pair = match space.take_highest() {
                Some(pair) => pair,
                None => {
                    take_retired(&mut self.path_sources, &wanted.paths).ok_or_else(|| space.too_small())?
                }
            };
            self.path_sources.insert(path.clone(), pair);
        }
        for key in &wanted.probes {
            if self.probes.contains_key(key) {
                continue;
            }
            let host = match space.take_highest() {
                Some((ipv4, ipv6)) => ProbeHost::at(ipv4, ipv6, space.offset(ipv4))?,
                None => take_retired(&mut self.probes, &wanted.probes).ok_or_else(|| space.too_small())?,
            };
            self.probes.insert(key.clone(), host);
        }
        Ok(())
    }
}

impl ProbeHost {
    /// Names and MAC address follow from the address, which is unique: 02:5e and the four bytes of the IPv4 address.
    fn at(ipv4: Ipv4Addr, ipv6: Ipv6Addr, offset: u32) -> Result<Self, AllocationError> {
        let [a, b, c, d] = ipv4.octets();
        let name = |end: char| {
            InterfaceName::new(format!("p{end}-{offset:x}"))
                .map_err(|_| AllocationError::Exhausted("interface name"))
        };
        Ok(Self { near: name('n')?, far: name('f')?, mac: MacAddress([0x02, 0x5e, a, b, c, d]), ipv4, ipv6 })
    }
}

/// What a plan needs numbers and addresses for.
struct Wanted {
    paths: BTreeSet<PathId>,
    carriers: BTreeSet<LineId>,
    zone_groups: BTreeSet<(ZoneId, GroupId)>,
    inside: BTreeSet<(ZoneId, String)>,
    probes: BTreeSet<(ZoneId, PathId)>,
}

impl Wanted {
    fn of(plan: &SitePlan) -> Self {
        let routes = &plan.migration.routes;
        let names = plan.permits.iter().filter_map(|permit| match &permit.to {
            PermitTarget::Service(id) => plan.services.get(id).map(|service| (&permit.from, &service.names)),
            PermitTarget::Zone(_) => None,
        });
        Self {
            paths: plan.paths.keys().cloned().collect(),
            carriers: plan
                .lines
                .keys()
                .filter(|line| {
                    let mut over = plan.paths.values().filter(|path| path.line == **line);
                    over.any(|path| path.kind == PathKind::Wireguard) && outer_path(plan, line).is_none()
                })
                .cloned()
                .collect(),
            zone_groups: routes.iter().map(|route| (route.zone.clone(), route.group.clone())).collect(),
            inside: names
                .flat_map(|(zone, names)| names.iter().map(|name| (zone.clone(), name.clone())))
                .collect(),
            probes: routes
                .iter()
                .flat_map(|route| route.all_paths().map(|path| (route.zone.clone(), path.clone())))
                .collect(),
        }
    }
}

/// The plain path that tunnels over the line go by: one that has every family which the line has.
pub(super) fn outer_path<'a>(plan: &'a SitePlan, line: &LineId) -> Option<&'a PathId> {
    let has_ipv6 = plan.lines.get(line)?.ipv6.is_some();
    let fits = |path: &seimon_plan::Path| {
        path.line == *line
            && path.kind == PathKind::Plain
            && (!has_ipv6 || !matches!(path.ipv6, PathIpv6::None))
    };
    plan.paths.iter().find(|(_, path)| fits(path)).map(|(id, _)| id)
}

/// Removes an entry that the plan no longer has, and returns what it held.
fn take_retired<K: Ord + Clone, V>(held: &mut BTreeMap<K, V>, wanted: &BTreeSet<K>) -> Option<V> {
    let key = held.keys().find(|key| !wanted.contains(key)).cloned()?;
    held.remove(&key)
}

/// The inside prefixes, as offsets that mean the same in both.
struct Space<'a> {
    inside: &'a Inside,
    taken: BTreeSet<u32>,
    bottom: u32,
    top: u32,
}

impl<'a> Space<'a> {
    fn new(inside: &'a Inside, held: &Allocation) -> Self {
        let host_bits =
            u32::from(32 - inside.ipv4.prefix_len()).min(128 - u32::from(inside.ipv6.prefix_len()));
        let last = if host_bits >= 32 { u32::MAX } else { (1u32 << host_bits) - 1 };
        let mut space = Self { inside, taken: BTreeSet::new(), bottom: 1, top: last.saturating_sub(1) };
        space.taken = held
            .inside
            .values()
            .chain(held.path_sources.values())
            .map(|(ipv4, _)| *ipv4)
            .chain(held.probes.values().map(|host| host.ipv4))
            .map(|ipv4| space.offset(ipv4))
            .collect();
        space
    }

    fn offset(&self, ipv4: Ipv4Addr) -> u32 {
        u32::from(ipv4).wrapping_sub(u32::from(self.inside.ipv4.network()))
    }

    fn pair(&self, offset: u32) -> (Ipv4Addr, Ipv6Addr) {
        let ipv4 = u32::from(self.inside.ipv4.network()) | offset;
        let ipv6 = u128::from(self.inside.ipv6.network()) | u128::from(offset);
        (Ipv4Addr::from(ipv4), Ipv6Addr::from(ipv6))
    }

    fn take_lowest(&mut self) -> Option<(Ipv4Addr, Ipv6Addr)> {
        let offset = (self.bottom..=self.top).find(|offset| !self.taken.contains(offset))?;
        self.taken.insert(offset);
        self.bottom = offset + 1;
        Some(self.pair(offset))
    }

    fn take_highest(&mut self) -> Option<(Ipv4Addr, Ipv6Addr)> {
        let offset = (self.bottom..=self.top).rev().find(|offset| !self.taken.contains(offset))?;
        self.taken.insert(offset);
        self.top = offset.saturating_sub(1);
        Some(self.pair(offset))
    }

    fn too_small(&self) -> AllocationError {
        AllocationError::InsideTooSmall(format!("{} / {}", self.inside.ipv4, self.inside.ipv6))
    }
}

mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Vec::<(K, V)>::deserialize(deserializer).map(|pairs| pairs.into_iter().collect())
    }
}
