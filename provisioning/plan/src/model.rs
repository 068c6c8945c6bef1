//! The plan's types, field by field as in the TOML file. Validity across fields is checked elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        /// 1 to 32 characters: lower-case letters, digits, `-`, `_`; begins with a letter.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String", extend("format" = "identifier", "pattern" = "^[a-z][a-z0-9_-]{0,31}$"))]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidIdentifier> {
                identifier(text.into()).map(Self)
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidIdentifier;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a valid identifier: 1 to 32 of a-z, 0-9, `-`, `_`, beginning with a letter")]
pub struct InvalidIdentifier(pub String);

fn identifier(text: String) -> Result<String, InvalidIdentifier> {
    let good = (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if good { Ok(text) } else { Err(InvalidIdentifier(text)) }
}

identifiers! {
    /// A school site, unique within its municipality.
    SiteId
    /// A physical access.
    LineId
    /// A way to the world over a line.
    PathId
    /// A segment of the school's network.
    ZoneId
    /// A destination that the plan names.
    ServiceId
    /// Services that one log-in spans and that move together. `internet` is reserved: what an open zone reaches
    /// besides named services.
    GroupId
}

/// The group that stands for everything an open zone reaches besides the services that the plan names.
pub const INTERNET_GROUP: &str = "internet";

/// A duration written as `200ms`, `5s`, `15min`, `2h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanDuration(pub Duration);

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
}

/// The school's end of a WireGuard tunnel and its peer, the municipality's hub.
/// This version reads and checks it and does not bring the tunnel up yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wireguard {
    /// The hub's outer address and UDP port: `198.51.100.20:51820` or `[2001:db8::20]:51820`.
    #[schemars(with = "String", extend("format" = "endpoint"))]
    pub endpoint: SocketAddr,
    /// The hub's public key: 32 bytes in base64 (44 characters, ending in `=`).
    #[schemars(extend("format" = "wireguard-key"))]
    pub public_key: String,
    /// File on the gateway with the school's private key. The key itself is never part of a plan.
    pub private_key_file: String,
    /// UDP port on which the school's end listens. Default 51820.
    #[serde(default = "default_wireguard_port")]
    #[schemars(range(min = 1))]
    pub listen_port: u16,
    /// The school's address in the tunnel, with prefix length.
    #[schemars(with = "String", extend("format" = "ipv4-prefix"))]
    pub ipv4: Ipv4Net,
    /// Needed where the path's `ipv6` is `native` or `nat66`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "ipv6-prefix"))]
    pub ipv6: Option<Ipv6Net>,
    /// Between keep-alive packets, so that routers in between keep the way open. Default 25 s.
    #[serde(default = "default_keepalive")]
    pub keepalive: PlanDuration,
    /// Bytes inside the tunnel; at most the line's less 80. Default 1420.
    #[serde(default = "default_wireguard_mtu")]
    pub mtu: u16,
}

fn default_wireguard_port() -> u16 {
    51820
}

fn default_keepalive() -> PlanDuration {
    PlanDuration(Duration::from_secs(25))
}

fn default_wireguard_mtu() -> u16 {
    1420
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

/// A segment of the school's network. Zones reach each other only by permits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    pub role: ZoneRole,
    /// Ports as printed on the case; joined to one bridge.
    pub ports: Vec<String>,
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

/// Name resolution beside the paths' own resolvers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Domains (an Active Directory, say) whose queries and answers pass untouched.
    #[serde(default)]
    pub forward: Vec<ForwardZone>,
}

/// A domain that its own servers answer for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardZone {
    /// The domain and everything under it.
    #[schemars(extend("format" = "hostname"))]
    pub domain: String,
    /// Its servers, asked in order.
    pub servers: Vec<IpAddr>,
    /// Absent: the servers are inside the school.
    #[serde(default)]
    pub path: Option<PathId>,
    /// Zones that may ask for it.
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

/// How services move from path to path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    /// One entry for each zone and group that leaves the school.
    pub routes: Vec<MigrationRoute>,
    #[serde(default)]
    pub times: Times,
    #[serde(default)]
    pub thresholds: Thresholds,
    /// When a move may begin. Empty: never.
    #[serde(default)]
    pub windows: Vec<Window>,
    /// When no move may begin, whatever the windows say.
    #[serde(default)]
    pub freezes: Vec<Freeze>,
}

