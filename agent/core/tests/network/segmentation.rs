//! The table that a plan becomes, read packet by packet, against what the plan says.

mod damage;
mod shapes;
mod site;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use seimon_core::network_plan::bridge_name;
use seimon_plan::{PathId, ZoneId};

use self::shapes::{packet, shape};
use self::site::Site;
use crate::interpreter::{Fate, Machine, Packet};
use crate::oracle::{Client, Expected, Question, Town};

/// Lines and the tunnel, if there is one.
const OUTSIDE: [&str; 3] = ["wan1", "wan2", "wg-closed"];

fn uplink(site: &Site, path: &PathId) -> &'static str {
    match (path.as_str(), &site.plan.paths[path].wireguard) {
        ("closed", Some(_)) => "wg-closed",
        ("closed", None) => "wan1",
        _ => "wan2",
    }
}

/// What came of it is what the plan says, and the invariants hold whatever it says.
fn judge(
    site: &Site,
    zone: &ZoneId,
    sent: &Packet,
    client: &Client,
    fate: &Fate,
) -> Result<Expected, TestCaseError> {
    let town =
        Town { plan: &site.plan, allocation: &site.net.allocation, choice: &site.choice, real: &site.real };
    let question = Question { zone, client, to: sent.destination, protocol: sent.protocol, port: sent.port };
    let expected = town.expect(&question);
    let good = match (&expected, fate) {
        (Expected::No, Fate::Refused | Fate::Dropped) | (Expected::Gateway, Fate::Delivered(_)) => true,
        (Expected::Zone(to), Fate::Forwarded { oif, packet }) => {
            *oif == bridge_name(to).unwrap().to_string() && packet.destination == sent.destination
        }
        (Expected::Path(path, to), Fate::Forwarded { oif, packet }) => {
            let index = site.net.allocation.paths[path];
            oif == uplink(site, path)
                && packet.destination == *to
                && packet.ct_mark & 0xff == u32::from(index.0)
                && packet.mark & 0xff == u32::from(index.0)
        }
        (Expected::No | Expected::Gateway | Expected::Zone(_) | Expected::Path(..), _) => false,
    };
    prop_assert!(good, "{client:?} sends {sent:?}\nplan: {expected:?}\ntable: {fate:?}");
    if matches!((&expected, client), (Expected::No, Client::Machine { .. })) {
        prop_assert!(*fate == Fate::Refused, "not at once: {sent:?} {fate:?}");
    }
    if let Fate::Forwarded { oif, packet } = fate {
        others_bits_stay(sent, packet)?;
        let inside = [IpNet::V4(site.plan.inside.ipv4), IpNet::V6(site.plan.inside.ipv6)];
        prop_assert!(!inside.iter().any(|net| net.contains(&packet.destination)), "inside address on {oif}");
    }
    if let Fate::Delivered(packet) = fate {
        others_bits_stay(sent, packet)?;
    }
    Ok(expected)
}

fn others_bits_stay(before: &Packet, after: &Packet) -> Result<(), TestCaseError> {
    prop_assert_eq!(before.ct_mark & 0xfff0_0000, after.ct_mark & 0xfff0_0000, "ct mark of others");
    prop_assert_eq!(before.mark & 0xffff_ff00, after.mark & 0xffff_ff00, "packet mark of others");
    Ok(())
}

