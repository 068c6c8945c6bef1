//! From text to [`Scenario`]: every word is checked against the vocabulary.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::tree::{Node, Problem, Section, Value, hint};
use super::{EventSpec, Expectation, Moment, Op, PlanChoice, Scenario};
use crate::load::spec::{COMMON_KEYS, KINDS, LoadSpec, SERVICES};
use crate::vocabulary::{self, EVENT_KEYS, MECHANISMS, OPERATORS, STATES, ZONES, is_group};
use crate::world::events::EventInfo;
use crate::world::params::{Topology, parse_duration};

type Problems = Vec<Problem>;

const TOP: &[&str] = &[
    "format", "name", "needs", "seed", "duration", "sabotage", "short", "topology", "plan", "load", "event",
    "expect",
];

pub(super) fn parse(text: &str, file: &Path) -> Result<Scenario, Problems> {
    let mut problems = Vec::new();
    let root = Node::parse(text, &mut problems);
    let Some(top) = Section::of(&root, "the scenario", &mut problems) else { return Err(problems) };
    top.only(TOP, &mut problems);
    match top.integer("format", &mut problems) {
        Some(1) => {}
        Some(other) => problems.push(Problem {
            line: top.node("format").map_or(0, |n| n.line),
            what: format!("format {other} is not known; this program reads format 1"),
        }),
        None if top.node("format").is_none() => top.missing("format", &mut problems),
        None => {}
    }
    let name = top.required_text("name", &mut problems).unwrap_or_default().to_owned();
    if top.node("duration").is_none() {
        top.missing("duration", &mut problems);
    }
    let duration = duration(&top, "duration", &mut problems).unwrap_or_default();
    let seed = top.integer("seed", &mut problems).unwrap_or(1).unsigned_abs();
    let needs = needs(&top, &mut problems);
    let sabotage = word(&top, "sabotage", MECHANISMS, &mut problems).map(str::to_owned);
    let short = flag(&top, "short", &mut problems);
    let topology = topology(&top, &mut problems);
    let plan = plan(&top, &mut problems);
    let loads = loads(&top, &mut problems);
    let events = events(&top, &mut problems);
    let known = Known {
        // Those with a mistake are known, too: one mistake must not look like many.
        loads: ids(&top),
        events: events.iter().map(|e| e.id.as_str()).collect(),
    };
    let expectations = expectations(&top, &known, &mut problems);
    check_references(&events, &known, &mut problems);
    match topology {
        Some(topology) if problems.is_empty() => Ok(Scenario {
            file: file.to_owned(),
            name,
            needs,
            seed,
            duration,
            sabotage,
            short,
            topology,
            plan,
            loads,
            events,
            expectations,
        }),
        _ => Err(problems),
    }
}

/// Names that the file itself defines.
struct Known<'a> {
    loads: Vec<&'a str>,
    events: Vec<&'a str>,
}

fn ids<'a>(top: &Section<'a>) -> Vec<&'a str> {
    let mut unheard = Vec::new();
    top.list("load", &mut unheard)
        .iter()
        .filter_map(|node| Section::of(node, "[[load]]", &mut unheard)?.text("id", &mut unheard))
        .collect()
}

fn problem(problems: &mut Problems, line: usize, what: String) {
    problems.push(Problem { line, what });
}

fn duration(section: &Section<'_>, key: &str, problems: &mut Problems) -> Option<Duration> {
    let text = section.text(key, problems)?;
    let parsed = parse_duration(text);
    if parsed.is_none() {
        let line = section.node(key).map_or(section.line, |n| n.line);
        problem(problems, line, format!("`{text}` is not a duration; write `200ms`, `5s` or `2min`"));
    }
    parsed
}

fn flag(section: &Section<'_>, key: &str, problems: &mut Problems) -> bool {
    match section.node(key).map(|n| (n.line, &n.value)) {
        Some((_, Value::Scalar(toml::Value::Boolean(flag)))) => *flag,
        Some((line, _)) => {
            problem(problems, line, format!("`{key}` must be true or false"));
            false
        }
        None => false,
    }
}

fn word<'a>(section: &Section<'a>, key: &str, known: &[&str], problems: &mut Problems) -> Option<&'a str> {
    let text = section.text(key, problems)?;
    if !known.contains(&text) {
        let line = section.node(key).map_or(section.line, |n| n.line);
        problem(problems, line, format!("`{key}` cannot be `{text}`{}", hint(text, known)));
        return None;
    }
    Some(text)
}

