//! The acceptance test: trials are handed to the probe a few at a time, speed is measured alone at the end, the report is
//! signed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use seimon_board::Instant;
use seimon_core::acceptance::{self, Cable, Item, LONGEST, Outcome, Row, Trial, judge, programme};
use seimon_ipc::control::Response;
use seimon_ipc::probe::{self, ToProbe, TrialJob, TrialOutcome};
use seimon_ipc::report::{
    AcceptanceProgress, AcceptanceReport, AcceptanceRow, AcceptanceRun, FORMAT, SignedReport, Topic, Verdict,
    Whose,
};
use seimon_plan::{DeviceKind, LineId};

use crate::agent::{Agent, ProbeState};
use crate::clock::Reading;
use crate::identity::Identity;
use crate::probing::{Ground, check_job, stage_of};
use crate::requests::{bilingual, refused};

/// Trials under way at once: no more than a few users.
const AT_ONCE: usize = 8;
/// After this much of [`LONGEST`] nothing but speed is begun.
const SPEED_FROM: Duration = Duration::from_secs(65);
const SPEED_FOR: Duration = Duration::from_secs(6);
/// To connect, before the speed is measured; for a name; for a machine.
const PATIENCE: Duration = Duration::from_secs(5);
const CHECK_PATIENCE: Duration = Duration::from_secs(10);
/// The probe reports within the timeout; one that is this much later is lost with the probe.
const GRACE: Duration = Duration::from_secs(1);
/// Routers that a packet may pass which should be refused: one.
const HOPS: u8 = 2;

/// The test under way, and the last one's report.
#[derive(Debug)]
pub(crate) struct AcceptanceTest {
    state_dir: PathBuf,
    running: Option<Run>,
    report: Option<SignedReport>,
    next_job: u64,
}

#[derive(Debug)]
struct Run {
    begun: Instant,
    begun_wall: Timestamp,
    items: Vec<Item>,
    outcomes: Vec<Option<Outcome>>,
    waiting: VecDeque<usize>,
    /// One after the other, when nothing else is under way.
    speed: VecDeque<usize>,
    under_way: BTreeMap<u64, (usize, Instant)>,
}

impl AcceptanceTest {
    pub(crate) fn new(state_dir: PathBuf) -> Self {
        Self { state_dir, running: None, report: None, next_job: 0 }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let run = self.running.as_ref()?;
        let deadlines = run.under_way.values().map(|(_, deadline)| *deadline);
        deadlines.chain([run.begun + LONGEST]).min()
    }

    fn progress(&self) -> AcceptanceProgress {
        match &self.running {
            Some(run) => AcceptanceProgress {
                done: count(run.outcomes.iter().filter(|outcome| outcome.is_some()).count()),
                total: count(run.items.len()),
                report: None,
            },
            None => AcceptanceProgress { done: 0, total: 0, report: self.report.clone() },
        }
    }

    /// A trial has ended. Of one that is no longer waited for, nothing is kept.
    pub(crate) fn take(&mut self, job: u64, outcome: TrialOutcome) {
        let Some(run) = &mut self.running else { return };
        let Some((index, _)) = run.under_way.remove(&job) else { return };
        run.outcomes[index] = Some(in_core_words(outcome));
    }

