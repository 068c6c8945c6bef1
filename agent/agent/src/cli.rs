//! Command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The gateway's agent: keeps the kernel's network as the site plan says, moves services from path to path, and goes back
/// when users would suffer.
#[derive(Debug, Parser)]
#[command(name = "seimon-agent", version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 stopped as asked; 1 failed, with the reason on standard error; 2 wrong usage.\n\
    See also: seimonctl(1)."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run in the foreground until SIGTERM; forwarding is then closed.
    Run(Run),
    /// Close forwarding, keep everything else. Needs no plan; harmless to repeat.
    Lockdown,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The site plan to begin with, or a hub plan (`role = "hub"`): then this is the far end of the schools' tunnels. A plan applied later with `seimonctl apply` is kept in the state directory and is
    /// used until this file changes.
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: PathBuf,
    /// The board descriptor: which printed port is which interface. `auto`: of those that come with the program, the one that this machine is.
    #[arg(long, value_name = "FILE|auto", default_value = crate::plans::AUTO)]
    pub(crate) board: PathBuf,
    /// Durable state (journal, applied plan).
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: PathBuf,
    /// Sockets: control.sock, metrics.sock.
    #[arg(long, value_name = "DIR")]
    pub(crate) runtime_dir: PathBuf,
    /// The wall clock is trusted while this file exists (and the clock is not behind what was written down before).
    #[arg(long, value_name = "FILE", default_value = crate::clock::TIMESYNC_FILE)]
    pub(crate) clock_trust_file: PathBuf,
    /// How to log on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log: LogFormat,
    /// Mechanisms to switch off, to show that a check can fail.
    #[cfg(feature = "sabotage")]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) without: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}
