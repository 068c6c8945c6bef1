//! The unprivileged processes beside the agent: started over a Unix socket pair, watched, started again with growing pauses.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use command_fds::{CommandFdExt as _, FdMapping};
use seimon_board::Instant;
use seimon_ipc::frame;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// First file descriptor that a child inherits besides standard ones: the socket pair.
const FIRST_FD: i32 = 3;
/// Unsent bytes after which a child counts as stuck.
const MAX_BACKLOG: usize = 8 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A child that has lived this long starts again without a pause.
const STABLE_AFTER: Duration = Duration::from_secs(30);

/// What is needed to start a child.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) executable: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    /// Inherited after the socket pair, as 4, 5, ….
    pub(crate) inherited: Vec<OwnedFd>,
}

/// A child, running or waiting to be started again.
#[derive(Debug)]
pub(crate) struct Supervised {
    name: &'static str,
    running: Option<Running>,
    pause: Duration,
    /// When to start (again).
    start_at: Instant,
    starts: u64,
}

#[derive(Debug)]
struct Running {
    child: Child,
    stream: UnixStream,
    started: Instant,
    incoming: frame::LineBuffer,
    outgoing: VecDeque<u8>,
}

impl Supervised {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, running: None, pause: FIRST_PAUSE, start_at: Instant::ZERO, starts: 0 }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn starts(&self) -> u64 {
        self.starts
    }

    /// When [`Self::start`] should be called, if it is not running.
    pub(crate) fn start_due(&self) -> Option<Instant> {
        if self.running.is_some() { None } else { Some(self.start_at) }
    }

    pub(crate) fn start(&mut self, program: &Program, now: Instant) -> Result<()> {
        self.stop(now);
        let started =
            spawn(program).with_context(|| format!("{} cannot be started", program.executable.display()));
        match started {
            Ok((child, stream)) => {
                self.starts += 1;
                self.running = Some(Running {
                    child,
                    stream,
                    started: now,
                    incoming: frame::LineBuffer::default(),
                    outgoing: VecDeque::new(),
                });
                Ok(())
            }
            Err(error) => {
                self.grow_pause(now);
                Err(error)
            }
        }
    }

    fn grow_pause(&mut self, now: Instant) {
        self.start_at = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// It could not even be prepared; try again after a pause.
    pub(crate) fn postpone(&mut self, now: Instant) {
        if self.running.is_none() && self.start_at <= now {
            self.grow_pause(now);
        }
    }

    /// It was stopped on purpose: start it again without a pause.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.start_at = now;
        self.pause = FIRST_PAUSE;
    }

    /// Kills it if it runs; it may be started again at once or after its pause.
    pub(crate) fn stop(&mut self, now: Instant) {
        if let Some(mut running) = self.running.take() {
            if now.since(running.started) >= STABLE_AFTER {
                self.pause = FIRST_PAUSE;
            }
            if let Err(error) = running.child.kill() {
                tracing::debug!(child = self.name, %error, "already gone");
            }
            // Reaped here, so that no zombie stays; it has been killed, so this does not wait long.
            match running.child.wait() {
                Ok(status) => tracing::info!(child = self.name, %status, "stopped"),
                Err(error) => tracing::warn!(child = self.name, %error, "cannot be waited for"),
            }
            self.grow_pause(now);
        }
    }

    /// Queues a message; it is lost if the child is not running (its configuration is sent anew at each start).
    pub(crate) fn send<M: Serialize>(&mut self, message: &M) {
        let Some(running) = &mut self.running else { return };
        match frame::encode(message) {
            Ok(line) => running.outgoing.extend(line),
            Err(error) => tracing::error!(child = self.name, %error, "message not sent"),
        }
    }

    /// Writes what the socket takes now. An error means the child is to be stopped.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        while !running.outgoing.is_empty() {
            let (front, _) = running.outgoing.as_slices();
            match running.stream.try_write(front) {
                Ok(0) => anyhow::bail!("{} takes no more", self.name),
                Ok(written) => {
                    running.outgoing.drain(..written);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("socket pair"),
            }
        }
        anyhow::ensure!(running.outgoing.len() <= MAX_BACKLOG, "{} does not read its messages", self.name);
        Ok(())
    }

    /// Waits until something can be read (or written, if there is something to write). Never ends while not running.
    pub(crate) async fn ready(&self) {
        let Some(running) = &self.running else { return std::future::pending().await };
        let interest = if running.outgoing.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        if let Err(error) = running.stream.ready(interest).await {
            tracing::warn!(child = self.name, %error, "socket pair");
        }
    }

    /// All messages that have arrived. An error means the child is gone or talks nonsense, and is to be stopped.
    pub(crate) fn receive<M: DeserializeOwned>(&mut self) -> (Vec<M>, Result<()>) {
        let mut messages = Vec::new();
        let outcome = self.receive_into(&mut messages);
        (messages, outcome)
    }

    fn receive_into<M: DeserializeOwned>(&mut self, messages: &mut Vec<M>) -> Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let mut chunk = [0; 16 * 1024];
        // Bounded, so that a chatty child cannot keep the agent from its other work.
        for _ in 0..16 {
            match running.stream.try_read(&mut chunk) {
                Ok(0) => {
                    let status = running.child.try_wait().ok().flatten();
                    anyhow::bail!(
                        "{} has ended{}",
                        self.name,
                        status.map(|s| format!(" ({s})")).unwrap_or_default()
                    );
                }
                Ok(count) => {
                    running.incoming.push(&chunk[..count]);
                    while let Some(line) = running.incoming.next_line()? {
                        messages.push(frame::decode(&line)?);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("socket pair"),
            }
        }
        Ok(())
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            let _gone = running.child.kill();
            let _reaped = running.child.wait();
        }
    }
}

fn spawn(program: &Program) -> Result<(Child, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().context("socket pair")?;
    ours.set_nonblocking(true)?;
    let mut mappings = vec![FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: FIRST_FD }];
    for (fd, child_fd) in program.inherited.iter().zip(FIRST_FD + 1..) {
        mappings.push(FdMapping { parent_fd: fd.as_fd().try_clone_to_owned()?, child_fd });
    }
    let mut command = Command::new(&program.executable);
    command.env_clear().envs(program.environment.iter().map(|(k, v)| (k, v)));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.fd_mappings(mappings).map_err(|_| anyhow::anyhow!("file descriptors collide"))?;
    let child = command.spawn()?;
    Ok((child, UnixStream::from_std(ours)?))
}

/// A program installed beside this one.
pub(crate) fn beside(own: &Path, name: &str) -> PathBuf {
    own.parent().unwrap_or(Path::new(".")).join(name)
}
