//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand, ValueEnum};
use seimon_plan::{GroupId, LineId, PathId, ServiceId, ZoneId};

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
    /// Give a path that is a tunnel another key, without losing a packet; make keys.
    #[command(
        subcommand,
        after_help = "\
Examples:
  seimonctl wireguard keygen hub.key   make a hub's key; print its public half
  seimonctl wireguard rotate closed    make the next key; register what it prints at the hub
  seimonctl wireguard switch closed    use it; back by itself if the hub does not answer"
    )]
    Wireguard(WireguardCommand),
    /// At a hub, the far end of the schools' tunnels: how its schools are, and who reaches what.
    #[command(
        subcommand,
        after_help = "\
Examples:
  seimonctl hub status
  seimonctl hub explain --from asahi-es --to 10.50.0.53"
    )]
    Hub(HubCommand),
    /// Source addresses that the outside sees, and who must know them.
    #[command(
        subcommand,
        after_help = "\
Examples:
  seimonctl --lang ja egress letter affairs > letter.txt"
    )]
    Egress(EgressCommand),
    /// Print the PAC file that a zone's browsers get now: what they reach directly, what through the town's proxy.
    #[command(after_help = "\
Example:
  seimonctl pac --zone affairs")]
    Pac {
        /// Zone that the plan sets the proxy for.
        #[arg(long, value_name = "ZONE", value_parser = zone)]
        zone: ZoneId,
    },
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
    /// Try everything that people at the school need, and say whose job it is where something fails. Takes up to two minutes.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "\
Examples:
  seimonctl acceptance
  seimonctl --lang ja acceptance --html result.html --pdf result.pdf
  seimonctl acceptance verify result.pdf"
    )]
    Acceptance {
        #[command(flatten)]
        pages: Pages,
        /// Keep the signed result as data, too.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
        #[command(subcommand)]
        command: Option<AcceptanceCommand>,
    },
    /// Make the sheet that hangs beside the gateway: what to expect, whom to call, which cable goes where.
    #[command(after_help = "\
Examples:
  seimonctl --lang ja sheet --pdf sheet.pdf
  seimonctl sheet --plan site.toml --board board.toml --html sheet.html")]
    Sheet {
        #[command(flatten)]
        pages: Pages,
        /// The site plan (TOML). Default: the one in force.
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
        /// Board file of the gateway: its ports as printed on the case.
        #[arg(long, value_name = "FILE", default_value = BOARD)]
        board: PathBuf,
    },
    /// Ask about a line's contract.
    #[command(subcommand)]
    Line(LineCommand),
    /// Bring a new image onto the gateway: written beside the one that runs, tried, and left by itself if users suffer.
    #[command(
        subcommand,
        after_help = "\
Examples:
  seimonctl update check https://updates.example.jp/seimon.simg
  seimonctl update stage https://updates.example.jp/seimon.simg
  seimonctl update apply
  seimonctl update status"
    )]
    Update(UpdateCommand),
    /// Make the gateway forget, and restart it.
    #[command(after_help = "\
