//! Who uses what: live flows and clients with affinity, counted from the kernel, and which affinity is to be kept because a
//! flow under it has carried bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use seimon_board::{Instant, MacAddress};
use seimon_core::health::FlowCount;
use seimon_core::network_plan::{AffinityEntry, Flow, FlowStage, PathIndex, ZoneGroupIndex};

type Way = (ZoneGroupIndex, PathIndex);

#[derive(Debug, Default)]
pub(crate) struct Census {
    /// By conntrack id: bytes when last looked at, and whether it has been counted as answered.
    seen: BTreeMap<u32, Seen>,
    clients: BTreeMap<Way, u64>,
    flows: BTreeMap<Way, u64>,
    counted: bool,
    /// When flows were last looked at.
    looked: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    bytes: u64,
    rounds: u8,
    judged: bool,
}

/// What one look at the kernel told.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Affinity to be kept alive: its clients have flows that carry bytes.
    pub(crate) active: BTreeSet<(Way, IpAddr)>,
    /// Since the look before: those bytes may have been carried that long ago.
    pub(crate) gap: Duration,
    /// Users' flows that have been answered, or not in time, since the last look.
    pub(crate) judged: BTreeMap<Way, FlowCount>,
}

/// A flow that has had no answer after so many looks counts as unanswered.
const ROUNDS_TO_ANSWER: u8 = 3;

/// Between looks at the flows while nothing moves and somebody is logged in: often enough that affinity of a client with one
/// long flow is kept, which is for [`to_keep`] when most of `idle` is left.
const AT_REST: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// Nobody is logged in: a look is for the status only.
const ALONE: Duration = Duration::from_secs(30);

/// A look at the flows walks the kernel's whole connection table, its empty places too: milliseconds, however few they
/// are. `idle`: the shortest time that a log-in may be idle.
pub(crate) fn pace_at_rest(clients: bool, idle: Duration) -> Duration {
    if clients { (idle / 8).clamp(AT_REST.0, AT_REST.1) } else { ALONE }
}

impl Census {
    /// Whether flows are to be looked at again, when that is done every `pace`.
    pub(crate) fn is_due(&self, pace: Duration, now: Instant) -> bool {
        self.looked.is_none_or(|looked| looked + pace <= now)
    }

    pub(crate) fn take_flows(
        &mut self,
        flows: &[Flow],
        ours: impl Fn(IpAddr) -> bool,
        now: Instant,
    ) -> Findings {
        let gap = self.looked.replace(now).map_or(Duration::ZERO, |looked| now.since(looked));
        let mut findings = Findings { gap, ..Findings::default() };
        let mut seen = BTreeMap::new();
        self.flows.clear();
        for flow in flows {
            let (Some(zone_group), Some(path)) = (flow.mark.zone_group(), flow.mark.path()) else { continue };
            if ours(flow.source) {
                continue;
            }
            let way = (zone_group, path);
            *self.flows.entry(way).or_default() += 1;
            let before = self.seen.get(&flow.id).copied();
            let mut here = Seen {
                bytes: flow.bytes,
                rounds: before.map_or(0, |seen| seen.rounds.saturating_add(1)),
                judged: before.is_some_and(|seen| seen.judged),
            };
            // A flow not seen before has refreshed affinity in the kernel by itself when it began; after a restart it may be
            // a finished one that the kernel still remembers, of a log-in long over. A farewell that is repeated over a lossy
            // line is nobody's work either: it would pull its client back to a path that was left.
            if flow.stage == FlowStage::Open && before.is_some_and(|seen| seen.bytes != flow.bytes) {
                findings.active.insert((way, flow.source));
            }
            if !here.judged && (flow.answered || here.rounds >= ROUNDS_TO_ANSWER) {
                let count = findings.judged.entry(way).or_insert(FlowCount { answered: 0, total: 0 });
                count.total += 1;
                count.answered += u64::from(flow.answered);
                here.judged = true;
            }
            seen.insert(flow.id, here);
        }
        self.seen = seen;
        findings
    }

