//! `seimonctl` as its users run it.

mod common;
mod completions;
mod guide;
mod help;
mod hub;
mod manual;
mod plan_check;
mod talk;
