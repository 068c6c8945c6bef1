//! Decides what to answer whom, and when. No I/O: messages and `now` come in, [`Action`]s go out.
//!
//! ```text
//! query ─┬─ a name of ours ─── the gateway's address in the zone
//!        ├─ named service ── binding of its current path in force? ── inside address, TTL 60
//!        ├─ forward (AD) ─── bytes as they are, but for the id
//!        ├─ other name ───── cache, or its path's resolvers          (open zones)
//!        └─ other name ───── REFUSED, extended error "Blocked"        (zones with a list)
//! ```
//!
//! For a named service: A and AAAA are answered with the inside address as soon as the real address of the current
//! path is in force, or with "no such data" when that path has none (AAAA also when the path does not carry IPv6);
//! HTTPS and SVCB with "no such data", since their hints would lead around the inside address; other types pass. A
//! blocked service is answered SERVFAIL with extended error 22 (No Reachable Authority): clients do not keep that, so
//! that they come back when there is a path again. An open zone's alias that leads to a named service leads to its inside
//! address.

mod binding;
mod cache;
mod named;
mod others;
mod own;
mod question;
mod reply;
#[cfg(test)]
mod tests;
pub mod upstream;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use seimon_board::Instant;
use seimon_ipc::resolver::{
    Family6, Forward, FromResolver, PathUp, PathView, ResolverConfig, ResolverStats, ToResolver, Transport,
};
use seimon_plan::{PathId, ZoneId};

use binding::{Binding, Lookup};
use cache::{Cache, Found, Key};
use question::{NoQuestion, Question};
use reply::{Ede, Reply};
use upstream::Flags;

/// A query is answered, if only with SERVFAIL, before common clients give up (5 s).
const CLIENT_PATIENCE: Duration = Duration::from_millis(4_500);

/// Bounds on what clients and servers can make us keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub cache_entries: usize,
    pub cache_bytes: usize,
    /// Queries that wait: in all, and of one client address.
    pub waiting: usize,
    pub waiting_per_client: usize,
    /// Upstream queries under way; more are queued.
    pub asking: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cache_entries: 10_000,
            cache_bytes: 6 << 20,
            waiting: 2_000,
            waiting_per_client: 100,
            asking: 256,
        }
    }
}

/// Mechanisms switched off, to see tests fail. All on by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without {
    pub inside_address: Off,
    pub aaaa_withhold: Off,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Off {
    #[default]
    No,
    Yes,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The one answer to the query that [`Resolver::handle_query`] gave this number.
    Answer {
        query: u64,
        message: Vec<u8>,
    },
    Ask(Ask),
    Tell(FromResolver),
}

/// A query to be put to servers, the first that answers; to be reported with [`Resolver::handle_upstream`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub job: u64,
    /// Its id is to be replaced, see [`How`].
    pub message: Vec<u8>,
    pub servers: Vec<IpAddr>,
    /// `None`: the kernel's choice.
    pub source: Option<(Ipv4Addr, Ipv6Addr)>,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Our own question: [`upstream::disguise`] it, judge by [`upstream::judge`]; UDP first, TCP where needed.
    Own,
    /// A client's message: only the id is ours, judge by [`upstream::judge_raw`].
    Raw(Transport),
}

/// No server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("no server answered in time")]
    TimedOut,
    #[error("no server could be reached")]
    Unreachable,
    #[error("no server was willing or able to answer")]
    Ill,
}

#[derive(Debug)]
struct Pending {
    client: IpAddr,
    zone: ZoneId,
    question: Question,
    /// The path that it is, or would be, asked over.
    path: Option<PathId>,
    /// The question's name led to a named service.
    alias: Option<Alias>,
    /// Given when asking takes too long or fails.
    stale: Option<Found>,
    deadline: Instant,
}

impl Pending {
    /// Whose address is the answer.
    fn name(&self) -> &Name {
        self.alias.as_ref().map_or(&self.question.name, |alias| &alias.name)
    }

    fn key(&self) -> &str {
        self.alias.as_ref().map_or(&self.question.key, |alias| &alias.key)
    }
}

/// A chain of aliases that ends at a named service.
#[derive(Debug)]
struct Alias {
    chain: Vec<Record>,
    name: Name,
    key: String,
}

#[derive(Debug)]
enum Job {
    Raw { query: u64 },
    Lookup { lookup: LookupKey, kind: RecordType },
    Flight { key: Key, name: Name, kind: RecordType, flags: Flags, waiting: Vec<u64> },
}

type LookupKey = (PathId, String);
type BindKey = (ZoneId, String, PathId);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Deadline(u64),
    Stale(u64),
    Refresh(LookupKey),
    Grace(LookupKey),
    Rebind(BindKey),
}

