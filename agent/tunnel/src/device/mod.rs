//! One WireGuard interface: packets between a TUN interface and the far ends, whose cryptography is boringtun's.
//!
//! ```text
//!            TUN ──▶ owner of the destination ──▶ encrypted ──▶ UDP, to where the far end was last heard
//!            TUN ◀── source allowed to the peer? ◀── decrypted ◀── UDP, by the index in the packet
//!  socket pair ◀──▶ configuration
//! ```
//! One thread, no locks. Beyond what WireGuard asks for, one thing: **a key is changed without losing a packet**. Our end goes
//! on with the session under the key before until the far end answers to the new one ([`peer::Peer::set_key`]); and two peers
//! may be allowed the same addresses, in which case packets go to the one that was last heard of first under a new session
//! ([`allowed::AllowedIps::claim`]). So whoever has the far ends registers a next key beside the present one, and the
//! moment of the change is the far end's.

mod allowed;
mod peer;
mod sockets;
mod uapi;

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use self::allowed::AllowedIps;
use self::peer::{Peer, Which};
use self::sockets::Sockets;

/// Peers' timers; WireGuard's own are seconds.
const TICK: Duration = Duration::from_millis(250);
/// Packets that are taken from one side before the other has its turn.
const TURN: usize = 128;
/// The longest packet, its header and tag.
const LONGEST: usize = 65_536 + 64;
/// Handshakes a second before strangers are asked to prove their address (cookies).
const HANDSHAKES: u64 = 100;

pub(crate) type Key = [u8; 32];

/// A key of ours, and what belongs to it.
#[derive(Clone)]
struct OwnKey {
    secret: StaticSecret,
    public: PublicKey,
    /// Of strangers' handshakes.
    limiter: Arc<RateLimiter>,
    /// For the sessions' own check, after that one: nobody is counted twice.
    none: Arc<RateLimiter>,
}

impl OwnKey {
    fn new(secret: [u8; 32]) -> Self {
        let secret = StaticSecret::from(secret);
        let public = PublicKey::from(&secret);
        let limiter = Arc::new(RateLimiter::new(&public, HANDSHAKES));
        let none = Arc::new(RateLimiter::new(&public, u64::MAX));
        Self { secret, public, limiter, none }
    }
}

/// See the module.
pub(crate) struct Device {
    tun: OwnedFd,
    control: UnixStream,
    asked: Vec<u8>,
    sockets: Option<Sockets>,
    port: u16,
    own: Option<OwnKey>,
    /// The key before, as long as somebody may still speak to it.
    before: Option<OwnKey>,
    peers: HashMap<Key, Peer>,
    /// Whose session a packet belongs to, by the index in it.
    indices: HashMap<u32, (Key, u64)>,
    allowed: AllowedIps,
    /// Numbers ends, so that an index of one that is gone leads nowhere.
    ends: u64,
}

