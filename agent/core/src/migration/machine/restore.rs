//! Beginnings: the very first, after a restart, and under a changed plan.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use seimon_board::Instant;
use seimon_plan::PathId;

use super::super::checkpoint::{Checkpoint, RestoreError, Saved};
use super::super::config::Config;
use super::super::hold::{Hold, Holds};
use super::super::input::{Action, Notice};
use super::super::state::{Cause, Manner, State, Timer};
use super::super::view::View;
use super::Machine;
use super::decide::pace;
use super::plumbing::{Act, Kernel};
use crate::health::Pace;

impl Machine {
    /// A group of which nothing is known: on its route's first path. `None` when the route is empty, which no valid plan
    /// has.
    pub fn new(config: Config, view: &View, now: Instant) -> Option<Self> {
        let first = config.paths.first()?.clone();
        let state = State::Steady { path: first.clone() };
        Some(Self::begin(config, state, first, None, Holds::default(), Cause::FirstStart, view, now))
    }

    /// After a restart: continues, or goes back.
    ///
    /// | written down | then |
    /// |---|---|
    /// | Steady, Blocked, RollingBack, Soaking | the same, with the time that was left; the kernel is told again |
    /// | Qualifying | the same; checks are counted anew |
    /// | Canary | the same; Qualifying if the plan has no canary any more |
    /// | CuttingOver | Qualifying: whether the change was made is not known, so new flows take the old path until the candidate has been examined again |
    pub fn restore(
        config: Config,
        checkpoint: &Checkpoint,
        view: &View,
        now: Instant,
    ) -> Result<Self, RestoreError> {
        checkpoint.check(&config)?;
        let gone = if checkpoint.boot == view.boot { now.since(checkpoint.at) } else { Duration::ZERO };
        let left = |ms: u64| Duration::from_millis(ms).saturating_sub(gone);
        let timer = |ms: u64, paused: bool| {
            if paused { Timer::Paused { left: Duration::from_millis(ms) } } else { Timer::new(now, left(ms)) }
        };
        let qualifying = |from: &PathId, to: &PathId, until: Timer, paused: bool| State::Qualifying {
            from: from.clone(),
            to: to.clone(),
            until,
            limit: match (Timer::new(now, config.qualify_limit()), paused) {
                (limit, false) => limit,
                (limit, true) => limit.pause(now),
            },
            good: BTreeMap::new(),
        };
        let state = match &checkpoint.state {
            Saved::Steady { path } => State::Steady { path: path.clone() },
            Saved::Qualifying { from, to, left_ms, paused } => {
                qualifying(from, to, timer(*left_ms, *paused), *paused)
            }
            Saved::Canary { from, to, left_ms, paused, tried } if config.canary.is_some() => State::Canary {
                from: from.clone(),
                to: to.clone(),
                until: timer(*left_ms, *paused),
                tried: *tried,
            },
            Saved::CuttingOver { from, to } | Saved::Canary { from, to, .. } => {
                qualifying(from, to, Timer::new(now, config.times.qualify.0), false)
            }
            Saved::Soaking { from, to, soak_left_ms, drain_left_ms, drained, paused } => State::Soaking {
                from: from.clone(),
                to: to.clone(),
                soak: timer(*soak_left_ms, *paused),
                drain: timer(*drain_left_ms, *paused),
                drained: *drained,
            },
            Saved::RollingBack { leaving, to, cause, drain_left_ms } => State::RollingBack {
                leaving: leaving.clone(),
                to: to.clone(),
                cause: cause.clone(),
                manner: drain_left_ms
                    .map_or(Manner::Hard, |ms| Manner::Soft { drain: Timer::new(now, left(ms)) }),
            },
            Saved::Blocked { path, reason } => State::Blocked { path: path.clone(), reason: reason.clone() },
        };
        let holds = checkpoint.holds.iter().map(|saved| {
            (saved.path.clone(), Hold { until: now + left(saved.left_ms), failures: saved.failures })
        });
        let holds = Holds(holds.collect());
        let (home, previous) = (checkpoint.home.clone(), checkpoint.previous.clone());
        let previous = previous.filter(|path| config.paths.contains(path));
        Ok(Self::begin(config, state, home, previous, holds, Cause::Restored, view, now))
    }

    /// Like [`Machine::restore`], but what cannot be believed leads to rest on [`Checkpoint::safe_path`], with the reason.
    /// `None` when the route is empty.
    pub fn restore_or_rest(
        config: Config,
        checkpoint: &Checkpoint,
        view: &View,
        now: Instant,
    ) -> Option<(Self, Option<RestoreError>)> {
        match Self::restore(config.clone(), checkpoint, view, now) {
            Ok(machine) => Some((machine, None)),
            Err(error) => {
                let path = checkpoint.safe_path(&config)?;
                let cause = Cause::RestoreFailed { reason: error.to_string() };
                let state = State::Steady { path: path.clone() };
                let machine = Self::begin(config, state, path, None, Holds::default(), cause, view, now);
                Some((machine, Some(error)))
            }
        }
    }

    /// The same group under a changed plan. Goes on where the new route still allows it, else rests. `None` when the route
    /// is empty.
    pub fn reconfigure(self, config: Config, view: &View, now: Instant) -> Option<Self> {
        let checkpoint = self.snapshot(view, now);
        let Self { next_id, forced_total, actions, .. } = self;
        let (mut machine, _) = Self::restore_or_rest(config, &checkpoint, view, now)?;
        machine.forced_total = forced_total;
        machine.renumber(next_id, actions);
        Some(machine)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a machine; only the beginnings above call it"
    )]
    fn begin(
        config: Config,
        state: State,
        home: PathId,
        previous: Option<PathId>,
        holds: Holds,
        cause: Cause,
        view: &View,
        now: Instant,
    ) -> Self {
        let pace = pace(&state);
        let name = state.name();
        let mut machine = Self {
            config,
            state,
            home,
            previous,
            holds,
            kernel: Kernel::default(),
            pending: None,
            actions: VecDeque::new(),
            next_id: 0,
            refresh_at: None,
            seen: now,
            refused: 0,
            blamed: None,
            forced_total: 0,
        };
        let path = machine.current().clone();
        machine.emit(Notice::State { from: name, to: name, path, cause });
        if pace != Pace::Steady {
            let zone_group = machine.config.zone_group.clone();
            machine.actions.push_back(Action::Probe { zone_group, pace });
        }
        let acts = [Act::SetCurrent].into_iter().chain(machine.drain_act()).collect();
        machine.checkpoint(acts, view, now);
        machine
    }

    /// Numbers go on where the machine before stopped, so that late answers to it are not taken for ours. Its notices are
    /// kept; its other actions are void.
    fn renumber(&mut self, after: u64, earlier: VecDeque<Action>) {
        for action in earlier.into_iter().rev() {
            if matches!(action, Action::Emit(_)) {
                self.actions.push_front(action);
            }
        }
        self.next_id += after;
        for action in &mut self.actions {
            if let Action::WriteCheckpoint { id, .. } | Action::SetCurrent { id, .. } = action {
                *id += after;
            }
        }
        self.shift_pending(after);
    }
}
