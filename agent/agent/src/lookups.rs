//! Where far ends with a name are: asked for by a process without privilege (`seimon-tunnel --resolve`), over the line
//! that the tunnel itself takes.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use command_fds::{CommandFdExt as _, FdMapping};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

use crate::network::Wanted;

const FIRST_FD: i32 = 3;
const DNS: u16 = 53;
/// Servers that are asked, one after the other, each for two seconds.
const MOST_SERVERS: usize = 4;
/// Sixteen addresses of either kind.
const LONGEST: u64 = 1024;

/// What came of one.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) wanted: Wanted,
    pub(crate) addresses: Result<Vec<IpAddr>>,
}

#[derive(Debug)]
pub(crate) struct Lookups {
    program: PathBuf,
    sender: mpsc::Sender<Found>,
}

impl Lookups {
    pub(crate) fn new(program: &Path) -> (Self, mpsc::Receiver<Found>) {
        let (sender, receiver) = mpsc::channel(16);
        (Self { program: program.to_owned(), sender }, receiver)
    }

    /// Answers by the channel, in some seconds at most. Descriptors are opened here, where they may be marked.
    pub(crate) fn begin(&self, wanted: Wanted, servers: &[IpAddr]) {
        let sockets = sockets(servers, wanted.mark);
        let (program, sender) = (self.program.clone(), self.sender.clone());
        // A thread waits for the process, as long as that takes.
        std::thread::spawn(move || {
            let addresses = sockets.and_then(|sockets| ask(&program, &wanted.name, sockets));
            // The agent has stopped: nobody wants to know.
            let _gone = sender.blocking_send(Found { wanted, addresses });
        });
    }
}

fn sockets(servers: &[IpAddr], mark: u32) -> Result<Vec<OwnedFd>> {
    let open = |server: &IpAddr| -> std::io::Result<OwnedFd> {
        let address = SocketAddr::new(*server, DNS);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_mark(mark)?;
        socket.connect(&address.into())?;
        Ok(UdpSocket::from(socket).into())
    };
    let mut opened = Vec::new();
    let mut last = None;
    for server in servers.iter().take(MOST_SERVERS) {
        match open(server) {
            Ok(socket) => opened.push(socket),
            // The line has no such family, say.
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) if opened.is_empty() => Err(error).context("no server can be asked"),
        Some(_) | None => Ok(opened),
    }
}

fn ask(program: &Path, name: &str, sockets: Vec<OwnedFd>) -> Result<Vec<IpAddr>> {
    let mut mappings = Vec::new();
    for (parent_fd, child_fd) in sockets.into_iter().zip(FIRST_FD..) {
        mappings.push(FdMapping { parent_fd, child_fd });
    }
    let mut command = Command::new(program);
    command.args(["--resolve", name]).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.fd_mappings(mappings).map_err(|_| anyhow::anyhow!("file descriptors collide"))?;
    let mut child = command.spawn().with_context(|| program.display().to_string())?;
    let mut text = String::new();
    let read = match child.stdout.take() {
        Some(out) => out.take(LONGEST).read_to_string(&mut text),
        None => Ok(0),
    };
    let status = child.wait()?;
    read?;
    anyhow::ensure!(status.success(), "{name} was not found");
    let addresses: Vec<IpAddr> = text.lines().filter_map(|line| line.parse().ok()).filter(is_host).collect();
    anyhow::ensure!(!addresses.is_empty(), "{name} has no address that can be used");
    Ok(addresses)
}

/// Whether it can be anybody's on the outside.
fn is_host(address: &IpAddr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}
