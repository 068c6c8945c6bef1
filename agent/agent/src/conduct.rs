//! Carrying out what the cores ask for: children kept running, probes sent, machines driven, flows counted.

mod examining;
mod housekeeping;
mod machines;
mod tending;

pub(crate) use housekeeping::Look;
pub(crate) use machines::bare_view;
pub(crate) use tending::child_environment;
