//! From a finished run to checks.

use std::time::Duration;

use super::record::Record;
use crate::result::{Check, Goal};
use crate::scenario::{Expectation, Moment, Op};
use crate::vocabulary::{self, matches};

const MIB: f64 = 1024.0 * 1024.0;

/// Reads one of the world's metrics over an interval of world time.
pub type Measure<'a> = &'a dyn Fn(&str, Duration, Duration) -> Option<f64>;

/// Judges every expectation.
pub fn evaluate(expectations: &[Expectation], record: &Record, measure: Measure<'_>) -> Vec<Check> {
    expectations.iter().flat_map(|e| judge(e, record, measure)).collect()
}

fn judge(expectation: &Expectation, record: &Record, measure: Measure<'_>) -> Vec<Check> {
    let Expectation { metric, op, from, to, line: _ } = expectation;
    let loads: Vec<&str> = record.loads.iter().map(|l| l.id.as_str()).collect();
    let events: Vec<&str> = record.happened.iter().map(|h| h.id.as_str()).collect();
    let unit = vocabulary::metric_unit(metric, &loads, &events).unwrap_or("");
    let begin = record.moment(from);
    let end = to.as_ref().map_or(Some(record.end), |to| record.moment(to));
    let (value, note) = match (begin, end) {
        (Some(begin), Some(end)) if begin < end => {
            let value = read(metric, begin, end, record, measure);
            let note = value.is_none().then(|| "nothing was measured".to_owned());
            (value, note)
        }
        (Some(_), Some(_)) => (None, Some("the interval is empty".to_owned())),
        _ => (None, Some("a moment that the interval names never came".to_owned())),
    };
    let name = format!("{metric}{}", interval(from, to.as_ref()));
    let check = |name: String, value, goal| {
        let check = Check::number(name, value, unit, goal);
        match &note {
            Some(note) => check.with_note(note.clone()),
            None => check,
        }
    };
    match *op {
        Op::Equal(goal) => vec![check(name, value, Goal::Equal(goal))],
        Op::AtMost(goal) => vec![check(name, value, Goal::AtMost(goal))],
        Op::AtLeast(goal) => vec![check(name, value, Goal::AtLeast(goal))],
        Op::Within(low, high) => {
            vec![check(name.clone(), value, Goal::AtLeast(low)), check(name, value, Goal::AtMost(high))]
        }
        // Goals are >=, <= and ==: what is counted is whether it was the unwanted number.
        Op::NotEqual(unwanted) => {
            let is = value.map(|v| f64::from(u8::from(Goal::Equal(unwanted).met_by(v))));
            vec![check(format!("{name} is {unwanted}"), is, Goal::Equal(0.0))]
        }
    }
}

/// ` @10s..event:cut+2s`; nothing for the whole run.
fn interval(from: &Moment, to: Option<&Moment>) -> String {
    if *from == Moment::At(Duration::ZERO) && to.is_none() {
        return String::new();
    }
    format!(" @{}..{}", words(from), to.map(words).unwrap_or_default())
}

fn words(moment: &Moment) -> String {
    let after = |base: String, plus: &Duration| {
        if plus.is_zero() { base } else { format!("{base}+{plus:?}") }
    };
    match moment {
        Moment::At(at) => format!("{at:?}"),
        Moment::AfterEvent { id, plus } => after(format!("event:{id}"), plus),
        Moment::AfterState { group, state, plus } => after(format!("state:{group}={state}"), plus),
    }
}

fn read(metric: &str, from: Duration, to: Duration, record: &Record, measure: Measure<'_>) -> Option<f64> {
    let loads: Vec<&str> = record.loads.iter().map(|l| l.id.as_str()).collect();
    let events: Vec<&str> = record.happened.iter().map(|h| h.id.as_str()).collect();
    let world = |name: &str| measure(name, record.start + from, record.start + to);
    let is = |pattern: &str| matches(pattern, metric, &loads, &events);
    let flag = |b: bool| f64::from(u8::from(b));
    if let Some(words) = is("<load>.share.<path>") {
        let [load, path] = words[..] else { return None };
        let on = |path: &str| world(&format!("{load}.on.{path}")).unwrap_or(0.0);
        let all = on("closed") + on("vpn") + on("direct") + on("lte") + on("other");
        return (all > 0.0).then(|| on(path) / all);
    }
    if let Some([load]) = is("<load>.ok_per_s").as_deref() {
        return world(&format!("{load}.ok")).map(|ok| ok / (to - from).as_secs_f64());
    }
    if let Some([group, state]) = is("agent.entered.<group>.<state>").as_deref() {
        return Some(record.count_entered(group, state, from, to) as f64);
    }
    if let Some([kind]) = is("agent.told.<kind>").as_deref() {
        return Some(
            record.told.iter().filter(|(at, e)| e.kind == *kind && *at >= from && *at < to).count() as f64
        );
    }
    if let Some([group, path]) = is("agent.on.<group>.<path>").as_deref() {
        return group_status(record, group)
            .map(|g| flag(g.path.as_ref().is_some_and(|p| p.as_str() == *path)));
    }
    if let Some([group]) = is("agent.forced_by_deadline.<group>").as_deref() {
        return group_status(record, group).map(|g| g.forced_by_deadline as f64);
    }
    let code =
        |id: &str| record.happened.iter().find(|h| h.id == id)?.command.as_ref().map(|(code, _)| *code);
    if let Some([id]) = is("agent.done.<event>").as_deref() {
        return code(id).map(|code| flag(code == 0));
    }
    if let Some([id]) = is("agent.refused.<event>").as_deref() {
        return code(id).map(|code| flag(code == 1));
    }
    let rss = |name: &str| record.usage.iter().find(|u| u.name == name).map(|u| u.rss_bytes as f64 / MIB);
    match metric {
        "agent.repairs" => record.status.as_ref().map(|s| s.dataplane.repairs as f64),
        "agent.running" => Some(flag(record.status.is_some())),
        "agent.rss_mib" => rss("seimon-agent"),
        "agent.resolver_rss_mib" => rss("seimon-resolver"),
        other => world(other),
    }
}

fn group_status<'a>(record: &'a Record, group: &str) -> Option<&'a seimon_ipc::control::GroupStatus> {
    record.status.as_ref()?.groups.iter().find(|g| format!("{}/{}", g.zone, g.group) == group)
}
