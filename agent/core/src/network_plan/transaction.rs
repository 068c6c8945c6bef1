//! From one table to the next in one nft transaction that touches only what differs.
//!
//! Order within the transaction: flush chains that change or go → take out elements → delete containers, then chains →
//! declare and fill what is new → put in elements. So nothing is deleted while something refers to it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::render::{chain_head, flowtable_block, map_body, set_body, write_elements};
use super::ruleset::{Key, Name, Ruleset, Value};
use super::sketch::Sketch;

const TABLE: &str = Ruleset::TABLE;

/// The transaction from `old` to `new`; `None` when nothing differs.
///
/// What was learnt (dynamic sets) stays unless its declaration changes. Of run-time maps only the elements that differ
/// between `old` and `new` are touched: give `old` the elements that are in force.
pub fn nft_diff(old: &Ruleset, new: &Ruleset) -> Option<String> {
    transaction(&Sketch::of_plan(old), new)
}

pub(super) fn transaction(old: &Sketch, new: &Ruleset) -> Option<String> {
    let target = Sketch::of_plan(new);
    if *old == target {
        return None;
    }
    let work = Work::between(old, &target, new);
    let mut script = String::new();
    work.take_apart(old, &target, &mut script);
    work.build(old, new, &mut script);
    work.put_elements(old, &target, &mut script);
    Some(script)
}

struct Work {
    /// Declared otherwise, or no longer wanted.
    containers_out: BTreeSet<Name>,
    containers_in: BTreeSet<Name>,
    chains_out: BTreeSet<Name>,
    /// Refilled, or new.
    chains_in: BTreeSet<Name>,
    /// Interval containers whose elements differ: emptied and filled, for their elements depend on each other.
    refilled: BTreeSet<Name>,
}

impl Work {
    fn between(old: &Sketch, target: &Sketch, new: &Ruleset) -> Self {
        let differs = |name: &Name| target.containers.get(name) != old.containers.get(name);
        let containers_out: BTreeSet<Name> = old.containers.keys().filter(|n| differs(n)).cloned().collect();
        let containers_in: BTreeSet<Name> =
            target.containers.keys().filter(|n| differs(n)).cloned().collect();
        // Base chains cannot change hook, priority or policy in place.
        let chains_out = old
            .chains
            .iter()
            .filter(|(name, (base, _))| target.chains.get(*name).is_none_or(|(wanted, _)| wanted != base))
            .map(|(name, _)| name.clone())
            .collect();
        let chains_in = target
            .chains
            .iter()
            .filter(|(name, chain)| {
                old.chains.get(*name) != Some(chain)
                    || new.chains.get(*name).is_some_and(|chain| {
                        chain.rules.iter().any(|rule| mentions(&rule.text, &containers_out))
                    })
            })
            .map(|(name, _)| name.clone())
            .collect();
        let refilled = target
            .elements
            .iter()
            .filter(|(name, elements)| {
                !containers_in.contains(*name)
                    && is_interval(new, name)
                    && old.elements.get(*name) != Some(elements)
            })
            .map(|(name, _)| name.clone())
            .collect();
        Self { containers_out, containers_in, chains_out, chains_in, refilled }
    }

    fn take_apart(&self, old: &Sketch, target: &Sketch, script: &mut String) {
        for chain in old.chains.keys() {
            if self.chains_out.contains(chain) || self.chains_in.contains(chain) {
                let _ = writeln!(script, "flush chain inet {TABLE} {chain}");
            }
        }
        let word = |name: &Name| match old.containers.get(name) {
            Some(declaration) if declaration.starts_with("map") => "map",
            Some(_) | None => "set",
        };
        for name in &self.refilled {
            let _ = writeln!(script, "flush {} inet {TABLE} {name}", word(name));
        }
        for (name, had) in &old.elements {
            let Some(wanted) = target.elements.get(name).filter(|_| self.keeps_elements(name)) else {
                continue;
            };
            let gone = had.iter().filter(|(key, value)| wanted.get(*key) != Some(value)).map(|(key, _)| key);
            write_list(script, "delete", name, gone.map(ToString::to_string));
        }
        for name in &self.containers_out {
            // Its elements may hold on to chains: they go first.
            let _ = writeln!(script, "flush {} inet {TABLE} {name}", word(name));
            let _ = writeln!(script, "delete {} inet {TABLE} {name}", word(name));
        }
        for chain in &self.chains_out {
            let _ = writeln!(script, "delete chain inet {TABLE} {chain}");
        }
        if old.flowtable && !target.flowtable {
            let _ = writeln!(script, "delete flowtable inet {TABLE} {}", Ruleset::FLOWTABLE);
        }
    }

