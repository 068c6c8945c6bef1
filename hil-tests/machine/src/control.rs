//! The agent's control socket on the bench's side: a Unix socket whose questions go over the maintenance port.
//!
//! Whoever speaks to the agent of a namespace speaks to this one in the same words (`seimonctl --socket` too). The port takes
//! one question at a time and one line back, so somebody who follows the events is told of them by asking again and again.
//! An agent that is away looks as it does in a namespace: the connection ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use seimon_ipc::control::{Command, Follow, Request, Response, VERSION};
use seimon_maintenance::{Answer, Request as Ask};

use crate::port::{Port, PortError, other_answer};

/// Between two questions for new events.
const BETWEEN: Duration = Duration::from_millis(150);
/// Of one question.
const PATIENCE: Duration = Duration::from_secs(10);
/// The gateway gives up before we do, so that its reason arrives.
const INSIDE: Duration = Duration::from_secs(8);

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Control {
    socket: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(socket: &Path, port: Arc<Port>) -> std::io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let (port, stop) = (Arc::clone(&port), Arc::clone(&stop));
                    // Ends with its connection; a thread that cannot be had ends the connection, too.
                    let _serving = std::thread::Builder::new()
                        .name("control-peer".to_owned())
                        .spawn(move || serve(&stream, &port, &stop));
                }
            }
        })?;
        Ok(Self { socket: socket.to_owned(), stop, thread: Some(thread) })
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = UnixStream::connect(&self.socket);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Until the peer or the agent is gone.
fn serve(stream: &UnixStream, port: &Port, stop: &AtomicBool) {
    let mut out = stream;
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        if let Some(since) = followed(&line) {
            follow(stream, port, since, stop);
            return;
        }
        let Ok(answer) = say(port, line) else { return };
        if writeln!(out, "{answer}").is_err() {
            return;
        }
    }
}

/// Since when, if it is a question for events that never ends.
fn followed(line: &str) -> Option<u64> {
    let request: Request = serde_json::from_str(line).ok()?;
    if let Command::Events { follow: Follow::Yes, since } = request.request { Some(since) } else { None }
}

fn say(port: &Port, line: String) -> Result<String, PortError> {
    let patience_ms = u64::try_from(INSIDE.as_millis()).unwrap_or(u64::MAX);
    let answer = port.ask(Ask::Control { line, patience_ms }, PATIENCE)?;
    if let Answer::Control { line } = answer { Ok(line) } else { Err(other_answer("control", &answer)) }
}

fn follow(stream: &UnixStream, port: &Port, mut since: u64, stop: &AtomicBool) {
    let mut out = stream;
    while !stop.load(Ordering::Relaxed) {
        let request = Request { version: VERSION, request: Command::Events { follow: Follow::No, since } };
        let Ok(line) = serde_json::to_string(&request) else { return };
        let Ok(answer) = say(port, line) else { return };
        let Ok(Response::Events { events }) = serde_json::from_str(&answer) else { return };
        for event in events {
            since = since.max(event.seq);
            let Ok(line) = serde_json::to_string(&event) else { return };
            if writeln!(out, "{line}").is_err() {
                return;
            }
        }
        std::thread::sleep(BETWEEN);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Mutex;

    use seimon_ipc::control::{Bilingual, Event};
    use seimon_maintenance::frame;
    use seimon_maintenance::{Outcome, Question, Reply};

    use super::*;

    fn event(seq: u64) -> Event {
        Event {
            seq,
            wall_ms: 0,
            mono_us: seq,
            kind: "agent".to_owned(),
            zone: None,
            group: None,
            path: None,
            from: None,
            to: None,
            reason: Bilingual::default(),
        }
    }

    /// An agent that knows two events, and a third from the third question on; then it is gone.
    fn agent() -> (tempfile::TempDir, Control, Arc<Mutex<Vec<String>>>) {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("port");
        let listener = UnixListener::bind(&place).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while let Ok(question) = frame::read::<Question>(&mut stream) {
                let Ask::Control { line, .. } = question.request else { panic!("another question") };
                let count = {
                    let mut heard = heard.lock().unwrap();
                    heard.push(line.clone());
                    heard.len()
                };
                let request: Request = serde_json::from_str(&line).unwrap();
                let Command::Events { follow: Follow::No, since } = request.request else {
                    panic!("another command: {line}");
                };
                let outcome = if count > 4 {
                    Outcome::Failed("the agent does not run".into())
                } else {
                    let known = if count < 3 { 2 } else { 3 };
                    let events = (since + 1..=known).map(event).collect();
                    let line = serde_json::to_string(&Response::Events { events }).unwrap();
                    Outcome::Done(Answer::Control { line })
                };
                frame::write(&mut stream, &Reply { version: 1, id: question.id, outcome }).unwrap();
            }
        });
        let control =
            Control::listen(&folder.path().join("control.sock"), Arc::new(Port::new(&place))).unwrap();
        (folder, control, asked)
    }

    #[test]
    fn a_follower_hears_each_event_once_and_is_hung_up_on_when_the_agent_is_gone() {
        let (_folder, control, asked) = agent();
        let mut stream = UnixStream::connect(control.socket()).unwrap();
        let request =
            Request { version: VERSION, request: Command::Events { follow: Follow::Yes, since: 0 } };
        writeln!(stream, "{}", serde_json::to_string(&request).unwrap()).unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).unwrap();
        let told: Vec<u64> =
            told.lines().map(|line| serde_json::from_str::<Event>(line).unwrap().seq).collect();
        assert_eq!(told, [1, 2, 3]);
        assert_eq!(asked.lock().unwrap().len(), 5);
    }
}
