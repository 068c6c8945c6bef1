//! `seimon-image`: makes the gateway's image, looks into it, and starts it in a virtual machine. People run it as
//! `cargo xtask image` and `cargo xtask vm`.
//!
//! Debian packages by the lock, unpacked and never configured; our programs, cross-built; a kernel; a root file system with
//! its hash tree; all of it signed. The same source and the same lock are the same bytes.

mod apt;
mod arguments;
mod check;
mod contents;
mod cpio;
mod cross;
mod cve;
mod disk;
mod fat;
mod gpt;
mod image;
mod kernel;
mod keys;
mod make;
mod say;
mod sbom;
mod settings;
mod system;
mod tree;
mod unpack;
mod verity;
mod vm;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use seimon_boot::Digest;
use sha2::{Digest as _, Sha256};

use crate::arguments::{Cli, Command};
use crate::contents::{Contents, Difference};
use crate::settings::{Lock, Packages};

/// Where everything is.
struct Places {
    /// The repository.
    root: PathBuf,
    /// `target/images`.
    work: PathBuf,
    /// `target/image`, where programs are built.
    build: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            say::line(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let root = std::path::absolute(&cli.root)?;
    let target = cli.target_dir.map_or_else(|| Ok(root.join("target")), std::path::absolute)?;
    let places = Places { work: target.join("images"), build: target.join("image"), root };
    match cli.command {
        Command::Make(arguments) => make::make(&places, &arguments),
        Command::Lock => lock(&places),
        Command::Diff { old, new, json } => diff(&old, &new, json),
        Command::Cve { database, release, json } => cve(&places, database.as_deref(), &release, json),
        Command::Vm(arguments) => vm::run(&places, &arguments),
    }
}

fn lock(places: &Places) -> Result<ExitCode> {
    let packages = Packages::read(&places.root)?;
    let apt = apt::Apt::open(&places.work)?;
    let before = Lock::read(&places.root).ok();
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("the clock")?.as_secs();
    // Midnight: nobody needs to know when in the day.
    let mut lock = apt.resolve(&packages, now - now % 86_400)?;
    if let Some(before) = before.filter(|before| before.package == lock.package) {
        lock.epoch = before.epoch;
    }
    lock.write(&places.root)?;
    say::result(&format!("images/packages.lock: {} packages", lock.package.len()));
    Ok(ExitCode::SUCCESS)
}

fn diff(old: &Path, new: &Path, json: bool) -> Result<ExitCode> {
    let difference = Difference::between(&Contents::read(old)?, &Contents::read(new)?);
    if json {
        say::result(&serde_json::to_string_pretty(&difference)?);
    } else {
        say::result(&difference.lines().join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

fn cve(places: &Places, database: Option<&Path>, release: &str, json: bool) -> Result<ExitCode> {
    let lock = Lock::read(&places.root)?;
    let Some(database) = database else {
        say::result(
            "cannot tell: no database was given. Fetch the Debian security tracker's JSON and name it: \
             cargo xtask image cve --database FILE",
        );
        return Ok(ExitCode::from(3));
    };
    let text = std::fs::read_to_string(database).with_context(|| database.display().to_string())?;
    let found = cve::holes(&lock, &text, release)?;
    if json {
        say::result(&serde_json::to_string_pretty(&found)?);
    } else {
        for hole in &found {
            let fixed = hole
                .fixed_in
                .as_deref()
                .map_or("no fix yet".to_owned(), |version| format!("fixed in {version}"));
            say::result(&format!(
                "{} {} {} ({fixed}; {}): {}",
                hole.cve, hole.source, hole.version, hole.urgency, hole.description
            ));
        }
        say::result(&format!("{} known holes in {} packages", found.len(), lock.package.len()));
    }
    Ok(ExitCode::SUCCESS)
}

fn digest_of_file(file: &Path) -> Result<Digest> {
    let mut open = std::fs::File::open(file).with_context(|| file.display().to_string())?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let length = open.read(&mut buffer).with_context(|| file.display().to_string())?;
        if length == 0 {
            return Ok(Digest(hasher.finalize().into()));
        }
        hasher.update(&buffer[..length]);
    }
}
