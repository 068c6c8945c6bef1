//! The judgements, as functions of facts: what stands against a move, what speaks for leaving, where to flee.

use std::collections::BTreeMap;
use std::time::Duration;

use seimon_board::Instant;
use seimon_plan::{PathId, ServiceId};

use super::config::{Config, Switch};
use super::hold::Holds;
use super::state::{BlockReason, Cause};
use super::veto::Veto;
use super::view::{ClockTrust, DiskRoom, View, WindowState};
use crate::health::{
    Ailment, Blame, EgressVerdict, Liveness, PathFacts, ServiceFacts, ServiceVerdict, blame,
};

/// When vetoes are asked for.
#[derive(Clone, Copy, Debug)]
pub enum Phase<'a> {
    Start,
    /// With the good checks in a row so far.
    CutOver(&'a BTreeMap<ServiceId, u32>),
}

/// Everything that stands against moving from `from` to `to` now, hold-downs apart. Empty: nothing.
pub fn vetoes(config: &Config, view: &View, from: &PathId, to: &PathId, phase: Phase<'_>) -> Vec<Veto> {
    let mut vetoes = Vec::new();
    let path = || to.clone();
    if config.mechanisms.window_veto == Switch::On {
        match &view.window {
            WindowState::Open => {}
            WindowState::Closed { next } => vetoes.push(Veto::WindowClosed { next: next.clone() }),
            WindowState::Frozen { reason, until } => {
                vetoes.push(Veto::Frozen { reason: reason.clone(), until: until.clone() });
            }
        }
        if view.clock == ClockTrust::NotTrusted {
            vetoes.push(Veto::ClockNotTrusted);
        }
    }
    if config.mechanisms.disk_veto == Switch::On && view.disk == DiskRoom::Short {
        vetoes.push(Veto::DiskFull);
    }
    if !config.paths.contains(to) {
        vetoes.push(Veto::PathNotInRoute { path: path(), route: config.paths.clone() });
        return vetoes;
    }
    if from == to {
        vetoes.push(Veto::AlreadyThere { path: path() });
        return vetoes;
    }
    if config.is_emergency(from) {
        vetoes.push(Veto::OnEmergencyLine { path: from.clone() });
    }
    let unknown = PathFacts::default();
    let candidate = view.paths.get(to).unwrap_or(&unknown);
    let current = view.paths.get(from).unwrap_or(&unknown);
    match candidate.liveness {
        Liveness::Up => {}
        Liveness::Down => vetoes.push(Veto::CandidateDown { path: path() }),
        Liveness::Unknown => vetoes.push(Veto::CandidateUnknown { path: path() }),
    }
    if config.mechanisms.egress_veto == Switch::On {
        match &candidate.egress {
            EgressVerdict::Registered => {}
            EgressVerdict::NotRegistered(addresses) => {
                vetoes.push(Veto::EgressNotRegistered { path: path(), addresses: addresses.clone() });
            }
            EgressVerdict::Unknown => vetoes.push(Veto::EgressNotMeasured { path: path() }),
        }
        if candidate.shared {
            vetoes.push(Veto::EgressShared { path: path() });
        }
    }
    if let Some(proxied) = candidate.bypassed.filter(|_| config.mechanisms.proxy_veto == Switch::On) {
        let zone = config.zone_group.zone.clone();
        vetoes.push(Veto::ProxyInTheWay { zone, clients: proxied.clients, flows: proxied.flows });
    }
    if let Some(ailment) = ailment(config, candidate) {
        vetoes.push(Veto::Ailing { path: path(), ailment });
    }
    for service in candidate.ill() {
        let stage = candidate.services.get(service).and_then(|s| s.failing.as_ref()).map(|(stage, _)| *stage);
        vetoes.push(Veto::ServiceIll { path: path(), service: service.clone(), stage });
    }
    if config.mechanisms.baseline_veto == Switch::On {
        vetoes.extend(slower(config, current, candidate, to));
        vetoes.extend(lossier(config, current, candidate, to));
    }
    if let Phase::CutOver(good) = phase {
        let needed = config.thresholds.qualify_checks;
        for service in &config.checked {
            let good = good.get(service).copied().unwrap_or(0);
            if good < needed {
                vetoes.push(Veto::NotQualified { path: path(), service: service.clone(), good, needed });
            }
        }
    }
    vetoes
}

