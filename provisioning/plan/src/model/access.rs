//! Who is in the school, which destinations there are, and who may reach what.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GroupId, HostName, PlanDuration, Prefix, ServiceId, ZoneId};

/// A segment of the school's network. Zones reach each other only by permits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    pub role: ZoneRole,
    /// Ports as printed on the case, for machines that know nothing of VLANs; joined to one bridge.
    #[serde(default)]
    pub ports: Vec<String>,
    /// Ports that lead to a switch or an access point which tells zones apart by VLAN tags. Several zones may name the same.
    #[serde(default)]
    pub trunks: Vec<String>,
    /// The zone's tag on its trunks.
    #[serde(default)]
    pub vlan: Option<u16>,
    /// The gateway's address in the zone, with the zone's prefix length.
    #[schemars(with = "String", extend("format" = "ipv4-prefix"))]
    pub ipv4: Ipv4Net,
    /// The same for IPv6, a /64. Absent: the zone has none.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "ipv6-prefix"))]
    pub ipv6: Option<Ipv6Net>,
    /// What the zone may reach outside the school besides its permits.
    pub internet: Internet,
}

/// Who uses a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ZoneRole {
    Affairs,
    Learning,
    Staff,
    Printers,
    Guest,
    Shelter,
    Management,
}

/// What a zone may reach outside the school besides its permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Internet {
    /// Nothing but its permits (allow-list).
    Listed,
    /// Anything; named services still get their stable address.
    Open,
}

/// A destination that the plan names, by host names, prefixes or both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Services that one log-in spans carry the same word and move together.
    pub group: GroupId,
    /// Fully qualified host names, without a dot at the end.
    #[serde(default)]
    #[schemars(with = "Vec<HostName>")]
    pub names: Vec<String>,
    /// Destinations reached by literal address.
    #[serde(default)]
    #[schemars(with = "Vec<Prefix>")]
    pub prefixes: Vec<IpNet>,
    /// `tcp/443`, `udp/3478-3481`.
    pub ports: Vec<PortSpec>,
    /// Source addresses that the service accepts. Empty: it accepts any.
    #[serde(default)]
    pub registered_egress: Vec<IpAddr>,
    /// How to see that the service works.
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// How long a client must be quiet before its log-in may be thought over. Default 15 min. A group uses its
    /// services' longest.
    #[serde(default = "default_session_idle")]
    pub session_idle: PlanDuration,
}

fn default_session_idle() -> PlanDuration {
    PlanDuration(Duration::from_secs(15 * 60))
}

/// A transport protocol with a port or a range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSpec {
    pub protocol: Protocol,
    pub first: u16,
    pub last: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// `GET https://NAME[:port]PATH` must answer with `status` and a body that contains `body`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// One of the service's names.
    #[schemars(extend("format" = "hostname"))]
    pub name: String,
    /// Default 443.
    #[serde(default = "default_https")]
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Begins with `/`.
    pub path: String,
    /// Default 200.
    #[serde(default = "default_status")]
    #[schemars(range(min = 100, max = 599))]
    pub status: u16,
    /// Text that the body must contain.
    pub body: String,
    /// PEM file with the authorities to trust for this service; relative to the plan file. Absent: the system's.
    #[serde(default)]
    pub ca_file: Option<String>,
}

fn default_https() -> u16 {
    443
}

fn default_status() -> u16 {
    200
}

/// A zone may reach a service or another zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Permit {
    pub from: ZoneId,
    /// `service:ID` or `zone:ID`.
    pub to: PermitTarget,
    /// For `zone:` targets; services name their own ports. Empty: every port and protocol.
    #[serde(default)]
    pub ports: Vec<PortSpec>,
    /// Who answers for this permit.
    pub who: String,
    /// What it is needed for, in words that the next administrator understands.
    pub why: String,
    /// Last day (`2029-03-31`), in the site's time zone; from the day after it is closed.
    #[schemars(extend("format" = "date"))]
    pub until: String,
}

/// `service:ID` or `zone:ID`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PermitTarget {
    Service(ServiceId),
    Zone(ZoneId),
}
