//! The agent's control socket, from the lab's side.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use seimon_ipc::control::{Command, Event, Follow, Request, Response, VERSION};

/// Asks one question. An agent that does not answer within a second is an error.
pub fn ask(socket: &Path, command: Command) -> Result<Response> {
    ask_within(socket, command, Duration::from_secs(1))
}

/// Asks one question, of an agent that may be slow.
pub(crate) fn ask_within(socket: &Path, command: Command, patience: Duration) -> Result<Response> {
    let mut stream = UnixStream::connect(socket).context("the agent's control socket does not answer")?;
    stream.set_read_timeout(Some(patience))?;
    send(&mut stream, command)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn send(stream: &mut UnixStream, command: Command) -> Result<()> {
    let mut line = serde_json::to_string(&Request { version: VERSION, request: command })?;
    line.push('\n');
    Ok(stream.write_all(line.as_bytes())?)
}

/// What the agent tells, with the lab's time of hearing it. Reconnects whenever the agent comes back.
#[derive(Debug)]
pub struct Follower {
    heard: Arc<Mutex<Vec<(Duration, Event)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// `clock` gives the world's time.
    pub fn start(socket: PathBuf, clock: impl Fn() -> Duration + Send + 'static) -> Result<Self> {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("events".to_owned()).spawn({
            let (heard, stop) = (Arc::clone(&heard), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    // An agent that is away is an ordinary thing in a lab.
                    let _ = follow(&socket, &clock, &heard, &stop);
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        })?;
        Ok(Self { heard, stop, thread: Some(thread) })
    }

    pub fn heard(&self) -> Vec<(Duration, Event)> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn follow(
    socket: &Path,
    clock: &dyn Fn() -> Duration,
    heard: &Mutex<Vec<(Duration, Event)>>,
    stop: &AtomicBool,
) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    // Where to begin: an agent that came back still knows the events before. Those already heard are left out below.
    send(&mut stream, Command::Events { follow: Follow::Yes, since: 0 })?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // What was read so far stays in `line`.
            Err(error) if is_timeout(&error) => continue,
            Err(error) => return Err(error.into()),
        }
        if let Ok(event) = serde_json::from_slice::<Event>(&line) {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            let known = heard.iter().any(|(_, e)| e.mono_us == event.mono_us && e.seq == event.seq);
            if !known {
                heard.push((clock(), event));
            }
        }
        line.clear();
    }
    Ok(())
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
