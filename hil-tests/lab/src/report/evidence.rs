//! What speaks for a decision of the agent's: what users saw since the step before it, and what the gateway's own checks
//! had found by then.

use std::collections::BTreeMap;
use std::time::Duration;

use seimon_ipc::control::Event;

use crate::runner::{LoadTrack, Record};

/// For the change of state `event` at `at`: Japanese and English; None for what is no such change.
pub(super) fn of(record: &Record, at: Duration, event: &Event) -> Option<(String, String)> {
    if event.kind != "state" {
        return None;
    }
    let same = |other: &Event| other.zone == event.zone && other.group == event.group;
    let before = record
        .told
        .iter()
        .filter(|(time, other)| other.kind == "state" && same(other) && *time < at)
        .map(|(time, _)| *time)
        .next_back()
        .unwrap_or_default();
    let zone = event.zone.as_ref()?.as_str();
    let mut ja = Vec::new();
    let mut en = Vec::new();
    for load in record.loads.iter().filter(|load| load.zone == zone) {
        let seen = Seen::of(load, before, at);
        let (by_ja, by_en) = seen.by_path();
        ja.push(format!("{}: 成功 {}、失敗 {}{by_ja}", load.id, seen.ok, seen.errors));
        en.push(format!("{}: {} served, {} failed{by_en}", load.id, seen.ok, seen.errors));
    }
    // The latest word on each path, by the checks and by the liveness packets.
    let mut found: BTreeMap<(String, String), &Event> = BTreeMap::new();
    for (_, other) in record.told.iter().filter(|(time, _)| *time >= before && *time <= at) {
        let counts = match other.kind.as_str() {
            "check" => same(other),
            "path" | "egress" => true,
            _ => false,
        };
        if let Some(path) = other.path.as_ref().filter(|_| counts) {
            found.insert((other.kind.clone(), format!("{path}{}", other.reason.en)), other);
        }
    }
    ja.extend(found.values().map(|event| event.reason.ja.clone()));
    en.extend(found.values().map(|event| event.reason.en.clone()));
    let seconds = at.saturating_sub(before).as_secs_f64();
    // At the start there is nothing to speak of yet.
    (!ja.is_empty() && seconds >= 0.1).then(|| {
        (
            format!("根拠（前の段階からの {seconds:.1} 秒間）: {}", ja.join("／")),
            format!("Evidence ({seconds:.1} s since the step before): {}", en.join("; ")),
        )
    })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    ok: u64,
    errors: u64,
    by_path: BTreeMap<String, u64>,
}

impl Seen {
    fn of(load: &LoadTrack, from: Duration, to: Duration) -> Self {
        let bucket = |at: Duration| usize::try_from(at.as_millis() / 100).unwrap_or(usize::MAX);
        let mut seen = Self::default();
        let buckets = load.buckets.iter().take(bucket(to)).skip(bucket(from));
        for bucket in buckets {
            seen.ok += bucket.ok;
            seen.errors += bucket.errors + bucket.lost;
            for (path, count) in &bucket.by_path {
                *seen.by_path.entry(path.clone()).or_default() += count;
            }
        }
        seen
    }

    /// From where the servers saw it.
    fn by_path(&self) -> (String, String) {
        let parts: Vec<String> = self.by_path.iter().map(|(path, count)| format!("{path} {count}")).collect();
        if parts.is_empty() {
            return (String::new(), String::new());
        }
        let parts = parts.join(", ");
        (format!("（サービスから見た経路: {parts}）"), format!(" (the servers saw: {parts})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Bucket;

    #[test]
    fn only_what_was_seen_since_the_step_before_counts() {
        let bucket = |ok| Bucket { ok, by_path: [("vpn".to_owned(), ok)].into(), ..Bucket::default() };
        let buckets = (0..30).map(|n| bucket(if (10..20).contains(&n) { 1 } else { 100 })).collect();
        let load = LoadTrack { id: "t".into(), zone: "affairs".into(), kind: "session".into(), buckets };
        let seen = Seen::of(&load, Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!((seen.ok, seen.errors), (10, 0));
        assert_eq!(seen.by_path().1, " (the servers saw: vpn 10)");
    }
}
