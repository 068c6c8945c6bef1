//! What others do is told; what we do is not.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use seimon_core::network_plan::{Change, Element, Key, KeyPart, Mark, Route, RouteKind, Value, Verdict};
use seimon_dataplane::{Event, Linux, Watch};

use crate::{TABLE, apply, in_fresh_namespace, interface, nft, sh};

/// Events up to the first that `last` accepts.
fn until(watch: &mut Watch, last: impl Fn(&Event) -> bool) -> Result<Vec<Event>> {
    let mut all = Vec::new();
    let patience = Timespec::try_from(Duration::from_secs(5))?;
    loop {
        all.extend(watch.events());
        if all.iter().any(&last) {
            return Ok(all);
        }
        let ready = poll(&mut [PollFd::new(&watch.as_fd(), PollFlags::IN)], Some(&patience))?;
        ensure!(ready > 0, "nothing more was told after {all:?}");
    }
}

#[test]
fn only_others_changes_of_our_table_are_told() -> Result<()> {
    in_fresh_namespace("watch::only_others_changes_of_our_table_are_told", || {
        let mut linux = Linux::open()?;
        let mut watch = linux.watch()?;
        apply(&mut linux, [nft(TABLE)])?;
        let moved = Element {
            container: "current".into(),
            key: Key(vec![KeyPart::Mark(Mark(0x100))]),
            value: Some(Value::Verdict(Verdict::Drop)),
        };
        apply(&mut linux, [Change::Elements { remove: vec![moved.clone()], add: vec![moved] }])?;
        sh("nft add table inet other; nft add chain inet other pre")?;
        sh("nft add element inet seimon current { 0x900 : accept }")?;
        let events = until(&mut watch, |event| matches!(event, Event::TableChanged { .. }))?;
        ensure!(events.len() == 1, "{events:?}");
        ensure!(matches!(&events[0], Event::TableChanged { name, .. } if name == "nft"), "{events:?}");
        sh("nft flush ruleset")?;
        let events = until(&mut watch, |event| matches!(event, Event::TableChanged { .. }))?;
        ensure!(events.len() == 1, "{events:?}");
        Ok(())
    })
}

#[test]
fn links_are_followed_through_their_lives() -> Result<()> {
    in_fresh_namespace("watch::links_are_followed_through_their_lives", || {
        let linux = Linux::open()?;
        let mut watch = linux.watch()?;
        sh(
            "ip link add p1 type veth peer x1; ip link set p1 up; ip link set p1 down; ip link set p1 name q1; ip link set q1 up; ip link del q1",
        )?;
        let (p1, q1) = (interface("p1"), interface("q1"));
        let mut events = until(&mut watch, |event| *event == Event::LinkGone(interface("q1")))?;
        events.retain(|event| !format!("{event:?}").contains("x1"));
        let expected = [
            Event::LinkUp(p1.clone()),
            Event::LinkDown(p1.clone()),
            Event::LinkRenamed { from: p1, to: q1.clone() },
            Event::LinkUp(q1.clone()),
            Event::LinkDown(q1.clone()),
            Event::LinkGone(q1),
        ];
        ensure!(events == expected, "{events:?}");
        Ok(())
    })
}

#[test]
fn only_others_changes_of_our_routes_and_rules_are_told() -> Result<()> {
    in_fresh_namespace("watch::only_others_changes_of_our_routes_and_rules_are_told", || {
        sh("ip link add p1 type veth peer x1; ip link set p1 up; ip link set x1 up")?;
        let mut linux = Linux::open()?;
        let mut watch = linux.watch()?;
        let kind = RouteKind::Onlink { interface: interface("p1"), source: None };
        let route = Route { table: 0x5e00, destination: "10.9.0.0/16".parse()?, kind, mtu: None };
        apply(&mut linux, [Change::RouteReplace(route)])?;
        sh("ip route add 10.8.0.0/16 dev p1; ip rule add pref 7 fwmark 7 table 100")?;
        sh("ip route del 10.9.0.0/16 table 0x5e00; ip link set x1 name x2")?;
        let renamed = |event: &Event| matches!(event, Event::LinkRenamed { .. });
        let events = until(&mut watch, renamed)?;
        let told = events.iter().filter(|event| **event == Event::RoutingChanged).count();
        ensure!(told == 1, "{events:?}");
        Ok(())
    })
}
