//! Clients that send numbered datagrams and wait for each to come back: the drill service, ICMP echo.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, ipproto, socket_with};
use tokio::net::UdpSocket;
use tokio::time::MissedTickBehavior;

use super::clients::{Client, Stopped};
use super::recorder::{Count, Recorder};
use super::spec::Family;
use crate::servers::{DRILL_NAME, DRILL_NAME_LEN};
use crate::world::town::Device;

/// One flow: a source port, the datagrams on their way.
struct Flow {
    client: u32,
    v6: bool,
    socket: UdpSocket,
    recorder: Arc<Recorder>,
    /// Number → when it was sent.
    flying: HashMap<u64, Instant>,
    timeout: Duration,
}

impl Flow {
    async fn send(&mut self, number: u64, packet: &[u8]) {
        let now = Instant::now();
        self.recorder.add(Count::Started, 1);
        match self.socket.send(packet).await {
            Ok(_) => drop(self.flying.insert(number, now)),
            Err(_) => {
                self.recorder.add(Count::Errors, 1);
                self.recorder.add(Count::Lost, 1);
            }
        }
    }

    /// Receives one answer. `number_of` finds the number in it.
    async fn receive(&mut self, room: &mut [u8], number_of: fn(&[u8]) -> Option<u64>) {
        match self.socket.recv(room).await {
            Ok(count) => {
                let sent = number_of(&room[..count]).and_then(|number| self.flying.remove(&number));
                if let Some(sent) = sent {
                    self.recorder.ok(self.client, sent.elapsed());
                    self.recorder.add(Count::Bytes, count as u64);
                }
            }
            // An ICMP error came back: the datagram will be missed as lost; do not spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }

    /// Counts what did not come back in time, in the bucket in which it was sent.
    fn miss(&mut self, all: Missing) {
        let (timeout, recorder) = (self.timeout, &self.recorder);
        self.flying.retain(|_, sent| {
            let late = sent.elapsed() >= timeout || matches!(all, Missing::All);
            if late {
                recorder.add_at(*sent, Count::Lost, 1);
            }
            !late
        });
    }

    /// Waits for what is still on its way.
    async fn finish(mut self, number_of: fn(&[u8]) -> Option<u64>) {
        let mut room = [0; 2048];
        let until = Instant::now() + self.timeout;
        while !self.flying.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, self.receive(&mut room, number_of)).await.is_err() {
                break;
            }
        }
        self.miss(Missing::All);
    }
}

#[derive(Clone, Copy)]
enum Missing {
    Late,
    All,
}

async fn bound(device: &Device, target: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let own = match (target, device.v6) {
        (IpAddr::V4(_), _) => IpAddr::V4(device.v4),
        (IpAddr::V6(_), Some(v6)) => IpAddr::V6(v6),
        (IpAddr::V6(_), None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
    };
    let socket = UdpSocket::bind(SocketAddr::new(own, 0)).await?;
    socket.bind_device(Some(device.interface.as_bytes()))?;
    socket.connect(SocketAddr::new(target, port)).await?;
    Ok(socket)
}

fn drill_number(packet: &[u8]) -> Option<u64> {
    packet.get(..8)?.try_into().ok().map(u64::from_be_bytes)
}

fn ping_number(packet: &[u8]) -> Option<u64> {
    // Echo replies only (IPv4 type 0, IPv6 type 129); the identifier is the kernel's business.
    if !matches!(packet.first()?, 0 | 129) {
        return None;
    }
    Some(u64::from(u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?])))
}

