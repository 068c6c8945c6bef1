//! The hub's table and routes: as people read them, as nft takes them, and what one school more changes.

use std::collections::{BTreeMap, BTreeSet};

use seimon_board::{Board, InterfaceName};
use seimon_core::hub::{Roster, TUNNEL, Today, compile, egress4};
use seimon_core::network_plan::{
    ChainState, Change, Generation, NetworkPlan, Observed, Peer, PeerState, RouteKind, RuleAction, Ruleset,
    TableState, TunnelState, diff, render, render_replacement,
};
use seimon_plan::{ValidHubPlan, WireguardKey, parse_hub};

use crate::nft;

const EXAMPLE: &str = include_str!("../../../../provisioning/plan/examples/town-hall-hub.toml");

fn plan(text: &str) -> ValidHubPlan {
    parse_hub(text.as_bytes(), "hub.toml", &Board::shipped("lab-namespace").unwrap())
        .unwrap_or_else(|errors| panic!("{errors}"))
}

fn on(date: &str) -> Today {
    Today { date: date.parse().unwrap(), trusted: true }
}

fn compiled(text: &str) -> NetworkPlan {
    compile(&plan(text), &Roster::default(), on("2026-11-23"), None, Generation(1)).unwrap()
}

/// The example with so many schools of its kind besides.
fn town_of(schools: u32) -> String {
    let mut text = EXAMPLE.to_owned();
    for n in 0..schools {
        let key = WireguardKey(std::array::from_fn(|i| if i < 4 { n.to_be_bytes()[i] } else { 9 }));
        let (third, fourth) = (4 + n / 250, 1 + n % 250);
        text += &format!(
            "[schools.s{n}]\nname = \"s{n}\"\nipv4 = \"10.60.{third}.{fourth}\"\nprefixes = [\"10.{}.{}.0/24\"]\n\
             keys = [{{ public_key = \"{key}\" }}]\ncap = {{ kbit = 8000 }}\n",
            100 + n / 250,
            n % 250
        );
    }
    text
}

fn table(ruleset: &Ruleset) -> TableState {
    let chains = ruleset.chains.iter().map(|(name, chain)| {
        let rule_tags = chain.rules.iter().map(|rule| Some(rule.tag(name))).collect();
        (name.clone(), ChainState { base: chain.kind.fingerprint(), rule_tags, digest: String::new() })
    });
    let sets = ruleset.sets.iter().map(|(name, set)| {
        (name.clone(), set.fingerprint(), set.elements.iter().map(|key| (key.clone(), None)).collect())
    });
    let maps = ruleset.maps.iter().map(|(name, map)| {
        let elements = map.elements.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        (name.clone(), map.fingerprint(), elements.collect::<BTreeMap<_, _>>())
    });
    let mut state = TableState { chains: chains.collect(), ..TableState::default() };
    for (name, declaration, elements) in sets.chain(maps) {
        state.containers.insert(name.clone(), declaration);
        state.elements.insert(name, elements);
    }
    state
}

/// A kernel that has just what the plan says.
fn in_force(plan: &NetworkPlan) -> Observed {
    let seen = |peer: &Peer| PeerState {
        endpoint: peer.endpoint,
        allowed: peer.allowed.clone(),
        keepalive: peer.keepalive,
        ..PeerState::default()
    };
    let tunnels = plan.tunnels.iter().map(|(name, tunnel)| {
        let peers = tunnel.peers.iter().map(|(key, peer)| (*key, seen(peer))).collect();
        let own = Some(WireguardKey([1; 32]));
        (name.clone(), TunnelState { own, listen_port: tunnel.listen_port, mark: None, peers })
    });
    Observed {
        interfaces: plan.links.iter().map(|link| (link.name.clone(), true)).collect(),
        links: plan.links.clone(),
        tunnels: tunnels.collect(),
        addresses: plan.addresses.iter().cloned().collect(),
        routes: plan.routes.iter().cloned().collect(),
        rules: plan.rules.iter().cloned().collect(),
        sysctls: plan.sysctls.iter().map(|sysctl| (sysctl.path.clone(), sysctl.value.clone())).collect(),
        table: Some(table(&plan.ruleset)),
    }
}