impl Device {
    /// `tun` and `control` are non-blocking from now on.
    pub(crate) fn new(tun: OwnedFd, control: UnixStream) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&tun)?;
        rustix::fs::fcntl_setfl(&tun, flags | rustix::fs::OFlags::NONBLOCK)?;
        control.set_nonblocking(true)?;
        Ok(Self {
            tun,
            control,
            asked: Vec::new(),
            sockets: None,
            port: 0,
            own: None,
            before: None,
            peers: HashMap::new(),
            indices: HashMap::new(),
            allowed: AllowedIps::default(),
            ends: 0,
        })
    }

    /// Until whoever configures it has hung up.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut room = vec![0; LONGEST];
        let mut out = vec![0; LONGEST];
        let mut tick = Instant::now();
        loop {
            let now = Instant::now();
            if now >= tick {
                self.tick(now, &mut out);
                tick = now + TICK;
            }
            let ready = self.wait(tick.saturating_duration_since(now))?;
            if ready.control && !self.converse(&mut out)? {
                return Ok(());
            }
            for (which, is_ready) in ready.udp.into_iter().enumerate() {
                if is_ready {
                    self.take_from_outside(which, &mut room, &mut out);
                }
            }
            if ready.tun {
                self.take_from_inside(&mut room, &mut out)?;
            }
        }
    }

    fn wait(&self, most: Duration) -> io::Result<Ready> {
        let time = Timespec { tv_sec: 0, tv_nsec: most.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&self.control, PollFlags::IN), PollFd::new(&self.tun, PollFlags::IN)];
        let udp = self.sockets.as_ref().map(Sockets::all).unwrap_or_default();
        fds.extend(udp.iter().map(|(_, socket)| PollFd::new(*socket, PollFlags::IN)));
        match poll(&mut fds, Some(&time)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let mut ready = Ready { control: is_ready(&fds[0]), tun: is_ready(&fds[1]), udp: [false; 2] };
        for ((which, _), fd) in udp.iter().zip(&fds[2..]) {
            ready.udp[*which] = is_ready(fd);
        }
        Ok(ready)
    }

    /// Packets of our own side. An interface that is gone is an error.
    fn take_from_inside(&mut self, room: &mut [u8], out: &mut [u8]) -> io::Result<()> {
        for _ in 0..TURN {
            let length = match rustix::io::read(&self.tun, &mut *room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let packet = &room[..length];
            let Some(owner) = Tunn::dst_address(packet).and_then(|address| self.allowed.owner(address))
            else {
                continue;
            };
            let Some(peer) = self.peers.get_mut(&owner) else { continue };
            if let TunnResult::WriteToNetwork(sealed) = peer.sending().encapsulate(packet, out) {
                send(&self.sockets, peer.endpoint, sealed);
            }
        }
        Ok(())
    }

    /// Packets from the line.
    fn take_from_outside(&mut self, which: usize, room: &mut [u8], out: &mut [u8]) {
        for _ in 0..TURN {
            let Some(received) = self.sockets.as_ref().and_then(|sockets| sockets.receive(which, room))
            else {
                return;
            };
            let (length, from) = received;
            self.hear(&room[..length], from, out);
        }
    }

    fn hear(&mut self, datagram: &[u8], from: SocketAddr, out: &mut [u8]) {
        let Ok(packet) = Tunn::parse_incoming_packet(datagram) else { return };
        let is_data = matches!(packet, Packet::PacketData(_));
        let is_handshake = matches!(packet, Packet::HandshakeInit(_) | Packet::HandshakeResponse(_));
        let found = match packet {
            Packet::HandshakeInit(_) => self.stranger(datagram, from, out),
            Packet::HandshakeResponse(answer) => self.by_index(answer.receiver_idx),
            Packet::PacketCookieReply(cookie) => self.by_index(cookie.receiver_idx),
            Packet::PacketData(data) => self.by_index(data.receiver_idx),
        };
        let Some((key, which)) = found else { return };
        let Self { peers, sockets, tun, allowed, .. } = self;
        let Some(peer) = peers.get_mut(&key) else { return };
        let Some(end) = peer.end(which) else { return };
        let mut answers = false;
        match end.decapsulate(Some(from.ip()), datagram, out) {
            TunnResult::Err(_) => return,
            TunnResult::Done => {}
            TunnResult::WriteToNetwork(answer) => {
                send(sockets, Some(from), answer);
                answers = true;
            }
            TunnResult::WriteToTunnelV4(inner, source) => {
                if peer.allows(IpAddr::V4(source)) {
                    write(tun, inner);
                }
            }
            TunnResult::WriteToTunnelV6(inner, source) => {
                if peer.allows(IpAddr::V6(source)) {
                    write(tun, inner);
                }
            }
        }
        // Only what was authentic comes so far (a cookie's secret is no secret): the far end is where this came from.
        if is_data || is_handshake {
            peer.endpoint = Some(from);
        }
        if is_handshake {
            peer.is_confirmed = false;
        }
        // The far end has the new session: packets may go that way, first those that have waited for it.
        let confirmed = is_data && !peer.is_confirmed && which == Which::Now;
        if confirmed {
            peer.is_confirmed = true;
            allowed.claim(key, &peer.allowed);
        }
        if (answers || confirmed)
            && let Some(end) = peer.end(which)
        {
            while let TunnResult::WriteToNetwork(waiting) = end.decapsulate(None, &[], out) {
                send(sockets, Some(from), waiting);
            }
        }
    }

    fn by_index(&self, index: u32) -> Option<(Key, Which)> {
        let (key, end) = self.indices.get(&(index >> 8))?;
        Some((*key, self.peers.get(key)?.which(*end)?))
    }

    /// Whose handshake it is, by the key in it; to one of our keys.
    fn stranger(&self, datagram: &[u8], from: SocketAddr, out: &mut [u8]) -> Option<(Key, Which)> {
        for own in [&self.own, &self.before].into_iter().flatten() {
            match own.limiter.verify_packet(Some(from.ip()), datagram, out) {
                Ok(Packet::HandshakeInit(init)) => {
                    let half = parse_handshake_anon(&own.secret, &own.public, &init).ok()?;
                    let which = self.peers.get(&half.peer_static_public)?.under(&own.public)?;
                    return Some((half.peer_static_public, which));
                }
                Err(TunnResult::WriteToNetwork(cookie)) => {
                    send(&self.sockets, Some(from), cookie);
                    return None;
                }
                Ok(_) | Err(_) => {}
            }
        }
        None
    }

    fn tick(&mut self, now: Instant, out: &mut [u8]) {
        let Self { peers, sockets, own, before, indices, .. } = self;
        for own in [own, before].into_iter().flatten() {
            own.limiter.reset_count();
        }
        let mut leaving = false;
        for peer in peers.values_mut() {
            if let Some(end) = peer.retire(now) {
                indices.retain(|_, (_, number)| *number != end);
            }
            leaving |= peer.has_two();
            let endpoint = peer.endpoint;
            if endpoint.is_none() {
                continue;
            }
            if peer.is_unsent {
                begin(sockets, peer, out);
                continue;
            }
            if let TunnResult::WriteToNetwork(packet) = peer.newest().update_timers(out) {
                send(sockets, endpoint, packet);
            }
        }
        if !leaving {
            *before = None;
        }
    }

    /// Requests of whoever configures us; false: nobody does any more.
    fn converse(&mut self, out: &mut [u8]) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.control.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(count) => self.asked.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while let Some(end) = self.asked.windows(2).position(|pair| pair == b"\n\n") {
            let request: Vec<u8> = self.asked.drain(..end + 2).collect();
            let answer = self.answer(&String::from_utf8_lossy(&request), out);
            // Whoever asked waits for the answer, and has room for it.
            self.control.set_nonblocking(false)?;
            self.control.write_all(answer.as_bytes())?;
            self.control.set_nonblocking(true)?;
        }
        Ok(true)
    }

    fn set_key(&mut self, secret: [u8; 32], out: &mut [u8]) {
        let key = OwnKey::new(secret);
        if self.own.as_ref().is_some_and(|own| own.public == key.public) {
            return;
        }
        for (number, peer) in &mut self.peers {
            self.ends += 1;
            let index = free_index(&self.indices);
            self.indices.insert(index, (*number, self.ends));
            peer.set_key(&key, index, self.ends);
            let known: Vec<u64> = peer.numbers().collect();
            self.indices.retain(|_, (owner, end)| owner != number || known.contains(end));
            begin(&self.sockets, peer, out);
        }
        self.before = self.own.replace(key);
    }

    fn listen(&mut self, port: u16) -> io::Result<()> {
        if self.sockets.is_none() || self.port != port {
            // The one before goes first: it may be the same port in another family.
            self.sockets = None;
            self.sockets = Some(Sockets::open(port)?);
            self.port = port;
        }
        Ok(())
    }

    fn remove(&mut self, key: &Key) {
        if self.peers.remove(key).is_some() {
            self.indices.retain(|_, (owner, _)| owner != key);
            self.allowed.remove(key);
        }
    }

    /// It is a peer from now on. None: there is no key of ours to speak with.
    fn add(&mut self, key: Key) -> Option<()> {
        let own = self.own.clone()?;
        if self.peers.contains_key(&key) {
            return Some(());
        }
        self.ends += 1;
        let index = free_index(&self.indices);
        self.indices.insert(index, (key, self.ends));
        self.peers.insert(key, Peer::new(key, &own, index, self.ends));
        Some(())
    }
}

