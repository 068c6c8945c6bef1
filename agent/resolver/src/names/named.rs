//! Named services: real addresses looked up and bound, inside addresses answered.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::rr::{Name, RData, RecordType};
use seimon_board::Instant;
use seimon_ipc::resolver::{FromResolver, NamedService, PathUp, PathView, ResolverConfig};

use super::binding::{self, Choice, GRACE, MIN_REFRESH, Real, Said};
use super::others::servers_of;
use super::reply::{self, Ede, Reply};
use super::upstream::{self, Flags};
use super::{Action, Ask, BindKey, CompiledForward, How, Job, LookupKey, NoAnswer, Off, Resolver, Timer};

/// A name of which nothing is known is not looked up again for a query so soon after a failure (RFC 9520).
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause before the agent is asked again to bind what it could not.
const MAX_REBIND: Duration = Duration::from_secs(32);

impl Resolver {
    pub(super) fn configure(&mut self, config: ResolverConfig, now: Instant) {
        let old = self.config.replace(config.clone()).unwrap_or_default();
        self.forwards = config.zones.iter().map(|(id, zone)| (id.clone(), compile(&zone.forwards))).collect();
        let services =
            || config.zones.iter().flat_map(|(id, z)| z.services.iter().map(move |(n, s)| (id, n, s)));
        self.inside =
            services().flat_map(|(_, _, s)| [IpAddr::V4(s.inside4), IpAddr::V6(s.inside6)]).collect();

        let mut renewed = Vec::new();
        for (id, view) in &config.paths {
            let before = old.paths.get(id);
            if before.is_some_and(|before| before.servers != view.servers) {
                self.cache.forget_path(id);
            }
            if before.is_none_or(|before| differs(before, view)) {
                self.cache.retry_path(id);
                renewed.push(id.clone());
            }
        }

        let waiting: Vec<u64> =
            self.bindings.values_mut().flat_map(|b| std::mem::take(&mut b.waiting)).collect();
        let service_of = |config: &ResolverConfig, (zone, name, path): &BindKey| {
            let service = config.zones.get(zone)?.services.get(name)?;
            service.paths.contains(path).then_some((service.inside4, service.inside6))
        };
        // A binding is of an inside address: another inside address has nothing in force.
        self.bindings.retain(|key, _| {
            let new = service_of(&config, key);
            new.is_some() && new == service_of(&old, key)
        });
        let bindings = &self.bindings;
        self.tokens.retain(|token, key| bindings.get(key).is_some_and(|b| b.token == Some(*token)));

        let mut needed: Vec<LookupKey> = Vec::new();
        for (zone, name, service) in services() {
            for path in service.paths.iter().filter(|path| config.paths.contains_key(*path)) {
                self.bindings.entry((zone.clone(), name.clone(), path.clone())).or_default();
                needed.push((path.clone(), name.clone()));
            }
        }
        needed.sort();
        needed.dedup();
        self.lookups.retain(|key, _| needed.binary_search(key).is_ok());
        for key in needed {
            let lookup = self.lookups.entry(key.clone()).or_default();
            if renewed.contains(&key.0) {
                // Answers of jobs under way are of the path as it was.
                for job in [lookup.job4.take(), lookup.job6.take()].into_iter().flatten() {
                    self.jobs.remove(&job);
                }
                (lookup.settled, lookup.ttl, lookup.failed_in_round, lookup.failures) =
                    (None, None, false, 0);
                lookup.v6 = Said::Nothing;
            }
            if lookup.is_busy() || lookup.settled.is_some_and(|at| now.since(at) < MIN_REFRESH) {
                self.propose(&key, now);
            } else {
                self.look_up(&key, now);
            }
        }
        for query in waiting {
            self.dispatch(query, now);
        }
    }

    pub(super) fn answer_named(&mut self, query: u64, service: &NamedService, now: Instant) {
        let Some(pending) = self.pending.get(&query) else { return };
        let question = &pending.question;
        let kind = question.kind;
        let Some(path) = &service.current else {
            return self.finish(query, Reply::failure(Ede::NoReachableAuthority));
        };
        let withheld = kind == RecordType::AAAA && self.withholds_aaaa(path);
        if withheld || reply::is_service_binding(kind) {
            let reply = Reply::no_data(pending.name());
            return self.finish(query, reply);
        }
        if !matches!(kind, RecordType::A | RecordType::AAAA) {
            return self.fly(query, path, now);
        }
        let key = (pending.zone.clone(), pending.key().to_owned(), path.clone());
        let Some(binding) = self.bindings.get(&key) else {
            return self.finish(query, Reply::failure(Ede::NoReachableAuthority));
        };
        let choice = binding.in_force.map_or(Choice::Unknown, |real| {
            if kind == RecordType::A {
                map(real.v4, |real| (IpAddr::V4(service.inside4), IpAddr::V4(real)))
            } else {
                map(real.v6, |real| (IpAddr::V6(service.inside6), IpAddr::V6(real)))
            }
        });
        match choice {
            Choice::Address((inside, real)) => {
                let address = if self.without.inside_address == Off::Yes { real } else { inside };
                let data = match address {
                    IpAddr::V4(address) => RData::A(address.into()),
                    IpAddr::V6(address) => RData::AAAA(address.into()),
                };
                let reply = Reply::address(pending.name(), data);
                self.finish(query, reply);
            }
            Choice::Absent => {
                let reply = Reply::no_data(pending.name());
                self.finish(query, reply);
            }
            Choice::Unknown => self.wait_for(query, &key, now),
        }
    }

