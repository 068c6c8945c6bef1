//! Plays scenarios: raises the town, starts gateway and loads, makes things happen at their moments, and judges.

mod administrator;
mod choice;
mod control;
mod metrics;
mod permits;
mod plan_text;
mod play;
mod record;
mod screen;

pub use choice::{Choice, images};
pub(crate) use control::ask_within;
pub use control::{Follower, ask};
pub use metrics::{Measure, evaluate};
pub(crate) use plan_text::repository;
pub use plan_text::{PlanError, board_file, plan_text, scenario_file, shipped_scenarios};
pub use play::{Options, Played, play, play_with, raise};
pub use record::{Happened, LoadTrack, Record};
pub use screen::{Plain, Screen, Silent, Snapshot, Terminal, suitable as suitable_screen};