#[test]
fn the_shipped_hubs_table_is_the_golden_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hub/golden/town-hall-hub.nft");
    let text = render(&compiled(EXAMPLE).ruleset);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(file, &text).unwrap();
    }
    let golden = std::fs::read_to_string(file).unwrap_or_default();
    assert!(golden == text, "the table differs from {file}: look at it, then UPDATE=1");
}

#[test]
fn nft_takes_the_table_with_every_kind_of_thing_in_it() {
    let six = EXAMPLE
        .replace("10.60.0.1/16\"", "10.60.0.1/16\"\nipv6 = \"fd60::1/64\"")
        .replace(
            "gateway4 = \"10.50.255.1\"",
            "gateway4 = \"10.50.255.1\"\nipv6 = \"fd50:ffff::2/64\"\ngateway6 = \"fd50:ffff::1\"",
        )
        .replace(
            "gateway4 = \"198.51.100.1\"",
            "gateway4 = \"198.51.100.1\"\nipv6 = \"2001:db8:5::2/64\"\ngateway6 = \"2001:db8:5::1\"",
        )
        .replace("[\"10.50.0.0/16\"]", "[\"10.50.0.0/16\", \"fd50::/16\"]")
        .replace("[\"10.50.0.53\"]", "[\"10.50.0.53\", \"10.50.0.54\", \"fd50::53\"]")
        .replace("\"198.51.100.11\"]", "\"198.51.100.11\"]\nipv6 = [\"2001:db8:5::10\"]")
        .replace("[\"10.20.0.0/16\"]", "[\"10.20.0.0/16\", \"fd20:1::/48\"]")
        .replace("\"10.60.1.4\"", "\"10.60.1.4\"\nipv6 = \"fd60::4\"")
        .replace("nat4 = \"routed\"", "nat4 = \"masquerade\"");
    for text in [EXAMPLE.to_owned(), six, town_of(300)] {
        let script = render_replacement(&compiled(&text).ruleset);
        match nft::transactions(&[&script]) {
            None => eprintln!("{}", nft::SKIPPED),
            Some(outcome) => {
                let listing = outcome.unwrap_or_else(|error| panic!("{error}"));
                assert!(nft::blocks(&listing).contains_key("chain between"), "{listing}");
            }
        }
    }
}

#[test]
fn one_school_more_or_less_is_its_own_elements_its_route_and_its_peer() {
    let (few, more) = (compiled(&town_of(40)), compiled(&town_of(41)));
    for (from, to) in [(&few, &more), (&more, &few)] {
        let mut observed = in_force(from);
        let changes = diff(&observed, Some(from), to).changes;
        let mut kinds = Vec::new();
        for change in &changes {
            if let Change::Nft { script } = change {
                // A cap is a chain of its own: text, and none of another's.
                assert!(!script.contains("delete table"), "{script}");
                let mut touched = script.lines().filter(|line| line.contains("chain"));
                assert!(touched.all(|line| line.contains("cap_0a3c0429")), "{script}");
                let elements = script.matches("10.60.4.41").count() + script.matches("10.100.40.0").count();
                assert!(elements >= 5, "{script}");
                kinds.push("table");
            } else if let Change::RouteReplace(route) | Change::RouteRemove(route) = change {
                assert_eq!(route.destination.to_string(), "10.100.40.0/24");
                kinds.push("route");
            } else if let Change::TunnelSet { tunnel, .. } = change {
                assert_eq!(tunnel.peers.len(), to.tunnels.values().next().unwrap().peers.len());
                kinds.push("peers");
            } else {
                panic!("{change:?}");
            }
        }
        kinds.sort_unstable();
        assert_eq!(kinds, ["peers", "route", "table"]);
        observed.table = None;
        assert!(!diff(&observed, Some(from), from).changes.is_empty(), "a table that is gone is seen");
    }
    assert!(diff(&in_force(&few), Some(&few), &few).changes.is_empty());
}

