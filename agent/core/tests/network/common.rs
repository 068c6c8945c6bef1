//! The shipped towns and what is made of them.

use std::collections::BTreeMap;

use seimon_board::Board;
use seimon_core::network_plan::{Allocation, Generation, NetworkPlan, PathChoice, compile};
use seimon_plan::{GroupId, PathId, ValidSitePlan, ZoneId, parse};

pub(crate) fn plan_text() -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../provisioning/plan/examples/two-line-town.toml");
    std::fs::read_to_string(file).unwrap()
}

pub(crate) fn board() -> Board {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../board/boards/lab-namespace.toml");
    Board::parse(&std::fs::read_to_string(file).unwrap(), "lab-namespace.toml").unwrap()
}

pub(crate) fn town() -> ValidSitePlan {
    valid(&plan_text())
}

pub(crate) fn one_line_text() -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../provisioning/plan/examples/one-line-town.toml");
    std::fs::read_to_string(file).unwrap()
}

/// The closed path is a tunnel over the only line.
pub(crate) fn one_line_town() -> ValidSitePlan {
    valid(&one_line_text())
}

pub(crate) fn valid(text: &str) -> ValidSitePlan {
    parse(text, "two-line-town.toml", &board()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Every group on the first path of its route.
pub(crate) fn first_choice(plan: &ValidSitePlan) -> BTreeMap<(ZoneId, GroupId), PathChoice> {
    let on = |paths: &[PathId]| PathChoice::On(paths[0].clone());
    plan.routes().iter().map(|r| ((r.zone.clone(), r.group.clone()), on(&r.paths))).collect()
}

pub(crate) fn compiled(plan: &ValidSitePlan) -> NetworkPlan {
    let allocation = Allocation::default().extend(plan).unwrap();
    compile(plan, &allocation, &first_choice(plan), None, Generation(1)).unwrap()
}
