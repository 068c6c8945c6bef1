//! A client's stub resolver: asks the gateway for A and AAAA and keeps answers for their time.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};

use super::spec::Family;
use crate::dns::{self, Answer};
use crate::world::town::Device;

/// Time until a question is asked again, and how often.
const TRY: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;

/// One client's resolver and cache.
#[derive(Debug, Default)]
pub(crate) struct Stub {
    kept: HashMap<String, (Vec<IpAddr>, Instant)>,
    next_id: u16,
}

impl Stub {
    /// Addresses of a name, IPv6 first.
    pub(crate) async fn resolve(
        &mut self,
        device: &Device,
        host: &str,
        family: Family,
    ) -> io::Result<Vec<IpAddr>> {
        if let Some((addresses, until)) = self.kept.get(host)
            && Instant::now() < *until
        {
            return Ok(addresses.clone());
        }
        let (addresses, ttl) = self.ask(device, host, family, TRIES).await?;
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no address of {host}")));
        }
        let until = Instant::now() + Duration::from_secs(ttl.into());
        self.kept.insert(host.to_owned(), (addresses.clone(), until));
        Ok(addresses)
    }

    /// Forgets what is known of a name, as after a failed connection.
    pub(crate) fn forget(&mut self, host: &str) {
        self.kept.remove(host);
    }

    /// Asks both questions at the same time, not looking at the cache. Addresses (IPv6 first) and the smaller TTL.
    pub(crate) async fn ask(
        &mut self,
        device: &Device,
        host: &str,
        family: Family,
        tries: u32,
    ) -> io::Result<(Vec<IpAddr>, u32)> {
        self.next_id = self.next_id.wrapping_add(2);
        let id = self.next_id;
        let v6 = async {
            if family == Family::V4 {
                Ok(None)
            } else {
                question(device, host, dns::AAAA, id, tries).await.map(Some)
            }
        };
        let v4 = async {
            if family == Family::V6 {
                Ok(None)
            } else {
                question(device, host, dns::A, id.wrapping_add(1), tries).await.map(Some)
            }
        };
        let (v6, v4) = tokio::join!(v6, v4);
        let (mut addresses, mut ttl, mut failure) = (Vec::new(), u32::MAX, None);
        for answer in [v6, v4] {
            match answer {
                Ok(Some(answer)) => {
                    if !answer.addresses.is_empty() {
                        ttl = ttl.min(answer.ttl);
                    }
                    addresses.extend(answer.addresses);
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if addresses.is_empty() => Err(error),
            _ => Ok((addresses, if ttl == u32::MAX { 0 } else { ttl })),
        }
    }
}

async fn question(device: &Device, host: &str, qtype: u16, id: u16, tries: u32) -> io::Result<Answer> {
    let server = SocketAddr::new(device.gateway.into(), 53);
    let query = dns::query(id, host, qtype);
    let socket = UdpSocket::bind(SocketAddr::new(device.v4.into(), 0)).await?;
    socket.bind_device(Some(device.interface.as_bytes()))?;
    socket.connect(server).await?;
    for _ in 0..tries {
        socket.send(&query).await?;
        let listen = async {
            let mut room = [0; 2048];
            loop {
                let count = socket.recv(&mut room).await?;
                if let Some(answer) = dns::parse_response(&room[..count], id) {
                    return Ok::<Answer, io::Error>(answer);
                }
            }
        };
        match tokio::time::timeout(TRY, listen).await {
            Ok(Ok(answer)) if answer.truncated => return over_tcp(device, server, &query, id).await,
            Ok(Ok(answer)) if answer.code == dns::SERVFAIL => return Err(io::Error::other("SERVFAIL")),
            Ok(answer) => return answer,
            Err(_) => {}
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

async fn over_tcp(device: &Device, server: SocketAddr, query: &[u8], id: u16) -> io::Result<Answer> {
    let socket = TcpSocket::new_v4()?;
    socket.bind_device(Some(device.interface.as_bytes()))?;
    socket.bind(SocketAddr::new(device.v4.into(), 0))?;
    let exchange = async {
        let mut stream = socket.connect(server).await?;
        let mut framed = (query.len() as u16).to_be_bytes().to_vec();
        framed.extend_from_slice(query);
        stream.write_all(&framed).await?;
        let mut message = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut message).await?;
        dns::parse_response(&message, id).ok_or_else(|| io::Error::other("nonsense over TCP"))
    };
    tokio::time::timeout(TRY * 2, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
