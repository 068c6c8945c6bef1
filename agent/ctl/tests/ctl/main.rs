//! `seimonctl` as its users run it.

mod common;
mod help;
mod plan_check;
mod talk;
