//! The transitions. Each arm of `decide` is headed by where it may go.

use std::collections::BTreeMap;
use std::time::Duration;

use seimon_board::Instant;
use seimon_plan::PathId;

use super::super::config::Switch;
use super::super::input::{Action, Notice};
use super::super::rules::{self, Phase};
use super::super::state::{BlockReason, Cause, DrainState, Manner, State, Timer};
use super::super::veto::Veto;
use super::super::view::View;
use super::Machine;
use super::plumbing::{Act, Aim};
use crate::health::{Ailment, Liveness, Pace};

impl Machine {
    /// Decides until nothing more changes.
    pub(super) fn settle(&mut self, view: &View, now: Instant) {
        // A state is never entered twice at one instant without an acknowledgement in between, so this ends by itself;
        // the bound is for the day that this is no longer true.
        for _ in 0..8 {
            let before = self.state.clone();
            self.decide(view, now);
            if self.state == before {
                break;
            }
        }
        if self.pending.is_none() && self.kernel.retry_at.is_some_and(|at| at <= now) {
            self.set_current();
        }
    }

    fn decide(&mut self, view: &View, now: Instant) {
        match self.state.clone() {
            State::Steady { path } => self.decide_steady(path, view, now),
            State::Qualifying { from, to, until, limit, good } => {
                self.decide_qualifying(from, to, (until, limit), &good, view, now);
            }
            State::Canary { from, to, until, .. } => self.decide_canary(from, to, until, view, now),
            State::CuttingOver { from, to } => self.decide_cutting_over(from, to, view, now),
            State::Soaking { from, to, soak, drain, drained } => {
                self.decide_soaking(from, to, (soak, drain), drained, view, now);
            }
            State::RollingBack { leaving, to, manner, .. } => {
                self.decide_rolling_back(leaving, to, manner, view, now);
            }
            State::Blocked { path, reason } => self.decide_blocked(path, reason, view, now),
        }
    }

    fn leaves_by_itself(&self) -> bool {
        self.config.mechanisms.rollback == Switch::On
    }

    /// Clients may finish where they are if they are served there. Where the service itself, or anything long, does not come
    /// through there is nothing to finish: whoever keeps trying would never be quiet, and would wait for the deadline.
    fn manner_of_leaving(&self, cause: &Cause, now: Instant) -> Manner {
        let nothing_works =
            matches!(cause, Cause::ServiceIll { .. } | Cause::BrownOut { ailment: Ailment::LargeStall, .. });
        if nothing_works {
            Manner::Hard
        } else {
            Manner::Soft { drain: Timer::new(now, self.config.times.drain.0) }
        }
    }

    /// → RollingBack (dead, ill, home again, or off an emergency line), Blocked.
    fn decide_steady(&mut self, path: PathId, view: &View, now: Instant) {
        if !self.leaves_by_itself() {
            return;
        }
        if view.liveness(&path) == Liveness::Down {
            self.flee(path, None, view, now);
            return;
        }
        let soft = Manner::Soft { drain: Timer::new(now, self.config.times.drain.0) };
        if self.config.is_emergency(&path) {
            if let Some((back, cause)) = self.way_back(view, now) {
                self.transition_to_rolling_back(path, back, cause, soft, view, now);
            }
            return;
        }
        if path != self.home {
            let held = self.holds.left(&self.home, now).is_some();
            if !held
                && rules::is_good(&self.config, view, &self.home)
                && rules::all_well(&self.config, view, &self.home)
            {
                let home = self.home.clone();
                let cause = Cause::HomeAgain { path: home.clone() };
                self.transition_to_rolling_back(path, home, cause, soft, view, now);
            }
            return;
        }
        // Back along the route only: forward is a move, and a move is asked for.
        let earlier: Vec<PathId> = self.config.paths.iter().take_while(|p| **p != path).cloned().collect();
        let back = earlier.iter().rev().find(|other| rules::is_good(&self.config, view, other));
        if let Some(back) = back.cloned()
            && let Some(cause) = rules::soft_fault(&self.config, view, &path, &back)
        {
            self.holds.fail(&path, self.config.times.hold_down.0, now);
            let manner = self.manner_of_leaving(&cause, now);
            self.transition_to_rolling_back(path, back, cause, manner, view, now);
        }
    }

