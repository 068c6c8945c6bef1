//! The groups of measurements over real gateways.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use seimon_core::network_plan::{
    Element, Key, KeyPart, Mark, NetworkPlan, PathChoice, Value, current_element,
};
use seimon_plan::{GroupId, PathId, ZoneId};

use super::flood::{Flood, From};
use super::gate::{BARE, Gate, LISTED, OPEN, PORT, Rules, fill, move_time, plan, walked};
use super::generator::{Mode, Round};
use super::pairs::Sample;
use super::steady::{Connection, Datagrams};
use super::{Bench, Pairs, cost, run_pairs};
use crate::result::{Check, Goal};

type Say<'a> = &'a mut dyn FnMut(&str);

/// Steady forwarding against the bare ruleset.
pub(super) fn forward(_: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let ours = Gate::raise("ours", &Rules::Ours(&plan(10)?))?;
    let bare = Gate::raise("bare", &Rules::Script(BARE))?;
    let goal = Goal::AtLeast(0.97);
    say("   tcp");
    let (a, b) = (Connection::new(&ours)?, Connection::new(&bare)?);
    let tcp = run_pairs("forward_vs_limit.tcp", Pairs::default(), goal, || a.sample(), || b.sample())?;
    let words = |bits: f64| format!("{:.1} Gbit/s", bits / 1e9);
    let tcp = remark(tcp, &format!("ours: {}; bare: {}", words(a.sample()?.value), words(b.sample()?.value)));
    say("   udp64");
    let (a, b) = (Datagrams::new(Mode::Apart, &ours)?, Datagrams::new(Mode::Apart, &bare)?);
    let udp = run_pairs("forward_vs_limit.udp64", Pairs::default(), goal, || a.sample(), || b.sample())?;
    let udp = noted(udp, ("ours", a.round()?), ("bare", b.round()?));
    drop((a, b));
    say("   udp64, in processor time");
    let (a, b) = (Datagrams::new(Mode::Together, &ours)?, Datagrams::new(Mode::Together, &bare)?);
    let cost = cost::compare("forward_vs_limit.udp64_cpu", goal, &a, &b)?;
    Ok(vec![tcp, udp, cost])
}

/// New flows a second, against the limit and against linear rules.
pub(super) fn newconn(_: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let bare = Gate::raise("bare", &Rules::Script(BARE))?;
    let ours = Gate::raise("ours", &Rules::Ours(&plan(1000)?))?;
    say("   against the limit");
    let open: Ipv4Addr = OPEN.parse()?;
    let (a, b) =
        (Flood::new(&ours, From::Learning, open, PORT)?, Flood::new(&bare, From::Learning, open, PORT)?);
    let limit =
        run_pairs("newconn_vs_limit", Pairs::default(), Goal::AtLeast(0.95), || a.sample(), || b.sample())?;
    let limit = noted(limit, ("ours", a.round()?), ("bare", b.round()?));
    say("   against the limit, in processor time");
    let together = |gate| Flood::in_mode(Mode::Together, gate, From::Learning, open, PORT);
    let cost =
        cost::compare("newconn_vs_limit_cpu", Goal::AtLeast(0.95), &together(&ours)?, &together(&bare)?)?;
    drop((ours, bare));
    say("   against linear rules, 1,000 permits");
    let (hashed, walked, last) = walked(1000)?;
    let ours = Gate::raise("hash", &Rules::Ours(&hashed))?;
    let linear = Gate::raise("linear", &Rules::Ours(&walked))?;
    let (a, b) =
        (Flood::new(&ours, From::Affairs, last, 443)?, Flood::new(&linear, From::Affairs, last, 443)?);
    let against =
        run_pairs("newconn_vs_linear", Pairs::default(), Goal::AtLeast(5.0), || a.sample(), || b.sample())?;
    Ok(vec![limit, cost, noted(against, ("ours", a.round()?), ("linear", b.round()?))])
}

/// Cost of a connection's first packets: 10,000 permitted destinations against 10.
pub(super) fn firstpacket(_: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    say("   raising a gateway with 10,000 permitted destinations");
    let few = Gate::raise("few", &Rules::Ours(&plan(10)?))?;
    let many = Gate::raise("many", &Rules::Ours(&plan(10_000)?))?;
    let to: Ipv4Addr = LISTED.parse()?;
    let (a, b) = (Flood::new(&few, From::Affairs, to, PORT)?, Flood::new(&many, From::Affairs, to, PORT)?);
    // Cost is time a flow: the inverse of the rate.
    let growth =
        run_pairs("firstpacket_growth", Pairs::default(), Goal::AtMost(1.05), || a.sample(), || b.sample())?;
    Ok(vec![noted(growth, ("10", a.round()?), ("10,000, ten a permit", b.round()?))])
}

/// One more round of each, in words: what the ratio is a ratio of, and whether the gateway was the limit.
fn noted(check: Check, one: (&str, Round), other: (&str, Round)) -> Check {
    let words = |(name, round): (&str, Round)| {
        format!(
            "{name}: {:.0}/s, {:.1} % of the offered arrived, {:.0} % of the time waiting for the gateway",
            round.rate,
            100.0 * round.arrived,
            100.0 * round.waited
        )
    };
    remark(check, &format!("{}; {}", words(one), words(other)))
}

fn remark(check: Check, more: &str) -> Check {
    let note = check.note.as_ref().map_or_else(|| more.to_owned(), |before| format!("{before}; {more}"));
    check.with_note(note)
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
        || Sample::of(|| move_time(&many, &there, &back, 200)),
        || Sample::of(|| move_time(&few, &there, &back, 200)),
    )?;
    let micros = move_time(&many, &there, &back, 200)?;
    Ok(vec![remark(check, &format!("a move among 100,000 elements takes {micros:.0} µs"))])
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
