//! What one machine is told once, from the plan.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use seimon_plan::{
    GroupId, MigrationRoute, PathId, PlanDuration, ServiceId, SitePlan, Thresholds, Times, ZoneId,
};
use serde::{Deserialize, Serialize};

/// What moves: one service group, for the people of one zone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ZoneGroup {
    pub zone: ZoneId,
    pub group: GroupId,
}

impl fmt::Display for ZoneGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.zone, self.group)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Switch {
    #[default]
    On,
    Off,
}

/// Mechanisms that a test may switch off, to show that it would notice. All are on otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mechanisms {
    pub egress_veto: Switch,
    /// Windows and freezes.
    pub window_veto: Switch,
    /// The candidate's latency and loss against the current path's.
    pub baseline_veto: Switch,
    /// Leaving a path by itself, for whatever cause.
    pub rollback: Switch,
    /// Waiting until a checkpoint is durable; off: none is written.
    pub checkpoint: Switch,
    /// A service that is ill everywhere is not a reason to move.
    pub blame_service: Switch,
    /// Leaving a path that carries packets badly.
    pub brown_out: Switch,
    /// A few clients first, where the plan says so.
    pub canary: Switch,
    /// Not going back for some time to a path that failed.
    pub hold_down: Switch,
    /// Leaving flows alone where there is nowhere else to go.
    pub keep_when_blocked: Switch,
    /// Nothing moves past a proxy that people still use.
    pub proxy_veto: Switch,
    /// Emergency lines, where the plan has one.
    pub emergency: Switch,
    /// Nothing begins on a full disk.
    pub disk_veto: Switch,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub zone_group: ZoneGroup,
    /// Paths this traffic may ever use; the first is where it starts. Not empty.
    pub paths: Vec<PathId>,
    /// Paths over emergency lines, best first: for while all of `paths` are dead. Never a move's target.
    pub emergency: Vec<PathId>,
    /// Services of the group that have a health check.
    pub checked: BTreeSet<ServiceId>,
    /// How long a few clients try the candidate first; `None`: everybody moves at once.
    pub canary: Option<Duration>,
    pub times: Times,
    pub thresholds: Thresholds,
    pub mechanisms: Mechanisms,
}

impl Config {
    pub fn from_plan(plan: &SitePlan, route: &MigrationRoute, mechanisms: Mechanisms) -> Self {
        let checked = plan
            .services
            .iter()
            .filter(|(_, service)| service.group == route.group && service.health.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        Self {
            zone_group: ZoneGroup { zone: route.zone.clone(), group: route.group.clone() },
            paths: route.paths.clone(),
            emergency: route.emergency.clone(),
            checked,
            canary: route.canary.as_ref().map(|canary| canary.time.0),
            times: Times {
                hold_down: match mechanisms.hold_down {
                    Switch::On => plan.migration.times.hold_down,
                    Switch::Off => PlanDuration(Duration::ZERO),
                },
                ..plan.migration.times.clone()
            },
            thresholds: plan.migration.thresholds.clone(),
            mechanisms,
        }
    }

    pub fn is_emergency(&self, path: &PathId) -> bool {
        self.emergency.contains(path)
    }

    /// Whether new flows may ever take the path.
    pub fn offers(&self, path: &PathId) -> bool {
        self.paths.contains(path) || self.emergency.contains(path)
    }

    /// After so long without being qualified, a move is given up: twice the time to qualify, and time for as many checks
    /// as are asked for, each as slow as it may be.
    pub fn qualify_limit(&self) -> Duration {
        let thresholds = &self.thresholds;
        let one = thresholds.check_interval_moving.0 * 5 / 4 + thresholds.check_timeout.0;
        self.times
            .qualify
            .0
            .saturating_mul(2)
            .saturating_add(one.saturating_mul(thresholds.qualify_checks.max(1)))
    }
}
