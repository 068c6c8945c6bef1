//! Lines, the paths over them, and what is bound to one path: the town hall, the gateway's own traffic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LineId, LineRole, Metered, PathId, Prefix, Wireguard, ZoneId};

/// A physical access: one port with fixed addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The port as printed on the case.
    pub port: String,
    /// IPv4 address with prefix length, on this port.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "ipv4-prefix"))]
    pub ipv4: Option<Ipv4Net>,
    /// Next router, in the prefix of `ipv4`.
    #[serde(default)]
    pub gateway4: Option<Ipv4Addr>,
    /// IPv6 address with prefix length, on this port.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "ipv6-prefix"))]
    pub ipv6: Option<Ipv6Net>,
    /// Next router, in the prefix of `ipv6` or link-local (`fe80::…`).
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    /// Bytes. Default 1500.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// What it is for. Default: ordinary.
    #[serde(default)]
    pub role: LineRole,
    /// What may be spent on it. Only with `role = "emergency"`; absent: the defaults.
    #[serde(default)]
    pub metered: Option<Metered>,
}

fn default_mtu() -> u16 {
    1500
}

/// A way to the world over a line. Paths on one line share its fate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Path {
    /// The line that it runs over.
    pub line: LineId,
    pub kind: PathKind,
    /// Only and always with `kind = "wireguard"`.
    #[serde(default)]
    pub wireguard: Option<Wireguard>,
    /// What IPv6 is on this path. Saying nothing is an error.
    pub ipv6: PathIpv6,
    /// Whether IPv4 sources are translated to the line's address (`masquerade`) or kept (`routed`, where the far
    /// end knows the school's addresses).
    #[serde(default)]
    pub nat4: Nat4,
    /// DNS servers to ask over this path.
    pub resolvers: Vec<IpAddr>,
    /// Whether strangers have the same egress address. Absent: they do on a line whose address is DS-Lite's.
    #[serde(default)]
    pub egress: Option<Egress>,
}

/// Who else is seen under a path's egress address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// Nobody whom the municipality does not know.
    Own,
    /// Other customers of the provider (MAP-E, DS-Lite, carrier-grade NAT): a service that trusts by address would
    /// trust them too.
    Shared,
}

/// How packets of a path leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// Next hop on the line: an IP-VPN's edge router, an internet provider's router.
    Plain,
    /// WireGuard tunnel over the line.
    Wireguard,
}

/// What IPv6 a path has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathIpv6 {
    /// Sources are routed as they are.
    Native,
    /// Sources are translated to the line's address.
    Nat66,
    /// Prefix translation (RFC 6296).
    Nptv6,
    /// There is none: AAAA is withheld and IPv6 packets are refused at once.
    None,
}

/// What becomes of IPv4 sources on a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Nat4 {
    /// Translated to the line's address.
    #[default]
    Masquerade,
    /// Kept: the far end routes the school's prefixes back.
    Routed,
}

/// What stays behind the closed line for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hub {
    /// The only path to the hub's prefixes.
    pub path: PathId,
    /// Destinations in the town hall.
    #[schemars(with = "Vec<Prefix>")]
    pub prefixes: Vec<IpNet>,
    /// Zones that may reach them.
    pub zones: Vec<ZoneId>,
}

/// The municipality's UDP echo service: it answers each packet with the source address it saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Echo {
    /// Reachable over every path that has IPv4.
    pub ipv4: Ipv4Addr,
    /// Reachable over every path that has IPv6. Absent: IPv6 is neither watched nor is its egress address learnt.
    #[serde(default)]
    pub ipv6: Option<Ipv6Addr>,
    /// UDP port.
    #[schemars(range(min = 1))]
    pub port: u16,
}

/// The gateway's own traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Paths for the gateway's own traffic, best first.
    pub paths: Vec<PathId>,
}
