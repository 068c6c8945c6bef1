//! One question to a path's servers: each in turn, until one answers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use seimon_ipc::resolver::Transport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use crate::names::upstream::{self, Received};
use crate::names::{Ask, How, NoAnswer};

/// What one server gets before the next is asked.
const TRY: Duration = Duration::from_millis(800);

/// What all servers get together.
const TOTAL: Duration = Duration::from_secs(4);

const DNS_PORT: u16 = 53;

/// Datagrams that are no answer to the query before the port is given up: guessing must not be cheap.
const MAX_FORGERIES: usize = 64;

enum Attempt {
    Answer(Vec<u8>),
    /// The server is there, and of no use.
    Ill,
    Unreachable,
}

pub(super) async fn ask(ask: Ask) -> Result<Vec<u8>, NoAnswer> {
    let deadline = Instant::now() + TOTAL;
    let mut last = NoAnswer::Unreachable;
    loop {
        let mut hopeless = true;
        for &server in &ask.servers {
            let server = SocketAddr::new(server, DNS_PORT);
            let until = deadline.min(Instant::now() + TRY);
            match timeout_at(until, attempt(&ask, server)).await {
                Ok(Ok(Attempt::Answer(bytes))) => return Ok(bytes),
                Ok(Ok(Attempt::Ill)) => last = NoAnswer::Ill,
                Ok(Ok(Attempt::Unreachable) | Err(_)) => last = NoAnswer::Unreachable,
                Err(_elapsed) => (last, hopeless) = (NoAnswer::TimedOut, false),
            }
            if Instant::now() >= deadline {
                return Err(last);
            }
        }
        if hopeless {
            // They all said no, and would again; or there are none.
            return Err(last);
        }
    }
}

async fn attempt(ask: &Ask, server: SocketAddr) -> io::Result<Attempt> {
    let mut query = ask.message.clone();
    match ask.how {
        How::Raw(transport) => {
            upstream::set_id(&mut query, random_id()?);
            match transport {
                Transport::Udp => udp(ask, server, &query).await.map(|(attempt, _)| attempt),
                Transport::Tcp => tcp(ask, server, &query).await,
            }
        }
        How::Own => {
            let (attempt, again) = own(ask, server, &mut query).await?;
            match again {
                Again::No => Ok(attempt),
                Again::OverTcp => {
                    // TCP cannot be guessed into: the case need not be random, and servers that lose it are fine.
                    let mut query = ask.message.clone();
                    upstream::set_id(&mut query, random_id()?);
                    tcp(ask, server, &query).await
                }
                Again::Plainer => {
                    query.clone_from(&ask.message);
                    upstream::plain(&mut query);
                    own(ask, server, &mut query).await.map(|(attempt, _)| attempt)
                }
            }
        }
    }
}

async fn own(ask: &Ask, server: SocketAddr, query: &mut [u8]) -> io::Result<(Attempt, Again)> {
    let mut noise = random::<256>()?.into_iter().cycle();
    upstream::disguise(query, random_id()?, || noise.next().unwrap_or_default());
    udp(ask, server, query).await
}

enum Again {
    No,
    OverTcp,
    Plainer,
}

/// A socket, hence a random port, for each query; connected, so that only the server's datagrams come.
async fn udp(ask: &Ask, server: SocketAddr, query: &[u8]) -> io::Result<(Attempt, Again)> {
    let socket = UdpSocket::bind(source(ask, server)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut bytes = vec![0; 4096];
    for _ in 0..MAX_FORGERIES {
        let length = match socket.recv(&mut bytes).await {
            Ok(length) => length,
            // ICMP says that nobody is there.
            Err(_refused) => return Ok((Attempt::Unreachable, Again::No)),
        };
        let received = &bytes[..length];
        match judge(ask.how, query, received) {
            Received::Ignore => {}
            Received::CaseLost | Received::Truncated => return Ok((Attempt::Ill, Again::OverTcp)),
            Received::Plainer => return Ok((Attempt::Ill, Again::Plainer)),
            Received::Ill => return Ok((Attempt::Ill, Again::No)),
            Received::Answer => return Ok((Attempt::Answer(received.to_vec()), Again::No)),
        }
    }
    tracing::warn!("a server's address sends answers that nobody asked for");
    Ok((Attempt::Ill, Again::No))
}

async fn tcp(ask: &Ask, server: SocketAddr, query: &[u8]) -> io::Result<Attempt> {
    let Ok(length) = u16::try_from(query.len()) else { return Ok(Attempt::Ill) };
    let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(source(ask, server))?;
    let mut stream = timeout(TRY, socket.connect(server)).await??;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(query);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(match judge(ask.how, query, &bytes) {
        Received::Answer => Attempt::Answer(bytes),
        Received::Ignore | Received::CaseLost | Received::Truncated | Received::Plainer | Received::Ill => {
            Attempt::Ill
        }
    })
}

fn judge(how: How, sent: &[u8], received: &[u8]) -> Received {
    match how {
        How::Own => upstream::judge(sent, received),
        How::Raw(_) => upstream::judge_raw(sent, received),
    }
}

fn source(ask: &Ask, server: SocketAddr) -> SocketAddr {
    let unspecified: (IpAddr, IpAddr) =
        (std::net::Ipv4Addr::UNSPECIFIED.into(), std::net::Ipv6Addr::UNSPECIFIED.into());
    let (v4, v6) = ask.source.map_or(unspecified, |(v4, v6)| (v4.into(), v6.into()));
    SocketAddr::new(if server.is_ipv4() { v4 } else { v6 }, 0)
}

fn random_id() -> io::Result<u16> {
    random::<2>().map(u16::from_ne_bytes)
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // Up to 256 bytes come whole or not at all.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}
