//! What is known of the schools' ends from looking at the tunnel: who was heard when, from where, and which of its keys a
//! school uses.
//!
//! A source belongs to one key at a time. While a school has two, they are both let in, and its sources belong to the one
//! that it used last:
//!
//! ```text
//!  old ──in use──▶ (plan names new, too) ──▶ handshake by new ──▶ new in use, old still let in ──▶ (plan drops old)
//!                                     ◀── handshake by old ──
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::civil::Date;
use seimon_board::Instant;
use seimon_plan::{HubKey, HubPlan, HubSchool, SiteId, WireguardKey};

use crate::network_plan::{PeerState, TunnelState};

/// The day, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Today {
    pub date: Date,
    /// Where the clock cannot be trusted, the date is the latest that was once written down: it ends keys, and begins none
    /// later than at once.
    pub trusted: bool,
}

impl Today {
    /// Whether the key lets anybody in.
    pub fn counts(self, key: &HubKey) -> bool {
        key.has_not_run_out(self.date) && (!self.trusted || key.has_begun(self.date))
    }

    /// The school's keys that let it in, as the plan orders them.
    pub fn keys(self, school: &HubSchool) -> impl Iterator<Item = WireguardKey> + '_ {
        school.keys.iter().filter(move |key| self.counts(key)).map(|key| key.public_key)
    }
}

/// How a school's end stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The one that its sources belong to; `None`: none of its keys counts today.
    pub key: Option<WireguardKey>,
    pub endpoint: Option<SocketAddr>,
    pub handshake: Option<Instant>,
    /// When anything came from it.
    pub heard: Option<Instant>,
    /// Bytes inside the tunnel since the roster was begun, over all its keys.
    pub received: u64,
    pub sent: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    endpoint: Option<SocketAddr>,
    handshake: Option<Instant>,
    heard: Option<Instant>,
    received: Count,
    sent: Count,
}

/// A counter that begins anew when the peer is taken out and put in.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    before: u64,
    last: u64,
}

impl Count {
    /// Whether it has grown.
    fn note(&mut self, now: u64) -> bool {
        let grown = now != self.last && now > 0;
        if now < self.last {
            self.before += self.last;
        }
        self.last = now;
        grown
    }

    fn total(self) -> u64 {
        self.before + self.last
    }
}

/// Ages of handshakes come in whole seconds from some kernels and programs; handshakes of one key are further apart.
const AGE_PRECISION: Duration = Duration::from_millis(1_500);

/// Everything known of the schools' ends.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    seen: BTreeMap<WireguardKey, Seen>,
    in_use: BTreeMap<SiteId, WireguardKey>,
}

impl Roster {
    /// Notes the tunnel as it is now, and which keys count today; tells the schools whose sources belong to another key
    /// than before.
    pub fn note(&mut self, plan: &HubPlan, state: &TunnelState, today: Today, now: Instant) -> Vec<SiteId> {
        for (key, peer) in &state.peers {
            self.seen.entry(*key).or_default().note(peer, now);
        }
        let named = |key: &WireguardKey| state.peers.get(key).is_some_and(|peer| !peer.allowed.is_empty());
        let mut moved = Vec::new();
        let mut in_use = BTreeMap::new();
        for (id, school) in &plan.schools {
            let keys: Vec<WireguardKey> = today.keys(school).collect();
            let before = self.in_use.get(id).copied().filter(|key| keys.contains(key));
            // What a run before this one has settled stands.
            let before = before.or_else(|| keys.iter().copied().find(named));
            let Some(key) = self.used_last(&keys, before) else { continue };
            if before.is_some_and(|before| before != key) {
                moved.push(id.clone());
            }
            in_use.insert(id.clone(), key);
        }
        self.in_use = in_use;
        moved
    }

    /// Takes out what no plan names any more.
    pub fn forget_strangers(&mut self, plan: &HubPlan) {
        let known: std::collections::BTreeSet<WireguardKey> =
            plan.schools.values().flat_map(|school| &school.keys).map(|key| key.public_key).collect();
        self.seen.retain(|key, _| known.contains(key));
    }

    fn used_last(&self, keys: &[WireguardKey], before: Option<WireguardKey>) -> Option<WireguardKey> {
        let handshake = |key: &WireguardKey| self.seen.get(key).and_then(|seen| seen.handshake);
        let mut best = before.or_else(|| keys.first().copied())?;
        for key in keys {
            if handshake(key) > handshake(&best) {
                best = *key;
            }
        }
        Some(best)
    }

