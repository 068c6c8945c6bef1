//! `run` and `play`: each scenario in a process and a private world of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use seimon_lab::netns;
use seimon_lab::report::{self, Act};
use seimon_lab::result::{Check, Goal, Results, write_json};
use seimon_lab::runner::{self, Choice, Options, shipped_scenarios, suitable_screen};
use seimon_lab::scenario::Scenario;
use serde_json::{Value, json};

use super::{bin_dir, exit, gateway, line, out_dir};
use crate::{GatewayArgs, PlayArgs, RunArgs};

/// What a scenario may take beyond its own duration: raising, starting, judging; and a machine, which takes its time with
/// everything.
const PATIENCE: Duration = Duration::from_secs(90);
const PATIENCE_MACHINE: Duration = Duration::from_secs(420);

pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let files = files(args)?;
    // All mistakes of all files first: nothing is more tiresome than one a run.
    let mut scenarios = Vec::new();
    let mut wrong = Vec::new();
    for file in &files {
        match Scenario::read(file) {
            Ok(scenario) => scenarios.push(scenario),
            Err(error) => wrong.push(format!("{:#}", anyhow::Error::from(error))),
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    scenarios.retain(|s| !args.short || s.short);
    scenarios.retain(|s| !args.sabotaged || s.sabotage.is_some());
    if scenarios.is_empty() {
        bail!("there is no scenario to play");
    }
    let bin_dir = bin_dir(args.bin_dir.as_deref())?;
    let choice = gateway(&args.gateway)?;
    let out = match &choice {
        Choice::Namespace => out_dir("lab")?,
        Choice::Machine(_) => out_dir(&format!("lab-{}", choice.to_string().replace(':', "-")))?,
    };
    let without = |scenario: &Scenario| match &scenario.sabotage {
        Some(own) if args.sabotaged => vec![own.clone()],
        _ => args.without.clone(),
    };
    let at_once = usize::from(args.jobs).min(scenarios.len());
    let telling = if at_once > 1 { Telling::WhenOver } else { Telling::AsItGoes };
    let runs = side_by_side(&scenarios, at_once, |number, scenario| {
        let head = format!(
            "== {} of {}: {} ({} s)",
            number + 1,
            scenarios.len(),
            scenario.name,
            scenario.duration.as_secs()
        );
        let without = without(scenario);
        if let Some(why) = choice.unsuited(scenario, &without)? {
            line(&format!("{head}\n   skipped: {why}"));
            let mut results = Results::new("lab", &scenario.name, scenario.seed, Vec::new());
            results.gateway = Some(choice.to_string());
            results.skipped = Some(why);
            return Ok(serde_json::to_value(results)?);
        }
        one(scenario, &head, telling, (&bin_dir, &out), (&without, &args.gateway, &choice))
    })?;
    summary(&scenarios, &runs, args)
}

/// Whether a scenario's story is told while it is played: several at a time would talk at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Telling {
    AsItGoes,
    WhenOver,
}