/// A service that is ill over the current path has no baseline.
fn slower(config: &Config, current: &PathFacts, candidate: &PathFacts, to: &PathId) -> Vec<Veto> {
    let thresholds = &config.thresholds;
    let compare = |(service, facts): (&ServiceId, &crate::health::ServiceFacts)| {
        let baseline = current.services.get(service).filter(|b| b.verdict == ServiceVerdict::Well)?.median?;
        let took = facts.median?;
        let by_ratio = Duration::try_from_secs_f64(baseline.as_secs_f64() * thresholds.latency_ratio)
            .unwrap_or(Duration::MAX);
        let allowed = by_ratio.max(baseline.saturating_add(thresholds.latency_slack.0));
        (took > allowed).then(|| Veto::Slower {
            path: to.clone(),
            service: service.clone(),
            took,
            current: baseline,
            allowed,
        })
    };
    candidate.services.iter().filter_map(compare).collect()
}

fn lossier(config: &Config, current: &PathFacts, candidate: &PathFacts, to: &PathId) -> Option<Veto> {
    let permille = |share: f64| (share * 1000.0).round() as u32;
    let allowed = current.loss.unwrap_or(0.0) + config.thresholds.loss_slack;
    let lost = candidate.loss?;
    (lost > allowed).then(|| Veto::Lossier {
        path: to.clone(),
        lost: permille(lost),
        allowed: permille(allowed),
    })
}

/// A brown-out, unless they are not looked at.
fn ailment(config: &Config, facts: &PathFacts) -> Option<Ailment> {
    facts.ailment.filter(|_| config.mechanisms.brown_out == Switch::On)
}

/// Nothing is known that users of the path would suffer from.
fn is_well_known(config: &Config, facts: &PathFacts) -> bool {
    facts.ill().next().is_none() && ailment(config, facts).is_none()
}

/// Whether the services accept what they see of us on this path.
fn registered(config: &Config, facts: &PathFacts) -> bool {
    config.mechanisms.egress_veto == Switch::Off || facts.egress == EgressVerdict::Registered
}

/// A living path for traffic whose path is dead: `prefer` first, then home, then the route's order; one over which nothing is
/// ill before one over which something is.
pub(super) fn refuge(
    config: &Config,
    view: &View,
    leaving: &PathId,
    prefer: Option<&PathId>,
    home: &PathId,
) -> Result<PathId, BlockReason> {
    let order = prefer.into_iter().chain([home]).chain(&config.paths);
    let living: Vec<(&PathId, &PathFacts)> = order
        .filter(|path| *path != leaving && config.paths.contains(path))
        .filter_map(|path| view.paths.get(path).map(|facts| (path, facts)))
        .filter(|(_, facts)| facts.liveness == Liveness::Up)
        .collect();
    let acceptable = || living.iter().filter(|(_, facts)| registered(config, facts));
    let chosen = acceptable().find(|(_, facts)| is_well_known(config, facts)).or_else(|| acceptable().next());
    match chosen {
        Some((path, _)) => Ok((*path).clone()),
        None if living.is_empty() => Err(BlockReason::NoLivingPath),
        None => {
            let mut living: Vec<PathId> = living.into_iter().map(|(path, _)| path.clone()).collect();
            living.dedup();
            Err(BlockReason::NotRegistered { living })
        }
    }
}

/// Whether the path lives and the services accept us there.
pub(super) fn can_carry(config: &Config, view: &View, path: &PathId) -> bool {
    config.paths.contains(path) && carries(config, view, path)
}

