//! Building what is run, and running it.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::say;

/// The programs of the gateway. The agent looks for the others beside itself.
const GATEWAY: [&str; 6] =
    ["seimon-agent", "seimon-resolver", "seimon-probe", "seimon-page", "seimon-tunnel", "seimonctl"];
const LAB: &str = "seimon-lab";

/// The repository's top folder.
pub(crate) fn root() -> Result<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).context("this program was not built inside the repository")?;
    Ok(root.to_path_buf())
}

pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

pub(crate) fn target_dir() -> Result<PathBuf> {
    Ok(std::env::var_os("CARGO_TARGET_DIR").map_or(root()?.join("target"), PathBuf::from))
}

/// Which build of the gateway a run needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flavour {
    /// As shipped.
    Release,
    /// With mechanisms that can be switched off; kept apart so that it can never be taken for the shipped one.
    Sabotage,
}

impl Flavour {
    fn of(arguments: &[String]) -> Self {
        let without = arguments.iter().any(|a| a == "--without" || a.starts_with("--without="));
        let sabotaged = arguments.iter().any(|a| a == "--sabotaged");
        if without || sabotaged { Self::Sabotage } else { Self::Release }
    }
}

/// Builds gateway and lab, then runs `seimon-lab HEAD REST` and returns its exit status.
pub(crate) fn lab_program(head: &[String], rest: &[String]) -> Result<ExitCode> {
    let bin = build(Flavour::of(rest))?;
    let mut command = Command::new(bin.join(LAB));
    command.args(head).arg("--bin-dir").arg(&bin).args(rest);
    exit_of(&mut command)
}

/// For commands that need no gateway: a quick build of the lab alone.
pub(crate) fn lab_reader(arguments: &[String]) -> Result<ExitCode> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "seimon-lab", "--bin", LAB, "--"]).args(arguments);
    exit_of(&mut command)
}

/// What runs in a guest of its own.
pub(crate) fn guest(arguments: &[String]) -> Command {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "seimon-guest", "--"]).args(arguments);
    command
}

/// Builds and returns the folder with the programs.
fn build(flavour: Flavour) -> Result<PathBuf> {
    say::step("building (the first time takes some minutes)");
    let target = match flavour {
        Flavour::Release => target_dir()?,
        Flavour::Sabotage => target_dir()?.join("sabotage"),
    };
    let mut gateway = cargo();
    gateway.args(["build", "--release"]).arg("--target-dir").arg(&target);
    for package in GATEWAY.iter().chain([&LAB]) {
        gateway.args(["--package", package]);
    }
    if flavour == Flavour::Sabotage {
        gateway.args(["--features", "seimon-agent/sabotage,seimon-resolver/sabotage"]);
        // Seen by nobody but a test: no link-time optimisation, so that it is there sooner.
        gateway.args(["--config", "profile.release.lto=false"]);
    }
    let status = gateway.status().context("cargo could not be started")?;
    if !status.success() {
        bail!("the build failed (see above)");
    }
    Ok(target.join("release"))
}

pub(crate) fn exit_of(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| format!("{command:?} could not be started"))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1))
    })
}