/// Plays them, so many at a time, the longest first; the results are in the scenarios' order.
fn side_by_side(
    scenarios: &[Scenario],
    at_once: usize,
    play: impl Fn(usize, &Scenario) -> Result<Value> + Sync,
) -> Result<Vec<Value>> {
    let mut order: Vec<usize> = (0..scenarios.len()).collect();
    if at_once > 1 {
        order.sort_by_key(|&number| std::cmp::Reverse(scenarios[number].duration));
    }
    let left = Mutex::new(order.into_iter());
    let results = Mutex::new(BTreeMap::new());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(number) = next() {
                    let result = play(number, &scenarios[number]);
                    results.lock().unwrap_or_else(PoisonError::into_inner).insert(number, result);
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

fn files(args: &RunArgs) -> Result<Vec<PathBuf>> {
    if args.all || (args.sabotaged && args.files.is_empty()) {
        return Ok(shipped_scenarios()?);
    }
    if args.files.is_empty() {
        bail!("name scenario files, or --all");
    }
    // A shipped one may be named by its file name alone.
    let shipped = shipped_scenarios()?;
    Ok(args
        .files
        .iter()
        .map(|file| {
            let by_name = shipped
                .iter()
                .find(|s| s.file_name() == file.file_name() || s.file_stem() == file.file_name());
            if file.is_file() { file.clone() } else { by_name.unwrap_or(file).clone() }
        })
        .collect())
}

/// Plays one in a process of its own; whatever happens there, there is a result.
fn one(
    scenario: &Scenario,
    head: &str,
    telling: Telling,
    (bin_dir, out): (&Path, &Path),
    (without, gateway, choice): (&[String], &GatewayArgs, &Choice),
) -> Result<Value> {
    let stem = scenario.file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = out.join(&stem);
    std::fs::create_dir_all(&folder)?;
    let json = folder.join("result.json");
    let _ = std::fs::remove_file(&json);
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("play").arg(&scenario.file).arg("--json").arg(&json).arg("--bin-dir").arg(bin_dir);
    command.arg("--out").arg(&folder).arg("--gateway").arg(&gateway.gateway);
    if let Some(image) = &gateway.image {
        command.arg("--image").arg(image);
    }
    if !without.is_empty() {
        command.arg("--without").arg(without.join(","));
    }
    let story = folder.join("story.txt");
    if telling == Telling::WhenOver {
        let file = std::fs::File::create(&story).with_context(|| story.display().to_string())?;
        command.stdout(file.try_clone()?).stderr(file);
    } else {
        line(head);
    }
    let mut child = command.spawn().context("the lab could not be started")?;
    let patience = match choice {
        Choice::Namespace => PATIENCE,
        Choice::Machine(_) => PATIENCE_MACHINE,
    };
    let deadline = Instant::now() + scenario.duration + patience;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if telling == Telling::WhenOver {
        let told = std::fs::read(&story).unwrap_or_default();
        line(&format!("{head}\n{}", String::from_utf8_lossy(&told).trim_end()));
    }
    let read = std::fs::read(&json).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(results) = read {
        return Ok(results);
    }
    let why = match status {
        Some(status) => format!("it could not be played ({status})"),
        None => "it did not end in time".to_owned(),
    };
    line(&format!("   {why}"));
    let check = Check::number("played", None, "0 or 1", Goal::Equal(1.0)).with_note(why);
    let mut results = Results::new("lab", &scenario.name, scenario.seed, vec![check]);
    results.gateway = Some(choice.to_string());
    Ok(serde_json::to_value(results)?)
}

fn summary(scenarios: &[Scenario], runs: &[Value], args: &RunArgs) -> Result<ExitCode> {
    let checks_of = |run: &Value| run["checks"].as_array().cloned().unwrap_or_default();
    let passed = |run: &Value| {
        let checks = checks_of(run);
        !checks.is_empty() && checks.iter().all(|c| c["status"] == "pass")
    };
    line("");
    let is_skipped = |run: &Value| !run["skipped"].is_null();
    for (scenario, run) in scenarios.iter().zip(runs) {
        if let Some(why) = run["skipped"].as_str() {
            line(&format!("skip   {}\n         {why}", scenario.name));
            continue;
        }
        let bad: Vec<String> = checks_of(run)
            .iter()
            .filter(|c| c["status"] != "pass")
            .map(|c| {
                format!(
                    "{} is {} (goal {})",
                    c["name"].as_str().unwrap_or("?"),
                    c["value"],
                    c["goal"].as_str().unwrap_or("?")
                )
            })
            .collect();
        let word = match (passed(run), args.sabotaged) {
            (true, false) => "pass".to_owned(),
            (false, false) => "FAIL".to_owned(),
            (true, true) => {
                format!("PASSED although `{}` was off", scenario.sabotage.as_deref().unwrap_or(""))
            }
            (false, true) => {
                format!("fails without `{}`, as it must", scenario.sabotage.as_deref().unwrap_or(""))
            }
        };
        line(&format!("{word:<6} {}", scenario.name));
        for bad in bad {
            line(&format!("         {bad}"));
        }
    }
    // What was not played is no proof of anything.
    let played: Vec<&Value> = runs.iter().filter(|run| !is_skipped(run)).collect();
    let good = match args.sabotaged {
        true => played.iter().all(|run| !passed(run)),
        false => played.iter().all(|run| passed(run)),
    } && !played.is_empty();
    if played.len() < runs.len() {
        line(&format!("{} of {} were played, the others do not suit this gateway", played.len(), runs.len()));
    }
    if let Some(file) = &args.json {
        write_json(file, &combined(runs))?;
    }
    Ok(exit(good))
}

/// One run as it is; several under one head, every check with its scenario's name before it.
fn combined(runs: &[Value]) -> Value {
    if let [one] = runs {
        return one.clone();
    }
    let mut checks = Vec::new();
    for run in runs {
        for check in run["checks"].as_array().into_iter().flatten() {
            let mut check = check.clone();
            check["name"] = format!(
                "{}: {}",
                run["scenario"].as_str().unwrap_or("?"),
                check["name"].as_str().unwrap_or("?")
            )
            .into();
            checks.push(check);
        }
    }
    json!({
        "format": 1, "run": "lab", "scenario": "all",
        "commit": runs.first().map(|r| r["commit"].clone()).unwrap_or_default(),
        "seed": runs.first().map(|r| r["seed"].clone()).unwrap_or_default(),
        "gateway": runs.first().map(|r| r["gateway"].clone()).unwrap_or_default(),
        "checks": checks, "runs": runs,
    })
}

pub(crate) fn play(args: &PlayArgs) -> Result<ExitCode> {
    netns::enter_or_reexec()?;
    let scenario = Scenario::read(&args.file)?;
    let options = Options {
        bin_dir: args.bin_dir.clone(),
        without: args.without.clone(),
        run: "lab",
        log: Some(args.out.join("agent.log")),
        gateway: gateway(&args.gateway)?,
    };
    let mut screen = suitable_screen();
    let played = runner::play(&scenario, &options, screen.as_mut())?;
    line("");
    line(played.results.table().trim_end());
    let act = Act {
        title_ja: &scenario.name,
        title_en: "",
        about_ja: "",
        about_en: "",
        record: &played.record,
        results: &played.results,
    };
    report::write(&args.out.join("report.html"), (&scenario.name, "lab scenario"), &[act], &played.results)?;
    played.results.write(&args.json)?;
    Ok(exit(played.results.good()))
}
