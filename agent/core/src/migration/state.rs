//! The states, with what each knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use seimon_board::Instant;
use seimon_plan::{PathId, ServiceId};
use serde::{Deserialize, Serialize};

use super::veto::Veto;
use crate::health::{Ailment, Stage};

/// A deadline that can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    Running { until: Instant },
    Paused { left: Duration },
}

impl Timer {
    pub fn new(now: Instant, left: Duration) -> Self {
        Self::Running { until: now + left }
    }

    pub fn left(self, now: Instant) -> Duration {
        match self {
            Self::Running { until } => until.since(now),
            Self::Paused { left } => left,
        }
    }

    pub fn expired(self, now: Instant) -> bool {
        matches!(self, Self::Running { until } if until <= now)
    }

    pub fn until(self) -> Option<Instant> {
        match self {
            Self::Running { until } => Some(until),
            Self::Paused { .. } => None,
        }
    }

    pub(super) fn pause(self, now: Instant) -> Self {
        Self::Paused { left: self.left(now) }
    }

    pub(super) fn resume(self, now: Instant) -> Self {
        Self::Running { until: now + self.left(now) }
    }
}

/// What became of the clients that kept the old path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainState {
    Underway,
    /// So many were still there at the deadline, and were moved.
    Forced {
        clients: u32,
    },
    /// The old path died; its clients were let go at once.
    OldPathDied,
}

/// How a path is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It is dead: clients are let go at once, rules first.
    Hard,
    /// It carries packets: clients keep it until they are quiet, at most until the deadline.
    Soft { drain: Timer },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// New flows take `path`. Goes to: Qualifying, RollingBack, Blocked.
    Steady { path: PathId },
    /// The candidate is examined; nothing in the network is changed. Goes to: Canary (where the route has one),
    /// CuttingOver, Steady(from), RollingBack, Blocked.
    Qualifying {
        from: PathId,
        to: PathId,
        /// Not before this is over...
        until: Timer,
        /// ...and given up after this.
        limit: Timer,
        /// Good checks in a row over the candidate.
        good: BTreeMap<ServiceId, u32>,
    },
    /// New flows of a few clients, named in the plan, take `to`; everybody else's take `from`. Goes to: CuttingOver,
    /// Steady(from), RollingBack, Blocked.
    Canary {
        from: PathId,
        to: PathId,
        /// Not cut over before this is over.
        until: Timer,
        /// The most of them that were seen on `to` at a time. Nobody: nothing is proven, and it goes on.
        tried: u32,
    },
    /// The checkpoint is being written, then the change is made. Goes to: Soaking, Steady(from), RollingBack, Blocked.
    CuttingOver { from: PathId, to: PathId },
    /// New flows take `to`; clients that are logged in keep `from`. Goes to: Steady(to), RollingBack, Blocked.
    Soaking { from: PathId, to: PathId, soak: Timer, drain: Timer, drained: DrainState },
    /// Leaving a path without having been asked for a move, or on a roll-back command. Goes to: Steady(to), Blocked,
    /// RollingBack to another path.
    RollingBack { leaving: PathId, to: PathId, cause: Cause, manner: Manner },
    /// No path can carry this traffic. Still aimed at `path`. Goes to: Steady(path), RollingBack.
    Blocked { path: PathId, reason: BlockReason },
}

impl State {
    pub fn name(&self) -> StateName {
        match self {
            Self::Steady { .. } => StateName::Steady,
            Self::Qualifying { .. } => StateName::Qualifying,
            Self::Canary { .. } => StateName::Canary,
            Self::CuttingOver { .. } => StateName::CuttingOver,
            Self::Soaking { .. } => StateName::Soaking,
            Self::RollingBack { .. } => StateName::RollingBack,
            Self::Blocked { .. } => StateName::Blocked,
        }
    }

    /// The path that new flows are to take.
    pub fn current(&self) -> &PathId {
        match self {
            Self::Steady { path } | Self::Blocked { path, .. } => path,
            Self::Qualifying { from, .. } | Self::Canary { from, .. } => from,
            Self::CuttingOver { to, .. } | Self::Soaking { to, .. } | Self::RollingBack { to, .. } => to,
        }
    }

