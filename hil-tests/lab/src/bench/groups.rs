//! The groups of measurements over real gateways.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use seimon_core::network_plan::{
    Element, Key, KeyPart, Mark, NetworkPlan, PathChoice, Value, current_element,
};
use seimon_plan::{GroupId, PathId, ZoneId};

use super::flood::{Flood, From, Round};
use super::gate::{BARE, Gate, LISTED, OPEN, PORT, Rules, fill, move_time, plan, walked};
use super::{Bench, Pairs, run_pairs};
use crate::result::{Check, Goal};

type Say<'a> = &'a mut dyn FnMut(&str);

const FLOOD: Duration = Duration::from_secs(1);

/// Steady forwarding against the bare ruleset.
pub(super) fn forward(_: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let mut ours = Gate::raise("ours", &Rules::Ours(&plan(10)?))?;
    let mut bare = Gate::raise("bare", &Rules::Script(BARE))?;
    say("   tcp");
    let goal = Goal::AtLeast(0.97);
    // Two seconds a pair: more would make the whole bench too long.
    let pairs = Pairs { most: 30, ..Pairs::default() };
    let tcp = run_pairs("forward_vs_limit.tcp", pairs, goal, || ours.tcp(FLOOD), || bare.tcp(FLOOD))?;
    say("   udp64");
    let udp = run_pairs("forward_vs_limit.udp64", pairs, goal, || ours.udp64(FLOOD), || bare.udp64(FLOOD));
    let udp = udp.unwrap_or_else(|error| {
        say(&format!("   no answer: {error:#}"));
        Check::number("forward_vs_limit.udp64", None, "ratio", goal)
    });
    Ok(vec![tcp, udp])
}

/// New flows a second, against the limit and against linear rules.
pub(super) fn newconn(_: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let bare = Gate::raise("bare", &Rules::Script(BARE))?;
    let ours = Gate::raise("ours", &Rules::Ours(&plan(1000)?))?;
    say("   against the limit");
    let open: Ipv4Addr = OPEN.parse()?;
    let (a, b) =
        (Flood::new(&ours, From::Learning, open, PORT)?, Flood::new(&bare, From::Learning, open, PORT)?);
    let limit = run_pairs("newconn_vs_limit", Pairs::SHORT, Goal::AtLeast(0.95), || a.rate(), || b.rate())?;
    let limit = noted(limit, "ours", &a, "bare", &b)?;
    drop((ours, bare));
    say("   against linear rules, 1,000 permits");
    let (hashed, walked, last) = walked(1000)?;
    let ours = Gate::raise("hash", &Rules::Ours(&hashed))?;
    let linear = Gate::raise("linear", &Rules::Ours(&walked))?;
    let (a, b) =
        (Flood::new(&ours, From::Affairs, last, 443)?, Flood::new(&linear, From::Affairs, last, 443)?);
    let against = run_pairs("newconn_vs_linear", Pairs::SHORT, Goal::AtLeast(5.0), || a.rate(), || b.rate())?;
    Ok(vec![limit, noted(against, "ours", &a, "linear", &b)?])
}

/// Cost of a connection's first packets: 10,000 permitted destinations against 10.
pub(super) fn firstpacket(_: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    say("   raising a gateway with 10,000 permitted destinations");
    let few = Gate::raise("few", &Rules::Ours(&plan(10)?))?;
    let many = Gate::raise("many", &Rules::Ours(&plan(10_000)?))?;
    let to: Ipv4Addr = LISTED.parse()?;
    let (a, b) = (Flood::new(&few, From::Affairs, to, PORT)?, Flood::new(&many, From::Affairs, to, PORT)?);
    // Cost is time a flow: the inverse of the rate.
    let growth = run_pairs("firstpacket_growth", Pairs::SHORT, Goal::AtMost(1.05), || a.rate(), || b.rate())?;
    Ok(vec![noted(growth, "10", &a, "10,000, ten a permit", &b)?])
}

/// One more round of each, in words: what the ratio is a ratio of, and that the gateway was the limit.
fn noted(check: Check, one: &str, a: &Flood<'_>, other: &str, b: &Flood<'_>) -> Result<Check> {
    let words = |name: &str, round: Round| {
        format!("{name}: {:.0}/s, {:.0} % of the offered", round.rate, 100.0 * round.share)
    };
    let mut note = format!("{}; {}", words(one, a.round()?), words(other, b.round()?));
    if let Some(before) = &check.note {
        note = format!("{before}; {note}");
    }
    Ok(check.with_note(note))
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
