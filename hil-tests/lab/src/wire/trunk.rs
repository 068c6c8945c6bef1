//! A trunk: one cable that carries several networks, told apart by VLAN tags (802.1Q), and a switch at its far end.
//!
//! ```text
//! lan1 ─ 10 ┐
//! lan2 ─ 20 ┼ this ── tagged frames ── the machine's card
//! lan3 ─ 30 ┘
//! ```
//! Tags are put on and taken off here: no kernel that the lab runs on needs to know of VLANs, and none can take a tag off
//! before it is seen. The machine's end is a pair of datagram sockets, a frame each, as QEMU's `-netdev dgram` has them.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::packet_socket::{BATCH, Batch, PacketSocket, Sees};
use crate::nodes::enter;

/// Tag protocol identifier of IEEE 802.1Q.
const TAGGED: [u8; 2] = [0x81, 0x00];
/// Destination and source.
const ADDRESSES: usize = 12;
/// A machine that takes no frame for so long has no cable.
const STUCK: Duration = Duration::from_millis(50);
const FRAME: usize = 2048;

/// A cable that is plugged in until it is dropped.
#[derive(Debug)]
pub(crate) struct Trunk {
    stop: std::sync::Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// The two ends' sockets.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) machine: PathBuf,
    pub(crate) far: PathBuf,
}

impl Trunk {
    /// `networks`: interfaces of namespace `node`, and each one's tag. They are up and send whole frames.
    pub(crate) fn raise(node: &str, ends: &Ends, networks: Vec<(String, u16)>) -> Result<Self> {
        let stop = std::sync::Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (send, receive) = std::sync::mpsc::channel();
        let (place, ends, inside) = (node.to_owned(), ends.clone(), std::sync::Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("trunk".to_owned()).spawn(move || {
            let opened = enter(&place).and_then(|()| open(&ends, networks));
            match opened {
                Ok((cable, networks)) => {
                    let _ = send.send(Ok(()));
                    forward(&cable, &networks, &ends.machine, &inside);
                }
                Err(error) => drop(send.send(Err(error))),
            }
        })?;
        receive.recv().context("the trunk's thread ended")??;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Network {
    socket: PacketSocket,
    tag: u16,
}

fn open(ends: &Ends, networks: Vec<(String, u16)>) -> Result<(UnixDatagram, Vec<Network>)> {
    let cable = UnixDatagram::bind(&ends.far).with_context(|| ends.far.display().to_string())?;
    cable.set_write_timeout(Some(STUCK))?;
    let networks = networks.into_iter().map(|(name, tag)| {
        let socket = PacketSocket::open(&name, Sees::Arriving)
            .with_context(|| format!("cannot open a packet socket on {name}"))?;
        Ok(Network { socket, tag })
    });
    Ok((cable, networks.collect::<Result<_>>()?))
}

fn forward(cable: &UnixDatagram, networks: &[Network], machine: &Path, stop: &OwnedFd) {
    let mut batch = Batch::new();
    let mut bytes = vec![0; FRAME];
    loop {
        let mut fds =
            vec![PollFd::new(stop, PollFlags::IN), PollFd::from_borrowed_fd(cable.as_fd(), PollFlags::IN)];
        fds.extend(networks.iter().map(|n| PollFd::from_borrowed_fd(n.socket.as_fd(), PollFlags::IN)));
        if poll(&mut fds, None).is_err() {
            continue;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            return;
        }
        if ready[1]
            && let Ok(length) = cable.recv(&mut bytes)
            && let Some((tag, frame)) = untagged(&bytes[..length])
            && let Some(network) = networks.iter().find(|network| network.tag == tag)
        {
            network.socket.send(&[frame]);
        }
        for (network, _) in networks.iter().zip(&ready[2..]).filter(|(_, ready)| **ready) {
            while let Ok(count) = network.socket.receive(&mut batch) {
                for (frame, length, _) in batch.frames() {
                    // Longer than a frame may be: the sender did not do without offloads.
                    if length <= FRAME - 4
                        && let Some(frame) = tagged(frame, network.tag)
                    {
                        // No machine, no cable.
                        let _ = cable.send_to(&frame, machine);
                    }
                }
                if count < BATCH {
                    break;
                }
            }
        }
    }
}

/// With a tag between the addresses and the rest. None: no frame.
fn tagged(frame: &[u8], tag: u16) -> Option<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(ADDRESSES)?;
    Some([addresses, &TAGGED, &tag.to_be_bytes(), rest].concat())
}

/// The tag and the frame without it. None: there is no tag.
fn untagged(frame: &[u8]) -> Option<(u16, Vec<u8>)> {
    let (addresses, rest) = frame.split_at_checked(ADDRESSES)?;
    let rest = rest.strip_prefix(&TAGGED)?;
    let (tag, rest) = rest.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*tag) & 0x0fff, [addresses, rest].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: [u8; 18] = [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x08, 0x00, 9, 8, 7, 6];

    #[test]
    fn a_tag_is_put_on_behind_the_addresses_and_taken_off_again() {
        let on = tagged(&FRAME, 20).unwrap();
        assert_eq!(on[12..18], [0x81, 0x00, 0, 20, 0x08, 0x00]);
        assert_eq!(untagged(&on), Some((20, FRAME.to_vec())));
    }

    #[test]
    fn a_priority_is_no_part_of_the_number() {
        let mut on = tagged(&FRAME, 20).unwrap();
        on[14] |= 0xe0;
        assert_eq!(untagged(&on).map(|(tag, _)| tag), Some(20));
    }

    #[test]
    fn what_has_no_tag_or_is_no_frame_goes_nowhere() {
        assert_eq!(untagged(&FRAME), None);
        assert_eq!(untagged(&FRAME[..7]), None);
        assert_eq!(untagged(&[&FRAME[..12], &TAGGED[..], &[0]].concat()), None);
        assert_eq!(tagged(&FRAME[..7], 1), None);
    }
}