    /// From an emergency line: home, else along the route, as soon as a path is well and not held down.
    fn way_back(&self, view: &View, now: Instant) -> Option<(PathId, Cause)> {
        let ready = |path: &&PathId| {
            self.holds.left(path, now).is_none() && rules::is_worth_returning(&self.config, view, path)
        };
        let back = [&self.home].into_iter().chain(&self.config.paths).find(ready)?.clone();
        let cause = if back == self.home {
            Cause::HomeAgain { path: back.clone() }
        } else {
            Cause::PathBack { path: back.clone() }
        };
        Some((back, cause))
    }

    /// → Canary or CuttingOver, Steady(from), RollingBack (the current path died), Blocked.
    fn decide_qualifying(
        &mut self,
        from: PathId,
        to: PathId,
        (until, limit): (Timer, Timer),
        good: &BTreeMap<seimon_plan::ServiceId, u32>,
        view: &View,
        now: Instant,
    ) {
        if self.leaves_by_itself() && view.liveness(&from) == Liveness::Down {
            self.flee(from, None, view, now);
            return;
        }
        let phase = Phase::CutOver(good);
        let vetoes = rules::vetoes_with_hold(&self.config, view, &self.holds, (&from, &to), phase, now);
        if vetoes.iter().any(Veto::is_final) || (limit.expired(now) && !vetoes.is_empty()) {
            self.give_up(from, vetoes, view, now);
        } else if until.expired(now) && vetoes.is_empty() {
            match self.config.canary.filter(|_| self.config.mechanisms.canary == Switch::On) {
                Some(time) => self.transition_to_canary(from, to, time, view, now),
                None => self.transition_to_cutting_over(from, to, Cause::Qualified, view, now),
            }
        }
    }

    /// → CuttingOver, RollingBack (back, or the current path died), Blocked. Hours and freezes only delay its end: what the
    /// few clients do was permitted when it began.
    fn decide_canary(&mut self, from: PathId, to: PathId, until: Timer, view: &View, now: Instant) {
        if self.leaves_by_itself() && view.liveness(&from) == Liveness::Down {
            self.flee(from, Some(&to), view, now);
            return;
        }
        if self.candidate_failed(&from, &to, view, now) || self.blames(&to, view) {
            return;
        }
        let aim = self.aim();
        if self.kernel.in_force.as_ref() != Some(&aim) || self.pending.is_some() {
            return;
        }
        let State::Canary { tried, .. } = &mut self.state else { return };
        *tried = (*tried).max(view.clients(&to).unwrap_or(0));
        let clients = *tried;
        if clients == 0 || !until.expired(now) || !rules::all_well(&self.config, view, &to) {
            return;
        }
        let vetoes =
            rules::vetoes_with_hold(&self.config, view, &self.holds, (&from, &to), Phase::Start, now);
        if vetoes.is_empty() {
            let cause = Cause::CanaryWell { path: to.clone(), clients };
            self.transition_to_cutting_over(from, to, cause, view, now);
        }
    }

    /// → Soaking, Steady(from) (the change was not asked for yet), RollingBack, Blocked.
    fn decide_cutting_over(&mut self, from: PathId, to: PathId, view: &View, now: Instant) {
        if self.kernel.in_force.as_ref() == Some(&Aim::all(&to)) && self.pending.is_none() {
            self.transition_to_soaking(from, to, view, now);
            return;
        }
        if view.liveness(&to) != Liveness::Down {
            return;
        }
        if !self.kernel.reaches(&to) {
            let vetoes = vec![Veto::CandidateDown { path: to }];
            self.give_up(from, vetoes, view, now);
        } else if self.leaves_by_itself() {
            self.holds.fail(&to, self.config.times.hold_down.0, now);
            self.flee(to, Some(&from), view, now);
        }
    }

