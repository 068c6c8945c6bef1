//! Health's wishes as jobs for the probe, and the probe's reports as health's facts.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use seimon_board::Instant;
use seimon_core::health::{CheckOutcome, CheckTarget, EchoFamily, EchoOutcome, ProbeAction, Stage};
use seimon_core::network_plan::Allocation;
use seimon_ipc::probe::{self, CheckJob, EchoJob, FromProbe, ToProbe};
use seimon_plan::{PathId, ServiceId, ValidSitePlan, ZoneId};

/// The probe reports within its timeout; a job that is this much later counts as lost with the probe.
const GRACE: Duration = Duration::from_secs(1);

/// A finished job.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finished {
    Echo { path: PathId, seq: u64, outcome: EchoOutcome },
    Check { target: CheckTarget, outcome: CheckOutcome },
}

#[derive(Debug)]
enum Job {
    Echo { path: PathId, seq: u64, deadline: Instant },
    Check { target: CheckTarget, deadline: Instant },
}

/// Jobs under way.
#[derive(Debug, Default)]
pub(crate) struct Probing {
    next: u64,
    jobs: BTreeMap<u64, Job>,
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
    /// The job for an action; `None` when the plan has nobody to do it (then health hears of a loss at its own timeout).
    pub(crate) fn begin(&mut self, action: ProbeAction, ground: Ground<'_>, now: Instant) -> Option<ToProbe> {
        self.next += 1;
        let thresholds = &ground.plan.migration.thresholds;
        match action {
            ProbeAction::Echo { path, family, seq } => {
                let echo = &ground.plan.echo;
                let (zone, target) = match family {
                    EchoFamily::V4 => (first_zone(ground, &path, |_| true)?, IpAddr::V4(echo.ipv4)),
                    EchoFamily::V6 => (
                        first_zone(ground, &path, |zone| {
                            ground.plan.zones.get(zone).is_some_and(|zone| zone.ipv6.is_some())
                        })?,
                        IpAddr::V6(echo.ipv6?),
                    ),
                };
                let timeout = thresholds.liveness_timeout.0;
                let job = EchoJob {
                    job: self.next,
                    zone,
                    path: path.clone(),
                    target: SocketAddr::new(target, echo.port),
                    timeout_ms: millis(timeout),
                };
                self.jobs.insert(self.next, Job::Echo { path, seq, deadline: now + timeout + GRACE });
                Some(ToProbe::Echo(job))
            }
            ProbeAction::Check(target) => {
                let health = ground.plan.services.get(&target.service)?.health.as_ref()?;
                let name = health.name.to_ascii_lowercase();
                let &(inside4, _) = ground.allocation.inside.get(&(target.zone.clone(), name.clone()))?;
                let timeout = thresholds.check_timeout.0;
                let job = CheckJob {
                    job: self.next,
                    zone: target.zone.clone(),
                    path: target.path.clone(),
                    service: target.service.clone(),
                    resolvers: resolvers(ground.plan, &target.path),
                    connect: SocketAddr::new(IpAddr::V4(inside4), health.port),
                    name,
                    http_path: health.path.clone(),
                    status: health.status,
                    body: health.body.clone(),
                    ca_pem: ground.authorities.get(&target.service).cloned(),
                    timeout_ms: millis(timeout),
                };
                self.jobs.insert(self.next, Job::Check { target, deadline: now + timeout + GRACE });
                Some(ToProbe::Check(job))
            }
        }
    }

    /// What a report says; `None` for a job that is not (any more) under way.
    pub(crate) fn finish(&mut self, report: FromProbe) -> Option<Finished> {
        match report {
            FromProbe::Echoed { job, outcome } => match self.jobs.remove(&job)? {
                Job::Echo { path, seq, deadline: _ } => {
                    let outcome = match outcome {
                        probe::EchoOutcome::Answered { rtt_us, seen } => EchoOutcome::Answered {
                            round_trip: Duration::from_micros(rtt_us),
                            seen: seen.ip().to_canonical(),
                        },
                        probe::EchoOutcome::Lost => EchoOutcome::Lost,
                        probe::EchoOutcome::Refused { reason } => {
                            tracing::debug!(%path, reason, "echo refused");
                            EchoOutcome::Lost
                        }
                    };
                    Some(Finished::Echo { path, seq, outcome })
                }
                check @ Job::Check { .. } => {
                    self.jobs.insert(job, check);
                    None
                }
            },
            FromProbe::Checked { job, outcome } => match self.jobs.remove(&job)? {
                Job::Check { target, deadline: _ } => {
                    let outcome = match outcome {
                        probe::CheckOutcome::Good { total_us } => {
                            CheckOutcome::Good { took: Duration::from_micros(total_us) }
                        }
                        probe::CheckOutcome::Failed { stage, reason } => {
                            CheckOutcome::Failed { stage: stage_of(stage), detail: reason }
                        }
                    };
                    Some(Finished::Check { target, outcome })
                }
                echo @ Job::Echo { .. } => {
                    self.jobs.insert(job, echo);
                    None
                }
            },
            FromProbe::Hello { .. } | FromProbe::Configured { .. } => None,
        }
    }

    /// Jobs that will not be reported any more.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Finished> {
        let late = |job: &Job| match job {
            Job::Echo { deadline, .. } | Job::Check { deadline, .. } => *deadline <= now,
        };

        let ids: Vec<u64> = self.jobs.iter().filter(|(_, job)| late(job)).map(|(&id, _)| id).collect();
        ids.into_iter()
            .filter_map(|id| self.jobs.remove(&id))
            .filter_map(|job| match job {
                Job::Echo { path, seq, .. } => Some(Finished::Echo { path, seq, outcome: EchoOutcome::Lost }),
                // Says nothing about the service: health gives the check up by itself.
                Job::Check { .. } => None,
            })
            .collect()
    }

    /// The probe is gone, and its jobs with it. That says nothing about any path.
    pub(crate) fn abandon(&mut self) {
        self.jobs.clear();
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.jobs
            .values()
            .map(|job| match job {
                Job::Echo { deadline, .. } | Job::Check { deadline, .. } => *deadline,
            })
            .min()
    }
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

fn stage_of(stage: probe::Stage) -> Stage {
    match stage {
        probe::Stage::Dns => Stage::Dns,
        probe::Stage::Tcp => Stage::Tcp,
        probe::Stage::Tls => Stage::Tls,
        probe::Stage::Http => Stage::HttpStatus,
        probe::Stage::Body => Stage::Body,
    }
}
