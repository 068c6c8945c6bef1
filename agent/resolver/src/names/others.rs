//! Names that the plan does not name: forwards that pass untouched, and an open zone's other names over its path.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::HTTPS;
use hickory_proto::rr::rdata::svcb::SvcParamKey;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use seimon_board::Instant;
use seimon_ipc::resolver::{Family6, Forward, PathView};
use seimon_plan::{PathId, ZoneId};

use super::cache::{Ask as AskAgain, Found, Key, Known};
use super::question::{HEADER_LEN, Question, key_of};
use super::reply::{self, Ede, Reply};
use super::upstream::{self, Flags};
use super::{Action, Alias, Ask, How, Job, NoAnswer, Resolver, Timer};

/// A client with a stale answer at hand waits no longer than this for a fresh one (RFC 8767, section 5).
const STALE_PATIENCE: Duration = Duration::from_millis(1_800);

impl Resolver {
    /// The forward of the longest domain that the name lies in. A named service is never forwarded.
    pub(super) fn forward_for(&self, zone: &ZoneId, question: &Question) -> Option<Forward> {
        let view = self.config.as_ref()?.zones.get(zone)?;
        if view.services.contains_key(&question.key) || view.own.contains_key(&question.key) {
            return None;
        }
        let forwards = self.forwards.get(zone)?;
        let hit = forwards.iter().find(|candidate| candidate.domain.zone_of(&question.name))?;
        Some(hit.forward.clone())
    }

    pub(super) fn pass(&mut self, query: u64, forward: &Forward, bytes: &[u8]) {
        let Some(pending) = self.pending.get(&query) else { return };
        let how = How::Raw(pending.question.transport);
        let source = match &forward.path {
            None => None,
            Some(path) if self.is_down(path) => {
                return self.finish(query, Reply::failure(Ede::NetworkError));
            }
            Some(path) => self.path(path).map(|view| (view.source4, view.source6)),
        };
        let job = self.number();
        let servers = forward.servers.clone();
        self.submit(Job::Raw { query }, Ask { job, message: bytes.to_vec(), servers, source, how });
    }

    pub(super) fn passed(&mut self, query: u64, outcome: Result<Vec<u8>, NoAnswer>) {
        // Whoever asked has judged the message; what is not even a header would be no answer to anybody.
        let Some(mut message) = outcome.ok().filter(|message| message.len() >= HEADER_LEN) else {
            return self.finish(query, Reply::failure(Ede::NoReachableAuthority));
        };
        let Some(pending) = self.take_pending(query) else { return };
        self.stats.answered += 1;
        upstream::set_id(&mut message, pending.question.id);
        if message.len() > pending.question.limit() {
            message = reply::truncated(&pending.question);
        }
        self.actions.push_back(Action::Answer { query, message });
    }

    pub(super) fn answer_other(&mut self, query: u64, path: &PathId, now: Instant) {
        let Some(pending) = self.pending.get(&query) else { return };
        let question = &pending.question;
        if question.kind == RecordType::AAAA && self.withholds_aaaa(path) {
            let reply = Reply::no_data(&question.name);
            return self.finish(query, reply);
        }
        self.fly(query, path, now);
    }

