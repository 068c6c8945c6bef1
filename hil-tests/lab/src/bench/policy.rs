//! What passes while there is no policy: before the first one, and while others flush it away.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Bench;
use super::lived::{READY, Say, town};
use crate::load::spec::{Kind, LoadSpec};
use crate::result::{Check, Goal};
use crate::world::params::Topology;
use crate::world::{Happening, World};

const FLUSHES: u32 = 4;
const BETWEEN: Duration = Duration::from_secs(2);
/// Forbidden packets that an open gateway must let through for the check to mean anything.
const SEEN: f64 = 100.0;

/// Nothing of what the policy forbids may pass: not while the agent starts on a system that forwards already, not while
/// others flush its table, whether it runs or not, and nobody's permitted traffic may take another line meanwhile.
pub(super) fn policy(bench: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    say("   the same clients with a gateway that is open, to see that they would be seen");
    let open = open_gateway()?;
    let world = town(bench)?;
    let forwarding =
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    let done = world.command("gw", "sh")?.args(["-c", forwarding]).status()?;
    if !done.success() {
        bail!("forwarding could not be switched on");
    }
    intruders(&world)?;
    std::thread::sleep(Duration::from_secs(1));
    let mut tally = Tally { world: &world, since: Duration::ZERO, total: 0.0, parts: Vec::new() };
    let lines = ["carrier", "internet"];
    say("   start, with forwarding on");
    world.gateway()?.start(READY)?;
    std::thread::sleep(Duration::from_secs(3));
    tally.count("at the start", &lines)?;
    say("   others flush the tables");
    flush(&world, FLUSHES)?;
    tally.count("flushed", &lines)?;
    say("   others flush the tables while the agent is dead");
    world.perform(&Happening::new("gateway.kill", Some("agent")))?;
    flush(&world, 2)?;
    tally.count("flushed without agent", &lines)?;
    say("   start again");
    world.gateway()?.start(READY)?;
    std::thread::sleep(Duration::from_secs(3));
    tally.count("at the start again", &lines)?;
    say("   others flush the tables while teachers work over the closed line");
    let (flushed, served) = at_work(&world, &mut tally)?;
    // Without a control, nothing seen would prove nothing.
    let meant = open.lines >= SEEN && open.between >= SEEN && served >= SEEN;
    let check =
        Check::number("before_policy_packets", meant.then_some(tally.total), "packets", Goal::Equal(0.0));
    Ok(vec![check.with_note(format!(
        "{}; an open gateway in 3 s: {:.0}, between zones {:.0}; teachers were served {served:.0} times in {:.0} s",
        tally.parts.join(", "),
        open.lines,
        open.between,
        flushed.as_secs_f64()
    ))])
}

/// Permitted traffic of the closed line flows; returns for how long, and how often the users were served.
fn at_work(world: &World, tally: &mut Tally<'_>) -> Result<(Duration, f64)> {
    world.start_load(LoadSpec {
        count: 30,
        service: Some("affairs".to_owned()),
        every: Some(Duration::from_millis(100)),
        ..LoadSpec::new("teachers", "affairs", Kind::Session)
    })?;
    std::thread::sleep(Duration::from_secs(4));
    let begin = world.now();
    flush(world, FLUSHES)?;
    let end = world.now();
    // Whatever of theirs is on the other line has lost its way.
    tally.count("flushed at work", &["internet"])?;
    Ok((end - begin, world.metric("teachers.ok", begin, end).unwrap_or(0.0)))
}

fn flush(world: &World, times: u32) -> Result<()> {
    for _ in 0..times {
        world.perform(&Happening::new("gateway.flush", Some("nft")))?;
        std::thread::sleep(BETWEEN);
    }
    Ok(())
}

struct Tally<'a> {
    world: &'a World,
    since: Duration,
    total: f64,
    parts: Vec<String>,
}

impl Tally<'_> {
    /// Clients' packets since the last count: on these lines, and between the zones.
    fn count(&mut self, phase: &str, lines: &[&str]) -> Result<()> {
        let now = self.world.now();
        let mut seen = Vec::new();
        for line in lines {
            seen.push((*line, forwarded(self.world, &[line], self.since)?));
        }
        seen.push(("the zones' links", between(self.world, self.since)?));
        self.total += seen.iter().map(|(_, packets)| packets).sum::<f64>();
        let words: Vec<String> = seen
            .iter()
            .filter(|(_, packets)| *packets > 0.0)
            .map(|(place, packets)| format!("{packets:.0} on {place}"))
            .collect();
        self.parts
            .push(format!("{phase} {}", if words.is_empty() { "0".into() } else { words.join(" and ") }));
        self.since = now;
        Ok(())
    }
}

struct Open {
    lines: f64,
    between: f64,
}

fn open_gateway() -> Result<Open> {
    let world = World::raise(&Topology::new("two-line-town")?, 1)?;
    world.use_static_gateway()?;
    intruders(&world)?;
    std::thread::sleep(Duration::from_secs(3));
    let lines = forwarded(&world, &["carrier", "internet"], Duration::ZERO)?;
    // Also the rule that keeps the zones apart.
    let done = world.command("gw", "nft")?.args(["flush", "ruleset"]).status()?;
    if !done.success() {
        bail!("the open gateway's rules could not be flushed");
    }
    let since = world.now();
    std::thread::sleep(Duration::from_secs(3));
    Ok(Open { lines, between: between(&world, since)? })
}

/// Devices that try all the time to reach what no rule permits them: over the lines, and in the other zone.
fn intruders(world: &World) -> Result<()> {
    for (id, zone, target) in [
        ("outward", "affairs", "203.0.113.80:443"),
        ("inward", "learning", "10.60.0.10:443"),
        ("across", "learning", "10.20.1.100:443"),
    ] {
        world.start_load(LoadSpec {
            count: 40,
            target: Some(target.to_owned()),
            every: Some(Duration::from_millis(50)),
            timeout: Some(Duration::from_millis(500)),
            ..LoadSpec::new(id, zone, Kind::Connect)
        })?;
    }
    Ok(())
}

/// Clients' packets that were seen on the lines.
fn forwarded(world: &World, lines: &[&str], from: Duration) -> Result<f64> {
    let now = world.now();
    lines
        .iter()
        .map(|line| {
            world.metric(&format!("wan.{line}.forwarded"), from, now).context("the wires count nothing")
        })
        .sum()
}

/// Pupils' packets in the teachers' zone. (Not the other way round: the gateway refuses in the name of whom a pupil asked
/// for, so that its own word there looks like a teacher's.)
fn between(world: &World, from: Duration) -> Result<f64> {
    world.metric("leak.learning.affairs", from, world.now()).context("the zones' links count nothing")
}
