//! Talking to the agent over its sockets, politely and otherwise.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use seimon_ipc::control::{Command, Event, Follow, Request, Response, Status, VERSION};

/// The agent answers within this, or it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection to the control socket.
#[derive(Debug)]
pub(crate) struct Control {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Control {
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let lines = BufReader::new(stream.try_clone()?);
        Ok(Self { stream, lines })
    }

    pub(crate) fn ask(&mut self, command: Command) -> Result<Response> {
        let request = Request { version: VERSION, request: command };
        self.send(&seimon_ipc::frame::encode(&request)?)?;
        self.response()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self.stream.write_all(bytes) {
            // An agent that refuses may say why and hang up before it has read anything: what it said is still to be read.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }

    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("the agent hung up");
        }
        Ok(line)
    }

    pub(crate) fn response(&mut self) -> Result<Response> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("not a response: {line}"))
    }
}

/// Where an agent's sockets are.
#[derive(Clone, Debug)]
pub(crate) struct Sockets {
    pub(crate) directory: PathBuf,
}

impl Sockets {
    pub(crate) fn control(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    pub(crate) fn connect(&self) -> Result<Control> {
        Control::connect(&self.control())
    }

    pub(crate) fn ask(&self, command: Command) -> Result<Response> {
        self.connect()?.ask(command)
    }

    pub(crate) fn status(&self) -> Result<Status> {
        let answer = self.ask(Command::Status)?;
        let Response::Status(status) = answer else { bail!("not a status: {answer:?}") };
        Ok(*status)
    }

    pub(crate) fn apply(&self, plan: &str) -> Result<Response> {
        self.ask(Command::Apply { plan: plan.to_owned(), file: "new.toml".to_owned() })
    }

    pub(crate) fn events(&self) -> Result<Vec<Event>> {
        let answer = self.ask(Command::Events { follow: Follow::No, since: 0 })?;
        let Response::Events { events } = answer else { bail!("not events: {answer:?}") };
        Ok(events)
    }

    /// The plan in force, and its generation.
    pub(crate) fn plan(&self) -> Result<(String, u64)> {
        let answer = self.ask(Command::PlanShow)?;
        let Response::Plan { toml, generation } = answer else { bail!("not a plan: {answer:?}") };
        Ok((toml, generation))
    }

    /// Whether an event of this kind says this in English.
    pub(crate) fn has_event(&self, kind: &str, words: &str) -> Result<bool> {
        Ok(self.events()?.iter().any(|event| event.kind == kind && event.reason.en.contains(words)))
    }

    pub(crate) fn metrics(&self) -> Result<String> {
        let mut stream = UnixStream::connect(self.directory.join("metrics.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}