    /// The path that new flows of the plan's canary clients are to take, where it is another.
    pub fn trial(&self) -> Option<&PathId> {
        match self {
            Self::Canary { to, .. } => Some(to),
            Self::Steady { .. }
            | Self::Qualifying { .. }
            | Self::CuttingOver { .. }
            | Self::Soaking { .. }
            | Self::RollingBack { .. }
            | Self::Blocked { .. } => None,
        }
    }

    /// Where the move goes, while there is one.
    pub fn target(&self) -> Option<&PathId> {
        match self {
            Self::Steady { .. } | Self::Blocked { .. } => None,
            Self::Qualifying { to, .. }
            | Self::Canary { to, .. }
            | Self::CuttingOver { to, .. }
            | Self::Soaking { to, .. }
            | Self::RollingBack { to, .. } => Some(to),
        }
    }

    pub fn is_moving(&self) -> bool {
        self.target().is_some()
    }

    pub fn is_paused(&self) -> bool {
        let paused = |timer: &Timer| matches!(timer, Timer::Paused { .. });
        match self {
            Self::Qualifying { until, .. } | Self::Canary { until, .. } => paused(until),
            Self::Soaking { soak, .. } => paused(soak),
            Self::Steady { .. }
            | Self::CuttingOver { .. }
            | Self::RollingBack { .. }
            | Self::Blocked { .. } => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StateName {
    Steady,
    Qualifying,
    CuttingOver,
    Soaking,
    RollingBack,
    Blocked,
    Canary,
}

impl StateName {
    pub const ALL: [Self; 7] = [
        Self::Steady,
        Self::Qualifying,
        Self::Canary,
        Self::CuttingOver,
        Self::Soaking,
        Self::RollingBack,
        Self::Blocked,
    ];
}

impl fmt::Display for StateName {
    /// `Steady`, `CuttingOver`, …: as in events and scenarios.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why no path can carry the traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum BlockReason {
    /// Every path of the route is dead, or not yet known to live.
    NoLivingPath,
    /// These live, but the services do not know (or are not known to know) their addresses.
    NotRegistered { living: Vec<PathId> },
}

/// Why a state was entered. Append only: it is part of checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Cause {
    /// Nothing was known of this group: it starts on its route's first path.
    FirstStart,
    /// The agent was started again.
    Restored,
    /// What was on disk could not be believed.
    RestoreFailed {
        reason: String,
    },
    /// Somebody asked for it.
    Commanded,
    Vetoed {
        vetoes: Vec<Veto>,
    },
    Qualified,
    ChangeInForce,
    Committed {
        path: PathId,
    },
    PathDown {
        path: PathId,
    },
    ServiceIll {
        path: PathId,
        service: ServiceId,
        stage: Option<Stage>,
    },
    EgressUnregistered {
        path: PathId,
        addresses: BTreeSet<IpAddr>,
    },
    /// Users' own new flows go unanswered: per cent answered on this path, and on the other.
    FlowsUnanswered {
        path: PathId,
        percent: u32,
        other_percent: u32,
    },
    ChangeFailed {
        reason: String,
    },
    CheckpointFailed {
        reason: String,
    },
    /// The path where the group belongs works again.
    HomeAgain {
        path: PathId,
    },
    PathBack {
        path: PathId,
    },
    NoPath {
        reason: BlockReason,
    },
    /// The path was left, and everybody is off it.
    Left {
        path: PathId,
    },
    /// The clients of the canary were well served over the new path.
    CanaryWell {
        path: PathId,
        clients: u32,
    },
    /// The path carries packets, but badly.
    BrownOut {
        path: PathId,
        ailment: Ailment,
    },
    /// Users' own new flows go unanswered: per cent answered lately, and before.
    FlowsFell {
        path: PathId,
        percent: u32,
        before_percent: u32,
    },
    /// Every ordinary path is dead; this one is over an emergency line.
    LastResort {
        path: PathId,
    },
}
