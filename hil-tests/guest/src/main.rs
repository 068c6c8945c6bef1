//! A small Linux guest with the kernel features that a gateway has and a test machine may lack: flowtables, VLAN devices,
//! bridges that filter VLANs, WireGuard. It boots Debian's arm64 kernel in QEMU, runs one command, and tells how it ended.
//!
//! ```text
//!  apt-get download ─▶ TARGET/guest/debs ─unpack─▶ TARGET/guest/base.cpio ┐
//!  cross-built tests, files of the repository ──▶ TARGET/guest/job.cpio   ├─▶ QEMU ─serial─▶ lines, exit status
//!  the command ──────────────────────────────────▶ /job/run               ┘
//! ```
//! Everything is in software and without privilege. What is missing on the machine is named; nothing is installed.

mod bench;
mod cpio;
mod cross;
mod image;
mod modules;
mod packages;
mod qemu;
mod say;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

const HELP: &str = "\
seimon-guest COMMAND

  check                       what this machine lacks for the guest, if anything
  run COMMAND...              a shell command in the guest
  test PACKAGE [--test NAME]... [--env NAME=VALUE]... [FILTER...]
                              a package's cross-built tests in the guest
  quick                       the tests that need the guest's kernel and take seconds
  bench [--pairs N] [--json FILE]
                              what the flowtable gains, and how much of a bare one's gain that is
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            say::problem(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The repository's top folder.
pub(crate) fn root() -> Result<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).context("this program was not built inside the repository")?;
    Ok(root.to_path_buf())
}

/// Where everything that is made for the guest lies.
pub(crate) fn folder() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root()?.join("target"), PathBuf::from);
    let folder = target.join("guest");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

fn run(arguments: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = arguments.split_first() else {
        say::out(HELP);
        return Ok(ExitCode::from(2));
    };
    let lacking = packages::lacking();
    if !lacking.is_empty() {
        say::out(&format!("skipped: the guest needs {}\n", lacking.join("; ")));
        return Ok(ExitCode::SUCCESS);
    }
    match command.as_str() {
        "check" => {
            say::out("everything that the guest needs is here\n");
            Ok(ExitCode::SUCCESS)
        }
        "run" => {
            if rest.is_empty() {
                bail!("run what?\n\n{HELP}");
            }
            let job = image::Job { script: rest.join(" "), ..image::Job::default() };
            ended(&qemu::boot(&job, &qemu::Machine::default())?)
        }
        "test" => {
            let job = cross::tests(&cross::Request::read(rest)?)?;
            ended(&qemu::boot(&job, &qemu::Machine::default())?)
        }
        "quick" => {
            let job = cross::quick()?;
            ended(&qemu::boot(&job, &qemu::Machine::default())?)
        }
        "bench" => bench::run(rest),
        "help" | "--help" | "-h" => {
            say::out(HELP);
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("no command `{other}`\n\n{HELP}"),
    }
}

fn ended(outcome: &qemu::Outcome) -> Result<ExitCode> {
    match outcome.status {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(status) => Ok(ExitCode::from(u8::try_from(status).unwrap_or(1).max(1))),
        None => bail!("the guest ended without telling how the command did: see its output above"),
    }
}