    /// Flows were looked at, but not by us.
    pub(crate) fn nothing_new(&self, now: Instant) -> Findings {
        let gap = self.looked.map_or(Duration::ZERO, |looked| now.since(looked));
        Findings { gap, ..Findings::default() }
    }

    pub(crate) fn take_affinity(&mut self, entries: &[AffinityEntry], ours: impl Fn(MacAddress) -> bool) {
        self.clients.clear();
        for entry in entries.iter().filter(|entry| !ours(entry.client)) {
            *self.clients.entry((entry.zone_group, entry.path)).or_default() += 1;
        }
        self.counted = true;
    }

    /// Somebody is logged in somewhere.
    pub(crate) fn has_clients(&self) -> bool {
        !self.clients.is_empty()
    }

    /// `None`: not counted yet.
    pub(crate) fn clients(&self, zone_group: ZoneGroupIndex, path: PathIndex) -> Option<u64> {
        self.counted.then(|| self.clients.get(&(zone_group, path)).copied().unwrap_or(0))
    }

    pub(crate) fn flows(&self, zone_group: ZoneGroupIndex, path: PathIndex) -> u64 {
        self.flows.get(&(zone_group, path)).copied().unwrap_or(0)
    }
}

/// Affinity entries to refresh: of every active client whose MAC address is known, unless it would outlive nothing, or
/// what it did may have been longer ago (`gap`) than a log-in may be idle.
pub(crate) fn to_keep(
    active: &BTreeSet<(Way, IpAddr)>,
    gap: Duration,
    neighbours: &BTreeMap<IpAddr, MacAddress>,
    affinity: &[AffinityEntry],
    idle: impl Fn(ZoneGroupIndex) -> Duration,
) -> Vec<AffinityEntry> {
    let held: BTreeMap<(Way, MacAddress), Duration> = affinity
        .iter()
        .map(|entry| (((entry.zone_group, entry.path), entry.client), entry.remaining))
        .collect();
    let mut keep = BTreeMap::new();
    for ((zone_group, path), source) in active {
        let Some(&client) = neighbours.get(source) else { continue };
        let full = idle(*zone_group);
        let left = held.get(&((*zone_group, *path), client)).copied().unwrap_or(Duration::ZERO);
        // Refreshed by new flows in the kernel anyway; here only what is about to run out under a long flow.
        if left < full.mul_f64(0.7) && gap < full {
            keep.insert((*zone_group, *path, client), full);
        }
    }
    keep.into_iter()
        .map(|((zone_group, path, client), remaining)| AffinityEntry { path, zone_group, client, remaining })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use seimon_core::network_plan::Mark;

    const GAP: Duration = Duration::from_secs(2);

    fn flow(id: u32, bytes: u64, answered: bool) -> Flow {
        Flow {
            id,
            mark: Mark(0x0000_0301),
            protocol: 6,
            source: "10.20.1.100".parse().unwrap(),
            source_port: 40_000,
            destination: "100.127.0.1".parse().unwrap(),
            destination_port: 443,
            reply_source: "203.0.113.10".parse().unwrap(),
            reply_destination: "10.20.1.100".parse().unwrap(),
            answered,
            stage: FlowStage::Open,
            bytes,
        }
    }

    #[test]
    fn a_farewell_repeated_over_a_lossy_line_keeps_nobody_on_it() {
        let ending = |bytes| Flow { stage: FlowStage::Ending, ..flow(1, bytes, true) };
        let mut census = Census::default();
        census.take_flows(&[flow(1, 10, true)], |_| false, Instant::ZERO);
        assert_eq!(census.take_flows(&[ending(50)], |_| false, Instant::ZERO).active.len(), 0);
        assert_eq!(census.take_flows(&[ending(90)], |_| false, Instant::ZERO).active.len(), 0);
    }

    #[test]
    fn a_flow_keeps_affinity_only_while_it_carries_bytes() {
        let mut census = Census::default();
        assert_eq!(
            census.take_flows(&[flow(1, 10, true)], |_| false, Instant::ZERO).active.len(),
            0,
            "perhaps long over"
        );
        assert_eq!(census.take_flows(&[flow(1, 10, true)], |_| false, Instant::ZERO).active.len(), 0);
        assert_eq!(census.take_flows(&[flow(1, 20, true)], |_| false, Instant::ZERO).active.len(), 1);
    }

    #[test]
    fn a_flow_is_judged_once_answered_at_once_unanswered_after_a_while() {
        let mut census = Census::default();
        let way = (ZoneGroupIndex(3), PathIndex(1));
        let judged = |findings: Findings| findings.judged.get(&way).map(|c| (c.answered, c.total));
        assert_eq!(
            judged(census.take_flows(&[flow(1, 1, true), flow(2, 1, false)], |_| false, Instant::ZERO)),
            Some((1, 1))
        );
        assert_eq!(
            judged(census.take_flows(&[flow(1, 1, true), flow(2, 1, false)], |_| false, Instant::ZERO)),
            None
        );
        assert_eq!(
            judged(census.take_flows(&[flow(1, 1, true), flow(2, 1, false)], |_| false, Instant::ZERO)),
            None
        );
        assert_eq!(
            judged(census.take_flows(&[flow(1, 1, true), flow(2, 1, false)], |_| false, Instant::ZERO)),
            Some((0, 1))
        );
        assert_eq!(
            judged(census.take_flows(&[flow(1, 1, true), flow(2, 1, false)], |_| false, Instant::ZERO)),
            None
        );
    }

    #[test]
    fn only_affinity_that_is_about_to_run_out_is_refreshed() {
        let way = (ZoneGroupIndex(3), PathIndex(1));
        let source: IpAddr = "10.20.1.100".parse().unwrap();
        let mac: MacAddress = "02:00:00:00:00:01".parse().unwrap();
        let neighbours = BTreeMap::from([(source, mac)]);
        let active = BTreeSet::from([(way, source)]);
        let held = |secs| AffinityEntry {
            path: way.1,
            zone_group: way.0,
            client: mac,
            remaining: Duration::from_secs(secs),
        };
        let idle = |_| Duration::from_secs(10);
        assert!(to_keep(&active, GAP, &neighbours, &[held(9)], idle).is_empty());
        assert_eq!(to_keep(&active, GAP, &neighbours, &[held(3)], idle).len(), 1);
        assert_eq!(to_keep(&active, GAP, &neighbours, &[], idle).len(), 1);
        assert!(
            to_keep(&active, Duration::from_secs(30), &neighbours, &[], idle).is_empty(),
            "perhaps long ago"
        );
        assert!(to_keep(&active, GAP, &BTreeMap::new(), &[held(3)], idle).is_empty());
    }

    #[test]
    fn at_rest_flows_are_looked_at_often_enough_to_keep_affinity_and_seldom_when_nobody_is_there() {
        let minutes = Duration::from_secs(1200);
        assert_eq!(pace_at_rest(true, minutes), Duration::from_secs(10));
        for idle in [5, 20, 60, 1200].map(Duration::from_secs) {
            // Two looks see that a flow carries bytes before three tenths more of the time are over.
            assert!(pace_at_rest(true, idle).max(AT_REST.0) <= idle.mul_f64(0.35).max(AT_REST.0), "{idle:?}");
        }
        assert!(pace_at_rest(false, minutes) > pace_at_rest(true, minutes));
        let mut census = Census::default();
        assert!(census.is_due(ALONE, Instant::ZERO), "never looked");
        census.take_flows(&[], |_| false, Instant::ZERO);
        assert!(!census.is_due(ALONE, Instant::from_millis(29_000)));
        assert!(census.is_due(ALONE, Instant::from_millis(30_000)));
        assert!(census.is_due(Duration::ZERO, Instant::ZERO), "a move has begun");
    }
}
