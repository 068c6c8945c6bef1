//! Name resolution beside the paths' own resolvers.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PathId, ZoneId};

/// Name resolution beside the paths' own resolvers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Domains (an Active Directory, say) whose queries and answers pass untouched.
    #[serde(default)]
    pub forward: Vec<ForwardZone>,
}

/// A domain that its own servers answer for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardZone {
    /// The domain and everything under it.
    #[schemars(extend("format" = "hostname"))]
    pub domain: String,
    /// Its servers, asked in order.
    pub servers: Vec<IpAddr>,
    /// Absent: the servers are inside the school.
    #[serde(default)]
    pub path: Option<PathId>,
    /// Zones that may ask for it.
    pub zones: Vec<ZoneId>,
}
