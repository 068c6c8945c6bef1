//! Health's wishes as jobs for the probe, and the probe's reports as health's facts.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use seimon_board::Instant;
use seimon_core::health::{CheckOutcome, CheckTarget, EchoFamily, EchoOrder, EchoOutcome, EchoSize, Stage};
use seimon_core::network_plan::Allocation;
use seimon_ipc::probe::{self, CheckJob, EchoWatch, FromProbe, SILENCE, ToProbe};
use seimon_plan::{PathId, ServiceId, ValidSitePlan, ZoneId};

/// The probe reports a check within its timeout; one that is this much later is lost with the probe.
const GRACE: Duration = Duration::from_secs(1);

/// What the probe has found out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finished {
    Echo { path: PathId, family: EchoFamily, size: EchoSize, outcome: EchoOutcome },
    Check { target: CheckTarget, outcome: CheckOutcome },
}

#[derive(Debug)]
struct Check {
    target: CheckTarget,
    deadline: Instant,
}

/// Echoes that the probe sends by itself, and checks under way.
#[derive(Debug, Default)]
pub(crate) struct Probing {
    next: u64,
    watches: BTreeMap<u64, (PathId, EchoFamily, EchoSize)>,
    checks: BTreeMap<u64, Check>,
    silence: Option<Silence>,
}

/// How long the probe may be silent.
#[derive(Debug)]
struct Silence {
    until: Instant,
    limit: Duration,
}

/// What jobs are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) plan: &'a ValidSitePlan,
    pub(crate) allocation: &'a Allocation,
    /// PEM text by service, of those that name a file.
    pub(crate) authorities: &'a BTreeMap<ServiceId, String>,
}

impl Probing {
    /// The echoes that the probe is to send from now on, in place of those before. A path that no zone may use has nobody
    /// to send them, and stays unknown.
    pub(crate) fn watch(&mut self, orders: Vec<EchoOrder>, ground: Ground<'_>, now: Instant) -> ToProbe {
        self.watches.clear();
        let mut echoes = Vec::new();
        for order in orders {
            let Some((zone, target)) = sender(&order, ground) else { continue };
            self.next += 1;
            echoes.push(EchoWatch {
                watch: self.next,
                zone,
                path: order.path.clone(),
                target,
                every_ms: millis(order.every),
                timeout_ms: millis(order.timeout),
                length: payload(order.family, order.size),
                silence: order.silence,
            });
            self.watches.insert(self.next, (order.path, order.family, order.size));
            let limit = SILENCE + order.every + order.timeout;
            if self.silence.as_ref().is_none_or(|silence| limit < silence.limit) {
                self.silence = Some(Silence { until: now + limit, limit });
            }
        }
        ToProbe::Watch { echoes }
    }

    /// The job for a check; `None` when the plan has nobody to do it.
    pub(crate) fn check(&mut self, target: CheckTarget, ground: Ground<'_>, now: Instant) -> Option<ToProbe> {
        let timeout = ground.plan.migration.thresholds.check_timeout.0;
        self.next += 1;
        let job = check_job(self.next, &target.zone, &target.path, &target.service, ground)?;
        self.checks.insert(self.next, Check { target, deadline: now + timeout + GRACE });
        Some(ToProbe::Check(job))
    }

    /// What a report says, the oldest first. Nothing about what is not (any more) under way.
    pub(crate) fn finish(&mut self, report: FromProbe, now: Instant) -> Vec<Finished> {
        if let Some(silence) = &mut self.silence {
            silence.until = now + silence.limit;
        }
        match report {
            FromProbe::Watched { results } => results
                .into_iter()
                .filter_map(|result| Some((self.watches.get(&result.watch)?, result.outcomes)))
                .flat_map(|((path, family, size), outcomes)| {
                    outcomes.into_iter().map(|outcome| Finished::Echo {
                        path: path.clone(),
                        family: *family,
                        size: *size,
                        outcome: echo_outcome(outcome, path),
                    })
                })
                .collect(),
            FromProbe::Checked { job, outcome } => {
                let Some(Check { target, deadline: _ }) = self.checks.remove(&job) else { return Vec::new() };
                let outcome = match outcome {
                    probe::CheckOutcome::Good { total_us } => {
                        CheckOutcome::Good { took: Duration::from_micros(total_us) }
                    }
                    probe::CheckOutcome::Failed { stage, reason } => {
                        CheckOutcome::Failed { stage: stage_of(stage), detail: reason }
                    }
                };
                vec![Finished::Check { target, outcome }]
            }
            FromProbe::Hello { .. } | FromProbe::Configured { .. } | FromProbe::Tried { .. } => Vec::new(),
        }
    }

