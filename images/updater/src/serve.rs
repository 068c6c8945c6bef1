//! The updater's socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use seimon_ipc::frame::{self, FrameError, LineBuffer};
use seimon_update::wire::{Request, Response, VERSION};

use crate::engine::Engine;

/// A peer that neither asks nor reads for so long is let go.
const PATIENCE: Duration = Duration::from_secs(300);
/// Peers at once.
const MOST: usize = 16;

/// Answers for ever, one thread a peer.
pub(crate) fn serve(listener: &UnixListener, engine: &Arc<Engine>) {
    let peers = Arc::new(());
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "the socket");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if Arc::strong_count(&peers) > MOST {
            tracing::warn!("too many peers at once, one was let go");
            continue;
        }
        let (engine, counted) = (Arc::clone(engine), Arc::clone(&peers));
        let begun = std::thread::Builder::new().name("peer".into()).spawn(move || {
            let _counted = counted;
            if let Err(error) = talk(stream, &engine) {
                tracing::debug!(%error, "a peer's connection ended");
            }
        });
        if let Err(error) = begun {
            tracing::warn!(%error, "no thread for a peer");
        }
    }
}

fn talk(mut stream: UnixStream, engine: &Engine) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    if let Err(reason) = may_ask(&stream) {
        return send(&mut stream, &Response::NotAllowed { reason });
    }
    let (mut lines, mut chunk) = (LineBuffer::default(), vec![0; 4096]);
    loop {
        let line = match lines.next_line() {
            Ok(Some(line)) => line,
            Ok(None) => match stream.read(&mut chunk)? {
                0 => return Ok(()),
                length => {
                    lines.push(&chunk[..length]);
                    continue;
                }
            },
            Err(error) => return send(&mut stream, &malformed(&error)),
        };
        let response = match frame::decode::<Request>(&line) {
            Err(error) => malformed(&error),
            Ok(request) if request.version != VERSION => Response::Malformed {
                reason: format!("version {} is not spoken here, {VERSION} is", request.version),
            },
            Ok(request) => {
                let mut hung_up = false;
                engine.answer(&request.request, &mut |done, total| {
                    // Whoever asked may leave: the work goes on.
                    hung_up = hung_up || send(&mut stream, &Response::Progress { done, total }).is_err();
                })
            }
        };
        send(&mut stream, &response)?;
    }
}

fn malformed(error: &FrameError) -> Response {
    Response::Malformed { reason: format!("{error}") }
}

fn send(stream: &mut UnixStream, response: &Response) -> io::Result<()> {
    let line = frame::encode(response).map_err(io::Error::other)?;
    stream.write_all(&line)
}

/// Root, or whoever is in this process's group. The socket's mode says the same; this says it to the peer's face.
fn may_ask(stream: &UnixStream) -> Result<(), String> {
    let peer = socket_peercred(stream).map_err(|error| format!("the peer cannot be identified: {error}"))?;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let in_group = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", peer.pid.as_raw_nonzero()));
        status.is_ok_and(|status| {
            let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
            groups.is_some_and(|groups| groups.split_whitespace().any(|one| one.parse() == Ok(gid.as_raw())))
        })
    };
    if peer.uid.is_root() || peer.uid == uid || peer.gid == gid || in_group() {
        return Ok(());
    }
    Err(format!("user {} is neither root nor in the updater's group ({})", peer.uid.as_raw(), gid.as_raw()))
}
