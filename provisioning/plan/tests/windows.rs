//! When a move may begin, across midnight, freezes and clock changes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use seimon_board::Board;
use seimon_plan::{ValidSitePlan, WindowState, parse, window_state, with_overrides};

const TOWN: &str = include_str!("../examples/two-line-town.toml");

fn at(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}

fn plan(zone: &str, windows: &str, freezes: &str) -> ValidSitePlan {
    let values: BTreeMap<String, toml::Value> = toml::from_str(&format!(
        "\"site.timezone\" = \"{zone}\"\n\"migration.windows\" = [{windows}]\n\"migration.freezes\" = [{freezes}]"
    ))
    .expect("test values are TOML");
    let text = with_overrides(TOWN, &values).expect("places exist");
    parse(&text, "town.toml", &Board::shipped("lab-namespace").expect("shipped"))
        .unwrap_or_else(|errors| panic!("{errors}"))
}

fn open(until: &str) -> WindowState {
    WindowState::Open { until: at(until) }
}

fn closed(next: &str) -> WindowState {
    WindowState::Closed { next: Some(at(next)) }
}

fn frozen(reason: &str, until: &str) -> WindowState {
    WindowState::Frozen { reason: reason.to_owned(), until: at(until) }
}

const NIGHTS: &str = "{ days = [\"sat\", \"sun\"], from = \"18:00\", to = \"06:00\" }";
const ALWAYS: &str = "{ days = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"], from = \"00:00\", to = \"00:00\" }";
const MARKS: &str = "{ first = \"2027-03-01\", last = \"2027-03-31\", reason = \"marks\" }";

#[test]
fn a_weekly_window_reaches_over_midnight_and_not_further() {
    // 2027-01-02 is a Saturday. 18:00 in Tokyo is 09:00 UTC.
    let plan = plan("Asia/Tokyo", NIGHTS, "");
    assert_eq!(window_state(&plan, at("2027-01-02T08:59:59.999Z")), closed("2027-01-02T09:00:00Z"));
    assert_eq!(window_state(&plan, at("2027-01-02T09:00:00Z")), open("2027-01-02T21:00:00Z"));
    assert_eq!(window_state(&plan, at("2027-01-02T20:59:59Z")), open("2027-01-02T21:00:00Z"));
    assert_eq!(window_state(&plan, at("2027-01-02T21:00:00Z")), closed("2027-01-03T09:00:00Z"));
    // Monday 06:00 local ends Sunday's; the next is Saturday's.
    assert_eq!(window_state(&plan, at("2027-01-03T21:00:00Z")), closed("2027-01-09T09:00:00Z"));
}

#[test]
fn a_freeze_wins_over_windows_and_the_next_opening_is_after_it() {
    let plan = plan("Asia/Tokyo", NIGHTS, MARKS);
    // Sunday 2027-02-28, 18:00 local: the window is cut at midnight.
    assert_eq!(window_state(&plan, at("2027-02-28T09:00:00Z")), open("2027-02-28T15:00:00Z"));
    assert_eq!(window_state(&plan, at("2027-02-28T15:00:00Z")), frozen("marks", "2027-03-31T15:00:00Z"));
    assert_eq!(window_state(&plan, at("2027-03-31T14:59:59Z")), frozen("marks", "2027-03-31T15:00:00Z"));
    // Thursday 2027-04-01 → Saturday 2027-04-03, 18:00 local.
    assert_eq!(window_state(&plan, at("2027-03-31T15:00:00Z")), closed("2027-04-03T09:00:00Z"));
}

#[test]
fn freezes_that_touch_count_as_one() {
    let april = "{ first = \"2027-04-01\", last = \"2027-04-10\", reason = \"entrance\" }";
    let plan = plan("Asia/Tokyo", NIGHTS, &format!("{MARKS}, {april}"));
    assert_eq!(window_state(&plan, at("2027-03-10T00:00:00Z")), frozen("marks", "2027-04-10T15:00:00Z"));
}

#[test]
fn all_days_round_the_clock_is_always_open_until_a_freeze() {
    let plan = plan("Asia/Tokyo", ALWAYS, MARKS);
    assert_eq!(window_state(&plan, at("2027-02-20T03:00:00Z")), open("2027-02-28T15:00:00Z"));
    assert_eq!(window_state(&plan, at("2027-04-01T00:00:00Z")), open("2027-05-31T00:00:00Z"));
}

#[test]
fn no_window_and_a_window_in_the_past_are_closed_for_good() {
    let never = WindowState::Closed { next: None };
    assert_eq!(window_state(&plan("Asia/Tokyo", "", ""), at("2027-01-01T00:00:00Z")), never);
    let once = "{ start = \"2026-08-01T18:00\", end = \"2026-08-02T06:00\" }";
    let plan = plan("Asia/Tokyo", once, "");
    assert_eq!(window_state(&plan, at("2026-07-01T00:00:00Z")), closed("2026-08-01T09:00:00Z"));
    assert_eq!(window_state(&plan, at("2026-08-01T10:00:00Z")), open("2026-08-01T21:00:00Z"));
    assert_eq!(window_state(&plan, at("2026-08-01T21:00:00Z")), never);
}

#[test]
fn a_single_window_that_a_freeze_covers_in_part_opens_when_it_thaws() {
    let once = "{ start = \"2027-03-31T18:00\", end = \"2027-04-01T06:00\" }";
    let plan = plan("Asia/Tokyo", once, MARKS);
    assert_eq!(window_state(&plan, at("2027-02-01T00:00:00Z")), closed("2027-03-31T15:00:00Z"));
}

#[test]
fn clock_changes_neither_lose_nor_repeat_a_window() {
    // Berlin, 2027-03-28: 02:00 → 03:00. A window from 02:30 opens after the gap, at 03:30 summer time.
    let spring = plan("Europe/Berlin", "{ days = [\"sun\"], from = \"02:30\", to = \"05:00\" }", "");
    assert_eq!(window_state(&spring, at("2027-03-28T01:00:00Z")), closed("2027-03-28T01:30:00Z"));
    assert_eq!(window_state(&spring, at("2027-03-28T01:30:00Z")), open("2027-03-28T03:00:00Z"));
    // 2027-10-31: 03:00 → 02:00. 02:30 is taken the first time it comes (00:30 UTC).
    let autumn = plan("Europe/Berlin", "{ days = [\"sun\"], from = \"02:30\", to = \"05:00\" }", "");
    assert_eq!(window_state(&autumn, at("2027-10-31T00:00:00Z")), closed("2027-10-31T00:30:00Z"));
    assert_eq!(window_state(&autumn, at("2027-10-31T01:45:00Z")), open("2027-10-31T04:00:00Z"));
    // A window that the gap swallows whole opens a week later.
    let swallowed = plan("Europe/Berlin", "{ days = [\"sun\"], from = \"02:00\", to = \"03:00\" }", "");
    assert_eq!(window_state(&swallowed, at("2027-03-27T12:00:00Z")), closed("2027-04-04T00:00:00Z"));
}
