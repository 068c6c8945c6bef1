//! A far end: one or two sessions, where it was last heard, what it may send.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use boringtun::noise::Tunn;
use boringtun::x25519::PublicKey;
use ipnet::IpNet;

use super::{Key, OwnKey};

/// How long packets under the key before are still understood after the first session under the new one.
const FAREWELL: Duration = Duration::from_secs(20);
/// What a session may last (`REJECT_AFTER_TIME`): the one under the key before is not renewed.
const LONGEST: Duration = Duration::from_secs(180);

/// Which of our keys a session is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Now,
    Before,
}

struct End {
    tunn: Box<Tunn>,
    own: PublicKey,
    number: u64,
}

impl End {
    fn new(key: Key, own: &OwnKey, index: u32, number: u64, keepalive: Option<u16>) -> Self {
        let tunn = Tunn::new(
            own.secret.clone(),
            PublicKey::from(key),
            None,
            keepalive,
            index,
            Some(own.none.clone()),
        );
        Self { tunn: Box::new(tunn), own: own.public, number }
    }

    fn is_open(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }

    fn bytes(&self) -> (u64, u64) {
        let (_, sent, received, ..) = self.tunn.stats();
        (u64::try_from(sent).unwrap_or(u64::MAX), u64::try_from(received).unwrap_or(u64::MAX))
    }
}

/// See the module.
pub(super) struct Peer {
    key: Key,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) allowed: BTreeSet<IpNet>,
    pub(super) keepalive: Option<u16>,
    /// The far end has used the newest session: it has it.
    pub(super) is_confirmed: bool,
    /// Its last handshake could not be sent.
    pub(super) is_unsent: bool,
    now: End,
    /// Under the key before: what is sent goes by it until the far end answers to the new one. It begins no handshake: that
    /// would call the far end back to the old key.
    before: Option<End>,
    /// When there came to be two, and when the new one was seen to work.
    changed: Instant,
    opened: Option<Instant>,
    /// Of ends that are gone.
    sent: u64,
    received: u64,
}

impl Peer {
    pub(super) fn new(key: Key, own: &OwnKey, index: u32, number: u64) -> Self {
        Self {
            key,
            endpoint: None,
            allowed: BTreeSet::new(),
            keepalive: None,
            is_confirmed: false,
            is_unsent: false,
            now: End::new(key, own, index, number, None),
            before: None,
            changed: Instant::now(),
            opened: None,
            sent: 0,
            received: 0,
        }
    }

    /// Another key of ours. The session under the one before goes on until there is one under this. Back to the key before:
    /// its session is still there.
    pub(super) fn set_key(&mut self, own: &OwnKey, index: u32, number: u64) {
        (self.changed, self.opened) = (Instant::now(), None);
        self.is_confirmed = false;
        if let Some(before) = self.before.take_if(|before| before.own == own.public) {
            let failed = std::mem::replace(&mut self.now, before);
            self.count(&failed);
            return;
        }
        let new = End::new(self.key, own, index, number, self.keepalive);
        let last = std::mem::replace(&mut self.now, new);
        if last.is_open() || self.before.is_none() {
            if let Some(older) = self.before.replace(last) {
                self.count(&older);
            }
        } else {
            self.count(&last);
        }
    }

    /// The same key, and other timers: WireGuard's library takes them at the beginning only. A session that is there ends.
    pub(super) fn set_keepalive(&mut self, keepalive: Option<u16>, own: &OwnKey, index: u32, number: u64) {
        self.keepalive = keepalive;
        let new = End::new(self.key, own, index, number, keepalive);
        let last = std::mem::replace(&mut self.now, new);
        if last.is_open() {
            self.before = Some(last);
        } else {
            self.count(&last);
        }
        (self.changed, self.opened) = (Instant::now(), None);
        self.is_confirmed = false;
    }

    fn count(&mut self, end: &End) {
        let (sent, received) = end.bytes();
        self.sent += sent;
        self.received += received;
    }

    /// What packets go out by.
    pub(super) fn sending(&mut self) -> &mut Tunn {
        let Self { now, before, .. } = self;
        match before {
            Some(before) if before.is_open() && !now.is_open() => &mut before.tunn,
            Some(_) | None => &mut now.tunn,
        }
    }

    pub(super) fn newest(&mut self) -> &mut Tunn {
        &mut self.now.tunn
    }

    pub(super) fn end(&mut self, which: Which) -> Option<&mut Tunn> {
        match which {
            Which::Now => Some(&mut self.now.tunn),
            Which::Before => self.before.as_mut().map(|end| &mut *end.tunn),
        }
    }

    pub(super) fn which(&self, number: u64) -> Option<Which> {
        if self.now.number == number {
            return Some(Which::Now);
        }
        self.before.as_ref().filter(|end| end.number == number).map(|_| Which::Before)
    }

    pub(super) fn under(&self, own: &PublicKey) -> Option<Which> {
        if self.now.own == *own {
            return Some(Which::Now);
        }
        self.before.as_ref().filter(|end| end.own == *own).map(|_| Which::Before)
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.now.number).chain(self.before.as_ref().map(|end| end.number))
    }

    pub(super) fn has_two(&self) -> bool {
        self.before.is_some()
    }

    /// The number of the end under the key before, once nobody speaks to it any more.
    pub(super) fn retire(&mut self, now: Instant) -> Option<u64> {
        self.before.as_ref()?;
        if self.now.is_open() {
            self.opened.get_or_insert(now);
        }
        let is_over = self.opened.is_some_and(|opened| now.saturating_duration_since(opened) >= FAREWELL);
        if !is_over && now.saturating_duration_since(self.changed) < LONGEST {
            return None;
        }
        let before = self.before.take()?;
        self.count(&before);
        Some(before.number)
    }

    pub(super) fn allows(&self, source: IpAddr) -> bool {
        self.allowed.iter().any(|net| net.contains(&source))
    }

    /// Since the last handshake under our present key.
    pub(super) fn handshake(&self) -> Option<Duration> {
        self.now.tunn.time_since_last_handshake()
    }

    /// Sent, received.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let ends = std::iter::once(&self.now).chain(&self.before);
        ends.map(End::bytes).fold((self.sent, self.received), |sum, bytes| (sum.0 + bytes.0, sum.1 + bytes.1))
    }
}
