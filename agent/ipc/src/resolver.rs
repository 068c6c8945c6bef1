//! Agent ↔ `seimon-resolver`.
//!
//! The resolver is started by the agent with no privilege at all: the socket pair is file descriptor [`SOCKET_FD`], the
//! listening sockets follow it and are named by the environment variable [`LISTENERS_ENV`]. It answers a named service
//! with the service's inside address **only after** the agent has said that the real addresses are in force.
//!
//! ```text
//! resolver → agent   Hello
//! agent → resolver   Configure          (again after each change; replaces the one before)
//! resolver → agent   Bind{token, …}     real addresses of a name over a path, found or changed
//! agent → resolver   InForce{token}     the kernel translates to them now: answer
//!                    NotInForce{token}  it could not be done: answer SERVFAIL
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use seimon_plan::{PathId, ZoneId};
use serde::{Deserialize, Serialize};

pub const VERSION: u32 = 1;

/// Inherited file descriptor of the socket pair.
pub const SOCKET_FD: i32 = 3;

/// JSON list of [`Listener`].
pub const LISTENERS_ENV: &str = "SEIMON_RESOLVER_LISTENERS";

/// An inherited listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    pub fd: i32,
    pub zone: ZoneId,
    pub protocol: Transport,
    pub address: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Udp,
    Tcp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToResolver {
    Configure(ResolverConfig),
    InForce { token: u64 },
    NotInForce { token: u64, reason: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromResolver {
    Hello {
        version: u32,
    },
    /// The real addresses of `name` over `path`; `None`: the path's resolvers say there is none (or the path has no
    /// such family). Each Bind replaces what was bound for (zone, name, path).
    Bind {
        token: u64,
        zone: ZoneId,
        name: String,
        path: PathId,
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
    },
    /// Counters since start, every ten seconds.
    Stats(ResolverStats),
    /// A client looks for a PAC file (WPAD). Told once in ten minutes for each client.
    Wpad {
        zone: ZoneId,
        client: IpAddr,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolverConfig {
    pub paths: BTreeMap<PathId, PathView>,
    pub zones: BTreeMap<ZoneId, ZoneView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathView {
    pub servers: Vec<IpAddr>,
    /// Bind to these to ask over this path.
    pub source4: Ipv4Addr,
    pub source6: Ipv6Addr,
    /// The path carries IPv6.
    pub ipv6: Family6,
    /// Down: do not wait for it, answer from the cache, stale if need be.
    pub up: PathUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family6 {
    Carried,
    Withheld,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathUp {
    Up,
    Down,
}

/// How one zone's queries are answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneView {
    /// Names of services that the zone may reach, lower case, without the dot at the end.
    pub services: BTreeMap<String, NamedService>,
    /// Domains that pass untouched.
    pub forwards: Vec<Forward>,
    /// Every other name: asked over this path (`None`: refused).
    pub others: Option<PathId>,
    /// Names of the gateway itself in this zone, lower case, without the dot at the end.
    #[serde(default)]
    pub own: BTreeMap<String, OwnName>,
}

/// Where the gateway is, in one zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnName {
    pub ipv4: Ipv4Addr,
    #[serde(default)]
    pub ipv6: Option<Ipv6Addr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedService {
    pub inside4: Ipv4Addr,
    pub inside6: Ipv6Addr,
    /// The path of new flows: its IPv6 word decides about AAAA. `None`: blocked (answer SERVFAIL).
    pub current: Option<PathId>,
    /// All paths that flows may take: each must be bound (or found to have no address) as soon as possible; an answer
    /// waits only for `current`.
    pub paths: Vec<PathId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    pub domain: String,
    pub servers: Vec<IpAddr>,
    /// `None`: the servers are inside the school; no particular source address.
    pub path: Option<PathId>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResolverStats {
    pub queries: u64,
    pub answered: u64,
    pub refused: u64,
    pub failed: u64,
    pub stale: u64,
    pub malformed: u64,
    pub cache_entries: u64,
}