/// What can be read from.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    control: bool,
    tun: bool,
    udp: [bool; 2],
}

/// A handshake now, if it is known where to; and again soon, where it could not even be sent: the line may not be up yet.
fn begin(sockets: &Option<Sockets>, peer: &mut Peer, out: &mut [u8]) {
    let Some(endpoint) = peer.endpoint else { return };
    if let TunnResult::WriteToNetwork(packet) = peer.newest().format_handshake_initiation(out, true) {
        peer.is_unsent = sockets.as_ref().is_none_or(|sockets| !sockets.send(packet, endpoint));
    }
}

/// What cannot be sent is lost, as on any line.
fn send(sockets: &Option<Sockets>, to: Option<SocketAddr>, packet: &[u8]) {
    if let (Some(sockets), Some(to)) = (sockets, to) {
        let _lost = sockets.send(packet, to);
    }
}

/// A full queue loses it, as a line would.
fn write(tun: &OwnedFd, packet: &[u8]) {
    let _lost = rustix::io::write(tun, packet);
}

/// A number of 24 bits that no session has, and nobody can guess.
fn free_index(taken: &HashMap<u32, (Key, u64)>) -> u32 {
    let mut bytes = [0; 4];
    // Without random numbers there is no key either; what comes then is still not in use.
    let _none = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let mut index = u32::from_ne_bytes(bytes) >> 8;
    while index == 0 || taken.contains_key(&index) {
        index = (index + 1) & 0x00ff_ffff;
    }
    index
}
