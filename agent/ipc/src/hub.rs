//! What a hub says of itself and its schools.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use seimon_plan::SiteId;
use serde::{Deserialize, Serialize};

use crate::control::{Bilingual, DataplaneStatus, Light};

/// What is asked of a hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HubAsk {
    /// How the hub is, and every school's end.
    Status,
    /// Whether an address reaches another through the hub. `from` may be a school's id, `to` may have a port.
    Explain { from: String, to: String },
}

/// The hub and every school's end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HubStatus {
    pub hub: SiteId,
    pub name: String,
    pub agent_version: String,
    /// Of the plan in force.
    pub generation: u64,
    /// Milliseconds since 1970, and whether the clock can be relied on.
    pub wall_ms: i64,
    pub clock_trusted: bool,
    pub overall: Light,
    pub sentence: Bilingual,
    /// What schools' plans name as `public_key`; none where its file cannot be used.
    pub public_key: Option<String>,
    pub listen_port: u16,
    /// Why there is no tunnel.
    pub problem: Option<String>,
    pub schools: Vec<SchoolEnd>,
    pub dataplane: DataplaneStatus,
}

/// One school's end of the tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SchoolEnd {
    pub school: SiteId,
    pub name: String,
    pub light: Light,
    pub sentence: Bilingual,
    /// The public key that it uses; none where none of its keys counts today.
    pub key: Option<String>,
    /// Of its keys, how many let it in today.
    pub keys: u32,
    /// Where it was last.
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake. A quiet school has an old one.
    pub handshake_s: Option<u64>,
    /// Seconds since anything came from it, as far as the agent has looked.
    pub heard_s: Option<u64>,
    /// Bytes inside the tunnel since the agent started.
    pub received: u64,
    pub sent: u64,
    /// The addresses that services see it under.
    pub egress: Vec<IpAddr>,
    /// Kilobits a second each way, where it has a cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap_kbit: Option<u32>,
}

/// Whether a school reaches an address, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HubExplanation {
    pub allowed: bool,
    /// Whose the first address is.
    pub school: Option<SiteId>,
    pub school_name: Option<String>,
    /// `town`, `internet`, `hub`; none where it is refused.
    pub way: Option<String>,
    /// The key of the plan that decides.
    pub rule: String,
    /// The address that the far side sees.
    pub seen_as: Option<IpAddr>,
    pub why: Vec<Bilingual>,
}