#[derive(Debug)]
struct CompiledForward {
    domain: Name,
    forward: Forward,
}

#[derive(Debug)]
pub struct Resolver {
    /// `None` until the agent's first word.
    config: Option<ResolverConfig>,
    /// Longest domain first.
    forwards: BTreeMap<ZoneId, Vec<CompiledForward>>,
    /// Our own inside addresses: never a real address.
    inside: BTreeSet<IpAddr>,
    limits: Limits,
    without: Without,
    cache: Cache,
    pending: HashMap<u64, Pending>,
    waiting_of: HashMap<IpAddr, usize>,
    jobs: HashMap<u64, Job>,
    flights: HashMap<Key, u64>,
    lookups: BTreeMap<LookupKey, Lookup>,
    bindings: BTreeMap<BindKey, Binding>,
    tokens: HashMap<u64, BindKey>,
    timers: BTreeSet<(Instant, Timer)>,
    actions: VecDeque<Action>,
    queued: VecDeque<Ask>,
    asking: usize,
    last_number: u64,
    stats: ResolverStats,
    /// Clients that looked for a PAC file, and when that was told.
    looking: HashMap<IpAddr, Instant>,
}

impl Resolver {
    pub fn new(limits: Limits, without: Without) -> Self {
        Self {
            config: None,
            forwards: BTreeMap::new(),
            inside: BTreeSet::new(),
            limits,
            without,
            cache: Cache::new(limits.cache_entries, limits.cache_bytes),
            pending: HashMap::new(),
            waiting_of: HashMap::new(),
            jobs: HashMap::new(),
            flights: HashMap::new(),
            lookups: BTreeMap::new(),
            bindings: BTreeMap::new(),
            tokens: HashMap::new(),
            timers: BTreeSet::new(),
            actions: VecDeque::new(),
            queued: VecDeque::new(),
            asking: 0,
            last_number: 0,
            stats: ResolverStats::default(),
            looking: HashMap::new(),
        }
    }

    /// A message from a client. `None`: there will be no answer (it is none of ours, or the client has too many waiting);
    /// else exactly one [`Action::Answer`] with this number follows, at once or within 4.5 s.
    pub fn handle_query(
        &mut self,
        zone: &ZoneId,
        client: IpAddr,
        transport: Transport,
        bytes: &[u8],
        now: Instant,
    ) -> Option<u64> {
        self.stats.queries += 1;
        let mut question = match Question::read(bytes, transport) {
            Ok(question) => question,
            Err(refused) => return self.malformed(refused),
        };
        if self.waiting_of.get(&client).is_some_and(|&waiting| waiting >= self.limits.waiting_per_client) {
            self.stats.failed += 1;
            return None;
        }
        self.note_wpad(zone, client, &question, now);
        let rest = question.read_rest(bytes);
        let forward = self.forward_for(zone, &question);
        if let (None, Err(refused)) = (&forward, rest) {
            return self.malformed(refused);
        }
        let query = self.number();
        let deadline = now + CLIENT_PATIENCE;
        *self.waiting_of.entry(client).or_default() += 1;
        self.pending.insert(
            query,
            Pending { client, zone: zone.clone(), question, path: None, alias: None, stale: None, deadline },
        );
        if self.pending.len() > self.limits.waiting {
            self.finish(query, Reply::failure(Ede::NoReachableAuthority));
            return Some(query);
        }
        match forward {
            Some(forward) => self.pass(query, &forward, bytes),
            None => self.dispatch(query, now),
        }
        if self.pending.contains_key(&query) {
            self.timers.insert((deadline, Timer::Deadline(query)));
        }
        Some(query)
    }

    /// The outcome of an [`Action::Ask`]; `Ok` carries bytes that passed [`upstream::judge`] or
    /// [`upstream::judge_raw`].
    pub fn handle_upstream(&mut self, job: u64, outcome: Result<Vec<u8>, NoAnswer>, now: Instant) {
        self.asking = self.asking.saturating_sub(1);
        match self.jobs.remove(&job) {
            Some(Job::Raw { query }) => self.passed(query, outcome),
            Some(Job::Lookup { lookup, kind }) => self.looked_up(&lookup, kind, outcome, now),
            Some(Job::Flight { key, name, kind, flags, waiting }) => {
                self.flights.remove(&key);
                self.landed(key, &name, kind, flags, waiting, outcome, now);
            }
            // Given up by a change of configuration.
            None => {}
        }
        while self.asking < self.limits.asking {
            let Some(ask) = self.queued.pop_front() else { break };
            self.asking += 1;
            self.actions.push_back(Action::Ask(ask));
        }
    }

