//! Answers that were believed, until they are forgotten: bounded in number and bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{Record, RecordType};
use seimon_board::Instant;
use seimon_plan::PathId;

use super::upstream::{Believed, Flags};

/// Seconds that clients may keep a stale answer (RFC 8767, section 4).
pub(super) const STALE_TTL: u32 = 30;

/// How long an answer may still be given after its time, when nobody can be asked.
const MAX_STALE: Duration = Duration::from_secs(24 * 3600);

/// After a failed refresh, a stale answer is given at once for so long.
const RETRY_STALE: Duration = Duration::from_secs(5);

/// What an entry is estimated to cost besides its bytes: map slot, queue slot, headers of three allocations.
const OVERHEAD: usize = 192;

/// Which answer: (path, name, type, flags).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(Arc<[u8]>);

impl Key {
    pub(super) fn new(path: &PathId, name: &str, kind: RecordType, flags: Flags) -> Self {
        let mut bytes = Vec::with_capacity(path.as_str().len() + name.len() + 4);
        bytes.extend_from_slice(path.as_str().as_bytes());
        bytes.push(0);
        bytes.push(u8::from(flags.dnssec_ok) | u8::from(flags.checking_disabled) << 1);
        bytes.extend_from_slice(&u16::from(kind).to_be_bytes());
        bytes.extend_from_slice(name.as_bytes());
        Self(bytes.into())
    }

    fn is_over(&self, path: &PathId) -> bool {
        self.0.strip_prefix(path.as_str().as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// What the cache knows of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Fresh(Found),
    /// Its time is over. `ask`: whether asking again is due.
    Stale {
        found: Found,
        ask: Ask,
    },
    /// Asking failed a moment ago.
    Failing,
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Due,
    JustFailed,
}

/// Records with the time that they have left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) code: ResponseCode,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
}

#[derive(Debug)]
struct Entry {
    /// A DNS message: a fraction of what parsed records take. Empty: only the failure is known.
    bytes: Box<[u8]>,
    stored: Instant,
    expires: Instant,
    retry: Instant,
    used: bool,
}

#[derive(Debug)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    /// Second-chance order of eviction. Keys of removed entries may linger.
    order: VecDeque<Key>,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

impl Cache {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        let (entries, order) = (HashMap::new(), VecDeque::new());
        Self { entries, order, bytes: 0, max_entries: max_entries.max(1), max_bytes }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn lookup(&mut self, key: &Key, now: Instant) -> Known {
        let Some(entry) = self.entries.get_mut(key) else { return Known::Nothing };
        entry.used = true;
        if entry.bytes.is_empty() {
            return if now < entry.retry { Known::Failing } else { Known::Nothing };
        }
        if now < entry.expires {
            let age = u32::try_from(now.since(entry.stored).as_secs()).unwrap_or(u32::MAX);
            return decode(&entry.bytes, |ttl| ttl.saturating_sub(age)).map_or(Known::Nothing, Known::Fresh);
        }
        if now.since(entry.expires) > MAX_STALE {
            return Known::Nothing;
        }
        let ask = if now < entry.retry { Ask::JustFailed } else { Ask::Due };
        decode(&entry.bytes, |_| STALE_TTL).map_or(Known::Nothing, |found| Known::Stale { found, ask })
    }

    /// Answers with TTL 0 are not kept.
    pub(super) fn store(&mut self, key: Key, believed: &Believed, now: Instant) {
        if believed.ttl.is_zero() {
            self.remove(&key);
            return;
        }
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        message.metadata.response_code = believed.code;
        message.answers.clone_from(&believed.answers);
        message.authorities.clone_from(&believed.authorities);
        let Ok(bytes) = message.to_vec() else { return };
        let expires = now + believed.ttl;
        self.insert(key, Entry { bytes: bytes.into(), stored: now, expires, retry: now, used: false });
    }

    /// Asking failed: do not ask again for a moment (RFC 9520).
    pub(super) fn failed(&mut self, key: Key, now: Instant) {
        match self.entries.get_mut(&key) {
            Some(entry) if !entry.bytes.is_empty() => entry.retry = now + RETRY_STALE,
            Some(_) | None => {
                let retry = now + Duration::from_secs(1);
                let entry = Entry { bytes: Box::default(), stored: now, expires: now, retry, used: false };
                self.insert(key, entry);
            }
        }
    }

    /// Forgets what was heard over a path: its resolvers are others now.
    pub(super) fn forget_path(&mut self, path: &PathId) {
        self.entries.retain(|key, _| !key.is_over(path));
        self.order.retain(|key| !key.is_over(path));
        self.bytes = self.entries.iter().map(|(key, entry)| cost(key, entry)).sum();
    }