/// The flow's next packets, both ways, and what others make of its numbers.
fn follow(
    machine: &mut Machine<'_>,
    site: &Site,
    sent: &Packet,
    oif: &str,
    first: &Packet,
) -> Result<(), TestCaseError> {
    let next = Packet { state: "established", mark: sent.mark, ..first.clone() };
    match machine.send(next.clone()) {
        Fate::Forwarded { oif: again, packet } => {
            prop_assert_eq!(&again, oif, "the flow changed its way");
            prop_assert_eq!((packet.ct_mark, packet.mark), (first.ct_mark, first.mark));
        }
        other @ (Fate::Delivered(_) | Fate::Refused | Fate::Dropped) => {
            prop_assert!(false, "the flow ended: {other:?}")
        }
    }
    let answer = Packet {
        iif: oif.to_owned(),
        source: first.destination,
        destination: sent.source,
        source_port: first.port,
        port: first.source_port,
        ..next.clone()
    };
    match machine.send(answer) {
        Fate::Forwarded { oif: back, packet } => {
            prop_assert_eq!(&back, &sent.iif, "the answer went elsewhere");
            others_bits_stay(sent, &packet)?;
        }
        other @ (Fate::Delivered(_) | Fate::Refused | Fate::Dropped) => {
            prop_assert!(false, "the answer was lost: {other:?}")
        }
    }
    // Errors about the flow: from where its answers come from, and from nowhere else.
    let error = Packet {
        state: "related",
        iif: oif.to_owned(),
        source: first.destination,
        destination: sent.source,
        protocol: 1,
        port: 0,
        source_port: 0,
        ..next.clone()
    };
    let error = Packet { protocol: if sent.source.is_ipv4() { 1 } else { 58 }, ..error };
    let fate = machine.send(error.clone());
    prop_assert!(
        matches!(&fate, Fate::Forwarded { oif, .. } if *oif == sent.iif),
        "an error is lost: {fate:?}"
    );
    for (zone, written) in &site.plan.zones {
        let iif = bridge_name(zone).unwrap().to_string();
        let own = match sent.source {
            IpAddr::V4(_) => Some(IpAddr::V4(written.ipv4.addr())),
            IpAddr::V6(_) => written.ipv6.map(|net| net.addr().into()),
        };
        // Within the school, any pair of zones with a permit may speak of each other's flows.
        let joined = !OUTSIDE.contains(&oif) && site.joined(zone, &sent.iif);
        let Some(own) = own.filter(|_| iif != sent.iif && iif != oif && !joined) else { continue };
        let fate = machine.send(Packet { iif, source: own, ..error.clone() });
        prop_assert!(matches!(fate, Fate::Dropped | Fate::Refused), "a forged error from {zone}: {fate:?}");
    }
    for line in &OUTSIDE[..if site.net.tunnels.is_empty() { 2 } else { 3 }] {
        let fate = machine.send(Packet { iif: (*line).into(), ..next.clone() });
        let out = matches!(&fate, Fate::Forwarded { oif, .. } if OUTSIDE.contains(&oif.as_str()));
        prop_assert!(!out, "forged from {line}: {fate:?}");
    }
    // For IPv4 this is the kernel's rp_filter, which is not modelled.
    for other in site.plan.zones.keys().map(|zone| bridge_name(zone).unwrap().to_string()) {
        if sent.source.is_ipv6() && other != sent.iif {
            let fate = machine.send(Packet { iif: other, ..next.clone() });
            prop_assert!(matches!(fate, Fate::Dropped | Fate::Refused), "forged in another zone: {fate:?}");
        }
    }
    Ok(())
}

/// How often each kind of answer came up, so that none is left untried.
#[derive(Debug, Default)]
struct Tally(BTreeMap<&'static str, usize>);

impl Tally {
    fn count(&mut self, expected: &Expected, client: &Client) {
        let what = match (expected, client) {
            (Expected::No, Client::Forged) => "forged",
            (Expected::No, Client::Machine { .. } | Client::Probe(_)) => "refused",
            (Expected::Gateway, _) => "gateway",
            (Expected::Zone(_), _) => "zone",
            (Expected::Path(..), Client::Probe(_)) => "probe",
            (Expected::Path(..), Client::Machine { .. } | Client::Forged) => "path",
        };
        *self.0.entry(what).or_default() += 1;
    }
}

#[test]
fn every_packet_meets_what_the_plan_says() {
    const PLANS: u32 = 400;
    let tally = std::cell::RefCell::new(Tally::default());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(PLANS));
    let cases = (shape(), prop::collection::vec(packet(), 40));
    let result = runner.run(&cases, |(shape, packets)| {
        let site = Site::build(&shape);
        let mut machine = site.machine();
        let learnt = machine.learnt.clone();
        for shape in &packets {
            let (zone, sent, client) = site.packet(shape);
            machine.learnt.clone_from(&learnt);
            let fate = machine.send(sent.clone());
            let expected = judge(&site, &zone, &sent, &client, &fate)?;
            if let Fate::Forwarded { oif, packet } = &fate {
                follow(&mut machine, &site, &sent, oif, packet)?;
            }
            tally.borrow_mut().count(&expected, &client);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let tally = tally.into_inner().0;
    println!("{tally:?}");
    for what in ["forged", "refused", "gateway", "zone", "probe", "path"] {
        assert!(tally.get(what).is_some_and(|count| *count >= 50), "{what} is hardly tried: {tally:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_lines_begin_nothing(shape in shape(), packets in prop::collection::vec((packet(), 0..3usize), 20)) {
        let site = Site::build(&shape);
        let mut machine = site.machine();
        for (shape, line) in &packets {
            let (_, sent, _) = site.packet(shape);
            // Not every plan has the tunnel.
            let line = if site.net.tunnels.is_empty() { line % 2 } else { *line };
            let sent = Packet { iif: OUTSIDE[line].into(), ..sent };
            match machine.send(sent.clone()) {
                Fate::Refused | Fate::Dropped => {}
                Fate::Delivered(packet) => {
                    prop_assert!([1, 58].contains(&packet.protocol), "{packet:?}");
                    others_bits_stay(&sent, &packet)?;
                }
                Fate::Forwarded { oif, packet } => prop_assert!(false, "{sent:?} left by {oif}: {packet:?}"),
            }
        }
    }
}

#[test]
fn a_statement_that_the_reader_does_not_know_is_an_error() {
    assert!(crate::interpreter::parse("ct mark & 0xff vmap @restore").is_ok());
    for text in ["quota over 5 mbytes drop", "ip ttl 3 drop", "meta mark set 7", "queue num 1"] {
        assert!(crate::interpreter::parse(text).is_err(), "{text}");
    }
}
