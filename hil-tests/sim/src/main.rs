//! `seimon-sim`: the simulation from the command line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use seimon_sim::crash::Kind;
use seimon_sim::ground::Mutation;
use seimon_sim::play::{Listener, Player};
use seimon_sim::reference::Violation;
use seimon_sim::report::{Check, Goal, Report};
use seimon_sim::runs;
use seimon_sim::schedule::Schedule;
use seimon_sim::town::Town;

const HELP: &str = "\
seimon-sim [--schedules N] [--seed S] [--hours H] [--json FILE] [--keep] [--no-matrix]
                    N random schedules from seed S on (10000, 1), the crash matrix, H hours of loss (100; 0: none)
seimon-sim play FILE...   schedules from files, with what they violate
seimon-sim roll SEED      the schedule of a seed, as such a file
seimon-sim prove          for each way to make the gateway wrong a small schedule that shows it, kept as a file
";

#[derive(Debug)]
struct Wanted {
    schedules: u64,
    seed: u64,
    hours: u64,
    json: Option<PathBuf>,
    keep: bool,
    matrix: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to be told if this fails.
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn run(arguments: &[String]) -> Result<bool> {
    let (towns, left_out) = Town::all();
    for why in &left_out {
        say(&format!("left out: {why}"));
    }
    match arguments.first().map(String::as_str) {
        Some("play") => return play(&towns, &arguments[1..]),
        Some("roll") => {
            let seed: u64 = arguments.get(1).context("which seed?")?.parse()?;
            let at = usize::try_from(seed % towns.len().max(1) as u64)?;
            let town = towns.get(at).context("no town")?;
            say(&serde_json::to_string_pretty(&Schedule::roll(town, seed))?);
            return Ok(true);
        }
        Some("prove") => return prove(&towns),
        Some("help" | "--help" | "-h") => {
            say(HELP);
            return Ok(true);
        }
        Some(_) | None => {}
    }
    everything(&towns, &wanted(arguments)?)
}

fn wanted(arguments: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted { schedules: 10_000, seed: 1, hours: 100, json: None, keep: false, matrix: true };
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        let mut value = || left.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--schedules" => wanted.schedules = value()?.parse()?,
            "--seed" => wanted.seed = value()?.parse()?,
            "--hours" => wanted.hours = value()?.parse()?,
            "--json" => wanted.json = Some(value()?.into()),
            "--keep" => wanted.keep = true,
            "--no-matrix" => wanted.matrix = false,
            other => bail!("no option `{other}`\n\n{HELP}"),
        }
    }
    Ok(wanted)
}

fn tell(violations: &[Violation]) {
    for Violation { at_ms, what, detail } in violations.iter().take(3) {
        say(&format!("    {:>8.1} s  {what}: {detail}", *at_ms as f64 / 1_000.0));
    }
}

fn play(towns: &[Town], files: &[String]) -> Result<bool> {
    let mut good = true;
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| file.clone())?;
        let schedule: Schedule = serde_json::from_str(&text).with_context(|| file.clone())?;
        let town = towns.iter().find(|town| town.kind == schedule.town).context("a town that is left out")?;
        let outcome = Player::new(town).play_to(&schedule, Mutation::None, None, Listener::Somebody);
        outcome.story.iter().for_each(|line| say(line));
        say(&format!("{file}: {} violations, {:?}", outcome.violations.len(), outcome.tally));
        tell(&outcome.violations);
        good &= outcome.violations.is_empty();
    }
    Ok(good)
}

fn prove(towns: &[Town]) -> Result<bool> {
    let mut good = true;
    for mutation in Mutation::ALL {
        let file = runs::prove(towns, mutation, &runs::kept_folder())?;
        good &= file.is_some();
        let file = file.map_or("NOT FOUND OUT".to_owned(), |file| file.display().to_string());
        say(&format!("{mutation:?}: {file}"));
    }
    Ok(good)
}

fn everything(towns: &[Town], wanted: &Wanted) -> Result<bool> {
    let mut checks = Vec::new();
    let kept = runs::kept(&runs::kept_folder())?;
    let failed = runs::replay(towns, &kept);
    for (name, violations) in &failed {
        say(&format!("kept schedule {name} fails again:"));
        tell(violations);
    }
    checks.push(Check::new(
        "sim.kept_violations",
        failed.len() as u64,
        Goal::Exactly(0),
        Some(format!("{} kept schedules played first", kept.len())),
    ));
    let many = runs::many(towns, wanted.seed, wanted.schedules, Mutation::None, 20);
    for failure in &many.failures {
        say(&format!("seed {} ({:?}):", failure.schedule.seed, failure.schedule.town));
        tell(&failure.violations);
    }
    if wanted.keep {
        for failure in many.failures.iter().take(5) {
            let town = towns.iter().find(|town| town.kind == failure.schedule.town).context("a town")?;
            let file = runs::keep(town, failure, &runs::kept_folder())?;
            say(&format!("kept as {}", file.display()));
        }
    }
    say(&format!("{:.0} virtual hours; {:?}", many.hours, many.tally));
    checks.push(Check::new("sim.schedules", many.schedules, Goal::AtLeast(wanted.schedules), None));
    checks.push(Check::new("sim.violations", many.failures.len() as u64, Goal::Exactly(0), None));
    if wanted.matrix {
        for kind in Kind::ALL {
            let matrix = runs::crashes(towns, kind, Mutation::None);
            for wrong in matrix.wrong.iter().take(10) {
                say(&format!("{}: {:?} at {}", wrong.story, wrong.ambush, wrong.checkpoint));
                tell(&wrong.violations);
            }
            let note = format!("{} runs, by moment", matrix.runs);
            let name = |what: &str| format!("{}.{what}", kind.name());
            checks.push(Check::new(&name("points"), matrix.points, Goal::AtLeast(30), Some(note)));
            checks.push(Check::new(&name("wrong"), matrix.wrong.len() as u64, Goal::Exactly(0), None));
            checks.push(Check::new(&name("missed"), matrix.missed, Goal::Exactly(0), None));
        }
    }
    if wanted.hours > 0 {
        let town = towns.first().context("no town")?;
        let losses = runs::losses(town, wanted.hours, wanted.seed);
        let mut moves = 0;
        for (name, watched) in &losses {
            moves += watched.moves;
            say(&format!("{name}: {watched:?}"));
        }
        let name = format!("false_moves_{}h", wanted.hours);
        let note = format!("{} × {} h of 5 % loss", losses.len(), wanted.hours);
        checks.push(Check::new(&name, moves, Goal::Exactly(0), Some(note)));
    }
    let report = Report::new("simulation", wanted.seed, checks);
    say(&report.table());
    if let Some(file) = &wanted.json {
        report.write(file)?;
    }
    Ok(report.good())
}
