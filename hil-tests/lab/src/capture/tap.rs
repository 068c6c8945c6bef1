//! Listening at a zone's link: what comes and goes, and what should not have come.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::packet::{self, Seen};
use super::{CLIENT_DSCP, Counts, Point, lock};
use crate::nodes::enter;
use crate::wire::packet_socket::{Batch, PacketSocket, Sees};

/// A zone as the taps know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    pub(crate) name: &'static str,
    /// First three octets of its /24.
    pub(crate) v4: [u8; 3],
    /// First four segments of its /64; None: no IPv6.
    pub(crate) v6: Option<[u16; 4]>,
}

impl Zone {
    fn holds(&self, address: IpAddr) -> bool {
        match address {
            // The gateway's own address in the zone is nobody's leak.
            IpAddr::V4(a) => a.octets()[..3] == self.v4 && a.octets()[3] != 1,
            IpAddr::V6(a) => self.v6.is_some_and(|prefix| a.segments()[..4] == prefix && a.octets()[15] != 1),
        }
    }
}

/// Flows between zones that the plan permits: their packets and the answers to them are no leaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PermittedFlow {
    pub(crate) from: String,
    pub(crate) to: String,
    /// None: everything.
    pub(crate) ports: Option<Ports>,
}

/// Destination ports of one IP protocol, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) protocol: u8,
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl PermittedFlow {
    fn covers(&self, from: &str, to: &str, seen: &Seen) -> bool {
        let named = |port: u16| {
            self.ports.is_none_or(|ports| {
                seen.protocol == ports.protocol && (ports.first..=ports.last).contains(&port)
            })
        };
        (self.from == from && self.to == to && named(seen.destination_port))
            || (self.from == to && self.to == from && named(seen.source_port))
    }
}

/// What is permitted at the moment; shared by all taps of a town.
pub(crate) type Permitted = Arc<Mutex<Vec<PermittedFlow>>>;

/// A thread that counts at one interface of a zone.
#[derive(Debug)]
pub(crate) struct Tap {
    /// From the gateway into the zone.
    pub(crate) rx: Arc<Point>,
    /// From the zone to the gateway.
    pub(crate) tx: Arc<Point>,
    /// By the zone that should not have been heard here.
    pub(crate) leaks: Vec<(&'static str, Arc<Point>)>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Listens at `interface` of the namespace `node`, which is `zone`'s link towards the gateway.
    pub(crate) fn raise(
        node: &str,
        interface: &str,
        zone: &Zone,
        zones: &[Zone],
        permitted: Permitted,
        start: Instant,
    ) -> Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (rx, tx) = (Arc::new(Point::new(start)), Arc::new(Point::new(start)));
        let others: Vec<(Zone, Arc<Point>)> =
            zones.iter().filter(|z| *z != zone).map(|z| (z.clone(), Arc::new(Point::new(start)))).collect();
        let leaks = others.iter().map(|(z, p)| (z.name, Arc::clone(p))).collect();
        let (send, receive) = std::sync::mpsc::channel();
        let (node, interface, here) = (node.to_owned(), interface.to_owned(), zone.name);
        let (end, points) = (Arc::clone(&stop), (Arc::clone(&rx), Arc::clone(&tx)));
        let thread = std::thread::Builder::new().name(format!("tap-{node}")).spawn(move || {
            let socket = enter(&node).and_then(|()| {
                PacketSocket::open(&interface, Sees::Both)
                    .with_context(|| format!("cannot listen at {interface}"))
            });
            match socket {
                Ok(socket) => {
                    let _ = send.send(Ok(()));
                    listen(&socket, &end, here, &points, &others, &permitted);
                }
                Err(error) => drop(send.send(Err(error))),
            }
        })?;
        receive.recv().context("the tap's thread ended")??;
        Ok(Self { rx, tx, leaks, stop, thread: Some(thread) })
    }
}

fn listen(
    socket: &PacketSocket,
    stop: &OwnedFd,
    here: &str,
    (rx, tx): &(Arc<Point>, Arc<Point>),
    others: &[(Zone, Arc<Point>)],
    permitted: &Mutex<Vec<PermittedFlow>>,
) {
    let mut batch = Batch::new();
    loop {
        let mut fds =
            [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        let polled = poll(&mut fds, None);
        if polled.is_ok() && fds[1].revents().contains(PollFlags::IN) {
            return;
        }
        while let Ok(count) = socket.receive(&mut batch) {
            let (mut to_zone, mut from_zone) = (Counts::default(), Counts::default());
            let now = Instant::now();
            for (frame, _, outgoing) in batch.frames() {
                let Some(seen) = packet::parse(frame) else { continue };
                if outgoing {
                    from_zone.add_seen(&seen);
                    continue;
                }
                to_zone.add_seen(&seen);
                // A refusal bears the refused one's address, and is the gateway's.
                if seen.dscp != CLIENT_DSCP {
                    continue;
                }
                for (zone, point) in others.iter().filter(|(zone, _)| zone.holds(seen.source)) {
                    if !lock(permitted).iter().any(|flow| flow.covers(zone.name, here, &seen)) {
                        point.add(now, &Counts { leaked: 1, ..Counts::default() });
                    }
                }
            }
            rx.add(now, &to_zone);
            tx.add(now, &from_zone);
            if count == 0 {
                break;
            }
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(protocol: u8, source_port: u16, destination_port: u16) -> Seen {
        let address = IpAddr::from([10, 20, 1, 100]);
        Seen {
            source: address,
            destination: address,
            protocol,
            source_port,
            destination_port,
            dscp: 0,
            length: 60,
        }
    }

    #[test]
    fn a_permit_covers_its_flows_and_their_answers_and_nothing_else() {
        let ports = Ports { protocol: 6, first: 9100, last: 9102 };
        let raw = PermittedFlow { from: "affairs".into(), to: "printers".into(), ports: Some(ports) };
        for (from, to, packet, covered) in [
            ("affairs", "printers", seen(6, 40_000, 9100), true),
            ("affairs", "printers", seen(6, 40_000, 9102), true),
            ("affairs", "printers", seen(6, 40_000, 9103), false),
            ("affairs", "printers", seen(17, 40_000, 9100), false),
            ("affairs", "printers", seen(6, 9100, 40_000), false),
            ("printers", "affairs", seen(6, 9100, 40_000), true),
            ("printers", "affairs", seen(6, 40_000, 9100), false),
            ("learning", "printers", seen(6, 40_000, 9100), false),
        ] {
            assert_eq!(raw.covers(from, to, &packet), covered, "{from} → {to} {packet:?}");
        }
        let all = PermittedFlow { ports: None, ..raw };
        assert!(all.covers("affairs", "printers", &seen(1, 0, 0)));
        assert!(!all.covers("learning", "printers", &seen(1, 0, 0)));
    }
}