impl Client {
    /// The first address that this client can use.
    async fn address(&mut self) -> io::Result<IpAddr> {
        let target = self.target.clone();
        let addresses = self.browser.addresses(&target).await?;
        let (v6, family) = (self.browser.device.v6.is_some(), self.browser.family);
        let usable = |a: &IpAddr| match a {
            IpAddr::V4(_) => family != Family::V6,
            // Without fall-back a datagram client takes IPv6 only when told to.
            IpAddr::V6(_) => v6 && family == Family::V6,
        };
        addresses.into_iter().find(usable).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    async fn flow(&mut self, kind: Socket) -> io::Result<Flow> {
        let address = self.address().await?;
        let socket = match kind {
            Socket::Udp => bound(&self.browser.device, address, self.target.port).await?,
            Socket::Icmp => icmp(&self.browser.device, address).await?,
        };
        Ok(Flow {
            client: self.number,
            v6: address.is_ipv6(),
            socket,
            recorder: Arc::clone(&self.recorder),
            flying: HashMap::new(),
            timeout: self.timeout(1),
        })
    }

    pub(super) async fn flows(&mut self) -> Result<std::convert::Infallible, Stopped> {
        // Those who work keep up the whole load's rate.
        let working = f64::from(self.spec.count.max(1)) * self.shift.map_or(1.0, |shift| shift.share());
        let rate = f64::from(self.spec.rate.unwrap_or(100).max(1)) / working;
        let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let per_flow = self.spec.packets.unwrap_or(10);
        let size = usize::try_from(self.spec.bytes.unwrap_or(64))
            .unwrap_or(64)
            .clamp(DRILL_NAME + DRILL_NAME_LEN, 1472);
        let mut packet = vec![0; size];
        let name = &self.spec.id.as_bytes()[..self.spec.id.len().min(DRILL_NAME_LEN)];
        packet[DRILL_NAME..DRILL_NAME + name.len()].copy_from_slice(name);
        let (mut number, mut room) = (0u64, [0; 2048]);
        loop {
            if self.is_quiet() {
                self.keep_quiet().await?;
                tick.reset();
            }
            let mut flow = match self.flow(Socket::Udp).await {
                Ok(flow) => flow,
                Err(error) => {
                    self.recorder.add(Count::Started, 1);
                    self.recorder.add(Count::Lost, 1);
                    self.failed(&error);
                    self.rest(Duration::from_millis(200)).await?;
                    tick.reset();
                    continue;
                }
            };
            let mut sent = 0;
            let stopped = loop {
                tokio::select! {
                    _ = self.stop.changed() => break true,
                    _ = tick.tick() => {
                        number += 1;
                        packet[..8].copy_from_slice(&number.to_be_bytes());
                        flow.send(number, &packet).await;
                        flow.miss(Missing::Late);
                        sent += 1;
                        if (per_flow != 0 && sent >= per_flow) || self.is_quiet() {
                            break false;
                        }
                    }
                    () = flow.receive(&mut room, drill_number) => {}
                }
            };
            if stopped {
                flow.finish(drill_number).await;
                return Err(Stopped);
            }
            tokio::spawn(flow.finish(drill_number));
        }
    }

    pub(super) async fn pings(&mut self) -> Result<std::convert::Infallible, Stopped> {
        let every = self.spec.every.unwrap_or(Duration::from_millis(200)).max(Duration::from_millis(1));
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut flow = match self.flow(Socket::Icmp).await {
                Ok(flow) => flow,
                Err(error) => {
                    self.recorder.add(Count::Started, 1);
                    self.recorder.add(Count::Lost, 1);
                    self.failed(&error);
                    self.rest(every).await?;
                    continue;
                }
            };
            let (mut number, mut room) = (0u16, [0; 2048]);
            loop {
                tokio::select! {
                    _ = self.stop.changed() => {
                        flow.finish(ping_number).await;
                        return Err(Stopped);
                    }
                    _ = tick.tick() => {
                        number = number.wrapping_add(1);
                        let mut packet = [0u8; 64];
                        packet[0] = if flow.v6 { 128 } else { 8 };
                        packet[6..8].copy_from_slice(&number.to_be_bytes());
                        flow.send(number.into(), &packet).await;
                        flow.miss(Missing::Late);
                    }
                    () = flow.receive(&mut room, ping_number) => {}
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Socket {
    Udp,
    Icmp,
}

/// A kernel ping socket; it sends and receives like a connected UDP socket.
async fn icmp(device: &Device, target: IpAddr) -> io::Result<UdpSocket> {
    let (family, protocol, own) = match (target, device.v6) {
        (IpAddr::V4(_), _) => (AddressFamily::INET, ipproto::ICMP, IpAddr::V4(device.v4)),
        (IpAddr::V6(_), Some(v6)) => (AddressFamily::INET6, ipproto::ICMPV6, IpAddr::V6(v6)),
        (IpAddr::V6(_), None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
    };
    let flags = rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC;
    let fd = socket_with(family, SocketType::DGRAM, flags, Some(protocol))?;
    rustix::net::bind(&fd, &SocketAddr::new(own, 0))?;
    let socket = UdpSocket::from_std(fd.into())?;
    socket.bind_device(Some(device.interface.as_bytes()))?;
    socket.connect(SocketAddr::new(target, 0)).await?;
    Ok(socket)
}
