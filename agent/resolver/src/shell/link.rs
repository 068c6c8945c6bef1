//! The agent's socket: JSON lines both ways.

use seimon_ipc::frame::{self, LineBuffer};
use seimon_ipc::resolver::FromResolver;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::engine::Event;

pub(super) async fn write(mut socket: OwnedWriteHalf, mut words: mpsc::UnboundedReceiver<FromResolver>) {
    while let Some(word) = words.recv().await {
        let Ok(line) = frame::encode(&word) else { continue };
        if socket.write_all(&line).await.is_err() {
            // The reader sees the end as well, and ends the program.
            return;
        }
    }
}

pub(super) async fn read(mut socket: OwnedReadHalf, events: mpsc::Sender<Event>) {
    let mut lines = LineBuffer::default();
    let mut bytes = vec![0; 16 << 10];
    let reason = loop {
        match lines.next_line() {
            Ok(Some(line)) => match frame::decode(&line) {
                Ok(message) => {
                    if events.send(Event::Agent(message)).await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(error) => break Some(error.to_string()),
            },
            Ok(None) => {}
            Err(error) => break Some(error.to_string()),
        }
        match socket.read(&mut bytes).await {
            Ok(0) => break None,
            Ok(length) => lines.push(&bytes[..length]),
            // The agent was killed with words of ours unread.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    // A closed queue means that the program is ending already.
    let _ = events.send(Event::AgentGone(reason)).await;
}
