//! The agent's process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::control::Sockets;
use super::world::{World, command_at};
use super::{eventually, secs};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_seimon-agent");
/// From its start to the policy in force; generous, for the machine may be busy with other tests.
const READY: Duration = secs(15);

/// A running `seimon-agent run`. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    pub(crate) sockets: Sockets,
    log: PathBuf,
}

/// Where an agent is started, and with what.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    plan: PathBuf,
    board: PathBuf,
    state: PathBuf,
    run: PathBuf,
    clock: PathBuf,
    log: PathBuf,
}

/// What a run of the agent that ended by itself left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

impl Setup {
    pub(crate) fn new(world: &World) -> Self {
        let board = concat!(env!("CARGO_MANIFEST_DIR"), "/../../board/boards/lab-namespace.toml");
        Self {
            plan: world.path("plan.toml"),
            board: board.into(),
            state: world.path("state"),
            run: world.path("run"),
            clock: world.path("clock-trusted"),
            log: world.path("agent.log"),
        }
    }

    pub(crate) fn board(mut self, board: PathBuf) -> Self {
        self.board = board;
        self
    }

    pub(crate) fn board_file(&self) -> &Path {
        &self.board
    }

    pub(crate) fn state(mut self, state: PathBuf) -> Self {
        self.state = state;
        self
    }

    pub(crate) fn run(mut self, run: PathBuf) -> Self {
        self.run = run;
        self
    }

    pub(crate) fn log(mut self, log: PathBuf) -> Self {
        self.log = log;
        self
    }

    pub(crate) fn arguments(&self) -> Vec<std::ffi::OsString> {
        let mut arguments = vec!["run".into()];
        for (option, value) in [
            ("--plan", &self.plan),
            ("--board", &self.board),
            ("--state-dir", &self.state),
            ("--runtime-dir", &self.run),
            ("--clock-trust-file", &self.clock),
        ] {
            arguments.push(option.into());
            arguments.push(value.into());
        }
        arguments
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = command_at("gw", BINARY);
        command.args(self.arguments());
        command
    }

    /// Starts without waiting for anything.
    pub(crate) fn spawn(&self) -> Result<Agent> {
        self.spawn_command(self.command())
    }

    pub(crate) fn spawn_command(&self, mut command: Command) -> Result<Agent> {
        let log = File::create(&self.log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("the agent cannot be started")?;
        Ok(Agent { child, sockets: Sockets { directory: self.run.clone() }, log: self.log.clone() })
    }

    /// Starts and waits until the policy is in force.
    pub(crate) fn start(&self) -> Result<Agent> {
        let mut agent = self.spawn()?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Starts an agent that is expected to end by itself.
    pub(crate) fn fail(&self) -> Result<Ended> {
        self.spawn()?.ended()
    }
}

impl Agent {
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if self.sockets.status().is_ok_and(|status| status.dataplane.verified) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended ({status}):\n{}", self.log());
            }
            ensure!(begun.elapsed() < READY, "the agent is not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Result<Ended> {
        let status = eventually(secs(15), "the agent ends", || Ok(self.child.try_wait()?))
            .with_context(|| self.log())?;
        Ok(Ended { status, log: self.log() })
    }

    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and its orderly end.
    pub(crate) fn stop(self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let ended = self.ended()?;
        ensure!(ended.status.success(), "stopped with {}:\n{}", ended.status, ended.log);
        Ok(())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() || self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            eprintln!("--- the agent's log ---\n{}", self.log());
        }
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// `seimon-agent lockdown`.
pub(crate) fn lockdown() -> Result<String> {
    super::world::said(command_at("gw", BINARY).arg("lockdown"), "lockdown")
}

/// Process ids of children with this name.
pub(crate) fn processes(name: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains(&format!("({name})")) && !stat.contains(") Z")
        })
        .collect()
}

/// A line of `/proc/PID/status`, without its name.
pub(crate) fn process_fact(pid: u32, name: &str) -> Result<String> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(Path::new(&file)).with_context(|| file.clone())?;
    text.lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")))
        .map(|value| value.trim().to_owned())
        .with_context(|| format!("{name} in {file}"))
}