    /// → Steady(to), RollingBack, Blocked.
    fn decide_soaking(
        &mut self,
        from: PathId,
        to: PathId,
        (soak, drain): (Timer, Timer),
        drained: DrainState,
        view: &View,
        now: Instant,
    ) {
        if self.candidate_failed(&from, &to, view, now) || self.blames(&to, view) {
            return;
        }
        if drained == DrainState::Underway && view.liveness(&from) == Liveness::Down {
            self.end_drain(DrainState::OldPathDied, Act::LetGo(from), view, now);
            return;
        }
        let left = view.clients(&from);
        if drained == DrainState::Underway && left != Some(0) && drain.expired(now) {
            let clients = left.unwrap_or(0);
            self.forced_total = self.forced_total.saturating_add(u64::from(clients));
            self.emit(Notice::Forced { path: from.clone(), clients });
            self.end_drain(DrainState::Forced { clients }, Act::ForceDrain(from), view, now);
            return;
        }
        let everybody_moved = drained != DrainState::Underway || left == Some(0);
        let in_force = self.kernel.in_force.as_ref() == Some(&Aim::all(&to));
        if soak.expired(now) && everybody_moved && in_force && rules::all_well(&self.config, view, &to) {
            self.home = to.clone();
            self.previous = Some(from);
            self.holds.forgive(&to);
            self.transition_to_steady(to.clone(), Cause::Committed { path: to }, Vec::new(), view, now);
        }
    }

    /// → Steady(to), RollingBack (another way), Blocked.
    fn decide_rolling_back(
        &mut self,
        leaving: PathId,
        to: PathId,
        manner: Manner,
        view: &View,
        now: Instant,
    ) {
        if view.liveness(&to) == Liveness::Down {
            self.flee(to, None, view, now);
            return;
        }
        if self.kernel.in_force.as_ref() != Some(&Aim::all(&to)) || self.pending.is_some() {
            return;
        }
        let cause = Cause::Left { path: leaving.clone() };
        // Whoever is turned away there would try, and keep the path, until the deadline.
        let served = view.liveness(&leaving) != Liveness::Down
            && rules::ill_by_path(&self.config, view, &leaving).is_none();
        match manner {
            Manner::Soft { drain } if served => {
                if view.clients(&leaving) == Some(0) {
                    self.transition_to_steady(to, cause, Vec::new(), view, now);
                } else if drain.expired(now) {
                    let clients = view.clients(&leaving).unwrap_or(0);
                    self.forced_total = self.forced_total.saturating_add(u64::from(clients));
                    self.emit(Notice::Forced { path: leaving.clone(), clients });
                    self.transition_to_steady(to, cause, vec![Act::ForceDrain(leaving)], view, now);
                }
            }
            Manner::Hard | Manner::Soft { .. } => {
                self.let_go(leaving);
                self.transition_to_steady(to, cause, Vec::new(), view, now);
            }
        }
    }

    /// → Steady(path), RollingBack.
    fn decide_blocked(&mut self, path: PathId, reason: BlockReason, view: &View, now: Instant) {
        let is_emergency = self.config.is_emergency(&path);
        let lives = view.liveness(&path) == Liveness::Up;
        if lives && !is_emergency {
            self.transition_to_steady(path.clone(), Cause::PathBack { path }, Vec::new(), view, now);
            return;
        }
        match rules::refuge(&self.config, view, &path, None, &self.home) {
            Ok(to) => {
                let cause = Cause::PathDown { path: path.clone() };
                self.transition_to_rolling_back(path, to, cause, Manner::Hard, view, now);
            }
            Err(_) if lives => {
                self.transition_to_steady(path.clone(), Cause::PathBack { path }, Vec::new(), view, now);
            }
            Err(new) => {
                if let Some(to) = rules::last_resort(&self.config, view, &path) {
                    let cause = Cause::LastResort { path: to.clone() };
                    self.transition_to_rolling_back(path, to, cause, Manner::Hard, view, now);
                } else if new != reason {
                    self.transition_to_blocked(path, new, view, now);
                }
            }
        }
    }

