//! The real addresses behind a named service: what the paths' resolvers say, what was proposed to the agent, what is
//! in force.
//!
//! ```text
//!  Lookup (path, name)          Binding (zone, name, path)
//!  A and AAAA asked together ─→ wanted ──Bind{token}──→ agent ──InForce{token}──→ in force ─→ answers may leave
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use seimon_board::Instant;

/// Shortest and longest time between two lookups of a name over a path.
pub(super) const MIN_REFRESH: Duration = Duration::from_secs(5);
pub(super) const MAX_REFRESH: Duration = Duration::from_secs(300);

/// After so long one family's address is proposed without waiting for the other family's answer.
pub(super) const GRACE: Duration = Duration::from_millis(500);

/// What a path's resolvers said about one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Said<A> {
    /// Nothing yet: never asked, or never an answer.
    #[default]
    Nothing,
    /// In the server's order; none: there is no such address.
    Addresses(Vec<A>),
}

/// One family of a binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Choice<A> {
    #[default]
    Unknown,
    Absent,
    Address(A),
}

impl<A: Copy> Choice<A> {
    pub(super) fn address(self) -> Option<A> {
        match self {
            Self::Address(address) => Some(address),
            Self::Unknown | Self::Absent => None,
        }
    }
}

/// The address to bind: the old one as long as the servers still name it (flows of one client keep one peer), else the
/// first, which servers rotate to spread load.
pub(super) fn choose<A: Copy + PartialEq>(old: Choice<A>, said: &Said<A>) -> Choice<A> {
    match said {
        Said::Nothing => old,
        Said::Addresses(addresses) => match old.address().filter(|old| addresses.contains(old)) {
            Some(kept) => Choice::Address(kept),
            None => addresses.first().map_or(Choice::Absent, |first| Choice::Address(*first)),
        },
    }
}

/// Whether traffic to a service may be sent there: an answer that names this box, a group or a link is nonsense, and
/// translating to it would be an attack.
pub(super) fn is_plausible(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let [first, ..] = a.octets();
            first != 0 && first < 224 && !a.is_loopback() && !a.is_link_local()
        }
        IpAddr::V6(a) => {
            !a.is_unspecified()
                && !a.is_loopback()
                && !a.is_multicast()
                && !a.is_unicast_link_local()
                && a.to_ipv4_mapped().is_none()
        }
    }
}

/// Questions under way and their results, per (path, name); shared by all zones.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    pub(super) v4: Said<Ipv4Addr>,
    pub(super) v6: Said<Ipv6Addr>,
    pub(super) job4: Option<u64>,
    pub(super) job6: Option<u64>,
    /// Shortest TTL heard in this round.
    pub(super) ttl: Option<Duration>,
    /// Rounds in a row in which a family got no answer.
    pub(super) failures: u32,
    pub(super) failed_in_round: bool,
    /// When the last round ended.
    pub(super) settled: Option<Instant>,
    /// When the next round begins; timers that come earlier are old.
    pub(super) next: Option<Instant>,
}

impl Lookup {
    pub(super) fn is_busy(&self) -> bool {
        self.job4.is_some() || self.job6.is_some()
    }

    /// Ends the round: time until the next.
    pub(super) fn end_round(&mut self, now: Instant) -> Duration {
        self.settled = Some(now);
        let pause = if self.failed_in_round {
            self.failures = self.failures.saturating_add(1);
            MIN_REFRESH * 2_u32.saturating_pow(self.failures.saturating_sub(1).min(4))
        } else {
            self.failures = 0;
            self.ttl.unwrap_or(MIN_REFRESH).clamp(MIN_REFRESH, MAX_REFRESH)
        };
        (self.ttl, self.failed_in_round) = (None, false);
        self.next = Some(now + pause);
        pause
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Real {
    pub(super) v4: Choice<Ipv4Addr>,
    pub(super) v6: Choice<Ipv6Addr>,
}

impl Real {
    /// As the agent sees it.
    pub(super) fn pair(self) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        (self.v4.address(), self.v6.address())
    }
}

/// State of (zone, name, path).
#[derive(Debug, Default)]
pub(super) struct Binding {
    pub(super) wanted: Option<Real>,
    /// Of the Bind that the agent has not answered.
    pub(super) token: Option<u64>,
    pub(super) in_force: Option<Real>,
    /// Times in a row that the agent could not.
    pub(super) refused: u32,
    /// Queries that wait for it.
    pub(super) waiting: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_address_stays_while_the_servers_still_name_it() {
        let [a, b] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        let said = |list: &[Ipv4Addr]| Said::Addresses(list.to_vec());
        for (old, said, new) in [
            (Choice::Unknown, said(&[b, a]), Choice::Address(b)),
            (Choice::Address(a), said(&[b, a]), Choice::Address(a)),
            (Choice::Address(a), said(&[b]), Choice::Address(b)),
            (Choice::Address(a), said(&[]), Choice::Absent),
            (Choice::Address(a), Said::Nothing, Choice::Address(a)),
            (Choice::Unknown, Said::Nothing, Choice::Unknown),
        ] {
            assert_eq!(choose(old, &said), new, "{old:?} {said:?}");
        }
    }

    #[test]
    fn rounds_come_back_after_the_ttl_and_slower_while_they_fail() {
        let seconds = Duration::from_secs;
        for (ttl, pause) in [(0, 5), (1, 5), (60, 60), (86_400, 300)] {
            let mut lookup = Lookup { ttl: Some(seconds(ttl)), ..Lookup::default() };
            assert_eq!(lookup.end_round(Instant::ZERO), seconds(pause));
        }
        let mut lookup = Lookup::default();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            lookup.failed_in_round = true;
            pauses.push(lookup.end_round(Instant::ZERO).as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 80, 80]);
    }

    #[test]
    fn nonsense_addresses_are_never_bound() {
        for bad in
            ["0.0.0.0", "0.1.2.3", "127.0.0.53", "169.254.1.1", "224.0.0.1", "255.255.255.255", "::", "::1"]
                .into_iter()
                .chain(["ff02::1", "fe80::1", "::ffff:10.0.0.1"])
        {
            assert!(!is_plausible(bad.parse().unwrap()), "{bad}");
        }
        for good in ["10.1.2.3", "192.168.0.1", "203.0.113.5", "2001:db8::1", "fd00::1"] {
            assert!(is_plausible(good.parse().unwrap()), "{good}");
        }
    }
}
