//! Sockets that the agent made, since this process may not.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail, ensure};
use rustix::net::SocketType;
use seimon_ipc::resolver::{LISTENERS_ENV, Listener, SOCKET_FD, Transport};

/// All that the process was given.
#[derive(Debug)]
pub struct Inherited {
    pub agent: UnixStream,
    pub udp: Vec<(Listener, UdpSocket)>,
    pub tcp: Vec<(Listener, TcpListener)>,
}

impl Inherited {
    /// Takes the sockets over, once. Each must be what it is said to be, and is closed on exec from here on.
    pub fn take() -> anyhow::Result<Self> {
        let text = std::env::var(LISTENERS_ENV).with_context(|| {
            format!("{LISTENERS_ENV} is missing: this program is started by seimon-agent")
        })?;
        let listeners: Vec<Listener> = serde_json::from_str(&text)
            .with_context(|| format!("{LISTENERS_ENV} is not a list of listeners"))?;
        let mut seen = vec![SOCKET_FD];
        for listener in &listeners {
            ensure!(listener.fd > SOCKET_FD, "descriptor {} cannot be a listener", listener.fd);
            ensure!(!seen.contains(&listener.fd), "descriptor {} is named twice", listener.fd);
            seen.push(listener.fd);
        }
        let agent = UnixStream::from(adopt(SOCKET_FD, SocketType::STREAM).context("no socket to the agent")?);
        agent.set_nonblocking(true)?;
        let mut inherited = Self { agent, udp: Vec::new(), tcp: Vec::new() };
        for listener in listeners {
            let kind = match listener.protocol {
                Transport::Udp => SocketType::DGRAM,
                Transport::Tcp => SocketType::STREAM,
            };
            let fd = adopt(listener.fd, kind)
                .with_context(|| format!("no {:?} socket for zone {}", listener.protocol, listener.zone))?;
            match listener.protocol {
                Transport::Udp => {
                    let socket = UdpSocket::from(fd);
                    socket.set_nonblocking(true)?;
                    inherited.udp.push((listener, socket));
                }
                Transport::Tcp => {
                    let socket = TcpListener::from(fd);
                    socket.set_nonblocking(true)?;
                    inherited.tcp.push((listener, socket));
                }
            }
        }
        Ok(inherited)
    }
}

fn adopt(fd: RawFd, kind: SocketType) -> anyhow::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "inherited descriptors are numbers by nature")]
    // SAFETY: called once per number, at start, before anything else in this process opened or owns a descriptor above
    // standard error; a number that is not open is caught by the next call and its guard forgotten, not closed.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    match rustix::net::sockopt::socket_type(owned.as_fd()) {
        Ok(found) if found == kind => {
            rustix::io::fcntl_setfd(&owned, rustix::io::FdFlags::CLOEXEC)?;
            Ok(owned)
        }
        Ok(_) => bail!("descriptor {fd} is another kind of socket"),
        Err(error) => {
            std::mem::forget(owned);
            Err(error).with_context(|| format!("descriptor {fd} is not a socket"))
        }
    }
}
