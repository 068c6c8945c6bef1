//! How services move from path to path: the order of paths, times, thresholds, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GroupId, PathId, PlanDuration, Prefix, RoomId, ZoneId};

/// How services move from path to path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    /// One entry for each zone and group that leaves the school.
    pub routes: Vec<MigrationRoute>,
    /// Rooms whose clients may try a new path before everybody else does.
    #[serde(default)]
    pub rooms: BTreeMap<RoomId, Room>,
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
    /// Who tries a new path first. Absent: everybody moves at once.
    #[serde(default)]
    pub canary: Option<Canary>,
    /// Paths over emergency lines that this traffic may use while every path above is dead, best first. Empty: none.
    #[serde(default)]
    pub emergency: Vec<PathId>,
}

impl MigrationRoute {
    /// Every path that this traffic may ever be on: the ordinary ones, then those for emergencies.
    pub fn all_paths(&self) -> impl Iterator<Item = &PathId> {
        self.paths.iter().chain(&self.emergency)
    }
}

/// The few who try a new path before everybody else does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// These rooms' clients.
    #[serde(default)]
    pub rooms: Vec<RoomId>,
    /// And whoever is plugged in, be it through switches, at these ports of the gateway: some of the zone's, not all.
    #[serde(default)]
    pub ports: Vec<String>,
    /// And so many in a hundred of the zone's clients, chosen by their hardware addresses: always the same ones.
    #[serde(default)]
    #[schemars(range(max = 99))]
    pub share: u8,
    /// For how long at least. Nobody of them seen on the new path: until there is somebody.
    pub time: PlanDuration,
}

/// A part of a zone, by its clients' addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Room {
    pub zone: ZoneId,
    /// In the zone's prefixes. A client is known by the address that it uses first.
    #[schemars(with = "Vec<Prefix>")]
    pub prefixes: Vec<IpNet>,
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
    /// Between service checks while qualifying and soaking; in a canary five times as long.
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
