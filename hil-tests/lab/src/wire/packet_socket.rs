//! AF_PACKET sockets that receive and send whole frames in batches.

#![expect(unsafe_code, reason = "rustix has neither sockaddr_ll nor recvmmsg/sendmmsg")]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Frames of one batch.
pub(crate) const BATCH: usize = 64;

/// Bytes kept of each frame; longer ones are cut short.
pub(crate) const FRAME: usize = 2048;

/// Which frames a socket receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sees {
    /// None: it only sends.
    Nothing,
    /// Only frames that arrive at the interface.
    Arriving,
    /// Also those that leave it.
    Both,
}

/// A raw, non-blocking packet socket bound to one interface of the namespace it was opened in.
#[derive(Debug)]
pub(crate) struct PacketSocket(OwnedFd);

/// Room for one batch of received frames.
pub(crate) struct Batch {
    data: Box<[[u8; FRAME]]>,
    length: [usize; BATCH],
    outgoing: [bool; BATCH],
    count: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            data: vec![[0; FRAME]; BATCH].into_boxed_slice(),
            length: [0; BATCH],
            outgoing: [false; BATCH],
            count: 0,
        }
    }

    /// Each frame: its bytes (at most [`FRAME`]), its real length, and whether the interface sent it.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (&[u8], usize, bool)> {
        (0..self.count)
            .map(|i| (&self.data[i][..self.length[i].min(FRAME)], self.length[i], self.outgoing[i]))
    }
}

impl PacketSocket {
    pub(crate) fn open(interface: &str, sees: Sees) -> io::Result<Self> {
        let protocol = match sees {
            Sees::Nothing => 0,
            Sees::Arriving | Sees::Both => (libc::ETH_P_ALL as u16).to_be(),
        };
        // SAFETY: socket(2) takes no pointers; the result is checked before it is owned.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                0, // nothing arrives before bind names the protocol
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is a fresh descriptor that nothing else owns.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let index = rustix::net::netdevice::name_to_index(&socket.0, interface)?;
        if sees == Sees::Arriving {
            socket.option(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        }
        // The forced size needs rights over the machine; without them the kernel's maximum is what we get.
        for (forced, asked) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            if socket.option(libc::SOL_SOCKET, forced, 8 << 20).is_err() {
                let _ = socket.option(libc::SOL_SOCKET, asked, 8 << 20);
            }
        }
        // SAFETY: an all-zero sockaddr_ll is valid.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        // SAFETY: `address` lives through the call and its true size is given.
        let bound = unsafe {
            libc::bind(fd, (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
        };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }

    fn option(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        // SAFETY: `value` lives through the call and its true size is given.
        let done = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of::<i32>() as libc::socklen_t,
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Receives what is there, at most one batch; returns the number of frames.
    pub(crate) fn receive(&self, batch: &mut Batch) -> io::Result<usize> {
        // SAFETY: all-zero is valid for these plain structures.
        let mut vectors: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut names: [libc::sockaddr_ll; BATCH] = unsafe { zeroed() };
        for i in 0..BATCH {
            vectors[i].iov_base = batch.data[i].as_mut_ptr().cast();
            vectors[i].iov_len = FRAME;
            messages[i].msg_hdr.msg_iov = &raw mut vectors[i];
            messages[i].msg_hdr.msg_iovlen = 1;
            messages[i].msg_hdr.msg_name = (&raw mut names[i]).cast();
            messages[i].msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        }
        // SAFETY: every message points to a buffer and a name that live through the call, with their true sizes.
        let count = unsafe {
            libc::recvmmsg(
                self.0.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_TRUNC) as _,
                std::ptr::null_mut(),
            )
        };
        batch.count = usize::try_from(count).unwrap_or(0);
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        for i in 0..batch.count {
            batch.length[i] = messages[i].msg_len as usize;
            batch.outgoing[i] = names[i].sll_pkttype == libc::PACKET_OUTGOING;
        }
        Ok(batch.count)
    }

    /// Sends whole frames, at most [`BATCH`]; returns how many the interface took. A frame that it refuses is skipped.
    pub(crate) fn send(&self, frames: &[Vec<u8>]) -> usize {
        // SAFETY: all-zero is valid for these plain structures.
        let mut vectors: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        let count = frames.len().min(BATCH);
        for i in 0..count {
            vectors[i].iov_base = frames[i].as_ptr().cast_mut().cast();
            vectors[i].iov_len = frames[i].len();
            messages[i].msg_hdr.msg_iov = &raw mut vectors[i];
            messages[i].msg_hdr.msg_iovlen = 1;
        }
        let (mut done, mut taken) = (0, 0);
        while done < count {
            // SAFETY: `done < count`; the messages point to frames that live through the call and are only read.
            let sent = unsafe {
                libc::sendmmsg(
                    self.0.as_raw_fd(),
                    messages.as_mut_ptr().add(done),
                    (count - done) as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) if sent > 0 => {
                    done += sent;
                    taken += sent;
                }
                _ => done += 1,
            }
        }
        taken
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
