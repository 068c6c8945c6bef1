//! From which addresses the outside sees us on a path: measured, because there may be several, and compared with what
//! each service has registered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use seimon_board::Instant;

use super::tracker::EchoFamily;

/// Address families that a path carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    V4,
    V6,
    Both,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressVerdict {
    /// Every address measured is registered with every service that asks for it, in every family the path carries.
    /// Also when no service asks.
    Registered,
    /// These are not.
    NotRegistered(BTreeSet<IpAddr>),
    /// Not measured (lately) in some family the path carries.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct EgressTracker {
    families: Families,
    keep: Duration,
    seen: BTreeMap<IpAddr, Instant>,
}

/// More addresses than any provider's pool that a service would register one by one.
const MAX_ADDRESSES: usize = 64;

impl EgressTracker {
    /// `keep`: how long a measurement counts.
    pub fn new(families: Families, keep: Duration) -> Self {
        Self { families, keep, seen: BTreeMap::new() }
    }

    /// The echo service saw us as `address`. True when this is news.
    pub fn handle_seen(&mut self, address: IpAddr, now: Instant) -> bool {
        self.seen.retain(|_, &mut at| now.since(at) <= self.keep);
        if self.seen.len() >= MAX_ADDRESSES && !self.seen.contains_key(&address) {
            return false;
        }
        self.seen.insert(address, now).is_none()
    }

    /// Measurements that still count.
    pub fn addresses(&self, now: Instant) -> BTreeSet<IpAddr> {
        self.seen.iter().filter(|&(_, &at)| now.since(at) <= self.keep).map(|(&a, _)| a).collect()
    }

    /// `registered`: one set for each service of the group; an empty set accepts any address.
    pub fn verdict<'a>(
        &self,
        registered: impl IntoIterator<Item = &'a BTreeSet<IpAddr>>,
        now: Instant,
    ) -> EgressVerdict {
        self.verdict_without(None, registered, now)
    }

    /// The same where one of the families that the path should carry is known not to work: it need not be measured.
    pub fn verdict_without<'a>(
        &self,
        broken: Option<EchoFamily>,
        registered: impl IntoIterator<Item = &'a BTreeSet<IpAddr>>,
        now: Instant,
    ) -> EgressVerdict {
        let asking: Vec<_> = registered.into_iter().filter(|set| !set.is_empty()).collect();
        if asking.is_empty() {
            return EgressVerdict::Registered;
        }
        let measured = self.addresses(now);
        let strangers: BTreeSet<IpAddr> =
            measured.iter().filter(|a| asking.iter().any(|set| !set.contains(a))).copied().collect();
        let (v4, v6) = (measured.iter().any(IpAddr::is_ipv4), measured.iter().any(IpAddr::is_ipv6));
        let complete = match (self.families, broken) {
            (Families::V4, _) | (Families::Both, Some(EchoFamily::V6)) => v4,
            (Families::V6, _) | (Families::Both, Some(EchoFamily::V4)) => v6,
            (Families::Both, None) => v4 && v6,
        };
        if !strangers.is_empty() {
            EgressVerdict::NotRegistered(strangers)
        } else if complete {
            EgressVerdict::Registered
        } else {
            EgressVerdict::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|a| a.parse().expect("an address")).collect()
    }

    fn tracker(families: Families, seen: &[&str]) -> EgressTracker {
        let mut tracker = EgressTracker::new(families, Duration::from_secs(30));
        for address in set(seen) {
            tracker.handle_seen(address, Instant::ZERO);
        }
        tracker
    }

    #[test]
    fn every_measured_address_must_be_registered_with_every_service_that_asks() {
        let saas = set(&["192.0.2.2", "192.0.2.3"]);
        let login = set(&["192.0.2.2"]);
        let one = tracker(Families::V4, &["192.0.2.2"]);
        assert_eq!(one.verdict([&saas, &login, &set(&[])], Instant::ZERO), EgressVerdict::Registered);
        let two = tracker(Families::V4, &["192.0.2.2", "192.0.2.3"]);
        assert_eq!(two.verdict([&saas], Instant::ZERO), EgressVerdict::Registered);
        assert_eq!(
            two.verdict([&saas, &login], Instant::ZERO),
            EgressVerdict::NotRegistered(set(&["192.0.2.3"]))
        );
    }

    #[test]
    fn a_family_that_was_not_measured_leaves_it_unknown() {
        let both = tracker(Families::Both, &["192.0.2.2"]);
        assert_eq!(both.verdict([&set(&["192.0.2.2"])], Instant::ZERO), EgressVerdict::Unknown);
        assert_eq!(
            both.verdict([&set(&["192.0.2.9"])], Instant::ZERO),
            EgressVerdict::NotRegistered(set(&["192.0.2.2"]))
        );
    }

    #[test]
    fn a_family_that_is_broken_need_not_be_measured_but_a_stranger_seen_in_it_counts() {
        let both = tracker(Families::Both, &["192.0.2.2"]);
        let verdict = |tracker: &EgressTracker| {
            tracker.verdict_without(Some(EchoFamily::V6), [&set(&["192.0.2.2"])], Instant::ZERO)
        };
        assert_eq!(verdict(&both), EgressVerdict::Registered);
        let also = tracker(Families::Both, &["192.0.2.2", "2001:db8::9"]);
        assert_eq!(verdict(&also), EgressVerdict::NotRegistered(set(&["2001:db8::9"])));
    }

    #[test]
    fn a_stale_measurement_is_none() {
        let one = tracker(Families::V4, &["192.0.2.2"]);
        let later = Instant::ZERO + Duration::from_secs(31);
        assert_eq!(one.verdict([&set(&["192.0.2.2"])], later), EgressVerdict::Unknown);
    }

    #[test]
    fn nobody_asks_so_nothing_needs_measuring() {
        assert_eq!(
            tracker(Families::Both, &[]).verdict([&set(&[])], Instant::ZERO),
            EgressVerdict::Registered
        );
    }
}
