//! The two UDP sockets of a tunnel, one a family, at the same port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Bytes that may wait: a burst of some milliseconds at a gigabit. The kernel gives what it allows.
const WAITING: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Sockets {
    four: UdpSocket,
    /// A machine without IPv6 has none.
    six: Option<UdpSocket>,
}

impl Sockets {
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let four = open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        let six = open(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).ok();
        Ok(Self { four, six })
    }

    /// Each with the number that [`Self::receive`] takes.
    pub(super) fn all(&self) -> Vec<(usize, &UdpSocket)> {
        std::iter::once((0, &self.four)).chain(self.six.as_ref().map(|six| (1, six))).collect()
    }

    /// None: nothing is waiting.
    pub(super) fn receive(&self, which: usize, room: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let socket = if which == 0 { &self.four } else { self.six.as_ref()? };
        loop {
            match socket.recv_from(room) {
                Ok(received) => return Some(received),
                // What an earlier packet met with: it says nothing about the next.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    if error.kind() == io::ErrorKind::ConnectionRefused
                        || error.kind() == io::ErrorKind::Interrupted
                    {
                        continue;
                    }
                    return None;
                }
                Err(_) => return None,
            }
        }
    }

    /// Whether it could be sent.
    pub(super) fn send(&self, packet: &[u8], to: SocketAddr) -> bool {
        let socket = if to.is_ipv4() { Some(&self.four) } else { self.six.as_ref() };
        socket.is_some_and(|socket| socket.send_to(packet, to).is_ok())
    }
}

fn open(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Smaller buffers are no reason not to carry anything.
    let _smaller = socket.set_recv_buffer_size(WAITING);
    let _smaller = socket.set_send_buffer_size(WAITING);
    socket.bind(&at.into())?;
    Ok(socket.into())
}
