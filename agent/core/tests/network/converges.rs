//! Observed → diff → applied → verified, against the smallest model of a kernel.

use std::collections::BTreeMap;

use seimon_core::network_plan::{
    Allocation, ChainState, Change, Discrepancy, NetworkPlan, Observed, Peer, PeerState, TableState, Tunnel,
    TunnelState, diff, verify,
};
use seimon_plan::WireguardKey;

use crate::common;

/// A tunnel that is as planned.
fn met(tunnel: &Tunnel) -> TunnelState {
    let peer = |peer: &Peer| PeerState {
        endpoint: peer.endpoint,
        allowed: peer.allowed.clone(),
        keepalive: peer.keepalive,
        ..PeerState::default()
    };
    TunnelState {
        own: Some(tunnel.own.unwrap_or(WireguardKey([9; 32]))),
        listen_port: tunnel.listen_port,
        mark: Some(tunnel.mark),
        peers: tunnel.peers.iter().map(|(key, intended)| (*key, peer(intended))).collect(),
    }
}

/// What a kernel shows that agrees with the plan.
pub(crate) fn in_force(net: &NetworkPlan) -> Observed {
    let ruleset = &net.ruleset;
    let sets = ruleset.sets.iter().map(|(name, set)| (name.clone(), set.fingerprint()));
    let maps = ruleset.maps.iter().map(|(name, map)| (name.clone(), map.fingerprint()));
    let table = TableState {
        flowtable: ruleset.flowtable.clone().map(|flowtable| flowtable.devices),
        chains: ruleset
            .chains
            .iter()
            .map(|(name, chain)| {
                let rule_tags = chain.rules.iter().map(|rule| Some(rule.tag(name))).collect();
                let state = ChainState { base: chain.kind.fingerprint(), rule_tags, digest: String::new() };
                (name.clone(), state)
            })
            .collect(),
        containers: sets.chain(maps).collect(),
        elements: ruleset
            .maps
            .iter()
            .map(|(name, map)| {
                let all = map.elements.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
                (name.clone(), all.collect())
            })
            .chain(ruleset.sets.iter().filter(|(_, set)| set.dynamic.is_none()).map(|(name, set)| {
                (name.clone(), set.elements.iter().map(|key| (key.clone(), None)).collect::<BTreeMap<_, _>>())
            }))
            .collect(),
    };
    let ports = ["wan1", "wan2", "lan1", "lan2", "lan3"].map(|name| name.parse().unwrap());
    Observed {
        interfaces: net.links.iter().map(|link| link.name.clone()).chain(ports).map(|n| (n, true)).collect(),
        links: net.links.clone(),
        tunnels: net.tunnels.iter().map(|(name, tunnel)| (name.clone(), met(tunnel))).collect(),
        addresses: net.addresses.iter().cloned().collect(),
        routes: net.routes.iter().cloned().collect(),
        rules: net.rules.iter().cloned().collect(),
        sysctls: net.sysctls.iter().map(|s| (s.path.clone(), s.value.clone())).collect(),
        table: Some(table),
    }
}

#[test]
fn nothing_is_changed_where_nothing_differs() {
    let net = common::compiled(&common::town());
    let observed = in_force(&net);
    assert!(diff(&observed, None, &net).changes.is_empty());
    assert_eq!(verify(&observed, &net), []);
}

#[test]
fn an_empty_kernel_gets_the_table_first_and_forwarding_last() {
    let net = common::compiled(&common::town());
    let changes = diff(&Observed::default(), None, &net).changes;
    assert!(matches!(&changes[0], Change::Nft { script } if script.contains("table inet seimon {")));
    assert!(matches!(changes.last(), Some(Change::SysctlSet(s)) if s.path == "net/ipv4/ip_forward"));
    let first = |test: fn(&Change) -> bool| changes.iter().position(test).unwrap();
    let rules = changes.iter().rposition(|c| matches!(c, Change::RuleAdd(_))).unwrap();
    assert!(rules < first(|c| matches!(c, Change::LinkUp(_))));
    assert!(first(|c| matches!(c, Change::AddressAdd(_))) < first(|c| matches!(c, Change::RouteReplace(_))));
}

#[test]
fn a_flushed_table_is_rebuilt_and_a_foreign_rule_in_it_too() {
    let net = common::compiled(&common::town());
    let mut observed = in_force(&net);
    let table = observed.table.as_mut().unwrap();
    table.chains.get_mut("between").unwrap().rule_tags.insert(0, None);
    assert_eq!(verify(&observed, &net), [Discrepancy::Chain("between".into())]);
    let whole = |observed: &Observed| {
        let changes = diff(observed, Some(&net), &net).changes;
        assert_eq!(changes.len(), 2, "the table, then the flowtable's devices");
        matches!(&changes[0], Change::Nft { script } if script.contains("delete table inet seimon\n"))
    };
    assert!(whole(&observed));
    observed.table = None;
    assert_eq!(verify(&observed, &net), [Discrepancy::TableMissing]);
    assert!(whole(&observed));
}

#[test]
fn a_locked_down_chain_is_refilled_without_losing_what_was_learnt() {
    let net = common::compiled(&common::town());
    let mut observed = in_force(&net);
    observed.table.as_mut().unwrap().chains.get_mut("between").unwrap().rule_tags.clear();
    let changes = diff(&observed, None, &net).changes;
    let [Change::Nft { script }] = changes.as_slice() else { panic!("{changes:?}") };
    assert!(script.starts_with("flush chain inet seimon between\n"), "{script}");
    assert!(!script.contains("delete"), "{script}");
}

#[test]
fn a_moved_element_goes_by_netlink() {
    let net = common::compiled(&common::town());
    let mut observed = in_force(&net);
    let current = observed.table.as_mut().unwrap().elements.get_mut("current").unwrap();
    let key = current.keys().next().unwrap().clone();
    current.remove(&key);
    let changes = diff(&observed, Some(&net), &net).changes;
    let [Change::Elements { remove, add }] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!((remove.len(), add.len(), &add[0].key), (0, 1, &key));
}

#[test]
fn numbers_outlive_what_they_were_given_to() {
    let full = common::town();
    let parent = Allocation::default().extend(&full).unwrap();
    let text = common::plan_text().replace("drill.school.example", "aaa.school.example");
    let child = parent.extend(&common::valid(&text)).unwrap();
    for (key, address) in &parent.inside {
        assert_eq!(child.inside.get(key), Some(address));
    }
    let fresh: Vec<_> = child.inside.iter().filter(|(key, _)| !parent.inside.contains_key(*key)).collect();
    assert_eq!(fresh.len(), 1);
    assert!(parent.inside.values().all(|old| old != fresh[0].1), "a retired address was given away");
    assert_eq!((child.paths, child.probes), (parent.paths, parent.probes));
}
