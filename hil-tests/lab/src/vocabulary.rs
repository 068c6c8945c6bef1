//! Every word that a scenario may use. The parser reads these same tables, so what is printed is what is accepted.

mod print;

pub use print::{as_json, as_text};

use crate::load::spec::{Key, LOAD_METRICS};
use crate::world::events::EventInfo;

const fn key(key: &'static str, ty: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { key, ty, default, meaning }
}

/// Targets of events that concern one route of the plan: `zone/group`. Checked against the shape only.
const GROUP: &[&str] = &["<zone>/<group>"];

/// What the gateway's administrator does, beside what happens to the town ([`crate::world::events::EVENTS`]).
pub const COMMANDS: &[EventInfo] = &[
    EventInfo {
        name: "migrate.start",
        targets: GROUP,
        keys: &[key("to", "text", "the route's last path", "path to move to")],
        undone: false,
        meaning: "seimonctl migrate start",
    },
    EventInfo {
        name: "migrate.pause",
        targets: GROUP,
        keys: &[],
        undone: false,
        meaning: "seimonctl migrate pause",
    },
    EventInfo {
        name: "migrate.resume",
        targets: GROUP,
        keys: &[],
        undone: false,
        meaning: "seimonctl migrate resume",
    },
    EventInfo {
        name: "migrate.rollback",
        targets: GROUP,
        keys: &[],
        undone: false,
        meaning: "seimonctl migrate rollback",
    },
    EventInfo {
        name: "plan.apply",
        targets: &[],
        keys: &[
            key("file", "text", "the scenario's", "plan file, beside the scenario or a shipped one"),
            key("set", "table", "{}", "dotted keys changed in it, on top of the scenario's own"),
        ],
        undone: false,
        meaning: "seimonctl apply",
    },
    EventInfo {
        name: "gateway.second",
        targets: &[],
        keys: &[key(
            "runtime",
            "same | own",
            "same",
            "whether its sockets are to be where the first has them",
        )],
        undone: false,
        meaning: "a second agent is started with the same state; refused where it ends by itself with exit status 1",
    },
    EventInfo {
        name: "wireguard.rotate",
        targets: PATHS,
        keys: &[],
        undone: false,
        meaning: "seimonctl wireguard rotate; the hub learns the next key beside the present one",
    },
    EventInfo {
        name: "wireguard.switch",
        targets: PATHS,
        keys: &[],
        undone: false,
        meaning: "seimonctl wireguard switch",
    },
];

/// Keys of every event besides its own.
pub const EVENT_KEYS: &[&str] = &["id", "at", "after", "plus", "do", "target", "for"];
pub const LINES: &[&str] = &["carrier", "internet", "lte"];
pub const ZONES: &[&str] = &["affairs", "learning", "printers"];
/// Paths of the shipped plans and the modem's, by the egress that the servers see.
pub const PATHS: &[&str] = &["closed", "vpn", "direct", "lte"];
/// States of a (zone, group) that `after` and metrics may name.
pub const STATES: &[&str] =
    &["Steady", "Qualifying", "Canary", "CuttingOver", "Soaking", "RollingBack", "Blocked"];
pub const OPERATORS: &[&str] = &["==", "!=", "<=", ">=", "within"];
/// Names for the key `sabotage` and the option `--without`.
pub const MECHANISMS: &[&str] = &[
    "affinity",
    "egress-veto",
    "window-veto",
    "checkpoint",
    "liveness",
    "rollback",
    "inside-address",
    "prohibit",
    "reobserve",
    "reset",
    "aaaa-withhold",
    "baseline-veto",
    "blame-service",
    "alone",
    "clock-floor",
    "sync",
    "roaming",
    "make-before-break",
    "answer-check",
    "brown-out",
    "canary",
    "families-apart",
    "hold-down",
    "keep-when-blocked",
    "patience",
    "selective-kill",
    "emergency",
    "pac",
    "pac-affinity",
    "proxy-veto",
    "rate-cap",
    "disk-veto",
    "reserve",
];
/// Kinds of what the agent tells (`seimonctl events`).
pub const TOLD: &[&str] = &["path", "check", "egress", "state", "veto", "drain", "dataplane", "agent"];

/// A metric that is not in a load's own list. `<…>` stands for a word of the named list.
#[derive(Clone, Copy, Debug)]
pub struct MetricWord {
    pub pattern: &'static str,
    pub unit: &'static str,
    pub meaning: &'static str,
}

const fn metric(pattern: &'static str, unit: &'static str, meaning: &'static str) -> MetricWord {
    MetricWord { pattern, unit, meaning }
}

/// Metrics that are computed from a load's own.
pub const DERIVED: &[MetricWord] = &[
    metric("<load>.share.<path>", "share", "of what the servers saw, the share that came by this path"),
    metric("<load>.ok_per_s", "1/s", "operations that ended well, a second"),
];