    /// Whether users of `to`, who came from `from`, would suffer by staying; then the way back has begun.
    fn candidate_failed(&mut self, from: &PathId, to: &PathId, view: &View, now: Instant) -> bool {
        if !self.leaves_by_itself() {
            return false;
        }
        if view.liveness(to) == Liveness::Down {
            self.holds.fail(to, self.config.times.hold_down.0, now);
            self.flee(to.clone(), Some(from), view, now);
            return true;
        }
        if rules::is_good(&self.config, view, from)
            && let Some(cause) = rules::soft_fault(&self.config, view, to, from)
        {
            self.holds.fail(to, self.config.times.hold_down.0, now);
            let manner = self.manner_of_leaving(&cause, now);
            self.transition_to_rolling_back(to.clone(), from.clone(), cause, manner, view, now);
            return true;
        }
        false
    }

    /// Whether a service is ill everywhere, which is no reason to go on nor to go back. Told once.
    fn blames(&mut self, path: &PathId, view: &View) -> bool {
        let blamed = rules::blamed_service(&self.config, view, path);
        if blamed != self.blamed {
            self.blamed.clone_from(&blamed);
            if let Some(service) = blamed.clone() {
                self.emit(Notice::ServiceBlamed { service });
            }
        }
        blamed.is_some()
    }

    /// Away from a dead path: to a living one that is acceptable, else over an emergency line, or nowhere.
    fn flee(&mut self, dead: PathId, prefer: Option<&PathId>, view: &View, now: Instant) {
        match rules::refuge(&self.config, view, &dead, prefer, &self.home) {
            Ok(to) => {
                let failed_move = matches!(self.state, State::CuttingOver { .. } | State::Soaking { .. });
                if dead == self.home && !failed_move {
                    self.holds.fail(&dead, self.config.times.hold_down.0, now);
                }
                let cause = Cause::PathDown { path: dead.clone() };
                self.transition_to_rolling_back(dead, to, cause, Manner::Hard, view, now);
            }
            Err(reason) => {
                if let Some(to) = rules::last_resort(&self.config, view, &dead) {
                    let failed_move = matches!(self.state, State::CuttingOver { .. } | State::Soaking { .. });
                    if self.config.paths.contains(&dead) && !failed_move {
                        self.holds.fail(&dead, self.config.times.hold_down.0, now);
                    }
                    let cause = Cause::LastResort { path: to.clone() };
                    self.transition_to_rolling_back(dead, to, cause, Manner::Hard, view, now);
                    return;
                }
                // Where the traffic is aimed, it stays aimed.
                let aimed = self.kernel.latest().map(|aim| aim.path.clone());
                let aimed = aimed.filter(|path| self.config.offers(path));
                self.transition_to_blocked(aimed.unwrap_or(dead), reason, view, now);
            }
        }
    }

    /// The move ends before anything was changed.
    pub(super) fn give_up(&mut self, from: PathId, vetoes: Vec<Veto>, view: &View, now: Instant) {
        self.emit(Notice::Vetoed { vetoes: vetoes.clone() });
        self.transition_to_steady(from, Cause::Vetoed { vetoes }, Vec::new(), view, now);
    }

    /// At the last look something stands against it. Who may be on the candidate already can finish there.
    pub(super) fn turn_back(
        &mut self,
        from: PathId,
        to: PathId,
        vetoes: Vec<Veto>,
        view: &View,
        now: Instant,
    ) {
        if !self.kernel.reaches(&to) {
            self.give_up(from, vetoes, view, now);
            return;
        }
        self.emit(Notice::Vetoed { vetoes: vetoes.clone() });
        let manner = Manner::Soft { drain: Timer::new(now, self.config.times.drain.0) };
        self.transition_to_rolling_back(to, from, Cause::Vetoed { vetoes }, manner, view, now);
    }

