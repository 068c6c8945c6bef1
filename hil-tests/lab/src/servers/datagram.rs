//! UDP services: DNS (also over TCP), the echo service, the drill service.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::site::{Entry, Log};
use crate::capture::lock;
use crate::dns::{self, Answer};

/// How a DNS server misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DnsFault {
    Servfail,
    Nxdomain,
    Silence,
    Nonsense,
    Truncated,
    WrongId,
}

impl DnsFault {
    pub(crate) fn from_word(word: &str) -> Result<Self> {
        Ok(match word {
            "servfail" => Self::Servfail,
            "nxdomain" => Self::Nxdomain,
            "silence" => Self::Silence,
            "nonsense" => Self::Nonsense,
            "truncated" => Self::Truncated,
            "wrong-id" => Self::WrongId,
            other => {
                bail!(
                    "how must be servfail, nxdomain, silence, nonsense, truncated or wrong-id, not `{other}`"
                )
            }
        })
    }
}

/// One view of the names: what a DNS server answers.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) names: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    pub(crate) ttl: u32,
    pub(crate) fault: Mutex<Option<DnsFault>>,
}

/// Whether a question came over UDP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Udp,
    Tcp,
}

impl View {
    fn answer(&self, data: &[u8], over: Over) -> Option<Vec<u8>> {
        let mut question = dns::parse_query(data)?;
        let found = lock(&self.names).get(&question.name).cloned();
        let mut answer = match found {
            Some(addresses) => Answer { code: dns::NOERROR, addresses, ttl: self.ttl, truncated: false },
            None => Answer { code: dns::NXDOMAIN, addresses: Vec::new(), ttl: self.ttl, truncated: false },
        };
        match *lock(&self.fault) {
            None => {}
            Some(DnsFault::Silence) => return None,
            Some(DnsFault::Nonsense) => return Some(vec![0xff; 31]),
            Some(DnsFault::Servfail) => {
                answer = Answer { code: dns::SERVFAIL, addresses: Vec::new(), ttl: 0, truncated: false };
            }
            Some(DnsFault::Nxdomain) => {
                answer =
                    Answer { code: dns::NXDOMAIN, addresses: Vec::new(), ttl: self.ttl, truncated: false };
            }
            Some(DnsFault::Truncated) => answer.truncated = over == Over::Udp,
            Some(DnsFault::WrongId) => question.id = question.id.wrapping_add(1),
        }
        Some(dns::response(&question, &answer))
    }
}

/// Serves a view at `address` over UDP and TCP.
pub(crate) async fn serve_dns(address: SocketAddr, view: Arc<View>) -> Result<()> {
    let socket = UdpSocket::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    let over_tcp = Arc::clone(&view);
    tokio::spawn(async move {
        let mut room = [0; 2048];
        loop {
            let Ok((count, peer)) = socket.recv_from(&mut room).await else { continue };
            if let Some(answer) = view.answer(&room[..count], Over::Udp) {
                let _ = socket.send_to(&answer, peer).await;
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            let view = Arc::clone(&over_tcp);
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut message = vec![0; length.into()];
                    if stream.read_exact(&mut message).await.is_err() {
                        return;
                    }
                    let Some(answer) = view.answer(&message, Over::Tcp) else { continue };
                    let mut framed = (answer.len() as u16).to_be_bytes().to_vec();
                    framed.extend_from_slice(&answer);
                    if stream.write_all(&framed).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(())
}

/// The municipality's echo service.
pub(crate) async fn serve_echo(address: SocketAddr, silent: Arc<AtomicBool>) -> Result<()> {
    let socket = UdpSocket::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    tokio::spawn(async move {
        let mut room = [0; 2048];
        loop {
            let Ok((count, peer)) = socket.recv_from(&mut room).await else { continue };
            if silent.load(Ordering::Relaxed) {
                continue;
            }
            if let Some(answer) = seimon_ipc::echo::answer_to(&room[..count], peer) {
                let _ = socket.send_to(&answer, peer).await;
            }
        }
    });
    Ok(())
}

/// Offset of the load's name in a drill datagram: behind its number.
pub(crate) const DRILL_NAME: usize = 8;
/// Room for the load's name, padded with zeros.
pub(crate) const DRILL_NAME_LEN: usize = 24;

/// Sends every datagram back and logs whose it was.
pub(crate) async fn serve_drill(address: SocketAddr, log: Arc<Log>) -> Result<()> {
    let socket = UdpSocket::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    tokio::spawn(async move {
        let mut room = [0; 2048];
        loop {
            let Ok((count, peer)) = socket.recv_from(&mut room).await else { continue };
            let _ = socket.send_to(&room[..count], peer).await;
            if let Some(name) = room[..count].get(DRILL_NAME..DRILL_NAME + DRILL_NAME_LEN) {
                let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
                if let Ok(name) = std::str::from_utf8(&name[..end]) {
                    log.add(name, Entry::Served, peer.ip());
                }
            }
        }
    });
    Ok(())
}
