//! The bench's end of the maintenance port: one question at a time, each with its own patience.
//!
//! The port keeps no connections, so a reply may come for a question that nobody waits for any more: only the one whose `id`
//! is the question's is taken. What was read of a frame is kept until the rest of it comes.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::termios;
use seimon_maintenance::frame::{self, FrameError, MOST};
use seimon_maintenance::{Answer, Outcome, Question, Reply, Request, Status, VERSION};

/// Between two questions for a sign of life, and how long each is waited for.
const BETWEEN: Duration = Duration::from_millis(300);
const SIGN: Duration = Duration::from_secs(3);
const READ: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("the maintenance port {} cannot be opened: is the gateway switched on?", .place.display())]
    NotOpen {
        place: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the gateway's end of the maintenance port hung up")]
    HungUp,
    #[error("the maintenance port")]
    Io(#[source] io::Error),
    #[error("the maintenance port speaks something else")]
    Frame(#[from] FrameError),
    #[error("the gateway said nothing to `{question}` within {patience:?}")]
    Silent { question: &'static str, patience: Duration },
    /// The gateway's own words.
    #[error("{0}")]
    Failed(String),
    #[error("the gateway answered `{question}` with something else: {answer}")]
    OtherAnswer { question: &'static str, answer: String },
}

/// A line to a gateway's maintenance port: a Unix socket (QEMU's, or one that passes a serial line on), or a serial device.
#[derive(Debug)]
pub struct Port {
    place: PathBuf,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    open: Option<OwnedFd>,
    /// Read, and not yet a whole frame.
    read: Vec<u8>,
    asked: u64,
}

impl Port {
    /// Opened at the first question.
    pub fn new(place: &Path) -> Self {
        Self { place: place.to_owned(), line: Mutex::default() }
    }

    /// Forgets the connection: the machine at its other end is gone.
    pub fn hang_up(&self) {
        let mut line = self.lock();
        line.open = None;
        line.read.clear();
    }

    /// Asks, and waits for the reply for at most `patience`.
    pub fn ask(&self, request: Request, patience: Duration) -> Result<Answer, PortError> {
        let mut line = self.lock();
        line.asked += 1;
        let id = line.asked;
        let asked = line.exchange(&self.place, &Question { version: VERSION, id, request }, patience);
        if let Err(PortError::HungUp | PortError::Io(_) | PortError::Frame(_)) = &asked {
            line.open = None;
            line.read.clear();
        }
        match asked?.outcome {
            Outcome::Done(answer) => Ok(answer),
            Outcome::Failed(why) => Err(PortError::Failed(why)),
        }
    }

    /// Asks for what has no answer but that it is done.
    pub fn order(&self, request: Request, patience: Duration) -> Result<(), PortError> {
        let question = name(&request);
        let answer = self.ask(request, patience)?;
        if answer == Answer::Done { Ok(()) } else { Err(other_answer(question, &answer)) }
    }

    /// Asks until the gateway answers; it may still be starting.
    pub fn wait(&self, patience: Duration) -> Result<Status, PortError> {
        let begun = Instant::now();
        loop {
            match self.ask(Request::Status, SIGN) {
                Ok(answer) => {
                    let Answer::Status(status) = answer else { return Err(other_answer("status", &answer)) };
                    return Ok(status);
                }
                Err(error) if begun.elapsed() > patience => return Err(error),
                Err(_) => std::thread::sleep(BETWEEN),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn exchange(
        &mut self,
        place: &Path,
        question: &Question,
        patience: Duration,
    ) -> Result<Reply, PortError> {
        if self.open.is_none() {
            let open =
                open(place).map_err(|source| PortError::NotOpen { place: place.to_owned(), source })?;
            self.open = Some(open);
        }
        let Some(open) = &self.open else { return Err(PortError::HungUp) };
        let mut bytes = Vec::new();
        frame::write(&mut bytes, question)?;
        send(open, &bytes)?;
        let until = Instant::now() + patience;
        loop {
            while let Some(reply) = next_frame(&mut self.read)? {
                if reply.id == question.id {
                    return Ok(reply);
                }
            }
            if !readable(open, until)? {
                return Err(PortError::Silent { question: name(&question.request), patience });
            }
            let mut part = vec![0; READ];
            match rustix::io::read(open, &mut part) {
                Ok(0) => return Err(PortError::HungUp),
                Ok(count) => self.read.extend_from_slice(&part[..count]),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(PortError::Io(error.into())),
            }
        }
    }
}

/// Takes the first whole frame off the front.
fn next_frame(read: &mut Vec<u8>) -> Result<Option<Reply>, FrameError> {
    loop {
        let Some(length) = read.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize) else {
            return Ok(None);
        };
        if length > MOST {
            return Err(FrameError::TooLong(length));
        }
        if read.len() < 4 + length {
            return Ok(None);
        }
        let whole: Vec<u8> = read.drain(..4 + length).collect();
        if length > 0 {
            return frame::read(&mut whole.as_slice()).map(Some);
        }
    }
}

fn open(place: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::FileTypeExt as _;
    if std::fs::metadata(place)?.file_type().is_socket() {
        return Ok(UnixStream::connect(place)?.into());
    }
    let no_controlling = i32::try_from(OFlags::NOCTTY.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).write(true).custom_flags(no_controlling).open(place)?;
    // Bytes as they are. The speed is whoever's wired it: it stays as it was set (`stty`).
    if let Ok(mut attributes) = termios::tcgetattr(&file) {
        attributes.make_raw();
        termios::tcsetattr(&file, termios::OptionalActions::Now, &attributes)?;
    }
    Ok(file.into())
}

fn send(open: &OwnedFd, bytes: &[u8]) -> Result<(), PortError> {
    struct Out<'a>(&'a OwnedFd);
    impl io::Write for Out<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(rustix::io::write(self.0, bytes)?)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    Out(open).write_all(bytes).map_err(|error| {
        let gone = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        if gone { PortError::HungUp } else { PortError::Io(error) }
    })
}

/// False: it is later than `until`.
fn readable(open: &OwnedFd, until: Instant) -> Result<bool, PortError> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::from_borrowed_fd(open.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&wait)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(PortError::Io(error.into())),
        }
    }
}

/// An answer of another kind than the question's.
pub fn other_answer(question: &'static str, answer: &Answer) -> PortError {
    PortError::OtherAnswer { question, answer: format!("{answer:?}").chars().take(80).collect() }
}

/// As the protocol calls it.
fn name(request: &Request) -> &'static str {
    match request {
        Request::Status => "status",
        Request::Ctl { .. } => "ctl",
        Request::Control { .. } => "control",
        Request::Put { .. } => "put",
        Request::Remove { .. } => "remove",
        Request::Agent { .. } => "agent",
        Request::Kill { .. } => "kill",
        Request::Revival { .. } => "revival",
        Request::Log { .. } => "log",
        Request::Usage => "usage",
        Request::SetClock { .. } => "set-clock",
        Request::Ballast { .. } => "ballast",
        Request::PowerOff => "power-off",
        Request::Reboot => "reboot",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Answers each connection by `answer`, given the questions so far.
    fn gateway(answer: impl Fn(&mut UnixStream, Question) + Send + 'static) -> (tempfile::TempDir, Port) {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("port");
        let listener = UnixListener::bind(&place).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                while let Ok(question) = frame::read::<Question>(&mut stream) {
                    answer(&mut stream, question);
                }
            }
        });
        (folder, Port::new(&place))
    }

    fn reply(stream: &mut UnixStream, id: u64, outcome: Outcome) {
        frame::write(stream, &Reply { version: VERSION, id, outcome }).unwrap();
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_late_reply_to_an_older_question_is_passed_over() {
        let (_folder, port) = gateway(|stream, question| {
            // The first question is answered together with the second.
            if question.id == 2 {
                reply(stream, 1, Outcome::Failed("late".into()));
                reply(stream, 2, Outcome::Done(Answer::Done));
            }
        });
        let none = port.order(Request::Revival { is_on: false }, Duration::from_millis(50));
        assert!(matches!(none, Err(PortError::Silent { question: "revival", .. })), "{none:?}");
        port.order(Request::Revival { is_on: false }, SECOND).unwrap();
    }

    #[test]
    fn what_the_gateway_says_of_its_failure_is_the_error() {
        let (_folder, port) =
            gateway(|stream, question| reply(stream, question.id, Outcome::Failed("no such file".into())));
        let error = port.ask(Request::Usage, SECOND).unwrap_err();
        assert_eq!(error.to_string(), "no such file");
    }

    #[test]
    fn a_frame_in_pieces_is_read_when_it_is_whole() {
        let (_folder, port) = gateway(|stream, question| {
            let mut bytes = vec![0; 4];
            let reply = Reply { version: VERSION, id: question.id, outcome: Outcome::Done(Answer::Done) };
            frame::write(&mut bytes, &reply).unwrap();
            for part in bytes.chunks(7) {
                stream.write_all(part).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        port.order(Request::Status, SECOND).unwrap();
    }

    #[test]
    fn a_gateway_that_hung_up_is_reached_again_at_the_next_question() {
        let (_folder, port) = gateway(|stream, question| {
            if question.request == Request::Reboot {
                stream.shutdown(std::net::Shutdown::Both).unwrap();
            } else {
                reply(stream, question.id, Outcome::Done(Answer::Done));
            }
        });
        assert!(matches!(port.order(Request::Reboot, SECOND), Err(PortError::HungUp)));
        port.order(Request::Status, SECOND).unwrap();
    }
}
