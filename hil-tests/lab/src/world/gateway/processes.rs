//! The gateway as processes: the real agent in the namespace `gw`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use seimon_dataplane::PrivateKey;
use seimon_journal::Journal;
use seimon_plan::WireguardKey;
use tempfile::TempDir;

use super::super::clock::WallClock;
use super::super::power::{self, Disk};
use super::super::versions::{Writer, rewritten};
use super::{Carrier, CtlOutput, Flush, Gateway, GatewayConfig, ProcessUsage, SecondRuntime, Trust};
use crate::capture::lock;
use crate::nodes::Node;

/// The agent and its helpers by the names that /proc shows (15 characters at most).
const PROCESSES: [&str; 5] = ["seimon-agent", "seimon-resolver", "seimon-probe", "seimon-page", TUNNEL];

/// What the gateway has of the kernel's devices when it is switched on.
const PORTS: [&str; 5] = ["wan1", "wan2", "lan1", "lan2", "lan3"];
const NO_DISK: &str = "this gateway has no disk of its own";
const TUNNEL: &str = "seimon-tunnel";
/// Interface of the hub's end.
const HUB: &str = "wg-hub";

/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(3);

/// The kernel's unit of CPU times in /proc (USER_HZ), the same on every Linux architecture of interest.
const TICKS: f64 = 100.0;

/// The agent and its helpers.
#[derive(Debug)]
pub struct Processes {
    node: Arc<Node>,
    config: GatewayConfig,
    /// Before the directory that it is mounted in.
    disk: Mutex<Option<Disk>>,
    clock: OnceLock<WallClock>,
    directory: TempDir,
    child: Mutex<Option<Child>>,
}

