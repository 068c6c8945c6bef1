//! Clients and what they measure.

pub mod spec;
