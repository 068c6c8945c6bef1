//! Network namespaces for tests.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};

/// A process that keeps a network namespace alive.
pub(crate) struct Namespace(Child);

impl Namespace {
    pub(crate) fn new() -> Result<Self> {
        let child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec sleep 60"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut namespace = Self(child);
        let mut line = String::new();
        BufReader::new(namespace.0.stdout.take().context("stdout")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "no namespace can be made here");
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn ip(&self, arguments: &str) -> Result<()> {
        let output = Command::new("nsenter")
            .args(["-t", &self.0.id().to_string(), "-n", "ip"])
            .args(arguments.split(' '))
            .output()?;
        ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Runs in a thread that has entered the namespace.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.0.id()))?;
        let entered = thread::spawn(move || {
            use std::os::fd::AsFd;
            rustix::thread::move_into_link_name_space(
                namespace.as_fd(),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )?;
            act()
        });
        entered.join().map_err(|_| anyhow::anyhow!("the thread broke down"))?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn possible() -> bool {
    let possible = rustix::process::geteuid().is_root() && Namespace::new().is_ok();
    if !possible {
        eprintln!("skipped: needs root and the right to make network namespaces");
    }
    possible
}
