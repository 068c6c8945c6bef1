//! `cargo xtask fuzz`: sends anything to whatever reads from outside.
//!
//! Guided by coverage where there is a C++ compiler for libFuzzer: its instrumentation is a pass of LLVM that every compiler
//! has, so neither a nightly one nor `cargo-fuzz` is needed. Elsewhere by chance, by `seimon-fuzz` itself.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{build, deps, say};

const TARGETS: [&str; 8] = ["plan", "hub", "checkpoint", "dns", "control", "frames", "journal", "boot"];

/// What `cargo-fuzz` would set, but for the sanitizers, which only a nightly compiler has: edges counted, comparisons told.
const INSTRUMENTED: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1";

struct Wanted {
    minutes: u64,
    targets: Vec<&'static str>,
}

fn wanted(arguments: &[String]) -> Result<Wanted> {
    let (mut minutes, mut only) = (10, None);
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        let mut value = || left.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--minutes" => minutes = value()?.parse().context("--minutes wants a number")?,
            "--target" => only = Some(value()?.clone()),
            other => bail!("fuzz [--minutes N] [--target NAME], not `{other}`"),
        }
    }
    let chosen = |target: &&str| only.as_deref().is_none_or(|only| only == *target);
    let targets: Vec<&str> = TARGETS.into_iter().filter(chosen).collect();
    if targets.is_empty() {
        bail!("targets are {}", TARGETS.join(", "));
    }
    Ok(Wanted { minutes, targets })
}

/// Each target for so many minutes, as many at a time as there are processors.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let wanted = wanted(arguments)?;
    let driver = if deps::present("c++") { guided()? } else { by_chance()? };
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let mut good = true;
    for some in wanted.targets.chunks(at_once) {
        say::step(&format!("fuzz: {}, {} min", some.join(", "), wanted.minutes));
        let running: Vec<Running> =
            some.iter().map(|target| driver.start(target, wanted.minutes * 60)).collect::<Result<_>>()?;
        for running in running {
            good &= running.wait()?;
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

enum Driver {
    /// The folder with a libFuzzer program for each target, and the one for corpora and logs.
    Guided {
        programs: PathBuf,
        work: PathBuf,
    },
    Chance {
        program: PathBuf,
    },
}

struct Running {
    target: String,
    child: Child,
    log: Option<PathBuf>,
}

fn seimon_fuzz() -> Result<PathBuf> {
    // Not as released: what is found must not end the fuzzer, and sums that overflow are to be found.
    let built = build::cargo().args(["build", "--quiet", "--package", "seimon-fuzz"]).status()?;
    if !built.success() {
        bail!("the build failed (see above)");
    }
    Ok(build::target_dir()?.join("debug").join("seimon-fuzz"))
}

fn by_chance() -> Result<Driver> {
    say::line(
        "by chance, not guided by coverage: there is no C++ compiler for libFuzzer (Debian package g++)",
    );
    Ok(Driver::Chance { program: seimon_fuzz()? })
}

fn guided() -> Result<Driver> {
    let host = host()?;
    let target = build::target_dir()?.join("fuzz");
    say::step("building the targets with coverage (the first time takes some minutes)");
    let mut command = build::cargo();
    command.current_dir(build::root()?.join("hil-tests/fuzz/fuzz"));
    // With a target named, build scripts and macros are not instrumented.
    command.args(["build", "--quiet", "--release", "--bins", "--target", &host]);
    command.arg("--target-dir").arg(&target).env("RUSTFLAGS", INSTRUMENTED);
    if !command.status().context("cargo could not be started")?.success() {
        bail!("the build failed (see above)");
    }
    let work = target.join("work");
    let mut seeds = Command::new(seimon_fuzz()?);
    seeds.arg("--write-seeds").arg(&work);
    if !seeds.status()?.success() {
        bail!("the seeds could not be written to {}", work.display());
    }
    Ok(Driver::Guided { programs: target.join(host).join("release"), work })
}

fn host() -> Result<String> {
    let output = Command::new("rustc").args(["--version", "--verbose"]).output().context("rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not name its host")?.to_owned())
}

/// Where the tests try from then on what was found.
fn found(target: &str) -> Result<PathBuf> {
    let folder = build::root()?.join("hil-tests/fuzz/found").join(target);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

impl Driver {
    fn start(&self, target: &str, seconds: u64) -> Result<Running> {
        let (mut command, log) = match self {
            Self::Guided { programs, work } => {
                let log = work.join(format!("{target}.log"));
                let file = File::create(&log).with_context(|| log.display().to_string())?;
                let mut command = Command::new(programs.join(target));
                command.arg(work.join(target));
                command.args([&format!("-max_total_time={seconds}"), "-timeout=20", "-rss_limit_mb=4096"]);
                command.args(["-max_len=16384", "-len_control=20", "-print_final_stats=1"]);
                command.arg(format!("-artifact_prefix={}/", found(target)?.display()));
                command.stdout(Stdio::null()).stderr(file);
                (command, Some(log))
            }
            Self::Chance { program } => {
                let mut command = Command::new(program);
                command.args(["--target", target, "--seconds", &seconds.to_string()]);
                (command, None)
            }
        };
        let child = command.spawn().with_context(|| format!("{command:?} could not be started"))?;
        Ok(Running { target: target.to_owned(), child, log })
    }
}

impl Running {
    /// Whether nothing was found.
    fn wait(mut self) -> Result<bool> {
        let good = self.child.wait()?.success();
        let folder = found(&self.target)?;
        // It is there only where there is something in it.
        std::fs::remove_dir(&folder).ok();
        if let Some(log) = &self.log {
            let bytes = std::fs::read(log).unwrap_or_default();
            let words = told(&String::from_utf8_lossy(&bytes), good);
            say::line(&format!("{:<12} {words}", self.target));
            if !good {
                say::problem(&format!("what happened: {}", log.display()));
            }
        }
        Ok(good)
    }
}

/// libFuzzer's last words, in one line.
fn told(text: &str, good: bool) -> String {
    let number = |name: &str| {
        let line = text.lines().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map_or("?".to_owned(), |rest| rest.trim().to_owned())
    };
    let edges = text.lines().rev().find_map(|line| line.split_once(" cov: ")?.1.split(' ').next());
    let came = if good { "nothing found" } else { "FOUND" };
    let inputs = number("stat::number_of_executed_units");
    let new = number("stat::new_units_added");
    format!("{inputs} inputs, {new} new ones kept, {} edges seen: {came}", edges.unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_program() {
        let root = build::root().unwrap();
        let manifest = std::fs::read_to_string(root.join("hil-tests/fuzz/fuzz/Cargo.toml")).unwrap();
        for target in TARGETS {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
            assert!(root.join(format!("hil-tests/fuzz/fuzz/fuzz_targets/{target}.rs")).is_file(), "{target}");
        }
    }

    #[test]
    fn libfuzzers_last_words_are_understood() {
        let words = "#2\tINITED cov: 512 ft: 900 corp: 3/4b\n#900\tDONE   cov: 1537 ft: 4000 corp: 9/1Kb\n\
                     stat::number_of_executed_units: 900\nstat::new_units_added:          6\n";
        assert_eq!(told(words, true), "900 inputs, 6 new ones kept, 1537 edges seen: nothing found");
        assert!(told(words, false).ends_with("FOUND"));
    }
}
