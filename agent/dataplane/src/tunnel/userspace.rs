//! A process that carries one tunnel, and the TUN interface that it is handed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::ioctl;
use seimon_board::InterfaceName;
use seimon_core::network_plan::{ApplyError, Peer, TunnelState};
use seimon_plan::WireguardKey;

use super::{Update, uapi};

/// Descriptors of the process: its end of the socket pair, the TUN interface.
const SOCKET_FD: i32 = 3;
const TUN_FD: i32 = 4;
/// A process that does not answer for so long is started again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Thousands of peers fit.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;

/// One process. Dropped, it is ended, and its interface vanishes.
#[derive(Debug)]
pub(super) struct UserSpace {
    interface: InterfaceName,
    child: Child,
    socket: UnixStream,
    /// It has failed to answer: what comes now may be the answer to something else.
    is_lost: bool,
}

impl UserSpace {
    pub(super) fn start(program: &Path, interface: &InterfaceName) -> Result<Self, ApplyError> {
        let why = |doing: &str, error: io::Error| ApplyError::Tunnel {
            interface: interface.clone(),
            why: format!("{doing}: {error}"),
        };
        let tun = tun(interface).map_err(|error| why("/dev/net/tun", error))?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| why("socket pair", error))?;
        let patience = || -> io::Result<()> {
            ours.set_read_timeout(Some(PATIENCE))?;
            ours.set_write_timeout(Some(PATIENCE))
        };
        patience().map_err(|error| why("socket pair", error))?;
        let mut command = Command::new(program);
        command.arg(interface.as_str()).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        if let Ok(level) = std::env::var("SEIMON_LOG") {
            command.env("SEIMON_LOG", level);
        }
        let mappings = vec![
            FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: SOCKET_FD },
            FdMapping { parent_fd: tun, child_fd: TUN_FD },
        ];
        command.fd_mappings(mappings).map_err(|error| why("descriptors", io::Error::other(error)))?;
        let child = command.spawn().map_err(|error| why(&program.display().to_string(), error))?;
        Ok(Self { interface: interface.clone(), child, socket: ours, is_lost: false })
    }

    pub(super) fn is_alive(&mut self) -> bool {
        !self.is_lost && matches!(self.child.try_wait(), Ok(None))
    }

    fn ask(&mut self, request: &str) -> Result<TunnelState, ApplyError> {
        let why = |why: String| ApplyError::Tunnel { interface: self.interface.clone(), why };
        if self.is_lost {
            return Err(why("its process does not answer".to_owned()));
        }
        match converse(&mut self.socket, request) {
            Ok(answer) => uapi::read(&answer).map_err(why),
            Err(error) => {
                self.is_lost = true;
                Err(why(format!("its process does not answer: {error}")))
            }
        }
    }

    pub(super) fn state(&mut self) -> Result<TunnelState, ApplyError> {
        self.ask(uapi::GET)
    }

    pub(super) fn update(&mut self, update: &Update<'_>) -> Result<(), ApplyError> {
        uapi::set(update).iter().try_for_each(|request| self.ask(request).map(|_| ()))
    }

    /// A handshake begins there at once, also if the far end was there before.
    pub(super) fn set_endpoint(
        &mut self,
        peer: WireguardKey,
        endpoint: SocketAddr,
    ) -> Result<(), ApplyError> {
        let state = self.state()?;
        let Some(seen) = state.peers.get(&peer) else { return Ok(()) };
        let moved =
            Peer { endpoint: Some(endpoint), allowed: seen.allowed.clone(), keepalive: seen.keepalive };
        self.update(&Update { put: vec![(peer, &moved)], ..Update::default() })
    }
}

impl Drop for UserSpace {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// One request, and its answer up to the empty line.
fn converse(socket: &mut UnixStream, request: &str) -> io::Result<String> {
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while !answer.ends_with(b"\n\n") {
        match socket.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&chunk[..count]),
        }
        if answer.len() > LONGEST_ANSWER {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
    String::from_utf8(answer).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// `struct ifreq` with `ifr_flags` (`linux/if.h`).
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// `TUNSETIFF` (`linux/if_tun.h`).
const TUNSETIFF: ioctl::Opcode = ioctl::opcode::write::<i32>(b'T', 202);
const IFF_TUN: u16 = 0x0001;
const IFF_NO_PI: u16 = 0x1000;

/// A TUN interface that lives as long as the descriptor.
fn tun(interface: &InterfaceName) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = InterfaceRequest { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    for (to, from) in request.name.iter_mut().take(15).zip(interface.as_str().bytes()) {
        *to = from;
    }
    #[expect(unsafe_code, reason = "there is no safe interface to TUN")]
    // SAFETY: TUNSETIFF takes a `struct ifreq`, whose size and layout `InterfaceRequest` has; the kernel reads it, and
    // writes the name back into it, before the call returns.
    unsafe {
        ioctl::ioctl(&device, ioctl::Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request))?;
    }
    Ok(device.into())
}
