//! The zones' side: UDP, and TCP with several queries in flight per connection (RFC 7766).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use seimon_plan::ZoneId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::engine::{Event, ReplyTo};

/// Longest query that is read over UDP. A question and its options are far shorter.
const MAX_UDP_QUERY: usize = 4_096;

/// A connection without a query under way is closed after this time; so is one that does not take its answers.
const IDLE: Duration = Duration::from_secs(10);

const MAX_CONNECTIONS: usize = 256;
const MAX_CONNECTIONS_PER_CLIENT: usize = 16;

/// Queries of one connection under way; more are read when some are answered.
const MAX_IN_FLIGHT: usize = 32;

pub(super) async fn udp(zone: ZoneId, socket: Arc<UdpSocket>, events: mpsc::Sender<Event>) {
    let mut buffer = vec![0; MAX_UDP_QUERY];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // Errors of earlier sends are reported here; anything lasting must not become a busy loop.
                tracing::debug!(%error, "receiving failed");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let reply = ReplyTo::Udp(Arc::clone(&socket), client);
        let bytes = buffer[..length].to_vec();
        let event = Event::Query { zone: zone.clone(), client: client.ip(), bytes, reply };
        match events.try_send(event) {
            Ok(()) => {}
            // Clients ask again; the socket must not wait, or queries grow old in it.
            Err(mpsc::error::TrySendError::Full(_)) => tokio::task::yield_now().await,
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
    }
}

/// Who is connected.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place; given back when dropped.
struct Place(Connections, IpAddr);

impl Connections {
    fn take(&self, client: IpAddr) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let own = counts.get(&client).copied().unwrap_or(0);
        if all >= MAX_CONNECTIONS || own >= MAX_CONNECTIONS_PER_CLIENT {
            return None;
        }
        counts.insert(client, own + 1);
        Some(Place(self.clone(), client))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self(Connections(counts), client) = self;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(client) {
            Some(own) if *own > 1 => *own -= 1,
            Some(_) | None => {
                counts.remove(client);
            }
        }
    }
}

pub(super) async fn tcp(
    zone: ZoneId,
    socket: TcpListener,
    connections: Connections,
    events: mpsc::Sender<Event>,
) {
    loop {
        match socket.accept().await {
            Ok((stream, client)) => {
                let Some(place) = connections.take(client.ip()) else { continue };
                let (zone, events) = (zone.clone(), events.clone());
                tokio::spawn(async move {
                    connection(zone, stream, client.ip(), events).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accepting failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(zone: ZoneId, mut stream: TcpStream, client: IpAddr, events: mpsc::Sender<Event>) {
    let (answers, mut answered) = mpsc::unbounded_channel();
    let mut in_flight = 0;
    let mut bytes: Vec<u8> = Vec::new();
    let mut chunk = vec![0; 2_048];
    let mut idle = Instant::now() + IDLE;
    let mut peer_is_done = false;
    loop {
        while in_flight < MAX_IN_FLIGHT
            && let Some(query) = next_message(&mut bytes)
        {
            in_flight += 1;
            let reply = ReplyTo::Tcp(answers.clone());
            let event = Event::Query { zone: zone.clone(), client, bytes: query, reply };
            if events.send(event).await.is_err() {
                return;
            }
        }
        if peer_is_done && in_flight == 0 {
            return;
        }
        tokio::select! {
            // Both ends of the select keep what they have when the other wins: a channel and a read into a buffer
            // that is looked at only when the read completes.
            answer = answered.recv() => {
                in_flight -= 1;
                idle = Instant::now() + IDLE;
                if let Some(Some(message)) = answer {
                    let Ok(length) = u16::try_from(message.len()) else { return };
                    let mut framed = length.to_be_bytes().to_vec();
                    framed.extend_from_slice(&message);
                    if !matches!(timeout(IDLE, stream.write_all(&framed)).await, Ok(Ok(()))) {
                        return;
                    }
                }
            }
            read = stream.read(&mut chunk), if in_flight < MAX_IN_FLIGHT && !peer_is_done => match read {
                Ok(0) => peer_is_done = true,
                Ok(length) => {
                    bytes.extend_from_slice(&chunk[..length]);
                    idle = idle.max(Instant::now() + IDLE / 5);
                }
                Err(_reset) => return,
            },
            () = sleep_until(idle), if in_flight == 0 => return,
        }
    }
}

/// Takes a whole message off the front.
fn next_message(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(*bytes.first_chunk::<2>()?));
    let message = bytes.get(2..2 + length)?.to_vec();
    bytes.drain(..2 + length);
    Some(message)
}
