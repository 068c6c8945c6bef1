//! The probe against real networks and real, mostly ill-behaved, servers.

mod checks;
mod lab;
mod namespace;
mod servers;
