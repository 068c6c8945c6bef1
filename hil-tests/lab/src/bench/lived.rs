//! What is measured in the lab's town, with the real programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Bench, median};
use crate::demo::{ACTS, ActInfo};
use crate::load::spec::{Kind, LoadSpec};
use crate::result::{Check, Goal};
use crate::runner::{self, Options, Played, Silent};
use crate::scenario::Scenario;
use crate::world::gateway::{GatewayConfig, Trust};
use crate::world::params::Topology;
use crate::world::{Happening, World};

type Say<'a> = &'a mut dyn FnMut(&str);

const READY: Duration = Duration::from_secs(20);
const MIB: f64 = 1024.0 * 1024.0;
/// How often the line dies.
const DEATHS: usize = 3;
/// After the start, before idleness is measured, and for how long it is.
const SETTLE: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(40);

fn act(bench: &Bench<'_>, key: &str) -> Result<Played> {
    let act: &ActInfo = ACTS.iter().find(|a| a.key == key).context("the demo has no such act")?;
    let scenario = Scenario::read(&runner::scenario_file(act.file))?;
    let options = Options { bin_dir: bench.bin_dir.to_owned(), without: Vec::new(), run: "bench", log: None };
    runner::play_with(&scenario, &options, &mut Silent, &|record, measure| (act.judge)(record, measure))
}

/// The demo's moves, judged by clients and the service's log.
pub(super) fn moves(bench: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    say("   playing the demo's first act");
    let checks: Vec<Check> =
        act(bench, "move")?.results.checks.into_iter().filter(|c| c.name.starts_with("move.")).collect();
    if checks.is_empty() {
        bail!("the act judged nothing");
    }
    Ok(checks)
}

/// The direct line swallows everything: until the users are served again. The worst of several runs decides.
pub(super) fn death(bench: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let mut all = Vec::new();
    let mut never = 0;
    for run in 1..=DEATHS {
        say(&format!("   playing the demo's second act, {run} of {DEATHS}"));
        let played = act(bench, "death")?;
        match played.results.checks.iter().find(|c| c.name == "silent_death_ms").and_then(|c| c.value) {
            Some(value) => all.push(value),
            None => never += 1,
        }
    }
    let worst = all.iter().copied().reduce(f64::max).filter(|_| never == 0);
    let note = format!(
        "the worst of {DEATHS} runs; median {:.0}; not served again in {never}",
        median(&all).unwrap_or(f64::NAN)
    );
    Ok(vec![Check::number("silent_death_ms", worst, "ms", Goal::AtMost(3000.0)).with_note(note)])
}

fn town(bench: &Bench<'_>) -> Result<World> {
    let world = World::raise(&Topology::new("two-line-town")?, 1)?;
    world.use_agent(GatewayConfig {
        agent: bench.bin_dir.join("seimon-agent"),
        plan: runner::plan_text("town.toml", Path::new("town.toml"), &[&BTreeMap::new()])?,
        board: runner::board_file(),
        without: Vec::new(),
        clock_trusted: Trust::Trusted,
    })?;
    Ok(world)
}

/// Sizes, and what the gateway's programs use while nothing happens.
pub(super) fn footprint(bench: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let size = fs::metadata(bench.bin_dir.join("seimon-agent"))?.len() as f64 / MIB;
    let mut checks = vec![Check::number("agent_binary_mib", Some(size), "MiB", Goal::AtMost(12.0))];
    say(&format!("   idle for {} s", (SETTLE + IDLE).as_secs()));
    let world = town(bench)?;
    let gateway = world.gateway()?;
    gateway.start(READY)?;
    std::thread::sleep(SETTLE);
    let before = busy(&gateway.usage());
    std::thread::sleep(IDLE);
    let usage = gateway.usage();
    let after = busy(&usage);
    for (check, name) in [("agent_rss_mib", "seimon-agent"), ("resolver_rss_mib", "seimon-resolver")] {
        let most = usage.iter().filter(|u| u.name.as_str() == name).map(|u| u.rss_bytes).max();
        checks.push(Check::number(check, most.map(|b| b as f64 / MIB), "MiB", Goal::AtMost(24.0)));
    }
    // A process that ended took its account with it.
    let whole = !before.is_empty() && before.keys().eq(after.keys());
    let percent = |seconds: f64| 100.0 * seconds / IDLE.as_secs_f64();
    let mut total = 0.0;
    let mut parts = Vec::new();
    for (key, end) in &after {
        let used = percent(end - before.get(key).copied().unwrap_or(0.0));
        total += used;
        parts.push(format!("{} {used:.2}", key.1));
    }
    let mut note = parts.join(", ");
    if !whole {
        note.push_str("; a process began or ended meanwhile");
    }
    let idle = Check::number("idle_cpu_pct", whole.then_some(total), "%", Goal::AtMost(0.5));
    checks.push(idle.with_note(note));
    Ok(checks)
}

