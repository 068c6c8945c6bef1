//! Values set from outside, as scenarios do.

use std::collections::BTreeMap;

use seimon_board::Board;
use seimon_plan::{OverrideError, WindowState, parse, window_state, with_overrides};

const TOWN: &str = include_str!("../examples/two-line-town.toml");

fn set(values: &str) -> BTreeMap<String, toml::Value> {
    toml::from_str(values).expect("test values are TOML")
}

#[test]
fn values_and_whole_lists_are_replaced_and_the_result_is_a_plan() {
    let values = "\"services.affairs.session_idle\" = \"5s\"\n\"lines.internet.mtu\" = 1454\n\
        \"migration.thresholds.check_interval\" = \"1s\"\n\"permits[0].until\" = \"2030-03-31\"\n\
        \"migration.windows\" = [{ days = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"], from = \"00:00\", to = \"00:00\" }]\n\
        \"migration.freezes\" = []\n";
    let text = with_overrides(TOWN, &set(values)).expect("all places exist");
    let board = Board::shipped("lab-namespace").expect("shipped");
    let plan = parse(&text, "town.toml", &board).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(plan.services["affairs"].session_idle.to_string(), "5s");
    assert_eq!(plan.lines["internet"].mtu, 1454);
    assert_eq!(plan.migration.thresholds.check_interval.to_string(), "1s", "a missing table is made");
    assert_eq!(plan.permits[0].until, "2030-03-31");
    let state = window_state(&plan, "2027-01-01T00:00:00Z".parse().expect("a timestamp"));
    assert!(matches!(state, WindowState::Open { .. }), "{state:?}");
    // What was not named is as it was.
    assert_eq!(plan.services["idp"].session_idle.to_string(), "15min");
}

#[test]
fn no_override_leaves_the_same_plan() {
    let board = Board::shipped("lab-namespace").expect("shipped");
    let text = with_overrides(TOWN, &BTreeMap::new()).expect("nothing to set");
    assert_eq!(parse(&text, "a", &board), parse(TOWN, "b", &board));
}

#[test]
fn an_entry_past_the_end_of_a_list_appends_and_further_ones_are_refused() {
    let text =
        with_overrides(TOWN, &set("\"permits[6].to\" = \"zone:affairs\"")).expect("six permits: 6 is next");
    assert!(text.contains("zone:affairs"));
    for key in ["permits[9].to", "version.x", ""] {
        let error = with_overrides(TOWN, &BTreeMap::from([(key.to_owned(), toml::Value::Integer(1))]));
        assert!(matches!(error, Err(OverrideError::NoSuchPlace(_))), "{key}");
    }
    assert!(matches!(with_overrides("= 1", &BTreeMap::new()), Err(OverrideError::NotToml(_))));
}
