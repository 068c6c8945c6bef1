//! The groups of measurements over real gateways.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use seimon_core::network_plan::{
    Element, Key, KeyPart, Mark, NetworkPlan, PathChoice, Value, current_element,
};
use seimon_plan::{GroupId, PathId, ZoneId};

use super::gate::{BARE, Gate, LISTED, OPEN, Rules, fill, linear, move_time, plan};
use super::{Bench, Pairs, run_pairs};
use crate::result::{Check, Goal};

type Say<'a> = &'a mut dyn FnMut(&str);

const FLOOD: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_millis(700);

/// Steady forwarding against the bare ruleset.
pub(super) fn forward(_: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let mut ours = Gate::raise("ours", &Rules::Ours(&plan(10)?))?;
    let mut bare = Gate::raise("bare", &Rules::Script(BARE))?;
    say("   tcp");
    let goal = Goal::AtLeast(0.97);
    let pairs = Pairs::default();
    let tcp = run_pairs("forward_vs_limit.tcp", pairs, goal, || ours.tcp(FLOOD), || bare.tcp(FLOOD))?;
    say("   udp64");
    let udp = run_pairs("forward_vs_limit.udp64", pairs, goal, || ours.udp64(FLOOD), || bare.udp64(FLOOD))?;
    Ok(vec![tcp, udp])
}

/// New connections a second, against the limit and against linear rules.
pub(super) fn newconn(_: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let pairs = Pairs::default();
    let bare = Gate::raise("bare", &Rules::Script(BARE))?;
    let ours = Gate::raise("ours", &Rules::Ours(&plan(1000)?))?;
    say("   against the limit");
    let limit = run_pairs(
        "newconn_vs_limit",
        pairs,
        Goal::AtLeast(0.95),
        || ours.new_connections(OPEN, CONNECT),
        || bare.new_connections(OPEN, CONNECT),
    )?;
    say("   against linear rules, 1,000 permits");
    let linear = Gate::raise("linear", &Rules::Script(&linear(1000)))?;
    let against = run_pairs(
        "newconn_vs_linear",
        pairs,
        Goal::AtLeast(5.0),
        || ours.new_connections(LISTED, CONNECT),
        || linear.new_connections(LISTED, CONNECT),
    )?;
    Ok(vec![limit, against])
}

/// Cost of a connection's first packets: 10,000 permitted destinations against 10.
pub(super) fn firstpacket(_: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    say("   raising a gateway with 10,000 permitted destinations");
    let few = Gate::raise("few", &Rules::Ours(&plan(10)?))?;
    let many = Gate::raise("many", &Rules::Ours(&plan(10_000)?))?;
    // Cost is time a connection: the inverse of the rate.
    let growth = run_pairs(
        "firstpacket_growth",
        Pairs::default(),
        Goal::AtMost(1.05),
        || few.new_connections(LISTED, CONNECT),
        || many.new_connections(LISTED, CONNECT),
    )?;
    Ok(vec![growth.with_note("10 destinations a permit")])
}

/// One group's move in force: 100,000 learnt names against 100.
pub(super) fn moving(_: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let network = plan(10)?;
    let few = Gate::raise("few", &Rules::Ours(&network))?;
    let many = Gate::raise("many", &Rules::Ours(&network))?;
    fill(&few, names(100))?;
    say("   filling a map with 100,000 elements");
    fill(&many, names(100_000))?;
    let (there, back) = (element(&network, "closed")?, element(&network, "direct")?);
    let check = run_pairs(
        "move_latency_growth",
        Pairs::default(),
        Goal::AtMost(1.2),
        || move_time(&many, &there, &back, 200),
        || move_time(&few, &there, &back, 200),
    )?;
    let micros = move_time(&many, &there, &back, 200)?;
    Ok(vec![check.with_note(format!("a move among 100,000 elements takes {micros:.0} µs"))])
}

fn element(network: &NetworkPlan, path: &str) -> Result<Element> {
    let choice = PathChoice::On(PathId::new(path)?);
    current_element(&network.allocation, &ZoneId::new("affairs")?, &GroupId::new("affairs")?, &choice)
        .context("the plan has no such group")
}

/// Elements of the map of learnt addresses.
fn names(count: u32) -> Vec<Element> {
    (0..count)
        .map(|n| Element {
            container: "real4".into(),
            key: Key(vec![KeyPart::Mark(Mark(1)), KeyPart::Ipv4(Ipv4Addr::from(0x6480_0000 + n))]),
            value: Some(Value::Ipv4(Ipv4Addr::from(0xcb00_7150))),
        })
        .collect()
}