/// Seconds on a processor by process: exact ones from the scheduler, else ticks.
fn busy(usage: &[crate::world::gateway::ProcessUsage]) -> BTreeMap<(u32, String), f64> {
    usage
        .iter()
        .map(|u| {
            let seconds = scheduled(u.pid).unwrap_or(u.cpu.as_secs_f64());
            ((u.pid, u.name.clone()), seconds)
        })
        .collect()
}

/// Sum over the threads, from /proc/PID/task/TID/schedstat.
fn scheduled(pid: u32) -> Option<f64> {
    let mut nanos = 0u64;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanos += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    (nanos > 0).then_some(nanos as f64 / 1e9)
}

/// Devices that try all the time to reach what no rule permits them.
fn intruders(world: &World) -> Result<()> {
    for (id, zone, target) in
        [("affairs", "affairs", "203.0.113.80:443"), ("learning", "learning", "10.60.0.10:443")]
    {
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
fn forwarded(world: &World, from: Duration) -> Result<f64> {
    let now = world.now();
    ["carrier", "internet"]
        .iter()
        .map(|line| {
            world.metric(&format!("wan.{line}.forwarded"), from, now).context("the wires count nothing")
        })
        .sum()
}

/// Nothing of what the policy forbids may pass: not while the agent starts on a system that forwards already, not while
/// others flush its table, whether it runs or not.
pub(super) fn policy(bench: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    say("   the same clients with a gateway that is open, to see that they would be seen");
    let open = {
        let world = World::raise(&Topology::new("two-line-town")?, 1)?;
        world.use_static_gateway()?;
        intruders(&world)?;
        std::thread::sleep(Duration::from_secs(3));
        forwarded(&world, Duration::ZERO)?
    };
    let world = town(bench)?;
    let forwarding =
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    let done = world.command("gw", "sh")?.args(["-c", forwarding]).status()?;
    if !done.success() {
        bail!("forwarding could not be switched on");
    }
    intruders(&world)?;
    std::thread::sleep(Duration::from_secs(1));
    let mut parts = Vec::new();
    let mut total = 0.0;
    let mut since = Duration::ZERO;
    let mut count = |phase: &str, since: &mut Duration| -> Result<()> {
        let packets = forwarded(&world, *since)?;
        total += packets;
        parts.push(format!("{phase} {packets:.0}"));
        *since = world.now();
        Ok(())
    };
    say("   start, with forwarding on");
    world.gateway()?.start(READY)?;
    std::thread::sleep(Duration::from_secs(3));
    count("at the start", &mut since)?;
    say("   others flush the tables");
    for _ in 0..4 {
        world.perform(&Happening::new("gateway.flush", Some("nft")))?;
        std::thread::sleep(Duration::from_secs(2));
    }
    count("flushed", &mut since)?;
    say("   others flush the tables while the agent is dead");
    world.perform(&Happening::new("gateway.kill", Some("agent")))?;
    for _ in 0..2 {
        world.perform(&Happening::new("gateway.flush", Some("nft")))?;
        std::thread::sleep(Duration::from_secs(2));
    }
    count("flushed without agent", &mut since)?;
    say("   start again");
    world.gateway()?.start(READY)?;
    std::thread::sleep(Duration::from_secs(3));
    count("at the start again", &mut since)?;
    // Without a control, nothing seen would prove nothing.
    let value = (open >= 100.0).then_some(total);
    let check = Check::number("before_policy_packets", value, "packets", Goal::Equal(0.0));
    Ok(vec![check.with_note(format!("{}; an open gateway: {open:.0} in 3 s", parts.join(", ")))])
}
