//! The town hall's web proxy, which machines may be set to use.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ZoneId;

/// A web proxy behind the closed line. A client that uses it reaches every service from there, whatever path the service
/// is on: moving a service moves nothing for that client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// Its address, in the hub's prefixes.
    pub address: IpAddr,
    /// Its TCP port.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Zones whose machines may be set to use it.
    pub zones: Vec<ZoneId>,
    /// Whether the gateway serves a PAC file to these zones. Default: off.
    #[serde(default)]
    pub pac: Pac,
}

impl Proxy {
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// Who tells browsers what goes through the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pac {
    /// Somebody else: nothing moves while machines use the proxy.
    #[default]
    Off,
    /// The gateway, at `/proxy.pac` and `/wpad.dat` of its own address, and as `wpad` in DNS: moved services directly, the
    /// rest through the proxy.
    Serve,
}
