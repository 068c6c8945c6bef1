//! The gateway: what the lab needs of one, whatever it is made of.
//!
//! - [`Processes`]: the real agent's programs in the namespace `gw`.
//! - [`Machine`]: a whole image in QEMU, or a box on a bench, joined to the ports of `gw` and asked over its maintenance port.

mod board_plan;
mod machine;
mod processes;
mod wiring;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use seimon_plan::WireguardKey;

use super::versions::Writer;
pub use board_plan::{PortMap, Socket, UnknownPort, on_board};
pub use machine::{How, Machine, MachineConfig, Zones};
pub use processes::Processes;
pub(crate) use processes::tunnels;

/// What the agent is started with.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// `seimon-agent`; its helpers and `seimonctl` are beside it.
    pub agent: PathBuf,
    /// The plan's text. Written to the gateway's directory, beside it the lab's CA as `lab-ca.pem`.
    pub plan: String,
    /// Board descriptor (`board/boards/lab-namespace.toml`).
    pub board: PathBuf,
    /// Mechanisms to switch off (`--without`, builds with the feature `sabotage` only).
    pub without: Vec<String>,
    /// Whether `--clock-trust-file` exists.
    pub clock_trusted: Trust,
}

/// Whether the gateway may trust its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    Trusted,
    Untrusted,
}

/// What `seimonctl` said.
#[derive(Clone, Debug)]
pub struct CtlOutput {
    /// Exit code; -1 if it was killed.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// One process of the gateway, from /proc.
#[derive(Clone, Debug)]
pub struct ProcessUsage {
    /// `seimon-agent` or one of its helpers (`seimon-resolver`, `seimon-probe`, `seimon-page`, `seimon-tunnel`).
    pub name: String,
    pub pid: u32,
    pub rss_bytes: u64,
    /// User and system time since it began.
    pub cpu: Duration,
}

/// Where a second agent has its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondRuntime {
    /// Where the first has them.
    Same,
    Own,
}

/// What somebody else takes away on the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    Nft,
    Rules,
}

/// Whether a cable is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Up,
    Down,
}

/// A gateway in the town. Calls are synchronous and may be made from any thread.
///
/// What a backend cannot do it refuses with [`not_here`]; [`crate::runner::unsuited`] knows before a scenario is begun.
pub trait Gateway: std::fmt::Debug + Send + Sync {
    /// From the first start on the agent's state is on a disk of its own, which can be cut off and filled.
    fn use_own_disk(&self) -> Result<()>;

    /// From the first start on the agent's wall clock can be moved.
    fn use_own_clock(&self) -> Result<()>;

    /// Starts the agent (and the box, if need be) and waits until its control socket answers a question for its status: at
    /// most `ready`, or what the backend knows to be right for itself.
    fn start(&self, ready: Duration) -> Result<()>;

    /// How long an answer of the agent may take.
    fn patience(&self) -> Duration;

    /// SIGTERM to the agent, then waits at most `patience` for its end.
    fn terminate(&self, patience: Duration) -> Result<()>;

    /// kill -9 of one of the gateway's processes by name (`seimon-resolver`); returns when it is gone.
    fn kill_process(&self, name: &str) -> Result<()>;

    /// kill -9 of the agent and of what it left behind.
    fn kill_all(&self) -> Result<()>;

    /// The power goes. What was not on the disk is gone, and so is all that the kernel knew.
    fn power_cut(&self) -> Result<()>;

    /// Not a byte more goes on the disk of the agent's state; or again.
    fn fill_disk(&self) -> Result<()>;

    fn free_disk(&self) -> Result<()>;

    /// Seconds that the agent's wall clock is ahead of the true one.
    fn clock_ahead(&self) -> Result<i64>;

    fn set_clock_ahead(&self, seconds: i64) -> Result<()>;

    /// Starts another agent beside the one that runs, with the same state, and tells how it ended. One that goes on for
    /// longer than `patience` is killed; its exit code is 0.
    fn second(&self, runtime: SecondRuntime, patience: Duration) -> Result<CtlOutput>;

    /// The journal of an agent that does not run becomes what another version would have left.
    fn rewrite_journal(&self, writer: Writer) -> Result<()>;

    /// All tables or rules of the kernel go, whoever they are of.
    fn flush(&self, what: Flush) -> Result<()>;

    /// The cable of one of the gateway's ports (`wan1`) was pulled or plugged in at its far end.
    fn carrier(&self, port: &str, carrier: Carrier) -> Result<()>;

    /// Runs `seimonctl` with the control socket of this gateway.
    fn ctl(&self, args: &[&str]) -> Result<CtlOutput>;

    /// Puts a plan where [`Self::ctl`] can take it from, and says where.
    fn put_plan(&self, name: &str, plan: &str) -> Result<String>;

    /// The agent's control socket, reachable from the lab's own process.
    fn control_socket(&self) -> PathBuf;

    /// The public half of the key of the plan's tunnel, as far as it can be known now. `key_file` is in the agent's state.
    fn school_key(&self, key_file: &str) -> Result<Option<WireguardKey>>;

    /// What the agent wrote to stdout and stderr since the town was raised.
    fn log(&self) -> String;

    /// The agent and its helpers.
    fn usage(&self) -> Vec<ProcessUsage>;
}

/// What a gateway cannot do.
pub(crate) fn not_here<T>(what: &str) -> Result<T> {
    bail!("not on this gateway: {what}")
}
