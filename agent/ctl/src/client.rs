//! The talk with the agent.

use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use seimon_ipc::control::{Command, Event, Request, Response, VERSION};
use seimon_ipc::frame::{self, FrameError, LineBuffer};

/// Questions are answered at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Changes wait for the kernel and the disk.
const PATIENCE_FOR_CHANGES: Duration = Duration::from_secs(120);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// Nobody listens on the socket.
    NoAgent { socket: PathBuf, why: io::Error },
    /// The socket may not be opened.
    NotAllowed { socket: PathBuf, allowed: Allowed },
    /// It listens and does not answer, or hung up.
    NoAnswer { socket: PathBuf },
    /// The request is too long: a plan of this size is none.
    TooLong,
    /// What came back is no answer.
    Nonsense(FrameError),
}

pub(crate) struct Client {
    socket: PathBuf,
    stream: UnixStream,
    lines: LineBuffer,
}

/// An answer, and the line that it was.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) line: Vec<u8>,
}

/// What comes after `events --follow`.
pub(crate) enum Followed {
    Event(Box<Event>, Vec<u8>),
    Answer(Box<Answer>),
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket).map_err(|why| {
            let socket = socket.to_owned();
            if why.kind() == io::ErrorKind::PermissionDenied {
                ClientError::NotAllowed { allowed: Allowed::at(&socket), socket }
            } else {
                ClientError::NoAgent { socket, why }
            }
        })?;
        Ok(Self { socket: socket.to_owned(), stream, lines: LineBuffer::default() })
    }

    pub(crate) fn ask(&mut self, command: Command) -> Result<Answer, ClientError> {
        let patience = match command {
            Command::Apply { .. } | Command::Migrate { .. } | Command::Wireguard { .. } => {
                PATIENCE_FOR_CHANGES
            }
            Command::Status
            | Command::PlanShow
            | Command::PlanDiff { .. }
            | Command::Explain { .. }
            | Command::Events { .. }
            | Command::EgressLetter { .. }
            | Command::Acceptance { .. }
            | Command::LineUse { .. }
            | Command::Pac { .. }
            | Command::Hub { .. }
            | Command::Diagnostics => PATIENCE,
        };
        self.send(command)?;
        let line = self.line(Some(Instant::now() + patience))?;
        let response = frame::decode(&line).map_err(ClientError::Nonsense)?;
        Ok(Answer { response, line })
    }

    pub(crate) fn send(&mut self, command: Command) -> Result<(), ClientError> {
        let request = frame::encode(&Request { version: VERSION, request: command });
        let line = request.map_err(|_| ClientError::TooLong)?;
        let written =
            self.stream.set_write_timeout(Some(PATIENCE)).and_then(|()| self.stream.write_all(&line));
        match written {
            // An agent that refuses may say why and hang up before it has read everything.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(self.no_answer()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Waits as long as it takes.
    pub(crate) fn next_followed(&mut self) -> Result<Followed, ClientError> {
        let line = self.line(None)?;
        match frame::decode::<Event>(&line) {
            Ok(event) => Ok(Followed::Event(Box::new(event), line)),
            Err(_) => {
                let response = frame::decode(&line).map_err(ClientError::Nonsense)?;
                Ok(Followed::Answer(Box::new(Answer { response, line })))
            }
        }
    }

    fn line(&mut self, deadline: Option<Instant>) -> Result<Vec<u8>, ClientError> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            if let Some(line) = self.lines.next_line().map_err(ClientError::Nonsense)? {
                return Ok(line);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) || self.stream.set_read_timeout(left).is_err() {
                return Err(self.no_answer());
            }
            match self.stream.read(&mut chunk) {
                Ok(length) if length > 0 => self.lines.push(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return Err(self.no_answer()),
            }
        }
    }

    fn no_answer(&self) -> ClientError {
        ClientError::NoAnswer { socket: self.socket.clone() }
    }
}

/// Who may ask, judged by the socket's group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// Only root. Nobody is to be added to root's group.
    Root,
    /// The members of the group of this name, or number where it has no name.
    Group(String),
    /// It cannot be seen.
    Unknown,
}

impl Allowed {
    pub(crate) fn at(socket: &Path) -> Self {
        // Where even the directory is closed, its group is the one to join.
        let of = |path: &Path| std::fs::metadata(path).ok().map(|metadata| metadata.gid());
        match of(socket).or_else(|| of(socket.parent()?)) {
            None => Self::Unknown,
            Some(0) => Self::Root,
            Some(gid) => Self::Group(name_of(gid).unwrap_or_else(|| gid.to_string())),
        }
    }
}

fn name_of(gid: u32) -> Option<String> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}
