//! Loads as a scenario writes them, and the tables that the vocabulary prints.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::world::params::parse_duration;

/// What a load does. See [`KINDS`] for what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Session,
    Request,
    Download,
    Upload,
    Udp,
    Connect,
    Dns,
    Ping,
}

/// One `[[load]]` of a scenario. Unknown keys are errors; which keys matter to which kind: [`KINDS`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadSpec {
    /// Begins the names of its metrics: `teachers.logouts`.
    pub id: String,
    /// Zone of the clients: `affairs`, `learning` or `printers`.
    pub zone: String,
    pub kind: Kind,
    /// Clients at the same time; client n uses the zone's device n modulo its devices (download, upload: counted from
    /// the last device).
    #[serde(default = "one")]
    pub count: u32,
    /// Name of a service of the town: see [`SERVICES`].
    #[serde(default)]
    pub service: Option<String>,
    /// Instead of `service`: a name, or an address with optional port (`203.0.113.80:80`, `[2001:db8::1]:443`).
    #[serde(default)]
    pub target: Option<String>,
    /// Time between two operations of one client. Default: see [`KINDS`].
    #[serde(default, deserialize_with = "duration")]
    pub every: Option<Duration>,
    /// session: how long a log-in lasts. request, udp: how long a client works before it is quiet for `pause`.
    #[serde(default, deserialize_with = "duration")]
    pub life: Option<Duration>,
    /// session: quiet time between log-out and the next log-in. request, udp: after `life`; download: between two.
    #[serde(default, deserialize_with = "duration")]
    pub pause: Option<Duration>,
    /// download, upload: size in bytes. udp: payload size.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// download, upload: bytes a second at which the server (client) paces; default as fast as it goes.
    #[serde(default)]
    pub pace: Option<u64>,
    /// udp: packets a second of the whole load.
    #[serde(default)]
    pub rate: Option<u32>,
    /// udp: packets before a client takes a new source port; 0 = never.
    #[serde(default)]
    pub packets: Option<u32>,
    /// How long an operation may take before it counts as timed out.
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// `any` (as a browser: both asked, IPv6 first), `4` or `6`.
    #[serde(default)]
    pub family: Family,
    /// Which of a name's addresses a TCP connection tries.
    #[serde(default)]
    pub dial: Dial,
    /// Whether TLS connections go through the town hall's proxy.
    #[serde(default)]
    pub via: Via,
    /// When it begins and ends, from the scenario's start; default: whole scenario. For the runner; the world's
    /// [`crate::world::World::start_load`] starts at once.
    #[serde(default, deserialize_with = "duration")]
    pub from: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub to: Option<Duration>,
}

/// Address family that a load asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Family {
    #[default]
    #[serde(rename = "any")]
    Any,
    #[serde(rename = "4")]
    V4,
    #[serde(rename = "6")]
    V6,
}

/// How a client connects to a name that has addresses of both families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dial {
    /// As browsers do (RFC 8305): IPv6, and IPv4 a little later or as soon as IPv6 failed.
    #[default]
    Race,
    /// As many simple programs do: the first address in the order of RFC 6724, which is IPv6; that it fails is an error.
    First,
}

/// Which way a client's TLS connections go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// As the gateway routes them.
    #[default]
    Gateway,
    /// Through the proxy, which stands in the browser's settings.
    Proxy,
    /// As the PAC file says that the gateway serves; while there is none, through the proxy.
    Pac,
}

impl LoadSpec {
    /// A load with every optional key at its default.
    pub fn new(id: &str, zone: &str, kind: Kind) -> Self {
        Self {
            id: id.to_owned(),
            zone: zone.to_owned(),
            kind,
            count: 1,
            service: None,
            target: None,
            every: None,
            life: None,
            pause: None,
            bytes: None,
            pace: None,
            rate: None,
            packets: None,
            timeout: None,
            family: Family::Any,
            dial: Dial::Race,
            via: Via::Gateway,
            from: None,
            to: None,
        }
    }
}

fn one() -> u32 {
    1
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map(Some).ok_or_else(|| {
        serde::de::Error::custom(format!("`{text}` is not a duration such as `200ms` or `5s`"))
    })
}

