//! Every checkpoint × {kill, power cut, disk full}; and what such a matrix finds when the gateway is made wrong.

use seimon_sim::ground::Mutation;
use seimon_sim::runs;
use seimon_sim::town::{Town, TownKind};

#[test]
fn whatever_strikes_at_whichever_checkpoint_nothing_goes_wrong() {
    let towns = [Town::build(TownKind::TwoLines).unwrap()];
    let matrix = runs::crashes(&towns, Mutation::None);
    assert!(matrix.wrong.is_empty(), "{:#?}", matrix.wrong);
    assert_eq!(matrix.missed, 0);
    assert!(matrix.points >= 30 && matrix.runs >= matrix.points, "{} {}", matrix.points, matrix.runs);
}

#[test]
fn a_gateway_that_acts_before_it_writes_does_not_pass_the_matrix() {
    let towns = [Town::build(TownKind::TwoLines).unwrap()];
    assert!(!runs::crashes(&towns, Mutation::ActsFirst).wrong.is_empty());
}
