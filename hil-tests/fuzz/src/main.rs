//! `seimon-fuzz`: the fuzzer that needs nothing but seeds.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use seimon_fuzz::{TARGETS, mutate};

const HELP: &str = "seimon-fuzz [--target NAME] [--seconds N] [--seed S]: each target for N seconds (10)\n";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let (mut only, mut seconds, mut seed) = (None, 10, 1);
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        let mut value = || left.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--target" => only = Some(value()?.clone()),
            "--seconds" => seconds = value()?.parse()?,
            "--seed" => seed = value()?.parse()?,
            other => bail!("no option `{other}`\n{HELP}"),
        }
    }
    for target in TARGETS.into_iter().filter(|target| only.as_ref().is_none_or(|only| only == target.name)) {
        let count = mutate::fuzz(target, seed, Duration::from_secs(seconds));
        writeln!(std::io::stdout(), "{:<12} {count:>10} inputs in {seconds} s, nothing found", target.name)?;
    }
    Ok(())
}
