//! All that is kept of a run, for judging and for the report.

use std::collections::BTreeMap;
use std::time::Duration;

use seimon_ipc::control::{Event, Status};

use crate::scenario::Moment;
use crate::world::Bucket;
use crate::world::gateway::ProcessUsage;

/// Times are since the scenario's start.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// World time of the scenario's start.
    pub start: Duration,
    /// Of the scenario, when it was over.
    pub end: Duration,
    pub happened: Vec<Happened>,
    /// What the agent told, with the time of hearing it (negative times are cut to zero).
    pub told: Vec<(Duration, Event)>,
    pub loads: Vec<LoadTrack>,
    /// The agent's own last word; None: it did not answer.
    pub status: Option<Status>,
    pub usage: Vec<ProcessUsage>,
}

/// One event of the scenario that took place.
#[derive(Clone, Debug)]
pub struct Happened {
    pub id: String,
    pub what: String,
    pub target: Option<String>,
    pub at: Duration,
    /// When it was taken back.
    pub until: Option<Duration>,
    /// For commands: exit status and what was said.
    pub command: Option<(i32, String)>,
    /// It could not be done, and why.
    pub failed: Option<String>,
}

#[derive(Clone, Debug)]
pub struct LoadTrack {
    pub id: String,
    pub zone: String,
    pub kind: String,
    /// 100 ms each, from the scenario's start.
    pub buckets: Vec<Bucket>,
}

impl Record {
    /// When a moment was, if it came.
    pub fn moment(&self, moment: &Moment) -> Option<Duration> {
        match moment {
            Moment::At(at) => Some(*at),
            Moment::AfterEvent { id, plus } => {
                self.happened.iter().find(|h| h.id == *id).map(|h| h.at + *plus)
            }
            Moment::AfterState { group, state, plus } => {
                self.entered(group, state, Duration::ZERO).map(|at| at + *plus)
            }
        }
    }

    /// First time, not before `since`, that the group entered the state.
    pub fn entered(&self, group: &str, state: &str, since: Duration) -> Option<Duration> {
        first_entered(&self.told, group, state, since)
    }

    /// Times that the group entered the state within the interval.
    pub fn count_entered(&self, group: &str, state: &str, from: Duration, to: Duration) -> usize {
        self.told.iter().filter(|(at, e)| enters(e, group, state) && *at >= from && *at < to).count()
    }

    /// Times of all state changes, by group.
    pub fn states(&self) -> BTreeMap<String, Vec<(Duration, &Event)>> {
        let mut states: BTreeMap<String, Vec<(Duration, &Event)>> = BTreeMap::new();
        for (at, event) in self.told.iter().filter(|(_, e)| e.kind == "state") {
            if let Some(group) = group_of(event) {
                states.entry(group).or_default().push((*at, event));
            }
        }
        states
    }
}

pub(crate) fn group_of(event: &Event) -> Option<String> {
    Some(format!("{}/{}", event.zone.as_ref()?, event.group.as_ref()?))
}

pub(crate) fn enters(event: &Event, group: &str, state: &str) -> bool {
    event.kind == "state"
        && event.to.as_deref() == Some(state)
        // A change within a state (Steady on another path) is not entering it.
        && event.from.as_deref() != Some(state)
        && group_of(event).as_deref() == Some(group)
}

pub(crate) fn first_entered(
    told: &[(Duration, Event)],
    group: &str,
    state: &str,
    since: Duration,
) -> Option<Duration> {
    told.iter().find(|(at, e)| *at >= since && enters(e, group, state)).map(|(at, _)| *at)
}
