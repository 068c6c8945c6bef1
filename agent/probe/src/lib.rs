//! The probe host: what the gateway itself sees of the paths, seen as a teacher's machine sees it.
//!
//! `seimon-probe` is a process in a network namespace of its own with one interface for each (zone, path) on the
//! zone's bridge. What it sends passes the same rules, translation and path as a user's traffic. It parses answers
//! from anywhere and is trusted with nothing: after [`host::configure`] it gives up every capability and file.
//!
//! ```text
//! start ─ unshare ─ Hello ─▶ waiting ─ Configure ─▶ configure, confine ─ Configured ─▶ serving    
//!                                                        │ failed                         │ other hosts wanted
//!                                                        ▼                                ▼
//!                                                       end                       end: start me again
//! ```
//! The protocol is [`seimon_ipc::probe`].

mod alarm;
pub mod check;
pub mod confine;
pub mod echo;
pub mod host;
mod pulse;
pub mod session;
mod source;
mod trial;

pub use session::{End, ProbeError, run};
pub use source::Source;