    fn end_drain(&mut self, outcome: DrainState, act: Act, view: &View, now: Instant) {
        if let State::Soaking { drained, .. } = &mut self.state {
            *drained = outcome;
        }
        self.checkpoint(vec![act], view, now);
    }

    pub(super) fn transition_to_steady(
        &mut self,
        path: PathId,
        cause: Cause,
        acts: Vec<Act>,
        view: &View,
        now: Instant,
    ) {
        self.enter(State::Steady { path }, cause, acts, view, now);
    }

    pub(super) fn transition_to_qualifying(
        &mut self,
        from: PathId,
        to: PathId,
        cause: Cause,
        view: &View,
        now: Instant,
    ) {
        let until = Timer::new(now, self.config.times.qualify.0);
        let limit = Timer::new(now, self.config.qualify_limit());
        let state = State::Qualifying { from, to, until, limit, good: BTreeMap::new() };
        self.enter(state, cause, Vec::new(), view, now);
    }

    fn transition_to_canary(&mut self, from: PathId, to: PathId, time: Duration, view: &View, now: Instant) {
        let state = State::Canary { from, to, until: Timer::new(now, time), tried: 0 };
        self.enter(state, Cause::Qualified, vec![Act::SetCurrent], view, now);
    }

    fn transition_to_cutting_over(
        &mut self,
        from: PathId,
        to: PathId,
        cause: Cause,
        view: &View,
        now: Instant,
    ) {
        self.enter(State::CuttingOver { from, to }, cause, vec![Act::SetCurrent], view, now);
    }

    fn transition_to_soaking(&mut self, from: PathId, to: PathId, view: &View, now: Instant) {
        let soak = Timer::new(now, self.config.times.soak.0);
        let drain = Timer::new(now, self.config.times.drain.0);
        let acts = vec![Act::Drain(from.clone())];
        let state = State::Soaking { from, to, soak, drain, drained: DrainState::Underway };
        self.enter(state, Cause::ChangeInForce, acts, view, now);
    }

    pub(super) fn transition_to_rolling_back(
        &mut self,
        leaving: PathId,
        to: PathId,
        cause: Cause,
        manner: Manner,
        view: &View,
        now: Instant,
    ) {
        let mut acts = vec![Act::SetCurrent];
        if matches!(manner, Manner::Soft { .. }) {
            acts.push(Act::Drain(leaving.clone()));
        }
        let state = State::RollingBack { leaving, to, cause: cause.clone(), manner };
        self.enter(state, cause, acts, view, now);
    }

    fn transition_to_blocked(&mut self, path: PathId, reason: BlockReason, view: &View, now: Instant) {
        let cause = Cause::NoPath { reason: reason.clone() };
        // Flows stay: a line that comes back finds them as they were.
        let mut acts =
            if self.kernel.was_asked_for(&Aim::all(&path)) { Vec::new() } else { vec![Act::SetCurrent] };
        if self.config.mechanisms.keep_when_blocked == Switch::Off {
            acts.push(Act::LetGo(path.clone()));
        }
        self.enter(State::Blocked { path, reason }, cause, acts, view, now);
    }

    pub(super) fn enter(&mut self, state: State, cause: Cause, acts: Vec<Act>, view: &View, now: Instant) {
        let (from, to) = (self.state.name(), state.name());
        let (before, after) = (pace(&self.state), pace(&state));
        self.state = state;
        self.blamed = None;
        self.emit(Notice::State { from, to, path: self.current().clone(), cause });
        if before != after {
            let zone_group = self.config.zone_group.clone();
            self.actions.push_back(Action::Probe { zone_group, pace: after });
        }
        self.checkpoint(acts, view, now);
    }
}

pub(super) fn pace(state: &State) -> Pace {
    match state {
        State::Qualifying { .. }
        | State::CuttingOver { .. }
        | State::Soaking { .. }
        | State::RollingBack { .. } => Pace::Moving,
        State::Canary { .. } => Pace::Trying,
        State::Steady { .. } | State::Blocked { .. } => Pace::Steady,
    }
}
