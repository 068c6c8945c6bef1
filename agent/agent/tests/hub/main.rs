//! The agent as a hub, as a process, with real packets: two schools' ends, a town hall, the internet.

mod carrying;
mod changing;
mod closed;
mod harness;
