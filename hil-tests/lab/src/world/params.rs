//! What can be set about a town: the table that `[topology] set` is checked against and that the vocabulary prints.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

/// The type of a parameter, as the vocabulary prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamType {
    /// A whole number between the two bounds.
    Integer(i64, i64),
    /// A share between 0 and 1.
    Share,
    /// A duration such as `20ms`; a bare number is taken as milliseconds.
    Milliseconds,
    /// Bits a second, e.g. `100_000_000`; 0 = as fast as it goes.
    BitsPerSecond,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// One settable parameter of a topology.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    pub id: &'static str,
    pub ty: ParamType,
    /// As one would write it in a scenario.
    pub default: &'static str,
    pub meaning: &'static str,
}

/// A town that scenarios can play in.
#[derive(Clone, Copy, Debug)]
pub struct Base {
    pub name: &'static str,
    pub meaning: &'static str,
    /// False: the name is part of the format, but [`super::World::raise`] refuses it with a reason.
    pub supported: bool,
}

/// Every base town.
pub const BASES: &[Base] = &[
    Base {
        name: "two-line-town",
        meaning: "carrier line (closed network to the town hall) and internet line on different ports",
        supported: true,
    },
    Base {
        name: "one-line-town",
        meaning: "only the internet line; the closed path is a tunnel over it to the hub, and shares its fate",
        supported: true,
    },
];

const IPV6_WORDS: &[&str] = &["none", "nat66"];

macro_rules! line_params {
    ($line:literal, $mtu:literal, $delay:literal) => {
        [
            Param {
                id: concat!("lines.", $line, ".mtu"),
                ty: ParamType::Integer(576, 1500),
                default: $mtu,
                meaning: "largest IP packet the line carries, in bytes; larger ones are dropped as lines.*.pmtu says",
            },
            Param {
                id: concat!("lines.", $line, ".pmtu"),
                ty: ParamType::Word(&["icmp", "silent"]),
                default: "icmp",
                meaning: "what happens to a packet above the line's MTU: ICMP fragmentation needed / packet too big, or nothing",
            },
            Param {
                id: concat!("lines.", $line, ".delay_ms"),
                ty: ParamType::Milliseconds,
                default: $delay,
                meaning: "one-way delay",
            },
            Param {
                id: concat!("lines.", $line, ".jitter_ms"),
                ty: ParamType::Milliseconds,
                default: "0",
                meaning: "extra delay, uniform between 0 and this; order is kept",
            },
            Param {
                id: concat!("lines.", $line, ".loss"),
                ty: ParamType::Share,
                default: "0",
                meaning: "share of packets lost, independently, in each direction",
            },
            Param {
                id: concat!("lines.", $line, ".burst_loss"),
                ty: ParamType::Share,
                default: "0",
                meaning: "share of packets lost in bursts of 8 on average (Gilbert model)",
            },
            Param {
                id: concat!("lines.", $line, ".reorder"),
                ty: ParamType::Share,
                default: "0",
                meaning: "share of packets that wait 5 ms longer than those behind them",
            },
            Param {
                id: concat!("lines.", $line, ".duplicate"),
                ty: ParamType::Share,
                default: "0",
                meaning: "share of packets that arrive twice",
            },
            Param {
                id: concat!("lines.", $line, ".rate"),
                ty: ParamType::BitsPerSecond,
                default: "0",
                meaning: "bits a second in each direction, with a 50 ms queue; 0 = unlimited",
            },
        ]
    };
}

