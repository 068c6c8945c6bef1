//! A blocking netlink socket: requests, acknowledgements, dumps and batches.
//!
//! A socket belongs to the network namespace of the thread that opened it, for ever.

use std::io;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt;

use crate::attributes::{Attribute, Attributes};

pub(crate) const NLM_F_REQUEST: u16 = 0x01;
pub(crate) const NLM_F_ACK: u16 = 0x04;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;

const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLMSGERR_ATTR_MSG: u16 = 1;
pub(crate) const HEADER: usize = 16;
/// A kernel that does not answer for so long will not.
const PATIENCE: Duration = Duration::from_secs(5);
/// Datagrams of dumps are at most 32 KiB (`NLMSG_GOODSIZE` and `max_recvmsg_len` in `net/netlink/af_netlink.c`).
const RECEIVE: usize = 64 * 1024;
const BUFFER: usize = 4 * 1024 * 1024;
/// A dump that others keep changing is taken as it is after so many tries.
const DUMP_TRIES: u32 = 5;

/// What the kernel answered to one message of ours.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) seq: u32,
    pub(crate) errno: Errno,
    /// The kernel's own words, where it has some.
    pub(crate) words: String,
}

impl Refusal {
    pub(crate) fn into_io(self) -> io::Error {
        let plain = io::Error::from(self.errno);
        if self.words.is_empty() {
            plain
        } else {
            io::Error::new(plain.kind(), format!("{plain} ({})", self.words))
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    #[error("the netlink socket failed")]
    Socket(#[source] io::Error),
    #[error("the kernel refused: {}{}", .0.errno, if .0.words.is_empty() { String::new() } else { format!(" ({})", .0.words) })]
    Refused(Refusal),
}

impl NetlinkError {
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Socket(error) => Errno::from_io_error(error),
            Self::Refused(refusal) => Some(refusal.errno),
        }
    }

    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Socket(error) => error,
            Self::Refused(refusal) => refusal.into_io(),
        }
    }
}

/// Several messages in one buffer, each with its sequence number.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) bytes: Vec<u8>,
}

impl Messages {
    /// Appends a message; `fill` writes everything behind the netlink header.
    pub(crate) fn push(&mut self, kind: u16, flags: u16, seq: u32, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        fill(&mut self.bytes);
        let len = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        let header = &mut self.bytes[start..start + HEADER];
        header[0..4].copy_from_slice(&len.to_ne_bytes());
        header[4..6].copy_from_slice(&kind.to_ne_bytes());
        header[6..8].copy_from_slice(&flags.to_ne_bytes());
        header[8..12].copy_from_slice(&seq.to_ne_bytes());
        self.bytes.resize((self.bytes.len() + 3) & !3, 0);
    }
}

/// A received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    /// Who asked for what this tells: the port number of a socket, 0 for the kernel itself.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram; a malformed rest is left out.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let word =
            |range: std::ops::Range<usize>| Some(u32::from_ne_bytes(datagram.get(range)?.try_into().ok()?));
        let len = usize::try_from(word(0..4)?).ok()?;
        let kind_and_flags = datagram.get(4..8)?;
        let kind = u16::from_ne_bytes(kind_and_flags[0..2].try_into().ok()?);
        let flags = u16::from_ne_bytes(kind_and_flags[2..4].try_into().ok()?);
        let (seq, port) = (word(8..12)?, word(12..16)?);
        let payload = datagram.get(HEADER..len)?;
        datagram = datagram.get((len + 3) & !3..).unwrap_or_default();
        Some(Message { kind, flags, seq, port, payload })
    })
}

fn refusal(message: &Message<'_>) -> Option<Refusal> {
    let code = i32::from_ne_bytes(message.payload.get(0..4)?.try_into().ok()?);
    if code == 0 {
        return None;
    }
    // `struct nlmsgerr`: the code, then our message's header, then (unless capped) our message, then attributes.
    let echoed = message.payload.get(4..8).and_then(|len| len.try_into().ok()).map_or(0, u32::from_ne_bytes);
    let skip = if message.flags & NLM_F_CAPPED != 0 {
        4 + HEADER
    } else {
        4 + usize::try_from(echoed).unwrap_or(HEADER)
    };
    let words = (message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| Attributes::after(message.payload, skip).find(NLMSGERR_ATTR_MSG).and_then(Attribute::text))
        .flatten()
        .unwrap_or_default();
    Some(Refusal { seq: message.seq, errno: Errno::from_raw_os_error(-code), words: words.to_owned() })
}

