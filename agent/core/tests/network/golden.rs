//! The towns' tables, as people read them. `UPDATE=1` writes it anew.

use crate::common;

use seimon_core::network_plan::render;

fn compare(file: &str, text: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(file, text).unwrap();
    }
    let golden = std::fs::read_to_string(file).unwrap_or_default();
    assert!(golden == text, "the table differs from {file}: look at it, then UPDATE=1");
}

#[test]
fn the_one_line_towns_table_with_its_tunnel_is_the_golden_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/network/golden/one-line-town.nft");
    compare(file, &render(&common::compiled(&common::one_line_town()).ruleset));
}

#[test]
fn the_two_line_towns_table_is_the_golden_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/network/golden/two-line-town.nft");
    let text = render(&common::compiled(&common::town()).ruleset);
    compare(file, &text);
}
