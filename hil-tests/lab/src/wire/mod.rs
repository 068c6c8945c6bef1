//! A line: two veth ends joined in user space, so that it can be slow, lossy, narrow, silent or cut.

pub(crate) mod packet_socket;
mod shape;
pub(crate) mod trunk;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::capture::{CLIENT_DSCP, Counts, Pcap, Point, lock, packet};
use crate::netns::run;
use crate::nodes::enter;
use packet_socket::{BATCH, Batch, PacketSocket, Sees};
pub(crate) use shape::Random;
pub use shape::{Direction, Pmtu, WireConfig};
use shape::{Fate, Kind, Shaper};

/// A raised line between the gateway's port and its peer.
#[derive(Debug)]
pub struct Wire {
    node: String,
    ends: [String; 2],
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    config: Mutex<WireConfig>,
    /// What arrived at the wire from the gateway, and what it let out towards it.
    up: Point,
    down: Point,
    capturing: AtomicBool,
    pcap: Mutex<Option<Pcap>>,
    stop: OwnedFd,
}

impl Wire {
    /// Joins the interfaces `gateway_end` and `far_end` of namespace `node` (both exist, are up, without addresses).
    pub(crate) fn raise(
        node: &str,
        gateway_end: &str,
        far_end: &str,
        config: WireConfig,
        seed: u64,
        start: Instant,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            config: Mutex::new(config),
            up: Point::new(start),
            down: Point::new(start),
            capturing: AtomicBool::new(false),
            pcap: Mutex::new(None),
            stop: eventfd(0, EventfdFlags::CLOEXEC)?,
        });
        let (send, receive) = std::sync::mpsc::channel();
        let (inside, place) = (Arc::clone(&shared), node.to_owned());
        let names = [gateway_end.to_owned(), far_end.to_owned()];
        let thread = std::thread::Builder::new().name(format!("wire-{gateway_end}")).spawn(move || {
            let opened = enter(&place).and_then(|()| {
                let open = |name: &str| {
                    PacketSocket::open(name, Sees::Arriving)
                        .with_context(|| format!("cannot open a packet socket on {name}"))
                };
                Ok([open(&names[0])?, open(&names[1])?])
            });
            match opened {
                Ok(sockets) => {
                    let _ = send.send(Ok(()));
                    Loop::new(&inside, sockets, seed).forward();
                }
                Err(error) => drop(send.send(Err(error))),
            }
        })?;
        receive.recv().context("the wire's thread ended")??;
        let ends = [gateway_end.to_owned(), far_end.to_owned()];
        Ok(Self { node: node.to_owned(), ends, shared, thread: Some(thread) })
    }

    /// The line's quality now.
    pub fn config(&self) -> WireConfig {
        lock(&self.shared.config).clone()
    }

    /// Changes the line's quality for packets that come from now on.
    pub fn set(&self, config: WireConfig) {
        *lock(&self.shared.config) = config;
    }

    /// Pulls the cable: no carrier at either end.
    pub fn cut(&self) -> Result<()> {
        self.link("down")
    }

    /// Plugs it in again.
    pub fn mend(&self) -> Result<()> {
        self.link("up")
    }

    fn link(&self, state: &str) -> Result<()> {
        for end in &self.ends {
            run("ip", &["-n", &self.node, "link", "set", end, state])?;
        }
        Ok(())
    }

    /// What came from the gateway.
    pub(crate) fn up(&self) -> &Point {
        &self.shared.up
    }

    /// What went to the gateway.
    pub(crate) fn down(&self) -> &Point {
        &self.shared.down
    }

    /// Writes every frame that arrives at the wire, from both sides, to a file from now on.
    pub fn pcap(&self, file: &Path) -> Result<()> {
        *lock(&self.shared.pcap) = Some(Pcap::create(file)?);
        self.shared.capturing.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A frame on its way.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    at: Instant,
    number: u64,
    frame: Vec<u8>,
}

/// One direction of the forwarding loop.
struct Lane {
    direction: Direction,
    shaper: Shaper,
    queue: BinaryHeap<Reverse<Flying>>,
}

/// The forwarding loop's state.
struct Loop<'a> {
    shared: &'a Shared,
    sockets: [PacketSocket; 2],
    lanes: [Lane; 2],
    batch: Batch,
    pool: Vec<Vec<u8>>,
    number: u64,
}

