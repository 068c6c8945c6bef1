//! What a site is: whom it serves, how it is ill, what it has seen.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::capture::lock;
use crate::world::town::path_of;

/// How a site is ill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Illness {
    /// Answers 500.
    Error,
    WrongBody,
    /// Accepts connections and says nothing.
    NoAnswer,
    /// Answers above 64 kB stop half way.
    Stall,
    /// Its certificate is somebody else's.
    BadCertificate,
}

impl Illness {
    pub(crate) fn from_word(word: &str) -> Result<Self> {
        Ok(match word {
            "500" => Self::Error,
            "wrong-body" => Self::WrongBody,
            "no-answer" => Self::NoAnswer,
            "stall" => Self::Stall,
            "bad-certificate" => Self::BadCertificate,
            other => bail!("how must be 500, wrong-body, no-answer, stall or bad-certificate, not `{other}`"),
        })
    }
}

/// Something a site's log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A log-in succeeded.
    Began,
    /// A session's cookie came from another address than its log-in; the session is over.
    TwoAddresses,
    Served,
    /// Source address not registered.
    Refused,
}

/// One line of a site's log.
#[derive(Clone, Debug)]
pub(crate) struct LogLine {
    /// Since the town stood.
    pub(crate) at: Duration,
    /// What the client says it belongs to; empty: not one of the lab's loads.
    pub(crate) load: Arc<str>,
    pub(crate) entry: Entry,
    /// Path that belongs to the source address seen.
    pub(crate) path: &'static str,
}

/// Log of all sites together: the judge of who came from where.
#[derive(Debug)]
pub(crate) struct Log {
    start: Instant,
    lines: Mutex<HashMap<Arc<str>, Vec<LogLine>>>,
}

impl Log {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, lines: Mutex::new(HashMap::new()) }
    }

    pub(crate) fn add(&self, load: &str, entry: Entry, source: IpAddr) {
        let at = self.start.elapsed();
        let mut lines = lock(&self.lines);
        if let Some(of_load) = lines.get_mut(load) {
            let load = of_load.first().map_or_else(|| Arc::from(load), |line| Arc::clone(&line.load));
            of_load.push(LogLine { at, load, entry, path: path_of(source) });
        } else {
            let load: Arc<str> = Arc::from(load);
            let line = LogLine { at, load: Arc::clone(&load), entry, path: path_of(source) };
            lines.insert(load, vec![line]);
        }
    }

    /// Visits the lines of one load in order of time.
    pub(crate) fn each(&self, load: &str, mut visit: impl FnMut(&LogLine)) {
        for line in lock(&self.lines).get(load).into_iter().flatten() {
            visit(line);
        }
    }
}

/// A log-in's session.
#[derive(Clone, Copy, Debug)]
struct Session {
    source: IpAddr,
}

/// What a request with a cookie comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cookie {
    Good,
    /// No such session (any more).
    Unknown,
    TwoAddresses,
}

/// One site's state.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) name: &'static str,
    illness: Mutex<Option<(Illness, Option<String>)>>,
    /// Paths whose egress is admitted; None: everybody.
    registered: Mutex<Option<Vec<&'static str>>>,
    sessions: Mutex<(u64, HashMap<u64, Session>)>,
    pub(crate) log: Arc<Log>,
}

impl Site {
    pub(crate) fn new(name: &'static str, log: Arc<Log>) -> Self {
        Self {
            name,
            illness: Mutex::new(None),
            registered: Mutex::new(None),
            sessions: Mutex::new((0, HashMap::new())),
            log,
        }
    }

    /// Falls ill for those who come by `path`, or for all; None: is well again.
    pub(crate) fn set_illness(&self, illness: Option<(Illness, Option<String>)>) {
        *lock(&self.illness) = illness;
    }

    /// The illness that a client from `source` meets.
    pub(crate) fn illness(&self, source: IpAddr) -> Option<Illness> {
        let illness = lock(&self.illness);
        let (illness, path) = illness.as_ref()?;
        path.as_ref().is_none_or(|path| path == path_of(source)).then_some(*illness)
    }

    pub(crate) fn current_illness(&self) -> Option<(Illness, Option<String>)> {
        lock(&self.illness).clone()
    }

    /// `all`, `both` (closed and direct), `closed`, `vpn`, `direct` or `none`.
    pub(crate) fn register(&self, whom: &str) -> Result<()> {
        *lock(&self.registered) = Some(match whom {
            "all" => vec!["closed", "vpn", "direct", "lte"],
            "both" => vec!["closed", "direct"],
            "closed" => vec!["closed"],
            "vpn" => vec!["vpn"],
            "direct" => vec!["direct"],
            "none" => Vec::new(),
            other => bail!("egress must be all, both, closed, vpn, direct or none, not `{other}`"),
        });
        Ok(())
    }

    pub(crate) fn registered(&self) -> String {
        match lock(&self.registered).as_deref() {
            None => "everybody".to_owned(),
            Some([]) => "none".to_owned(),
            Some([one]) => (*one).to_owned(),
            Some([_, _]) => "both".to_owned(),
            Some(_) => "all".to_owned(),
        }
    }

    pub(crate) fn admits(&self, source: IpAddr) -> bool {
        lock(&self.registered).as_ref().is_none_or(|paths| paths.contains(&path_of(source)))
    }

    pub(crate) fn log_in(&self, source: IpAddr) -> u64 {
        let mut sessions = lock(&self.sessions);
        sessions.0 += 1;
        let id = sessions.0;
        sessions.1.insert(id, Session { source });
        id
    }

    pub(crate) fn check(&self, id: u64, source: IpAddr) -> Cookie {
        let mut sessions = lock(&self.sessions);
        match sessions.1.get(&id) {
            None => Cookie::Unknown,
            Some(session) if session.source == source => Cookie::Good,
            Some(_) => {
                sessions.1.remove(&id);
                Cookie::TwoAddresses
            }
        }
    }

    pub(crate) fn log_out(&self, id: u64) {
        lock(&self.sessions).1.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_from_another_address_ends_the_session() {
        let site = Site::new("affairs", Arc::new(Log::new(Instant::now())));
        let (old, new) = (IpAddr::from([198, 51, 100, 10]), IpAddr::from([192, 0, 2, 2]));
        let id = site.log_in(old);
        assert_eq!(site.check(id, old), Cookie::Good);
        assert_eq!(site.check(id, new), Cookie::TwoAddresses);
        assert_eq!(site.check(id, old), Cookie::Unknown, "it stays ended");
    }

    #[test]
    fn only_registered_egress_is_admitted() {
        let site = Site::new("affairs", Arc::new(Log::new(Instant::now())));
        site.register("closed").unwrap();
        assert!(site.admits(IpAddr::from([198, 51, 100, 10])));
        assert!(!site.admits(IpAddr::from([192, 0, 2, 2])));
        assert!(!site.admits(IpAddr::from([198, 51, 100, 77])));
    }

    #[test]
    fn an_illness_may_be_for_one_egress_only() {
        let site = Site::new("affairs", Arc::new(Log::new(Instant::now())));
        site.set_illness(Some((Illness::Error, Some("direct".into()))));
        assert_eq!(site.illness(IpAddr::from([192, 0, 2, 2])), Some(Illness::Error));
        assert_eq!(site.illness(IpAddr::from([198, 51, 100, 10])), None);
    }
}
