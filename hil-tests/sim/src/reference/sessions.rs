//! Sessions, as the service sees them: a log-in that comes from two addresses is a log-in lost.

use super::{Reference, within};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub zone: String,
    pub group: String,
    /// Path of the latest request that was served, and when that was.
    path: String,
    last: u64,
}

/// Why a session is seen from another address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The path failed, or its service did.
    Failure,
    /// It was given all the time that the plan allows.
    Deadline,
    /// The power went, or somebody else emptied the table.
    LossOfState,
    /// It had been quiet for longer than a log-in may be.
    Quiet,
}

impl Reference {
    /// The service answered a request of the session, which came over this path.
    pub fn served(&mut self, now: u64, id: u64, (zone, group): (&str, &str), path: &str) {
        self.tally.requests += 1;
        let Some(before) = self.sessions.get(&id).cloned() else {
            self.tally.sessions += 1;
            let session =
                Session { zone: zone.to_owned(), group: group.to_owned(), path: path.to_owned(), last: now };
            self.sessions.insert(id, session);
            return;
        };
        if before.path != path {
            match self.excuse(now, &before) {
                Some(Split::Failure) => self.tally.splits_by_failure += 1,
                Some(Split::Deadline) => self.tally.splits_by_deadline += 1,
                Some(Split::LossOfState) => self.tally.splits_by_loss_of_state += 1,
                Some(Split::Quiet) => {}
                None => {
                    let detail = format!("{zone}/{group}, session {id}: {} → {path}", before.path);
                    self.complain(now, "a session was split over two addresses", detail);
                }
            }
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            path.clone_into(&mut session.path);
            session.last = now;
        }
    }

    fn excuse(&self, now: u64, session: &Session) -> Option<Split> {
        let since = now.saturating_sub(session.last);
        let past = self.pasts.get(&session.path);
        // What went wrong just before its last good request may be what drove it away.
        if past.is_some_and(|past| within(past.last_blemish, now, since + 60_000)) {
            return Some(Split::Failure);
        }
        if self.last_loss_of_state.is_some_and(|lost| lost + 3_000 >= session.last) {
            return Some(Split::LossOfState);
        }
        let key = (session.zone.clone(), session.group.clone());
        let left = self.groups.get(&key).and_then(|group| group.left.get(&session.path));
        // What was decided may have been carried out late.
        let late = left
            .zip(self.hindered_until)
            .map_or(0, |(left, until)| if left.saturating_sub(until) <= 10_000 { 25_000 } else { 0 });
        if left.is_some_and(|left| now.saturating_sub(*left) + 1_000 + late >= self.drain_ms) {
            return Some(Split::Deadline);
        }
        (since >= self.idle_ms).then_some(Split::Quiet)
    }

    pub fn ended(&mut self, id: u64) {
        self.sessions.remove(&id);
    }
}