impl<'a> Loop<'a> {
    fn new(shared: &'a Shared, sockets: [PacketSocket; 2], seed: u64) -> Self {
        let now = Instant::now();
        let lane =
            |direction, seed| Lane { direction, shaper: Shaper::new(seed, now), queue: BinaryHeap::new() };
        let mut random = Random::new(seed);
        Self {
            shared,
            sockets,
            lanes: [lane(Direction::Up, random.next()), lane(Direction::Down, random.next())],
            batch: Batch::new(),
            pool: Vec::new(),
            number: 0,
        }
    }

    fn forward(&mut self) {
        loop {
            let next = self.lanes.iter().filter_map(|lane| lane.queue.peek().map(|f| f.0.at)).min();
            let wait = next.map(|at| {
                let wait = at.saturating_duration_since(Instant::now());
                Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() }
            });
            let mut fds = [
                PollFd::from_borrowed_fd(self.sockets[0].as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.sockets[1].as_fd(), PollFlags::IN),
                PollFd::new(&self.shared.stop, PollFlags::IN),
            ];
            let polled = poll(&mut fds, wait.as_ref());
            let ready: [bool; 3] = std::array::from_fn(|i| polled.is_ok() && !fds[i].revents().is_empty());
            if ready[2] {
                return;
            }
            for (side, _) in ready[..2].iter().enumerate().filter(|(_, ready)| **ready) {
                self.take_in(side);
            }
            for side in 0..2 {
                self.let_out(side);
            }
        }
    }

    /// Receives at one side at most four batches, so that sending never starves.
    fn take_in(&mut self, side: usize) {
        let config = lock(&self.shared.config).clone();
        for _ in 0..4 {
            // An error is a link that went down (it is reported once) or nothing more to receive.
            let Ok(count) = self.sockets[side].receive(&mut self.batch) else { return };
            let now = Instant::now();
            let mut counts = Counts::default();
            let mut errors = Vec::new();
            let mut pcap = self.shared.capturing.load(Ordering::Relaxed).then(|| lock(&self.shared.pcap));
            let lane = &mut self.lanes[side];
            for (frame, _, _) in self.batch.frames() {
                let seen = packet::parse(frame);
                match &seen {
                    Some(seen) => counts.add_seen(seen),
                    None => counts.packets += 1,
                }
                let kind = seen.map_or_else(Kind::default, |seen| Kind {
                    far_ipv6: seen.source.is_ipv6() && !packet::is_between_neighbours(frame),
                    of_client: seen.dscp == CLIENT_DSCP,
                });
                if let Some(Some(pcap)) = pcap.as_deref_mut() {
                    pcap.write(frame);
                }
                let length = frame.len().saturating_sub(14);
                match lane.shaper.admit(&config, lane.direction, (kind, length), now) {
                    Fate::Lost => counts.lost += 1,
                    Fate::TooBig => {
                        counts.lost += 1;
                        if config.pmtu == Pmtu::Icmp {
                            errors.extend(packet::too_big(frame, config.mtu));
                        }
                    }
                    Fate::Leaves(at, again) => {
                        for at in std::iter::once(at).chain(again) {
                            let mut copy = self.pool.pop().unwrap_or_default();
                            copy.clear();
                            copy.extend_from_slice(frame);
                            self.number += 1;
                            lane.queue.push(Reverse(Flying { at, number: self.number, frame: copy }));
                        }
                    }
                }
            }
            if let Some(Some(pcap)) = pcap.as_deref_mut() {
                pcap.flush();
            }
            drop(pcap);
            let point = if side == 0 { &self.shared.up } else { &self.shared.down };
            point.add(now, &counts);
            if !errors.is_empty() {
                self.sockets[side].send(&errors);
            }
            if count < BATCH {
                return;
            }
        }
    }

    /// Sends what is due from `side` to the other one.
    fn let_out(&mut self, side: usize) {
        let now = Instant::now();
        let queue = &mut self.lanes[side].queue;
        let mut due = Vec::new();
        while queue.peek().is_some_and(|f| f.0.at <= now) {
            if let Some(Reverse(flying)) = queue.pop() {
                due.push(flying.frame);
            }
            if due.len() == BATCH {
                self.sockets[1 - side].send(&due);
                self.pool.append(&mut due);
            }
        }
        if !due.is_empty() {
            self.sockets[1 - side].send(&due);
            self.pool.append(&mut due);
        }
        self.pool.truncate(1024);
    }
}