const CARRIER: [Param; 9] = line_params!("carrier", "1500", "5ms");
const INTERNET: [Param; 9] = line_params!("internet", "1500", "3ms");
const TOWN: &[Param] = &[
    Param {
        id: "paths.closed.ipv6",
        ty: ParamType::Word(IPV6_WORDS),
        default: "none",
        meaning: "whether the closed network carries IPv6 (2001:db8:1::/64 on the line)",
    },
    Param {
        id: "paths.direct.ipv6",
        ty: ParamType::Word(IPV6_WORDS),
        default: "nat66",
        meaning: "whether the internet line carries IPv6 (2001:db8:2::/64 on the line)",
    },
    Param {
        id: "dns.closed.affairs",
        ty: ParamType::Word(&["private", "public"]),
        default: "private",
        meaning: "what the closed network's DNS answers for affairs.school.example: 10.60.0.10 or 203.0.113.10",
    },
    Param {
        id: "dns.ttl_s",
        ty: ParamType::Integer(0, 86_400),
        default: "60",
        meaning: "time to live of the DNS servers' answers, in seconds",
    },
    Param {
        id: "lines.lte",
        ty: ParamType::Word(&["absent", "present"]),
        default: "absent",
        meaning: "a mobile modem at the gateway's port USB1 (192.0.2.130/30, next router .129), 50 Mbit/s",
    },
    Param {
        id: "cdn.learning",
        ty: ParamType::Word(&["one", "by-path"]),
        default: "one",
        meaning: "learning.school.example has one address, or another on each path (IPv4 only) that serves only who comes \
                  by that path",
    },
    Param {
        id: "saas.registered",
        ty: ParamType::Word(&["all", "both", "closed", "vpn", "direct", "none"]),
        default: "all",
        meaning: "whose egress addresses the school-affairs SaaS admits; both = closed and direct",
    },
    Param {
        id: "zones.affairs.clients",
        ty: ParamType::Integer(1, 150),
        default: "100",
        meaning: "teachers' devices, each with its own MAC, IPv4 and IPv6 address",
    },
    Param {
        id: "zones.learning.clients",
        ty: ParamType::Integer(1, 150),
        default: "40",
        meaning: "pupils' devices",
    },
];

/// Every parameter of `base`, in the order of the vocabulary. Empty for an unsupported or unknown base.
pub fn params(base: &str) -> Vec<Param> {
    match base {
        "two-line-town" => CARRIER.into_iter().chain(INTERNET).chain(TOWN.iter().copied()).collect(),
        // The tunnel to the hub carries no IPv6.
        ONE_LINE => INTERNET
            .into_iter()
            .chain(TOWN.iter().copied().filter(|param| param.id != "paths.closed.ipv6"))
            .collect(),
        _ => Vec::new(),
    }
}

const ONE_LINE: &str = "one-line-town";

/// A town's parameters: the defaults, with what a scenario sets.
#[derive(Clone, Debug)]
pub struct Topology {
    base: String,
    values: BTreeMap<&'static str, Value>,
}

#[derive(Clone, Debug)]
enum Value {
    Integer(i64),
    Share(f64),
    Millis(Duration),
    Word(String),
}

impl Topology {
    /// Defaults of `base`; fails for a base that is unknown or not supported.
    pub fn new(base: &str) -> Result<Self> {
        let known = BASES.iter().find(|b| b.name == base).ok_or_else(|| {
            let names: Vec<_> = BASES.iter().map(|b| b.name).collect();
            anyhow!("unknown topology base `{base}`; known: {}", names.join(", "))
        })?;
        if !known.supported {
            let can: Vec<_> = BASES.iter().filter(|b| b.supported).map(|b| b.name).collect();
            bail!("the lab cannot raise `{base}` yet ({}); play in {}", known.meaning, can.join(", "));
        }
        let mut values = BTreeMap::new();
        for param in params(base) {
            values.insert(param.id, parse(&param, &toml_of(param.default))?);
        }
        Ok(Self { base: base.to_owned(), values })
    }

