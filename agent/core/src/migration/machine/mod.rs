//! One machine for each zone and group: its verbs, and the two promises it keeps on the way out.
//!
//! 1. *Written first.* A transition makes one checkpoint; what it wants of the kernel waits in [`Pending`] until that is
//!    durable. A later transition replaces it: its checkpoint tells of the later state, so the earlier one's acts are
//!    dropped (forced drains apart, which nothing else would make up for).
//! 2. *Wanted and in force.* [`Kernel`] knows which path new flows are to take and whether that is so; a change that failed
//!    is tried again with growing pauses.

mod decide;
mod plumbing;
mod restore;

use std::collections::VecDeque;

use seimon_board::Instant;
use seimon_plan::PathId;

use super::config::Config;
use super::hold::Holds;
use super::input::{Action, Command, Event, Notice, Passed, Reason};
use super::rules::{self, Phase};
use super::state::{Cause, Manner, State, Timer};
use super::veto::Veto;
use super::view::View;
use plumbing::{Aim, Kernel, Pending};

#[derive(Clone, Debug)]
pub struct Machine {
    config: Config,
    state: State,
    home: PathId,
    previous: Option<PathId>,
    holds: Holds,
    kernel: Kernel,
    pending: Option<Pending>,
    actions: VecDeque<Action>,
    next_id: u64,
    refresh_at: Option<Instant>,
    /// Latest time that was handed in: timers up to here have been looked at.
    seen: Instant,
    /// Checkpoints refused in a row.
    refused: u32,
    blamed: Option<seimon_plan::ServiceId>,
    forced_total: u64,
}

impl Machine {
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// The path that new flows are to take: what the network plan is to be compiled with.
    pub fn current(&self) -> &PathId {
        self.state.current()
    }

    /// Where the group belongs: the path that a move last committed to.
    pub fn home(&self) -> &PathId {
        &self.home
    }

    /// Clients moved by a drain deadline since the machine was made.
    pub fn forced_by_deadline(&self) -> u64 {
        self.forced_total
    }

    /// Whether the kernel is known to do what the state says, and that state is on disk.
    pub fn is_settled(&self) -> bool {
        self.pending.is_none() && self.kernel.in_force.as_ref() == Some(&self.aim())
    }

    /// Where the state wants new flows to go.
    fn aim(&self) -> Aim {
        Aim { path: self.state.current().clone(), trial: self.state.trial().cloned() }
    }

    /// What stands against a move to `to` (default: the route's last path) if it were asked for now; in a canary, what
    /// stands against going on.
    pub fn vetoes(&self, to: Option<&PathId>, view: &View, now: Instant) -> Vec<Veto> {
        let Some(to) = to.or(self.config.paths.last()) else { return Vec::new() };
        let (path, to) = match &self.state {
            State::Steady { path } => (path, to),
            State::Canary { from, to, .. } => (from, to),
            State::Qualifying { .. }
            | State::CuttingOver { .. }
            | State::Soaking { .. }
            | State::RollingBack { .. }
            | State::Blocked { .. } => return vec![Veto::Busy { state: self.state.name() }],
        };
        rules::vetoes_with_hold(&self.config, view, &self.holds, (path, to), Phase::Start, now)
    }

    /// Carries out the command, or says all that stands against it.
    pub fn handle_command(&mut self, command: Command, view: &View, now: Instant) -> Result<(), Vec<Veto>> {
        self.seen = self.seen.max(now);
        let done = match command {
            Command::Start { to } => self.start(to, view, now),
            Command::Pause => self.set_paused(Timer::pause, view, now),
            Command::Resume => self.set_paused(Timer::resume, view, now),
            Command::Rollback => self.roll_back(view, now),
        };
        if let Err(vetoes) = &done {
            self.emit(Notice::Vetoed { vetoes: vetoes.clone() });
        }
        self.write_what_is_due(view, now);
        self.settle(view, now);
        done
    }

    pub fn handle_event(&mut self, event: Event, view: &View, now: Instant) {
        self.seen = self.seen.max(now);
        match event {
            Event::CheckpointDurable { id } => self.checkpoint_durable(id, view, now),
            Event::CheckpointFailed { id, reason } => self.checkpoint_failed(id, reason, view, now),
            Event::ChangeInForce { id } => self.kernel.in_force(id),
            Event::ChangeFailed { id, reason } => self.change_failed(id, reason, view, now),
            Event::Check { path, service, passed } => {
                if let State::Qualifying { to, good, .. } = &mut self.state
                    && *to == path
                {
                    match passed {
                        Passed::Yes => {
                            let count = good.entry(service).or_insert(0);
                            *count = count.saturating_add(1);
                        }
                        Passed::No => {
                            good.remove(&service);
                        }
                    }
                }
            }
            Event::FactsChanged => {}
        }
        self.write_what_is_due(view, now);
        self.settle(view, now);
    }

    pub fn handle_timeout(&mut self, view: &View, now: Instant) {
        self.seen = self.seen.max(now);
        self.write_what_is_due(view, now);
        self.settle(view, now);
    }

    /// Whatever was handed in: an instant that has been seen is not waited for any more.
    fn write_what_is_due(&mut self, view: &View, now: Instant) {
        if self.pending.as_ref().and_then(Pending::retry_at).is_some_and(|at| at <= now)
            && let Some(pending) = self.pending.take()
        {
            self.checkpoint(pending.acts, view, now);
        }
        if self.refresh_at.is_some_and(|at| at <= now) && self.pending.is_none() {
            self.checkpoint(Vec::new(), view, now);
        }
    }

