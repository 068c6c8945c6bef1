//! Checkpoints on their way to the disk, changes on their way to the kernel.

use std::time::Duration;

use seimon_board::Instant;
use seimon_plan::PathId;

use super::super::checkpoint::{Checkpoint, Saved, SavedHold};
use super::super::config::Switch;
use super::super::input::{Action, Notice};
use super::super::rules::{self, Phase};
use super::super::state::{Cause, DrainState, Manner, State, Timer};
use super::super::veto::Veto;
use super::super::view::View;
use super::Machine;

/// What a transition wants of the kernel once its checkpoint is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    SetCurrent,
    Drain(PathId),
    ForceDrain(PathId),
    LetGo(PathId),
}

#[derive(Clone, Debug)]
pub(super) struct Pending {
    id: u64,
    pub(super) acts: Vec<Act>,
    retry_at: Option<Instant>,
}

impl Pending {
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }
}

/// Where new flows are to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Aim {
    pub(super) path: PathId,
    /// Those of the plan's canary clients.
    pub(super) trial: Option<PathId>,
}

impl Aim {
    /// Everybody's.
    pub(super) fn all(path: &PathId) -> Self {
        Self { path: path.clone(), trial: None }
    }

    fn reaches(&self, path: &PathId) -> bool {
        self.path == *path || self.trial.as_ref() == Some(path)
    }
}

/// Which path new flows take, as far as we know.
#[derive(Clone, Debug, Default)]
pub(super) struct Kernel {
    /// The change under way.
    asked: Option<(u64, Aim)>,
    pub(super) in_force: Option<Aim>,
    pub(super) retry_at: Option<Instant>,
    failures: u32,
}

impl Kernel {
    pub(super) fn in_force(&mut self, id: u64) {
        if let Some((_, aim)) = self.asked.take_if(|(asked, _)| *asked == id) {
            self.in_force = Some(aim);
            self.failures = 0;
            self.retry_at = None;
        }
    }

    /// Where new flows go, or will when what was asked for is done.
    pub(super) fn latest(&self) -> Option<&Aim> {
        self.asked.as_ref().map(|(_, aim)| aim).or(self.in_force.as_ref())
    }

    pub(super) fn was_asked_for(&self, aim: &Aim) -> bool {
        self.known().any(|known| known == aim)
    }

    /// Whether anybody's new flows may already take `path`.
    pub(super) fn reaches(&self, path: &PathId) -> bool {
        self.known().any(|known| known.reaches(path))
    }

