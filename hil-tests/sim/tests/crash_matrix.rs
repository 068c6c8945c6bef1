//! Every checkpoint × {kill, power cut, disk full}, and × {another version}; and what such a matrix finds when
//! the gateway is made wrong.

use seimon_sim::crash::Kind;
use seimon_sim::ground::Mutation;
use seimon_sim::runs;
use seimon_sim::town::{Town, TownKind};

fn nothing_goes_wrong(kind: Kind) {
    let towns = [TownKind::TwoLines, TownKind::Canary].map(|kind| Town::build(kind).expect("a town"));
    let matrix = runs::crashes(&towns, kind, Mutation::None);
    assert!(matrix.wrong.is_empty(), "{:#?}", matrix.wrong);
    assert_eq!(matrix.missed, 0);
    assert!(matrix.points >= 30 && matrix.runs >= matrix.points, "{} {}", matrix.points, matrix.runs);
}

#[test]
fn whatever_strikes_at_whichever_checkpoint_nothing_goes_wrong() {
    nothing_goes_wrong(Kind::Crashes);
}

#[test]
fn whichever_version_goes_on_from_whichever_checkpoint_nothing_goes_wrong() {
    nothing_goes_wrong(Kind::Upgrades);
}

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
