//! Single values, each with its own complaint.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::tree::{Node, Problem, Section, Value, hint};
use super::Problems;
use crate::world::params::parse_duration;

pub(super) fn problem(problems: &mut Problems, line: usize, what: String) {
    problems.push(Problem { line, what });
}

pub(super) fn duration(section: &Section<'_>, key: &str, problems: &mut Problems) -> Option<Duration> {
    let text = section.text(key, problems)?;
    let parsed = parse_duration(text);
    if parsed.is_none() {
        let line = section.node(key).map_or(section.line, |n| n.line);
        problem(problems, line, format!("`{text}` is not a duration; write `200ms`, `5s` or `2min`"));
    }
    parsed
}

pub(super) fn word<'a>(
    section: &Section<'a>,
    key: &str,
    known: &[&str],
    problems: &mut Problems,
) -> Option<&'a str> {
    let text = section.text(key, problems)?;
    if !known.contains(&text) {
        let line = section.node(key).map_or(section.line, |n| n.line);
        problem(problems, line, format!("`{key}` cannot be `{text}`{}", hint(text, known)));
        return None;
    }
    Some(text)
}

pub(super) fn flag(section: &Section<'_>, key: &str, problems: &mut Problems) -> bool {
    match section.node(key).map(|n| (n.line, &n.value)) {
        Some((_, Value::Scalar(toml::Value::Boolean(flag)))) => *flag,
        Some((line, _)) => {
            problem(problems, line, format!("`{key}` must be true or false"));
            false
        }
        None => false,
    }
}

pub(super) fn overrides(section: &Section<'_>, problems: &mut Problems) -> BTreeMap<String, toml::Value> {
    let Some(node) = section.node("set") else { return BTreeMap::new() };
    let mut flat = BTreeMap::new();
    if Section::of(node, "set", problems).is_some() {
        flatten("", node, &mut flat);
    }
    flat
}

/// `a.b = 1` and `"a.b" = 1` are the same.
pub(super) fn flatten(prefix: &str, node: &Node, into: &mut BTreeMap<String, toml::Value>) {
    if let Value::Table(table) = &node.value {
        for (key, value) in table {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            flatten(&path, value, into);
        }
    } else {
        into.insert(prefix.to_owned(), node.plain());
    }
}

pub(super) fn name_like(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}
