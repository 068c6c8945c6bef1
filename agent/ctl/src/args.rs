//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand, ValueEnum};
use seimon_plan::{GroupId, PathId, ZoneId};

/// Where the agent listens unless `--socket` or [`SOCKET_VARIABLE`] says otherwise.
pub const SOCKET: &str = "/run/seimon/control.sock";
/// Names the socket where `--socket` is not given; empty is as if it were not set.
pub const SOCKET_VARIABLE: &str = "SEIMON_SOCKET";

/// Ask the gateway how it is, and tell it what to do.
#[derive(Debug, Parser)]
#[command(
    name = "seimonctl",
    version,
    after_help = "\
Exit codes:
  0  done
  1  refused or failed; the reason is printed
  2  wrong usage
  3  the agent cannot be reached
  4  you are not allowed

Examples:
  seimonctl status
  seimonctl --lang en explain --from 10.1.0.23 --to saas.example.jp
  seimonctl migrate start affairs/affairs"
)]
pub struct Args {
    /// The agent's control socket. Default: the environment's SEIMON_SOCKET, else /run/seimon/control.sock.
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print the agent's answer as JSON (docs/control.schema.json).
    #[arg(long, global = true)]
    pub json: bool,
    /// Language of the answers. Default: ja where LC_ALL, LC_MESSAGES or LANG says so, else en.
    #[arg(long, global = true, value_enum)]
    pub lang: Option<Lang>,
    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// The socket to ask: the option, else the environment's, else [`SOCKET`].
    pub fn socket(&self) -> PathBuf {
        let said = || std::env::var_os(SOCKET_VARIABLE).filter(|value| !value.is_empty());
        self.socket.clone().or_else(|| said().map(PathBuf::from)).unwrap_or_else(|| SOCKET.into())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    Ja,
    En,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// One screen: is everything well, who uses which path, what is to be done.
    Status,
    /// Check a site plan, show the one in force, compare.
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Put a site plan in force.
    #[command(after_help = "\
Examples:
  seimonctl apply site.toml --dry-run    what would change
  seimonctl apply site.toml              change it")]
    Apply {
        file: PathBuf,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Why HOST may (or may not) reach a name or an address, by which path, seen from outside as which address.
    #[command(after_help = "\
Examples:
  seimonctl explain --from 10.1.0.23 --to saas.example.jp
  seimonctl explain --from 10.2.0.40 --to 203.0.113.10:443")]
    Explain {
        /// Address of the machine that asks.
        #[arg(long, value_name = "HOST")]
        from: String,
        /// What it wants to reach.
        #[arg(long, value_name = "NAME|ADDR[:PORT]")]
        to: String,
    },
    /// Move a zone's service group to another path, or see how that goes.
    #[command(
        subcommand,
        after_help = "\
Examples:
  seimonctl migrate status
  seimonctl migrate start learning/learning
  seimonctl migrate start affairs/affairs --to direct
  seimonctl migrate rollback affairs/affairs"
    )]
    Migrate(MigrateCommand),
    /// What has happened.
    #[command(after_help = "\
Examples:
  seimonctl events
  seimonctl --json events --follow | jq .kind")]
    Events {
        /// Stay, and print what happens from now on, too.
        #[arg(long, short)]
        follow: bool,
        /// Only events after this number.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        since: u64,
    },
}

#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Check a plan file. Needs no agent.
    #[command(after_help = "\
Example:
  seimonctl plan check site.toml --board board.toml")]
    Check {
        file: PathBuf,
        /// Descriptor of the board that the plan is for.
        #[arg(long, value_name = "FILE")]
        board: PathBuf,
    },
    /// Print the plan in force.
    Show,
    /// What applying a plan file would change.
    Diff { file: PathBuf },
}

#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// Begin a move. Refused, with every reason, while something stands against it.
    Start {
        #[arg(value_name = "ZONE/GROUP")]
        which: ZoneGroup,
        /// Path to move to. Default: the last of the plan's route.
        #[arg(long, value_name = "PATH", value_parser = path)]
        to: Option<PathId>,
    },
    /// Hold a move where it is.
    Pause {
        #[arg(value_name = "ZONE/GROUP")]
        which: ZoneGroup,
    },
    /// Go on with a move that was held.
    Resume {
        #[arg(value_name = "ZONE/GROUP")]
        which: ZoneGroup,
    },
    /// Go back to the path before.
    Rollback {
        #[arg(value_name = "ZONE/GROUP")]
        which: ZoneGroup,
    },
    /// How the moves go.
    Status,
}

fn path(text: &str) -> Result<PathId, String> {
    PathId::new(text).map_err(|error| error.to_string())
}

/// A service group in a zone, written `ZONE/GROUP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneGroup {
    pub zone: ZoneId,
    pub group: GroupId,
}

impl FromStr for ZoneGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (zone, group) = text.split_once('/').ok_or("write ZONE/GROUP, as in affairs/affairs")?;
        let zone = ZoneId::new(zone).map_err(|error| error.to_string())?;
        let group = GroupId::new(group).map_err(|error| error.to_string())?;
        Ok(Self { zone, group })
    }
}
