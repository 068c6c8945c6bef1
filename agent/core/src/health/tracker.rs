//! Everything known about health, in one place, behind the same verbs as every core.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use seimon_board::Instant;
use seimon_plan::{GroupId, PathId, PathIpv6, ServiceId, SitePlan, Thresholds, ZoneId};

use super::egress::{EgressTracker, Families};
use super::facts::PathFacts;
use super::liveness::{Liveness, LivenessConfig, PathLiveness};
use super::passive::{FlowCount, PassiveShare};
use super::schedule::{CheckTarget, Pace, Schedule, ScheduleConfig};
use super::service::{CheckOutcome, ServiceHealth, ServiceVerdict};

/// Between echoes in the family that liveness does not use, only to learn the egress address.
const EGRESS_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct HealthConfig {
    pub thresholds: Thresholds,
    pub paths: BTreeMap<PathId, Families>,
    pub targets: BTreeSet<CheckTarget>,
    /// By group, one set of registered addresses for each of its services.
    pub registered: BTreeMap<GroupId, Vec<BTreeSet<IpAddr>>>,
    /// How long an egress measurement counts.
    pub egress_keep: Duration,
    /// Checks under way at a time.
    pub max_checks: usize,
    /// Spreads the schedule; different for each site.
    pub seed: u64,
}

impl HealthConfig {
    /// What the plan asks for: every path that some route uses, every health check of every routed service over every
    /// path of its route.
    pub fn from_plan(plan: &SitePlan, seed: u64) -> Self {
        let paths = plan
            .paths
            .iter()
            .map(|(id, path)| {
                let v6 = path.ipv6 != PathIpv6::None && plan.echo.ipv6.is_some();
                (id.clone(), if v6 { Families::Both } else { Families::V4 })
            })
            .collect();
        let mut targets = BTreeSet::new();
        for route in &plan.migration.routes {
            for (service, spec) in &plan.services {
                if spec.group == route.group && spec.health.is_some() {
                    targets.extend(route.paths.iter().map(|path| CheckTarget {
                        zone: route.zone.clone(),
                        group: route.group.clone(),
                        service: service.clone(),
                        path: path.clone(),
                    }));
                }
            }
        }
        let mut registered: BTreeMap<GroupId, Vec<BTreeSet<IpAddr>>> = BTreeMap::new();
        for service in plan.services.values() {
            registered
                .entry(service.group.clone())
                .or_default()
                .push(service.registered_egress.iter().copied().collect());
        }
        Self {
            thresholds: plan.migration.thresholds.clone(),
            paths,
            targets,
            registered,
            egress_keep: Duration::from_secs(15),
            max_checks: 8,
            seed,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EchoFamily {
    V4,
    V6,
}

/// Echo requests that the probe sends on a path, again and again, by itself. Each one's end is told by
/// [`Health::handle_echo`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EchoOrder {
    pub path: PathId,
    pub family: EchoFamily,
    pub every: Duration,
    /// An echo without an answer for this long is lost.
    pub timeout: Duration,
}

/// How an echo request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoOutcome {
    /// `round_trip`: where it was measured; not each one's is. `seen`: our source address, as the echo service saw it.
    Answered { round_trip: Option<Duration>, seen: IpAddr },
    /// No answer in time, or the network refused.
    Lost,
}

/// News for the log, and a sign that migration should look again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthEvent {
    Path { path: PathId, verdict: Liveness },
    Service { target: CheckTarget, verdict: ServiceVerdict },
    Egress { path: PathId, address: IpAddr },
}

#[derive(Clone, Debug)]
pub struct Health {
    config: HealthConfig,
    paths: BTreeMap<PathId, PathLiveness>,
    egress: BTreeMap<PathId, EgressTracker>,
    services: BTreeMap<CheckTarget, ServiceHealth>,
    passive: BTreeMap<(ZoneId, GroupId, PathId), PassiveShare>,
    schedule: Schedule,
    checks: VecDeque<CheckTarget>,
    events: VecDeque<HealthEvent>,
}