fn carries(config: &Config, view: &View, path: &PathId) -> bool {
    let facts = view.paths.get(path);
    facts.is_some_and(|facts| facts.liveness == Liveness::Up && registered(config, facts))
}

/// A path over an emergency line that can carry this traffic, while every ordinary path is known to be dead: not while
/// one is only not known, nor while one lives where the services do not accept us.
pub(super) fn last_resort(config: &Config, view: &View, leaving: &PathId) -> Option<PathId> {
    let dead = |path: &PathId| view.liveness(path) == Liveness::Down;
    if config.mechanisms.emergency == Switch::Off || !config.paths.iter().all(dead) {
        return None;
    }
    config.emergency.iter().find(|path| *path != leaving && carries(config, view, path)).cloned()
}

/// Whether an ordinary path is well enough to leave an emergency line for it.
pub(super) fn is_worth_returning(config: &Config, view: &View, path: &PathId) -> bool {
    is_good(config, view, path) && all_well(config, view, path)
}

/// Whether a path that works should be left for this one: it lives, carries packets well, the services accept us there, and
/// none is ill.
pub(super) fn is_good(config: &Config, view: &View, path: &PathId) -> bool {
    can_carry(config, view, path) && view.paths.get(path).is_some_and(|facts| is_well_known(config, facts))
}

/// Whether every checked service is known to work over `path`.
pub(super) fn all_well(config: &Config, view: &View, path: &PathId) -> bool {
    view.paths.get(path).is_some_and(|facts| {
        facts.liveness == Liveness::Up
            && config.checked.iter().all(|service| facts.service(service) == ServiceVerdict::Well)
    })
}

/// Verdicts on one service over the living paths of the route, as far as they can be compared: a service that fails
/// everywhere does not fail, and recover, in the same instant everywhere.
///
/// A path whose latest check failed is not known to be well, even before that makes it ill. A path whose latest check
/// succeeded is not known to be ill, even before it is well. And where another path is well, a path is known to be ill only
/// by a check that began when the other was well already, and only if the other was found well since the failures began:
/// before that it may have been well as everything was.
fn verdicts(config: &Config, view: &View, service: &ServiceId) -> BTreeMap<PathId, ServiceVerdict> {
    let living: Vec<(&PathId, Option<&ServiceFacts>)> = config
        .paths
        .iter()
        .filter(|path| view.liveness(path) == Liveness::Up)
        .map(|path| (path, view.paths.get(path).and_then(|facts| facts.services.get(service))))
        .collect();
    let well: Vec<&ServiceFacts> = living.iter().filter_map(|(_, facts)| facts.filter(is_well)).collect();
    let longest = config.thresholds.check_timeout.0;
    let verdict = |facts: Option<&ServiceFacts>| {
        let Some(facts) = facts else { return ServiceVerdict::Unknown };
        let began_after = |other: &ServiceFacts| match (facts.last_bad, other.good_since) {
            (Some(bad), Some(since)) => bad >= since + longest,
            (None, _) | (_, None) => true,
        };
        let well_since = |other: &ServiceFacts| match (facts.bad_since, other.last_good) {
            (Some(bad), Some(good)) => good >= bad,
            (None, _) | (_, None) => true,
        };
        let compared = |other: &&ServiceFacts| began_after(other) && well_since(other);
        match facts.verdict {
            ServiceVerdict::Well if !is_well(&facts) => ServiceVerdict::Unknown,
            ServiceVerdict::Ill if facts.failing.is_none() => ServiceVerdict::Unknown,
            ServiceVerdict::Ill if !well.is_empty() && !well.iter().any(compared) => ServiceVerdict::Unknown,
            verdict @ (ServiceVerdict::Well | ServiceVerdict::Ill | ServiceVerdict::Unknown) => verdict,
        }
    };
    living.into_iter().map(|(path, facts)| (path.clone(), verdict(facts))).collect()
}

