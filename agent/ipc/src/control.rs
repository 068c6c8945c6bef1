//! The control socket: JSON objects, one a line. A connection carries any number of requests; each gets exactly one
//! [`Response`], except `events` with `follow`, after which only [`Event`]s are sent until the peer hangs up.
//!
//! Peers are root, the agent's own user and members of its group (`SO_PEERCRED`); others are told so and cut off.

use std::net::IpAddr;

use schemars::JsonSchema;
use seimon_plan::{GroupId, PathId, ServiceId, SiteId, ZoneId};
use serde::{Deserialize, Serialize};

pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub version: u32,
    pub request: Command,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    Status,
    /// The plan in force, as TOML text.
    PlanShow,
    /// What `apply` of this plan would change.
    PlanDiff {
        plan: String,
        file: String,
    },
    Apply {
        plan: String,
        file: String,
    },
    Explain {
        from: String,
        to: String,
    },
    Migrate {
        zone: ZoneId,
        group: GroupId,
        action: MigrateAction,
    },
    Events {
        follow: Follow,
        #[serde(default)]
        since: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MigrateAction {
    /// To this path, or to the route's last.
    Start {
        to: Option<PathId>,
    },
    Pause,
    Resume,
    Rollback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Follow {
    No,
    Yes,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Response {
    Status(Box<Status>),
    Plan {
        toml: String,
        generation: u64,
    },
    /// Lines for people; empty: nothing would change.
    Diff {
        changes: Vec<String>,
    },
    Done {
        message: Bilingual,
    },
    /// Not done, and why: each with what to do.
    Refused {
        reasons: Vec<Bilingual>,
    },
    Explanation(Box<Explanation>),
    Events {
        events: Vec<Event>,
    },
    /// The peer may not ask.
    NotAllowed {
        reason: String,
    },
    /// The request is not understood.
    Malformed {
        reason: String,
    },
}

/// The same sentence for both kinds of reader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bilingual {
    pub ja: String,
    pub en: String,
}

/// One screen for a non-engineer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    pub version: u32,
    pub site: SiteId,
    pub site_name: String,
    pub agent_version: String,
    /// Of the plan in force.
    pub generation: u64,
    /// Milliseconds since 1970, and whether the clock can be relied on.
    pub wall_ms: i64,
    pub clock_trusted: bool,
    pub overall: Light,
    pub sentence: Bilingual,
    pub paths: Vec<PathStatus>,
    pub groups: Vec<GroupStatus>,
    pub services: Vec<ServiceStatus>,
    pub dataplane: DataplaneStatus,
}

/// 緑 nothing to do; 黄 being dealt with or to be watched; 赤 people are cut off or somebody must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Light {
    Green,
    Yellow,
    Red,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PathStatus {
    pub path: PathId,
    /// `up`, `down`, `unknown`.
    pub health: String,
    /// Share of liveness packets lost, 0 to 1, in the recent window.
    pub loss: f64,
    pub rtt_ms: Option<f64>,
    /// Source addresses that the outside sees.
    pub egress: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GroupStatus {
    pub zone: ZoneId,
    pub group: GroupId,
    /// `Steady`, `Qualifying`, `CuttingOver`, `Soaking`, `RollingBack`, `Blocked`.
    pub state: String,
    /// Path of new flows; none when blocked.
    pub path: Option<PathId>,
    pub target: Option<PathId>,
    /// Clients with affinity, by path.
    pub clients: Vec<(PathId, u64)>,
    /// Live flows, by path.
    pub flows: Vec<(PathId, u64)>,
    pub paused: bool,
    pub forced_by_deadline: u64,
    /// Milliseconds until this state ends by itself.
    pub remaining_ms: Option<u64>,
    pub light: Light,
    pub sentence: Bilingual,
    /// What stands against a move now.
    pub vetoes: Vec<Bilingual>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStatus {
    /// Whose users the checks stand for.
    pub zone: ZoneId,
    pub service: ServiceId,
    pub path: PathId,
    /// `good`, `ill`, `unknown`.
    pub health: String,
    pub median_ms: Option<f64>,
    pub failing: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DataplaneStatus {
    /// Whether what the kernel has is what the plan says.
    pub verified: bool,
    pub verified_ms_ago: Option<u64>,
    /// Times that somebody else's change was put right.
    pub repairs: u64,
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    pub allowed: bool,
    /// The plan's rule in the administrator's words.
    pub rule: String,
    pub zone: Option<ZoneId>,
    pub service: Option<ServiceId>,
    pub group: Option<GroupId>,
    pub path: Option<PathId>,
    pub inside: Vec<IpAddr>,
    pub real: Vec<IpAddr>,
    pub egress: Vec<IpAddr>,
    pub why: Vec<Bilingual>,
}

/// Something that happened. Numbers are never reused; the last thousand are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    pub seq: u64,
    /// Milliseconds since 1970.
    pub wall_ms: i64,
    /// Microseconds since boot.
    pub mono_us: u64,
    /// `state`, `path`, `veto`, `egress`, `check`, `dataplane`, `agent`, `drain`.
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZoneId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    pub reason: Bilingual,
}
