//! The control and metrics sockets: who may connect, lines in and out. What a request means is decided elsewhere.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::net::sockopt::socket_peercred;
use seimon_ipc::control::{Command, Event, Follow, Request, Response, VERSION};
use seimon_ipc::frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc, oneshot};

/// A request on its way to the agent, with the way back.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Response>,
}

/// More than this many connections at once are closed again.
const MAX_CONNECTIONS: usize = 64;

/// Makes the socket, readable and writable for owner and group only.
pub(crate) fn listen(path: &Path) -> Result<UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("{} is in the way", path.display())),
    }
    let listener = UnixListener::bind(path).with_context(|| format!("{} cannot be made", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves until the process ends.
pub(crate) async fn serve(
    listener: UnixListener,
    requests: mpsc::Sender<Incoming>,
    events: broadcast::Sender<Event>,
) {
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control socket");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            tracing::warn!("too many connections to the control socket");
            continue;
        };
        let (requests, events) = (requests.clone(), events.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = talk(stream, requests, events).await {
                tracing::debug!(%error, "control connection ended");
            }
            drop(slot);
        });
    }
}

async fn talk(
    mut stream: UnixStream,
    requests: mpsc::Sender<Incoming>,
    events: broadcast::Sender<Event>,
) -> Result<()> {
    if let Err(reason) = may_ask(&stream) {
        tracing::warn!(%reason, "a peer was turned away from the control socket");
        return send(&mut stream, &Response::NotAllowed { reason }).await;
    }
    let mut lines = frame::LineBuffer::default();
    let mut chunk = [0; 16 * 1024];
    loop {
        let line = match lines.next_line() {
            Ok(Some(line)) => line,
            Ok(None) => match stream.read(&mut chunk).await? {
                0 => return Ok(()),
                count => {
                    lines.push(&chunk[..count]);
                    continue;
                }
            },
            Err(error) => return send(&mut stream, &Response::Malformed { reason: error.to_string() }).await,
        };
        let request: Request = match frame::decode(&line) {
            Ok(request) => request,
            Err(error) => {
                let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                send(&mut stream, &Response::Malformed { reason: format!("{error}: {reason}") }).await?;
                continue;
            }
        };
        if request.version != VERSION {
            let reason =
                format!("this agent speaks version {VERSION}, the request is version {}", request.version);
            send(&mut stream, &Response::Malformed { reason }).await?;
            continue;
        }
        let follow = matches!(request.request, Command::Events { follow: Follow::Yes, .. });
        // Subscribed before the past is asked for, so that nothing falls between.
        let feed = events.subscribe();
        let (answer, answered) = oneshot::channel();
        requests.send(Incoming { command: request.request, answer }).await.context("agent is stopping")?;
        let response = answered.await.context("agent is stopping")?;
        if follow {
            return follow_events(stream, response, feed).await;
        }
        send(&mut stream, &response).await?;
    }
}

async fn follow_events(
    mut stream: UnixStream,
    past: Response,
    mut feed: broadcast::Receiver<Event>,
) -> Result<()> {
    let mut last = 0;
    if let Response::Events { events } = &past {
        for event in events {
            stream.write_all(&frame::encode(event)?).await?;
            last = event.seq;
        }
    } else {
        return send(&mut stream, &past).await;
    }
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            event = feed.recv() => match event {
                Ok(event) if event.seq > last => stream.write_all(&frame::encode(&event)?).await?,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    anyhow::bail!("the reader is too slow, {missed} events were not sent");
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            read = stream.read(&mut ignored) => if read? == 0 { return Ok(()) },
        }
    }
}

async fn send(stream: &mut UnixStream, response: &Response) -> Result<()> {
    stream.write_all(&frame::encode(response)?).await?;
    Ok(())
}

/// Root, this process's user (its own children aside), or a member of its group.
fn may_ask(stream: &UnixStream) -> Result<(), String> {
    let peer = socket_peercred(stream).map_err(|error| format!("the peer cannot be identified: {error}"))?;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if !uid.is_root() && peer.uid == uid && no_new_privileges(peer.pid) != Some(false) {
        // Our own children have this user too, parse what strangers send, and are to command nobody.
        return Err(
            "a process that has given up gaining privileges may not ask as the agent's own user".to_owned()
        );
    }
    if peer.uid.is_root() || peer.uid == uid || (peer.gid == gid && !gid.is_root()) || in_group(peer.pid, gid)
    {
        return Ok(());
    }
    Err(format!("user {} is neither root nor in the agent's group ({})", peer.uid.as_raw(), gid.as_raw()))
}

/// The `NoNewPrivs` bit, which nothing that a process does can take off again; `None`: the process is gone.
fn no_new_privileges(pid: rustix::process::Pid) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NoNewPrivs:")).map(|bit| bit.trim() != "0")
}

fn in_group(pid: rustix::process::Pid, gid: rustix::process::Gid) -> bool {
    if gid.is_root() {
        return false;
    }
    let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())) else {
        return false;
    };
    status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .is_some_and(|groups| groups.split_whitespace().any(|group| group.parse() == Ok(gid.as_raw())))
}

/// Answers each connection with the text and closes it.
pub(crate) async fn serve_metrics(listener: UnixListener, requests: mpsc::Sender<oneshot::Sender<String>>) {
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "metrics socket");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        if may_ask(&stream).is_err() {
            continue;
        }
        let (answer, answered) = oneshot::channel();
        if requests.send(answer).await.is_err() {
            return;
        }
        if let Ok(text) = answered.await
            && let Err(error) = stream.write_all(text.as_bytes()).await
        {
            tracing::debug!(%error, "metrics connection ended");
        }
    }
}
