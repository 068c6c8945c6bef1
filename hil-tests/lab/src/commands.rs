//! The subcommands.

mod demo;
mod run;
mod shell;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use seimon_lab::runner::{Choice, images, shipped_scenarios};
use seimon_lab::scenario::Scenario;
use seimon_lab::vocabulary as words;

pub(super) use demo::demo;
pub(super) use run::{play, run};
pub(super) use shell::shell;

use super::{BenchArgs, GatewayArgs};

pub(super) fn list() -> Result<ExitCode> {
    for file in shipped_scenarios()? {
        let scenario = Scenario::read(&file)?;
        let marks = format!(
            "{} s{}{}",
            scenario.duration.as_secs(),
            if scenario.short { ", short" } else { "" },
            scenario.sabotage.as_deref().map(|s| format!(", fails without {s}")).unwrap_or_default()
        );
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        line(&format!("{name:<34} {} [{}] ({marks})", scenario.name, scenario.needs.join(" ")));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn vocabulary(json: bool) -> Result<ExitCode> {
    if json {
        line(&serde_json::to_string_pretty(&words::as_json())?);
    } else {
        line(words::as_text().trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn bench(args: &BenchArgs) -> Result<ExitCode> {
    // Some groups measure the rules alone, without the gateway's programs.
    let rules_only =
        args.only.as_deref().is_some_and(|only| ["forward", "newconn", "firstpacket"].contains(&only));
    let bin_dir = if rules_only { PathBuf::new() } else { bin_dir(args.bin_dir.as_deref())? };
    seimon_lab::netns::enter_or_reexec()?;
    let results = seimon_lab::bench::run(args.only.as_deref(), &bin_dir, &mut |text| line(text))?;
    line("");
    line(results.table().trim_end());
    if let Some(file) = &args.json {
        results.write(file)?;
    }
    Ok(exit(results.good()))
}

fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

fn exit(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The gateway that was asked for.
fn gateway(args: &GatewayArgs) -> Result<Choice> {
    let images = images(&target_dir()?);
    Choice::parse(&args.gateway, args.image.as_deref(), &images)
}

/// The gateway's programs: as told, or beside this one.
fn bin_dir(told: Option<&Path>) -> Result<PathBuf> {
    let dir = match told {
        Some(dir) => dir.to_owned(),
        None => std::env::current_exe()?.parent().context("this program has no folder")?.to_owned(),
    };
    for program in
        ["seimon-agent", "seimon-resolver", "seimon-probe", "seimon-page", "seimon-tunnel", "seimonctl"]
    {
        if !dir.join(program).is_file() {
            bail!("{} is not in {}; start this by `cargo xtask`, which builds it", program, dir.display());
        }
    }
    Ok(std::fs::canonicalize(dir)?)
}

/// Where reports go: `target/NAME`, beside the folder of this program.
fn out_dir(name: &str) -> Result<PathBuf> {
    let dir = target_dir()?.join(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
    Ok(dir)
}

fn target_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(2).context("this program has no folder")?;
    // The sabotaged build lives one folder deeper.
    let target = if target.ends_with("sabotage") { target.parent().unwrap_or(target) } else { target };
    Ok(target.to_owned())
}
