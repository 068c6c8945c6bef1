//! What is measured in the lab's town, with the real programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Bench;
use crate::demo::{ACTS, ActInfo, unnoticed};
use crate::result::{Check, Goal};
use crate::runner::{self, Measure, Options, Played, Record, Silent};
use crate::scenario::Scenario;
use crate::world::World;
use crate::world::gateway::{GatewayConfig, Trust};
use crate::world::params::Topology;

pub(super) type Say<'a> = &'a mut dyn FnMut(&str);

pub(super) const READY: Duration = Duration::from_secs(20);
const MIB: f64 = 1024.0 * 1024.0;
/// How often the line dies.
const DEATHS: usize = 3;
/// After the start, before idleness is measured, and for how long it is.
const SETTLE: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(40);

fn act(bench: &Bench<'_>, key: &str) -> Result<Played> {
    let act: &ActInfo = ACTS.iter().find(|a| a.key == key).context("the demo has no such act")?;
    play(bench, act.file, &|record, measure| (act.judge)(record, measure))
}

fn play(bench: &Bench<'_>, file: &str, judge: &dyn Fn(&Record, Measure<'_>) -> Vec<Check>) -> Result<Played> {
    let scenario = Scenario::read(&runner::scenario_file(file))?;
    let options = Options {
        bin_dir: bench.bin_dir.to_owned(),
        without: Vec::new(),
        run: "bench",
        log: None,
        gateway: runner::Choice::Namespace,
    };
    runner::play_with(&scenario, &options, &mut Silent, judge)
}

/// The demo's moves and those of a school with one line, judged by clients and the service's log.
pub(super) fn moves(bench: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    say("   playing the demo's first act");
    let mut checks: Vec<Check> =
        act(bench, "move")?.results.checks.into_iter().filter(|c| c.name.starts_with("move.")).collect();
    if checks.is_empty() {
        bail!("the act judged nothing");
    }
    say("   playing the move of a school with one line");
    let one_line = |record: &Record, measure: Measure<'_>| unnoticed(record, measure, "move.one_line");
    let played = play(bench, "one-line-move.toml", &one_line)?;
    checks.extend(played.results.checks.into_iter().filter(|c| {
        let moved = c.name.starts_with("teachers.share") || c.name.starts_with("pupils.share");
        c.name.starts_with("move.one_line.") || moved
    }));
    Ok(checks)
}

/// A death of the line, in milliseconds after it.
struct Death {
    /// Users are served again.
    served: Option<f64>,
    /// The agent has gone back.
    returned: Option<f64>,
}

fn die(bench: &Bench<'_>) -> Result<Death> {
    let played = act(bench, "death")?;
    let record = &played.record;
    let served = played.results.checks.iter().find(|c| c.name == "silent_death_ms").and_then(|c| c.value);
    let cut = record.happened.iter().find(|h| h.id == "cut").map(|h| h.at);
    let returned = cut.and_then(|cut| Some(record.entered("affairs/affairs", "RollingBack", cut)? - cut));
    Ok(Death { served, returned: returned.map(|after| after.as_secs_f64() * 1000.0) })
}

/// The direct line swallows everything: until the users are served again. The worst of several runs decides.
pub(super) fn death(bench: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let mut deaths = Vec::new();
    for run in 1..=DEATHS {
        say(&format!("   playing the demo's second act, {run} of {DEATHS}"));
        deaths.push(die(bench)?);
    }
    let words = |ms: Option<f64>| ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms:.0}"));
    let each: Vec<String> =
        deaths.iter().map(|d| format!("{} (gone back {})", words(d.served), words(d.returned))).collect();
    let all: Option<Vec<f64>> = deaths.iter().map(|death| death.served).collect();
    let worst = all.and_then(|all| all.into_iter().reduce(f64::max));
    let note = format!("the worst of {DEATHS} runs: {}", each.join(", "));
    Ok(vec![Check::number("silent_death_ms", worst, "ms", Goal::AtMost(3000.0)).with_note(note)])
}

pub(super) fn town(bench: &Bench<'_>) -> Result<World> {
    town_with(bench, &runner::plan_text("town.toml", Path::new("town.toml"), &[&BTreeMap::new()])?)
}

/// The gateway is not started yet.
pub(super) fn town_with(bench: &Bench<'_>, plan: &str) -> Result<World> {
    let world = World::raise(&Topology::new("two-line-town")?, 1)?;
    world.use_agent(GatewayConfig {
        agent: bench.bin_dir.join("seimon-agent"),
        plan: plan.to_owned(),
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
