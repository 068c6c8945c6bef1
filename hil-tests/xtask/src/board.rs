//! `cargo xtask board`: look at board files.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use seimon_board::hardware::{Hardware, Proven, Shows};
use seimon_board::{Board, PortRole, Via};

use crate::{build, say};

const HELP: &str = "\
board list                      the boards that come with the gateway
board check FILE|ID...          whether a board file is valid; all that come with the gateway: no argument
board show FILE|ID [--svg FILE] what it says, in words, and as a drawing (default: target/boards/ID.svg)
";

pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => {
            for id in Board::shipped_ids() {
                say::line(&format!("{id:<26} {}", load(id)?.description));
            }
        }
        ["check"] => return Ok(check(Board::shipped_ids())),
        ["check", files @ ..] => return Ok(check(files.iter().copied())),
        ["show", name] => show(name, None)?,
        ["show", name, "--svg", file] => show(name, Some(Path::new(file)))?,
        [] | ["help" | "--help" | "-h"] => say::out(HELP),
        other => bail!("no command `board {}`\n\n{HELP}", other.join(" ")),
    }
    Ok(ExitCode::SUCCESS)
}

fn load(name: &str) -> Result<Board> {
    if let Some(board) = Board::shipped(name) {
        return Ok(board);
    }
    let ids: Vec<&str> = Board::shipped_ids().collect();
    let text = std::fs::read_to_string(name)
        .with_context(|| format!("`{name}` is neither a file nor one of: {}", ids.join(", ")))?;
    Ok(Board::parse(&text, name)?)
}

/// Every one is looked at, whatever the others are.
fn check<'a>(names: impl Iterator<Item = &'a str>) -> ExitCode {
    let mut good = true;
    for name in names {
        match load(name) {
            Ok(board) => say::line(&format!("{name}: valid, {} ports", board.ports.len())),
            Err(error) => {
                good = false;
                say::problem(&format!("{error:#}"));
            }
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(name: &str, file: Option<&Path>) -> Result<()> {
    let board = load(name)?;
    say::out(&words(&board));
    let drawing = match file {
        Some(file) => file.to_owned(),
        None => build::target_dir()?.join("boards").join(format!("{}.svg", board.id)),
    };
    if let Some(folder) = drawing.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&drawing, seimon_board::svg(&board)).with_context(|| drawing.display().to_string())?;
    say::line(&format!("drawn: {}", drawing.display()));
    Ok(())
}

fn words(board: &Board) -> String {
    let mut lines = vec![format!("{} ({})", board.description, board.id)];
    for (name, port) in &board.ports {
        let role = match port.role {
            PortRole::Wan => "uplink",
            PortRole::Lan => "school",
        };
        let via = match port.via {
            Via::Own => "",
            Via::Switch => ", behind the switch",
        };
        let path = port.path.as_deref().map_or(String::new(), |path| format!(", at {path}"));
        lines.push(format!("  port    {name:<8} {:<8} {role}{via}{path}", port.interface.as_str()));
    }
    if let Some(hardware) = &board.hardware {
        lines.extend(parts(hardware));
    }
    lines.join("\n") + "\n"
}

fn parts(hardware: &Hardware) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, led) in &hardware.leds {
        let shows = match led.shows {
            Shows::Status => "how the gateway is",
            Shows::Kernel => "power, links",
        };
        lines.push(format!("  lamp    {name:<8} {} ({shows})", led.sysfs));
    }
    for (name, button) in &hardware.buttons {
        let (rescue, reset) = (button.rescue_s, button.reset_s);
        lines.push(format!("  button  {name:<8} {rescue} s: rescue, {reset} s: factory reset"));
    }
    let storage = &hardware.storage;
    lines.push(format!(
        "  disk    {} {} MiB: two slots of {} MiB, {} MiB for data",
        storage.device,
        storage.size_mib,
        storage.slot_mib,
        storage.data_mib().unwrap_or_default()
    ));
    let proven = match hardware.proven {
        Proven::Qemu => "boots so in QEMU",
        Proven::DeviceTree => "written from the public device tree, not run on hardware",
        Proven::Hardware => "boots so on the hardware",
    };
    lines.push(format!("  proven  {proven}"));
    lines
}
