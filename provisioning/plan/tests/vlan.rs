//! Several zones on one cable.

use seimon_board::Board;
use seimon_plan::{PlanErrors, ValidSitePlan, ZoneId, parse};

const TOWN: &str = include_str!("../examples/two-line-town.toml");

fn read(edits: &[(&str, &str)]) -> Result<ValidSitePlan, PlanErrors> {
    let mut text = TOWN.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    parse(&text, "town.toml", &Board::shipped("lab-namespace").expect("shipped"))
}

#[test]
fn zones_share_a_trunk_and_one_has_ports_of_its_own_besides() {
    let plan = read(&[
        ("ports = [\"LAN2\"]", "ports = [\"LAN2\"]\ntrunks = [\"LAN4\"]\nvlan = 20"),
        ("ports = [\"LAN3\"]", "trunks = [\"LAN4\"]\nvlan = 30"),
    ])
    .expect("a good plan");
    let vlans: Vec<_> = plan.zones.values().filter_map(|zone| zone.vlan).collect();
    assert_eq!(vlans.len(), 2);
    let printers = &plan.zones[&ZoneId::new("printers").expect("a name")];
    assert!(printers.ports.is_empty() && printers.trunks == ["LAN4"]);
}

#[test]
fn one_number_is_one_zones() {
    let errors = read(&[
        ("ports = [\"LAN2\"]", "trunks = [\"LAN4\"]\nvlan = 20"),
        ("ports = [\"LAN3\"]", "trunks = [\"LAN4\"]\nvlan = 20"),
    ])
    .expect_err("two zones with one number");
    let text = errors.to_string();
    assert!(text.contains("plan/vlan") && text.contains("could not be told apart"), "{text}");
    assert_eq!(text.matches("error[").count(), 1, "{text}");
}
