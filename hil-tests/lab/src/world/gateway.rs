//! The gateway's processes: the real agent in the namespace `gw`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

/// What the agent is started with.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// `seimon-agent`; the resolver, the probe and `seimonctl` are beside it.
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
    /// `seimon-agent`, `seimon-resolver` or `seimon-probe`.
    pub name: String,
    pub pid: u32,
    pub rss_bytes: u64,
    /// User and system time since it began.
    pub cpu: Duration,
}

/// The agent's life. Calls are synchronous and may be made from any thread.
#[derive(Debug)]
pub struct Gateway {}

impl Gateway {
    /// Starts the agent and waits until its control socket answers, at most `ready`.
    pub fn start(&self, _ready: Duration) -> Result<()> {
        anyhow::bail!("not yet")
    }
    /// kill -9 of the agent only; returns when it is gone.
    pub fn kill(&self) -> Result<()> {
        anyhow::bail!("not yet")
    }
    /// SIGTERM, then waits at most `patience` for its end.
    pub fn terminate(&self, _patience: Duration) -> Result<()> {
        anyhow::bail!("not yet")
    }
    pub fn is_running(&self) -> bool {
        false
    }
    /// Runs `seimonctl` with the control socket of this gateway.
    pub fn ctl(&self, _args: &[&str]) -> Result<CtlOutput> {
        anyhow::bail!("not yet")
    }
    /// RUNTIME_DIR/control.sock; reachable from the lab's own process.
    pub fn control_socket(&self) -> PathBuf {
        PathBuf::new()
    }
    /// RUNTIME_DIR/metrics.sock.
    pub fn metrics_socket(&self) -> PathBuf {
        PathBuf::new()
    }
    /// What the agent wrote to stderr since the town was raised.
    pub fn log(&self) -> String {
        String::new()
    }
    /// Agent, resolver and probe.
    pub fn usage(&self) -> Vec<ProcessUsage> {
        Vec::new()
    }
}
