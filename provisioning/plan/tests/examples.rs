//! The shipped examples are valid, and say what the lab relies on.

use std::collections::BTreeSet;
use std::time::Duration;

use seimon_board::Board;
use seimon_plan::{GroupId, ValidSitePlan, ZoneId};

const EXAMPLES: &[(&str, &str)] = &[
    ("two-line-town.toml", include_str!("../examples/two-line-town.toml")),
    ("one-line-town.toml", include_str!("../examples/one-line-town.toml")),
    ("behind-leased-router.toml", include_str!("../examples/behind-leased-router.toml")),
];

fn example(name: &str) -> ValidSitePlan {
    let (_, text) = EXAMPLES.iter().find(|(file, _)| *file == name).expect("shipped");
    let board = Board::shipped("lab-namespace").expect("shipped");
    seimon_plan::parse(text, name, &board).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn all_examples_are_valid() {
    for (name, _) in EXAMPLES {
        example(name);
    }
}

#[test]
fn the_two_line_town_answers_what_the_agent_asks() {
    let plan = example("two-line-town.toml");
    let group = |id: &str| GroupId::new(id).expect("an identifier");
    let zone = |id: &str| ZoneId::new(id).expect("an identifier");
    let names: Vec<&str> = plan.group_services(&group("affairs")).map(|(id, _)| id.as_str()).collect();
    assert_eq!(names, ["affairs", "idp"]);
    assert_eq!(
        plan.groups_of_zone(&zone("learning")),
        BTreeSet::from([group("internet"), group("learning")])
    );
    assert_eq!(plan.groups_of_zone(&zone("printers")), BTreeSet::new());
    assert_eq!(plan.session_idle(&group("affairs")).0, Duration::from_secs(900));
    assert_eq!(plan.interface_of("LAN3").map(|name| name.as_str()), Some("lan3"));
}

#[test]
fn a_tunnels_far_end_is_asked_for_over_its_line_and_never_through_itself() {
    let plan = example("one-line-town.toml");
    let closed = plan.paths.keys().find(|id| id.as_str() == "closed").expect("in the example");
    let direct = plan.paths.keys().find(|id| id.as_str() == "direct").expect("in the example");
    assert_eq!(plan.endpoint_resolvers(closed), plan.paths[direct].resolvers);
    assert!(plan.endpoint_resolvers(direct).is_empty(), "no tunnel, no name");
}

#[test]
fn permits_hold_through_their_last_day_in_the_sites_time_zone() {
    let plan = example("two-line-town.toml");
    let at = |text: &str| text.parse().expect("a timestamp");
    // The last day, 2029-03-31, ends in Tokyo at 15:00 UTC.
    assert!(plan.expired(at("2029-03-31T14:59:59Z")).is_empty());
    assert_eq!(plan.expired(at("2029-03-31T15:00:00Z")).len(), plan.permits.len());
}

/// The two-line town with a modem as its last resort.
const MODEM: &str = "
[lines.lte]
port = \"USB1\"
ipv4 = \"192.0.2.130/30\"
gateway4 = \"192.0.2.129\"
role = \"emergency\"
metered = { up_kbit = 500, down_kbit = 2000, mb_per_month = 3000 }
[paths.lte]
line = \"lte\"
kind = \"plain\"
ipv6 = \"none\"
resolvers = [\"203.0.113.53\"]
";

#[test]
fn an_emergency_line_is_for_those_who_name_it_and_is_no_path_to_move_along() {
    let (_, text) = EXAMPLES[0];
    let affairs = "group = \"affairs\"\npaths = [\"closed\", \"direct\"]";
    assert!(text.contains(affairs));
    let text = text.replace(affairs, &format!("{affairs}\nemergency = [\"lte\"]")) + MODEM;
    let board = Board::shipped("lab-namespace").expect("shipped");
    let plan = seimon_plan::parse(&text, "town.toml", &board).unwrap_or_else(|errors| panic!("{errors}"));
    let lte = plan.paths.keys().find(|id| id.as_str() == "lte").expect("written");
    let users: Vec<&str> = plan
        .routes()
        .iter()
        .filter(|route| route.all_paths().any(|path| path == lte))
        .map(|route| route.group.as_str())
        .collect();
    assert_eq!(users, ["affairs"]);
    assert!(plan.routes().iter().all(|route| !route.paths.contains(lte)));
    let metered = plan.metered(lte).expect("an emergency line");
    assert_eq!((metered.up_kbit, metered.down_kbit, metered.probe_kb_per_day), (500, 2_000, 2_000));
    assert!(plan.paths.keys().all(|path| plan.is_emergency(path) == (path == lte)));
}
