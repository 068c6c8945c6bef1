//! The plan's types, field by field as in the TOML file. Validity across fields is checked elsewhere.
//!
//! ```text
//! SitePlan ─┬─ site, inside                      here
//!           ├─ zones, services, permits          access
//!           ├─ lines, paths, hub, echo, gateway  paths
//!           ├─ a line's role, its cost           emergency
//!           ├─ the town hall's proxy             proxy
//!           ├─ a path's tunnel                   wireguard
//!           ├─ dns                               names
//!           ├─ migration                         migration
//!           └─ school                            school
//! ```

mod access;
mod emergency;
mod identifiers;
mod migration;
mod names;
mod paths;
mod proxy;
mod school;
mod text;
mod wireguard;

use std::collections::BTreeMap;

use ipnet::{Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access::{HealthCheck, Internet, Permit, PermitTarget, PortSpec, Protocol, Service, Zone, ZoneRole};
pub use emergency::{LineRole, Metered};
pub use identifiers::{
    GroupId, INTERNET_GROUP, InvalidIdentifier, LineId, PathId, RoomId, ServiceId, SiteId, ZoneId,
};
pub use migration::{Canary, Freeze, Migration, MigrationRoute, Room, Thresholds, Times, Weekday, Window};
pub use names::{Dns, ForwardZone};
pub use paths::{Echo, Egress, Gateway, Hub, Line, Nat4, Path, PathIpv6, PathKind};
pub use proxy::{Pac, Proxy};
pub use school::{Contact, Device, DeviceKind, School, Speed, Words};
pub use text::{InvalidText, PlanDuration};
pub use wireguard::{Endpoint, InvalidWireguard, Wireguard, WireguardKey};

/// A whole site plan, as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SitePlan {
    /// Format of this file: 1.
    pub version: u32,
    /// Which school, on which board.
    pub site: Site,
    /// Address space for the stable inside addresses that the resolver hands out. Must overlap nothing else.
    pub inside: Inside,
    /// Physical accesses.
    pub lines: BTreeMap<LineId, Line>,
    /// Ways to the world over the lines.
    pub paths: BTreeMap<PathId, Path>,
    /// Segments of the school's network.
    pub zones: BTreeMap<ZoneId, Zone>,
    /// Destinations the plan names.
    #[serde(default)]
    pub services: BTreeMap<ServiceId, Service>,
    /// Who may reach what, why, until when.
    #[serde(default)]
    pub permits: Vec<Permit>,
    /// Prefixes that stay behind the closed line (file servers, groupware in the town hall).
    #[serde(default)]
    pub hub: Option<Hub>,
    /// A web proxy in the town hall that machines of some zones are set to use.
    #[serde(default)]
    pub proxy: Option<Proxy>,
    /// Name resolution beside the paths' own resolvers.
    #[serde(default)]
    pub dns: Dns,
    /// A service of the municipality that answers with the source address it saw; used for liveness and to learn
    /// egress addresses.
    pub echo: Echo,
    /// Paths in order, times, thresholds, windows, freezes.
    pub migration: Migration,
    /// The gateway's own traffic (names it resolves for itself, time): which path.
    pub gateway: Gateway,
    /// What the people at the school are told and asked. Changes nothing about the network.
    #[serde(default)]
    pub school: School,
}

impl SitePlan {
    /// What may be spent on the path's line, where that is an emergency line.
    pub fn metered(&self, path: &PathId) -> Option<Metered> {
        let line = self.lines.get(&self.paths.get(path)?.line)?;
        match line.role {
            LineRole::Ordinary => None,
            LineRole::Emergency => Some(line.metered.clone().unwrap_or_default()),
        }
    }

    /// Whether the path is over an emergency line.
    pub fn is_emergency(&self, path: &PathId) -> bool {
        self.metered(path).is_some()
    }
}

/// Which school this is and what stands there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Unique within the municipality; appears in metrics and records.
    pub id: SiteId,
    /// As people call it, e.g. `日の出小学校`.
    pub name: String,
    /// Id of a board descriptor; ports below are this board's.
    pub board: String,
    /// IANA time zone of windows and freezes, e.g. `Asia/Tokyo`.
    #[schemars(extend("format" = "time-zone"))]
    pub timezone: String,
}

/// Prefixes of the stable inside addresses. They exist only between the school's machines and the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inside {
    /// At least a /24; a part of 100.64.0.0/10 is a good choice.
    #[schemars(with = "String", extend("format" = "ipv4-prefix"))]
    pub ipv4: Ipv4Net,
    /// At least a /112; a /64 of the school's own unique local prefix (`fd…`) is a good choice.
    #[schemars(with = "String", extend("format" = "ipv6-prefix"))]
    pub ipv6: Ipv6Net,
}

/// Stand-ins that only describe strings in the schema.
#[derive(JsonSchema)]
#[schemars(inline, extend("format" = "prefix"))]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct Prefix(String);

#[derive(JsonSchema)]
#[schemars(inline, extend("format" = "hostname"))]
#[expect(dead_code, reason = "only its schema is used")]
struct HostName(String);