    pub fn handle_agent(&mut self, message: ToResolver, now: Instant) {
        match message {
            ToResolver::Configure(config) => self.configure(config, now),
            ToResolver::InForce { token } => self.in_force(token, now),
            ToResolver::NotInForce { token, reason: _ } => self.not_in_force(token, now),
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let Some((at, timer)) = self.timers.pop_first() else { break };
            match timer {
                Timer::Stale(query) => {
                    if self.pending.get(&query).is_some_and(|pending| pending.stale.is_some()) {
                        self.give_up(query, now);
                    }
                }
                Timer::Deadline(query) => {
                    self.give_up(query, now);
                    // Where the stale answer was an alias to a service that is not in force.
                    self.give_up(query, now);
                }
                Timer::Refresh(lookup) => {
                    if self.lookups.get(&lookup).is_some_and(|state| state.next == Some(at)) {
                        self.look_up(&lookup, now);
                    }
                }
                Timer::Grace(lookup) => self.propose(&lookup, now),
                Timer::Rebind(key) => self.bind(&key, now),
            }
        }
    }

    /// When [`Resolver::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub fn stats(&self) -> ResolverStats {
        ResolverStats { cache_entries: self.cache.len() as u64, ..self.stats.clone() }
    }

    fn malformed(&mut self, refused: NoQuestion) -> Option<u64> {
        self.stats.malformed += 1;
        let NoQuestion::Reply(message) = refused else { return None };
        let query = self.number();
        self.actions.push_back(Action::Answer { query, message });
        Some(query)
    }

    fn dispatch(&mut self, query: u64, now: Instant) {
        let Some(pending) = self.pending.get(&query) else { return };
        let Some(config) = &self.config else {
            return self.finish(query, Reply::failure(Ede::NotReady));
        };
        let Some(zone) = config.zones.get(&pending.zone) else {
            return self.finish(query, Reply::blocked());
        };
        if let Some(own) = zone.own.get(pending.key()) {
            let reply = own::reply(own, &pending.question);
            return self.finish(query, reply);
        }
        if let Some(service) = zone.services.get(pending.key()) {
            let service = service.clone();
            return self.answer_named(query, &service, now);
        }
        let others = zone.others.clone();
        if let Some(pending) = self.pending.get_mut(&query) {
            // Where the service that it led to is not named any more.
            pending.alias = None;
        }
        match others {
            None => self.finish(query, Reply::blocked()),
            Some(path) => self.answer_other(query, &path, now),
        }
    }

    /// No more waiting: the stale answer, or failure.
    fn give_up(&mut self, query: u64, now: Instant) {
        let Some(pending) = self.pending.get_mut(&query) else { return };
        match pending.stale.take() {
            Some(found) => self.finish_stale(query, found, now),
            None => self.finish(query, Reply::failure(Ede::NoReachableAuthority)),
        }
    }

    fn finish(&mut self, query: u64, reply: Reply) {
        let code = reply.code;
        let Some(pending) = self.take_pending(query) else { return };
        let counter = if matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            &mut self.stats.answered
        } else if code == ResponseCode::Refused {
            &mut self.stats.refused
        } else {
            &mut self.stats.failed
        };
        *counter += 1;
        let mut reply = reply;
        if let Some(alias) = pending.alias {
            reply.answers.splice(0..0, alias.chain);
        }
        let message = reply.encode(&pending.question);
        self.actions.push_back(Action::Answer { query, message });
    }

    fn take_pending(&mut self, query: u64) -> Option<Pending> {
        let pending = self.pending.remove(&query)?;
        if let Some(waiting) = self.waiting_of.get_mut(&pending.client) {
            *waiting -= 1;
            if *waiting == 0 {
                self.waiting_of.remove(&pending.client);
            }
        }
        self.timers.remove(&(pending.deadline, Timer::Deadline(query)));
        Some(pending)
    }

    fn submit(&mut self, job: Job, ask: Ask) {
        self.jobs.insert(ask.job, job);
        if self.asking < self.limits.asking {
            self.asking += 1;
            self.actions.push_back(Action::Ask(ask));
        } else {
            self.queued.push_back(ask);
        }
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn path(&self, path: &PathId) -> Option<&PathView> {
        self.config.as_ref()?.paths.get(path)
    }

    fn is_down(&self, path: &PathId) -> bool {
        self.path(path).is_none_or(|view| view.up == PathUp::Down)
    }

    fn withholds_aaaa(&self, path: &PathId) -> bool {
        self.without.aaaa_withhold == Off::No
            && self.path(path).is_none_or(|view| view.ipv6 == Family6::Withheld)
    }
}