impl Health {
    pub fn new(config: HealthConfig, now: Instant) -> Self {
        let thresholds = &config.thresholds;
        let schedule = Schedule::new(
            ScheduleConfig {
                check_interval: thresholds.check_interval.0,
                check_interval_moving: thresholds.check_interval_moving.0,
                check_timeout: thresholds.check_timeout.0,
                max_checks: config.max_checks,
                seed: config.seed,
            },
            config.targets.iter().cloned(),
            now,
        );
        let liveness = LivenessConfig::from_thresholds(thresholds);
        let paths = config.paths.keys().map(|p| (p.clone(), PathLiveness::new(liveness.clone()))).collect();
        let egress = config
            .paths
            .iter()
            .map(|(p, &families)| (p.clone(), EgressTracker::new(families, config.egress_keep)))
            .collect();
        let services =
            config.targets.iter().map(|t| (t.clone(), ServiceHealth::new(thresholds.ill_count))).collect();
        Self {
            paths,
            egress,
            services,
            passive: BTreeMap::new(),
            schedule,
            checks: VecDeque::new(),
            events: VecDeque::new(),
            config,
        }
    }

    /// A changed plan: what was learnt about paths and services that stay is kept; changed thresholds start afresh.
    pub fn reconfigure(&mut self, config: HealthConfig, now: Instant) {
        let mut new = Self::new(config, now);
        if new.config.thresholds == self.config.thresholds {
            new.paths.extend(self.paths.iter().filter(|(p, _)| new.config.paths.contains_key(*p)).map(clone));
            new.services
                .extend(self.services.iter().filter(|(t, _)| new.config.targets.contains(*t)).map(clone));
        }
        new.egress.extend(
            self.egress
                .iter()
                .filter(|(p, _)| new.config.paths.get(*p) == self.config.paths.get(*p))
                .map(clone),
        );
        new.passive = std::mem::take(&mut self.passive);
        new.events = std::mem::take(&mut self.events);
        new.schedule.continue_after(&self.schedule);
        *self = new;
    }

    /// What the probe is to send all the time, until another configuration.
    pub fn echo_orders(&self) -> Vec<EchoOrder> {
        let thresholds = &self.config.thresholds;
        let mut orders = Vec::new();
        for (path, &families) in &self.config.paths {
            let judging = judging(families);
            let mut order = |family, every| {
                let timeout = thresholds.liveness_timeout.0;
                orders.push(EchoOrder { path: path.clone(), family, every, timeout });
            };
            order(judging, thresholds.liveness_interval.0);
            if families == Families::Both {
                order(EchoFamily::V6, EGRESS_INTERVAL);
            }
        }
        orders
    }

    /// How the next echo of an order ended.
    pub fn handle_echo(&mut self, path: &PathId, family: EchoFamily, outcome: EchoOutcome, now: Instant) {
        let Some(&families) = self.config.paths.get(path) else { return };
        if let EchoOutcome::Answered { seen, .. } = outcome
            && self.egress.get_mut(path).is_some_and(|egress| egress.handle_seen(seen, now))
        {
            self.events.push_back(HealthEvent::Egress { path: path.clone(), address: seen });
        }
        let Some(liveness) = self.paths.get_mut(path).filter(|_| family == judging(families)) else { return };
        let changed = match outcome {
            EchoOutcome::Answered { round_trip, .. } => liveness.handle_answer(round_trip, now),
            EchoOutcome::Lost => liveness.handle_lost(now),
        };
        self.note(path.clone(), changed);
    }

    pub fn handle_check(&mut self, target: &CheckTarget, outcome: CheckOutcome, now: Instant) {
        self.schedule.handle_done(target);
        let Some(service) = self.services.get_mut(target) else { return };
        if self.paths.get(&target.path).is_some_and(|path| path.verdict() == Liveness::Down) {
            // Says nothing about the service.
            return;
        }
        let failed = matches!(outcome, CheckOutcome::Failed { .. });
        let was_ill = service.facts(now, Duration::MAX).verdict == ServiceVerdict::Ill;
        if let Some(verdict) = service.handle_check(outcome, now) {
            self.events.push_back(HealthEvent::Service { target: target.clone(), verdict });
        }
        let ill = service.facts(now, Duration::MAX).verdict == ServiceVerdict::Ill;
        if (failed && !was_ill) || (!failed && ill) {
            // On the way to another verdict. Not while it stays ill: a service in trouble is not asked more often.
            self.schedule.hurry(target, now);
        }
        if failed && !was_ill {
            // Is it the path or the service? Whoever is to say so must know how it is over the other paths now.
            let beside = |other: &&CheckTarget| {
                (&other.zone, &other.group, &other.service) == (&target.zone, &target.group, &target.service)
                    && other.path != target.path
            };
            for other in self.services.keys().filter(beside) {
                self.schedule.hurry(other, now);
            }
        }
    }

