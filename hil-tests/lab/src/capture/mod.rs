//! Counting packets at named points, in buckets of 100 ms.

pub(crate) mod packet;
pub(crate) mod pcap;
mod tap;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use pcap::Pcap;
pub(crate) use tap::{Permitted, PermittedFlow, Ports, Tap, Zone};

use packet::Seen;

/// Length of one bucket of every time series of the lab.
pub(crate) const BUCKET: Duration = Duration::from_millis(100);

/// DSCP that the lab's clients put on all they send. It survives routing and NAT, so a packet on a wire shows whether
/// the gateway forwarded it or sent it itself.
pub(crate) const CLIENT_DSCP: u8 = 42;

/// Counts of one bucket at one point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Carry an address of the gateway's inside space.
    pub(crate) inside: u64,
    /// Sent by a client and forwarded.
    pub(crate) forwarded: u64,
    /// Carry an address of a school zone.
    pub(crate) zone_addresses: u64,
    pub(crate) ipv6: u64,
    /// Lost by the line (its quality, black hole, MTU).
    pub(crate) lost: u64,
    /// Came from a zone that has no permit to here.
    pub(crate) leaked: u64,
}

/// What [`Point`]s can be asked for, with their meaning.
pub(crate) const POINT_FIELDS: &[(&str, &str, &str)] = &[
    ("packets", "count", "frames seen"),
    ("bytes", "bytes", "bytes of IP packets seen"),
    ("inside", "count", "packets that carry an address of the gateway's inside space"),
    ("forwarded", "count", "packets that a client sent and the gateway forwarded"),
    ("zone_addresses", "count", "packets that carry an address of a school zone"),
    ("ipv6", "count", "IPv6 packets"),
    ("lost", "count", "packets that the line lost (quality, black hole, MTU)"),
];

impl Counts {
    pub(crate) fn field(&self, name: &str) -> Option<u64> {
        Some(match name {
            "packets" => self.packets,
            "bytes" => self.bytes,
            "inside" => self.inside,
            "forwarded" => self.forwarded,
            "zone_addresses" => self.zone_addresses,
            "ipv6" => self.ipv6,
            "lost" => self.lost,
            "leaked" => self.leaked,
            _ => return None,
        })
    }

    /// Adds what a parsed packet is by its addresses.
    pub(crate) fn add_seen(&mut self, seen: &Seen) {
        use std::net::IpAddr;
        self.packets += 1;
        self.bytes += seen.length as u64;
        self.forwarded += u64::from(seen.dscp == CLIENT_DSCP);
        self.ipv6 += u64::from(seen.source.is_ipv6());
        let either = |test: &dyn Fn(IpAddr) -> bool| test(seen.source) || test(seen.destination);
        self.inside += u64::from(either(&|address| match address {
            IpAddr::V4(a) => a.octets()[..2] == [100, 127],
            IpAddr::V6(a) => a.segments()[..3] == [0xfd53, 0x6569, 0x6d6f],
        }));
        self.zone_addresses += u64::from(either(&|address| match address {
            IpAddr::V4(a) => a.octets()[..2] == [10, 20],
            IpAddr::V6(a) => a.segments()[0] == 0xfd20,
        }));
    }

    fn add(&mut self, other: &Self) {
        let Self { packets, bytes, inside, forwarded, zone_addresses, ipv6, lost, leaked } = other;
        self.packets += packets;
        self.bytes += bytes;
        self.inside += inside;
        self.forwarded += forwarded;
        self.zone_addresses += zone_addresses;
        self.ipv6 += ipv6;
        self.lost += lost;
        self.leaked += leaked;
    }
}

/// A time series of [`Counts`].
#[derive(Debug)]
pub(crate) struct Point {
    start: Instant,
    buckets: Mutex<Vec<Counts>>,
}

impl Point {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, buckets: Mutex::new(Vec::new()) }
    }

    pub(crate) fn add(&self, at: Instant, counts: &Counts) {
        if *counts == Counts::default() {
            return;
        }
        let index = bucket_of(at.saturating_duration_since(self.start));
        let mut buckets = lock(&self.buckets);
        if buckets.len() <= index {
            buckets.resize(index + 1, Counts::default());
        }
        buckets[index].add(counts);
    }

    /// Sum over the buckets that begin within `[from, to)`.
    pub(crate) fn sum(&self, from: Duration, to: Duration) -> Counts {
        let mut sum = Counts::default();
        let buckets = lock(&self.buckets);
        let (first, end) = (ceil_bucket(from).min(buckets.len()), ceil_bucket(to).min(buckets.len()));
        for counts in buckets.get(first..end).unwrap_or_default() {
            sum.add(counts);
        }
        sum
    }
}

/// Index of the bucket that `at` falls into.
pub(crate) fn bucket_of(at: Duration) -> usize {
    (at.as_nanos() / BUCKET.as_nanos()) as usize
}

/// Index of the first bucket that begins at or after `at`.
pub(crate) fn ceil_bucket(at: Duration) -> usize {
    at.as_nanos().div_ceil(BUCKET.as_nanos()) as usize
}

/// Locks even if another thread panicked meanwhile: counters have no invariant to protect.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