/// The paths that one zone's traffic to one group may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrationRoute {
    pub zone: ZoneId,
    /// A group of services, or `internet`.
    pub group: GroupId,
    /// Paths this traffic may ever use. It starts on the first and is meant for the last.
    pub paths: Vec<PathId>,
}

/// How long the phases of a move last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Times {
    /// Probing of the candidate before a cut-over.
    pub qualify: PlanDuration,
    /// Watching after it.
    pub soak: PlanDuration,
    /// How long clients with a log-in may stay on the old path.
    pub drain: PlanDuration,
    /// After a roll-back, before the next try; doubles each time, at most 64-fold.
    pub hold_down: PlanDuration,
}

impl Default for Times {
    fn default() -> Self {
        let secs = |s| PlanDuration(Duration::from_secs(s));
        Self { qualify: secs(300), soak: secs(3600), drain: secs(8 * 3600), hold_down: secs(600) }
    }
}

/// When a path counts as down and a service as ill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Between liveness packets on a path.
    pub liveness_interval: PlanDuration,
    /// A liveness packet without an answer for this long is lost.
    pub liveness_timeout: PlanDuration,
    /// Path down: `down_lost` of the last `down_of` liveness packets lost.
    pub down_lost: u32,
    /// At least `down_lost`, at most 1000.
    pub down_of: u32,
    /// Path up again: this many answers in a row.
    pub up_count: u32,
    /// Between service checks over a path, in steady state (jittered by a quarter).
    pub check_interval: PlanDuration,
    /// Between service checks while qualifying and soaking.
    pub check_interval_moving: PlanDuration,
    /// A service check must be over in this time.
    pub check_timeout: PlanDuration,
    /// Service ill over a path: this many failed checks in a row.
    pub ill_count: u32,
    /// Checks that must succeed, all in a row, before a cut-over.
    pub qualify_checks: u32,
    /// The candidate's median time of a check may be at most this many times the current path's.
    pub latency_ratio: f64,
    /// ...or this much longer, whichever is more.
    pub latency_slack: PlanDuration,
    /// Liveness loss that the candidate may have, above the current path's (0 to 1).
    pub loss_slack: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        let millis = |ms| PlanDuration(Duration::from_millis(ms));
        Self {
            liveness_interval: millis(200),
            liveness_timeout: millis(600),
            down_lost: 5,
            down_of: 6,
            up_count: 10,
            check_interval: millis(45_000),
            check_interval_moving: millis(2_000),
            check_timeout: millis(5_000),
            ill_count: 3,
            qualify_checks: 5,
            latency_ratio: 2.0,
            latency_slack: millis(100),
            loss_slack: 0.02,
        }
    }
}

/// Weekly (`days`, `from`, `to`) or once (`start`, `end`), in the site's time zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum Window {
    /// Every week on these days.
    Weekly {
        /// Days on which it begins.
        days: Vec<Weekday>,
        /// `18:00`.
        #[schemars(extend("format" = "time-of-day"))]
        from: String,
        /// `06:00`; a `to` that is not later than `from` lies on the day after.
        #[schemars(extend("format" = "time-of-day"))]
        to: String,
    },
    /// One time only.
    Once {
        /// `2026-08-01T18:00`.
        #[schemars(extend("format" = "local-date-time"))]
        start: String,
        /// Later than `start`.
        #[schemars(extend("format" = "local-date-time"))]
        end: String,
    },
}

/// Day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// Days on which no move may begin, whatever the windows say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// First day (`2027-02-01`), in the site's time zone.
    #[schemars(extend("format" = "date"))]
    pub first: String,
    /// Last day, included.
    #[schemars(extend("format" = "date"))]
    pub last: String,
    /// For people, e.g. `term-end marks`.
    pub reason: String,
}

mod text;

/// Stand-ins that only describe strings in the schema.
#[derive(JsonSchema)]
#[schemars(inline, extend("format" = "prefix"))]
#[expect(dead_code, reason = "only its schema is used")]
struct Prefix(String);

#[derive(JsonSchema)]
#[schemars(inline, extend("format" = "hostname"))]
#[expect(dead_code, reason = "only its schema is used")]
struct HostName(String);

pub use text::InvalidText;
