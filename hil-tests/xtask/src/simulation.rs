//! `cargo xtask sim` and `cargo xtask fuzz`.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{build, say};

const TARGETS: [&str; 6] = ["plan", "checkpoint", "dns", "control", "frames", "journal"];

/// Builds the simulator and runs it with these arguments.
pub(crate) fn simulate(arguments: &[String]) -> Result<ExitCode> {
    let mut command = build::cargo();
    command.args(["run", "--quiet", "--package", "seimon-sim", "--"]).args(arguments);
    build::exit_of(&mut command)
}

/// Each target for so many minutes: guided by coverage where a nightly compiler and `cargo-fuzz` are there, else by chance.
pub(crate) fn fuzz(arguments: &[String]) -> Result<ExitCode> {
    let (mut minutes, mut only) = (10_u64, None);
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        let mut value = || left.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--minutes" => minutes = value()?.parse().context("--minutes wants a number")?,
            "--target" => only = Some(value()?.clone()),
            other => bail!("fuzz [--minutes N] [--target NAME], not `{other}`"),
        }
    }
    let targets: Vec<&str> =
        TARGETS.into_iter().filter(|target| only.as_ref().is_none_or(|only| only == target)).collect();
    if targets.is_empty() {
        bail!("targets are {}", TARGETS.join(", "));
    }
    let seconds = (minutes * 60).to_string();
    if is_there(&["+nightly", "fuzz", "--version"]) {
        return guided(&targets, &seconds);
    }
    say::line("by chance, not guided by coverage: a nightly compiler or `cargo-fuzz` is missing");
    // Not as released: what is found must not end the fuzzer, and sums that overflow are to be found.
    let built = build::cargo().args(["build", "--quiet", "--package", "seimon-fuzz"]).status()?;
    if !built.success() {
        bail!("the build failed (see above)");
    }
    let program = build::target_dir()?.join("debug").join("seimon-fuzz");
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let mut good = true;
    for some in targets.chunks(at_once) {
        say::step(&format!("fuzz: {}, {minutes} min", some.join(", ")));
        let running: Vec<_> = some
            .iter()
            .map(|target| Command::new(&program).args(["--target", target, "--seconds", &seconds]).spawn())
            .collect();
        for child in running {
            good &= child.context("the fuzzer could not be started")?.wait()?.success();
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn guided(targets: &[&str], seconds: &str) -> Result<ExitCode> {
    for target in targets {
        say::step(&format!("fuzz: {target}, {seconds} s"));
        let mut command = Command::new("cargo");
        // The compiler that cargo was started for must not be the one that it starts.
        command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").current_dir("hil-tests/fuzz");
        command.args(["+nightly", "fuzz", "run", target, "--"]);
        command.arg(format!("-max_total_time={seconds}"));
        let code = build::exit_of(&mut command)?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_there(arguments: &[&str]) -> bool {
    Command::new("cargo")
        .env_remove("RUSTUP_TOOLCHAIN")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
