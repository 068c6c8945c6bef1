//! Everything known about health, in one place, behind the same verbs as every core.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use seimon_board::Instant;
use seimon_plan::{Egress, GroupId, PathId, PathIpv6, PathKind, ServiceId, SitePlan, Thresholds, ZoneId};

use super::egress::{EgressTracker, Families};
use super::facts::PathFacts;
use super::liveness::{Liveness, LivenessConfig, PathLiveness};
use super::passive::{FlowCount, PassiveShare};
use super::quality::{Ailment, PathQuality};
use super::schedule::{CheckTarget, Pace, Schedule, ScheduleConfig};
use super::service::{CheckOutcome, ServiceHealth, ServiceVerdict};

/// Between echoes in the family that does not decide on a path's life: to learn its egress address, and whether it works.
const OTHER_FAMILY_INTERVAL: Duration = Duration::from_secs(2);
/// Between echoes that fill the path's packets: ten of them tell, and there is a minute for it.
const LARGE_INTERVAL: Duration = Duration::from_secs(4);

/// Between echoes over an emergency line that no valid plan leaves without an interval.
const SELDOM: Duration = Duration::from_secs(600);
/// Between echoes over an emergency line that is needed, at the least.
const METERED_INTERVAL: Duration = Duration::from_millis(500);
/// An egress measurement over a line that is seldom looked at counts for so many looks.
const LOOKS_KEPT: u32 = 4;

/// A check is about twenty packets on their way out: with the default interval of 45 s that makes 187 a minute to others'
/// targets, however many services a site has.
const CHECKS_PER_INTERVAL: u32 = 7;

#[derive(Clone, Debug)]
pub struct HealthConfig {
    pub thresholds: Thresholds,
    pub paths: BTreeMap<PathId, Families>,
    /// The longest packets that each path carries, in bytes. Of a path that is not here large packets are not tried.
    pub sizes: BTreeMap<PathId, u16>,
    pub targets: BTreeSet<CheckTarget>,
    /// By group, one set of registered addresses for each of its services.
    pub registered: BTreeMap<GroupId, Vec<BTreeSet<IpAddr>>>,
    /// How long an egress measurement counts.
    pub egress_keep: Duration,
    /// Paths whose egress address strangers use too.
    pub shared: BTreeSet<PathId>,
    /// Paths over emergency lines: how seldom they are looked at while nobody needs them.
    pub metered: BTreeMap<PathId, Duration>,
    /// Steady checks within one `check_interval`, for the whole site; see [`ScheduleConfig::checks_per_interval`].
    pub checks_per_interval: u32,
    /// Checks under way at a time.
    pub max_checks: usize,
    /// Losses in a row, beside `down_lost`, before a path counts as dead.
    pub more_in_row: u32,
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
                let v6 = path.ipv6 != PathIpv6::None && plan.echo.ipv6.is_some() && !plan.is_emergency(id);
                (id.clone(), if v6 { Families::Both } else { Families::V4 })
            })
            .collect();
        let sizes = plan.paths.iter().filter_map(|(id, path)| {
            if plan.is_emergency(id) {
                return None;
            }
            let mtu = match &path.wireguard {
                Some(tunnel) => tunnel.mtu,
                None => plan.lines.get(&path.line)?.mtu,
            };
            // Probe hosts stand on Ethernet.
            Some((id.clone(), mtu.min(1500)))
        });
        let sizes = sizes.collect();
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
            sizes,
            targets,
            registered,
            egress_keep: Duration::from_secs(15),
            shared: plan
                .paths
                .iter()
                .filter(|(_, path)| is_shared(plan, path))
                .map(|(id, _)| id.clone())
                .collect(),
            metered: plan
                .paths
                .iter()
                .filter_map(|(id, path)| {
                    let every = plan.metered(id)?.watch_every(path.wireguard.as_ref());
                    Some((id.clone(), every.unwrap_or(SELDOM)))
                })
                .collect(),
            checks_per_interval: CHECKS_PER_INTERVAL,
            max_checks: 8,
            more_in_row: LivenessConfig::MORE_IN_ROW,
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
    pub size: EchoSize,
    /// So many echoes in a row without an answer are a silence: all of them may be told as lost before `timeout`, once the
    /// newest has had time for its answer. Two in a row without one call for more echoes at once, in quick succession, so
    /// that what is only loss is not taken for silence.
    pub silence: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoSize {
    Small,
    /// So many bytes with all headers: as long as the path's packets may be. Its end is told by [`Health::handle_large`].
    Full(u16),
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
    Path {
        path: PathId,
        verdict: Liveness,
    },
    Service {
        target: CheckTarget,
        verdict: ServiceVerdict,
    },
    Egress {
        path: PathId,
        address: IpAddr,
    },
    /// An address on a path that this group may use, which not every service of it that asks has registered.
    Unregistered {
        path: PathId,
        group: GroupId,
        address: IpAddr,
    },
    /// It carries packets, badly; `None`: well again.
    Ailment {
        path: PathId,
        ailment: Option<Ailment>,
    },
    /// The second family of a path that carries both. Down: its names are to be answered without IPv6 addresses.
    Ipv6 {
        path: PathId,
        verdict: Liveness,
    },
}

