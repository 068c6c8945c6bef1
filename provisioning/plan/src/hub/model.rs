//! The hub plan's types, field by field as in the TOML file.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Line, LineId, Nat4, PortSpec, Prefix, SiteId, WireguardKey};

/// A whole hub plan, as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubPlan {
    /// Format of this file: 1.
    pub version: u32,
    /// `hub`: that this is the far end of the schools' tunnels, and not a school.
    pub role: HubRole,
    /// Which hub, on which board.
    pub hub: HubSite,
    /// Physical accesses.
    pub lines: BTreeMap<LineId, Line>,
    /// Where schools' tunnels arrive.
    pub tunnel: HubTunnel,
    /// What schools may reach in the town hall.
    pub town: Town,
    /// Names that only the town's servers know. Absent: the hub answers no DNS.
    #[serde(default)]
    pub dns: Option<HubDns>,
    /// The way from the schools through the hub to the internet, as registered addresses. Absent: there is none.
    #[serde(default)]
    pub egress: Option<HubEgress>,
    /// Who may reach the hub itself over the network. Absent: nobody.
    #[serde(default)]
    pub control: Option<HubControl>,
    /// The schools, by the ids that their own plans have.
    pub schools: BTreeMap<SiteId, HubSchool>,
}

/// What the agent is with this plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HubRole {
    /// The far end of the schools' tunnels.
    Hub,
}

/// Which hub this is and on what it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubSite {
    /// Unique within the municipality; appears in metrics and records.
    pub id: SiteId,
    /// As people call it, e.g. `市役所センター`.
    pub name: String,
    /// Id of a board descriptor; ports below are this board's.
    pub board: String,
    /// IANA time zone of keys' days, e.g. `Asia/Tokyo`.
    #[schemars(extend("format" = "time-zone"))]
    pub timezone: String,
}

/// The WireGuard interface that all schools' tunnels end in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubTunnel {
    /// The line on which the schools' outer packets arrive, and leave.
    pub line: LineId,
    /// UDP port. Default 51820.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1))]
    pub listen_port: u16,
    /// File with the hub's private key, in the agent's state directory unless it begins with `/`; made where there is none.
    /// The key itself is never part of a plan.
    pub private_key_file: String,
    /// The hub's address in the tunnel, with the prefix that holds every school's.
    #[schemars(with = "String", extend("format" = "ipv4-prefix"))]
    pub ipv4: Ipv4Net,
    /// The same for IPv6. Absent: there is no IPv6 in the tunnel.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "ipv6-prefix"))]
    pub ipv6: Option<Ipv6Net>,
    /// Bytes inside the tunnel; at most the line's less 80. Default 1420.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
}

fn default_port() -> u16 {
    51820
}

fn default_mtu() -> u16 {
    1420
}

/// The town's own network behind the hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Town {
    /// The line that leads there.
    pub line: LineId,
    /// Destinations that schools may reach. Nothing else of the town is reached.
    #[schemars(with = "Vec<Prefix>")]
    pub prefixes: Vec<IpNet>,
    /// `routed`: the town's servers see the schools' addresses, and the town's routers know the way back. `masquerade`
    /// (default): they see the hub's.
    #[serde(default)]
    pub nat4: Nat4,
}

/// DNS for the schools: the hub's tunnel addresses, port 53, lead to these servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubDns {
    /// The town's servers, among `town.prefixes`. Questions take turns, so that a repeated one finds another server.
    pub servers: Vec<IpAddr>,
}

/// The schools' way to the internet through the hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubEgress {
    /// The line that leads there.
    pub line: LineId,
    /// Addresses that services see, and have registered. A school has one of them and keeps it.
    #[serde(default)]
    pub ipv4: Vec<Ipv4Addr>,
    /// The same for IPv6. Empty: schools' IPv6 goes no further than the town.
    #[serde(default)]
    pub ipv6: Vec<Ipv6Addr>,
}

/// Who may reach the hub itself, besides the tunnels' port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubControl {
    /// The line from which they come.
    pub line: LineId,
    /// Their addresses.
    #[schemars(with = "Vec<Prefix>")]
    pub from: Vec<IpNet>,
    /// What they may reach, as in `tcp/22`.
    pub ports: Vec<PortSpec>,
}

/// A school's end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubSchool {
    /// As people call it.
    pub name: String,
    /// Its address in the tunnel, as its own plan has it.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address in the tunnel.
    #[serde(default)]
    pub ipv6: Option<Ipv6Addr>,
    /// The school's own prefixes that come through the tunnel untranslated (`nat4 = "routed"` in its plan).
    #[serde(default)]
    #[schemars(with = "Vec<Prefix>")]
    pub prefixes: Vec<IpNet>,
    /// Its public keys. Two while one takes the other's place; the hub follows the one that the school uses.
    pub keys: Vec<HubKey>,
    /// The registered address that it is seen under; one of `egress.ipv4`. Absent: the hub deals one out, and keeps to it.
    #[serde(default)]
    pub egress: Option<Ipv4Addr>,
    /// Where its line is an emergency uplink that costs by volume: no more than this, each way.
    #[serde(default)]
    pub cap: Option<Cap>,
}

/// A public key, and when it counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubKey {
    /// As the school's gateway tells it: 44 characters.
    pub public_key: WireguardKey,
    /// First day, `"2026-04-01"`. Absent: at once. Not before a clock that can be trusted says so.
    #[serde(default)]
    #[schemars(extend("format" = "date"))]
    pub from: Option<String>,
    /// Last day. Absent: until it is taken out.
    #[serde(default)]
    #[schemars(extend("format" = "date"))]
    pub until: Option<String>,
}

/// A rate that is not exceeded, each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cap {
    /// Kilobits a second, each way.
    #[schemars(range(min = 64, max = 10_000_000))]
    pub kbit: u32,
}
