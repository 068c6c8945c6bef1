//! `seimon-fuzz`: the fuzzer that needs nothing but seeds.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use seimon_fuzz::TARGETS;
use seimon_fuzz::mutate::{self, Outcome};

const HELP: &str = "\
seimon-fuzz [--target NAME] [--seconds N] [--seed S]   each target for N seconds (10)
seimon-fuzz --write-seeds FOLDER                       good inputs of every target, as files in FOLDER/NAME
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<bool> {
    let (mut only, mut seconds, mut seed) = (None, 10, 1);
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        let mut value = || left.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--target" => only = Some(value()?.clone()),
            "--seconds" => seconds = value()?.parse()?,
            "--seed" => seed = value()?.parse()?,
            "--write-seeds" => return write_seeds(Path::new(value()?)).map(|()| true),
            other => bail!("no option `{other}`\n{HELP}"),
        }
    }
    let mut good = true;
    for target in TARGETS.into_iter().filter(|target| only.as_ref().is_none_or(|only| only == target.name)) {
        let Outcome { inputs, found } = mutate::fuzz(target, seed, Duration::from_secs(seconds));
        let came = match found {
            None => "nothing found".to_owned(),
            Some(input) => {
                good = false;
                format!("FOUND: {}", keep(target.name, &input)?.display())
            }
        };
        writeln!(std::io::stdout(), "{:<12} {inputs:>10} inputs in {seconds} s, {came}", target.name)?;
    }
    Ok(good)
}

fn write_seeds(folder: &Path) -> Result<()> {
    for target in TARGETS {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}

/// Where the tests try it again from now on.
fn keep(target: &str, input: &[u8]) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("found").join(target);
    std::fs::create_dir_all(&folder)?;
    let digest = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let file = folder.join(format!("{digest:016x}"));
    std::fs::write(&file, input)?;
    Ok(file)
}
