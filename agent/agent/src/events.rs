//! What has happened: numbered, kept for a while, sent to whoever follows, and logged.

use std::collections::VecDeque;

use seimon_ipc::control::{Bilingual, Event};
use seimon_plan::{GroupId, PathId, ZoneId};
use tokio::sync::broadcast;

use crate::clock::Reading;

const KEPT: usize = 1_000;

#[derive(Debug)]
pub(crate) struct Events {
    next: u64,
    kept: VecDeque<Event>,
    feed: broadcast::Sender<Event>,
}

/// An event without number and time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Happening {
    pub(crate) kind: &'static str,
    pub(crate) zone: Option<ZoneId>,
    pub(crate) group: Option<GroupId>,
    pub(crate) path: Option<PathId>,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) reason: Bilingual,
}

impl Events {
    pub(crate) fn new(first: u64) -> Self {
        Self { next: first.max(1), kept: VecDeque::new(), feed: broadcast::Sender::new(KEPT) }
    }

    pub(crate) fn feed(&self) -> broadcast::Sender<Event> {
        self.feed.clone()
    }

    pub(crate) fn record(&mut self, happening: Happening, now: Reading) {
        let Happening { kind, zone, group, path, from, to, reason } = happening;
        let event = Event {
            seq: self.next,
            wall_ms: now.wall.as_millisecond(),
            mono_us: now.mono.as_micros(),
            kind: kind.to_owned(),
            zone,
            group,
            path,
            from,
            to,
            reason,
        };
        self.next += 1;
        tracing::info!(
            event = event.seq,
            kind,
            zone = event.zone.as_ref().map(tracing::field::display),
            group = event.group.as_ref().map(tracing::field::display),
            path = event.path.as_ref().map(tracing::field::display),
            from = event.from,
            to = event.to,
            "{}",
            event.reason.en
        );
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event.clone());
        // Nobody following is not an error.
        let _followers = self.feed.send(event);
    }

    /// The number of the next one.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many there have been.
    pub(crate) fn recorded(&self) -> u64 {
        self.next - 1
    }

    pub(crate) fn since(&self, seq: u64) -> Vec<Event> {
        self.kept.iter().filter(|event| event.seq > seq).cloned().collect()
    }
}
