//! Agent ↔ `seimon-probe`: the probe host, a process in a network namespace of its own, on the zones' bridges.
//!
//! ```text
//! probe → agent   Hello{pid}            after it has unshared its namespaces
//! (agent moves the far ends of the veth pairs into the probe's network namespace)
//! agent → probe   Configure             the probe sets up addresses and routes, drops all capabilities, confines itself
//! probe → agent   Configured{error}
//! agent → probe   Echo | Check
//! probe → agent   Echoed | Checked      exactly one for each, within its timeout
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use seimon_board::{InterfaceName, MacAddress};
use seimon_plan::{PathId, ServiceId, ZoneId};
use serde::{Deserialize, Serialize};

pub const VERSION: u32 = 1;

/// Inherited file descriptor of the socket pair.
pub const SOCKET_FD: i32 = 3;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToProbe {
    Configure { hosts: Vec<Host> },
    Echo(EchoJob),
    Check(CheckJob),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromProbe {
    Hello { version: u32, pid: u32 },
    Configured { error: Option<String> },
    Echoed { job: u64, outcome: EchoOutcome },
    Checked { job: u64, outcome: CheckOutcome },
}

/// One interface of the probe host: in a zone, pinned to a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    pub zone: ZoneId,
    pub path: PathId,
    pub interface: InterfaceName,
    pub mac: MacAddress,
    /// Own addresses, as /32 and /128.
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
    /// The gateway's addresses in the zone: next hop (on link) and DNS server.
    pub gateway4: Ipv4Net,
    pub gateway6: Option<Ipv6Net>,
}

/// One UDP echo (see [`crate::echo`]) from the host of (zone, path).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EchoJob {
    pub job: u64,
    pub zone: ZoneId,
    pub path: PathId,
    pub target: SocketAddr,
    pub timeout_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EchoOutcome {
    Answered {
        rtt_us: u64,
        seen: SocketAddr,
    },
    /// Nothing came within the timeout.
    Lost,
    /// The network refused (ICMP, no route): `reason` for people.
    Refused {
        reason: String,
    },
}

/// DNS → TCP → TLS → HTTP from the host of (zone, path).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckJob {
    pub job: u64,
    pub zone: ZoneId,
    pub path: PathId,
    pub service: ServiceId,
    /// Ask one of these, over the pinned path, for `name`; an answer with an address (or NODATA for the other family)
    /// passes.
    pub resolvers: Vec<IpAddr>,
    /// Then connect here: the service's inside address, as a teacher's client does.
    pub connect: SocketAddr,
    pub name: String,
    pub http_path: String,
    pub status: u16,
    pub body: String,
    /// PEM text of the authorities to trust; `None`: the system's.
    pub ca_pem: Option<String>,
    pub timeout_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CheckOutcome {
    Good { total_us: u64 },
    Failed { stage: Stage, reason: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Dns,
    Tcp,
    Tls,
    Http,
    Body,
}
