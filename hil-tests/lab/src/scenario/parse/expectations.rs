//! `[[expect]]`: what must hold, and over which time.

use std::time::Duration;

use super::super::tree::Section;
use super::super::{Expectation, Moment, Op};
use super::moments::moment;
use super::read::{problem, word};
use super::{Known, Problems};
use crate::vocabulary::{self, OPERATORS};

pub(super) fn expectations(
    top: &Section<'_>,
    known: &Known<'_>,
    problems: &mut Problems,
) -> Vec<Expectation> {
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
