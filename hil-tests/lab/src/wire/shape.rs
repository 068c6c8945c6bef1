//! What a line does to packets, as a pure function of time, configuration and a seed.

use std::time::{Duration, Instant};

/// What happens to a packet that is larger than the line's MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pmtu {
    /// It is dropped and its sender told (ICMP fragmentation needed, ICMPv6 packet too big).
    Icmp,
    /// It is dropped.
    Silent,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the gateway.
    Up,
    /// To the gateway.
    Down,
}

/// Quality of a line; the same in both directions except for black holes.
#[derive(Clone, Debug, PartialEq)]
pub struct WireConfig {
    /// Largest IP packet in bytes.
    pub mtu: usize,
    pub pmtu: Pmtu,
    pub delay: Duration,
    pub jitter: Duration,
    /// Shares from 0 to 1.
    pub loss: f64,
    pub burst_loss: f64,
    pub reorder: f64,
    pub duplicate: f64,
    /// Bits a second; 0 = unlimited.
    pub rate: u64,
    pub blackhole_up: bool,
    pub blackhole_down: bool,
    /// Every so manieth packet from the gateway is lost; 0: none for this reason.
    pub lose_every: u32,
    /// IPv6 goes no further than the next router.
    pub ipv6_dead: bool,
    /// What clients send is lost; the gateway's own packets pass.
    pub users_lost: bool,
}

impl Default for WireConfig {
    fn default() -> Self {
        Self {
            mtu: 1500,
            pmtu: Pmtu::Icmp,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            burst_loss: 0.0,
            reorder: 0.0,
            duplicate: 0.0,
            rate: 0,
            blackhole_up: false,
            blackhole_down: false,
            lose_every: 0,
            ipv6_dead: false,
            users_lost: false,
        }
    }
}

/// What a line's faults tell packets apart by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kind {
    /// IPv6 that is not between neighbours.
    pub(crate) far_ipv6: bool,
    /// A client sent it.
    pub(crate) of_client: bool,
}

/// Longest time that packets queue before a rate limit.
const QUEUE: Duration = Duration::from_millis(50);
/// How much longer a reordered packet waits.
const LATE: Duration = Duration::from_millis(5);
/// Mean length of a loss burst, in packets.
const BURST: f64 = 8.0;

/// What becomes of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    TooBig,
    /// Leaves at this time, and once more at the other.
    Leaves(Instant, Option<Instant>),
}

/// One direction's memory.
#[derive(Debug)]
pub(crate) struct Shaper {
    random: Random,
    in_burst: bool,
    /// For [`WireConfig::lose_every`].
    count: u32,
    /// When the rate limit's transmitter is free again.
    free_at: Instant,
    /// Nothing that keeps its order leaves before this.
    last: Instant,
}

impl Shaper {
    pub(crate) fn new(seed: u64, now: Instant) -> Self {
        Self { random: Random(seed | 1), in_burst: false, count: 0, free_at: now, last: now }
    }

    /// Decides on a packet of `length` bytes (IP) that arrived at `now`.
    pub(crate) fn admit(
        &mut self,
        config: &WireConfig,
        direction: Direction,
        (kind, length): (Kind, usize),
        now: Instant,
    ) -> Fate {
        let blackhole = match direction {
            Direction::Up => config.blackhole_up || self.is_one_of(config.lose_every),
            Direction::Down => config.blackhole_down,
        };
        let by_kind = (config.ipv6_dead && kind.far_ipv6) || (config.users_lost && kind.of_client);
        if blackhole || by_kind || self.random.hits(config.loss) || self.burst(config.burst_loss) {
            return Fate::Lost;
        }
        if length > config.mtu {
            return Fate::TooBig;
        }
        let mut at = now;
        if config.rate > 0 {
            let start = self.free_at.max(now);
            if start.duration_since(now) > QUEUE {
                return Fate::Lost;
            }
            self.free_at = start + Duration::from_secs_f64(length as f64 * 8.0 / config.rate as f64);
            at = self.free_at;
        }
        at += config.delay;
        if !config.jitter.is_zero() {
            at += config.jitter.mul_f64(self.random.unit());
        }
        if self.random.hits(config.reorder) {
            at += LATE;
        } else {
            at = at.max(self.last);
            self.last = at;
        }
        Fate::Leaves(at, self.random.hits(config.duplicate).then_some(at))
    }

    /// Counts; whether it is the last of `every`.
    fn is_one_of(&mut self, every: u32) -> bool {
        self.count = self.count.wrapping_add(1);
        every > 0 && self.count.is_multiple_of(every)
    }

    /// Two-state Gilbert model: everything is lost in a burst; `share` of time is bursts.
    fn burst(&mut self, share: f64) -> bool {
        if share <= 0.0 {
            self.in_burst = false;
        } else if self.in_burst {
            self.in_burst = !self.random.hits(1.0 / BURST);
        } else {
            self.in_burst = self.random.hits((share / (1.0 - share.min(0.99)) / BURST).min(1.0));
        }
        self.in_burst
    }
}

