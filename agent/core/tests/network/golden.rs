//! The two-line town's table, as people read it. `UPDATE=1` writes it anew.

use crate::common;

use seimon_core::network_plan::render;

#[test]
fn the_two_line_towns_table_is_the_golden_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/network/golden/two-line-town.nft");
    let text = render(&common::compiled(&common::town()).ruleset);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(file, &text).unwrap();
    }
    let golden = std::fs::read_to_string(file).unwrap();
    assert!(golden == text, "the table differs from {file}: look at it, then UPDATE=1");
}
