//! Agent ↔ `seimon-probe`: the probe host, a process in a network namespace of its own, on the zones' bridges.
//!
//! ```text
//! probe → agent   Hello{pid}            after it has unshared its namespaces
//! (agent moves the far ends of the veth pairs into the probe's network namespace)
//! agent → probe   Configure             the probe sets up addresses and routes, drops all capabilities, confines itself
//! probe → agent   Configured{error}
//! agent → probe   Watch                 echoes to be sent again and again from now on, in place of those before
//! probe → agent   Watched               how they ended: at once where one was lost lately or an address is new, else gathered
//! agent → probe   Check
//! probe → agent   Checked               exactly one for each, within its timeout
//! agent → probe   Trial                 of an acceptance test
//! probe → agent   Tried                 exactly one for each, within its timeout
//! ```
//! While there are echoes to be sent, the probe is never silent for [`SILENCE`] longer than an echo may take.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use seimon_board::{InterfaceName, MacAddress};
use seimon_plan::{PathId, ServiceId, ZoneId};
use serde::{Deserialize, Serialize};

pub const VERSION: u32 = 3;

/// A probe that has echoes to send and says nothing for so long, besides an interval and a timeout, is not well.
pub const SILENCE: Duration = Duration::from_secs(5);

/// Inherited file descriptor of the socket pair.
pub const SOCKET_FD: i32 = 3;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToProbe {
    Configure { hosts: Vec<Host> },
    Watch { echoes: Vec<EchoWatch> },
    Check(CheckJob),
    Trial(TrialJob),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromProbe {
    Hello { version: u32, pid: u32 },
    Configured { error: Option<String> },
    Watched { results: Vec<Watched> },
    Checked { job: u64, outcome: CheckOutcome },
    Tried { job: u64, outcome: TrialOutcome },
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

/// UDP echoes (see [`crate::echo`]) from the host of (zone, path), each a new flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EchoWatch {
    /// Named in the results. Not used again for another watch.
    pub watch: u64,
    pub zone: ZoneId,
    pub path: PathId,
    pub target: SocketAddr,
    pub every_ms: u64,
    /// From sending to being lost.
    pub timeout_ms: u64,
    /// Bytes of a request, [`crate::echo::REQUEST_LEN`] or more. A longer one is not fragmented on its way, and only an
    /// answer of the same length counts.
    pub length: u16,
    /// So many in a row without an answer are a silence, told as lost before their time is over. Absent: each has its time.
    #[serde(default)]
    pub silence: Option<u32>,
}

/// Echoes of a watch that have ended, the oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    pub watch: u64,
    pub outcomes: Vec<EchoOutcome>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EchoOutcome {
    Answered {
        /// Measured for some only, every few seconds.
        rtt_us: Option<u64>,
        seen: SocketAddr,
    },
    /// Nothing came within the timeout.
    Lost,
    /// The network refused (ICMP, no route): `reason` for people.
    Refused { reason: String },
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

/// One trial of an acceptance test, from the host of (zone, path).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialJob {
    /// Named in the result; numbers of trials and of checks are apart.
    pub job: u64,
    pub zone: ZoneId,
    pub path: PathId,
    pub trial: Trial,
    pub timeout_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Trial {
    /// `server` is asked for `name`, as a client does.
    Name { server: IpAddr, name: String },
    /// The whole of a check.
    Check { check: CheckJob },
    /// A TCP connection, closed at once. `hops`: how many routers its packets may pass.
    Connect { target: SocketAddr, hops: Option<u8> },
    /// The check's page is loaded, for `for_ms` at most, and thrown away.
    Load { check: CheckJob, for_ms: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TrialOutcome {
    /// Name, check: it went well.
    Well {
        took_us: u64,
    },
    /// Name, check, load: it ended at this stage.
    Stopped {
        stage: Stage,
        reason: String,
    },
    Connected {
        took_us: u64,
    },
    /// A reset, or an ICMP message that says "prohibited".
    Refused {
        took_us: u64,
    },
    /// The network says that nobody is there.
    NobodyThere {
        took_us: u64,
    },
    Silent,
    /// Bytes of the body, and the time that they took.
    Loaded {
        bytes: u64,
        took_us: u64,
    },
    /// The probe could not do it.
    NotTried {
        reason: String,
    },
}
