//! Clients that say what became of a packet, and servers that say whom they saw.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::net::{AddressFamily, SocketType, ipproto};

use crate::world::{inside, sh};

/// Nobody answers within this: dropped. An emulated machine is that many times slower.
fn silence() -> Duration {
    let times = std::env::var("SEIMON_TEST_SLOW").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    Duration::from_millis(400) * times
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Tcp(u16),
    Udp(u16),
    Ping,
}

/// What the client learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The node that answered, and the source address that it saw (of a ping: neither).
    Answer { by: String, from: IpAddr },
    /// A reset, or an ICMP error.
    Refused,
    /// Nothing.
    Silent,
}

impl Seen {
    pub(crate) fn node(&self) -> Option<&str> {
        match self {
            Self::Answer { by, from: _ } => Some(by),
            Self::Refused | Self::Silent => None,
        }
    }
}

/// Asks from the node once.
pub(crate) fn ask(node: &str, to: IpAddr, kind: Kind) -> Result<Seen> {
    inside(node, || ask_here(to, kind))
}

/// [`ask`] in the namespace of this thread.
pub(crate) fn ask_here(to: IpAddr, kind: Kind) -> Result<Seen> {
    let answer = match kind {
        Kind::Tcp(port) => tcp((to, port).into()),
        Kind::Udp(port) => udp((to, port).into()),
        Kind::Ping => ping(to),
    };
    match answer {
        Ok(words) => {
            let Some((by, from)) = words.split_once('|') else {
                return Ok(Seen::Answer { by: words, from: IpAddr::V6(Ipv6Addr::UNSPECIFIED) });
            };
            Ok(Seen::Answer { by: by.to_owned(), from: from.parse().context(words.clone())? })
        }
        Err(error) if SILENT.contains(&error.kind()) => Ok(Seen::Silent),
        Err(error) if REFUSED.contains(&error.kind()) => Ok(Seen::Refused),
        Err(error) => bail!("{kind:?} to {to}: {error}"),
    }
}

const SILENT: [ErrorKind; 2] = [ErrorKind::TimedOut, ErrorKind::WouldBlock];
/// A reset, a closed port, and the ICMP errors with which nft rejects.
const REFUSED: [ErrorKind; 5] = [
    ErrorKind::ConnectionRefused,
    ErrorKind::ConnectionReset,
    ErrorKind::HostUnreachable,
    ErrorKind::NetworkUnreachable,
    ErrorKind::PermissionDenied,
];

fn tcp(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, silence())?;
    stream.set_read_timeout(Some(silence()))?;
    stream.write_all(b"who")?;
    let mut words = [0; 128];
    let length = stream.read(&mut words)?;
    Ok(String::from_utf8_lossy(&words[..length]).into_owned())
}

fn any(like: IpAddr) -> SocketAddr {
    if like.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() }
}

fn udp(to: SocketAddr) -> std::io::Result<String> {
    let socket = UdpSocket::bind(any(to.ip()))?;
    socket.connect(to)?;
    exchange(&socket, b"who")
}

pub(crate) fn exchange(socket: &UdpSocket, words: &[u8]) -> std::io::Result<String> {
    socket.set_read_timeout(Some(silence()))?;
    socket.send(words)?;
    let mut answer = [0; 128];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Echo request and reply, by the kernel's ping sockets.
fn ping(to: IpAddr) -> std::io::Result<String> {
    let (family, protocol, kind) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
    };
    let socket = UdpSocket::from(rustix::net::socket(family, SocketType::DGRAM, Some(protocol))?);
    socket.connect(SocketAddr::new(to, 0))?;
    socket.set_read_timeout(Some(silence()))?;
    socket.send(&[kind, 0, 0, 0, 0, 0, 0, 1, b'h', b'i'])?;
    let mut answer = [0; 64];
    socket.recv(&mut answer)?;
    Ok("ping".into())
}

/// What a node's UDP servers were sent, besides `who`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mailbox(Arc<Mutex<BTreeSet<String>>>);

impl Mailbox {
    pub(crate) fn has(&self, words: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(words)
    }
}

