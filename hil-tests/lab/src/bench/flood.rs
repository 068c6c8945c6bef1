//! New flows, one SYN each, as fast as the gateway takes them. What is measured is the gateway's whole work for a flow's
//! first packet (bridge, conntrack, rules, NAT, routing), and nothing of clients' or servers' sockets.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cost::Rounds;
use super::frames::{Macs, syn};
use super::gate::Gate;
use super::generator::{Lane, Mode, Round, Until, mac, pump, steer};
use super::pairs::Sample;
use crate::nodes::Node;
use crate::wire::packet_socket::BATCH;

/// Flows of one round: every source port once, so that each packet is a flow's first and no port is taken twice by NAT.
const PORTS: std::ops::Range<u16> = 1024..65_000;
/// As many flows in both arms, so that their tables are equally full; a slow arm ends earlier.
const ROUND: Until = Until { frames: 25_000, time: Duration::from_millis(400) };
/// What the kernel does afterwards with flows that were deleted.
const CLEARING: Duration = Duration::from_millis(20);

/// Which zone's client sends.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    Affairs,
    Learning,
}

impl From {
    fn interfaces(self) -> (&'static str, &'static str, &'static str, Ipv4Addr) {
        match self {
            Self::Affairs => ("e1", "z-affairs", "lan1", Ipv4Addr::new(10, 20, 1, 100)),
            Self::Learning => ("e2", "z-learning", "lan2", Ipv4Addr::new(10, 20, 2, 100)),
        }
    }
}

/// A prepared round of new flows through one gate.
pub(super) struct Flood<'a> {
    mode: Mode,
    gate: &'a Gate,
    interface: &'static str,
    /// Where that link ends at the gateway.
    door: &'static str,
    frames: Vec<Vec<u8>>,
}

impl<'a> Flood<'a> {
    /// SYNs from a zone's client to one destination.
    ///
    /// # Errors
    /// This machine has one processor only, or no receive packet steering.
    pub(super) fn new(gate: &'a Gate, from: From, to: Ipv4Addr, port: u16) -> Result<Self> {
        Self::in_mode(Mode::Apart, gate, from, to, port)
    }

    pub(super) fn in_mode(mode: Mode, gate: &'a Gate, from: From, to: Ipv4Addr, port: u16) -> Result<Self> {
        let (interface, bridge, lan, source) = from.interfaces();
        let macs = Macs { from: mac(gate.client(), interface)?, to: mac(gate.gateway(), bridge)? };
        steer(mode, (gate.gateway(), &[lan]), &[(gate.server(), "w2")])?;
        let to = SocketAddrV4::new(to, port);
        let frames = PORTS.map(|sport| syn(macs, SocketAddrV4::new(source, sport), to)).collect();
        let flood = Self { mode, gate, interface, door: lan, frames };
        // Neighbours are known, and it is seen early whether this gateway lets these flows pass.
        flood.round().context("no new flow passes this gateway")?;
        Ok(flood)
    }

    fn pump(&self, to: (&Node, &'static str)) -> Result<Round> {
        let lane = Lane { from: (self.gate.client(), self.interface), to };
        pump(self.mode, &[lane], self.frames.chunks(BATCH).map(|batch| (0, batch)), ROUND)
    }

    pub(super) fn round(&self) -> Result<Round> {
        let round = self.pump((self.gate.server(), "w2"));
        // What this round left would be found instead of made in the next, and be in the other arm's way.
        let flushed = self
            .gate
            .gateway()
            .command("conntrack")
            .arg("-F")
            .output()
            .context("cannot run conntrack (Debian package conntrack)")?;
        if !flushed.status.success() {
            bail!("conntrack -F: {}", String::from_utf8_lossy(&flushed.stderr).trim());
        }
        std::thread::sleep(CLEARING);
        round
    }

    /// New flows a second, for pairs.
    pub(super) fn sample(&self) -> Result<Sample> {
        Ok(self.round()?.sample())
    }
}

impl Rounds for Flood<'_> {
    fn gate(&self) -> &Gate {
        self.gate
    }

    fn round(&self) -> Result<Round> {
        self.round()
    }

    fn to_the_door(&self) -> Result<Round> {
        self.pump((self.gate.gateway(), self.door))
    }
}