    /// Nothing is in force for the query yet: wait if something is under way or can be begun, else fail.
    fn wait_for(&mut self, query: u64, key: &BindKey, now: Instant) {
        let (_, name, path) = key;
        let lookup_key = (path.clone(), name.clone());
        let Some(binding) = self.bindings.get(key) else { return };
        let (bound, refused) = (binding.token.is_some(), binding.refused > 0);
        let lookup = self.lookups.get(&lookup_key);
        let just_failed = lookup
            .is_some_and(|state| state.settled.is_some_and(|settled| now.since(settled) < FAILURE_PAUSE));
        if !bound {
            if refused {
                return self.finish(query, Reply::failure(Ede::Other));
            }
            if self.is_down(path) {
                return self.finish(query, Reply::failure(Ede::NetworkError));
            }
            if !lookup.is_some_and(super::Lookup::is_busy) {
                if just_failed {
                    return self.finish(query, Reply::failure(Ede::NoReachableAuthority));
                }
                self.look_up(&lookup_key, now);
                if !self.lookups.get(&lookup_key).is_some_and(super::Lookup::is_busy) {
                    return self.finish(query, Reply::failure(Ede::NoReachableAuthority));
                }
            }
        }
        if let Some(binding) = self.bindings.get_mut(key) {
            binding.waiting.push(query);
        }
    }

    /// Begins a round: A, and AAAA where the path carries IPv6.
    pub(super) fn look_up(&mut self, key: &LookupKey, now: Instant) {
        let (path, name) = key;
        let withheld = self.withholds_aaaa(path);
        let down = self.is_down(path);
        let (Some(view), Ok(name)) = (self.path(path), Name::from_ascii(format!("{name}."))) else { return };
        let (servers, source) = (servers_of(view), Some((view.source4, view.source6)));
        let Some(lookup) = self.lookups.get(key) else { return };
        if lookup.is_busy() {
            return;
        }
        if down {
            // Begun again when the path comes up, by Configure.
            return self.propose(key, now);
        }
        let kinds: &[RecordType] =
            if withheld { &[RecordType::A] } else { &[RecordType::A, RecordType::AAAA] };
        for &kind in kinds {
            let job = self.number();
            let Some(lookup) = self.lookups.get_mut(key) else { return };
            lookup.next = None;
            *(if kind == RecordType::A { &mut lookup.job4 } else { &mut lookup.job6 }) = Some(job);
            let message = upstream::query(&name, kind, Flags::default());
            let (servers, how) = (servers.clone(), How::Own);
            self.submit(
                Job::Lookup { lookup: key.clone(), kind },
                Ask { job, message, servers, source, how },
            );
        }
        if withheld && let Some(lookup) = self.lookups.get_mut(key) {
            lookup.v6 = Said::Addresses(Vec::new());
        }
    }

    pub(super) fn looked_up(
        &mut self,
        key: &LookupKey,
        kind: RecordType,
        outcome: Result<Vec<u8>, NoAnswer>,
        now: Instant,
    ) {
        let heard = self.hear(&key.1, kind, outcome);
        let Some(lookup) = self.lookups.get_mut(key) else { return };
        *(if kind == RecordType::A { &mut lookup.job4 } else { &mut lookup.job6 }) = None;
        match heard {
            None => lookup.failed_in_round = true,
            Some((addresses, ttl)) => {
                lookup.ttl = Some(lookup.ttl.map_or(ttl, |shortest| shortest.min(ttl)));
                if kind == RecordType::A {
                    lookup.v4 = Said::Addresses(addresses.iter().filter_map(v4).collect());
                } else {
                    lookup.v6 = Said::Addresses(addresses.iter().filter_map(v6).collect());
                }
            }
        }
        if lookup.is_busy() {
            self.timers.insert((now + GRACE, Timer::Grace(key.clone())));
            return;
        }
        let pause = lookup.end_round(now);
        self.timers.insert((now + pause, Timer::Refresh(key.clone())));
        self.propose(key, now);
    }

    /// Addresses in the answer and how long they hold; `None`: no answer, or only nonsense.
    fn hear(
        &self,
        name: &str,
        kind: RecordType,
        outcome: Result<Vec<u8>, NoAnswer>,
    ) -> Option<(Vec<IpAddr>, Duration)> {
        let name = Name::from_ascii(format!("{name}.")).ok()?;
        let believed = upstream::believe(&outcome.ok()?, &name, kind, Flags::default()).ok()?;
        let all: Vec<IpAddr> = believed.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
        let sound = |address: &IpAddr| binding::is_plausible(*address) && !self.inside.contains(address);
        let good: Vec<IpAddr> = all.iter().copied().filter(sound).collect();
        (all.is_empty() || !good.is_empty()).then_some((good, believed.ttl))
    }