#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    port: u32,
    seq: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket of the protocol family (`NETLINK_ROUTE`, `NETLINK_NETFILTER`) in the thread's network namespace.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        // Without CAP_NET_ADMIN the usual sizes remain; whatever needs more is refused for lack of it anyway.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER);
        let _ = sockopt::set_socket_send_buffer_size_force(&socket, BUFFER);
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
        Ok(Self { socket, port, seq: 0, buffer: Vec::with_capacity(RECEIVE) })
    }

    /// The socket's port number: notifications of what it asked for carry it.
    pub(crate) const fn port(&self) -> u32 {
        self.port
    }

    /// Unlike any number used for the last four milliard messages.
    pub(crate) fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1).max(1);
        self.seq
    }

    fn receive(&mut self) -> Result<(), NetlinkError> {
        self.buffer.clear();
        loop {
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::Socket(error)),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), NetlinkError> {
        if bytes.len() > BUFFER / 2 {
            let _ = sockopt::set_socket_send_buffer_size_force(&self.socket, bytes.len() * 2);
        }
        self.socket.send(bytes, 0).map(|_| ()).map_err(NetlinkError::Socket)
    }

    /// Sends one message that is to be done, and waits for the acknowledgement.
    pub(crate) fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), NetlinkError> {
        let seq = self.next_seq();
        let mut messages = Messages::default();
        messages.push(kind, NLM_F_REQUEST | NLM_F_ACK | flags, seq, fill);
        match self.exchange(&messages.bytes, seq, seq)?.into_iter().next() {
            None => Ok(()),
            Some(refusal) => Err(NetlinkError::Refused(refusal)),
        }
    }

    /// Sends messages numbered `first..=last`, of which the last wants an acknowledgement, and returns what was refused.
    pub(crate) fn exchange(
        &mut self,
        bytes: &[u8],
        first: u32,
        last: u32,
    ) -> Result<Vec<Refusal>, NetlinkError> {
        self.send(bytes)?;
        let mut refusals = Vec::new();
        loop {
            self.receive()?;
            for message in messages(&self.buffer) {
                if message.kind != NLMSG_ERROR || message.seq < first || message.seq > last {
                    continue;
                }
                let refusal = refusal(&message);
                // The first message of a batch stands for the whole.
                let over = message.seq == last || (message.seq == first && refusal.is_some());
                refusals.extend(refusal);
                if over {
                    return Ok(refusals);
                }
            }
        }
    }

    /// Sends messages numbered `first..=last`, each of which stands for itself and wants an acknowledgement, and returns
    /// what was refused.
    pub(crate) fn exchange_each(
        &mut self,
        bytes: &[u8],
        first: u32,
        last: u32,
    ) -> Result<Vec<Refusal>, NetlinkError> {
        self.send(bytes)?;
        let mut refusals = Vec::new();
        loop {
            self.receive()?;
            let ours = messages(&self.buffer)
                .filter(|message| message.kind == NLMSG_ERROR && (first..=last).contains(&message.seq));
            for message in ours {
                refusals.extend(refusal(&message));
                if message.seq == last {
                    return Ok(refusals);
                }
            }
        }
    }

    /// Sends one question that has one message for an answer, and returns its payload.
    pub(crate) fn fetch(
        &mut self,
        kind: u16,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Vec<u8>, NetlinkError> {
        let seq = self.next_seq();
        let mut request = Messages::default();
        request.push(kind, NLM_F_REQUEST, seq, fill);
        self.send(&request.bytes)?;
        loop {
            self.receive()?;
            for message in messages(&self.buffer).filter(|message| message.seq == seq) {
                if message.kind != NLMSG_ERROR {
                    return Ok(message.payload.to_vec());
                }
                if let Some(refusal) = refusal(&message) {
                    return Err(NetlinkError::Refused(refusal));
                }
            }
        }
    }

    /// Asks for a dump and hands over each message of it (its kind and payload). When others changed things meanwhile
    /// it starts again: `each` gets `None` first, to forget what it has.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        fill: impl Fn(&mut Vec<u8>),
        mut each: impl FnMut(Option<(u16, &[u8])>),
    ) -> Result<(), NetlinkError> {
        for _ in 0..DUMP_TRIES {
            each(None);
            let seq = self.next_seq();
            let mut request = Messages::default();
            request.push(kind, NLM_F_REQUEST | NLM_F_DUMP, seq, &fill);
            self.send(&request.bytes)?;
            if self.read_dump(seq, &mut each)? {
                break;
            }
        }
        Ok(())
    }

    /// True when the dump was consistent.
    fn read_dump(
        &mut self,
        seq: u32,
        each: &mut impl FnMut(Option<(u16, &[u8])>),
    ) -> Result<bool, NetlinkError> {
        let mut consistent = true;
        loop {
            self.receive()?;
            for message in messages(&self.buffer).filter(|message| message.seq == seq) {
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => {
                        return match refusal(&message) {
                            Some(refusal) if refusal.errno != Errno::INTR => {
                                Err(NetlinkError::Refused(refusal))
                            }
                            Some(_) => Ok(false),
                            None => Ok(consistent),
                        };
                    }
                    NLMSG_ERROR => {
                        if let Some(refusal) = refusal(&message) {
                            return Err(NetlinkError::Refused(refusal));
                        }
                    }
                    NLMSG_NOOP | NLMSG_OVERRUN => {}
                    kind => each(Some((kind, message.payload))),
                }
            }
        }
    }
}
