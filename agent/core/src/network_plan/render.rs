//! The ruleset as nft text, and the words by which two readings of a table are compared.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use seimon_board::InterfaceName;

use super::change::TableState;
use super::fingerprint::key_type_text;
use super::naming::fingerprint;
use super::ruleset::{Chain, ChainKind, Element, Key, KeyPart, Map, Rule, Ruleset, Set, Value, Verdict};

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ifname(name) => write!(f, "\"{name}\""),
            Self::Ipv4(address) => write!(f, "{address}"),
            Self::Ipv4Prefix(net) => write!(f, "{}", net.trunc()),
            Self::Ipv6(address) => write!(f, "{address}"),
            Self::Ipv6Prefix(net) => write!(f, "{}", net.trunc()),
            Self::Ether(mac) => write!(f, "{mac}"),
            Self::Mark(mark) => write!(f, "{:#x}", mark.0),
            Self::Proto(number) => write!(f, "{number}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::PortRange(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" . ")?;
            }
            write!(f, "{part}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verdict(verdict) => write!(f, "{verdict}"),
            Self::Mark(mark) => write!(f, "{:#x}", mark.0),
            Self::Ipv4(address) => write!(f, "{address}"),
            Self::Ipv6(address) => write!(f, "{address}"),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { container, key, value } = self;
        match value {
            Some(value) => write!(f, "{container} {{ {key} : {value} }}"),
            None => write!(f, "{container} {{ {key} }}"),
        }
    }
}

impl Rule {
    /// Eight hex digits by which the rule is found again in the kernel: its comment is `s:` and this.
    pub fn tag(&self, chain: &str) -> String {
        format!("{:08x}", fingerprint([chain, &self.text]))
    }

    pub(super) fn line(&self, chain: &str) -> String {
        format!("{} comment \"s:{}\"", self.text, self.tag(chain))
    }
}

/// What follows `set NAME` or `map NAME`, without elements.
pub(super) fn set_body(set: &Set) -> String {
    let mut flags = Vec::new();
    if set.interval {
        flags.push("interval");
    }
    if set.dynamic.is_some() {
        flags.extend(["dynamic", "timeout"]);
    }
    body(&key_type_text(&set.key), &flags, set.dynamic)
}

pub(super) fn map_body(map: &Map) -> String {
    let flags: &[&str] = if map.interval { &["interval"] } else { &[] };
    body(&format!("{} : {}", key_type_text(&map.key), map.value.nft_name()), flags, None)
}

fn body(typ: &str, flags: &[&str], size: Option<u32>) -> String {
    let mut text = format!("type {typ};");
    if !flags.is_empty() {
        let _ = write!(text, " flags {};", flags.join(", "));
    }
    if let Some(size) = size {
        let _ = write!(text, " size {size};");
    }
    text
}

/// What follows `chain NAME {` of a base chain; empty for regular chains.
pub(super) fn chain_head(chain: &Chain) -> String {
    match &chain.kind {
        ChainKind::Regular => String::new(),
        ChainKind::Base { chain_type, hook, priority, drop_by_default } => {
            let policy = if *drop_by_default { "drop" } else { "accept" };
            format!("type {chain_type} hook {} priority {priority}; policy {policy};", hook.nft_name())
        }
        ChainKind::Ingress { port } => {
            format!("type filter hook ingress device \"{port}\" priority -150; policy accept;")
        }
    }
}

/// The whole table: `table inet seimon { … }`.
pub fn render(ruleset: &Ruleset) -> String {
    let mut out = String::new();
    let _ = write_table(&mut out, ruleset);
    out
}

fn write_table(out: &mut String, ruleset: &Ruleset) -> fmt::Result {
    let Ruleset { sets, maps, chains, flowtable } = ruleset;
    writeln!(out, "table inet {} {{", Ruleset::TABLE)?;
    if flowtable.is_some() {
        writeln!(out, "\t{}", flowtable_block(None))?;
    }
    for (name, set) in sets {
        writeln!(out, "\tset {name} {{ {}", set_body(set))?;
        write_elements(out, set.elements.iter().map(ToString::to_string))?;
        writeln!(out, "\t}}")?;
    }
    for (name, map) in maps {
        writeln!(out, "\tmap {name} {{ {}", map_body(map))?;
        write_elements(out, map.elements.iter().map(|(key, value)| format!("{key} : {value}")))?;
        writeln!(out, "\t}}")?;
    }
    for (name, chain) in chains {
        writeln!(out, "\tchain {name} {{")?;
        let head = chain_head(chain);
        if !head.is_empty() {
            writeln!(out, "\t\t{head}")?;
        }
        for rule in &chain.rules {
            writeln!(out, "\t\t{}", rule.line(name))?;
        }
        writeln!(out, "\t}}")?;
    }
    writeln!(out, "}}")
}

pub(super) fn write_elements(out: &mut String, elements: impl Iterator<Item = String>) -> fmt::Result {
    let elements: Vec<String> = elements.collect();
    if elements.is_empty() {
        return Ok(());
    }
    writeln!(out, "\t\telements = {{\n\t\t\t{}\n\t\t}}", elements.join(",\n\t\t\t"))
}

/// What declares the flowtable, without devices: those may not be there yet. (`counter`: bytes go on being counted for each
/// flow.)
pub(super) fn flowtable_block(devices: Option<&BTreeSet<InterfaceName>>) -> String {
    let devices = devices.map(|all| {
        let all: Vec<String> = all.iter().map(|device| format!("\"{device}\"")).collect();
        format!(" devices = {{ {} }};", all.join(", "))
    });
    format!(
        "flowtable {} {{ hook ingress priority 0;{} counter; }}",
        Ruleset::FLOWTABLE,
        devices.unwrap_or_default()
    )
}

/// The transaction that gives the flowtable other devices; `None`: it has them.
pub(super) fn flowtable_devices(
    seen: &BTreeSet<InterfaceName>,
    wanted: &BTreeSet<InterfaceName>,
) -> Option<String> {
    let mut script = String::new();
    for (verb, from, to) in [("delete", seen, wanted), ("add", wanted, seen)] {
        let some: BTreeSet<InterfaceName> = from.difference(to).cloned().collect();
        if !some.is_empty() {
            let block = flowtable_block(Some(&some));
            let block = block.replacen("flowtable ", &format!("flowtable inet {} ", Ruleset::TABLE), 1);
            let _ = writeln!(script, "{verb} {block}");
        }
    }
    (!script.is_empty()).then_some(script)
}

/// Replaces whatever table of ours there is by this one, in one transaction.
pub fn render_replacement(ruleset: &Ruleset) -> String {
    let table = Ruleset::TABLE;
    format!("add table inet {table}\ndelete table inet {table}\n{}", render(ruleset))
}

/// Stops all forwarding at once and leaves everything else of our table: flows, what was learnt, the gateway's own traffic.
/// Fails where our table is missing; then nothing is forwarded anyway. `seen`: what the kernel has, for flows in a flowtable
/// would go on past an empty chain.
pub fn lockdown(seen: &TableState) -> String {
    let table = Ruleset::TABLE;
    let mut script = format!("flush chain inet {table} between\n");
    if seen.flowtable.is_some() {
        let _ = writeln!(script, "delete flowtable inet {table} {}", Ruleset::FLOWTABLE);
    }
    script
}
