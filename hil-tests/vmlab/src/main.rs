//! `seimon-vmlab`: tells stories, and says in a table how they came out.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context as _, Result, bail};
use seimon_vmlab::programs::Programs;
use seimon_vmlab::stories::{self, Story, Told};
use seimon_vmlab::vm::{self, Firmware};

const HELP: &str = "\
seimon-vmlab [--story NAME] [--firmware edk2|u-boot] [--cuts N] [--jobs N] [--json FILE]
    --cuts: power cuts on each firmware (100)
    --jobs: machines at a time (2)
";

struct Wanted {
    story: Option<String>,
    firmware: Option<String>,
    cuts: u64,
    jobs: usize,
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match wanted(&arguments).and_then(|wanted| run(&wanted)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn wanted(arguments: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted { story: None, firmware: None, cuts: 100, jobs: 2, json: None };
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        let mut value = || left.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--story" => wanted.story = Some(value()?.clone()),
            "--firmware" => wanted.firmware = Some(value()?.clone()),
            "--cuts" => wanted.cuts = value()?.parse().context("--cuts wants a number")?,
            "--jobs" => wanted.jobs = value()?.parse().context("--jobs wants a number")?,
            "--json" => wanted.json = Some(value()?.into()),
            other => bail!("no option `{other}`\n{HELP}"),
        }
    }
    Ok(wanted)
}

fn run(wanted: &Wanted) -> Result<bool> {
    let missing = vm::missing();
    if !missing.is_empty() {
        bail!("missing: apt-get install --no-install-recommends {}", missing.join(" "));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let programs = Programs::build(&root, &target.join("vmlab"))?;
    let guardian_kib = std::fs::metadata(&programs.guardian)?.len().div_ceil(1024);
    let chosen = |story: &Story, firmware: Firmware| {
        wanted.story.as_ref().is_none_or(|name| name == story.name)
            && wanted.firmware.as_ref().is_none_or(|name| name == firmware.name())
    };
    let queue: Vec<(Story, Firmware)> = stories::all()
        .into_iter()
        .flat_map(|story| story.firmware.iter().map(move |firmware| (story, *firmware)))
        .filter(|(story, firmware)| chosen(story, *firmware))
        .collect();
    if queue.is_empty() {
        let names: Vec<&str> = stories::all().iter().map(|story| story.name).collect();
        bail!("no such story; there are {}", names.join(", "));
    }
    // The long ones first, so that they do not end alone.
    let queue = Mutex::new(queue);
    let told = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..wanted.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.pop());
                    let Some((story, firmware)) = next else { return };
                    let one = stories::tell(&story, firmware, &programs, wanted.cuts);
                    line(&one);
                    if let Ok(mut told) = told.lock() {
                        told.push(one);
                    }
                }
            });
        }
    });
    let told = told.into_inner().unwrap_or_default();
    summary(&told, guardian_kib, wanted.json.as_deref())
}

fn line(told: &Told) {
    let Told { story, firmware, seconds, outcome } = told;
    let words = match outcome {
        Ok(numbers) => {
            let numbers: Vec<String> =
                numbers.iter().map(|(name, number)| format!(" {name}={number}")).collect();
            format!("pass{}", numbers.concat())
        }
        Err(error) => format!("FAIL {error:#}"),
    };
    let _ = writeln!(std::io::stdout(), "{story:<32} {:<12} {seconds:>7.1} s  {words}", firmware.name());
}

fn summary(told: &[Told], guardian_kib: u64, json: Option<&Path>) -> Result<bool> {
    let mut numbers = BTreeMap::from([("guardian_kib", guardian_kib)]);
    for (name, number) in told.iter().filter_map(|told| told.outcome.as_ref().ok()).flatten() {
        *numbers.entry(name).or_default() += number;
    }
    let failed = told.iter().filter(|told| told.outcome.is_err()).count();
    let mut out = std::io::stdout().lock();
    for (name, number) in &numbers {
        writeln!(out, "{name:<34} {number}")?;
    }
    writeln!(out, "{} stories, {failed} failed", told.len())?;
    if let Some(file) = json {
        let checks: Vec<_> = told
            .iter()
            .map(|told| {
                serde_json::json!({
                    "name": format!("{} on {}", told.story, told.firmware.name()),
                    "status": if told.outcome.is_ok() { "pass" } else { "fail" },
                    "seconds": told.seconds,
                    "error": told.outcome.as_ref().err().map(|error| format!("{error:#}")),
                })
            })
            .collect();
        let text = serde_json::to_vec_pretty(&serde_json::json!({ "checks": checks, "numbers": numbers }))?;
        std::fs::write(file, text).with_context(|| file.display().to_string())?;
    }
    Ok(failed == 0 && !told.is_empty())
}
