//! What the people at the school are told and asked: their words for things, whom to call, what stands there. Nothing here
//! changes what the network carries.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LineId, PortSpec, ServiceId, ZoneId};

/// For pages and papers: the status page, the acceptance test, the sheet beside the gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct School {
    /// Pupils of the school. The ministry's recommended bandwidth goes by it.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub pupils: Option<u32>,
    /// Whom to call, the first one first. Offices, not people.
    #[serde(default)]
    pub contacts: Vec<Contact>,
    /// What people at the school call things.
    #[serde(default)]
    pub words: Words,
    /// Services by which people log in to others (identity providers).
    #[serde(default)]
    pub identity: Vec<ServiceId>,
    /// File servers and printers that the acceptance test tries.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// What the acceptance test loads to measure the lines. Absent: speed is not measured.
    #[serde(default)]
    pub speed: Option<Speed>,
}

/// An office that answers the telephone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// As people call it, e.g. `教育委員会 ネットワーク担当`.
    pub who: String,
    /// As it is to be dialled.
    pub phone: String,
    /// When somebody answers, e.g. `平日 8:30–17:15`.
    #[serde(default)]
    pub hours: String,
}

/// Everyday words by identifier. What has none is called by its role or its identifier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Words {
    /// Lines, e.g. `新しいインターネット回線`.
    pub lines: BTreeMap<LineId, String>,
    /// Zones, by who uses them, e.g. `先生方の校務用`.
    pub zones: BTreeMap<ZoneId, String>,
    /// Services, e.g. `校務支援システム`.
    pub services: BTreeMap<ServiceId, String>,
}

/// A machine that somebody works with, in the school or in the town hall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// As people call it, e.g. `職員室のプリンター`.
    pub name: String,
    pub kind: DeviceKind,
    /// Where it answers.
    pub address: IpAddr,
    /// One TCP port that answers when it works: `tcp/9100`, `tcp/445`.
    pub port: PortSpec,
    /// The zone whose people use it.
    pub from: ZoneId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    FileServer,
    Printer,
}

/// A large file on a server that the town may load from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Speed {
    /// A service with a health check: its name, port and authorities are used.
    pub service: ServiceId,
    /// Of the file, beginning with `/`. At least some ten megabytes.
    pub path: String,
}