    /// When to call [`Machine::handle_timeout`] next, and what for. Later than every instant handed in so far.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        let timer = |timer: &Timer, reason| timer.until().map(|at| (at, reason));
        let mut timers = Vec::new();
        match &self.state {
            State::Steady { path } if self.config.is_emergency(path) => {
                let holds = self.config.paths.iter().filter_map(|path| self.holds.until(path));
                timers.extend(holds.map(|at| Some((at, Reason::HoldDownOver))));
            }
            State::Steady { path } if *path != self.home => {
                timers.push(self.holds.until(&self.home).map(|at| (at, Reason::HoldDownOver)));
            }
            State::Steady { .. } | State::Blocked { .. } | State::CuttingOver { .. } => {}
            State::Qualifying { until, limit, .. } => {
                timers.push(timer(until, Reason::Qualified));
                timers.push(timer(limit, Reason::QualifyLimit));
            }
            State::Canary { until, .. } => timers.push(timer(until, Reason::CanaryOver)),
            State::Soaking { soak, drain, .. } => {
                timers.push(timer(soak, Reason::SoakOver));
                timers.push(timer(drain, Reason::DrainDeadline));
            }
            State::RollingBack { manner, .. } => {
                if let Manner::Soft { drain } = manner {
                    timers.push(timer(drain, Reason::DrainDeadline));
                }
            }
        }
        match &self.pending {
            Some(pending) => timers.push(pending.retry_at().map(|at| (at, Reason::CheckpointRetry))),
            None => {
                timers.push(self.kernel.retry_at.map(|at| (at, Reason::ChangeRetry)));
                timers.push(self.refresh_at.map(|at| (at, Reason::CheckpointRefresh)));
            }
        }
        timers.into_iter().flatten().filter(|&(at, _)| at > self.seen).min()
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn start(&mut self, to: Option<PathId>, view: &View, now: Instant) -> Result<(), Vec<Veto>> {
        let State::Steady { path: from } = &self.state else {
            return Err(vec![Veto::Busy { state: self.state.name() }]);
        };
        let from = from.clone();
        let Some(to) = to.or_else(|| self.config.paths.last().cloned()) else { return Err(Vec::new()) };
        let vetoes =
            rules::vetoes_with_hold(&self.config, view, &self.holds, (&from, &to), Phase::Start, now);
        if !vetoes.is_empty() {
            return Err(vetoes);
        }
        self.transition_to_qualifying(from, to, Cause::Commanded, view, now);
        Ok(())
    }

    fn set_paused(
        &mut self,
        turn: fn(Timer, Instant) -> Timer,
        view: &View,
        now: Instant,
    ) -> Result<(), Vec<Veto>> {
        let before = self.state.clone();
        match &mut self.state {
            State::Qualifying { until, limit, .. } => {
                (*until, *limit) = (turn(*until, now), turn(*limit, now));
            }
            State::Canary { until, .. } => *until = turn(*until, now),
            State::Soaking { soak, drain, .. } => {
                (*soak, *drain) = (turn(*soak, now), turn(*drain, now));
            }
            State::Steady { .. } | State::Blocked { .. } => {
                return Err(vec![Veto::NothingToDo { state: self.state.name() }]);
            }
            State::CuttingOver { .. } | State::RollingBack { .. } => {
                return Err(vec![Veto::Busy { state: self.state.name() }]);
            }
        }
        if self.state != before {
            let acts = self.drain_act();
            let carried = self.pending.take().map(|pending| pending.acts).unwrap_or_default();
            self.checkpoint(carried.into_iter().chain(acts).collect(), view, now);
        }
        Ok(())
    }

    fn roll_back(&mut self, view: &View, now: Instant) -> Result<(), Vec<Veto>> {
        let back_to = match &self.state {
            State::Qualifying { from, .. } => {
                let from = from.clone();
                self.transition_to_steady(from, Cause::Commanded, Vec::new(), view, now);
                return Ok(());
            }
            State::CuttingOver { from, to } | State::Canary { from, to, .. } if !self.kernel.reaches(to) => {
                let from = from.clone();
                self.transition_to_steady(from, Cause::Commanded, Vec::new(), view, now);
                return Ok(());
            }
            State::Canary { from, .. } | State::CuttingOver { from, .. } | State::Soaking { from, .. } => {
                from.clone()
            }
            State::Steady { path } => match &self.previous {
                Some(previous) if previous != path => previous.clone(),
                Some(_) | None => return Err(vec![Veto::NothingToDo { state: self.state.name() }]),
            },
            State::RollingBack { .. } => return Err(vec![Veto::Busy { state: self.state.name() }]),
            State::Blocked { .. } => return Err(vec![Veto::NothingToDo { state: self.state.name() }]),
        };
        let leaving = self.state.trial().unwrap_or(self.current()).clone();
        if !rules::can_carry(&self.config, view, &back_to) {
            return Err(vec![Veto::NoWayBack { path: back_to }]);
        }
        self.home = back_to.clone();
        self.previous = None;
        let manner = Manner::Soft { drain: Timer::new(now, self.config.times.drain.0) };
        self.transition_to_rolling_back(leaving, back_to, Cause::Commanded, manner, view, now);
        Ok(())
    }
}