    /// Forgets checks that will not be reported any more; health gives them up by itself, and they say nothing about a
    /// service. An error when the probe says nothing of what it is to say all the time.
    pub(crate) fn expire(&mut self, now: Instant) -> Result<(), Silent> {
        self.checks.retain(|_, check| check.deadline > now);
        match &self.silence {
            Some(silence) if silence.until <= now => Err(Silent(silence.limit)),
            Some(_) | None => Ok(()),
        }
    }

    /// The probe is gone, and its jobs with it. That says nothing about any path.
    pub(crate) fn abandon(&mut self) {
        self.watches.clear();
        self.checks.clear();
        self.silence = None;
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let checks = self.checks.values().map(|check| check.deadline);
        checks.chain(self.silence.as_ref().map(|silence| silence.until)).min()
    }
}

/// The probe has stopped telling.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Silent(Duration);

impl std::fmt::Display for Silent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it has said nothing for {:.1} s", self.0.as_secs_f64())
    }
}

impl std::error::Error for Silent {}

/// A service's whole check from the host of (zone, path); `None` when the plan has none.
pub(crate) fn check_job(
    number: u64,
    zone: &ZoneId,
    path: &PathId,
    service: &ServiceId,
    ground: Ground<'_>,
) -> Option<CheckJob> {
    let health = ground.plan.services.get(service)?.health.as_ref()?;
    let name = health.name.to_ascii_lowercase();
    let &(inside4, _) = ground.allocation.inside.get(&(zone.clone(), name.clone()))?;
    Some(CheckJob {
        job: number,
        zone: zone.clone(),
        path: path.clone(),
        service: service.clone(),
        resolvers: resolvers(ground.plan, path),
        connect: SocketAddr::new(IpAddr::V4(inside4), health.port),
        name,
        http_path: health.path.clone(),
        status: health.status,
        body: health.body.clone(),
        ca_pem: ground.authorities.get(service).cloned(),
        timeout_ms: millis(ground.plan.migration.thresholds.check_timeout.0),
    })
}

/// Of a UDP request: what is left of the packet beside its headers.
fn payload(family: EchoFamily, size: EchoSize) -> u16 {
    let shortest = u16::try_from(seimon_ipc::echo::REQUEST_LEN).unwrap_or(u16::MAX);
    match size {
        EchoSize::Small => shortest,
        EchoSize::Full(bytes) => {
            let headers = match family {
                EchoFamily::V4 => 28,
                EchoFamily::V6 => 48,
            };
            bytes.saturating_sub(headers).max(shortest)
        }
    }
}

fn echo_outcome(outcome: probe::EchoOutcome, path: &PathId) -> EchoOutcome {
    match outcome {
        probe::EchoOutcome::Answered { rtt_us, seen } => EchoOutcome::Answered {
            round_trip: rtt_us.map(Duration::from_micros),
            seen: seen.ip().to_canonical(),
        },
        probe::EchoOutcome::Lost => EchoOutcome::Lost,
        probe::EchoOutcome::Refused { reason } => {
            tracing::debug!(%path, reason, "echo refused");
            EchoOutcome::Lost
        }
    }
}

/// The zone from which an order's echoes are sent, and where to.
fn sender(order: &EchoOrder, ground: Ground<'_>) -> Option<(ZoneId, SocketAddr)> {
    let echo = &ground.plan.echo;
    let (zone, target) = match order.family {
        EchoFamily::V4 => (first_zone(ground, &order.path, |_| true)?, IpAddr::V4(echo.ipv4)),
        EchoFamily::V6 => (
            first_zone(ground, &order.path, |zone| {
                ground.plan.zones.get(zone).is_some_and(|zone| zone.ipv6.is_some())
            })?,
            IpAddr::V6(echo.ipv6?),
        ),
    };
    Some((zone, SocketAddr::new(target, echo.port)))
}

fn first_zone(ground: Ground<'_>, path: &PathId, fits: impl Fn(&ZoneId) -> bool) -> Option<ZoneId> {
    ground.allocation.probes.keys().find(|(zone, of)| of == path && fits(zone)).map(|(zone, _)| zone.clone())
}

fn resolvers(plan: &ValidSitePlan, path: &PathId) -> Vec<IpAddr> {
    // IPv4 first: the probe's host may be in a zone without IPv6.
    let mut servers = plan.paths.get(path).map(|path| path.resolvers.clone()).unwrap_or_default();
    servers.sort_by_key(IpAddr::is_ipv6);
    servers
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn stage_of(stage: probe::Stage) -> Stage {
    match stage {
        probe::Stage::Dns => Stage::Dns,
        probe::Stage::Tcp => Stage::Tcp,
        probe::Stage::Tls => Stage::Tls,
        probe::Stage::Http => Stage::HttpStatus,
        probe::Stage::Body => Stage::Body,
    }
}
