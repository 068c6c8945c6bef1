//! What is on disk about a machine: enough to continue or go back after the power went.
//!
//! Enums here are append only, and fields are only ever added with a default; anything else is a new
//! [`Checkpoint::VERSION`]. Times are remaining durations: within one boot the time since is taken off, after another
//! boot it is not, because nothing says how long the box was off.

use std::time::Duration;

use seimon_board::Instant;
use seimon_plan::PathId;
use serde::{Deserialize, Serialize};

use super::config::{Config, ZoneGroup};
use super::state::{BlockReason, Cause, DrainState};

/// The kernel's `/proc/sys/kernel/random/boot_id`, or any text that differs from boot to boot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub version: u32,
    pub zone_group: ZoneGroup,
    /// Where the group belongs: the path that a move last committed to.
    pub home: PathId,
    /// The path before that, for a roll-back after the commit.
    #[serde(default)]
    pub previous: Option<PathId>,
    pub state: Saved,
    #[serde(default)]
    pub holds: Vec<SavedHold>,
    pub boot: BootId,
    /// On the clock of `boot`.
    pub at: Instant,
    /// Milliseconds since 1970: the clock cannot rightly be earlier after this.
    pub wall_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedHold {
    pub path: PathId,
    pub left_ms: u64,
    pub failures: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Saved {
    Steady {
        path: PathId,
    },
    Qualifying {
        from: PathId,
        to: PathId,
        left_ms: u64,
        #[serde(default)]
        paused: bool,
    },
    /// The change may or may not have been made.
    CuttingOver {
        from: PathId,
        to: PathId,
    },
    Soaking {
        from: PathId,
        to: PathId,
        soak_left_ms: u64,
        drain_left_ms: u64,
        drained: DrainState,
        #[serde(default)]
        paused: bool,
    },
    RollingBack {
        leaving: PathId,
        to: PathId,
        cause: Cause,
        /// Absent: hard.
        #[serde(default)]
        drain_left_ms: Option<u64>,
    },
    Blocked {
        path: PathId,
        reason: BlockReason,
    },
    Canary {
        from: PathId,
        to: PathId,
        left_ms: u64,
        #[serde(default)]
        paused: bool,
        #[serde(default)]
        tried: u32,
    },
}

impl Saved {
    /// The path that new flows take under this checkpoint.
    pub fn current(&self) -> &PathId {
        match self {
            Self::Steady { path } | Self::Blocked { path, .. } => path,
            Self::Qualifying { from, .. } | Self::Canary { from, .. } => from,
            Self::CuttingOver { to, .. } | Self::Soaking { to, .. } | Self::RollingBack { to, .. } => to,
        }
    }

    fn pair(&self) -> Option<(&PathId, &PathId)> {
        match self {
            Self::Steady { .. } | Self::Blocked { .. } => None,
            Self::Qualifying { from, to, .. }
            | Self::Canary { from, to, .. }
            | Self::CuttingOver { from, to }
            | Self::Soaking { from, to, .. }
            | Self::RollingBack { leaving: from, to, .. } => Some((from, to)),
        }
    }

    fn longest(&self) -> u64 {
        match self {
            Self::Steady { .. } | Self::Blocked { .. } | Self::CuttingOver { .. } => 0,
            Self::Qualifying { left_ms, .. } | Self::Canary { left_ms, .. } => *left_ms,
            Self::Soaking { soak_left_ms, drain_left_ms, .. } => (*soak_left_ms).max(*drain_left_ms),
            Self::RollingBack { drain_left_ms, .. } => drain_left_ms.unwrap_or(0),
        }
    }
}

/// Why a checkpoint cannot be believed. The safe choice then is [`Checkpoint::safe_path`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error(
        "the checkpoint has version {found}; this agent reads version {known}: install the newer agent again"
    )]
    Version { found: u32, known: u32 },
    #[error("the checkpoint is of {found}, not of {wanted}")]
    OtherZoneGroup { found: String, wanted: String },
    #[error("the checkpoint uses path {0}, which is not in this group's route: was the plan changed?")]
    PathNotInRoute(PathId),
    #[error("the checkpoint says a move from path {0} to itself")]
    SamePath(PathId),
    #[error("the checkpoint has {0} ms left on a clock, which no plan allows")]
    TooLong(u64),
}

impl Checkpoint {
    pub const VERSION: u32 = 1;
    /// No plan has a time as long.
    pub(super) const LONGEST: Duration = Duration::from_secs(400 * 24 * 3600);

    /// Whether this can be the past of a machine with this configuration.
    pub fn check(&self, config: &Config) -> Result<(), RestoreError> {
        if self.version != Self::VERSION {
            return Err(RestoreError::Version { found: self.version, known: Self::VERSION });
        }
        if self.zone_group != config.zone_group {
            return Err(RestoreError::OtherZoneGroup {
                found: self.zone_group.to_string(),
                wanted: config.zone_group.to_string(),
            });
        }
        let pair = self.state.pair();
        // An emergency line may be what is left, or was fled to; it is nobody's home.
        let mut used = vec![self.state.current()];
        used.extend(pair.map(|(from, _)| from));
        let strays = used.into_iter().filter(|path| !config.offers(path));
        let homeless = Some(&self.home).filter(|path| !config.paths.contains(path));
        if let Some(stray) = homeless.into_iter().chain(strays).next() {
            return Err(RestoreError::PathNotInRoute(stray.clone()));
        }
        if let Some((from, to)) = pair
            && from == to
        {
            return Err(RestoreError::SamePath(from.clone()));
        }
        let longest = self.holds.iter().map(|h| h.left_ms).fold(self.state.longest(), u64::max);
        if Duration::from_millis(longest) > Self::LONGEST {
            return Err(RestoreError::TooLong(longest));
        }
        Ok(())
    }

    /// Where the group was last at rest, as far as this plan still allows it; else the route's first path. `None` only
    /// when the route is empty.
    pub fn safe_path(&self, config: &Config) -> Option<PathId> {
        let ours = self.zone_group == config.zone_group;
        let rest = match &self.state {
            Saved::Steady { path } => path,
            Saved::Qualifying { .. }
            | Saved::Canary { .. }
            | Saved::CuttingOver { .. }
            | Saved::Soaking { .. }
            | Saved::RollingBack { .. }
            | Saved::Blocked { .. } => &self.home,
        };
        [rest, &self.home]
            .into_iter()
            .find(|path| ours && config.paths.contains(path))
            .or_else(|| config.paths.first())
            .cloned()
    }
}
