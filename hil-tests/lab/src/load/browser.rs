//! What a browser does for one request: name, connection (IPv6 first), TLS, request, answer.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::pac::PacFile;
use super::spec::{Dial, Family, Via};
use super::stub::Stub;
use crate::servers::http::{Head, Reader};
use crate::world::town::Device;

/// How long IPv6 has before IPv4 is tried as well (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// The same where that address has answered before: history counts (RFC 8305 sections 5 and 8). A busy machine would else
/// turn people to IPv4 in the middle of a log-in, which a service that ties log-ins to addresses takes for a stranger.
const HEAD_START_KNOWN: Duration = Duration::from_secs(1);

/// The town hall's proxy.
const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 50, 0, 80)), 8080);

/// Whom a load talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Name(String),
    Address(IpAddr),
}

impl Target {
    /// Reads `name`, `name:port`, `address`, `address:port`, `[v6]:port`. None: neither.
    pub(crate) fn parse(text: &str, default_port: u16) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self { host: Host::Address(address.ip()), port: address.port() });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self { host: Host::Address(address), port: default_port });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, port.parse().ok()?),
            None => (text, default_port),
        };
        let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
        good.then(|| Self { host: Host::Name(name.to_owned()), port })
    }

    pub(crate) fn name(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        }
    }
}

/// One client: its device, its resolver's cache, its TLS sessions.
#[derive(Debug)]
pub(crate) struct Browser {
    pub(crate) device: Device,
    pub(crate) family: Family,
    pub(crate) dial: Dial,
    pub(crate) via: Via,
    pub(crate) pac: PacFile,
    pub(crate) stub: Stub,
    pub(crate) tls: Arc<ClientConfig>,
    /// IPv6 addresses that have answered.
    pub(crate) answered: BTreeSet<IpAddr>,
}

/// A connection with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// An answer's head and its body as text (small answers only).
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: Head,
}

impl Browser {
    pub(crate) async fn addresses(&mut self, target: &Target) -> io::Result<Vec<IpAddr>> {
        match &target.host {
            Host::Address(address) => Ok(vec![*address]),
            Host::Name(name) => self.stub.resolve(&self.device, name, self.family).await,
        }
    }

    /// A TCP connection, as [`Dial`] says.
    pub(crate) async fn connect(&mut self, target: &Target) -> io::Result<TcpStream> {
        let addresses = self.addresses(target).await?;
        let usable = |address: &&IpAddr| address.is_ipv4() || self.device.v6.is_some();
        let connected = match (self.dial, addresses.iter().find(usable)) {
            (Dial::First, Some(first)) => self.open(*first, target.port).await,
            (Dial::Race, _) | (Dial::First, None) => self.race(&addresses, target.port).await,
        };
        if let Ok(stream) = &connected
            && let Ok(peer) = stream.peer_addr()
            && peer.is_ipv6()
        {
            self.answered.insert(peer.ip());
        }
        if connected.is_err()
            && let Host::Name(name) = &target.host
        {
            self.stub.forget(name);
        }
        connected
    }

    /// IPv6 first, IPv4 a little later or as soon as IPv6 failed.
    async fn race(&self, addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
        let first = |v6: bool| addresses.iter().copied().find(|a| a.is_ipv6() == v6);
        let v6 = first(true).filter(|_| self.device.v6.is_some());
        match (v6, first(false)) {
            (Some(six), Some(four)) => {
                let known = self.answered.contains(&six);
                let head_start = if known { HEAD_START_KNOWN } else { HEAD_START };
                let mut six = std::pin::pin!(self.open(six, port));
                tokio::select! {
                    connected = &mut six => match connected {
                        Ok(stream) => Ok(stream),
                        Err(_) => self.open(four, port).await,
                    },
                    () = tokio::time::sleep(head_start) => {
                        let mut four = std::pin::pin!(self.open(four, port));
                        tokio::select! {
                            connected = &mut six => match connected {
                                Ok(stream) => Ok(stream),
                                Err(_) => four.await,
                            },
                            connected = &mut four => match connected {
                                Ok(stream) => Ok(stream),
                                Err(_) => six.await,
                            },
                        }
                    }
                }
            }
            (Some(one), None) | (None, Some(one)) => self.open(one, port).await,
            (None, None) => {
                Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no address of a family it speaks"))
            }
        }
    }