    /// Answers from the cache or over `path`; questions that are the same share one flight.
    pub(super) fn fly(&mut self, query: u64, path: &PathId, now: Instant) {
        let Some(pending) = self.pending.get_mut(&query) else { return };
        pending.path = Some(path.clone());
        let question = &pending.question;
        let kind = question.kind;
        if kind == RecordType::ANY {
            let reply = Reply::any(question);
            return self.finish(query, reply);
        }
        if is_not_for_resolvers(kind) {
            return self.finish(query, Reply::code(ResponseCode::Refused));
        }
        let flags = Flags { dnssec_ok: question.dnssec_ok(), checking_disabled: question.checking_disabled };
        let key = Key::new(path, &question.key, kind, flags);
        let name = question.name.to_lowercase();
        let known = self.cache.lookup(&key, now);
        let down = self.is_down(path);
        match known {
            Known::Fresh(found) => return self.finish_found(query, found, None, now),
            Known::Stale { found, ask } => {
                if down || ask == AskAgain::JustFailed {
                    return self.finish_stale(query, found, now);
                }
                if let Some(pending) = self.pending.get_mut(&query) {
                    pending.stale = Some(found);
                }
                self.timers.insert((now + STALE_PATIENCE, Timer::Stale(query)));
            }
            Known::Nothing if down => return self.finish(query, Reply::failure(Ede::NetworkError)),
            Known::Failing => return self.finish(query, Reply::failure(Ede::NoReachableAuthority)),
            Known::Nothing => {}
        }
        if let Some(job) = self.flights.get(&key)
            && let Some(Job::Flight { waiting, .. }) = self.jobs.get_mut(job)
        {
            waiting.push(query);
            return;
        }
        let Some(view) = self.path(path) else { return };
        let (servers, source) = (servers_of(view), Some((view.source4, view.source6)));
        let message = upstream::query(&name, kind, flags);
        let job = self.number();
        self.flights.insert(key.clone(), job);
        let flight = Job::Flight { key, name, kind, flags, waiting: vec![query] };
        self.submit(flight, Ask { job, message, servers, source, how: How::Own });
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a flight, taken apart")]
    pub(super) fn landed(
        &mut self,
        key: Key,
        name: &Name,
        kind: RecordType,
        flags: Flags,
        waiting: Vec<u64>,
        outcome: Result<Vec<u8>, NoAnswer>,
        now: Instant,
    ) {
        let believed = outcome.ok().and_then(|bytes| upstream::believe(&bytes, name, kind, flags).ok());
        let Some(believed) = believed else {
            self.cache.failed(key, now);
            waiting.into_iter().for_each(|query| self.give_up(query, now));
            return;
        };
        self.cache.store(key, &believed, now);
        let found =
            Found { code: believed.code, answers: believed.answers, authorities: believed.authorities };
        for query in waiting {
            self.finish_found(query, found.clone(), None, now);
        }
    }

    pub(super) fn finish_stale(&mut self, query: u64, found: Found, now: Instant) {
        self.stats.stale += 1;
        let ede = if found.code == ResponseCode::NXDomain { Ede::StaleNxdomain } else { Ede::StaleAnswer };
        self.finish_found(query, found, Some(ede), now);
    }

    /// An alias of a name in an open zone that leads to a named service: from there on, the service's inside address is
    /// the answer, or its traffic would go another way than the service does.
    fn alias_to_service(&self, query: u64, answers: &mut Vec<Record>) -> Option<Alias> {
        let pending = self.pending.get(&query)?;
        let kind = pending.question.kind;
        if !matches!(kind, RecordType::A | RecordType::AAAA) && !reply::is_service_binding(kind) {
            return None;
        }
        let services = &self.config.as_ref()?.zones.get(&pending.zone)?.services;
        let (at, name, key) = answers.iter().enumerate().find_map(|(at, record)| {
            let RData::CNAME(target) = &record.data else { return None };
            let key = key_of(&target.0);
            services.contains_key(&key).then(|| (at, target.0.clone(), key))
        })?;
        let mut chain = std::mem::take(answers);
        chain.truncate(at + 1);
        own_case(&mut chain, &pending.question.name);
        Some(Alias { chain, name, key })
    }

    fn finish_found(&mut self, query: u64, mut found: Found, ede: Option<Ede>, now: Instant) {
        if let Some(alias) = self.alias_to_service(query, &mut found.answers)
            && let Some(pending) = self.pending.get_mut(&query)
        {
            (pending.alias, pending.stale) = (Some(alias), None);
            return self.dispatch(query, now);
        }
        let Some(pending) = self.pending.get(&query) else { return };
        let Found { code, mut answers, authorities } = found;
        let path = pending.path.as_ref();
        if reply::is_service_binding(pending.question.kind)
            && path.is_none_or(|path| self.withholds_aaaa(path))
        {
            answers.iter_mut().for_each(drop_ipv6_hints);
        }
        own_case(&mut answers, &pending.question.name);
        self.finish(query, Reply { code, answers, authorities, ede });
    }
}

/// The client's own mix of cases, which some compare.
fn own_case(answers: &mut [Record], asked: &Name) {
    for record in answers.iter_mut().filter(|record| record.name == *asked) {
        record.name = asked.clone();
    }
}

/// Servers that can be asked over the path.
pub(super) fn servers_of(view: &PathView) -> Vec<IpAddr> {
    let usable = |server: &&IpAddr| server.is_ipv4() || view.ipv6 == Family6::Carried;
    view.servers.iter().filter(usable).copied().collect()
}

/// An HTTPS record's IPv6 addresses are AAAA records by another name.
fn drop_ipv6_hints(record: &mut Record) {
    let (RData::HTTPS(HTTPS(service)) | RData::SVCB(service)) = &mut record.data else { return };
    service.svc_params.retain(|(key, _)| *key != SvcParamKey::Ipv6Hint);
}

/// Zone transfers, and types that are not records at all.
fn is_not_for_resolvers(kind: RecordType) -> bool {
    matches!(
        kind,
        RecordType::AXFR | RecordType::IXFR | RecordType::OPT | RecordType::TSIG | RecordType::ZERO
    )
}