    /// The key that the school's sources belong to.
    pub fn key_in_use(&self, school: &SiteId) -> Option<WireguardKey> {
        self.in_use.get(school).copied()
    }

    /// Where a key's holder was last.
    pub fn endpoint(&self, key: &WireguardKey) -> Option<SocketAddr> {
        self.seen.get(key).and_then(|seen| seen.endpoint)
    }

    /// Where everybody was last: what a hub that is started again would have to wait for.
    pub fn endpoints(&self) -> BTreeMap<WireguardKey, SocketAddr> {
        self.seen.iter().filter_map(|(key, seen)| Some((*key, seen.endpoint?))).collect()
    }

    /// As [`Self::endpoints`] of a run before this one; what has been seen since counts more.
    pub fn recall(&mut self, endpoints: BTreeMap<WireguardKey, SocketAddr>) {
        for (key, endpoint) in endpoints {
            self.seen.entry(key).or_default().endpoint.get_or_insert(endpoint);
        }
    }

    /// Whether some school may change from one key to another: then the tunnel is to be looked at often.
    pub fn is_anyone_changing(plan: &HubPlan, today: Today) -> bool {
        plan.schools.values().any(|school| school.keys.len() > 1 && today.keys(school).count() > 1)
    }

    pub fn standing(&self, id: &SiteId, school: &HubSchool) -> Standing {
        let mut standing = Standing { key: self.key_in_use(id), ..Standing::default() };
        standing.endpoint = standing.key.and_then(|key| self.endpoint(&key));
        for seen in school.keys.iter().filter_map(|key| self.seen.get(&key.public_key)) {
            standing.handshake = standing.handshake.max(seen.handshake);
            standing.heard = standing.heard.max(seen.heard);
            standing.received += seen.received.total();
            standing.sent += seen.sent.total();
        }
        standing
    }
}

impl Seen {
    fn note(&mut self, peer: &PeerState, now: Instant) {
        let PeerState { endpoint, allowed: _, keepalive: _, handshake, received, sent } = peer;
        self.endpoint = endpoint.or(self.endpoint);
        let at = handshake.map(|age| Instant::from_micros(now.as_micros().saturating_sub(micros(age))));
        // A peer that was taken out and put in has forgotten; we have not. And one handshake, looked at again, is no other.
        self.handshake = match (self.handshake, at) {
            (Some(known), Some(at)) if at <= known + AGE_PRECISION => Some(known),
            (known, at) => at.or(known),
        };
        if self.received.note(*received) {
            self.heard = Some(now);
        }
        self.sent.note(*sent);
    }
}

