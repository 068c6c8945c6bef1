//! Who has used the proxy in the last hour, and who has taken which PAC file. Addresses stay in memory; what leaves are
//! counts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use seimon_board::Instant;
use seimon_plan::{GroupId, ZoneId};
use serde::{Deserialize, Serialize};

/// What is remembered.
const HOUR: Duration = Duration::from_secs(3600);
/// Flows are counted in slots of this length.
const SLOT: Duration = Duration::from_secs(60);
/// Clients of a zone that are told apart; more are counted as this many.
const MOST_CLIENTS: usize = 4_096;

/// How much clients use the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyUse {
    pub clients: u32,
    pub flows: u64,
}

impl ProxyUse {
    pub fn is_none(self) -> bool {
        self.clients == 0 && self.flows == 0
    }
}

/// A flow from a zone to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// The kernel's number for it; unique among live flows.
    pub id: u32,
    pub zone: ZoneId,
    pub client: IpAddr,
    /// Both ways, so far.
    pub bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct OfZone {
    /// When each client was last seen to use the proxy.
    users: BTreeMap<IpAddr, Instant>,
    /// New flows by slot, the oldest first.
    flows: VecDeque<(Instant, u64)>,
    /// When each client last asked where a PAC file is.
    asked: BTreeMap<IpAddr, Instant>,
    /// The number of the PAC file that each client took last, and when.
    took: BTreeMap<IpAddr, (u64, Instant)>,
    /// Groups that go directly, and the number of the first PAC file that says so.
    direct: BTreeMap<GroupId, u64>,
}

/// See the module. All methods take the time; nothing is forgotten by itself.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    zones: BTreeMap<ZoneId, OfZone>,
    /// Live flows and their bytes when last looked at.
    live: BTreeMap<u32, u64>,
    /// Number of the PAC files served now.
    serial: u64,
}

impl Watch {
    /// All live flows to the proxy, as just looked at. Those that are new or have carried bytes since the last look:
    /// their clients are at work.
    pub fn look(&mut self, flows: &[Proxied], now: Instant) -> BTreeSet<(ZoneId, IpAddr)> {
        let mut at_work = BTreeSet::new();
        for flow in flows {
            let before = self.live.get(&flow.id).copied();
            if before == Some(flow.bytes) {
                continue;
            }
            at_work.insert((flow.zone.clone(), flow.client));
            let zone = self.zones.entry(flow.zone.clone()).or_default();
            remember(&mut zone.users, flow.client, now);
            if before.is_none() {
                match zone.flows.back_mut() {
                    Some((slot, count)) if now.since(*slot) < SLOT => *count += 1,
                    Some(_) | None => zone.flows.push_back((now, 1)),
                }
            }
        }
        self.live = flows.iter().map(|flow| (flow.id, flow.bytes)).collect();
        self.forget(now);
        at_work
    }

    /// What is older than an hour is nobody's business any more.
    fn forget(&mut self, now: Instant) {
        for zone in self.zones.values_mut() {
            zone.users.retain(|_, at| now.since(*at) <= HOUR);
            zone.asked.retain(|_, at| now.since(*at) <= HOUR);
            while zone.flows.front().is_some_and(|(at, _)| now.since(*at) > HOUR) {
                zone.flows.pop_front();
            }
            // A browser asks again when it is started, so this is kept for longer.
            zone.took.retain(|_, (_, at)| now.since(*at) <= HOUR * 24);
        }
    }

    /// A client asked for the address of a PAC server.
    pub fn asked(&mut self, zone: &ZoneId, client: IpAddr, now: Instant) {
        remember(&mut self.zones.entry(zone.clone()).or_default().asked, client, now);
    }

    /// Whether a file of this number tells the client something that none before told it.
    pub fn is_news(&self, zone: &ZoneId, client: IpAddr, serial: u64) -> bool {
        let Some(zone) = self.zones.get(zone) else { return true };
        zone.took.get(&client).is_none_or(|(took, _)| *took < serial)
    }

    /// A client took the PAC file of this number.
    pub fn took(&mut self, zone: &ZoneId, client: IpAddr, serial: u64, now: Instant) {
        remember(&mut self.zones.entry(zone.clone()).or_default().took, client, (serial, now));
    }

    /// The groups of each zone that the PAC files let go directly from now on; the files' number, greater whenever they
    /// differ.
    pub fn serve(&mut self, direct: &BTreeMap<ZoneId, BTreeSet<GroupId>>) -> u64 {
        let mut as_before = true;
        for (zone, groups) in direct {
            let known = &self.zones.entry(zone.clone()).or_default().direct;
            as_before &= known.keys().eq(groups.iter());
        }
        if as_before && self.serial > 0 {
            return self.serial;
        }
        self.serial += 1;
        for (zone, groups) in direct {
            let of_zone = self.zones.entry(zone.clone()).or_default();
            of_zone.direct.retain(|group, _| groups.contains(group));
            for group in groups {
                of_zone.direct.entry(group.clone()).or_insert(self.serial);
            }
        }
        self.serial
    }

    /// Whether the client has been told that the group goes directly.
    pub fn knows(&self, zone: &ZoneId, group: &GroupId, client: IpAddr) -> bool {
        let Some(zone) = self.zones.get(zone) else { return false };
        match (zone.direct.get(group), zone.took.get(&client)) {
            (Some(since), Some((took, _))) => took >= since,
            (_, _) => false,
        }
    }