    /// Sets one parameter as a scenario writes it; the error says what is allowed.
    pub fn set(&mut self, id: &str, value: &toml::Value) -> Result<()> {
        let param = params(&self.base)
            .into_iter()
            .find(|p| p.id == id)
            .ok_or_else(|| anyhow!("`{id}` is no parameter of `{}`; see `lab vocabulary`", self.base))?;
        let value = parse(&param, value)?;
        self.values.insert(param.id, value);
        Ok(())
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whether the school has this line.
    pub(crate) fn has_line(&self, line: &str) -> bool {
        line != "carrier" || self.base != ONE_LINE
    }

    pub(crate) fn integer(&self, id: &str) -> i64 {
        match self.values.get(id) {
            Some(Value::Integer(n)) => *n,
            _ => 0,
        }
    }

    pub(crate) fn share(&self, id: &str) -> f64 {
        match self.values.get(id) {
            Some(Value::Share(n)) => *n,
            _ => 0.0,
        }
    }

    pub(crate) fn millis(&self, id: &str) -> Duration {
        match self.values.get(id) {
            Some(Value::Millis(d)) => *d,
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn word(&self, id: &str) -> &str {
        match self.values.get(id) {
            Some(Value::Word(w)) => w,
            _ => "",
        }
    }
}

fn toml_of(text: &str) -> toml::Value {
    if let Ok(n) = text.parse::<i64>() {
        return toml::Value::Integer(n);
    }
    if let Ok(n) = text.parse::<f64>() {
        return toml::Value::Float(n);
    }
    toml::Value::String(text.to_owned())
}

fn parse(param: &Param, value: &toml::Value) -> Result<Value> {
    let wrong = |expected: &str| anyhow!("`{}` must be {expected}, not `{value}`", param.id);
    Ok(match param.ty {
        ParamType::Integer(low, high) => match value.as_integer() {
            Some(n) if (low..=high).contains(&n) => Value::Integer(n),
            _ => return Err(wrong(&format!("a whole number from {low} to {high}"))),
        },
        ParamType::BitsPerSecond => match value.as_integer() {
            Some(n) if n >= 0 => Value::Integer(n),
            _ => return Err(wrong("bits a second, a whole number")),
        },
        ParamType::Share => match value.as_float().or(value.as_integer().map(|n| n as f64)) {
            Some(n) if (0.0..=1.0).contains(&n) => Value::Share(n),
            _ => return Err(wrong("a share from 0 to 1")),
        },
        ParamType::Milliseconds => {
            let number = value.as_float().or(value.as_integer().map(|n| n as f64)).filter(|n| *n >= 0.0);
            let written = number
                .and_then(|n| Duration::try_from_secs_f64(n / 1000.0).ok())
                .or_else(|| value.as_str().and_then(parse_duration));
            Value::Millis(written.ok_or_else(|| wrong("a duration such as `20ms`, or milliseconds"))?)
        }
        ParamType::Word(words) => match value.as_str() {
            Some(word) if words.contains(&word) => Value::Word(word.to_owned()),
            _ => return Err(wrong(&format!("one of {}", words.join(", ")))),
        },
    })
}

/// Reads `200ms`, `5s`, `15min`, `2h`; decimals are allowed (`1.5s`). None if it is not such a duration.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "min" | "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_valid_value_of_its_parameter() {
        let town = Topology::new("two-line-town").unwrap();
        assert_eq!(town.values.len(), params("two-line-town").len());
        assert_eq!(town.millis("lines.carrier.delay_ms"), Duration::from_millis(5));
        assert_eq!(town.integer("zones.affairs.clients"), 100);
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_what_is_allowed() {
        let mut town = Topology::new("two-line-town").unwrap();
        let refused = town.set("lines.internet.mtu", &toml::Value::Integer(100)).unwrap_err().to_string();
        assert!(refused.contains("576 to 1500"), "{refused}");
        assert!(town.set("lines.internet.mtus", &toml::Value::Integer(1400)).is_err());
    }

    #[test]
    fn the_town_with_one_line_has_no_parameters_of_the_other() {
        let mut town = Topology::new("one-line-town").unwrap();
        assert!(town.has_line("internet") && !town.has_line("carrier"));
        let refused = town.set("lines.carrier.mtu", &toml::Value::Integer(1400)).unwrap_err().to_string();
        assert!(refused.contains("no parameter of `one-line-town`"), "{refused}");
        assert!(town.set("lines.internet.mtu", &toml::Value::Integer(1400)).is_ok());
    }
}
