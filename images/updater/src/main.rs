//! `seimon-updater`: the only process that writes the slots and the boot state. It has no power over the network: it
//! fetches like any client, and asks the agent how users are.

mod disk;
mod durable;
mod engine;
mod looking;
mod serve;
mod source;
mod stage;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use seimon_board::{Board, Instant};
use seimon_boot::Anchors;
use seimon_update::trial::Timing;
use tracing_subscriber::EnvFilter;

/// Writes images into the slot that does not run, and judges by users' health whether one that was tried stays.
#[derive(Debug, Parser)]
#[command(name = "seimon-updater", version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 1 failed, with the reason on standard error; 2 wrong usage.\nSee also: seimonctl(1), `seimonctl update`."
)]
struct Cli {
    /// The boot state's partition.
    #[arg(long, value_name = "DEVICE", default_value = "/dev/seimon/boot-state")]
    boot_state: PathBuf,
    #[arg(long, value_name = "DEVICE", default_value = "/dev/seimon/slot-a")]
    slot_a: PathBuf,
    #[arg(long, value_name = "DEVICE", default_value = "/dev/seimon/slot-b")]
    slot_b: PathBuf,
    /// Public keys whose images are believed: 32 bytes each, one or two.
    #[arg(long, value_name = "FILE", default_value = "/usr/share/seimon/anchors")]
    anchors: PathBuf,
    /// The board file: which ports' cables are looked at.
    #[arg(long, value_name = "FILE", default_value = "/usr/share/seimon/board.toml")]
    board: PathBuf,
    /// The site plan. Without one there are no users to be well.
    #[arg(long, value_name = "FILE", default_value = "/etc/seimon/plan.toml")]
    plan: PathBuf,
    /// Whom to ask how users are.
    #[arg(long, value_name = "FILE", default_value = "/run/seimon/control.sock")]
    agent_socket: PathBuf,
    /// Durable: how users were before the restart, how far an image was written.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/seimon-update")]
    state_dir: PathBuf,
    /// The socket (update.sock), and the file that asks for a restart (restart).
    #[arg(long, value_name = "DIR", default_value = "/run/seimon-update")]
    runtime_dir: PathBuf,
    /// The one authority of the https server that images come from, where this file is there; else the system's authorities.
    #[arg(long, value_name = "FILE", default_value = "/etc/seimon/update-ca.pem")]
    ca: PathBuf,
    /// Where `proc` and `sys` are.
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
    /// An image on trial is confirmed after so many seconds in which users are as well as before.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    soak: u64,
    /// It is left after so many seconds in which they are worse off.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
}

/// How often users' health is looked at.
const ROUND: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("SEIMON_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    log.with_ansi(false).init();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do if standard error is closed.
            let _closed = writeln!(std::io::stderr(), "seimon-updater: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let anchors = std::fs::read(&cli.anchors).with_context(|| cli.anchors.display().to_string())?;
    let anchors = Anchors::new(&anchors)
        .with_context(|| format!("{}: not one or two ed25519 public keys", cli.anchors.display()))?;
    let board = match std::fs::read_to_string(&cli.board) {
        Ok(text) => Some(Board::parse(&text, &cli.board.display().to_string())?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| cli.board.display().to_string()),
    };
    let command_line =
        std::fs::read_to_string(cli.root.join("proc/cmdline")).context("the kernel's command line")?;
    std::fs::create_dir_all(&cli.state_dir).with_context(|| cli.state_dir.display().to_string())?;
    let engine = Arc::new(engine::Engine::new(engine::Config {
        state: disk::StateDisk::open(&cli.boot_state)?,
        slots: disk::SlotPaths { a: cli.slot_a, b: cli.slot_b },
        anchors,
        running: looking::running(&command_line),
        folder: cli.state_dir,
        restart: cli.runtime_dir.join("restart"),
        ca: cli.ca.exists().then_some(cli.ca),
        eyes: looking::Eyes {
            agent_socket: cli.agent_socket,
            plan: cli.plan,
            board,
            sys: cli.root.join("sys"),
        },
        root: cli.root,
        timing: Timing { soak: Duration::from_secs(cli.soak), patience: Duration::from_secs(cli.patience) },
    }));
    engine.begin()?;
    let socket = cli.runtime_dir.join("update.sock");
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&socket).with_context(|| socket.display().to_string())?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660))?;
    let served = Arc::clone(&engine);
    std::thread::Builder::new().name("socket".into()).spawn(move || serve::serve(&listener, &served))?;
    sd_notify::notify(&[sd_notify::NotifyState::Ready])?;
    loop {
        if let Err(error) = engine.tend(now()) {
            tracing::error!(error = %error, "the trial cannot be tended");
        }
        std::thread::sleep(ROUND);
    }
}

fn now() -> Instant {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let micros = time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000;
    Instant::from_micros(micros)
}
