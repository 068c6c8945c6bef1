//! Flows that leave the rules, flows that end with a plan, and zones on one cable.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use seimon_board::InterfaceName;
use seimon_core::network_plan::{
    Change, Discrepancy, Flow, Generation, Link, LinkKind, Mark, NetworkPlan, PortVlans, TableState, compile,
    diff, lockdown, nft_diff, verify,
};
use seimon_core::segmentation::ended;
use seimon_plan::{GroupId, PathId, ValidSitePlan, ZoneId};

use crate::common;
use crate::converges::in_force;

fn name(text: &str) -> InterfaceName {
    InterfaceName::new(text).unwrap()
}

#[test]
fn flows_on_ordinary_paths_and_inside_the_school_may_leave_the_rules_and_nothing_else_may() {
    let net = common::compiled(&common::town());
    let between: Vec<&str> =
        net.ruleset.chains["between"].rules.iter().map(|rule| rule.text.as_str()).collect();
    assert_eq!(between[0], "ct state established ct mark & 0xff @swift flow add @fast");
    assert_eq!(between.iter().filter(|rule| rule.contains("flow add")).count(), 1);
    let swift: BTreeSet<String> =
        net.ruleset.sets["swift"].elements.iter().map(ToString::to_string).collect();
    let paths = net.allocation.paths.values().map(|path| format!("{:#x}", path.0));
    assert_eq!(swift, paths.chain(["0xfe".to_owned()]).collect());
    let devices = &net.ruleset.flowtable.as_ref().unwrap().devices;
    assert!(devices.contains(&name("z-affairs")) && devices.contains(&name("wan1")), "{devices:?}");
    assert!(
        !devices.iter().any(|device| device.as_str().starts_with("lan")),
        "bridges, not their ports: {devices:?}"
    );
}

#[test]
fn a_kernel_without_flowtables_gets_the_same_policy() {
    let net = common::compiled(&common::town());
    let plain = net.ruleset.clone().without_flowtable();
    assert!(plain.flowtable.is_none());
    assert_eq!(plain.chains["between"].rules.len() + 1, net.ruleset.chains["between"].rules.len());
    let away = nft_diff(&net.ruleset, &plain).unwrap();
    let back = nft_diff(&plain, &net.ruleset).unwrap();
    assert!(away.ends_with("}\n") && away.contains("delete flowtable inet seimon fast\n"), "{away}");
    assert!(back.contains("flowtable fast {"), "{back}");
    for script in [away, back] {
        assert_eq!(script.matches("flush chain").count(), 1, "only what differs: {script}");
    }
}

#[test]
fn devices_come_after_the_links_and_a_missing_one_is_noticed() {
    let net = common::compiled(&common::town());
    let mut seen = in_force(&net);
    seen.table.as_mut().unwrap().flowtable.as_mut().unwrap().remove(&name("z-affairs"));
    assert_eq!(verify(&seen, &net), [Discrepancy::Flowtable]);
    let changes = diff(&seen, Some(&net), &net).changes;
    let [Change::Nft { script }] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(
        script,
        "add flowtable inet seimon fast { hook ingress priority 0; devices = { \"z-affairs\" }; counter; }\n"
    );
    let from_nothing = diff(&Default::default(), None, &net).changes;
    let at = |test: &dyn Fn(&Change) -> bool| from_nothing.iter().position(test).unwrap();
    let table = at(&|change| matches!(change, Change::Nft { script } if script.contains("chain between")));
    let devices =
        at(&|change| matches!(change, Change::Nft { script } if script.starts_with("add flowtable")));
    let last_link = from_nothing.iter().rposition(|change| matches!(change, Change::LinkUp(_))).unwrap();
    assert!(table == 0 && last_link < devices, "table {table}, links until {last_link}, devices {devices}");
}

#[test]
fn a_lockdown_closes_for_flows_that_do_not_come_to_the_rules() {
    let fast = TableState { flowtable: Some(BTreeSet::new()), ..TableState::default() };
    assert_eq!(lockdown(&fast), "flush chain inet seimon between\ndelete flowtable inet seimon fast\n");
    assert_eq!(lockdown(&TableState::default()), "flush chain inet seimon between\n");
}

fn flow(
    net: &NetworkPlan,
    id: u32,
    zone_group: Option<(&str, &str)>,
    path: u32,
    source: &str,
    to: (IpAddr, u8, u16),
) -> Flow {
    let group = zone_group.map_or(0, |(zone, group)| {
        net.allocation.zone_groups[&(ZoneId::new(zone).unwrap(), GroupId::new(group).unwrap())].mark().0
    });
    Flow {
        id,
        mark: Mark(group | path),
        protocol: to.1,
        source: source.parse().unwrap(),
        source_port: 40_000,
        destination: to.0,
        destination_port: to.2,
        reply_source: to.0,
        reply_destination: source.parse().unwrap(),
        stage: seimon_core::network_plan::FlowStage::Open,
        answered: true,
        bytes: 1,
    }
}

