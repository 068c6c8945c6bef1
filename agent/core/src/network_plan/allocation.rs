//! Numbers and addresses that outlive a generation: a flow that was marked under the parent must mean the same under the
//! child, and an address that a client has cached must stay that service's.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use seimon_board::{InterfaceName, MacAddress};
use seimon_plan::{GroupId, PathId, ZoneId};
use serde::{Deserialize, Serialize};

use super::mark::{PathIndex, ZoneGroupIndex};

/// All numbers given out so far. Serialised as lists of pairs: keys are tuples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    pub paths: BTreeMap<PathId, PathIndex>,
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
