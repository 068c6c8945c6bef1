//! Values written as strings.

use super::{PermitTarget, PortSpec, Protocol, ServiceId, ZoneId};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

/// A duration written as `200ms`, `5s`, `15min`, `2h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanDuration(pub Duration);

#[derive(Debug, thiserror::Error)]
pub enum InvalidText {
    #[error("`{0}` is not a duration: write a whole number and one of ms, s, min, h, d")]
    Duration(String),
    #[error("`{0}` is not a port: write tcp/443, udp/53 or udp/3478-3481")]
    Port(String),
    #[error("`{0}` is not a permit's target: write service:ID or zone:ID")]
    Target(String),
}

impl FromStr for PlanDuration {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let bad = || InvalidText::Duration(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| bad())?;
        let factor = match &text[digits..] {
            "ms" => 1,
            "s" => 1_000,
            "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        number.checked_mul(factor).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(bad)
    }
}

impl fmt::Display for PlanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        for (factor, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")] {
            if ms >= factor && ms.is_multiple_of(factor) {
                return write!(f, "{}{unit}", ms / factor);
            }
        }
        write!(f, "{ms}ms")
    }
}

impl FromStr for PortSpec {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let bad = || InvalidText::Port(text.to_owned());
        let (protocol, ports) = text.split_once('/').ok_or_else(bad)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(bad()),
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |p: &str| p.parse::<u16>().ok().filter(|&p| p > 0).ok_or_else(bad);
        let (first, last) = (port(first)?, port(last)?);
        if first > last { Err(bad()) } else { Ok(Self { protocol, first, last }) }
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        if self.first == self.last {
            write!(f, "{protocol}/{}", self.first)
        } else {
            write!(f, "{protocol}/{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PermitTarget {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let bad = || InvalidText::Target(text.to_owned());
        match text.split_once(':') {
            Some(("service", id)) => ServiceId::new(id).map(Self::Service).map_err(|_| bad()),
            Some(("zone", id)) => ZoneId::new(id).map(Self::Zone).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for PermitTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(id) => write!(f, "service:{id}"),
            Self::Zone(id) => write!(f, "zone:{id}"),
        }
    }
}

macro_rules! as_string {
    ($($name:ident $format:literal $pattern:literal $description:literal)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string", "format": $format, "pattern": $pattern, "description": $description
                })
            }
        }
    )*};
}

as_string! {
    PlanDuration "plan-duration" r"^[0-9]+(ms|s|min|h|d)$" "A whole number and a unit: `200ms`, `5s`, `15min`, `2h`, `7d`."
    PortSpec "port" r"^(tcp|udp)/[0-9]+(-[0-9]+)?$" "A transport protocol with a port or range: `tcp/443`, `udp/3478-3481`."
    PermitTarget "permit-target" r"^(service|zone):[a-z][a-z0-9_-]{0,31}$" "`service:ID` or `zone:ID`."
}
