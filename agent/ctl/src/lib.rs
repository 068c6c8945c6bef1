//! `seimonctl`: what people ask of the gateway, and what it answers, in Japanese or English.
//!
//! ```text
//! words on the command line ─args─▶ Request ─client─▶ agent's control socket
//!                                                          │
//! screen (status, answers) or JSON as it came ◀─ Response ─┘
//! ```
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the agent is not reachable, 4 not allowed.

mod acceptance;
mod answers;
pub mod args;
mod client;
mod diagnostics;
mod help;
mod hub;
mod keys;
mod line_use;
mod paper;
mod papers;
mod plan_file;
mod run;
mod screen;
mod sheet;
mod status;
mod update;
mod words;

pub use help::parse;
pub use plan_file::{CheckedPlan, Defect};
pub use run::run;
