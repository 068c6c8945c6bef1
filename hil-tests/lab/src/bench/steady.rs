//! Flows that exist already: datagrams of 64 bytes both ways, and a TCP connection.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cost::Rounds;
use super::frames::{Macs, datagram};
use super::gate::{Gate, OPEN};
use super::generator::{Lane, Mode, Round, Until, mac, pump, steer, take_processor};
use super::pairs::Sample;
use super::steal::Watch;
use crate::nodes::{Node, enter};
use crate::wire::packet_socket::BATCH;

const ROUND: Duration = Duration::from_millis(250);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 20, 2, 100);
/// The gateway's address on the line: what servers see.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const UDP_PORT: u16 = 7100;
const TCP_PORT: u16 = 7200;
const FLOWS: u16 = 8;
const PAYLOAD: usize = 64;
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs something in a node's namespace, on a thread of its own.
fn inside<T: Send>(node: &Node, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(node.name())?;
            work()
        });
        thread.join().map_err(|_| anyhow::anyhow!("a thread of node {} died", node.name()))?
    })
}

fn both_ways(mode: Mode, gate: &Gate) -> Result<()> {
    steer(mode, (gate.gateway(), &["lan2", "wan2"]), &[(gate.client(), "e2"), (gate.server(), "w2")])
}

type Side<'a> = (&'a Node, &'static str);

/// A handful of flows that have been answered, so that conntrack knows both directions.
pub(super) struct Datagrams<'a> {
    mode: Mode,
    gate: &'a Gate,
    there: Vec<Vec<u8>>,
    back: Vec<Vec<u8>>,
    /// They keep the ports.
    _sockets: Vec<UdpSocket>,
}

impl<'a> Datagrams<'a> {
    pub(super) fn new(mode: Mode, gate: &'a Gate) -> Result<Self> {
        both_ways(mode, gate)?;
        let server_address = SocketAddrV4::new(OPEN.parse()?, UDP_PORT);
        let server = inside(gate.server(), || Ok(UdpSocket::bind(server_address)?))?;
        server.set_read_timeout(Some(PATIENCE))?;
        let outward = Macs { from: mac(gate.client(), "e2")?, to: mac(gate.gateway(), "z-learning")? };
        let inward = Macs { from: mac(gate.server(), "w2")?, to: mac(gate.gateway(), "wan2")? };
        let (mut sockets, mut there, mut back) = (Vec::new(), Vec::new(), Vec::new());
        for port in 40_000..40_000 + FLOWS {
            let from = SocketAddrV4::new(CLIENT, port);
            let client = inside(gate.client(), || Ok(UdpSocket::bind(from)?))?;
            client.set_read_timeout(Some(PATIENCE))?;
            client.send_to(b"?", server_address)?;
            let (_, seen) = server.recv_from(&mut [0; 8]).context("no datagram passes this gateway")?;
            server.send_to(b"!", seen)?;
            client.recv_from(&mut [0; 8]).context("no answer passes this gateway")?;
            if seen != SocketAddrV4::new(GATEWAY, port).into() {
                bail!("the server sees {seen} instead of the gateway's address and port {port}");
            }
            there.push(datagram(outward, from, server_address, PAYLOAD));
            back.push(datagram(inward, server_address, SocketAddrV4::new(GATEWAY, port), PAYLOAD));
            sockets.push(client);
        }
        sockets.push(server);
        let fill = |frames: Vec<Vec<u8>>| frames.iter().cloned().cycle().take(BATCH).collect();
        Ok(Self { mode, gate, there: fill(there), back: fill(back), _sockets: sockets })
    }

    fn pump(&self, client_side: Side<'_>, server_side: Side<'_>) -> Result<Round> {
        let (client, server) = ((self.gate.client(), "e2"), (self.gate.server(), "w2"));
        let lanes = [Lane { from: client, to: server_side }, Lane { from: server, to: client_side }];
        let batches = [(0, self.there.as_slice()), (1, self.back.as_slice())];
        pump(self.mode, &lanes, batches.into_iter().cycle(), Until { frames: u64::MAX, time: ROUND })
    }

    pub(super) fn round(&self) -> Result<Round> {
        self.pump((self.gate.client(), "e2"), (self.gate.server(), "w2"))
    }

    /// Datagrams a second, for pairs.
    pub(super) fn sample(&self) -> Result<Sample> {
        Ok(self.round()?.sample())
    }
}

impl Rounds for Datagrams<'_> {
    fn gate(&self) -> &Gate {
        self.gate
    }

    fn round(&self) -> Result<Round> {
        self.round()
    }

    fn to_the_door(&self) -> Result<Round> {
        self.pump((self.gate.gateway(), "wan2"), (self.gate.gateway(), "lan2"))
    }
}

/// One connection that stays, with the kernel's own offloads.
pub(super) struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    pub(super) fn new(gate: &Gate) -> Result<Self> {
        both_ways(Mode::Apart, gate)?;
        let address = SocketAddrV4::new(OPEN.parse()?, TCP_PORT);
        let listener = inside(gate.server(), || Ok(TcpListener::bind(address)?))?;
        let client = inside(gate.client(), || {
            TcpStream::connect_timeout(&address.into(), PATIENCE).context("no connection passes this gateway")
        })?;
        let (server, _) = listener.accept()?;
        client.set_write_timeout(Some(PATIENCE))?;
        server.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self { client, server })
    }

    /// Bits a second, for pairs.
    pub(super) fn sample(&self) -> Result<Sample> {
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        let (over, written) = (AtomicBool::new(false), AtomicBool::new(false));
        let write = || -> Result<()> {
            take_processor()?;
            let data = vec![0u8; 256 << 10];
            while !over.load(Ordering::Acquire) {
                (&self.client).write_all(&data).context("the connection does not go on")?;
                sent.fetch_add(data.len() as u64, Ordering::AcqRel);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let done = write();
                written.store(true, Ordering::Release);
                done
            });
            let reader = scope.spawn(|| -> Result<()> {
                take_processor()?;
                let mut room = vec![0u8; 1 << 20];
                // Also what is under way at the end is read, so that the next round begins with an empty connection.
                while !written.load(Ordering::Acquire)
                    || received.load(Ordering::Acquire) < sent.load(Ordering::Acquire)
                {
                    // Thrown away by the kernel: copying it to here says nothing about the gateway.
                    match rustix::net::recv(&self.server, &mut room[..], rustix::net::RecvFlags::TRUNC) {
                        Ok((_, 0)) => bail!("the connection was closed"),
                        Ok((_, count)) => drop(received.fetch_add(count as u64, Ordering::AcqRel)),
                        Err(rustix::io::Errno::AGAIN) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(())
            });
            // As long again for the connection's window to open.
            std::thread::sleep(ROUND / 4);
            let (begin, watch, before) = (Instant::now(), Watch::begin(), received.load(Ordering::Acquire));
            std::thread::sleep(ROUND);
            let bytes = received.load(Ordering::Acquire) - before;
            let (took, stolen) = (begin.elapsed().as_secs_f64(), watch.end());
            over.store(true, Ordering::Release);
            for thread in [writer, reader] {
                thread.join().map_err(|_| anyhow::anyhow!("a thread of the connection died"))??;
            }
            Ok(Sample { value: bytes as f64 * 8.0 / took, stolen })
        })
    }
}
