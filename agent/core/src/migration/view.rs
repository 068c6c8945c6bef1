//! The facts a decision rests on, as they are at one instant. Read-only; made anew by whoever drives the machine.

use std::collections::BTreeMap;

use seimon_plan::PathId;

use super::checkpoint::BootId;
use crate::health::{Liveness, PathFacts};

/// Whether a move may begin now, by the plan's windows and freezes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowState {
    Open,
    /// `next`: the next opening, in the site's time, as people read it.
    Closed {
        next: Option<String>,
    },
    /// `until`: the last day, as people read it.
    Frozen {
        reason: String,
        until: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockTrust {
    Trusted,
    /// Not set by a time server since power-on, or behind what the disk remembers.
    NotTrusted,
}

/// Whether the disk has room for what a move writes down. What leads back is written down in any case, in room that is set
/// aside for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskRoom {
    #[default]
    Enough,
    Short,
}

#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub window: WindowState,
    pub clock: ClockTrust,
    pub disk: DiskRoom,
    pub paths: BTreeMap<PathId, PathFacts>,
    /// Of this boot.
    pub boot: BootId,
    /// Milliseconds since 1970; written into checkpoints as a floor for the clock.
    pub wall_ms: i64,
}

impl View {
    pub(super) fn liveness(&self, path: &PathId) -> Liveness {
        self.paths.get(path).map_or(Liveness::Unknown, |facts| facts.liveness)
    }

    pub(super) fn clients(&self, path: &PathId) -> Option<u32> {
        self.paths.get(path).and_then(|facts| facts.clients)
    }
}
