//! `[[load]]`: who does what.

use serde::Deserialize;

use super::super::tree::Section;
use super::Problems;
use super::read::{name_like, problem, word};
use crate::load::spec::{COMMON_KEYS, KINDS, LoadSpec, SERVICES};
use crate::vocabulary::ZONES;

pub(super) fn loads(top: &Section<'_>, problems: &mut Problems) -> Vec<LoadSpec> {
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
