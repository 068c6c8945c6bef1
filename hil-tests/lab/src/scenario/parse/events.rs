//! `[[event]]`: what happens, to whom, when.

use std::collections::BTreeMap;

use super::super::tree::{Section, hint};
use super::super::{EventSpec, Moment};
use super::moments::reference;
use super::read::{duration, flatten, name_like, problem, word};
use super::{Known, Problems};
use crate::vocabulary::{self, EVENT_KEYS, is_group};
use crate::world::events::EventInfo;
use crate::world::params::parse_duration;

pub(super) fn events(top: &Section<'_>, problems: &mut Problems) -> Vec<EventSpec> {
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

/// Events that others name must exist.
pub(super) fn check_references(events: &[EventSpec], known: &Known<'_>, problems: &mut Problems) {
    for event in events {
        if let Moment::AfterEvent { id, .. } = &event.when
            && (!known.events.contains(&id.as_str()) || *id == event.id)
        {
            problem(problems, event.line, format!("no other event `{id}`{}", hint(id, &known.events)));
        }
    }
}
