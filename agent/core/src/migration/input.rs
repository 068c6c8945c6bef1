//! What goes into the machine and what comes out.

use seimon_board::Instant;
use seimon_plan::{PathId, ServiceId};

use super::checkpoint::Checkpoint;
use super::config::ZoneGroup;
use super::state::{Cause, StateName};
use super::veto::Veto;
use crate::health::Pace;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// To this path, or to the route's last.
    Start {
        to: Option<PathId>,
    },
    /// Stops the clocks of qualifying and soaking. Failures are still acted on.
    Pause,
    Resume,
    /// Back to the path before the move, also after it was committed.
    Rollback,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The checkpoint of this number is on disk, synced.
    CheckpointDurable {
        id: u64,
    },
    CheckpointFailed {
        id: u64,
        reason: String,
    },
    /// The [`Action::SetCurrent`] of this number is in force and was verified.
    ChangeInForce {
        id: u64,
    },
    ChangeFailed {
        id: u64,
        reason: String,
    },
    /// A service check over a path ended.
    Check {
        path: PathId,
        service: ServiceId,
        passed: Passed,
    },
    /// Something in the view changed: a path, an egress address, a service's verdict, the window, the clock, clients.
    FactsChanged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    Yes,
    No,
}

/// To be done, in order. Those that touch the kernel are emitted only after their checkpoint is durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write, sync, then [`Event::CheckpointDurable`] or [`Event::CheckpointFailed`].
    WriteCheckpoint {
        id: u64,
        checkpoint: Box<Checkpoint>,
    },
    /// Kernel, in one transaction: new flows take `path`, those of the plan's canary clients `trial` where there is one.
    /// Then [`Event::ChangeInForce`] or [`Event::ChangeFailed`].
    SetCurrent {
        id: u64,
        zone_group: ZoneGroup,
        path: PathId,
        trial: Option<PathId>,
    },
    /// Clients that keep `path` may do so until `deadline` (`None`: the move is paused); keep their affinity while
    /// their flows live, and count them.
    Drain {
        zone_group: ZoneGroup,
        path: PathId,
        deadline: Option<Instant>,
    },
    /// Kernel: delete the affinity of clients to `path`, then end their flows there.
    ForceDrain {
        zone_group: ZoneGroup,
        path: PathId,
    },
    /// Kernel: delete the affinity of clients to `path`.
    AffinityDelete {
        zone_group: ZoneGroup,
        path: PathId,
    },
    /// Kernel: end the flows on `path`, with resets.
    KillFlows {
        zone_group: ZoneGroup,
        path: PathId,
    },
    /// Probe this group's services faster, or slowly again.
    Probe {
        zone_group: ZoneGroup,
        pace: Pace,
    },
    Emit(Notice),
}

impl Action {
    pub fn touches_kernel(&self) -> bool {
        match self {
            Self::SetCurrent { .. }
            | Self::ForceDrain { .. }
            | Self::AffinityDelete { .. }
            | Self::KillFlows { .. } => true,
            Self::WriteCheckpoint { .. } | Self::Drain { .. } | Self::Probe { .. } | Self::Emit(_) => false,
        }
    }
}

/// For the log and for `events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `path`: of new flows in the new state.
    State {
        from: StateName,
        to: StateName,
        path: PathId,
        cause: Cause,
    },
    /// A move was refused or given up.
    Vetoed {
        vetoes: Vec<Veto>,
    },
    /// Ill everywhere: staying.
    ServiceBlamed {
        service: ServiceId,
    },
    /// The drain deadline passed with clients on `path`.
    Forced {
        path: PathId,
        clients: u32,
    },
    CheckpointFailed {
        reason: String,
    },
    ChangeFailed {
        reason: String,
    },
}

/// What a timeout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Qualified,
    QualifyLimit,
    CanaryOver,
    SoakOver,
    DrainDeadline,
    HoldDownOver,
    CheckpointRetry,
    ChangeRetry,
    /// A checkpoint with the remaining times, so that a power cut costs at most a minute of them.
    CheckpointRefresh,
}
