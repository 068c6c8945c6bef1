//! Sockets that the agent made, since this process may not.

use std::net::TcpListener;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, bail, ensure};
use seimon_ipc::page::{LISTENERS_ENV, SOCKET_FD};

/// More zones than a gateway has.
const MOST_LISTENERS: i32 = 256;

/// All that the process was given.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) agent: UnixStream,
    pub(crate) listeners: Vec<TcpListener>,
}

impl Inherited {
    /// Takes the sockets over, once. Each must be a stream socket, and is closed on exec from here on.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let count: i32 = std::env::var(LISTENERS_ENV)
            .with_context(|| format!("{LISTENERS_ENV} is missing: this program is started by seimon-agent"))?
            .parse()
            .with_context(|| format!("{LISTENERS_ENV} is not a number"))?;
        ensure!((1..=MOST_LISTENERS).contains(&count), "{count} listening sockets cannot be");
        let agent = UnixStream::from(adopt(SOCKET_FD).context("no socket to the agent")?);
        agent.set_nonblocking(true)?;
        let mut listeners = Vec::new();
        for fd in SOCKET_FD + 1..=SOCKET_FD + count {
            let listener = TcpListener::from(adopt(fd)?);
            listener.set_nonblocking(true)?;
            listeners.push(listener);
        }
        Ok(Self { agent, listeners })
    }
}

fn adopt(fd: RawFd) -> anyhow::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "inherited descriptors are numbers by nature")]
    // SAFETY: called once per number, at start, before anything else in this process opened or owns a descriptor above
    // standard error; a number that is not open is caught by the next call and its guard forgotten, not closed.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    match rustix::net::sockopt::socket_type(owned.as_fd()) {
        Ok(found) if found == rustix::net::SocketType::STREAM => {
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