    fn known(&self) -> impl Iterator<Item = &Aim> {
        self.in_force.iter().chain(self.asked.as_ref().map(|(_, aim)| aim))
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const REFRESH: Duration = Duration::from_secs(60);

/// Half a second, one, two, four, eight.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(4))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Machine {
    pub(super) fn emit(&mut self, notice: Notice) {
        self.actions.push_back(Action::Emit(notice));
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Writes the state down; `acts` follow when that is durable.
    pub(super) fn checkpoint(&mut self, mut acts: Vec<Act>, view: &View, now: Instant) {
        // Of a transition that is replaced, keep what the new one does not make up for.
        if let Some(replaced) = self.pending.take() {
            let current = self.current().clone();
            let aim = self.aim();
            for act in replaced.acts {
                let kept = match &act {
                    Act::ForceDrain(path) | Act::LetGo(path) => *path != current,
                    Act::SetCurrent => !self.kernel.was_asked_for(&aim),
                    Act::Drain(_) => false,
                };
                if kept && !acts.contains(&act) {
                    acts.insert(0, act);
                }
            }
        }
        self.refresh_at = match &self.state {
            State::Canary { .. }
            | State::Soaking { .. }
            | State::RollingBack { manner: Manner::Soft { .. }, .. } => Some(now + REFRESH),
            State::Steady { .. }
            | State::Qualifying { .. }
            | State::CuttingOver { .. }
            | State::RollingBack { manner: Manner::Hard, .. }
            | State::Blocked { .. } => None,
        };
        if self.config.mechanisms.checkpoint == Switch::Off {
            self.release(acts);
            return;
        }
        let id = self.new_id();
        let checkpoint = Box::new(self.snapshot(view, now));
        self.pending = Some(Pending { id, acts, retry_at: None });
        self.actions.push_back(Action::WriteCheckpoint { id, checkpoint });
    }

    /// The state as it would be written down now.
    pub fn snapshot(&self, view: &View, now: Instant) -> Checkpoint {
        let paused = self.state.is_paused();
        let state = match &self.state {
            State::Steady { path } => Saved::Steady { path: path.clone() },
            State::Qualifying { from, to, until, .. } => Saved::Qualifying {
                from: from.clone(),
                to: to.clone(),
                left_ms: millis(until.left(now)),
                paused,
            },
            State::Canary { from, to, until, tried } => Saved::Canary {
                from: from.clone(),
                to: to.clone(),
                left_ms: millis(until.left(now)),
                paused,
                tried: *tried,
            },
            State::CuttingOver { from, to } => Saved::CuttingOver { from: from.clone(), to: to.clone() },
            State::Soaking { from, to, soak, drain, drained } => Saved::Soaking {
                from: from.clone(),
                to: to.clone(),
                soak_left_ms: millis(soak.left(now)),
                drain_left_ms: millis(drain.left(now)),
                drained: *drained,
                paused,
            },
            State::RollingBack { leaving, to, cause, manner } => Saved::RollingBack {
                leaving: leaving.clone(),
                to: to.clone(),
                cause: cause.clone(),
                drain_left_ms: match manner {
                    Manner::Hard => None,
                    Manner::Soft { drain } => Some(millis(drain.left(now))),
                },
            },
            State::Blocked { path, reason } => Saved::Blocked { path: path.clone(), reason: reason.clone() },
        };
        let holds = self.holds.0.iter().map(|(path, hold)| SavedHold {
            path: path.clone(),
            left_ms: millis(hold.until.since(now)),
            failures: hold.failures,
        });
        Checkpoint {
            version: Checkpoint::VERSION,
            zone_group: self.config.zone_group.clone(),
            home: self.home.clone(),
            previous: self.previous.clone(),
            state,
            holds: holds.collect(),
            boot: view.boot.clone(),
            at: now,
            wall_ms: view.wall_ms,
        }
    }

    pub(super) fn checkpoint_durable(&mut self, id: u64, view: &View, now: Instant) {
        let Some(pending) = self.pending.take_if(|pending| pending.id == id) else { return };
        self.refused = 0;
        // A canary that goes on after a restart was permitted when it began.
        if let State::CuttingOver { from, to } | State::Canary { from, to, .. } = &self.state
            && pending.acts.contains(&Act::SetCurrent)
            && self.kernel.latest().is_some()
            && let vetoes = self.last_look(from, to, view, now)
            && !vetoes.is_empty()
        {
            let (from, to) = (from.clone(), to.clone());
            self.turn_back(from, to, vetoes, view, now);
            return;
        }
        self.release(pending.acts);
    }

    /// The checks were counted while qualifying; everything else is asked again.
    fn last_look(&self, from: &PathId, to: &PathId, view: &View, now: Instant) -> Vec<Veto> {
        rules::vetoes_with_hold(&self.config, view, &self.holds, (from, to), Phase::Start, now)
    }

    pub(super) fn checkpoint_failed(&mut self, id: u64, reason: String, view: &View, now: Instant) {
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.id == id) else { return };
        pending.retry_at = Some(now + pause(self.refused));
        self.refused = self.refused.saturating_add(1);
        self.emit(Notice::CheckpointFailed { reason: reason.clone() });
        match &self.state {
            State::Qualifying { from, .. } => {
                let from = from.clone();
                self.give_up(from, vec![Veto::CheckpointNotWritten { reason }], view, now);
            }
            State::CuttingOver { from, to } | State::Canary { from, to, .. } if !self.kernel.reaches(to) => {
                let from = from.clone();
                self.give_up(from, vec![Veto::CheckpointNotWritten { reason }], view, now);
            }
            State::CuttingOver { .. }
            | State::Canary { .. }
            | State::Steady { .. }
            | State::Soaking { .. }
            | State::RollingBack { .. }
            | State::Blocked { .. } => {}
        }
    }

    pub(super) fn change_failed(&mut self, id: u64, reason: String, view: &View, now: Instant) {
        if self.kernel.asked.take_if(|(asked, _)| *asked == id).is_none() {
            return;
        }
        // What is in force is not known now.
        self.kernel.in_force = None;
        self.kernel.retry_at = Some(now + pause(self.kernel.failures));
        self.kernel.failures = self.kernel.failures.saturating_add(1);
        self.emit(Notice::ChangeFailed { reason: reason.clone() });
        if let State::CuttingOver { from, to } | State::Canary { from, to, .. } = &self.state
            && self.config.mechanisms.rollback == Switch::On
        {
            let (from, to) = (from.clone(), to.clone());
            self.holds.fail(&to, self.config.times.hold_down.0, now);
            // Those who came with a canary, or before a restart, are served there and may finish.
            let manner = Manner::Soft { drain: Timer::new(now, self.config.times.drain.0) };
            let cause = Cause::ChangeFailed { reason };
            self.transition_to_rolling_back(to, from, cause, manner, view, now);
        }
    }

    pub(super) fn release(&mut self, acts: Vec<Act>) {
        for act in acts {
            let zone_group = self.config.zone_group.clone();
            match act {
                Act::SetCurrent => self.set_current(),
                Act::Drain(path) => {
                    let deadline = match &self.state {
                        State::Soaking { drain, .. }
                        | State::RollingBack { manner: Manner::Soft { drain }, .. } => drain.until(),
                        State::Steady { .. }
                        | State::Qualifying { .. }
                        | State::Canary { .. }
                        | State::CuttingOver { .. }
                        | State::RollingBack { manner: Manner::Hard, .. }
                        | State::Blocked { .. } => continue,
                    };
                    self.actions.push_back(Action::Drain { zone_group, path, deadline });
                }
                Act::ForceDrain(path) => self.actions.push_back(Action::ForceDrain { zone_group, path }),
                Act::LetGo(path) => self.let_go(path),
            }
        }
    }

    /// All numbers under way, `by` higher.
    pub(super) fn shift_pending(&mut self, by: u64) {
        if let Some(pending) = &mut self.pending {
            pending.id += by;
        }
        if let Some((id, _)) = &mut self.kernel.asked {
            *id += by;
        }
    }

    pub(super) fn set_current(&mut self) {
        let id = self.new_id();
        let aim = self.aim();
        self.kernel.retry_at = None;
        self.kernel.asked = Some((id, aim.clone()));
        let zone_group = self.config.zone_group.clone();
        let Aim { path, trial } = aim;
        self.actions.push_back(Action::SetCurrent { id, zone_group, path, trial });
    }

    /// Ends everything on a dead path. Only when the rules already lead elsewhere.
    pub(super) fn let_go(&mut self, path: PathId) {
        let zone_group = self.config.zone_group.clone();
        self.actions.push_back(Action::AffinityDelete { zone_group: zone_group.clone(), path: path.clone() });
        self.actions.push_back(Action::KillFlows { zone_group, path });
    }

    /// Tells the driver whose clients to keep where, and until when.
    pub(super) fn drain_act(&self) -> Option<Act> {
        match &self.state {
            State::Soaking { from, drained: DrainState::Underway, .. } => Some(Act::Drain(from.clone())),
            State::RollingBack { leaving, manner: Manner::Soft { .. }, .. } => {
                Some(Act::Drain(leaving.clone()))
            }
            State::Soaking { .. }
            | State::RollingBack { .. }
            | State::Steady { .. }
            | State::Qualifying { .. }
            | State::Canary { .. }
            | State::CuttingOver { .. }
            | State::Blocked { .. } => None,
        }
    }
}