    /// The path can be asked again: no more waiting after failures.
    pub(super) fn retry_path(&mut self, path: &PathId) {
        for (key, entry) in &mut self.entries {
            if key.is_over(path) {
                entry.retry = entry.stored;
            }
        }
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        let cost_new = cost(&key, &entry);
        if cost_new > self.max_bytes {
            self.remove(&key);
            return;
        }
        self.bytes += cost_new;
        match self.entries.insert(key.clone(), entry) {
            Some(old) => self.bytes -= cost(&key, &old),
            None => self.order.push_back(key),
        }
        while self.entries.len() > self.max_entries || self.bytes > self.max_bytes {
            let Some(oldest) = self.order.pop_front() else { break };
            match self.entries.get_mut(&oldest) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.order.push_back(oldest);
                }
                Some(_) => self.take(&oldest),
                None => {}
            }
        }
    }

    fn take(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= cost(key, &entry);
        }
    }

    fn remove(&mut self, key: &Key) {
        if self.entries.contains_key(key) {
            self.take(key);
            self.order.retain(|other| other != key);
        }
    }
}

fn cost(key: &Key, entry: &Entry) -> usize {
    key.0.len() + entry.bytes.len() + OVERHEAD
}

fn decode(bytes: &[u8], ttl: impl Fn(u32) -> u32) -> Option<Found> {
    let mut message = Message::from_vec(bytes).ok()?;
    for record in message.answers.iter_mut().chain(&mut message.authorities) {
        record.ttl = ttl(record.ttl);
    }
    let code = message.metadata.response_code;
    Some(Found { code, answers: message.answers, authorities: message.authorities })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::{Name, RData};

    fn key(name: &str) -> Key {
        Key::new(&PathId::new("direct").unwrap(), name, RecordType::A, Flags::default())
    }

    fn believed(name: &str, ttl: u32) -> Believed {
        let data = RData::A("192.0.2.1".parse().unwrap());
        let record = Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, data);
        Believed {
            code: ResponseCode::NoError,
            answers: vec![record],
            authorities: Vec::new(),
            ttl: Duration::from_secs(ttl.into()),
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    #[test]
    fn the_time_left_runs_down_and_then_the_answer_is_stale() {
        let mut cache = Cache::new(10, 10_000);
        cache.store(key("a.example"), &believed("a.example.", 60), at(0));
        let Known::Fresh(found) = cache.lookup(&key("a.example"), at(59)) else { panic!() };
        assert_eq!(found.answers[0].ttl, 1);
        let Known::Stale { found, ask: Ask::Due } = cache.lookup(&key("a.example"), at(60)) else { panic!() };
        assert_eq!(found.answers[0].ttl, STALE_TTL);
        assert_eq!(cache.lookup(&key("a.example"), at(60 + 86_401)), Known::Nothing);
    }

    #[test]
    fn after_a_failure_nobody_is_asked_for_a_moment() {
        let mut cache = Cache::new(10, 10_000);
        cache.failed(key("b.example"), at(0));
        assert_eq!(cache.lookup(&key("b.example"), at(0)), Known::Failing);
        assert_eq!(cache.lookup(&key("b.example"), at(1)), Known::Nothing);
        cache.store(key("a.example"), &believed("a.example.", 1), at(0));
        cache.failed(key("a.example"), at(2));
        assert!(matches!(cache.lookup(&key("a.example"), at(2)), Known::Stale { ask: Ask::JustFailed, .. }));
        assert!(matches!(cache.lookup(&key("a.example"), at(8)), Known::Stale { ask: Ask::Due, .. }));
    }

    #[test]
    fn neither_entries_nor_bytes_grow_without_bound_and_what_is_used_stays() {
        let mut cache = Cache::new(100, 1_000_000);
        cache.store(key("kept.example"), &believed("kept.example.", 60), at(0));
        for number in 0..1_000 {
            cache.lookup(&key("kept.example"), at(1));
            cache.store(key(&format!("{number}.example")), &believed("x.example.", 60), at(1));
        }
        assert_eq!(cache.len(), 100);
        assert!(matches!(cache.lookup(&key("kept.example"), at(1)), Known::Fresh(_)));
        assert!(cache.order.len() <= 101);

        let mut cache = Cache::new(1_000, 5_000);
        for number in 0..1_000 {
            cache.store(key(&format!("{number}.example")), &believed("x.example.", 60), at(1));
        }
        assert!(cache.bytes <= 5_000 && cache.len() > 10, "{} bytes, {} entries", cache.bytes, cache.len());
        let counted: usize = cache.entries.iter().map(|(key, entry)| cost(key, entry)).sum();
        assert_eq!(counted, cache.bytes);
    }

    #[test]
    fn answers_without_time_are_not_kept_and_a_path_can_be_forgotten() {
        let mut cache = Cache::new(10, 10_000);
        cache.store(key("a.example"), &believed("a.example.", 0), at(0));
        assert_eq!(cache.lookup(&key("a.example"), at(0)), Known::Nothing);
        cache.store(key("a.example"), &believed("a.example.", 9), at(0));
        cache.forget_path(&PathId::new("dir").unwrap());
        assert_eq!(cache.len(), 1);
        cache.forget_path(&PathId::new("direct").unwrap());
        assert_eq!((cache.len(), cache.bytes), (0, 0));
    }
}