    async fn open(&self, address: IpAddr, port: u16) -> io::Result<TcpStream> {
        let (socket, own) = match (address, self.device.v6) {
            (IpAddr::V4(_), _) => (TcpSocket::new_v4()?, IpAddr::V4(self.device.v4)),
            (IpAddr::V6(_), Some(v6)) => (TcpSocket::new_v6()?, IpAddr::V6(v6)),
            (IpAddr::V6(_), None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        socket.bind_device(Some(self.device.interface.as_bytes()))?;
        socket.bind(SocketAddr::new(own, 0))?;
        let stream = socket.connect(SocketAddr::new(address, port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Through the proxy where that is this client's way.
    async fn reach(&mut self, target: &Target) -> io::Result<TcpStream> {
        let proxy = match self.via {
            Via::Gateway => None,
            Via::Proxy => Some(PROXY),
            Via::Pac => self.look_up_proxy(target).await,
        };
        match proxy {
            None => self.connect(target).await,
            Some(proxy) => {
                let mut stream = self.open(proxy.ip(), proxy.port()).await?;
                connect_through(&mut stream, target).await?;
                Ok(stream)
            }
        }
    }

    /// As the PAC file says; the last one that could be had, or the proxy.
    async fn look_up_proxy(&mut self, target: &Target) -> Option<SocketAddr> {
        if self.pac.is_old() {
            let text = match self.open(self.device.gateway.into(), 80).await {
                Ok(mut stream) => super::pac::fetch(&mut stream).await.ok(),
                Err(_) => None,
            };
            self.pac.renew(text);
        }
        self.pac.way_to(&target.name(), target.port, PROXY)
    }

    /// A connection on which requests can be made: TLS on port 443, plain elsewhere.
    pub(crate) async fn dial(&mut self, target: &Target) -> io::Result<Box<dyn Stream>> {
        let stream = self.reach(target).await?;
        if target.port != 443 {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(target.name()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?;
        Ok(Box::new(stream))
    }

    /// One short connection with one GET.
    pub(crate) async fn get(
        &mut self,
        target: &Target,
        path: &str,
        load: &str,
        cookie: Option<&str>,
    ) -> io::Result<Reply> {
        let mut stream = self.dial(target).await?;
        let cookie = cookie.map(|c| format!("cookie: {c}\r\n")).unwrap_or_default();
        let host = target.name();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nx-load: {load}\r\nconnection: close\r\n{cookie}\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut reader = Reader::default();
        let head = reader.head(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut left = head.content_length();
        let mut room = [0; 4096];
        while left > 0 {
            let limit = room.len().min(left as usize);
            let count = reader.body(&mut stream, &mut room[..limit]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= count as u64;
        }
        // The answer is complete: how the connection ends is of no interest.
        let _ = stream.shutdown().await;
        let _ = tokio::time::timeout(Duration::from_millis(500), reader.body(&mut stream, &mut room)).await;
        Ok(Reply { status: head.status().unwrap_or(0), head })
    }
}

/// Asks the proxy for a way to the target.
async fn connect_through(stream: &mut TcpStream, target: &Target) -> io::Result<()> {
    let (name, port) = (target.name(), target.port);
    let request = format!("CONNECT {name}:{port} HTTP/1.1\r\nhost: {name}:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reader = Reader::default();
    let head = reader.head(stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.status() == Some(200) { Ok(()) } else { Err(io::Error::other(head.first)) }
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Reset,
    Timeout,
    Other,
}

pub(crate) fn failure(error: &io::Error) -> Failure {
    use io::ErrorKind as K;
    #[expect(clippy::wildcard_enum_match_arm, reason = "std's list of kinds is open")]
    match error.kind() {
        K::ConnectionReset
        | K::ConnectionRefused
        | K::ConnectionAborted
        | K::BrokenPipe
        | K::UnexpectedEof => Failure::Reset,
        K::TimedOut => Failure::Timeout,
        _ => Failure::Other,
    }
}

/// Runs one operation with a limit of time; a limit that is reached is an error of kind `TimedOut`.
pub(crate) async fn limited<T>(
    limit: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> (io::Result<T>, Duration) {
    let begun = Instant::now();
    let result = match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    (result, begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_names_or_addresses_with_an_optional_port() {
        let name = Target::parse("www.example:80", 443).unwrap();
        assert_eq!((name.name().as_str(), name.port), ("www.example", 80));
        let v6 = Target::parse("[2001:db8::1]:7000", 443).unwrap();
        assert_eq!(v6, Target { host: Host::Address("2001:db8::1".parse().unwrap()), port: 7000 });
        assert_eq!(Target::parse("203.0.113.80", 443).unwrap().port, 443);
        assert_eq!(Target::parse("not a name", 443), None);
        assert_eq!(Target::parse("www.example:http", 443), None);
    }
}
