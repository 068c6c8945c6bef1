//! What must hold, in the words of the architecture and of nobody's code: it sees what goes over the borders (packets,
//! sessions as the service sees them, what a power cut would leave on disk) and the truth about the world, and judges.
//!
//! It knows nothing of marks, chains, states or verdicts. A test keeps it from using the crates that decide.

mod calendar;
mod rules;
mod sessions;

use std::collections::BTreeMap;

pub use calendar::is_open;
pub use rules::{Allowed, Rules, Target};
pub use sessions::{Session, Split};

/// A move away needs something that was wrong at most so long ago: slow checks, three in a row.
const REASON_MS: u64 = 150_000;
/// A path that has been dead for so long is known to be.
const KNOWN_DEAD_MS: u64 = 5_000;
/// ...and is not to be used any more, where there is another.
const SERVED_AGAIN_MS: u64 = 15_000;
/// An address that has been wrong for so long is known to be.
const KNOWN_STRANGE_MS: u64 = 3_000;
/// Without any fault for so long, no hold-down of anything can be left.
const SPOTLESS_MS: u64 = 400_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub at_ms: u64,
    pub what: String,
    pub detail: String,
}

/// What came up, so that a run in which nothing happens is seen to be one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub moves: u64,
    pub moves_asked_for: u64,
    pub sessions: u64,
    pub requests: u64,
    pub splits_by_failure: u64,
    pub splits_by_deadline: u64,
    pub splits_by_loss_of_state: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub questions: u64,
}

/// One path's past, as the one who knows everything tells it.
#[derive(Clone, Debug, Default)]
struct Past {
    dead_since: Option<u64>,
    strange_since: Option<u64>,
    /// Anything that was wrong with it and not with all.
    last_fault: Option<u64>,
    /// Anything at all.
    last_blemish: Option<u64>,
}

/// What is wrong with one path now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    pub dead: bool,
    pub lossy: bool,
    pub ill: Vec<String>,
    pub strange: bool,
    pub lied_to: bool,
}

/// One zone's traffic to one group.
#[derive(Clone, Debug)]
struct Group {
    route: Vec<String>,
    /// Whether its services ask for known addresses.
    asks_for_addresses: bool,
    aim: Option<String>,
    /// Where the few who try first go; where everybody goes, mostly.
    trial: Option<String>,
    /// When new flows last stopped taking the path.
    left: BTreeMap<String, u64>,
    asked_for: Option<String>,
    asked_back: bool,
    /// Where it may come to rest: the first path, and wherever somebody has sent it.
    homes: Vec<String>,
    moves: u64,
    may_move: u64,
}

/// The gateway as it stands, for what must be done by one that can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Able {
    /// Since then nothing kept it from acting.
    Since(u64),
    No,
}

#[derive(Debug)]
pub struct Reference {
    rules: Rules,
    groups: BTreeMap<(String, String), Group>,
    pasts: BTreeMap<String, Past>,
    sessions: BTreeMap<u64, Session>,
    last_crash: Option<u64>,
    last_loss_of_state: Option<u64>,
    hindered_until: Option<u64>,
    /// The latest wall time, milliseconds since 1970, that somebody vouched for.
    latest_vouched: Option<i64>,
    drain_ms: u64,
    idle_ms: u64,
    pub violations: Vec<Violation>,
    pub tally: Tally,
}

fn within(past: Option<u64>, now: u64, span: u64) -> bool {
    past.is_some_and(|past| now.saturating_sub(past) <= span)
}

