//! QEMU, its serial console, and how the job ended.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::image::{self, Job, STATUS};
use crate::{folder, say};

/// How the machine is to be.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) processors: u8,
    pub(crate) memory_mib: u32,
    /// One processor whose clock counts instructions: what takes time is then the same in every run.
    pub(crate) counted: Counted,
    /// It is ended after so long.
    pub(crate) patience: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Instructions,
    Time,
}

impl Default for Machine {
    fn default() -> Self {
        let patience = Duration::from_secs(900);
        Self { processors: 2, memory_mib: 1536, counted: Counted::Time, patience }
    }
}

#[derive(Debug)]
pub(crate) struct Outcome {
    /// `None`: the guest never came to the end.
    pub(crate) status: Option<i32>,
    pub(crate) lines: Vec<String>,
}

/// Boots the guest, runs the job, shows what it says.
pub(crate) fn boot(job: &Job, machine: &Machine) -> Result<Outcome> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let folder = folder()?;
    let images = image::base(&folder)?;
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let initrd = folder.join(format!("run-{}-{number}.cpio", std::process::id()));
    image::with_job(&images, job, &initrd)?;
    let outcome = started(&images, &initrd, machine);
    let _ = std::fs::remove_file(&initrd);
    outcome
}

fn started(images: &image::Images, initrd: &std::path::Path, machine: &Machine) -> Result<Outcome> {
    let mut command = Command::new("qemu-system-aarch64");
    command.args([
        "-M",
        "virt",
        "-cpu",
        "cortex-a72",
        "-display",
        "none",
        "-monitor",
        "none",
        "-serial",
        "stdio",
    ]);
    command.args(["-no-reboot", "-nodefaults", "-device", "virtio-rng-pci"]);
    command.args(["-m", &machine.memory_mib.to_string()]);
    match machine.counted {
        Counted::Instructions => command.args(["-icount", "shift=0,sleep=off", "-smp", "1"]),
        Counted::Time => command.args(["-smp", &machine.processors.to_string()]),
    };
    command.arg("-kernel").arg(&images.kernel).arg("-initrd").arg(initrd);
    command.args(["-append", "console=ttyAMA0 quiet loglevel=3 panic=-1 rdinit=/init"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("qemu-system-aarch64 could not be started")?;
    let out = child.stdout.take().context("QEMU's output")?;
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if send.send(line).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + machine.patience;
    let mut outcome = Outcome { status: None, lines: Vec::new() };
    loop {
        match receive.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(status) = line.strip_prefix(STATUS) {
                    outcome.status = status.trim().parse().ok();
                } else {
                    say::out(&format!("{line}\n"));
                    outcome.lines.push(line);
                }
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("the guest did not come to an end within {} s", machine.patience.as_secs());
            }
        }
    }
    child.wait()?;
    Ok(outcome)
}
