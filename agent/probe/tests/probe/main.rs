//! The probe against real networks and real, mostly ill-behaved, servers.
#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else is heard is a failure of the test")]

mod by_hand;
mod checks;
mod lab;
mod namespace;
mod servers;
