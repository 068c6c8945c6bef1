//! The control socket: JSON objects, one a line. A connection carries any number of requests; each gets exactly one
//! [`Response`], except `events` with `follow`, after which only [`Event`]s are sent until the peer hangs up.
//!
//! Peers are root, the agent's own user and members of its group (`SO_PEERCRED`); others are told so and cut off.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use seimon_plan::{GroupId, LineId, PathId, ServiceId, SiteId, ZoneId};
use serde::{Deserialize, Deserializer, Serialize};

use crate::hub::{HubAsk, HubExplanation, HubStatus};
use crate::report::{AcceptanceProgress, AcceptanceRun, Diagnostics, LineUse};

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
    #[serde(deserialize_with = "nothing_else")]
    Status,
    /// The plan in force, as TOML text.
    #[serde(deserialize_with = "nothing_else")]
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
    /// Another key for a path that is a tunnel.
    Wireguard {
        path: PathId,
        action: WireguardAction,
    },
    Events {
        follow: Follow,
        #[serde(default)]
        since: u64,
    },
    /// The acceptance test (開通試験): at most two minutes.
    Acceptance {
        run: AcceptanceRun,
    },
    /// May the line's contract be cancelled, after so many quiet days?
    LineUse {
        line: LineId,
        days: u32,
    },
    /// The letter that asks a service's provider to register the addresses seen now.
    EgressLetter {
        service: ServiceId,
    },
    /// The PAC file that the zone's browsers get now.
    Pac {
        zone: ZoneId,
    },
    /// What whoever helps from afar needs, without anything that leads to a person.
    #[serde(deserialize_with = "nothing_else")]
    Diagnostics,
    /// Of a hub.
    Hub {
        ask: HubAsk,
    },
}

/// Beside the tag of a variant without fields serde lets any key pass, `deny_unknown_fields` or not.
fn nothing_else<'de, D: Deserializer<'de>>(beside_the_tag: D) -> Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    let Nothing {} = Nothing::deserialize(beside_the_tag)?;
    Ok(())
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
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
pub enum WireguardAction {
    /// Make the next key and tell its public half, which the hub is to know before the switch.
    Rotate,
    /// Use the next key; back by itself where the hub does not answer to it.
    Switch,
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
    Acceptance(AcceptanceProgress),
    LineUse(Box<LineUse>),
    Diagnostics(Diagnostics),
    /// JavaScript.
    Pac {
        text: String,
    },
    Hub(Box<HubStatus>),
    HubExplanation(Box<HubExplanation>),
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
    /// Zones whose machines may use the town hall's proxy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxy: Vec<ProxyStatus>,
    /// Emergency lines and what they have carried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metered: Vec<MeteredStatus>,
}

/// How one zone uses the town hall's proxy. Counts of the last hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProxyStatus {
    pub zone: ZoneId,
    pub clients: u32,
    pub flows: u64,
    /// Clients that looked for a PAC file by name (WPAD).
    pub looked_for_pac: u32,
    /// The gateway serves a PAC file to the zone.
    pub pac_served: bool,
    /// Of `clients`, those that have not taken a PAC file which lets moved groups go directly. Where nothing has moved: 0.
    pub uninformed: u32,
    pub sentence: Bilingual,
}

/// An emergency line. Bytes as the line's interface counts them, both ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MeteredStatus {
    pub line: LineId,
    /// A group is carried by it now.
    pub in_use: bool,
    pub today: u64,
    pub month: u64,
    /// What the contract includes in a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month_included: Option<u64>,
    pub sentence: Bilingual,
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
    /// Of a path that is a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TunnelStatus {
    /// The school's, which the hub must know; none where its file cannot be used.
    pub public_key: Option<String>,
    /// Where the hub is now.
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake. Its age says nothing about health: `health` does.
    pub handshake_s: Option<u64>,
    /// Bytes inside the tunnel.
    pub received: u64,
    pub sent: u64,
    /// Why there is none.
    pub problem: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GroupStatus {
    pub zone: ZoneId,
    pub group: GroupId,
    /// `Steady`, `Qualifying`, `Canary`, `CuttingOver`, `Soaking`, `RollingBack`, `Blocked`.
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// One of each command and action.
    fn every_request() -> Vec<Value> {
        let migrate = |action| Command::Migrate {
            zone: ZoneId::new("affairs").unwrap(),
            group: GroupId::new("saas").unwrap(),
            action,
        };
        let (plan, file) = ("version = 1".to_owned(), "/plan.toml".to_owned());
        let mut commands = vec![
            Command::Status,
            Command::PlanShow,
            Command::PlanDiff { plan: plan.clone(), file: file.clone() },
            Command::Apply { plan, file },
            Command::Explain { from: "10.1.0.23".to_owned(), to: "saas.example.jp".to_owned() },
            Command::Wireguard { path: PathId::new("closed").unwrap(), action: WireguardAction::Switch },
            Command::Events { follow: Follow::Yes, since: 7 },
            Command::EgressLetter { service: ServiceId::new("saas").unwrap() },
            Command::Acceptance { run: AcceptanceRun::Begin },
            Command::LineUse { line: LineId::new("carrier").unwrap(), days: 35 },
            Command::Pac { zone: ZoneId::new("affairs").unwrap() },
            Command::Diagnostics,
            Command::Hub { ask: HubAsk::Status },
            Command::Hub {
                ask: HubAsk::Explain { from: "asahi-es".to_owned(), to: "10.50.0.53".to_owned() },
            },
        ];
        commands.extend(
            [
                MigrateAction::Start { to: PathId::new("direct").ok() },
                MigrateAction::Pause,
                MigrateAction::Resume,
                MigrateAction::Rollback,
            ]
            .map(migrate),
        );
        let request = |request| serde_json::to_value(Request { version: VERSION, request }).unwrap();
        commands.into_iter().map(request).collect()
    }

    /// Copies of a message, each with one key too many in another of its objects.
    fn each_with_a_key_too_many(message: &Value) -> Vec<Value> {
        let Value::Object(fields) = message else { return Vec::new() };
        let mut own = fields.clone();
        own.insert("extra".to_owned(), Value::from(1));
        let mut copies = vec![Value::Object(own)];
        for (key, inner) in fields {
            for worse in each_with_a_key_too_many(inner) {
                let mut outer = fields.clone();
                outer.insert(key.clone(), worse);
                copies.push(Value::Object(outer));
            }
        }
        copies
    }

    #[test]
    fn every_request_is_read_as_it_was_written() {
        for message in every_request() {
            let line = crate::frame::encode(&message).unwrap();
            let read: Request = crate::frame::decode(&line).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), message);
        }
    }

    #[test]
    fn a_key_too_many_anywhere_in_a_request_is_refused() {
        for message in every_request() {
            let copies = each_with_a_key_too_many(&message);
            assert!(copies.len() >= 2, "the request and the command in it: {message}");
            for copy in copies {
                let line = crate::frame::encode(&copy).unwrap();
                assert!(crate::frame::decode::<Request>(&line).is_err(), "taken: {copy}");
            }
        }
    }
}