fn needs(top: &Section<'_>, problems: &mut Problems) -> Vec<String> {
    let mut needs = Vec::new();
    for node in top.list("needs", problems) {
        match &node.value {
            Value::Scalar(toml::Value::String(text))
                if text.strip_prefix(['N', 'R']).is_some_and(|n| n.parse::<u32>().is_ok()) =>
            {
                needs.push(text.clone());
            }
            Value::Scalar(_) | Value::List(_) | Value::Table(_) => {
                problem(problems, node.line, "`needs` lists rows of the inventory such as \"N7\"".to_owned());
            }
        }
    }
    needs
}

fn overrides(section: &Section<'_>, problems: &mut Problems) -> BTreeMap<String, toml::Value> {
    let Some(node) = section.node("set") else { return BTreeMap::new() };
    let mut flat = BTreeMap::new();
    if Section::of(node, "set", problems).is_some() {
        flatten("", node, &mut flat);
    }
    flat
}

/// `a.b = 1` and `"a.b" = 1` are the same.
fn flatten(prefix: &str, node: &Node, into: &mut BTreeMap<String, toml::Value>) {
    if let Value::Table(table) = &node.value {
        for (key, value) in table {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            flatten(&path, value, into);
        }
    } else {
        into.insert(prefix.to_owned(), node.plain());
    }
}

fn topology(top: &Section<'_>, problems: &mut Problems) -> Option<Topology> {
    let Some(node) = top.node("topology") else {
        top.missing("topology", problems);
        return None;
    };
    let section = Section::of(node, "[topology]", problems)?;
    section.only(&["base", "set"], problems);
    let base = section.required_text("base", problems)?;
    let mut topology = match Topology::new(base) {
        Ok(topology) => topology,
        Err(error) => {
            problem(problems, section.node("base").map_or(section.line, |n| n.line), format!("{error:#}"));
            return None;
        }
    };
    let line = section.node("set").map_or(section.line, |n| n.line);
    for (id, value) in overrides(&section, problems) {
        if let Err(error) = topology.set(&id, &value) {
            problem(problems, line, format!("{error:#}"));
        }
    }
    Some(topology)
}

fn plan(top: &Section<'_>, problems: &mut Problems) -> PlanChoice {
    let section = match top.node("plan") {
        Some(node) => Section::of(node, "[plan]", problems),
        None => {
            top.missing("plan", problems);
            None
        }
    };
    let Some(section) = section else { return PlanChoice { file: String::new(), set: BTreeMap::new() } };
    section.only(&["file", "set"], problems);
    PlanChoice {
        file: section.required_text("file", problems).unwrap_or_default().to_owned(),
        set: overrides(&section, problems),
    }
}

fn loads(top: &Section<'_>, problems: &mut Problems) -> Vec<LoadSpec> {
    let mut loads: Vec<LoadSpec> = Vec::new();
    for node in top.list("load", problems) {
        let Some(section) = Section::of(node, "[[load]]", problems) else { continue };
        let before = problems.len();
        let kinds: Vec<&str> = KINDS.iter().map(|k| k.name).collect();
        for key in ["id", "zone", "kind"] {
            if section.node(key).is_none() {
                section.missing(key, problems);
            }
        }
        word(&section, "zone", ZONES, problems);
        let services: Vec<&str> = SERVICES.iter().map(|s| s.name).collect();
        word(&section, "service", &services, problems);
        if let Some(kind) = word(&section, "kind", &kinds, problems) {
            let own = KINDS.iter().find(|k| k.name == kind).map(|k| k.keys).unwrap_or_default();
            let known: Vec<&str> = COMMON_KEYS.iter().chain(own).map(|k| k.key).collect();
            section.only(&known, problems);
        }
        if problems.len() > before {
            continue;
        }
        match LoadSpec::deserialize(node.plain()) {
            Ok(load) if loads.iter().any(|l| l.id == load.id) => {
                problem(problems, section.line, format!("two loads are called `{}`", load.id));
            }
            Ok(load)
                if !name_like(&load.id) || ["wan", "zone", "leak", "agent"].contains(&load.id.as_str()) =>
            {
                problem(
                    problems,
                    section.line,
                    format!(
                        "`{}` cannot be a load's id: use a-z, 0-9, - and _, and not the first word of another metric",
                        load.id
                    ),
                );
            }
            Ok(load) => loads.push(load),
            Err(error) => {
                let line = culprit(&section).unwrap_or(section.line);
                problem(problems, line, format!("[[load]]: {}", error.message()));
            }
        }
    }
    loads
}

/// The line of the key whose absence would make the load readable.
fn culprit(section: &Section<'_>) -> Option<usize> {
    let whole: toml::Table = section.keys().map(|(k, v)| (k.to_owned(), v.plain())).collect();
    section.keys().find_map(|(key, node)| {
        let mut without = whole.clone();
        without.remove(key);
        LoadSpec::deserialize(toml::Value::Table(without)).is_ok().then_some(node.line)
    })
}