impl Processes {
    pub(in crate::world) fn new(node: Arc<Node>, config: GatewayConfig, ca_pem: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("seimon-lab-").tempdir()?;
        let at = |name: &str| directory.path().join(name);
        fs::write(at("plan.toml"), &config.plan)?;
        fs::write(at("lab-ca.pem"), ca_pem)?;
        fs::create_dir(at("state"))?;
        fs::create_dir(at("run"))?;
        if config.clock_trusted == Trust::Trusted {
            fs::write(at("clock-trusted"), "")?;
        }
        let (disk, clock) = (Mutex::new(None), OnceLock::new());
        Ok(Self { node, config, disk, clock, directory, child: Mutex::new(None) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The agent's command line.
    fn agent(&self, runtime: &Path) -> Result<Command> {
        let program = path_text(&self.config.agent)?;
        let mut command = match self.clock.get() {
            None => self.node.command(program),
            Some(clock) => {
                let mut command = self.node.command("env");
                clock.wrap(&mut command);
                command.arg(program);
                command
            }
        };
        command.arg("run").arg("--plan").arg(self.path("plan.toml")).arg("--board").arg(&self.config.board);
        command.arg("--state-dir").arg(self.path("state")).arg("--runtime-dir").arg(runtime);
        command.arg("--clock-trust-file").arg(self.path("clock-trusted"));
        if !self.config.without.is_empty() {
            command.arg("--without").arg(self.config.without.join(","));
        }
        Ok(command)
    }

    fn clock(&self) -> Result<&WallClock> {
        self.clock.get().context("this gateway has no clock of its own")
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// kill -9 of the agent only; returns when it is gone.
    fn kill(&self) -> Result<()> {
        let mut child = lock(&self.child).take().ok_or_else(|| anyhow!("the agent does not run"))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn is_running(&self) -> bool {
        lock(&self.child).as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

impl Gateway for Processes {
    fn use_own_disk(&self) -> Result<()> {
        *lock(&self.disk) = Some(Disk::make(self.directory.path(), &self.path("state"))?);
        Ok(())
    }

    fn use_own_clock(&self) -> Result<()> {
        self.clock
            .set(WallClock::make(self.directory.path())?)
            .map_err(|_| anyhow!("the gateway has a clock of its own already"))
    }

    fn start(&self, ready: Duration) -> Result<()> {
        let mut child = lock(&self.child);
        if let Some(running) = child.as_mut()
            && running.try_wait()?.is_none()
        {
            bail!("the agent runs already");
        }
        let log = OpenOptions::new().create(true).append(true).open(self.path("agent.log"))?;
        let mut command = self.agent(&self.path("run"))?;
        command.stdin(Stdio::null()).stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
        let begun = Instant::now();
        let running =
            command.spawn().with_context(|| format!("cannot start {}", self.config.agent.display()))?;
        let running = child.insert(running);
        loop {
            if answers(&self.control_socket()) {
                return Ok(());
            }
            if let Some(status) = running.try_wait()? {
                *child = None;
                bail!("the agent ended while starting ({status}):\n{}", self.last_words());
            }
            if begun.elapsed() > ready {
                bail!("the agent did not answer within {ready:?}:\n{}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn terminate(&self, patience: Duration) -> Result<()> {
        let mut slot = lock(&self.child);
        let child = slot.as_mut().ok_or_else(|| anyhow!("the agent does not run"))?;
        kill_process(Pid::from_child(child), Signal::TERM)?;
        let begun = Instant::now();
        while child.try_wait()?.is_none() {
            if begun.elapsed() > patience {
                bail!("the agent did not end within {patience:?} of SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        *slot = None;
        Ok(())
    }

    fn kill_process(&self, name: &str) -> Result<()> {
        if name == PROCESSES[0] {
            return self.kill();
        }
        // The hub's is not the gateway's.
        let is_ours = |pid: u32| name != TUNNEL || tunnels().any(|(p, end)| p == pid && end != HUB);
        let found: Vec<_> = processes().into_iter().filter(|(pid, n)| n == name && is_ours(*pid)).collect();
        if found.is_empty() {
            bail!("`{name}` does not run");
        }
        for (pid, _) in &found {
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                kill_process(pid, Signal::KILL)?;
            }
        }
        let begun = Instant::now();
        while processes().iter().any(|process| found.contains(process)) {
            if begun.elapsed() > DEATH {
                bail!("`{name}` does not die");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn kill_all(&self) -> Result<()> {
        self.kill()?;
        // A tunnel's process ends by itself with the agent.
        for name in PROCESSES[1..].iter().filter(|name| **name != TUNNEL) {
            if processes().iter().any(|(_, n)| n == name) {
                self.kill_process(name)?;
            }
        }
        Ok(())
    }

    fn power_cut(&self) -> Result<()> {
        let mut disk = lock(&self.disk);
        let disk = disk.as_mut().context(NO_DISK)?;
        if self.is_running() {
            self.kill_all()?;
        }
        disk.cut()?;
        for entry in fs::read_dir(self.path("run"))? {
            fs::remove_file(entry?.path())?;
        }
        power::forget(&self.node, &PORTS)?;
        power::another_boot(self.directory.path(), disk.cuts())
    }

    fn fill_disk(&self) -> Result<()> {
        lock(&self.disk).as_ref().context(NO_DISK)?.fill()
    }

    fn free_disk(&self) -> Result<()> {
        lock(&self.disk).as_ref().context(NO_DISK)?.free()
    }

    fn clock_ahead(&self) -> Result<i64> {
        Ok(self.clock()?.seconds_ahead())
    }

    fn set_clock_ahead(&self, seconds: i64) -> Result<()> {
        self.clock()?.set_ahead(seconds)
    }

    fn second(&self, runtime: SecondRuntime, patience: Duration) -> Result<CtlOutput> {
        let runtime = match runtime {
            SecondRuntime::Same => self.path("run"),
            SecondRuntime::Own => self.path("second-run"),
        };
        let log = self.path("second.log");
        let file = File::create(&log)?;
        let mut command = self.agent(&runtime)?;
        command.stdin(Stdio::null()).stdout(Stdio::from(file.try_clone()?)).stderr(Stdio::from(file));
        let mut child = command.spawn().context("a second agent")?;
        let begun = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait()? {
                break status.code().unwrap_or(-1);
            }
            if begun.elapsed() > patience {
                child.kill()?;
                child.wait()?;
                break 0;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Ok(CtlOutput { code, stdout: String::new(), stderr: fs::read_to_string(log).unwrap_or_default() })
    }

    fn rewrite_journal(&self, writer: Writer) -> Result<()> {
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let opened = Journal::open_or_salvage(&self.path("state"), machine.trim())?;
        let records = opened.records.into_iter().map(|record| (record.kind, record.payload));
        let mut journal = opened.journal;
        Ok(journal.compact(&rewritten(records, writer))?)
    }

    fn flush(&self, what: Flush) -> Result<()> {
        match what {
            Flush::Nft => self.node.nft("flush ruleset\n"),
            // `ip rule flush` leaves the rule of priority 0; main and default are put back as a careless script would.
            Flush::Rules => self
                .node
                .ip("rule flush\nrule add pref 32766 lookup main\nrule add pref 32767 lookup default\n"),
        }
    }

    /// The port is the cable's end.
    fn carrier(&self, _: &str, _: Carrier) -> Result<()> {
        Ok(())
    }

    fn ctl(&self, args: &[&str]) -> Result<CtlOutput> {
        let ctl = self.config.agent.with_file_name("seimonctl");
        let output = self
            .node
            .command(path_text(&ctl)?)
            .arg("--socket")
            .arg(self.control_socket())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", ctl.display()))?;
        Ok(CtlOutput {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Beside the plan it replaces: files that it names are there.
    fn put_plan(&self, name: &str, plan: &str) -> Result<String> {
        let path = self.path(&format!("{name}.toml"));
        fs::write(&path, plan)?;
        Ok(path_text(&path)?.to_owned())
    }

    fn control_socket(&self) -> PathBuf {
        self.path("run").join("control.sock")
    }

    /// Made here, where the agent will find it, so that it is known before the agent runs.
    fn school_key(&self, key_file: &str) -> Result<Option<WireguardKey>> {
        let (key, _) = PrivateKey::load_or_make(&self.path("state").join(key_file))?;
        Ok(Some(key.public()))
    }

    fn log(&self) -> String {
        fs::read(self.path("agent.log"))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    fn usage(&self) -> Vec<ProcessUsage> {
        let hubs: Vec<u32> = tunnels().filter(|(_, end)| end == HUB).map(|(pid, _)| pid).collect();
        let own = processes().into_iter().filter(|(pid, _)| !hubs.contains(pid));
        own.filter_map(|(pid, name)| usage(pid, name)).collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.kill_all();
        }
    }
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| anyhow!("{} is not UTF-8", path.display()))
}

/// Whether the agent answers a question for its status.
fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        (&stream).write_all(b"{\"version\":1,\"request\":{\"command\":\"status\"}}\n")?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        Ok(line.starts_with('{'))
    };
    ask().unwrap_or(false)
}

/// The gateway's processes in this PID namespace (a private one, see [`crate::netns`]), without zombies.
fn processes() -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Some(stat) = Stat::read(pid) else { continue };
        if stat.state != 'Z' && PROCESSES.contains(&stat.name.as_str()) {
            found.push((pid, stat.name));
        }
    }
    found
}

/// Processes that carry tunnels, with the interface of each.
pub(crate) fn tunnels() -> impl Iterator<Item = (u32, String)> {
    processes().into_iter().filter(|(_, name)| name == TUNNEL).filter_map(|(pid, _)| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let interface = line.split(|byte| *byte == 0).nth(1)?;
        Some((pid, String::from_utf8_lossy(interface).into_owned()))
    })
}

/// The interesting part of /proc/PID/stat.
struct Stat {
    name: String,
    state: char,
    ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (before, after) = text.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        Some(Self {
            name: before.split_once('(')?.1.to_owned(),
            state: fields.first()?.chars().next()?,
            ticks: fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?,
        })
    }
}

fn usage(pid: u32, name: String) -> Option<ProcessUsage> {
    let stat = Stat::read(pid)?;
    let file = File::open(format!("/proc/{pid}/status")).ok()?;
    let line = BufReader::new(file).lines().map_while(Result::ok).find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    let cpu = Duration::from_secs_f64(stat.ticks as f64 / TICKS);
    Some(ProcessUsage { name, pid, rss_bytes: kilobytes * 1024, cpu })
}
