//! Where a job's packets leave from.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use seimon_board::InterfaceName;
use seimon_ipc::probe::Host;
use seimon_plan::{PathId, ZoneId};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// One host of ours: the addresses and the interface that a job's sockets are bound to.
///
/// Every socket is new, with a port of its own, so each job is a new flow to the gateway's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub ipv4: Ipv4Addr,
    /// `None`: the zone has no IPv6.
    pub ipv6: Option<Ipv6Addr>,
    pub interface: InterfaceName,
}

pub(crate) type Sources = BTreeMap<(ZoneId, PathId), Source>;

pub(crate) fn sources(hosts: &[Host]) -> Sources {
    hosts
        .iter()
        .map(|host| {
            let source = Source {
                ipv4: host.ipv4,
                ipv6: host.gateway6.map(|_| host.ipv6),
                interface: host.interface.clone(),
            };
            ((host.zone.clone(), host.path.clone()), source)
        })
        .collect()
}

impl Source {
    fn address_towards(&self, target: SocketAddr) -> io::Result<SocketAddr> {
        let own: Option<IpAddr> = match target {
            SocketAddr::V4(_) => Some(self.ipv4.into()),
            SocketAddr::V6(_) => self.ipv6.map(Into::into),
        };
        own.map(|address| SocketAddr::new(address, 0))
            .ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "the zone has no IPv6"))
    }

    /// A connected socket: only the target's packets arrive, and ICMP's refusals come up as errors.
    pub(crate) async fn udp(&self, target: SocketAddr) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(self.address_towards(target)?).await?;
        // No capability is needed while a socket is not bound to an interface (Linux 5.7).
        socket.bind_device(Some(self.interface.as_str().as_bytes()))?;
        socket.connect(target).await?;
        Ok(socket)
    }

    /// As [`Self::udp`], for somebody who looks into it now and then: never blocks, and nobody is woken. Not bound to the
    /// interface: the host's own routing table, found by the address, has no other.
    pub(crate) fn udp_unattended(&self, target: SocketAddr) -> io::Result<std::net::UdpSocket> {
        let socket = std::net::UdpSocket::bind(self.address_towards(target)?)?;
        socket.set_nonblocking(true)?;
        socket.connect(target)?;
        Ok(socket)
    }

    pub(crate) async fn tcp(&self, target: SocketAddr) -> io::Result<TcpStream> {
        self.tcp_within(target, None).await
    }

    /// A connection whose packets pass at most so many routers.
    pub(crate) async fn tcp_within(&self, target: SocketAddr, hops: Option<u8>) -> io::Result<TcpStream> {
        let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(self.address_towards(target)?)?;
        socket.bind_device(Some(self.interface.as_str().as_bytes()))?;
        if let Some(hops) = hops {
            match target {
                SocketAddr::V4(_) => rustix::net::sockopt::set_ip_ttl(&socket, u32::from(hops))?,
                SocketAddr::V6(_) => rustix::net::sockopt::set_ipv6_unicast_hops(&socket, Some(hops))?,
            }
        }
        let stream = socket.connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Why a socket call failed, in words for people and without this process's own details.
pub(crate) fn in_words(error: &io::Error) -> String {
    let words = [
        (io::ErrorKind::ConnectionRefused, "refused by the other end"),
        (io::ErrorKind::ConnectionReset, "reset by the other end"),
        (io::ErrorKind::HostUnreachable, "host unreachable"),
        (io::ErrorKind::NetworkUnreachable, "network unreachable"),
        (io::ErrorKind::TimedOut, "timed out"),
        (io::ErrorKind::UnexpectedEof, "closed by the other end too early"),
        (io::ErrorKind::PermissionDenied, "forbidden by the network"),
    ];
    let known = words.iter().find(|(kind, _)| *kind == error.kind());
    known.map_or_else(|| error.to_string(), |(_, words)| (*words).to_owned())
}