impl Reference {
    pub fn new(rules: Rules, drain_ms: u64, idle_ms: u64) -> Self {
        let groups = rules.routes.iter().map(|(key, route)| {
            let group = Group {
                route: route.clone(),
                asks_for_addresses: rules.asking.contains(&key.1),
                aim: None,
                trial: None,
                left: BTreeMap::new(),
                asked_for: None,
                asked_back: false,
                homes: route.first().cloned().into_iter().collect(),
                moves: 0,
                may_move: 2,
            };
            (key.clone(), group)
        });
        let pasts = rules.lines.keys().map(|path| (path.clone(), Past::default()));
        Self {
            groups: groups.collect(),
            pasts: pasts.collect(),
            sessions: BTreeMap::new(),
            last_crash: None,
            last_loss_of_state: None,
            hindered_until: None,
            latest_vouched: None,
            drain_ms,
            idle_ms,
            violations: Vec::new(),
            tally: Tally::default(),
            rules,
        }
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub fn complain(&mut self, at_ms: u64, what: &str, detail: String) {
        // The first few tell the story.
        if self.violations.len() < 20 {
            self.violations.push(Violation { at_ms, what: what.to_owned(), detail });
        }
    }

    /// So many moves more may come of what happens now, for every group.
    pub fn expect_moves(&mut self, more: u64) {
        for group in self.groups.values_mut() {
            group.may_move += more;
        }
    }

    pub fn crashed(&mut self, now: u64, power: bool) {
        self.last_crash = Some(now);
        if power {
            self.tally.power_cuts += 1;
            self.lost_state(now);
        } else {
            self.tally.kills += 1;
        }
        self.expect_moves(2);
    }

    /// The kernel has forgotten who was logged in where.
    pub fn lost_state(&mut self, now: u64) {
        self.last_loss_of_state = Some(now);
    }

    /// Until then disk or kernel may refuse what the gateway has decided. The drain deadline runs from the decision, so those
    /// who log in before it is carried out have less of it.
    pub fn hindered(&mut self, until: u64) {
        self.hindered_until = self.hindered_until.max(Some(until));
    }

    /// The wall clock stands at this, and somebody vouches for it.
    pub fn vouched(&mut self, wall_ms: i64) {
        self.latest_vouched = self.latest_vouched.max(Some(wall_ms));
    }

    /// The latest time that is on disk. One that nobody vouched for would keep a right clock from being believed, and
    /// permits would run out by it.
    pub fn keeps_time(&mut self, now: u64, wall_ms: Option<i64>) {
        if wall_ms.is_some_and(|wall_ms| wall_ms != 0) && wall_ms > self.latest_vouched {
            let detail = format!("{wall_ms:?}, vouched for {:?}", self.latest_vouched);
            self.complain(now, "wrote down a time that nobody vouched for", detail);
        }
    }

    /// Somebody asked for a move, and the gateway agreed.
    pub fn asked(&mut self, zone: &str, group: &str, to: &str) {
        if let Some(group) = self.groups.get_mut(&(zone.to_owned(), group.to_owned())) {
            group.asked_for = Some(to.to_owned());
            group.may_move += 4;
            if !group.homes.iter().any(|home| home == to) {
                group.homes.push(to.to_owned());
            }
        }
    }

    pub fn asked_back(&mut self, zone: &str, group: &str) {
        if let Some(group) = self.groups.get_mut(&(zone.to_owned(), group.to_owned())) {
            group.asked_back = true;
            group.asked_for = None;
            group.may_move += 2;
        }
    }

    /// The truth, every moment.
    pub fn watch(&mut self, now: u64, wrongs: &BTreeMap<String, Wrong>) {
        for (path, wrong) in wrongs {
            let everywhere = |service: &String| wrongs.values().all(|other| other.ill.contains(service));
            let own_illness = wrong.ill.iter().any(|service| !everywhere(service));
            let fault = wrong.dead || wrong.lossy || own_illness || wrong.strange || wrong.lied_to;
            let past = self.pasts.entry(path.clone()).or_default();
            if fault {
                past.last_fault = Some(now);
            }
            if fault || !wrong.ill.is_empty() {
                past.last_blemish = Some(now);
            }
            let since = |is: bool, since: Option<u64>| if is { since.or(Some(now)) } else { None };
            past.dead_since = since(wrong.dead, past.dead_since);
            past.strange_since = since(wrong.strange, past.strange_since);
        }
    }

    fn long_dead(&self, path: &str, now: u64, span: u64) -> bool {
        self.pasts
            .get(path)
            .and_then(|past| past.dead_since)
            .is_some_and(|since| now.saturating_sub(since) >= span)
    }

    fn long_strange(&self, path: &str, now: u64) -> bool {
        self.pasts
            .get(path)
            .and_then(|past| past.strange_since)
            .is_some_and(|since| now.saturating_sub(since) >= KNOWN_STRANGE_MS)
    }

    fn at_fault(&self, path: &str, now: u64) -> bool {
        self.pasts.get(path).is_some_and(|past| within(past.last_fault, now, REASON_MS))
    }

    /// New flows of the group now take this path; `durable`: where they may go after a power cut at this instant.
    pub fn aims(
        &mut self,
        now: u64,
        (zone, name): (&str, &str),
        path: &str,
        durable: impl FnOnce() -> Vec<String>,
        may_begin: bool,
    ) {
        let key = (zone.to_owned(), name.to_owned());
        let Some(group) = self.groups.get(&key) else { return };
        if group.aim.as_deref() == Some(path) {
            return;
        }
        let group = group.clone();
        let who = format!("{zone}/{name}: {} → {path}", group.aim.as_deref().unwrap_or("nowhere"));
        if !group.route.iter().any(|allowed| allowed == path) {
            self.complain(now, "a path that the plan does not allow", who.clone());
        }
        let written = durable();
        let is_written = written.iter().any(|written| written == path);
        let is_first = written.is_empty() && group.aim.is_none();
        if !(is_written || is_first) {
            let detail = format!("{who}, and on disk {written:?}");
            self.complain(now, "an act without a checkpoint", detail);
        }
        if let Some(old) = &group.aim {
            self.judge_move(now, &group, old, path, may_begin, &who);
            let moved = |group: &mut Group| {
                group.left.insert(old.clone(), now);
                group.moves += 1;
                // Back is where it was before, were it a refuge.
                if group.asked_back && !group.homes.iter().any(|home| home == path) {
                    group.homes.push(path.to_owned());
                }
                if group.asked_for.as_deref() == Some(path) {
                    group.asked_for = None;
                }
            };
            if let Some(group) = self.groups.get_mut(&key) {
                moved(group);
            }
            self.tally.moves += 1;
        }
        if let Some(group) = self.groups.get_mut(&key) {
            group.aim = Some(path.to_owned());
        }
    }

    /// New flows of the few who try first now take this path. What everybody does is judged with everybody.
    pub fn tries(
        &mut self,
        now: u64,
        (zone, name): (&str, &str),
        path: &str,
        durable: impl FnOnce() -> Vec<String>,
        may_begin: bool,
    ) {
        let key = (zone.to_owned(), name.to_owned());
        let Some(group) = self.groups.get(&key).cloned() else { return };
        if group.trial.as_deref() == Some(path) {
            return;
        }
        if group.aim.as_deref() != Some(path) {
            let who = format!("{zone}/{name}, a few: {path} instead of {:?}", group.aim);
            let crashed =
                within(self.last_crash, now, 60_000) || within(self.last_loss_of_state, now, 60_000);
            if !group.route.iter().any(|allowed| allowed == path) {
                self.complain(now, "a path that the plan does not allow", who.clone());
            }
            let written = durable();
            if !written.iter().any(|written| written == path) {
                let detail = format!("{who}, and on disk {written:?}");
                self.complain(now, "an act without a checkpoint", detail);
            }
            if group.asked_for.as_deref() != Some(path) && !crashed {
                self.complain(now, "a trial that nobody asked for", who.clone());
            }
            if !may_begin && !crashed {
                self.complain(now, "began outside the window", who.clone());
            }
            if group.asks_for_addresses && self.long_strange(path, now) && !crashed {
                self.complain(now, "moved to where the services do not know us", who);
            }
        }
        if let Some(group) = self.groups.get_mut(&key)
            && let Some(old) = group.trial.replace(path.to_owned())
        {
            group.left.insert(old, now);
        }
    }

    fn judge_move(&mut self, now: u64, group: &Group, old: &str, new: &str, may_begin: bool, who: &str) {
        // Without a table nothing passes, over whichever path.
        let crashed = within(self.last_crash, now, 60_000) || within(self.last_loss_of_state, now, 60_000);
        let fleeing = self.at_fault(old, now);
        let asked_for = group.asked_for.as_deref() == Some(new);
        let goes_home = group.homes.iter().any(|home| home == new);
        let nowhere_lives = group.route.iter().all(|path| self.long_dead(path, now, 1_000) || path == old);
        if self.long_dead(new, now, KNOWN_DEAD_MS) && !crashed && !nowhere_lives {
            self.complain(now, "left a path for a dead one", who.to_owned());
        }
        if group.asks_for_addresses && self.long_strange(new, now) && !crashed && !group.asked_back {
            self.complain(now, "moved to where the services do not know us", who.to_owned());
        }
        if asked_for && !fleeing {
            self.tally.moves_asked_for += 1;
            if !may_begin {
                self.complain(now, "began outside the window", who.to_owned());
            }
        }
        if !(asked_for || fleeing || goes_home || group.asked_back || crashed) {
            self.complain(now, "moved without a reason", who.to_owned());
        }
        if goes_home && !(asked_for || fleeing || group.asked_back || crashed) {
            // Home from where it had fled to: what drove it away was once wrong with home, or a move failed.
            let ever = self.pasts.values().any(|past| past.last_fault.is_some());
            if !ever {
                self.complain(now, "moved though nothing was ever wrong", who.to_owned());
            }
        }
        if group.moves + 1 > group.may_move {
            let detail = format!("{who}: {} moves, {} causes for one", group.moves + 1, group.may_move);
            self.complain(now, "flapping", detail);
        }
    }

    /// Log-ins on the path are forgotten or flows there ended.
    pub fn forgets(&mut self, now: u64, (zone, name): (&str, &str), path: &str, durable: &[String]) {
        let key = (zone.to_owned(), name.to_owned());
        let Some(group) = self.groups.get(&key) else { return };
        let who = format!("{zone}/{name} on {path}, new flows on {:?}, on disk {durable:?}", group.aim);
        let in_use = group.aim.as_deref() == Some(path);
        let unwritten = durable.iter().all(|durable| durable == path);
        if in_use {
            self.complain(now, "ended flows on the path in use", who);
        } else if unwritten {
            self.complain(now, "ended flows without a checkpoint", who);
        }
    }

    /// Nobody stays on a dead path while a spotless one is allowed.
    pub fn must_act(&mut self, now: u64, able: Able) {
        let Able::Since(since) = able else { return };
        if now.saturating_sub(since) < SERVED_AGAIN_MS {
            return;
        }
        let mut late = Vec::new();
        for ((zone, name), group) in &self.groups {
            let Some(aim) = group.aim.as_deref().filter(|aim| self.long_dead(aim, now, SERVED_AGAIN_MS))
            else {
                continue;
            };
            let spotless = |path: &&String| {
                path.as_str() != aim
                    && self
                        .pasts
                        .get(path.as_str())
                        .is_some_and(|past| !within(past.last_blemish, now, SPOTLESS_MS))
            };
            if let Some(better) = group.route.iter().find(spotless) {
                late.push(format!("{zone}/{name} on {aim}, though {better} works"));
            }
        }
        for who in late {
            self.complain(now, "stays on a dead path", who);
        }
    }

    /// Everything has been well for long: everybody rests where they belong.
    pub fn rests(&mut self, now: u64, zone: &str, name: &str, durable: &[String]) {
        let Some(group) = self.groups.get(&(zone.to_owned(), name.to_owned())) else { return };
        let who = format!("{zone}/{name} on {:?}, on disk {durable:?}", group.aim);
        let at_home = group.aim.as_ref().is_some_and(|aim| group.homes.contains(aim));
        let agrees = group.aim.as_slice() == durable;
        if !at_home {
            self.complain(now, "rests where nobody sent it", who.clone());
        }
        if !agrees {
            self.complain(now, "rests otherwise than written", who);
        }
    }
}

#[cfg(test)]
mod tests {
    /// Whoever judges must not ask the accused.
    #[test]
    fn the_reference_does_not_use_what_decides() {
        let sources = [
            include_str!("reference.rs"),
            include_str!("reference/calendar.rs"),
            include_str!("reference/rules.rs"),
            include_str!("reference/sessions.rs"),
        ];
        for source in sources {
            let code = source.split("#[cfg(test)]").next().unwrap_or_default();
            for word in
                ["seimon_core", "seimon_dataplane", "seimon_journal", "crate::gateway", "crate::kernel"]
            {
                assert!(!code.contains(word), "{word}");
            }
        }
    }
}
