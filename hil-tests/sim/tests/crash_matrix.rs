//! What the matrices of crashes, versions and clocks find when the gateway is made wrong. That they find nothing otherwise is
//! a part of `cargo xtask sim` and `cargo xtask test`.

use seimon_sim::crash::Kind;
use seimon_sim::ground::Mutation;
use seimon_sim::runs;
use seimon_sim::town::{Town, TownKind};

#[test]
fn a_gateway_that_acts_before_it_writes_does_not_pass_the_matrix() {
    let towns = [Town::build(TownKind::TwoLines).unwrap()];
    assert!(!runs::crashes(&towns, Kind::Crashes, Mutation::ActsFirst).wrong.is_empty());
}

#[test]
fn a_gateway_that_believes_nothing_of_another_version_does_not_pass_the_matrix() {
    let towns = [Town::build(TownKind::TwoLines).unwrap()];
    assert!(!runs::crashes(&towns, Kind::Upgrades, Mutation::Strict).wrong.is_empty());
}

#[test]
fn a_gateway_that_looks_at_no_window_does_not_pass_the_matrix_of_clocks() {
    let towns = [Town::build(TownKind::TwoLines).unwrap()];
    assert!(!runs::crashes(&towns, Kind::Clocks, Mutation::WindowVeto).wrong.is_empty());
}