    /// The probe is gone and its trials with it: they are begun again with the next one.
    pub(crate) fn abandon(&mut self) {
        let Some(run) = &mut self.running else { return };
        for (index, _) in std::mem::take(&mut run.under_way).into_values() {
            match run.items[index].trial {
                Trial::Speed { .. } => run.speed.push_front(index),
                Trial::Line { .. }
                | Trial::Name { .. }
                | Trial::Service { .. }
                | Trial::Reach { .. }
                | Trial::Apart { .. } => run.waiting.push_front(index),
            }
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Run {
    fn new(items: Vec<Item>, now: Reading) -> Self {
        let (mut waiting, mut speed) = (VecDeque::new(), VecDeque::new());
        for (index, item) in items.iter().enumerate() {
            match item.trial {
                Trial::Line { .. } => {}
                Trial::Speed { .. } => speed.push_back(index),
                Trial::Name { .. } | Trial::Service { .. } | Trial::Reach { .. } | Trial::Apart { .. } => {
                    waiting.push_back(index);
                }
            }
        }
        let outcomes = vec![None; items.len()];
        let (begun, begun_wall) = (now.mono, now.wall);
        Self { begun, begun_wall, items, outcomes, waiting, speed, under_way: BTreeMap::new() }
    }

    /// What is to be begun now.
    fn next(&mut self, now: Instant) -> Option<usize> {
        if now >= self.begun + SPEED_FROM {
            self.waiting.clear();
        }
        if let Some(index) = self.waiting.front().copied().filter(|_| self.under_way.len() < AT_ONCE) {
            self.waiting.pop_front();
            return Some(index);
        }
        if self.waiting.is_empty() && self.under_way.is_empty() { self.speed.pop_front() } else { None }
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.begun + LONGEST
            || self.waiting.is_empty() && self.speed.is_empty() && self.under_way.is_empty()
    }
}

fn in_core_words(outcome: TrialOutcome) -> Outcome {
    let micros = Duration::from_micros;
    match outcome {
        TrialOutcome::Well { took_us } => Outcome::Well { took: micros(took_us) },
        TrialOutcome::Stopped { stage, reason } => {
            Outcome::Stopped { stage: stage_of(stage), detail: reason }
        }
        TrialOutcome::Connected { took_us } => Outcome::Connected { took: micros(took_us) },
        TrialOutcome::Refused { took_us } => Outcome::Refused { took: micros(took_us) },
        TrialOutcome::NobodyThere { .. } => Outcome::NobodyThere,
        TrialOutcome::Silent => Outcome::Silent,
        TrialOutcome::Loaded { bytes, took_us } => Outcome::Loaded { bytes, took: micros(took_us) },
        TrialOutcome::NotTried { reason } => {
            tracing::warn!(reason, "a trial of the acceptance test could not be made");
            Outcome::NotTried
        }
    }
}

impl Agent {
    pub(crate) fn answer_acceptance(&mut self, run: AcceptanceRun, now: Reading) -> Response {
        if run == AcceptanceRun::Begin && self.acceptance.running.is_none() {
            // Before two minutes of work: can it be signed at all?
            if let Err(error) = Identity::open(&self.acceptance.state_dir) {
                return refused(format!("{error:#}"));
            }
            let plan = self.network.plan();
            let hosts: BTreeSet<_> = self.network.allocation().probes.keys().cloned().collect();
            let items = programme(plan, &hosts, now.calendar);
            self.acceptance.report = None;
            self.acceptance.running = Some(Run::new(items, now));
            self.note(
                "agent",
                "開通試験を始めました。".to_owned(),
                "an acceptance test has begun".to_owned(),
                now,
            );
            self.drive_acceptance(now);
            self.flush_children(now);
        }
        Response::Acceptance(self.acceptance.progress())
    }

    /// Begins trials, gives up what is overdue, writes the report when all is done.
    pub(crate) fn drive_acceptance(&mut self, now: Reading) {
        let Some(run) = &mut self.acceptance.running else { return };
        let overdue: Vec<u64> = run
            .under_way
            .iter()
            .filter(|(_, (_, deadline))| *deadline <= now.mono)
            .map(|(job, _)| *job)
            .collect();
        for job in overdue {
            if let Some((index, _)) = run.under_way.remove(&job) {
                run.outcomes[index] = Some(Outcome::NotTried);
            }
        }
        if self.probe_state == ProbeState::Ready {
            while let Some(index) = run.next(now.mono) {
                self.acceptance.next_job += 1;
                let number = self.acceptance.next_job;
                let ground = Ground {
                    plan: self.network.plan(),
                    allocation: self.network.allocation(),
                    authorities: &self.loaded.authorities,
                };
                match trial_job(number, &run.items[index].trial, ground) {
                    Some(job) => {
                        let deadline = now.mono + Duration::from_millis(job.timeout_ms) + GRACE;
                        self.probe.send(&ToProbe::Trial(job));
                        run.under_way.insert(number, (index, deadline));
                    }
                    None => run.outcomes[index] = Some(Outcome::NotTried),
                }
            }
        }
        if run.is_over(now.mono) {
            self.finish_acceptance(now);
        }
    }

    fn finish_acceptance(&mut self, now: Reading) {
        let Some(run) = self.acceptance.running.take() else { return };
        let outcomes: Vec<Outcome> = run
            .items
            .iter()
            .zip(run.outcomes)
            .map(|(item, outcome)| match &item.trial {
                Trial::Line { line, path } => {
                    let health = self.health.path(path);
                    Outcome::Line {
                        liveness: self.health.liveness(path),
                        loss: health.and_then(|health| health.loss()),
                        round_trip: health.and_then(|health| health.round_trip()),
                        cable: self.cable(line),
                    }
                }
                Trial::Name { .. }
                | Trial::Service { .. }
                | Trial::Reach { .. }
                | Trial::Apart { .. }
                | Trial::Speed { .. } => outcome.unwrap_or(Outcome::NotTried),
            })
            .collect();
        let plan = self.network.plan();
        let rows = judge(plan, &run.items, &outcomes);
        let report = AcceptanceReport {
            format: FORMAT,
            site: plan.site.id.clone(),
            site_name: plan.site.name.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.network.generation().0,
            begun_ms: run.begun_wall.as_millisecond(),
            clock_trusted: now.trusted,
            time_zone: plan.site.timezone.clone(),
            took_ms: u64::try_from(now.mono.since(run.begun).as_millis()).unwrap_or(u64::MAX),
            rows: rows.into_iter().map(row).collect(),
        };
        let failed = report.rows.iter().filter(|row| row.verdict == Verdict::Failed).count();
        match self.signed(&report) {
            Ok(signed) => {
                self.acceptance.report = Some(signed);
                self.note(
                    "agent",
                    format!("開通試験が終わりました。不合格は {failed} 件です。"),
                    format!("the acceptance test is over: {failed} rows failed"),
                    now,
                );
            }
            Err(error) => self.note(
                "agent",
                format!("開通試験の結果に署名できませんでした（{error:#}）"),
                format!("the acceptance test's report could not be signed: {error:#}"),
                now,
            ),
        }
    }

    fn signed(&self, report: &AcceptanceReport) -> Result<SignedReport> {
        let identity = Identity::open(&self.acceptance.state_dir)?;
        let report = serde_json::to_string(report).context("the report")?;
        let signature = identity.sign(report.as_bytes());
        Ok(SignedReport {
            seimon_signed_report: FORMAT,
            report,
            signature,
            public_key: identity.public_key(),
        })
    }

    /// Whether there is a signal on the line's port.
    fn cable(&self, line: &LineId) -> Cable {
        let plan = self.network.plan();
        let interface = plan.lines.get(line).and_then(|line| plan.interface_of(&line.port));
        let carrier = interface.and_then(|interface| {
            std::fs::read_to_string(format!("/sys/class/net/{}/carrier", interface.as_str())).ok()
        });
        match carrier.as_deref().map(str::trim) {
            Some("1") => Cable::In,
            Some("0") => Cable::Out,
            Some(_) | None => Cable::Unknown,
        }
    }
}

/// The probe's job for a trial; `None` when the plan has nobody to do it, or nothing to do it with.
fn trial_job(job: u64, trial: &Trial, ground: Ground<'_>) -> Option<TrialJob> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (zone, path, what, timeout) = match trial {
        Trial::Line { .. } => return None,
        Trial::Name { zone, path, name } => {
            let server = IpAddr::V4(ground.plan.zones.get(zone)?.ipv4.addr());
            (zone, path, probe::Trial::Name { server, name: name.clone() }, PATIENCE)
        }
        Trial::Service { zone, path, service } => {
            let mut check = check_job(job, zone, path, service, ground)?;
            check.timeout_ms = millis(CHECK_PATIENCE);
            (zone, path, probe::Trial::Check { check }, CHECK_PATIENCE)
        }
        Trial::Reach { zone, path, target } => {
            (zone, path, probe::Trial::Connect { target: *target, hops: None }, PATIENCE)
        }
        Trial::Apart { zone, path, target } => {
            (zone, path, probe::Trial::Connect { target: *target, hops: Some(HOPS) }, PATIENCE)
        }
        Trial::Speed { zone, path } => {
            let speed = ground.plan.school.speed.as_ref()?;
            let mut check = check_job(job, zone, path, &speed.service, ground)?;
            check.http_path.clone_from(&speed.path);
            let load = probe::Trial::Load { check, for_ms: millis(SPEED_FOR) };
            (zone, path, load, PATIENCE + SPEED_FOR)
        }
    };
    let (zone, path) = (zone.clone(), path.clone());
    Some(TrialJob { job, zone, path, trial: what, timeout_ms: millis(timeout) })
}

fn row(row: Row) -> AcceptanceRow {
    let Row { topic, subject, verdict, found, whose, to_do } = row;
    AcceptanceRow {
        topic: match topic {
            acceptance::Topic::Line => Topic::Line,
            acceptance::Topic::Names => Topic::Names,
            acceptance::Topic::Identity => Topic::Identity,
            acceptance::Topic::Service => Topic::Service,
            acceptance::Topic::Device(DeviceKind::FileServer) => Topic::FileServer,
            acceptance::Topic::Device(DeviceKind::Printer) => Topic::Printer,
            acceptance::Topic::Separation => Topic::Separation,
            acceptance::Topic::Speed => Topic::Speed,
        },
        subject: bilingual(subject),
        verdict: match verdict {
            acceptance::Verdict::Ok => Verdict::Ok,
            acceptance::Verdict::CannotTell => Verdict::CannotTell,
            acceptance::Verdict::Failed => Verdict::Failed,
        },
        found: bilingual(found),
        whose: whose.map(|whose| match whose {
            acceptance::Whose::School => Whose::School,
            acceptance::Whose::Carrier => Whose::Carrier,
            acceptance::Whose::Provider => Whose::Provider,
            acceptance::Whose::Municipality => Whose::Municipality,
        }),
        to_do: bilingual(to_do),
    }
}