#[test]
fn chains_and_rules_do_not_grow_with_schools_that_have_no_cap() {
    let count = |schools: u32| {
        let plan = compiled(&town_of(schools).replace("cap = { kbit = 8000 }", ""));
        let rules: usize = plan.ruleset.chains.values().map(|chain| chain.rules.len()).sum();
        (plan.ruleset.chains.len(), rules, plan.rules.len(), plan.links.len())
    };
    assert_eq!(count(10), count(2_000));
}

#[test]
fn every_container_that_schools_are_in_is_a_hash_and_no_source_is_without_an_egress_address() {
    let plan = plan(&town_of(500));
    let compiled = compile(&plan, &Roster::default(), on("2026-11-23"), None, Generation(1)).unwrap();
    assert!(compiled.ruleset.sets.values().all(|set| !set.interval));
    assert!(compiled.ruleset.maps.values().all(|map| !map.interval));
    for length in [16, 24, 32] {
        let sources = &compiled.ruleset.sets[&format!("from4_{length}")].elements;
        let egress: BTreeSet<_> =
            compiled.ruleset.maps[&format!("out4_{length}")].elements.keys().cloned().collect();
        assert_eq!(*sources, egress, "/{length}");
    }
    for (id, school) in &plan.schools {
        assert!(egress4(&plan, id, school).is_some());
    }
}

#[test]
fn no_route_leads_from_the_tunnel_into_it() {
    let plan = compiled(EXAMPLE);
    let tunnel = InterfaceName::new(TUNNEL).unwrap();
    let lo = InterfaceName::new("lo").unwrap();
    for rule in &plan.rules {
        let iif = rule.matches.iif.as_ref();
        assert!(iif.is_some(), "a rule for whatever comes from anywhere: {rule:?}");
        if iif == Some(&tunnel) {
            let RuleAction::Table(table) = rule.action else { continue };
            let inwards =
                plan.routes.iter().filter(|route| route.table == table).any(|route| match &route.kind {
                    RouteKind::Onlink { interface, .. } | RouteKind::Via { interface, .. } => {
                        *interface == tunnel
                    }
                    RouteKind::Prohibit => false,
                });
            assert!(!inwards, "{rule:?}");
        }
    }
    // Whatever is not marked, and not our own, is prohibited before anything else is asked.
    let first: BTreeMap<_, _> = plan.rules.iter().map(|rule| (rule.priority, rule)).collect();
    let (priority, _) = first.first_key_value().unwrap();
    assert_eq!(*priority, 90);
    let shut: BTreeSet<_> = plan
        .rules
        .iter()
        .filter(|rule| rule.priority == 90 && rule.action == RuleAction::Prohibit)
        .filter_map(|rule| rule.matches.iif.as_ref())
        .collect();
    let all: BTreeSet<_> = plan.links.iter().map(|link| &link.name).collect();
    assert_eq!(shut, all);
    assert!(!shut.contains(&lo));
}

#[test]
fn a_key_that_takes_over_lets_its_holder_in_before_its_sources_are_its() {
    let keys = "keys = [\n    { public_key = \"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\", until = \"2027-03-31\" }";
    assert!(EXAMPLE.contains(keys));
    let plan = plan(EXAMPLE);
    let roster = Roster::default();
    let peers = |date: &str| {
        let compiled = compile(&plan, &roster, on(date), None, Generation(1)).unwrap();
        let tunnel = compiled.tunnels.values().next().unwrap().clone();
        tunnel.peers.into_iter().map(|(key, peer)| (key.0[0], peer.allowed.len())).collect::<Vec<_>>()
    };
    assert_eq!(peers("2026-11-23"), [(1, 2), (3, 1), (4, 1)]);
    assert_eq!(peers("2027-03-15"), [(1, 2), (2, 0), (3, 1), (4, 1)]);
    assert_eq!(peers("2027-04-01"), [(2, 2), (3, 1), (4, 1)]);
}