    fn keeps_elements(&self, name: &Name) -> bool {
        !self.containers_out.contains(name) && !self.refilled.contains(name)
    }

    fn build(&self, old: &Sketch, new: &Ruleset, script: &mut String) {
        let mut body = String::new();
        if new.flowtable.is_some() && !old.flowtable {
            let _ = writeln!(body, "\t{}", flowtable_block(None));
        }
        for (name, set) in new.sets.iter().filter(|(name, _)| self.containers_in.contains(*name)) {
            let _ = writeln!(body, "\tset {name} {{ {}", set_body(set));
            let _ = write_elements(&mut body, set.elements.iter().map(ToString::to_string));
            let _ = writeln!(body, "\t}}");
        }
        for (name, map) in new.maps.iter().filter(|(name, _)| self.containers_in.contains(*name)) {
            let _ = writeln!(body, "\tmap {name} {{ {}", map_body(map));
            let _ =
                write_elements(&mut body, map.elements.iter().map(|(key, value)| format!("{key} : {value}")));
            let _ = writeln!(body, "\t}}");
        }
        for (name, chain) in new.chains.iter().filter(|(name, _)| self.chains_in.contains(*name)) {
            let _ = writeln!(body, "\tchain {name} {{");
            let head = chain_head(chain);
            if !head.is_empty() {
                let _ = writeln!(body, "\t\t{head}");
            }
            for rule in &chain.rules {
                let _ = writeln!(body, "\t\t{}", rule.line(name));
            }
            let _ = writeln!(body, "\t}}");
        }
        if !body.is_empty() {
            let _ = write!(script, "table inet {TABLE} {{\n{body}}}\n");
        }
    }

    fn put_elements(&self, old: &Sketch, target: &Sketch, script: &mut String) {
        for (name, wanted) in &target.elements {
            if self.containers_in.contains(name) {
                continue;
            }
            let had = old.elements.get(name).filter(|_| self.keeps_elements(name));
            let fresh =
                wanted.iter().filter(|(key, value)| had.is_none_or(|had| had.get(*key) != Some(value)));
            write_list(script, "add", name, fresh.map(|(key, value)| text(key, value.as_ref())));
        }
    }
}

fn text(key: &Key, value: Option<&Value>) -> String {
    match value {
        Some(value) => format!("{key} : {value}"),
        None => key.to_string(),
    }
}

fn write_list(out: &mut String, verb: &str, name: &str, elements: impl Iterator<Item = String>) {
    let elements: Vec<String> = elements.collect();
    if !elements.is_empty() {
        let _ = writeln!(out, "{verb} element inet {TABLE} {name} {{ {} }}", elements.join(", "));
    }
}

fn is_interval(ruleset: &Ruleset, name: &str) -> bool {
    ruleset.sets.get(name).is_some_and(|set| set.interval)
        || ruleset.maps.get(name).is_some_and(|map| map.interval)
}

/// Whether a rule refers to one of the containers.
fn mentions(text: &str, containers: &BTreeSet<Name>) -> bool {
    text.split(|c: char| c.is_whitespace() || c == '{' || c == '}')
        .filter_map(|word| word.strip_prefix('@'))
        .any(|name| containers.contains(name))
}