Examples:
  seimonctl reset factory --yes    the school's settings; the box's identity stays
  seimonctl reset wipe --yes       everything: before the box leaves the town's hands")]
    Reset {
        /// What is to be forgotten.
        #[arg(value_enum)]
        what: ResetWhat,
        /// It is meant.
        #[arg(long)]
        yes: bool,
    },
    /// Collect what whoever helps from afar needs, with nothing in it that leads to a person.
    Diagnostics {
        /// Where to put it.
        #[arg(value_name = "FILE", default_value = "seimon-diagnostics.tar")]
        file: PathBuf,
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

/// The board file of a gateway.
const BOARD: &str = "/etc/seimon/board.toml";

/// Where pages go, and how they look.
#[derive(Debug, clap::Args)]
pub struct Pages {
    /// Write the page as HTML: one file that loads nothing.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the page as PDF (A4).
    #[arg(long, value_name = "FILE")]
    pub pdf: Option<PathBuf>,
    /// Font of the PDF, with Japanese glyphs (TrueType, OpenType). Default: one that is installed.
    #[arg(long, value_name = "FILE")]
    pub font: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum AcceptanceCommand {
    /// Say whether a result is as the gateway signed it, and what it says. Needs no gateway.
    Verify {
        /// A page or a kept result: HTML, PDF or data.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The gateway's public key, as printed on an earlier page: then a result of another gateway is refused.
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum UpdateCommand {
    /// Say what runs, what the other slot holds, and why an image was left.
    Status,
    /// Fetch an image's head and say whether it may run here. Writes nothing.
    Check {
        /// An https URL, or a file on the gateway.
        #[arg(value_name = "URL|FILE")]
        source: String,
    },
    /// Write an image into the slot that does not run, and verify it. Nothing changes until `apply`.
    Stage {
        /// An https URL, or a file on the gateway.
        #[arg(value_name = "URL|FILE")]
        source: String,
    },
    /// Restart into the staged image: kept by itself if users are as well as before, left by itself if not.
    Apply,
    /// Keep the running image, whatever its trial says.
    Confirm,
    /// Restart into the image before.
    Rollback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ResetWhat {
    /// The school's settings; the box's identity stays.
    Factory,
    /// Everything.
    Wipe,
}

#[derive(Debug, Subcommand)]
pub enum LineCommand {
    /// Say whether a line's contract may be cancelled, and who still uses the line.
    MayCancel {
        /// The line, as the plan names it.
        #[arg(value_name = "LINE", value_parser = line)]
        line: LineId,
        /// Days without use that are wanted.
        #[arg(long, value_name = "DAYS", default_value_t = 35, value_parser = clap::value_parser!(u32).range(1..=366))]
        days: u32,
    },
}

fn line(text: &str) -> Result<LineId, String> {
    LineId::new(text).map_err(|error| error.to_string())
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

#[derive(Debug, Subcommand)]
pub enum EgressCommand {
    /// Write the letter that asks a service's provider to register the addresses that it sees now.
    Letter {
        /// Service of the plan.
        #[arg(value_name = "SERVICE", value_parser = service)]
        service: ServiceId,
    },
}

#[derive(Debug, Subcommand)]
pub enum HubCommand {
    /// Show the hub and every school's end, one line a school.
    Status,
    /// Say whether a school reaches an address through the hub and why, and as which address it is seen there.
    Explain {
        /// A school of the hub's plan, or an address that comes out of its tunnel.
        #[arg(long, value_name = "SCHOOL|ADDR")]
        from: String,
        /// IP address that it wants to reach; with port 53 at the hub's own address, that is DNS.
        #[arg(long, value_name = "ADDR[:PORT]")]
        to: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum WireguardCommand {
    /// Make the next key, if there is none, and print its public half. The tunnel goes on with the present key.
    Rotate {
        /// Path of the plan that is a tunnel.
        #[arg(value_name = "PATH", value_parser = path)]
        path: PathId,
    },
    /// Use the next key from now on. If the hub does not answer to it within 15 seconds, the present one is used again.
    Switch {
        /// Path of the plan that is a tunnel.
        #[arg(value_name = "PATH", value_parser = path)]
        path: PathId,
    },
    /// Make a private key, in a file that only its owner can read, and print its public half. Without a file: the private
    /// key itself is printed.
    Keygen {
        /// The file to make. One that is there is left alone.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print the public half of a private key.
    Pubkey {
        /// The file with the private key; - or nothing: standard input.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

fn zone(text: &str) -> Result<ZoneId, String> {
    ZoneId::new(text).map_err(|error| error.to_string())
}

fn service(text: &str) -> Result<ServiceId, String> {
    ServiceId::new(text).map_err(|error| error.to_string())
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
