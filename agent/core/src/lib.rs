//! Decisions of the agent, without sockets, clocks, processes or async. `now` is passed in.

pub mod acceptance;
pub mod bench_support;
pub mod health;
pub mod hub;
pub mod line_use;
pub mod metering;
pub mod migration;
pub mod network_plan;
pub mod panel;
pub mod proxy;
pub mod scrub;
pub mod segmentation;
pub mod status;
pub mod status_page;
