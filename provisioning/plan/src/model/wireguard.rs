//! The school's end of a WireGuard tunnel: keys, where the hub is, what is inside.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::PlanDuration;

/// The school's end of a WireGuard tunnel and its peer, the municipality's hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wireguard {
    /// The hub as the line sees it, with its UDP port: `198.51.100.20:51820`, `[2001:db8::20]:51820` or
    /// `hub.town.example:51820`.
    pub endpoint: Endpoint,
    /// Who is asked for the endpoint's name, over the line. Absent: the resolvers of the first plain path on this line.
    #[serde(default)]
    pub resolvers: Vec<IpAddr>,
    /// The hub's public key: 32 bytes in base64 (44 characters, ending in `=`).
    pub public_key: WireguardKey,
    /// File on the gateway with the school's private key, in the agent's state directory unless it begins with `/`; made
    /// where there is none. The key itself is never part of a plan.
    pub private_key_file: String,
    /// UDP port on which the school's end listens. Default 51820.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1))]
    pub listen_port: u16,
    /// The school's address in the tunnel, with prefix length.
    #[schemars(with = "String", extend("format" = "ipv4-prefix"))]
    pub ipv4: Ipv4Net,
    /// Needed where the path's `ipv6` is `native` or `nat66`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "ipv6-prefix"))]
    pub ipv6: Option<Ipv6Net>,
    /// Between keep-alive packets, so that routers in between keep the way open. Default 25 s.
    #[serde(default = "default_keepalive")]
    pub keepalive: PlanDuration,
    /// Bytes inside the tunnel; at most the line's less 80. Default 1420.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
}

fn default_port() -> u16 {
    51820
}

fn default_keepalive() -> PlanDuration {
    PlanDuration(Duration::from_secs(25))
}

fn default_mtu() -> u16 {
    1420
}

/// A WireGuard *public* key. Written in base64, as `wg pubkey` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireguardKey(pub [u8; 32]);

#[derive(Debug, thiserror::Error)]
pub enum InvalidWireguard {
    #[error("`{0}` is not a WireGuard key: write the 44 characters that `wg pubkey` prints")]
    Key(String),
    #[error("`{0}` is not an endpoint: write ADDRESS:PORT, [IPV6]:PORT or NAME:PORT")]
    Endpoint(String),
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl FromStr for WireguardKey {
    type Err = InvalidWireguard;

    /// 43 characters, of which the last carries only four bits, and `=`: one key has one spelling.
    fn from_str(text: &str) -> Result<Self, InvalidWireguard> {
        let bad = || InvalidWireguard::Key(text.chars().take(60).collect());
        let digits = text.strip_suffix('=').filter(|digits| digits.len() == 43).ok_or_else(bad)?;
        let mut bytes = Vec::with_capacity(33);
        let (mut held, mut bits) = (0_u32, 0_u32);
        for digit in digits.bytes() {
            let value = BASE64.iter().position(|known| *known == digit).ok_or_else(bad)?;
            held = (held << 6) | u32::try_from(value).map_err(|_| bad())?;
            bits += 6;
            if bits >= 8 {
                bits -= 8;
                bytes.extend(u8::try_from((held >> bits) & 0xff));
                held &= (1 << bits) - 1;
            }
        }
        match (held, <[u8; 32]>::try_from(bytes)) {
            (0, Ok(bytes)) => Ok(Self(bytes)),
            (_, _) => Err(bad()),
        }
    }
}

impl fmt::Display for WireguardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(44);
        for chunk in self.0.chunks(3) {
            let word = chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte));
            let word = word << (8 * (3 - chunk.len()));
            for place in 0..=chunk.len() {
                let digit = (word >> (18 - 6 * place)) & 0x3f;
                text.push(char::from(BASE64[digit as usize]));
            }
        }
        text.push('=');
        f.write_str(&text)
    }
}

impl fmt::Debug for WireguardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the far end is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    Address(SocketAddr),
    /// Looked up again and again: it may move.
    Name(String, u16),
}

impl Endpoint {
    /// The address, where the plan says one.
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(..) => None,
        }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidWireguard;

    fn from_str(text: &str) -> Result<Self, InvalidWireguard> {
        let bad = || InvalidWireguard::Endpoint(text.chars().take(60).collect());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() > 0 { Ok(Self::Address(address)) } else { Err(bad()) };
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(bad)?;
        if crate::format::is_host_name(name) { Ok(Self::Name(name.to_owned(), port)) } else { Err(bad()) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

macro_rules! as_string {
    ($($name:ident $format:literal)*) => {$(
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
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format })
            }
        }
    )*};
}

as_string! {
    WireguardKey "wireguard-key"
    Endpoint "endpoint"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_spelling() {
        for bytes in [[0; 32], [0xff; 32], std::array::from_fn(|i| u8::try_from(i * 7).unwrap_or(1))] {
            let text = WireguardKey(bytes).to_string();
            assert_eq!(text.len(), 44);
            assert_eq!(text.parse::<WireguardKey>().map(|key| key.0).ok(), Some(bytes));
        }
        // From the specification's own test of `wg pubkey`.
        let known = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
        assert_eq!(known.parse::<WireguardKey>().map(|key| key.to_string()).ok().as_deref(), Some(known));
        for bad in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=", &known[..43], "é"] {
            assert!(bad.parse::<WireguardKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_is_an_address_or_a_name_and_always_a_port() {
        for good in ["192.0.2.1:51820", "[2001:db8::1]:51820", "hub.town.example:443"] {
            assert_eq!(good.parse::<Endpoint>().map(|e| e.to_string()).ok().as_deref(), Some(good));
        }
        for bad in
            ["192.0.2.1", "192.0.2.1:0", "hub.town.example", "hub.town.example:0", "2001:db8::1", "hub:1"]
        {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