fn is_well(facts: &&ServiceFacts) -> bool {
    facts.verdict == ServiceVerdict::Well && facts.failures_in_row == 0
}

/// A service that is ill wherever it can be asked.
pub(super) fn blamed_service(config: &Config, view: &View, on: &PathId) -> Option<ServiceId> {
    if config.mechanisms.blame_service == Switch::Off {
        return None;
    }
    let facts = view.paths.get(on)?;
    facts.ill().find(|service| blame(&verdicts(config, view, service)) == Blame::Service).cloned()
}

/// New flows of users needed on both paths before their shares are compared, and the difference that counts.
const FLOWS_NEEDED: u64 = 50;
const SHARE_DROP: f64 = 0.3;

/// A fault of a path that still carries packets, compared with `other`.
pub(super) fn soft_fault(config: &Config, view: &View, on: &PathId, other: &PathId) -> Option<Cause> {
    let facts = view.paths.get(on)?;
    if config.mechanisms.egress_veto == Switch::On
        && let EgressVerdict::NotRegistered(addresses) = &facts.egress
    {
        return Some(Cause::EgressUnregistered { path: on.clone(), addresses: addresses.clone() });
    }
    if let Some(service) = ill_by_path(config, view, on) {
        let stage = facts.services.get(service).and_then(|s| s.failing.as_ref()).map(|(stage, _)| *stage);
        return Some(Cause::ServiceIll { path: on.clone(), service: service.clone(), stage });
    }
    if let Some(ailment) = ailment(config, facts) {
        return Some(Cause::BrownOut { path: on.clone(), ailment });
    }
    users_fault(config, view, on, other)
}

/// A service that does not work over this path, and for which this path is to blame.
pub(super) fn ill_by_path<'v>(config: &Config, view: &'v View, on: &PathId) -> Option<&'v ServiceId> {
    let at_fault = |service: &&ServiceId| match blame(&verdicts(config, view, service)) {
        Blame::Paths(paths) => paths.contains(on),
        Blame::Service | Blame::Undecided => config.mechanisms.blame_service == Switch::Off,
        Blame::Nobody => false,
    };
    view.paths.get(on)?.ill().find(at_fault)
}

/// What users' own flows tell: beside the other path's, where both have enough; else beside what is usual on this one, where
/// every service works over the other.
fn users_fault(config: &Config, view: &View, on: &PathId, other: &PathId) -> Option<Cause> {
    let facts = view.paths.get(on)?;
    let percent = |share: f64| (share * 100.0).round() as u32;
    let theirs = view.paths.get(other)?.flows;
    if facts.flows.total >= FLOWS_NEEDED
        && theirs.total < FLOWS_NEEDED
        && !config.checked.is_empty()
        && all_well(config, view, other)
        && config.mechanisms.brown_out == Switch::On
    {
        let (lately, before) = (facts.flows.share()?, facts.usual_flows?);
        if lately + SHARE_DROP < before {
            let (percent, before_percent) = (percent(lately), percent(before));
            return Some(Cause::FlowsFell { path: on.clone(), percent, before_percent });
        }
    }
    if facts.flows.total >= FLOWS_NEEDED && theirs.total >= FLOWS_NEEDED {
        let (ours, theirs) = (facts.flows.share()?, theirs.share()?);
        if ours + SHARE_DROP < theirs {
            return Some(Cause::FlowsUnanswered {
                path: on.clone(),
                percent: percent(ours),
                other_percent: percent(theirs),
            });
        }
    }
    None
}

/// Vetoes, and the hold-down of a path that failed lately.
pub(super) fn vetoes_with_hold(
    config: &Config,
    view: &View,
    holds: &Holds,
    (from, to): (&PathId, &PathId),
    phase: Phase<'_>,
    now: Instant,
) -> Vec<Veto> {
    let mut vetoes = vetoes(config, view, from, to, phase);
    if let Some(left) = holds.left(to, now) {
        vetoes.push(Veto::HeldDown { path: to.clone(), left });
    }
    vetoes
}