/// Metrics of the town itself, from captures at named points.
pub const TOWN: &[MetricWord] = &[
    metric("wan.<line>.tx", "packets", "sent by the gateway on the line"),
    metric("wan.<line>.rx", "packets", "received by the gateway from the line"),
    metric("wan.<line>.inside", "packets", "on the line with an inside address (must never be)"),
    metric("wan.<line>.forwarded", "packets", "on the line for clients, not the gateway's own"),
    metric("wan.<line>.ipv6", "packets", "IPv6 packets sent by the gateway on the line"),
    metric("wan.<line>.lost", "packets", "lost by the line, either way (quality, faults, MTU)"),
    metric("wan.<line>.tx.bytes", "bytes", "of IP packets sent by the gateway on the line"),
    metric("wan.<line>.rx.bytes", "bytes", "of IP packets received by the gateway from the line"),
    metric("zone.<zone>.rx", "packets", "from the gateway into the zone"),
    metric("zone.<zone>.tx", "packets", "from the zone to the gateway"),
    metric(
        "leak.<zone>.<zone>",
        "packets",
        "seen in the second zone with a source in the first, without a permit",
    ),
];

/// What the agent says about itself. No expectation should rest on these alone.
pub const AGENT: &[MetricWord] = &[
    metric("agent.entered.<group>.<state>", "count", "times that zone/group entered the state"),
    metric(
        "agent.on.<group>.<path>",
        "0 or 1",
        "whether the group's new flows take this path at the scenario's end",
    ),
    metric("agent.done.<event>", "0 or 1", "the command of this event was accepted (exit status 0)"),
    metric("agent.refused.<event>", "0 or 1", "the command of this event was refused (exit status 1)"),
    metric("agent.told.<kind>", "count", "events of this kind that the agent told"),
    metric(
        "agent.forced_by_deadline.<group>",
        "count",
        "clients moved because the drain's deadline had come",
    ),
    metric(
        "agent.repairs",
        "count",
        "times that somebody else's change was put right, at the scenario's end",
    ),
    metric("agent.running", "0 or 1", "whether the agent runs and answers at the scenario's end"),
    metric("agent.rss_mib", "MiB", "memory of seimon-agent at the scenario's end"),
    metric("agent.resolver_rss_mib", "MiB", "memory of seimon-resolver at the scenario's end"),
];

pub fn events() -> impl Iterator<Item = &'static EventInfo> {
    COMMANDS.iter().chain(crate::world::events::EVENTS)
}

/// Whether `name` is one of the load, town or agent metrics, and its unit; else what to write instead.
pub fn metric_unit(name: &str, loads: &[&str], events: &[&str]) -> Result<&'static str, String> {
    if let Some((_, rest)) = name.split_once('.').filter(|(load, _)| loads.contains(load)) {
        let own = LOAD_METRICS.iter().find(|m| m.name == rest).map(|m| m.unit);
        return own
            .or_else(|| {
                DERIVED.iter().find(|w| matches(w.pattern, name, loads, events).is_some()).map(|w| w.unit)
            })
            .ok_or_else(|| format!("a load has no metric `{rest}`; see `cargo xtask lab vocabulary`"));
    }
    TOWN.iter().chain(AGENT).find(|w| matches(w.pattern, name, loads, events).is_some()).map(|w| w.unit).ok_or_else(
        || {
            format!(
                "no metric `{name}`: it begins neither with a load of this file ({}) nor is it one of the town's or \
                 the agent's; see `cargo xtask lab vocabulary`",
                loads.join(", ")
            )
        },
    )
}

/// The words that stand for the pattern's `<…>`, in order.
pub(crate) fn matches<'n>(
    pattern: &str,
    name: &'n str,
    loads: &[&str],
    events: &[&str],
) -> Option<Vec<&'n str>> {
    let mut found = Vec::new();
    let mut words = name.split('.');
    for part in pattern.split('.') {
        let word = words.next()?;
        let known = match part {
            "<line>" => LINES.contains(&word),
            "<zone>" => ZONES.contains(&word),
            "<path>" => PATHS.contains(&word),
            "<state>" => STATES.contains(&word),
            "<load>" => loads.contains(&word),
            "<kind>" => TOLD.contains(&word),
            "<event>" => events.contains(&word),
            "<group>" => is_group(word),
            literal if word == literal => continue,
            _ => return None,
        };
        if !known {
            return None;
        }
        found.push(word);
    }
    words.next().is_none().then_some(found)
}

/// `zone/group`.
pub(crate) fn is_group(word: &str) -> bool {
    word.split_once('/')
        .is_some_and(|(zone, group)| !zone.is_empty() && !group.is_empty() && !group.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_metric_is_known_by_its_own_name_only() {
        let unit = |name| metric_unit(name, &["teachers"], &["move"]);
        assert_eq!(unit("teachers.logouts"), Ok("count"));
        assert_eq!(unit("teachers.share.direct"), Ok("share"));
        assert_eq!(unit("wan.internet.inside"), Ok("packets"));
        assert_eq!(unit("leak.affairs.learning"), Ok("packets"));
        assert_eq!(unit("agent.entered.affairs/affairs.Soaking"), Ok("count"));
        assert_eq!(unit("agent.refused.move"), Ok("0 or 1"));
        for wrong in
            ["pupils.ok", "teachers.log_outs", "wan.lan.tx", "agent.refused.other", "wan.internet.tx.more"]
        {
            assert!(unit(wrong).is_err(), "{wrong}");
        }
    }
}
