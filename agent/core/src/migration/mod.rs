//! Moving one service group of one zone from path to path, so that nobody notices, and back when they would suffer.
//!
//! ```text
//!                 Start, no veto          qualified, no veto            change in force
//!  Steady(old) ───────────────▶ Qualifying ────────────▶ CuttingOver ───────────────────▶ Soaking
//!    ▲  ▲  │                        │ veto, window closed    │ veto at the last look       │ │ soaked, and
//!    │  │  │ path dead              ▼                        ▼                             │ │ drained or forced
//!    │  │  │                   Steady(old)              Steady(old)                        │ ▼
//!    │  │  └────────▶ RollingBack ◀── path dead, service ill on it only, not registered ───┘ Steady(new)
//!    │  └─────────────────┘  │ ▲
//!    │                no living path
//!    │                       ▼ │ a path lives again
//!    └─────────────────── Blocked
//! ```
//! The [`Machine`] is synchronous and pure: facts come in as a [`View`], time as an instant, and what is to be done comes
//! out of [`Machine::poll_action`]. **Every state is written down before the network is touched for it**: an action that
//! touches the kernel is emitted only after [`Event::CheckpointDurable`] for the checkpoint that tells of it. So after a
//! power cut at any point [`Machine::restore`] continues or goes back.
//!
//! Where the plan has a canary, `Canary` comes between Qualifying and CuttingOver: new flows of a few named clients take the
//! candidate, and nobody else's. It ends in CuttingOver when its time is over, somebody was served, all is well and a move
//! may begin; in RollingBack as soon as a soak would; and until then it goes on.
//!
//! Where the plan has an emergency line, a group whose every path is known to be dead is not `Blocked` but carried by that:
//! `Steady` on a path that is nobody's home, and back by itself. No move begins there or leads there.
//!
//! `RollingBack` is every move that nobody asked for: back from a failed move, away from a path that died, and home again.
//! `Blocked` does not touch the kernel: traffic stays aimed at the path where it was, in case the judgement is wrong.

mod checkpoint;
mod config;
mod hold;
mod input;
mod machine;
mod rules;
mod state;
mod veto;
mod view;

pub use checkpoint::{BootId, Checkpoint, RestoreError, Saved, SavedHold};
pub use config::{Config, Mechanisms, Switch, ZoneGroup};
pub use input::{Action, Command, Event, Notice, Passed, Reason};
pub use machine::Machine;
pub use rules::{Phase, vetoes};
pub use state::{BlockReason, Cause, DrainState, Manner, State, StateName, Timer};
pub use veto::Veto;
pub(crate) use veto::{stage_en, stage_ja};
pub use view::{ClockTrust, DiskRoom, View, WindowState};