fn name_like(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

fn events(top: &Section<'_>, problems: &mut Problems) -> Vec<EventSpec> {
    let mut events: Vec<EventSpec> = Vec::new();
    for (number, node) in top.list("event", problems).iter().enumerate() {
        let Some(section) = Section::of(node, "[[event]]", problems) else { continue };
        let names: Vec<&str> = vocabulary::events().map(|e| e.name).collect();
        if section.node("do").is_none() {
            section.missing("do", problems);
        }
        let Some(info) = word(&section, "do", &names, problems)
            .and_then(|name| vocabulary::events().find(|e| e.name == name))
        else {
            continue;
        };
        let known: Vec<&str> = EVENT_KEYS.iter().copied().chain(info.keys.iter().map(|k| k.key)).collect();
        section.only(&known, problems);
        let id = section.text("id", problems).map_or_else(|| format!("event{}", number + 1), str::to_owned);
        if !name_like(&id) || events.iter().any(|e| e.id == id) {
            problem(
                problems,
                section.line,
                format!("`{id}` cannot be an event's id: a-z, 0-9, - and _, used once"),
            );
        }
        let target = target(&section, info, problems);
        let lasts = duration(&section, "for", problems);
        if lasts.is_some() && !info.undone {
            let line = section.node("for").map_or(section.line, |n| n.line);
            problem(problems, line, format!("`{}` does not take `for`: it happens and is over", info.name));
        }
        let Some(when) = moment_of_event(&section, problems) else { continue };
        events.push(EventSpec {
            id,
            when,
            what: info.name.to_owned(),
            target,
            lasts,
            keys: event_keys(&section, info, problems),
            line: section.line,
        });
    }
    events
}

fn target(section: &Section<'_>, info: &EventInfo, problems: &mut Problems) -> Option<String> {
    let text = section.text("target", problems);
    let line = section.node("target").map_or(section.line, |n| n.line);
    match (text, info.targets) {
        (None, []) => None,
        (None, targets) => {
            problem(
                problems,
                section.line,
                format!("`{}` needs a target: {}", info.name, targets.join(", ")),
            );
            None
        }
        (Some(_), []) => {
            problem(problems, line, format!("`{}` takes no target", info.name));
            None
        }
        (Some(text), ["<zone>/<group>"]) => {
            if !is_group(text) {
                problem(
                    problems,
                    line,
                    format!("`{text}` is not a target of `{}`: write zone/group", info.name),
                );
            }
            Some(text.to_owned())
        }
        (Some(text), targets) => {
            if !targets.contains(&text) {
                problem(
                    problems,
                    line,
                    format!("`{}` has no target `{text}`{}", info.name, hint(text, targets)),
                );
            }
            Some(text.to_owned())
        }
    }
}

fn event_keys(
    section: &Section<'_>,
    info: &EventInfo,
    problems: &mut Problems,
) -> BTreeMap<String, toml::Value> {
    let mut keys = BTreeMap::new();
    for key in info.keys {
        let Some(node) = section.node(key.key) else { continue };
        if key.ty == "table" {
            let mut flat = BTreeMap::new();
            flatten("", node, &mut flat);
            keys.insert(key.key.to_owned(), toml::Value::Table(flat.into_iter().collect()));
            continue;
        }
        let value = node.plain();
        if let Err(wanted) = fits(&value, key.ty) {
            problem(problems, node.line, format!("`{}` must be {wanted}, not `{value}`", key.key));
        }
        keys.insert(key.key.to_owned(), value);
    }
    keys
}

/// Whether a value is of the type that the vocabulary names; else what it should be.
fn fits(value: &toml::Value, ty: &str) -> Result<(), String> {
    let number = value.as_float().or(value.as_integer().map(|n| n as f64));
    let good = match ty {
        "share" => number.is_some_and(|n| (0.0..=1.0).contains(&n)),
        "ms" => number.is_some_and(|n| n >= 0.0) || value.as_str().and_then(parse_duration).is_some(),
        "bytes" | "bits/s" | "integer" => value.as_integer().is_some_and(|n| n >= 0),
        "text" => value.is_str(),
        words if words.contains('|') => {
            value.as_str().is_some_and(|word| words.split('|').any(|known| known.trim() == word))
                || number.is_some_and(|n| words.split('|').any(|known| known.trim() == n.to_string()))
        }
        _ => true,
    };
    if good { Ok(()) } else { Err(ty.to_owned()) }
}

fn moment_of_event(section: &Section<'_>, problems: &mut Problems) -> Option<Moment> {
    let plus = duration(section, "plus", problems).unwrap_or_default();
    match (section.node("at"), section.node("after")) {
        (Some(_), None) => {
            if section.node("plus").is_some() {
                problem(problems, section.line, "`plus` goes with `after`; put the sum into `at`".to_owned());
            }
            duration(section, "at", problems).map(Moment::At)
        }
        (None, Some(node)) => {
            let text = section.text("after", problems)?;
            match reference(text, plus) {
                Ok(moment) => Some(moment),
                Err(what) => {
                    problem(problems, node.line, what);
                    None
                }
            }
        }
        (None, None) | (Some(_), Some(_)) => {
            problem(problems, section.line, "an event needs either `at` or `after`".to_owned());
            None
        }
    }
}

/// `state:zone/group=State` or `event:id`.
fn reference(text: &str, plus: Duration) -> Result<Moment, String> {
    if let Some(id) = text.strip_prefix("event:") {
        return Ok(Moment::AfterEvent { id: id.to_owned(), plus });
    }
    let state = text.strip_prefix("state:").and_then(|rest| rest.split_once('='));
    match state {
        Some((group, state)) if is_group(group) && STATES.contains(&state) => {
            Ok(Moment::AfterState { group: group.to_owned(), state: state.to_owned(), plus })
        }
        Some((_, state)) if !STATES.contains(&state) => {
            Err(format!("no state `{state}`{}", hint(state, STATES)))
        }
        _ => Err(format!("`{text}` is no moment; write state:zone/group=State or event:ID")),
    }
}

/// `10s`, `event:id`, `event:id+2s`, `state:…=…+2s`.
fn moment(text: &str) -> Result<Moment, String> {
    if text.starts_with("event:") || text.starts_with("state:") {
        let (base, plus) = match text.split_once('+') {
            Some((base, plus)) => {
                (base, parse_duration(plus).ok_or_else(|| format!("`{plus}` is not a duration"))?)
            }
            None => (text, Duration::ZERO),
        };
        return reference(base, plus);
    }
    parse_duration(text).map(Moment::At).ok_or_else(|| format!("`{text}` is neither a duration nor event:ID"))
}

fn expectations(top: &Section<'_>, known: &Known<'_>, problems: &mut Problems) -> Vec<Expectation> {
    let mut expectations = Vec::new();
    let list = top.list("expect", problems);
    if list.is_empty() {
        problem(problems, top.line, "a scenario without [[expect]] proves nothing".to_owned());
    }
    for node in list {
        let Some(section) = Section::of(node, "[[expect]]", problems) else { continue };
        section.only(&["metric", "op", "value", "from", "to"], problems);
        let metric = section.required_text("metric", problems);
        if let Some(Err(what)) = metric.map(|m| vocabulary::metric_unit(m, &known.loads, &known.events)) {
            problem(problems, section.node("metric").map_or(section.line, |n| n.line), what);
        }
        let op = operator(&section, problems);
        let mut at = |key: &str| -> Option<Moment> {
            let text = section.text(key, problems)?;
            let line = section.node(key).map_or(section.line, |n| n.line);
            moment(text).map_err(|what| problem(problems, line, what)).ok()
        };
        let from = at("from").unwrap_or(Moment::At(Duration::ZERO));
        let to = at("to");
        if let (Some(metric), Some(op)) = (metric, op) {
            expectations.push(Expectation { metric: metric.to_owned(), op, from, to, line: section.line });
        }
    }
    expectations
}

fn operator(section: &Section<'_>, problems: &mut Problems) -> Option<Op> {
    for key in ["op", "value"] {
        if section.node(key).is_none() {
            section.missing(key, problems);
        }
    }
    let op = word(section, "op", OPERATORS, problems)?;
    let node = section.node("value")?;
    let number = |value: &toml::Value| value.as_float().or(value.as_integer().map(|n| n as f64));
    let plain = node.plain();
    if op == "within" {
        let ends: Vec<f64> =
            plain.as_array().map(|a| a.iter().filter_map(number).collect()).unwrap_or_default();
        if let [low, high] = ends[..]
            && low <= high
        {
            return Some(Op::Within(low, high));
        }
        problem(problems, node.line, "`within` needs value = [low, high]".to_owned());
        return None;
    }
    let Some(value) = number(&plain) else {
        problem(problems, node.line, format!("`value` must be a number, not `{plain}`"));
        return None;
    };
    Some(match op {
        "==" => Op::Equal(value),
        "!=" => Op::NotEqual(value),
        "<=" => Op::AtMost(value),
        _ => Op::AtLeast(value),
    })
}

/// Events that others name must exist.
fn check_references(events: &[EventSpec], known: &Known<'_>, problems: &mut Problems) {
    for event in events {
        if let Moment::AfterEvent { id, .. } = &event.when
            && (!known.events.contains(&id.as_str()) || *id == event.id)
        {
            problem(problems, event.line, format!("no other event `{id}`{}", hint(id, &known.events)));
        }
    }
}