/// One key of `[[load]]`.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub key: &'static str,
    pub ty: &'static str,
    pub default: &'static str,
    pub meaning: &'static str,
}

/// A kind of load for the vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct KindInfo {
    pub name: &'static str,
    pub meaning: &'static str,
    /// Keys that matter besides [`COMMON_KEYS`].
    pub keys: &'static [Key],
}

const fn key(key: &'static str, ty: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { key, ty, default, meaning }
}

/// Keys of every load.
pub const COMMON_KEYS: &[Key] = &[
    key("id", "name", "(required)", "begins the names of the load's metrics"),
    key("zone", "zone", "(required)", "affairs, learning or printers"),
    key("kind", "kind", "(required)", "what the clients do"),
    key("count", "integer", "1", "clients at the same time"),
    key("service", "service", "depends on kind", "whom they talk to"),
    key("target", "name or address[:port]", "-", "instead of service"),
    key("family", "any | 4 | 6", "any", "address families the client uses"),
    key(
        "dial",
        "race | first",
        "race",
        "race = IPv6 and, if it does not answer, IPv4; first = one address, IPv6 before IPv4",
    ),
    key(
        "via",
        "gateway | proxy | pac",
        "gateway",
        "proxy = TLS connections go by CONNECT through the town hall's proxy; pac = as the gateway's /proxy.pac says, \
         fetched again every two seconds",
    ),
    key("from", "duration", "start", "when it begins"),
    key("to", "duration", "end", "when it ends"),
];

const EVERY: Key = key("every", "duration", "200ms", "time between two operations of one client");
const TIMEOUT: Key = key("timeout", "duration", "5s", "how long one operation may take");
/// Clients are staggered evenly over life + pause, so that the whole load stays steady (udp: `rate` is kept by those who
/// are working). A device that is never quiet never leaves its old path before the drain's deadline.
const WORK: Key =
    key("life", "duration", "for ever", "how long one client works before it is quiet for `pause`");
const QUIET: Key =
    key("pause", "duration", "0s", "how long a client that has worked for `life` sends nothing at all");

/// Every kind of load.
pub const KINDS: &[KindInfo] = &[
    KindInfo {
        name: "session",
        meaning: "logs in at the identity provider and then at the service, makes many short TLS connections with the \
                  session's cookie, logs out, is quiet, logs in again",
        keys: &[
            EVERY,
            key(
                "life",
                "duration",
                "20s",
                "how long a log-in lasts, give or take a fifth; the load begins with everybody somewhere in life or pause",
            ),
            key(
                "pause",
                "duration",
                "6s",
                "quiet time between log-out and next log-in, give or take a tenth",
            ),
            TIMEOUT,
        ],
    },
    KindInfo {
        name: "request",
        meaning: "one short TLS connection and request each time",
        keys: &[EVERY, TIMEOUT, WORK, QUIET],
    },
    KindInfo {
        name: "download",
        meaning: "downloads over TLS and compares the SHA-256 checksum; begins again when done",
        keys: &[
            key("bytes", "integer", "10000000", "size of one download"),
            key("pace", "bytes/s", "0", "server's pace; 0 = as fast as it goes"),
            key("pause", "duration", "0s", "quiet time of a client between two downloads"),
            key("timeout", "duration", "10s", "longest silence within the transfer"),
        ],
    },
    KindInfo {
        name: "upload",
        meaning: "uploads over TLS; the server answers with the checksum it saw",
        keys: &[
            key("bytes", "integer", "10000000", "size of one upload"),
            key("pace", "bytes/s", "0", "client's pace; 0 = as fast as it goes"),
            key("timeout", "duration", "10s", "longest silence within the transfer"),
        ],
    },
    KindInfo {
        name: "udp",
        meaning: "numbered datagrams to the drill service, which sends them back; a missing answer is `lost`",
        keys: &[
            key("rate", "packets/s", "100", "of the whole load"),
            key("bytes", "integer", "64", "payload of one datagram"),
            key(
                "packets",
                "integer",
                "10",
                "packets of one flow before the client takes a new port; 0 = never",
            ),
            key("timeout", "duration", "1s", "a later answer counts as lost"),
            WORK,
            QUIET,
        ],
    },
    KindInfo { name: "connect", meaning: "TCP connection, closed at once", keys: &[EVERY, TIMEOUT] },
    KindInfo {
        name: "dns",
        meaning: "asks the gateway's resolver for A and AAAA, without the client's cache",
        keys: &[EVERY, key("timeout", "duration", "2s", "how long one question may take")],
    },
    KindInfo {
        name: "ping",
        meaning: "ICMP echo to an address",
        keys: &[EVERY, key("timeout", "duration", "1s", "a later answer counts as lost")],
    },
];

