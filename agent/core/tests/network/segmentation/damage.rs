//! The judge judged: each thing that could go wrong in a table is found.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use seimon_core::network_plan::{Key, NetworkPlan, Value, Verdict};

use super::shapes::{PacketShape, packet, shape};
use super::site::Site;
use super::{follow, judge};
use crate::interpreter::Fate;

/// What could go wrong in the table, one thing at a time. `false`: this plan has no such thing.
type Damage = fn(&mut NetworkPlan) -> bool;

const DAMAGES: [(&str, Damage); 12] = [
    ("zones do not look at IPv4 sources", |net| cut(net, "zone4_", "ip saddr !=")),
    ("zones do not look at IPv6 sources", |net| cut(net, "zone6_", "ip6 saddr !=")),
    ("open zones reach what is private", |net| rewrite(net, "look4_", "ip daddr @internet4 goto", "goto")),
    ("clients do not keep their path", |net| cut(net, "zg_", "@aff_")),
    ("a log-in over IPv4 goes on over IPv6", |net| cut(net, "zg_", "@twin6")),
    ("probe hosts are not pinned", |net| cut(net, "probe4_", "ct mark set")),
    ("a probe host reaches the hub over another path", |net| cut(net, "probe4_", "ip daddr 1")),
    ("named services do not become their real addresses", |net| cut(net, "to_real", "dnat ip to")),
    ("the bits of others are lost", |net| {
        rewrite(net, "use_", "ct mark set ct mark & 0xfff00000", "ct mark set ct mark & 0x00000000")
    }),
    ("packets do not get their path's mark", |net| {
        rewrite(net, "as_local", "| 0x000000fe accept", "| 0x00000000 accept")
    }),
    ("the gateway is part of permitted zones", |net| {
        let map = net.ruleset.maps.get_mut("permit4").unwrap();
        let before = map.elements.len();
        map.elements.retain(|_, value| *value != Value::Verdict(Verdict::Goto("refuse".into())));
        before != map.elements.len()
    }),
    ("somebody else's permit holds as well", |net| {
        let others: Vec<Key> = net.ruleset.maps["arrivals"].elements.keys().cloned().collect();
        let map = net.ruleset.maps.get_mut("permit4").unwrap();
        let before = map.elements.clone();
        for (key, value) in &before {
            for other in &others {
                let mut key = key.clone();
                key.0[0] = other.0[0].clone();
                map.elements.entry(key).or_insert_with(|| value.clone());
            }
        }
        before != map.elements
    }),
];

/// Takes out the rules of those chains that have the words.
fn cut(net: &mut NetworkPlan, chains: &str, words: &str) -> bool {
    let mut done = false;
    for (_, chain) in net.ruleset.chains.iter_mut().filter(|(name, _)| name.starts_with(chains)) {
        let before = chain.rules.len();
        chain.rules.retain(|rule| !rule.text.contains(words));
        done |= before != chain.rules.len();
    }
    done
}

fn rewrite(net: &mut NetworkPlan, chains: &str, from: &str, to: &str) -> bool {
    let mut done = false;
    for (_, chain) in net.ruleset.chains.iter_mut().filter(|(name, _)| name.starts_with(chains)) {
        for rule in &mut chain.rules {
            done |= rule.text.contains(from);
            rule.text = rule.text.replace(from, to);
        }
    }
    done
}

#[test]
fn whatever_is_damaged_is_found_out() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let packets: Vec<PacketShape> =
        (0..400).map(|_| packet().new_tree(&mut runner).unwrap().current()).collect();
    let mut left: Vec<_> = DAMAGES.to_vec();
    for _ in 0..100 {
        let whole = Site::build(&shape().new_tree(&mut runner).unwrap().current());
        left.retain(|(_, damage)| {
            let mut net = whole.net.clone();
            let site = |net| Site { net, ..whole.clone() };
            !damage(&mut net) || !is_found(&site(net), &packets)
        });
        if left.is_empty() {
            return;
        }
    }
    panic!("not found: {:?}", left.iter().map(|(name, _)| name).collect::<Vec<_>>());
}

fn is_found(site: &Site, packets: &[PacketShape]) -> bool {
    let mut machine = site.machine();
    let learnt = machine.learnt.clone();
    packets.iter().any(|shape| {
        let (zone, sent, client) = site.packet(shape);
        machine.learnt.clone_from(&learnt);
        let fate = machine.send(sent.clone());
        judge(site, &zone, &sent, &client, &fate).is_err()
            || matches!(&fate, Fate::Forwarded { oif, packet } if follow(&mut machine, site, &sent, oif, packet).is_err())
    })
}