/// xorshift64*: small, seeded, good enough for losses.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in 0..1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn hits(&mut self, share: f64) -> bool {
        share > 0.0 && self.unit() < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(length: usize) -> (Kind, usize) {
        (Kind::default(), length)
    }

    fn lost(config: &WireConfig, packets: usize) -> (usize, usize) {
        let start = Instant::now();
        let mut shaper = Shaper::new(7, start);
        let (mut lost, mut bursts, mut before) = (0, 0, false);
        for _ in 0..packets {
            let gone = shaper.admit(config, Direction::Up, packet(100), start) == Fate::Lost;
            lost += usize::from(gone);
            bursts += usize::from(gone && !before);
            before = gone;
        }
        (lost, bursts)
    }

    #[test]
    fn independent_loss_and_burst_loss_have_their_share_but_not_the_same_shape() {
        let (even, even_bursts) = lost(&WireConfig { loss: 0.05, ..WireConfig::default() }, 100_000);
        let (bursty, bursts) = lost(&WireConfig { burst_loss: 0.05, ..WireConfig::default() }, 100_000);
        assert!((4_000..6_000).contains(&even), "{even}");
        assert!((4_000..6_000).contains(&bursty), "{bursty}");
        assert!(bursts * 4 < even_bursts, "{bursts} against {even_bursts}");
    }

    #[test]
    fn order_is_kept_with_jitter_and_broken_by_reordering() {
        let start = Instant::now();
        let run = |config: WireConfig| {
            let mut shaper = Shaper::new(3, start);
            let times: Vec<Instant> = (0..1000)
                .map(|i| {
                    match shaper.admit(
                        &config,
                        Direction::Up,
                        packet(100),
                        start + Duration::from_micros(i * 100),
                    ) {
                        Fate::Leaves(at, _) => at,
                        Fate::Lost | Fate::TooBig => panic!("nothing may be lost"),
                    }
                })
                .collect();
            times.windows(2).filter(|pair| pair[1] < pair[0]).count()
        };
        assert_eq!(run(WireConfig { jitter: Duration::from_millis(4), ..WireConfig::default() }), 0);
        assert!(run(WireConfig { reorder: 0.1, ..WireConfig::default() }) > 50);
    }

    #[test]
    fn a_rate_limit_spaces_packets_and_drops_beyond_its_queue() {
        let start = Instant::now();
        let config = WireConfig { rate: 8_000_000, ..WireConfig::default() };
        let mut shaper = Shaper::new(1, start);
        let mut left = 0;
        for _ in 0..200 {
            if let Fate::Leaves(..) = shaper.admit(&config, Direction::Up, packet(1000), start) {
                left += 1;
            }
        }
        assert_eq!(left, 51, "1 ms a packet, 50 ms of queue");
    }

    #[test]
    fn a_black_hole_has_a_direction_and_the_mtu_a_limit() {
        let now = Instant::now();
        let config = WireConfig { blackhole_up: true, mtu: 1400, ..WireConfig::default() };
        let mut shaper = Shaper::new(1, now);
        assert_eq!(shaper.admit(&config, Direction::Up, packet(100), now), Fate::Lost);
        assert_eq!(shaper.admit(&config, Direction::Down, packet(1400), now), Fate::Leaves(now, None));
        assert_eq!(shaper.admit(&config, Direction::Down, packet(1401), now), Fate::TooBig);
    }

    #[test]
    fn every_other_packet_is_lost_upwards_only() {
        let now = Instant::now();
        let config = WireConfig { lose_every: 2, ..WireConfig::default() };
        let mut shaper = Shaper::new(1, now);
        let mut lost = |direction| {
            (0..100).filter(|_| shaper.admit(&config, direction, packet(100), now) == Fate::Lost).count()
        };
        assert_eq!((lost(Direction::Up), lost(Direction::Down)), (50, 0));
    }

    #[test]
    fn dead_ipv6_and_lost_users_leave_everything_else_alone() {
        let now = Instant::now();
        let far_ipv6 = Kind { far_ipv6: true, of_client: false };
        let of_client = Kind { far_ipv6: false, of_client: true };
        for (config, dies, lives) in [
            (WireConfig { ipv6_dead: true, ..WireConfig::default() }, far_ipv6, of_client),
            (WireConfig { users_lost: true, ..WireConfig::default() }, of_client, far_ipv6),
        ] {
            let mut shaper = Shaper::new(1, now);
            assert_eq!(shaper.admit(&config, Direction::Up, (dies, 100), now), Fate::Lost);
            assert_eq!(shaper.admit(&config, Direction::Up, (lives, 100), now), Fate::Leaves(now, None));
        }
    }
}
