//! Who tries a new path first, as the table says it.

use seimon_core::network_plan::{
    Allocation, ChainKind, Generation, NetworkPlan, canary_element, compile, nft_diff, render_replacement,
};
use seimon_plan::{GroupId, PathId, ValidSitePlan, ZoneId};

use crate::common;
use crate::nft::{SKIPPED, blocks, transactions};

const PATHS: &str = "group = \"affairs\"\npaths = [\"closed\", \"direct\"]";

fn with_canary(canary: &str) -> ValidSitePlan {
    let text = common::plan_text();
    assert!(text.contains(PATHS));
    let rooms = "[migration.rooms.office]\nzone = \"affairs\"\nprefixes = [\"10.20.1.64/27\", \"fd20:0:0:1:a::/80\"]\n";
    let text = text.replace(PATHS, &format!("{PATHS}\ncanary = {canary}"));
    common::valid(&text.replacen("[migration.times]", &format!("{rooms}[migration.times]"), 1))
}

fn network(plan: &ValidSitePlan, parent: &Allocation) -> NetworkPlan {
    let allocation = parent.extend(plan).unwrap();
    compile(plan, &allocation, &common::first_choice(plan), None, Generation(1)).unwrap()
}

fn rules(network: &NetworkPlan, chain: &str) -> Vec<String> {
    network.ruleset.chains[chain].rules.iter().map(|rule| rule.text.clone()).collect()
}

/// Numbers of the group and of its two paths.
fn numbers(network: &NetworkPlan) -> (u16, u8, u8) {
    let id = |text: &str| PathId::new(text).unwrap();
    let group = (ZoneId::new("affairs").unwrap(), GroupId::new("affairs").unwrap());
    let paths = &network.allocation.paths;
    (network.allocation.zone_groups[&group].0, paths[&id("closed")].0, paths[&id("direct")].0)
}

#[test]
fn rooms_and_a_share_are_picked_and_everybody_else_takes_the_current_path() {
    let network =
        network(&with_canary("{ rooms = [\"office\"], share = 10, time = \"1h\" }"), &Allocation::default());
    let (group, _, direct) = numbers(&network);
    let there = format!("use_{group}_{direct}");
    assert_eq!(
        rules(&network, &format!("pick_{group}_{direct}")),
        [
            format!("ip saddr 10.20.1.64/27 goto {there}"),
            format!("ip6 saddr fd20:0:0:1:a::/80 goto {there}"),
            format!("jhash ether saddr mod 100 seed {:#x} < 10 goto {there}", 0x5e1f_0000 | u32::from(group)),
            "ct mark & 0xfffff vmap @current".to_owned(),
            "goto refuse".to_owned(),
        ]
    );
    assert!(
        network.ruleset.maps["canary"].elements.is_empty(),
        "nobody tries anything before somebody asks for it"
    );
    assert!(network.ruleset.maps["canary"].runtime);
}

/// The affairs zone with two ports, clients at the second of which try new paths first.
fn with_port() -> ValidSitePlan {
    let text =
        common::plan_text().replacen("ports = [\"LAN1\"]\nipv4", "ports = [\"LAN1\", \"LAN4\"]\nipv4", 1);
    common::valid(&text.replace(PATHS, &format!("{PATHS}\ncanary = {{ ports = [\"LAN4\"], time = \"1h\" }}")))
}

#[test]
fn clients_at_a_port_are_learnt_before_the_bridge_and_picked_by_that() {
    let network = network(&with_port(), &Allocation::default());
    let (group, _, direct) = numbers(&network);
    let (name, chain) = network.ruleset.chains.iter().find(|(name, _)| name.starts_with("port_")).unwrap();
    let set = name.replace("port_", "at_");
    let port = seimon_board::InterfaceName::new("lan4").unwrap();
    assert_eq!(chain.kind, ChainKind::Ingress { port });
    assert_eq!(rules(&network, name), [format!("update @{set} {{ ether saddr timeout 60s }}")]);
    assert!(network.ruleset.sets[&set].dynamic.is_some());
    let picked = rules(&network, &format!("pick_{group}_{direct}"));
    assert_eq!(picked[0], format!("ether saddr @{set} goto use_{group}_{direct}"));
}

#[test]
fn affinity_comes_before_a_canary_and_the_current_path_after_it() {
    let network = network(&with_canary("{ share = 1, time = \"1h\" }"), &Allocation::default());
    let (group, closed, direct) = numbers(&network);
    let rules = rules(&network, &format!("zg_{group}"));
    let at = |part: &str| {
        rules.iter().position(|rule| rule.contains(part)).unwrap_or_else(|| panic!("{part}: {rules:?}"))
    };
    assert!(at(&format!("@aff_{closed} goto")) < at("@canary"));
    assert!(at(&format!("@aff_{direct} goto")) < at("@canary"));
    assert!(at("@canary") < at("@current"));
}

#[test]
fn groups_without_a_canary_and_plans_without_any_have_none_of_it() {
    let network_with = network(&with_canary("{ share = 1, time = \"1h\" }"), &Allocation::default());
    let (group, ..) = numbers(&network_with);
    for (name, chain) in &network_with.ruleset.chains {
        let ours = name == &format!("zg_{group}") || name.starts_with(&format!("pick_{group}_"));
        assert!(ours || !chain.rules.iter().any(|rule| rule.text.contains("canary")), "{name}");
        assert!(ours || !name.starts_with("pick_"), "{name}");
    }
    let without = common::compiled(&common::town());
    assert!(!without.ruleset.maps.contains_key("canary"));
}

#[test]
fn nft_takes_a_canary_its_beginning_and_its_disappearance() {
    let plan = with_canary("{ rooms = [\"office\"], share = 10, time = \"1h\" }");
    let network_with = network(&plan, &Allocation::default());
    let (zone, group) = (ZoneId::new("affairs").unwrap(), GroupId::new("affairs").unwrap());
    let element =
        canary_element(&network_with.allocation, &zone, &group, &PathId::new("direct").unwrap()).unwrap();
    let mut under_way = network_with.clone();
    let map = under_way.ruleset.maps.get_mut("canary").unwrap();
    map.elements.insert(element.key, element.value.unwrap());
    let plain = network(&common::town(), &network_with.allocation);
    let texts = [
        render_replacement(&plain.ruleset),
        nft_diff(&plain.ruleset, &network_with.ruleset).unwrap(),
        nft_diff(&network_with.ruleset, &under_way.ruleset).unwrap(),
        nft_diff(&under_way.ruleset, &plain.ruleset).unwrap(),
    ];
    for most in 1..=texts.len() {
        let texts: Vec<&str> = texts[..most].iter().map(String::as_str).collect();
        match transactions(&texts) {
            Some(result) => {
                let listing = result.unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(blocks(&listing).contains_key("map canary"), most == 2 || most == 3, "{most}");
            }
            None => println!("{SKIPPED}"),
        }
    }
}
