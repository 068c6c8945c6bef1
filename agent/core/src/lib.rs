//! Decisions of the agent, without sockets, clocks, processes or async. `now` is passed in.

pub mod bench_support;
pub mod health;
pub mod migration;
pub mod network_plan;
pub mod segmentation;
pub mod status;