/// A service of the town that `service = …` names.
#[derive(Clone, Copy, Debug)]
pub struct ServiceInfo {
    pub name: &'static str,
    /// Name or address, and port.
    pub target: &'static str,
    pub meaning: &'static str,
}

/// Every service that a load can name.
pub const SERVICES: &[ServiceInfo] = &[
    ServiceInfo {
        name: "affairs",
        target: "affairs.school.example:443",
        meaning: "school-affairs SaaS; admits registered source addresses only, ties sessions to them",
    },
    ServiceInfo { name: "idp", target: "login.school.example:443", meaning: "identity provider of the SaaS" },
    ServiceInfo {
        name: "learning",
        target: "learning.school.example:443",
        meaning: "learning SaaS, shared address",
    },
    ServiceInfo { name: "other", target: "other.example:443", meaning: "another site on learning's address" },
    ServiceInfo { name: "drill", target: "drill.school.example:7000", meaning: "UDP drill service" },
    ServiceInfo { name: "www", target: "www.example:443", meaning: "any site of the internet" },
    ServiceInfo { name: "hall", target: "files.town.example:445", meaning: "file service of the town hall" },
    ServiceInfo {
        name: "hall-http",
        target: "www.town.example:80",
        meaning: "intranet page of the town hall",
    },
    ServiceInfo { name: "printer", target: "10.20.3.10:9100", meaning: "printer, raw port" },
    ServiceInfo { name: "printer-ipp", target: "10.20.3.10:631", meaning: "printer, IPP port" },
];

/// A metric of a load.
#[derive(Clone, Copy, Debug)]
pub struct MetricInfo {
    pub name: &'static str,
    pub unit: &'static str,
    pub meaning: &'static str,
}

const fn metric(name: &'static str, unit: &'static str, meaning: &'static str) -> MetricInfo {
    MetricInfo { name, unit, meaning }
}

/// Metrics of loads, written `<load>.<metric>`. Counts are of events within the asked interval.
pub const LOAD_METRICS: &[MetricInfo] = &[
    metric("started", "count", "operations begun (session: short connections and log-ins)"),
    metric("ok", "count", "operations that ended well"),
    metric(
        "errors",
        "count",
        "operations that failed in any way, after one immediate retry where a browser retries",
    ),
    metric("retries", "count", "immediate retries after a connection error"),
    metric("resets", "count", "connections refused or reset, also those that a retry made good"),
    metric("timeouts", "count", "operations that took longer than `timeout`"),
    metric("lost", "count", "udp, ping, dns: questions without an answer in time"),
    metric("max_gap_ms", "ms", "longest time that one client that wanted service had no success"),
    metric("p50_ms", "ms", "median duration of operations that ended well"),
    metric("p95_ms", "ms", "95th percentile of the same"),
    metric("bytes", "bytes", "payload carried"),
    metric("checksum_errors", "count", "transfers whose content was not what was sent"),
    metric("sessions", "count", "session: log-ins that succeeded"),
    metric("logouts", "count", "session: log-ins that the server ended before their time"),
    metric("refused", "count", "answers 403: the source address is not registered"),
    metric("two_addresses", "count", "session: sessions that the server saw from two source addresses"),
    metric(
        "on.closed",
        "count",
        "operations that the server saw from the closed path's egress (sessions: log-ins)",
    ),
    metric("on.vpn", "count", "the same for the egress of the hub's tunnels (path vpn)"),
    metric("on.direct", "count", "the same for the direct path's egress"),
    metric("on.lte", "count", "the same for the modem's egress"),
    metric("on.other", "count", "the same for any other source address"),
];