fn town_without(permit: &str) -> ValidSitePlan {
    let mut plan: toml::Table = common::plan_text().parse().unwrap();
    let permits = plan.get_mut("permits").and_then(toml::Value::as_array_mut).unwrap();
    let before = permits.len();
    permits.retain(|entry| {
        format!("{} {}", entry["from"].as_str().unwrap(), entry["to"].as_str().unwrap()) != permit
    });
    assert!(permits.len() < before, "no permit {permit}");
    common::valid(&plan.to_string())
}

#[test]
fn what_the_plan_does_not_permit_any_more_ends_and_nothing_else_does() {
    let town = common::town();
    let net = common::compiled(&town);
    let path = |id: &str| u32::from(net.allocation.paths[&PathId::new(id).unwrap()].0);
    let inside = |name: &str| {
        let key = (ZoneId::new("affairs").unwrap(), name.to_owned());
        IpAddr::V4(net.allocation.inside[&key].0)
    };
    let affairs = Some(("affairs", "affairs"));
    let internet: IpAddr = "203.0.113.99".parse().unwrap();
    let service = (inside("affairs.school.example"), 6, 443);
    let probe = net.allocation.probes.values().next().unwrap().ipv4.to_string();
    let printer: IpAddr = "10.20.3.100".parse().unwrap();
    let flows = [
        flow(&net, 1, affairs, path("closed"), "10.20.1.100", service),
        flow(&net, 2, affairs, path("direct"), "10.20.1.100", service),
        flow(&net, 3, Some(("learning", "internet")), path("direct"), "10.20.2.100", (internet, 17, 7000)),
        flow(&net, 4, None, Mark::LOCAL, "10.20.1.100", ("10.20.1.1".parse().unwrap(), 17, 53)),
        flow(&net, 5, affairs, path("direct"), &probe, service),
        flow(&net, 6, None, path("direct"), "192.0.2.2", (internet, 17, 53)),
    ];
    assert_eq!(ended(&town, &net, &flows), BTreeSet::new(), "the plan that they began under");
    // Not over this path, not to this place, not from a zone that there is.
    let wrong = [
        flow(&net, 11, affairs, 0x7f, "10.20.1.100", service),
        flow(&net, 12, affairs, path("direct"), "10.20.1.100", (internet, 6, 443)),
        flow(&net, 13, affairs, path("direct"), "10.99.1.100", service),
        flow(&net, 14, affairs, path("direct"), "10.20.1.100", (service.0, 6, 22)),
        flow(&net, 15, None, Mark::LOCAL, "10.20.2.100", (printer, 6, 22)),
    ];
    assert_eq!(ended(&town, &net, &wrong), wrong.iter().map(|flow| flow.id).collect());
    let tightened = town_without("affairs service:affairs");
    let allocation = net.allocation.extend(&tightened).unwrap();
    let choice = common::first_choice(&tightened);
    let next = compile(&tightened, &allocation, &choice, Some(net.generation), Generation(2)).unwrap();
    assert_eq!(ended(&tightened, &next, &flows), BTreeSet::from([1, 2]));
}

#[test]
fn zones_on_a_trunk_are_vlans_of_one_bridge_and_a_switchs_ports_join_it() {
    let text = common::plan_text()
        .replacen("ports = [\"LAN2\"]", "ports = [\"LAN2\"]\ntrunks = [\"LAN4\"]\nvlan = 20", 1)
        .replacen("ports = [\"LAN3\"]", "trunks = [\"LAN4\"]\nvlan = 30", 1);
    let net = common::compiled(&common::valid(&text));
    let links: BTreeMap<&str, &LinkKind> =
        net.links.iter().map(|link| (link.name.as_str(), &link.kind)).collect();
    let ports = BTreeMap::from([
        (name("lan2"), PortVlans { untagged: Some(20), tagged: BTreeSet::new() }),
        (name("lan4"), PortVlans { untagged: None, tagged: BTreeSet::from([20, 30]) }),
    ]);
    assert_eq!(links["trunk"], &LinkKind::Trunk { ports });
    assert_eq!(links["trunk.20"], &LinkKind::Vlan { over: name("trunk"), id: 20 });
    assert_eq!(links["z-affairs"], &LinkKind::Bridge { members: vec![name("lan1")] }, "as ever");
    for (zone, vlan) in [("z-learning", "trunk.20"), ("z-printers", "trunk.30")] {
        assert_eq!(links[zone], &LinkKind::Bridge { members: vec![name(vlan)] });
        let at =
            |wanted: &str| net.links.iter().position(|link: &Link| link.name.as_str() == wanted).unwrap();
        assert!(at("trunk") < at(vlan) && at(vlan) < at(zone), "made in that order");
    }
    let plain = common::compiled(&common::town());
    assert!(!plain.links.iter().any(|link| link.name.as_str().starts_with("trunk")));
    let first = |change: &Change| matches!(change, Change::Nft { .. });
    assert!(first(&diff(&Default::default(), None, &net).changes[0]), "nothing is joined before the policy");
}
