//! `seimonctl` as its users run it.

mod common;
mod plan_check;
mod talk;
