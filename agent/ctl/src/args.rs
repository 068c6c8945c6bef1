//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand, ValueEnum};
use seimon_plan::{GroupId, PathId, ZoneId};

/// Where the agent listens unless `--socket` or [`SOCKET_VARIABLE`] says otherwise.
pub const SOCKET: &str = "/run/seimon/control.sock";
/// Names the socket where `--socket` is not given; empty is as if it were not set.
pub const SOCKET_VARIABLE: &str = "SEIMON_SOCKET";

/// The options that every command has stand apart from its own.
const GLOBAL: &str = "Options of every command";

/// Ask the gateway how it is, and tell it what to do.
#[derive(Debug, Parser)]
#[command(
    name = "seimonctl",
    version,
    after_help = "\
Words:
  zone   a part of the school's network, such as the staff's or the pupils'
  group  services that are moved together
  path   a way out of the school, such as closed (the closed network) or direct
  plan   the file that lays this down and names zones, groups and paths

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
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub socket: Option<PathBuf>,
    /// Print the agent's answer as JSON, for programs; its form is in docs/control.schema.json.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// Language of the answers and of this help. Default: ja where LC_ALL, LC_MESSAGES or LANG says so, else en.
    #[arg(long, global = true, value_enum, help_heading = GLOBAL)]
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
    /// One screen: is everything well, who uses which path, what you should do.
    Status,
    /// Check a site plan, show the one in force, or compare the two.
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Put a site plan in force. Refused, with every reason, if it has errors or a group is being moved.
    #[command(after_help = "\
Examples:
  seimonctl apply site.toml --dry-run    what would change
  seimonctl apply site.toml              change it")]
    Apply {
        /// The site plan (TOML).
        file: PathBuf,
        /// Only say what would change; change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Say whether a machine may reach a name or an address and why, by which path, and as which address it is seen outside.
    #[command(after_help = "\
Examples:
  seimonctl explain --from 10.1.0.23 --to saas.example.jp
  seimonctl explain --from 10.2.0.40 --to 203.0.113.10:443")]
    Explain {
        /// IP address of the machine in the school.
        #[arg(long, value_name = "HOST")]
        from: String,
        /// Name or IP address that it wants to reach; without a port: the service's first, else 443.
        #[arg(long, value_name = "NAME|ADDR[:PORT]")]
        to: String,
    },
    /// Move a service group of a zone to another path, or see how that goes.
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
    /// List what has happened since the agent started: at most the last 1,000 events.
    #[command(after_help = "\
Examples:
  seimonctl events
  seimonctl --json events --follow | jq .kind")]
    Events {
        /// Stay, and print what happens from now on, too; end with Ctrl-C.
        #[arg(long, short)]
        follow: bool,
        /// Only events after the one with this number. Default: all.
        #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
        since: u64,
    },
    /// Print a script that makes a shell complete this tool's commands and options with the Tab key.
    #[command(after_help = "\
Examples:
  seimonctl completions bash > /etc/bash_completion.d/seimonctl
  seimonctl completions zsh > /usr/local/share/zsh/site-functions/_seimonctl
  seimonctl completions fish > /etc/fish/completions/seimonctl.fish")]
    Completions {
        /// The shell that is to read it.
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// Those whose completions [`Command::Completions`] prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Check a plan file without a gateway.
    #[command(after_help = "\
Example:
  seimonctl plan check site.toml --board board.toml")]
    Check {
        /// The site plan (TOML).
        file: PathBuf,
        /// Board file of the gateway that the plan is for: which ports it has. On the gateway: /etc/seimon/board.toml.
        #[arg(long, value_name = "FILE")]
        board: PathBuf,
    },
    /// Print the plan in force.
    Show,
    /// Say what applying a plan file would change; change nothing.
    Diff {
        /// The site plan (TOML).
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// Begin a move. It goes on by itself, and back by itself when users would suffer. Refused, with every reason, while
    /// something stands against it.
    Start {
        /// Zone and service group, as `seimonctl status` shows them.
        #[arg(value_name = "ZONE/GROUP")]
        which: ZoneGroup,
        /// Path to move to. Default: the last one of the group's route in the plan.
        #[arg(long, value_name = "PATH", value_parser = path)]
        to: Option<PathId>,
    },
    /// Hold a move where it is. A path that fails is left all the same.
    Pause {
        /// Zone and service group, as `seimonctl status` shows them.
        #[arg(value_name = "ZONE/GROUP")]
        which: ZoneGroup,
    },
    /// Go on with a move that was held.
    Resume {
        /// Zone and service group, as `seimonctl status` shows them.
        #[arg(value_name = "ZONE/GROUP")]
        which: ZoneGroup,
    },
    /// Go back to the path before; whoever is at work may finish.
    Rollback {
        /// Zone and service group, as `seimonctl status` shows them.
        #[arg(value_name = "ZONE/GROUP")]
        which: ZoneGroup,
    },
    /// Show how the moves go.
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