fn micros(age: std::time::Duration) -> u64 {
    u64::try_from(age.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use seimon_board::Board;

    use super::*;

    const OLD: WireguardKey = WireguardKey([1; 32]);
    const NEW: WireguardKey = WireguardKey([2; 32]);

    fn plan(keys: &str) -> seimon_plan::ValidHubPlan {
        let text = format!(
            "version = 1\nrole = \"hub\"\n[hub]\nid = \"h\"\nname = \"h\"\nboard = \"lab-namespace\"\ntimezone = \"Asia/Tokyo\"\n\
             [lines.w]\nport = \"WAN1\"\nipv4 = \"198.51.100.20/24\"\ngateway4 = \"198.51.100.1\"\n\
             [tunnel]\nline = \"w\"\nprivate_key_file = \"k\"\nipv4 = \"10.60.0.1/16\"\n\
             [town]\nline = \"w\"\nprefixes = [\"10.50.0.0/16\"]\n\
             [schools.a]\nname = \"a\"\nipv4 = \"10.60.1.2\"\nkeys = [{keys}]\n"
        );
        seimon_plan::parse_hub(text.as_bytes(), "t", &Board::shipped("lab-namespace").unwrap())
            .unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn both() -> seimon_plan::ValidHubPlan {
        plan(&format!("{{ public_key = \"{OLD}\" }}, {{ public_key = \"{NEW}\", from = \"2026-11-20\" }}"))
    }

    fn on(date: &str) -> Today {
        Today { date: date.parse().unwrap(), trusted: true }
    }

    fn state(ages: &[(WireguardKey, Option<u64>)]) -> TunnelState {
        let peer =
            |age: &Option<u64>| PeerState { handshake: age.map(Duration::from_secs), ..PeerState::default() };
        TunnelState {
            peers: ages.iter().map(|(key, age)| (*key, peer(age))).collect(),
            ..TunnelState::default()
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    #[test]
    fn an_age_in_whole_seconds_makes_no_handshake_newer_than_it_is() {
        let (plan, today) = (both(), on("2026-11-23"));
        let a = plan.schools.keys().next().unwrap();
        let at = |tenths: u64| Instant::from_millis(tenths * 100);
        let mut roster = Roster::default();
        assert!(roster.note(&plan, &state(&[(OLD, Some(0)), (NEW, None)]), today, at(1_000)).is_empty());
        assert_eq!(
            roster.note(&plan, &state(&[(OLD, Some(0)), (NEW, Some(0))]), today, at(1_006)),
            std::slice::from_ref(a)
        );
        // The same two handshakes; the new peer has forgotten its own.
        assert!(roster.note(&plan, &state(&[(OLD, Some(0)), (NEW, None)]), today, at(1_009)).is_empty());
        assert_eq!(roster.key_in_use(a), Some(NEW));
    }

    #[test]
    fn a_schools_sources_follow_the_key_that_it_used_last_there_and_back() {
        let (plan, today) = (both(), on("2026-11-23"));
        let a = plan.schools.keys().next().unwrap();
        let mut roster = Roster::default();
        assert!(Roster::is_anyone_changing(&plan, today));
        assert!(roster.note(&plan, &state(&[(OLD, Some(5)), (NEW, None)]), today, at(100)).is_empty());
        assert_eq!(roster.key_in_use(a), Some(OLD));
        assert_eq!(
            roster.note(&plan, &state(&[(OLD, Some(50)), (NEW, Some(0))]), today, at(145)),
            std::slice::from_ref(a)
        );
        assert_eq!(roster.key_in_use(a), Some(NEW));
        // In user space the move makes the peer anew, and it has forgotten its handshake.
        assert!(roster.note(&plan, &state(&[(OLD, Some(51)), (NEW, None)]), today, at(146)).is_empty());
        assert_eq!(roster.key_in_use(a), Some(NEW));
        assert_eq!(
            roster.note(&plan, &state(&[(OLD, Some(0)), (NEW, Some(3))]), today, at(150)),
            std::slice::from_ref(a)
        );
        assert_eq!(roster.key_in_use(a), Some(OLD));
    }

    #[test]
    fn a_key_counts_from_its_first_day_to_its_last_and_no_untrusted_clock_begins_or_delays_one() {
        let keys = format!(
            "{{ public_key = \"{OLD}\", until = \"2026-11-22\" }}, {{ public_key = \"{NEW}\", from = \"2026-11-20\" }}"
        );
        let plan = plan(&keys);
        let (a, school) = plan.schools.iter().next().unwrap();
        let keys = |today: Today| today.keys(school).collect::<Vec<_>>();
        assert_eq!(keys(on("2026-11-19")), [OLD]);
        assert_eq!(keys(on("2026-11-20")), [OLD, NEW]);
        assert_eq!(keys(on("2026-11-22")), [OLD, NEW]);
        assert_eq!(keys(on("2026-11-23")), [NEW]);
        let floor = Today { date: "1970-01-01".parse().unwrap(), trusted: false };
        assert_eq!(keys(floor), [OLD, NEW]);
        let mut roster = Roster::default();
        roster.note(&plan, &state(&[(OLD, Some(1))]), on("2026-11-22"), at(10));
        assert_eq!(roster.key_in_use(a), Some(OLD));
        roster.note(&plan, &state(&[(OLD, Some(1))]), on("2026-11-23"), at(11));
        assert_eq!(roster.key_in_use(a), Some(NEW), "whoever holds the old one is let in no more");
    }

    #[test]
    fn counters_that_begin_anew_are_added_up() {
        let (plan, today) = (both(), on("2026-11-23"));
        let (a, school) = plan.schools.iter().next().unwrap();
        let mut roster = Roster::default();
        for (second, received) in [(1, 100), (2, 250), (3, 30), (4, 30)] {
            let mut seen = state(&[(OLD, Some(0))]);
            if let Some(peer) = seen.peers.get_mut(&OLD) {
                peer.received = received;
            }
            roster.note(&plan, &seen, today, at(second));
        }
        let standing = roster.standing(a, school);
        assert_eq!((standing.received, standing.heard), (280, Some(at(3))));
    }
}