/// Servers of a node on these ports, for as long as the process lives. UDP ones on each address by itself: they answer from the
/// address that was asked.
pub(crate) fn serve(node: &str, addresses: &[IpAddr], tcp: &[u16], udp: &[u16]) -> Result<Mailbox> {
    let mailbox = Mailbox::default();
    for port in tcp {
        let listener = inside(node, || {
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)).with_context(|| format!("{node} tcp/{port}"))
        })?;
        let node = node.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let node = node.clone();
                std::thread::spawn(move || {
                    let _gone = stream.and_then(|stream| answer(stream, &node));
                });
            }
        });
    }
    for to in addresses.iter().flat_map(|address| udp.iter().map(|port| SocketAddr::new(*address, *port))) {
        let socket = inside(node, || UdpSocket::bind(to).with_context(|| format!("{node} {to}")))?;
        let (node, mailbox) = (node.to_owned(), mailbox.clone());
        std::thread::spawn(move || {
            let mut words = [0; 2048];
            while let Ok((length, peer)) = socket.recv_from(&mut words) {
                let words = String::from_utf8_lossy(&words[..length]).into_owned();
                mailbox.0.lock().unwrap_or_else(PoisonError::into_inner).insert(words);
                let answer = format!("{node}|{}", peer.ip().to_canonical());
                let _gone = socket.send_to(answer.as_bytes(), peer);
            }
        });
    }
    Ok(mailbox)
}

/// Every message is answered; a large one with as many bytes as were sent is not told apart.
fn answer(mut stream: TcpStream, node: &str) -> std::io::Result<()> {
    let words = format!("{node}|{}", stream.peer_addr()?.ip().to_canonical());
    let mut message = [0; 65536];
    while stream.read(&mut message)? > 0 {
        stream.write_all(words.as_bytes())?;
    }
    Ok(())
}

/// Sends `words` from `source` (which need not be the node's own), and hopes for nothing.
pub(crate) fn send_as(node: &str, source: SocketAddr, to: SocketAddr, words: &str) -> Result<()> {
    let prefix = if source.is_ipv4() { "/32 dev lo" } else { "/128 dev lo nodad" };
    // There already when it is the node's own, or was used before.
    let _known = sh(node, &format!("ip address add {}{prefix}", source.ip()));
    inside(node, || {
        let socket = UdpSocket::bind(source).with_context(|| format!("{node} {source}"))?;
        // The node itself may have no way there.
        let _refused = socket.send_to(words.as_bytes(), to);
        Ok(())
    })
}

/// A connection that stays.
pub(crate) fn connect(node: &str, to: SocketAddr) -> Result<TcpStream> {
    let stream = inside(node, || {
        TcpStream::connect_timeout(&to, silence()).with_context(|| format!("{node} → {to}"))
    })?;
    stream.set_read_timeout(Some(silence()))?;
    Ok(stream)
}

/// Who is at the other end.
pub(crate) fn who(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"who")?;
    let mut words = [0; 128];
    let length = stream.read(&mut words)?;
    let words = String::from_utf8_lossy(&words[..length]).into_owned();
    Ok(words.split_once('|').map(|(node, _)| node.to_owned()).unwrap_or(words))
}

/// Sends "port unreachable" about a UDP packet that went `from` … `about`, with the node's own source address.
pub(crate) fn send_error(node: &str, from: SocketAddr, about: SocketAddr) -> Result<()> {
    let mut udp = [from.port().to_be_bytes(), about.port().to_be_bytes(), [0, 11], [0, 0]].concat();
    udp.extend(b"who");
    let (family, protocol, message) = match (from.ip(), about.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut inner = vec![0x45, 0, 0, 31, 0, 1, 0, 0, 64, 17, 0, 0];
            inner.extend(source.octets().into_iter().chain(destination.octets()));
            let sum = checksum(&inner);
            inner[10..12].copy_from_slice(&sum);
            let mut message = [vec![3, 3, 0, 0, 0, 0, 0, 0], inner, udp].concat();
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum);
            (AddressFamily::INET, ipproto::ICMP, message)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut inner = vec![0x60, 0, 0, 0, 0, 11, 17, 64];
            inner.extend(source.octets().into_iter().chain(destination.octets()));
            // The kernel fills in the checksum.
            (AddressFamily::INET6, ipproto::ICMPV6, [vec![1, 4, 0, 0, 0, 0, 0, 0], inner, udp].concat())
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => bail!("two families"),
    };
    inside(node, || {
        let socket = rustix::net::socket(family, SocketType::RAW, Some(protocol))?;
        let sent = rustix::net::sendto(
            &socket,
            &message,
            rustix::net::SendFlags::empty(),
            &SocketAddr::new(from.ip(), 0),
        )?;
        anyhow::ensure!(sent == message.len());
        Ok(())
    })
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default()));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}
