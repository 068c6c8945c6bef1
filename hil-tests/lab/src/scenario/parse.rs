//! From text to [`Scenario`]: every word is checked against the vocabulary. One file for each kind of section.

mod events;
mod expectations;
mod loads;
mod moments;
mod read;

use std::collections::BTreeMap;
use std::path::Path;

use super::tree::{Node, Problem, Section, Value};
use super::{PlanChoice, Scenario};
use crate::vocabulary::MECHANISMS;
use crate::world::params::Topology;
use read::{duration, flag, overrides, problem, word};

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
    let loads = loads::loads(&top, &mut problems);
    let events = events::events(&top, &mut problems);
    let known = Known {
        // Those with a mistake are known, too: one mistake must not look like many.
        loads: ids(&top),
        events: events.iter().map(|e| e.id.as_str()).collect(),
    };
    let expectations = expectations::expectations(&top, &known, &mut problems);
    events::check_references(&events, &known, &mut problems);
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