#[derive(Clone, Debug)]
pub struct Health {
    config: HealthConfig,
    paths: BTreeMap<PathId, PathLiveness>,
    /// Of IPv6 on paths where IPv4 decides.
    second: BTreeMap<PathId, PathLiveness>,
    quality: BTreeMap<PathId, PathQuality>,
    /// The echo service answers large echoes: some have been answered, over whatever path.
    answers_large: bool,
    egress: BTreeMap<PathId, EgressTracker>,
    services: BTreeMap<CheckTarget, ServiceHealth>,
    passive: BTreeMap<(ZoneId, GroupId, PathId), PassiveShare>,
    schedule: Schedule,
    checks: VecDeque<CheckTarget>,
    events: VecDeque<HealthEvent>,
    /// Emergency lines that are needed now.
    needed: BTreeSet<PathId>,
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
                checks_per_interval: config.checks_per_interval,
                seed: config.seed,
            },
            config.targets.iter().cloned(),
            now,
        );
        let liveness =
            LivenessConfig { more_in_row: config.more_in_row, ..LivenessConfig::from_thresholds(thresholds) };
        let paths = config.paths.keys().map(|p| (p.clone(), PathLiveness::new(liveness.clone()))).collect();
        let both = config.paths.iter().filter(|&(_, &families)| families == Families::Both);
        let second = both.map(|(p, _)| (p.clone(), PathLiveness::new(liveness.clone()))).collect();
        let quality = config.paths.keys().map(|p| (p.clone(), PathQuality::default())).collect();
        let egress = config
            .paths
            .iter()
            .map(|(p, &families)| {
                let seldom =
                    config.metered.get(p).map_or(Duration::ZERO, |every| every.saturating_mul(LOOKS_KEPT));
                (p.clone(), EgressTracker::new(families, config.egress_keep.max(seldom)))
            })
            .collect();
        let services =
            config.targets.iter().map(|t| (t.clone(), ServiceHealth::new(thresholds.ill_count))).collect();
        Self {
            paths,
            second,
            quality,
            answers_large: false,
            egress,
            services,
            passive: BTreeMap::new(),
            schedule,
            checks: VecDeque::new(),
            events: VecDeque::new(),
            needed: BTreeSet::new(),
            config,
        }
    }

    /// A changed plan: what was learnt about paths and services that stay is kept; changed thresholds start afresh.
    pub fn reconfigure(&mut self, config: HealthConfig, now: Instant) {
        let mut new = Self::new(config, now);
        if new.config.thresholds == self.config.thresholds {
            new.paths.extend(self.paths.iter().filter(|(p, _)| new.config.paths.contains_key(*p)).map(clone));
            let both = |p: &PathId| new.config.paths.get(p) == Some(&Families::Both);
            new.second.extend(self.second.iter().filter(|(p, _)| both(p)).map(clone));
            new.services
                .extend(self.services.iter().filter(|(t, _)| new.config.targets.contains(*t)).map(clone));
        }
        new.egress.extend(
            self.egress
                .iter()
                .filter(|(p, _)| new.config.paths.get(*p) == self.config.paths.get(*p))
                .map(clone),
        );
        new.quality.extend(self.quality.iter().filter(|(p, _)| new.config.paths.contains_key(*p)).map(clone));
        new.answers_large = self.answers_large;
        new.passive = std::mem::take(&mut self.passive);
        new.events = std::mem::take(&mut self.events);
        new.needed = std::mem::take(&mut self.needed);
        new.schedule.continue_after(&self.schedule);
        *self = new;
    }

    /// Emergency lines that are needed now, or may be at any moment: these are looked at as often as others, while they cost
    /// what they cost. True: [`Self::echo_orders`] are other ones from now on.
    pub fn set_needed(&mut self, paths: BTreeSet<PathId>) -> bool {
        let changed = self.needed != paths;
        self.needed = paths;
        changed
    }

    /// What the probe is to send all the time, until another configuration or [`Self::set_needed`].
    pub fn echo_orders(&self) -> Vec<EchoOrder> {
        let thresholds = &self.config.thresholds;
        let mut orders = Vec::new();
        for (path, &families) in &self.config.paths {
            let judging = judging(families);
            let mut order = |family, every, size, silence| {
                let timeout = thresholds.liveness_timeout.0;
                orders.push(EchoOrder { path: path.clone(), family, every, timeout, size, silence });
            };
            let silence = Some(thresholds.down_lost.min(thresholds.down_of));
            match self.config.metered.get(path) {
                None => order(judging, thresholds.liveness_interval.0, EchoSize::Small, silence),
                Some(_) if self.needed.contains(path) => {
                    let every = thresholds.liveness_interval.0.max(METERED_INTERVAL);
                    order(judging, every, EchoSize::Small, None);
                }
                Some(every) => order(judging, *every, EchoSize::Small, None),
            }
            if families == Families::Both {
                order(EchoFamily::V6, OTHER_FAMILY_INTERVAL, EchoSize::Small, None);
            }
            if let Some(&size) = self.config.sizes.get(path) {
                order(judging, LARGE_INTERVAL, EchoSize::Full(size), None);
            }
        }
        orders
    }

    /// How the next echo of an order ended.
    pub fn handle_echo(&mut self, path: &PathId, family: EchoFamily, outcome: EchoOutcome, now: Instant) {
        let Some(&families) = self.config.paths.get(path) else { return };
        if let EchoOutcome::Answered { seen, .. } = outcome {
            self.see(path, seen, now);
        }
        let end = |liveness: &mut PathLiveness| match outcome {
            EchoOutcome::Answered { round_trip, .. } => liveness.handle_answer(round_trip, now),
            EchoOutcome::Lost => liveness.handle_lost(now),
        };
        if family != judging(families) {
            if let Some(verdict) = self.second.get_mut(path).and_then(end) {
                self.events.push_back(HealthEvent::Ipv6 { path: path.clone(), verdict });
            }
            return;
        }
        let Some(liveness) = self.paths.get_mut(path) else { return };
        let changed = end(liveness);
        let lives = liveness.verdict() != Liveness::Down;
        self.judge_quality(path, |quality| match outcome {
            _ if !lives || changed.is_some() => quality.forget(),
            EchoOutcome::Answered { round_trip, .. } => quality.handle_answer(round_trip, now),
            EchoOutcome::Lost => quality.handle_lost(now),
        });
        self.note(path.clone(), changed);
    }

    /// How the next echo of an order with [`EchoSize::Full`] ended.
    pub fn handle_large(&mut self, path: &PathId, outcome: EchoOutcome, now: Instant) {
        let answered = match outcome {
            EchoOutcome::Answered { seen, .. } => {
                self.see(path, seen, now);
                self.answers_large = true;
                true
            }
            EchoOutcome::Lost => false,
        };
        // A service that answers none says nothing about a path.
        if self.answers_large && self.liveness(path) == Liveness::Up {
            self.judge_quality(path, |quality| quality.handle_large(answered));
        }
    }

    fn see(&mut self, path: &PathId, address: IpAddr, now: Instant) {
        if !self.egress.get_mut(path).is_some_and(|egress| egress.handle_seen(address, now)) {
            return;
        }
        self.events.push_back(HealthEvent::Egress { path: path.clone(), address });
        for (group, registered) in &self.config.registered {
            let is_stranger = registered.iter().any(|set| !set.is_empty() && !set.contains(&address));
            if is_stranger && self.config.targets.iter().any(|t| t.group == *group && t.path == *path) {
                let (path, group) = (path.clone(), group.clone());
                self.events.push_back(HealthEvent::Unregistered { path, group, address });
            }
        }
    }

    fn judge_quality(&mut self, path: &PathId, change: impl FnOnce(&mut PathQuality)) {
        let Some(quality) = self.quality.get_mut(path) else { return };
        let kind = |ailment: Option<Ailment>| ailment.map(|ailment| std::mem::discriminant(&ailment));
        let before = quality.ailment();
        change(quality);
        let ailment = quality.ailment();
        if kind(ailment) != kind(before) {
            self.events.push_back(HealthEvent::Ailment { path: path.clone(), ailment });
        }
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

    /// Of IPv6 on a path that carries both families.
    pub fn ipv6(&self, path: &PathId) -> Liveness {
        self.second.get(path).map_or(Liveness::Unknown, PathLiveness::verdict)
    }

    pub fn ailment(&self, path: &PathId) -> Option<Ailment> {
        self.quality.get(path).and_then(PathQuality::ailment)
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
        let stale_after = self.schedule.steady_interval().saturating_mul(3)
            + self.config.thresholds.check_timeout.0.saturating_mul(2);
        let services = self
            .services
            .iter()
            .filter(|(t, _)| t.zone == *zone && t.group == *group && t.path == *path)
            .map(|(t, health)| (t.service.clone(), health.facts(now, stale_after)))
            .collect();
        let none = Vec::new();
        let registered = self.config.registered.get(group).unwrap_or(&none);
        let egress = self.egress.get(path).map_or(super::EgressVerdict::Unknown, |egress| {
            // A family that is broken is not used: names are answered without it.
            let broken = self.ipv6(path) == Liveness::Down;
            egress.verdict_without(broken.then_some(EchoFamily::V6), registered, now)
        });
        let passive = self.passive.get(&(zone.clone(), group.clone(), path.clone()));
        PathFacts {
            liveness: liveness.verdict(),
            ailment: self.ailment(path),
            loss: liveness.loss(),
            round_trip: liveness.round_trip(),
            egress,
            shared: self.config.shared.contains(path) && registered.iter().any(|set| !set.is_empty()),
            services,
            clients,
            flows: passive.map(|share| share.count(now)).unwrap_or_default(),
            usual_flows: passive.and_then(|share| share.usual(now)),
            bypassed: None,
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

/// What the plan says of the path's egress, and what its line's address tells: 192.0.0.0/29 is the inside of DS-Lite
/// (RFC 6333, 5.7), whose outside addresses many customers share.
fn is_shared(plan: &SitePlan, path: &seimon_plan::Path) -> bool {
    let line = plan.lines.get(&path.line).and_then(|line| line.ipv4);
    let is_ds_lite = || {
        path.kind == PathKind::Plain
            && line.is_some_and(|net| net.addr().octets()[..3] == [192, 0, 0] && net.addr().octets()[3] < 8)
    };
    match path.egress {
        Some(Egress::Shared) => true,
        Some(Egress::Own) => false,
        None => is_ds_lite(),
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
