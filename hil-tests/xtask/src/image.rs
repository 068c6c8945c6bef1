//! `cargo xtask image` and `cargo xtask vm`: builds `seimon-image` and runs it.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::deps::{self, Consent, Need};

const PROGRAM: &str = "seimon-image";

pub(crate) fn image(rest: &[String], consent: Consent) -> Result<ExitCode> {
    let words: Vec<&str> = rest.iter().map(String::as_str).filter(|word| *word != "--yes").collect();
    let head: &[&str] = match words.first() {
        Some(&("lock" | "diff" | "cve")) => &[],
        Some(&"check") => &["make", "--check"],
        Some(&"sbom") => &["make", "--sbom"],
        Some(word) if word.starts_with("--") => &["make"],
        Some(_) | None => bail!("image --board NAME … | lock | diff OLD NEW | sbom | cve | check"),
    };
    if !matches!(words.first(), Some(&("diff" | "cve"))) {
        deps::ensure(Need::Image, consent)?;
    }
    // A word that stands for options goes.
    let skipped = usize::from(matches!(words.first(), Some(&("check" | "sbom"))));
    run(head, &words[skipped..])
}

pub(crate) fn vm(rest: &[String], consent: Consent) -> Result<ExitCode> {
    let words: Vec<&str> = rest.iter().map(String::as_str).filter(|word| *word != "--yes").collect();
    match words.split_first() {
        Some((&"run", rest)) => {
            deps::ensure(Need::VirtualMachine, consent)?;
            run(&["vm"], rest)
        }
        Some(_) | None => bail!("vm run [--board NAME] [--disk FILE] [--plan FILE] [--exit-when-ready]"),
    }
}

fn run(head: &[&str], rest: &[&str]) -> Result<ExitCode> {
    let target = build::target_dir()?;
    let status = build::cargo()
        .args(["build", "--quiet", "--release", "--package", PROGRAM, "--target-dir"])
        .arg(&target)
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("{PROGRAM} could not be built (see above)");
    }
    let mut command = Command::new(target.join("release").join(PROGRAM));
    command.arg("--root").arg(build::root()?).arg("--target-dir").arg(&target).args(head).args(rest);
    build::exit_of(&mut command)
}
