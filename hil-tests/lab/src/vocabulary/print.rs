//! The vocabulary for people and for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{AGENT, COMMANDS, DERIVED, MECHANISMS, MetricWord, OPERATORS, STATES, TOLD, TOWN, events};
use crate::load::spec::{COMMON_KEYS, KINDS, Key, LOAD_METRICS, SERVICES};
use crate::world::params::{BASES, Param, ParamType, params};

fn type_text(ty: ParamType) -> String {
    match ty {
        ParamType::Integer(low, high) => format!("whole number {low}..{high}"),
        ParamType::Share => "share 0..1".to_owned(),
        ParamType::Milliseconds => "duration".to_owned(),
        ParamType::BitsPerSecond => "bits/s".to_owned(),
        ParamType::Word(words) => words.join(" | "),
    }
}

fn keys(out: &mut String, keys: &[Key]) {
    for Key { key, ty, default, meaning } in keys {
        let _ = writeln!(out, "      {key:<12} {ty} (default: {default}): {meaning}");
    }
}

fn metrics(out: &mut String, words: &[MetricWord]) {
    for word in words {
        let _ = writeln!(out, "  {:<38} [{}] {}", word.pattern, word.unit, word.meaning);
    }
}

/// For people.
pub fn as_text() -> String {
    let mut out = String::new();
    out.push_str(
        "A scenario is a TOML file. Durations: 200ms, 5s, 2min, 1h. Unknown keys are errors.\n\n\
         TOP LEVEL\n  format = 1, name, needs = [...], seed, duration\n  \
         sabotage = \"...\"  optional: the mechanism whose absence must make this scenario fail\n  \
         short = true      optional: part of the short set that `cargo xtask test` plays\n\n\
         TOPOLOGIES  [topology] base = ..., set = { parameter = value }\n",
    );
    for base in BASES {
        let _ = writeln!(out, "  {}: {}", base.name, base.meaning);
        for Param { id, ty, default, meaning } in params(base.name) {
            let _ = writeln!(out, "      {id:<28} {} (default: {default}): {meaning}", type_text(ty));
        }
    }
    out.push_str(
        "\nPLAN  [plan] file = ..., set = { \"dotted.key\" = value }\n  \
         file: beside the scenario, or shipped: town.toml (two-line-town.toml with a window that is always open, qualify 5 s,\n  \
         soak 8 s, drain 30 s, session_idle 5 s), vpn-town.toml (the same with a third path, vpn: a tunnel to the hub),\n  \
         one-line.toml (one-line-town.toml with those times), two-line-town.toml, one-line-town.toml\n\n\
         LOADS  [[load]]; keys of every load:\n",
    );
    keys(&mut out, COMMON_KEYS);
    out.push_str("  kinds:\n");
    for kind in KINDS {
        let _ = writeln!(out, "  {}: {}", kind.name, kind.meaning);
        keys(&mut out, kind.keys);
    }
    out.push_str("  services:\n");
    for service in SERVICES {
        let _ = writeln!(out, "      {:<12} {}: {}", service.name, service.target, service.meaning);
    }
    out.push_str(
        "\nEVENTS  [[event]] do = ..., when: at = \"30s\" | after = \"state:ZONE/GROUP=STATE\" | after = \"event:ID\", \
         with plus = \"2s\";\n  id names it; target as below; for = \"20s\": afterwards things are as before\n",
    );
    for event in events() {
        let undone = if event.undone { ", takes `for`" } else { "" };
        let target =
            if event.targets.is_empty() { "no target".to_owned() } else { event.targets.join(" | ") };
        let _ = writeln!(out, "  {} (target: {target}{undone}): {}", event.name, event.meaning);
        keys(&mut out, event.keys);
    }
    let _ = writeln!(out, "  states: {}", STATES.join(", "));
    let _ = writeln!(out, "  kinds: {}", TOLD.join(", "));
    let _ = writeln!(
        out,
        "\nEXPECTATIONS  [[expect]] metric, op ({}), value (within: [low, high]), from, to\n  \
         from, to: a time (\"10s\"), \"event:ID\", \"event:ID+2s\" or \"state:ZONE/GROUP=STATE\"; default: the whole run",
        OPERATORS.join(" ")
    );
    out.push_str("METRICS of a load, <load>.<metric>\n");
    for metric in LOAD_METRICS {
        let _ = writeln!(out, "  {:<38} [{}] {}", metric.name, metric.unit, metric.meaning);
    }
    metrics(&mut out, DERIVED);
    out.push_str("METRICS of the town\n");
    metrics(&mut out, TOWN);
    out.push_str("METRICS from the agent (never rest an expectation on these alone)\n");
    metrics(&mut out, AGENT);
    let _ = writeln!(out, "\nMECHANISMS (sabotage, --without): {}", MECHANISMS.join(", "));
    out
}

/// For programs: the same words.
pub fn as_json() -> Value {
    let key_list = |keys: &[Key]| -> Vec<Value> {
        keys.iter()
            .map(|k| json!({"key": k.key, "type": k.ty, "default": k.default, "meaning": k.meaning}))
            .collect()
    };
    let words = |words: &[MetricWord]| -> Vec<Value> {
        words.iter().map(|w| json!({"metric": w.pattern, "unit": w.unit, "meaning": w.meaning})).collect()
    };
    json!({
        "format": 1,
        "topologies": BASES.iter().map(|base| json!({
            "base": base.name, "meaning": base.meaning, "supported": base.supported,
            "parameters": params(base.name).iter().map(|p| json!({
                "id": p.id, "type": type_text(p.ty), "default": p.default, "meaning": p.meaning,
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "loads": {
            "keys": key_list(COMMON_KEYS),
            "kinds": KINDS.iter().map(|k| json!({"kind": k.name, "meaning": k.meaning, "keys": key_list(k.keys)})).collect::<Vec<_>>(),
            "services": SERVICES.iter().map(|s| json!({"service": s.name, "target": s.target, "meaning": s.meaning})).collect::<Vec<_>>(),
        },
        "events": events().map(|e| json!({
            "do": e.name, "targets": e.targets, "for": e.undone, "keys": key_list(e.keys), "meaning": e.meaning,
            "by": if COMMANDS.iter().any(|c| c.name == e.name) { "administrator" } else { "town" },
        })).collect::<Vec<_>>(),
        "states": STATES,
        "kinds": TOLD,
        "operators": OPERATORS,
        "metrics": {
            "load": LOAD_METRICS.iter().map(|m| json!({"metric": format!("<load>.{}", m.name), "unit": m.unit, "meaning": m.meaning})).collect::<Vec<_>>(),
            "derived": words(DERIVED), "town": words(TOWN), "agent": words(AGENT),
        },
        "mechanisms": MECHANISMS,
    })
}