    /// Everybody who used the proxy in the last hour.
    pub fn used(&self, zone: &ZoneId, now: Instant) -> ProxyUse {
        let Some(zone) = self.zones.get(zone) else { return ProxyUse::default() };
        let clients = zone.users.values().filter(|at| now.since(**at) <= HOUR).count();
        let flows = zone.flows.iter().filter(|(at, _)| now.since(*at) <= HOUR).map(|(_, count)| count).sum();
        ProxyUse { clients: u32::try_from(clients).unwrap_or(u32::MAX), flows }
    }

    /// Of those, the ones who have not been told that the group goes directly.
    pub fn uninformed(&self, zone: &ZoneId, group: &GroupId, now: Instant) -> u32 {
        let Some(of_zone) = self.zones.get(zone) else { return 0 };
        let lately = of_zone.users.iter().filter(|(_, at)| now.since(**at) <= HOUR);
        let count = lately.filter(|(client, _)| !self.knows(zone, group, **client)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Clients that asked for a PAC server in the last hour.
    pub fn asking(&self, zone: &ZoneId, now: Instant) -> u32 {
        let asked = self.zones.get(zone).map(|zone| &zone.asked);
        let count = asked.into_iter().flatten().filter(|(_, at)| now.since(**at) <= HOUR).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

/// Bounded: when there is no room, who is new is not remembered.
fn remember<V>(of: &mut BTreeMap<IpAddr, V>, client: IpAddr, value: V) {
    if of.len() < MOST_CLIENTS || of.contains_key(&client) {
        of.insert(client, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> ZoneId {
        ZoneId::new("affairs").unwrap()
    }

    fn group(id: &str) -> GroupId {
        GroupId::new(id).unwrap()
    }

    fn client(last: u8) -> IpAddr {
        IpAddr::from([10, 20, 1, last])
    }

    fn flow(id: u32, last: u8, bytes: u64) -> Proxied {
        Proxied { id, zone: zone(), client: client(last), bytes }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    #[test]
    fn clients_and_flows_of_the_last_hour_are_counted_each_once() {
        let mut watch = Watch::default();
        watch.look(&[flow(1, 1, 100), flow(2, 1, 100), flow(3, 2, 100)], at(10));
        watch.look(&[flow(1, 1, 200), flow(3, 2, 100), flow(4, 2, 50)], at(20));
        assert_eq!(watch.used(&zone(), at(20)), ProxyUse { clients: 2, flows: 4 });
        assert_eq!(watch.used(&ZoneId::new("learning").unwrap(), at(20)), ProxyUse::default());
        // An hour after its last byte nobody is counted any more, nor is what was new then.
        assert_eq!(watch.used(&zone(), at(3_615)), ProxyUse { clients: 2, flows: 0 });
        assert!(watch.used(&zone(), at(3_700)).is_none());
    }

    #[test]
    fn only_who_carries_bytes_is_at_work() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(&[flow(1, 1, 100)], at(0)).len(), 1);
        assert!(watch.look(&[flow(1, 1, 100)], at(5)).is_empty(), "a tunnel that is left open");
        assert_eq!(watch.look(&[flow(1, 1, 101)], at(10)), BTreeSet::from([(zone(), client(1))]));
    }

    #[test]
    fn a_client_knows_that_a_group_goes_directly_once_it_has_taken_a_file_that_says_so() {
        let mut watch = Watch::default();
        let direct = |groups: &[&str]| {
            BTreeMap::from([(zone(), groups.iter().map(|id| group(id)).collect::<BTreeSet<_>>())])
        };
        let before = watch.serve(&direct(&[]));
        assert_eq!(watch.serve(&direct(&[])), before, "nothing has changed");
        watch.took(&zone(), client(1), before, at(0));
        watch.look(&[flow(1, 1, 1), flow(2, 2, 1)], at(1));
        let after = watch.serve(&direct(&["saas"]));
        assert!(after > before);
        assert_eq!(watch.uninformed(&zone(), &group("saas"), at(2)), 2, "the old file does not say so");
        watch.took(&zone(), client(1), after, at(3));
        assert!(watch.knows(&zone(), &group("saas"), client(1)));
        assert_eq!(watch.uninformed(&zone(), &group("saas"), at(4)), 1);
        // Back and forth: who has the file in between is told nothing true.
        watch.serve(&direct(&[]));
        assert!(!watch.knows(&zone(), &group("saas"), client(1)));
        let again = watch.serve(&direct(&["saas"]));
        assert!(!watch.knows(&zone(), &group("saas"), client(1)));
        watch.took(&zone(), client(1), again, at(5));
        assert!(watch.knows(&zone(), &group("saas"), client(1)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let mut watch = Watch::default();
        let many: Vec<Proxied> = (0..20_000_u32)
            .map(|i| Proxied { id: i, zone: zone(), client: IpAddr::from(i.to_be_bytes()), bytes: 1 })
            .collect();
        watch.look(&many, at(0));
        for i in 0..20_000_u32 {
            watch.asked(&zone(), IpAddr::from(i.to_be_bytes()), at(0));
        }
        assert_eq!(watch.used(&zone(), at(1)), ProxyUse { clients: 4_096, flows: 20_000 });
        assert_eq!(watch.asking(&zone(), at(1)), 4_096);
        watch.look(&[], at(90_000));
        let of_zone = &watch.zones[&zone()];
        assert!(of_zone.users.is_empty() && of_zone.asked.is_empty() && of_zone.flows.is_empty());
        assert!(watch.live.is_empty());
    }
}
