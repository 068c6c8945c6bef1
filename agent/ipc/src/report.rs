//! What is put on paper or kept in a file: the acceptance test's signed report, the use of a line, the diagnostic pack.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use seimon_plan::{LineId, SiteId, ZoneId};
use serde::{Deserialize, Serialize};

use crate::control::Bilingual;

/// Of [`AcceptanceReport`] and of what is around it.
pub const FORMAT: u32 = 1;

/// Whether to begin an acceptance test or only to look how the last one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AcceptanceRun {
    /// One that runs already is joined.
    Begin,
    Look,
}

/// How far the acceptance test is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AcceptanceProgress {
    pub done: u32,
    pub total: u32,
    /// When it is over.
    pub report: Option<SignedReport>,
}

/// A report as the gateway signed it. The signature (Ed25519) is over the bytes of `report`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedReport {
    /// [`FORMAT`]. The first key, so that the report can be found inside a page.
    pub seimon_signed_report: u32,
    /// An [`AcceptanceReport`] as JSON text.
    pub report: String,
    /// 64 bytes, hexadecimal.
    pub signature: String,
    /// 32 bytes, hexadecimal.
    pub public_key: String,
}

/// What the acceptance test found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptanceReport {
    pub format: u32,
    pub site: SiteId,
    pub site_name: String,
    pub agent_version: String,
    /// Of the plan in force.
    pub generation: u64,
    /// Milliseconds since 1970, and whether the clock could be relied on.
    pub begun_ms: i64,
    pub clock_trusted: bool,
    /// IANA name: times on the page are in it.
    pub time_zone: String,
    pub took_ms: u64,
    pub rows: Vec<AcceptanceRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptanceRow {
    pub topic: Topic,
    pub subject: Bilingual,
    pub verdict: Verdict,
    /// What was found.
    pub found: Bilingual,
    /// Whose job it is; none: nothing is to be done.
    pub whose: Option<Whose>,
    pub to_do: Bilingual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    Line,
    Names,
    Identity,
    Service,
    FileServer,
    Printer,
    Separation,
    Speed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    CannotTell,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    School,
    Carrier,
    Provider,
    Municipality,
}

/// Whether a line's contract may be cancelled, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LineUse {
    pub line: LineId,
    pub may_cancel: bool,
    pub sentence: Bilingual,
    /// Watched days since the last flow.
    pub quiet_days: u32,
    pub wanted_days: u32,
    /// Date at the site.
    pub last_flow: Option<String>,
    /// Who used it in the days asked about, the latest first.
    pub stragglers: Vec<Straggler>,
    /// What stands against it besides.
    pub reasons: Vec<Bilingual>,
    /// What is to be known before, and does not stand against it.
    pub notes: Vec<Bilingual>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Straggler {
    pub zone: Option<ZoneId>,
    /// What people call that zone; outside the school where there is none.
    pub from: Bilingual,
    /// Of machine or use, as far as ports tell.
    pub kind: Bilingual,
    pub flows: u64,
    /// Date at the site.
    pub last: String,
}

/// Files by name, with nothing in them that leads to a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnostics {
    pub files: BTreeMap<String, String>,
}
