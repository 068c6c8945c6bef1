//! New flows, one SYN each, as fast as one processor makes them; the gateway works on another one, and what arrives behind
//! it is counted.
//!
//! ```text
//!   CPU 0: generator ──veth── [CPU 1: gateway] ──veth── CPU 0: counted, then dropped before conntrack
//! ```
//!
//! The generator offers more than the gateway can take; what is too much is dropped before the gateway sees it. What is
//! measured is therefore the gateway's whole work for a flow's first packet (bridge, conntrack, rules, NAT, routing), and
//! nothing of clients' or servers' sockets.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::gate::Gate;
use crate::nodes::{Node, enter};
use crate::wire::packet_socket::{BATCH, PacketSocket, Sees};

/// Flows of one round: every source port once, so that each packet is a flow's first and no port is taken twice by NAT.
const PORTS: std::ops::Range<u16> = 1024..65_000;
/// Frames sent before counting begins: until then the gateway's queue fills.
const WARM_UP: usize = 64 * BATCH;
const GENERATOR_CPU: usize = 0;
/// Masks of receive packet steering.
const GATEWAY_MASK: &str = "2";
const COUNTER_MASK: &str = "1";

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
    gate: &'a Gate,
    interface: &'static str,
    frames: Vec<Vec<u8>>,
}

/// What a round came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// New flows a second that arrived behind the gateway.
    pub(super) rate: f64,
    /// Share of what was offered that arrived: near 1 would mean that the generator was the limit.
    pub(super) share: f64,
}

impl<'a> Flood<'a> {
    /// SYNs from a zone's client to one destination.
    ///
    /// # Errors
    /// This machine has one processor only, or no receive packet steering.
    pub(super) fn new(gate: &'a Gate, from: From, to: Ipv4Addr, port: u16) -> Result<Self> {
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            bail!("the generator and the gateway need a processor each; this machine has one");
        }
        let (interface, bridge, lan, source) = from.interfaces();
        let ours = mac(gate.client(), interface)?;
        let gateway = mac(gate.gateway(), bridge)?;
        steer(gate.gateway(), lan, GATEWAY_MASK)?;
        steer(gate.server(), "w2", COUNTER_MASK)?;
        let frames = PORTS.map(|sport| syn(gateway, ours, source, to, sport, port)).collect();
        let flood = Self { gate, interface, frames };
        // Neighbours are known, and it is seen early whether this gateway lets these flows pass.
        flood.round().context("no new flow passes this gateway")?;
        Ok(flood)
    }

    pub(super) fn round(&self) -> Result<Round> {
        // What the round before left would be found instead of made.
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
        let (client, server) = (self.gate.client().name(), self.gate.server().name());
        std::thread::scope(|scope| {
            scope
                .spawn(|| -> Result<Round> {
                    pin(GENERATOR_CPU)?;
                    enter(server)?;
                    let mut arrived = Arrived::open("w2")?;
                    enter(client)?;
                    let socket = PacketSocket::open(self.interface, Sees::Arriving)?;
                    let (mut before, mut begin) = (0, Instant::now());
                    for (number, batch) in self.frames.chunks(BATCH).enumerate() {
                        if number * BATCH == WARM_UP {
                            (before, begin) = (arrived.read()?, Instant::now());
                        }
                        socket.send(batch);
                    }
                    let (count, took) = (arrived.read()?.saturating_sub(before), begin.elapsed());
                    if count < 100 {
                        bail!("only {count} of {} flows arrived", self.frames.len());
                    }
                    // Also what still waits in the gateway's queue must be gone before anything else is measured.
                    std::thread::sleep(Duration::from_millis(20));
                    Ok(Round {
                        rate: count as f64 / took.as_secs_f64(),
                        share: count as f64 / (self.frames.len() - WARM_UP) as f64,
                    })
                })
                .join()
                .map_err(|_| anyhow::anyhow!("the generator died"))?
        })
    }

    /// The rate alone, for pairs.
    pub(super) fn rate(&self) -> Result<f64> {
        Ok(self.round()?.rate)
    }
}

/// Packets that an interface of the namespace of its opening received.
struct Arrived {
    file: File,
    interface: &'static str,
}

impl Arrived {
    fn open(interface: &'static str) -> Result<Self> {
        Ok(Self { file: File::open("/proc/thread-self/net/dev")?, interface })
    }

    fn read(&mut self) -> Result<u64> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut text = String::new();
        self.file.read_to_string(&mut text)?;
        text.lines()
            .find_map(|line| {
                let (name, numbers) = line.split_once(':')?;
                (name.trim() == self.interface).then(|| numbers.split_whitespace().nth(1)?.parse().ok())?
            })
            .with_context(|| format!("no interface {}", self.interface))
    }
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Has an interface's arriving packets handled by other processors than the one that sent them.
fn steer(node: &Node, interface: &str, mask: &str) -> Result<()> {
    let script = format!("echo {mask} > /sys/class/net/{interface}/queues/rx-0/rps_cpus");
    let done = node.command("sh").args(["-c", &script]).output()?;
    if !done.status.success() {
        bail!("no packet steering here: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

fn mac(node: &Node, interface: &str) -> Result<[u8; 6]> {
    let output = node.command("cat").arg(format!("/sys/class/net/{interface}/address")).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let bytes: Vec<u8> =
        text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("`{}` is no address of {interface}", text.trim()))
}

/// A whole frame with a TCP SYN, checksums right.
fn syn(to_mac: [u8; 6], from_mac: [u8; 6], from: Ipv4Addr, to: Ipv4Addr, sport: u16, dport: u16) -> Vec<u8> {
    let mut ip = [0u8; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&40u16.to_be_bytes());
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = 6;
    ip[12..16].copy_from_slice(&from.octets());
    ip[16..20].copy_from_slice(&to.octets());
    let sum = checksum(&ip, 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut tcp = [0u8; 20];
    tcp[0..2].copy_from_slice(&sport.to_be_bytes());
    tcp[2..4].copy_from_slice(&dport.to_be_bytes());
    tcp[4..8].copy_from_slice(&u32::from(sport).wrapping_mul(2_654_435_761).to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = 2;
    tcp[14..16].copy_from_slice(&64_240u16.to_be_bytes());
    let pseudo = sum_of(&ip[12..20]) + 6 + 20;
    let sum = checksum(&tcp, pseudo);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    [&to_mac[..], &from_mac, &[8, 0], &ip, &tcp].concat()
}

fn sum_of(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c.get(1).copied().unwrap_or(0))).sum()
}

fn checksum(bytes: &[u8], with: u32) -> u16 {
    let mut sum = sum_of(bytes) + with;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_has_checksums_that_a_receiver_accepts() {
        let frame =
            syn([2; 6], [4; 6], Ipv4Addr::new(10, 20, 1, 100), Ipv4Addr::new(198, 18, 255, 254), 40_001, 443);
        assert_eq!(checksum(&frame[14..34], 0), 0);
        assert_eq!(checksum(&frame[34..], sum_of(&frame[26..34]) + 6 + 20), 0);
        assert_eq!(frame[34 + 13], 2, "SYN and nothing else");
    }
}