    /// Users' new flows since the last call.
    pub fn handle_flows(
        &mut self,
        zone: &ZoneId,
        group: &GroupId,
        path: &PathId,
        count: FlowCount,
        now: Instant,
    ) {
        self.passive.entry((zone.clone(), group.clone(), path.clone())).or_default().record(count, now);
    }

    pub fn set_pace(&mut self, zone: &ZoneId, group: &GroupId, pace: Pace, now: Instant) {
        self.schedule.set_pace(zone, group, pace, now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.schedule.handle_timeout(now);
        while let Some(target) = self.schedule.poll_check() {
            if self.liveness(&target.path) == Liveness::Down {
                self.schedule.handle_done(&target);
            } else {
                self.checks.push_back(target);
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.poll_timeout()
    }

    /// A check to be done now; its end is told by [`Self::handle_check`].
    pub fn poll_check(&mut self) -> Option<CheckTarget> {
        self.checks.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<HealthEvent> {
        self.events.pop_front()
    }

    pub fn liveness(&self, path: &PathId) -> Liveness {
        self.paths.get(path).map_or(Liveness::Unknown, PathLiveness::verdict)
    }

    pub fn path(&self, path: &PathId) -> Option<&PathLiveness> {
        self.paths.get(path)
    }

    /// Source addresses that the outside has seen lately on this path.
    pub fn egress(&self, path: &PathId, now: Instant) -> BTreeSet<IpAddr> {
        self.egress.get(path).map(|egress| egress.addresses(now)).unwrap_or_default()
    }

    /// What migration of this zone and group is to know about `path`. `clients`: clients that keep this path, as
    /// counted from the kernel's affinity.
    pub fn facts(
        &self,
        zone: &ZoneId,
        group: &GroupId,
        path: &PathId,
        clients: Option<u32>,
        now: Instant,
    ) -> PathFacts {
        let Some(liveness) = self.paths.get(path) else {
            return PathFacts { clients, ..PathFacts::default() };
        };
        let stale_after = self.config.thresholds.check_interval.0.saturating_mul(3)
            + self.config.thresholds.check_timeout.0.saturating_mul(2);
        let services = self
            .services
            .iter()
            .filter(|(t, _)| t.zone == *zone && t.group == *group && t.path == *path)
            .map(|(t, health)| (t.service.clone(), health.facts(now, stale_after)))
            .collect();
        let none = Vec::new();
        let registered = self.config.registered.get(group).unwrap_or(&none);
        PathFacts {
            liveness: liveness.verdict(),
            loss: liveness.loss(),
            round_trip: liveness.round_trip(),
            egress: self
                .egress
                .get(path)
                .map_or(super::EgressVerdict::Unknown, |egress| egress.verdict(registered, now)),
            services,
            clients,
            flows: self
                .passive
                .get(&(zone.clone(), group.clone(), path.clone()))
                .map(|share| share.count(now))
                .unwrap_or_default(),
        }
    }

    /// Health checks of this zone and group.
    pub fn checked_services(&self, zone: &ZoneId, group: &GroupId) -> BTreeSet<ServiceId> {
        let targets = self.config.targets.iter().filter(|t| t.zone == *zone && t.group == *group);
        targets.map(|t| t.service.clone()).collect()
    }

    fn note(&mut self, path: PathId, changed: Option<Liveness>) {
        if let Some(verdict) = changed {
            self.events.push_back(HealthEvent::Path { path, verdict });
        }
    }
}

/// The family whose echoes decide on a path's life; the other one's only tell an address.
fn judging(families: Families) -> EchoFamily {
    match families {
        Families::V4 | Families::Both => EchoFamily::V4,
        Families::V6 => EchoFamily::V6,
    }
}

fn clone<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}