    /// Binds, in all zones, what is known of a name over a path.
    pub(super) fn propose(&mut self, key: &LookupKey, now: Instant) {
        let (path, name) = key;
        let Some(config) = &self.config else { return };
        let zones: Vec<BindKey> = config
            .zones
            .keys()
            .map(|zone| (zone.clone(), name.clone(), path.clone()))
            .filter(|key| self.bindings.contains_key(key))
            .collect();
        for key in zones {
            self.bind(&key, now);
        }
    }

    /// Tells the agent when there is something new; wakes who waits when there is not.
    pub(super) fn bind(&mut self, key: &BindKey, now: Instant) {
        let (zone, name, path) = key;
        let Some(lookup) = self.lookups.get(&(path.clone(), name.clone())) else { return };
        let busy = lookup.is_busy();
        let Some(binding) = self.bindings.get_mut(key) else { return };
        let old = binding.wanted.unwrap_or_default();
        let real = Real { v4: binding::choose(old.v4, &lookup.v4), v6: binding::choose(old.v6, &lookup.v6) };
        let (ipv4, ipv6) = real.pair();
        let complete = real.v4 != Choice::Unknown && real.v6 != Choice::Unknown;
        // Absence is the servers' word for both families, never our not knowing.
        let tellable = ipv4.is_some() || ipv6.is_some() || (complete && !busy);
        if tellable {
            let wanted = binding.wanted.replace(real);
            if binding.token.is_some() {
                if wanted.map(Real::pair) == Some(real.pair()) {
                    return;
                }
            } else if binding.in_force.map(Real::pair) == Some(real.pair()) {
                binding.in_force = Some(real);
                return self.wake(key, now);
            }
            self.last_number += 1;
            let token = self.last_number;
            if let Some(overtaken) = binding.token.replace(token) {
                self.tokens.remove(&overtaken);
            }
            self.tokens.insert(token, key.clone());
            let (zone, name, path) = (zone.clone(), name.clone(), path.clone());
            self.actions.push_back(Action::Tell(FromResolver::Bind { token, zone, name, path, ipv4, ipv6 }));
            return;
        }
        if !busy {
            self.wake(key, now);
        }
    }

    pub(super) fn in_force(&mut self, token: u64, now: Instant) {
        let Some(key) = self.tokens.remove(&token) else { return };
        if let Some(binding) = self.bindings.get_mut(&key)
            && binding.token == Some(token)
        {
            (binding.token, binding.refused) = (None, 0);
            binding.in_force = binding.wanted;
            self.wake(&key, now);
        }
    }

    /// The kernel still has what it had: a transaction changes all or nothing.
    pub(super) fn not_in_force(&mut self, token: u64, now: Instant) {
        let Some(key) = self.tokens.remove(&token) else { return };
        if let Some(binding) = self.bindings.get_mut(&key)
            && binding.token == Some(token)
        {
            binding.token = None;
            binding.wanted = binding.in_force;
            binding.refused = binding.refused.saturating_add(1);
            let pause = Duration::from_secs(1) * 2_u32.saturating_pow(binding.refused.min(6) - 1);
            self.timers.insert((now + pause.min(MAX_REBIND), Timer::Rebind(key.clone())));
            self.wake(&key, now);
        }
    }

    /// Looks again at the queries that wait for a binding.
    fn wake(&mut self, key: &BindKey, now: Instant) {
        let Some(binding) = self.bindings.get_mut(key) else { return };
        for query in std::mem::take(&mut binding.waiting) {
            self.dispatch(query, now);
        }
    }
}

fn v4(address: &IpAddr) -> Option<std::net::Ipv4Addr> {
    if let IpAddr::V4(address) = address { Some(*address) } else { None }
}

fn v6(address: &IpAddr) -> Option<std::net::Ipv6Addr> {
    if let IpAddr::V6(address) = address { Some(*address) } else { None }
}

fn map<A, B>(choice: Choice<A>, f: impl FnOnce(A) -> B) -> Choice<B> {
    match choice {
        Choice::Unknown => Choice::Unknown,
        Choice::Absent => Choice::Absent,
        Choice::Address(address) => Choice::Address(f(address)),
    }
}

/// Whether what was heard over the path, or could not be, may be different now.
fn differs(before: &PathView, now: &PathView) -> bool {
    let PathView { servers, source4, source6, ipv6, up } = before;
    *servers != now.servers
        || (*source4, *source6) != (now.source4, now.source6)
        || *ipv6 != now.ipv6
        || (*up == PathUp::Down && now.up == PathUp::Up)
}

fn compile(forwards: &[seimon_ipc::resolver::Forward]) -> Vec<CompiledForward> {
    let mut compiled: Vec<CompiledForward> = forwards
        .iter()
        .filter_map(|forward| {
            let mut domain = Name::from_ascii(&forward.domain).ok()?.to_lowercase();
            domain.set_fqdn(true);
            Some(CompiledForward { domain, forward: forward.clone() })
        })
        .collect();
    compiled.sort_by_key(|forward| std::cmp::Reverse(forward.domain.num_labels()));
    compiled
}
