//! A bench's end of the port: QEMU's socket (`-chardev socket,…,server=on,wait=off`).

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::frame::{self, FrameError};
use crate::{Answer, Outcome, Question, Reply, Request, Status, VERSION};

/// The gateway answers at once, but for what the question itself waits for.
const PATIENCE: Duration = Duration::from_secs(20);
/// A question that nobody has read yet stays in the port: an answer to any of those counts, or a slow gateway would for ever be
/// one answer behind.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
const BETWEEN: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the port's socket {}", socket.display())]
    NoSocket {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the gateway does not answer at its maintenance port")]
    NoAnswer(#[source] FrameError),
    #[error("the gateway: {0}")]
    Failed(String),
    #[error("the gateway's maintenance service did not answer within {0:?}")]
    NeverCame(Duration),
}

/// One talk. Questions are numbered through, so that an answer to an earlier, given up question is passed over.
#[derive(Debug)]
pub struct Client {
    port: UnixStream,
    /// Number of the question before the first.
    before: u64,
    last: u64,
}

impl Client {
    /// Connects, and asks for the status until the gateway answers.
    ///
    /// # Errors
    /// It never did.
    pub fn wait_for(socket: &Path, patience: Duration) -> Result<(Self, Status), AskError> {
        let begun = Instant::now();
        let port = loop {
            match UnixStream::connect(socket) {
                Ok(port) => break port,
                Err(source) if begun.elapsed() > patience => {
                    return Err(AskError::NoSocket { socket: socket.to_owned(), source });
                }
                Err(_) => std::thread::sleep(BETWEEN),
            }
        };
        // Numbers of another talk over the same port are not ours.
        let before = u64::from(std::process::id()) << 32;
        let mut client = Self { port, before, last: before };
        while begun.elapsed() < patience {
            match client.ask_within(Request::Status, FIRST_ANSWER) {
                Ok(Answer::Status(status)) => return Ok((client, status)),
                Ok(_) | Err(_) => std::thread::sleep(BETWEEN),
            }
        }
        Err(AskError::NeverCame(patience))
    }

    /// # Errors
    /// The gateway does not answer, or says why it cannot.
    pub fn ask(&mut self, request: Request) -> Result<Answer, AskError> {
        let own = match &request {
            Request::Ctl { patience_ms, .. }
            | Request::Control { patience_ms, .. }
            | Request::Agent { patience_ms, .. } => *patience_ms,
            Request::Status
            | Request::Put { .. }
            | Request::Remove { .. }
            | Request::Kill { .. }
            | Request::Revival { .. }
            | Request::Log { .. }
            | Request::Usage
            | Request::SetClock { .. }
            | Request::Ballast { .. }
            | Request::PowerOff
            | Request::Reboot => 0,
        };
        self.ask_within(request, PATIENCE + Duration::from_millis(own))
    }

    fn ask_within(&mut self, request: Request, patience: Duration) -> Result<Answer, AskError> {
        self.last += 1;
        let is_status = request == Request::Status;
        let question = Question { version: VERSION, id: self.last, request };
        self.port
            .set_read_timeout(Some(patience))
            .map_err(|error| AskError::NoAnswer(FrameError::Port(error)))?;
        frame::write(&mut self.port, &question).map_err(AskError::NoAnswer)?;
        loop {
            let reply: Reply = frame::read(&mut self.port).map_err(AskError::NoAnswer)?;
            let is_late = is_status && reply.id > self.before && reply.id < self.last;
            if reply.id == self.last || is_late {
                return match reply.outcome {
                    Outcome::Done(answer) => Ok(answer),
                    Outcome::Failed(why) => Err(AskError::Failed(why)),
                };
            }
        }
    }
}
