//! Layout of our bits in conntrack and packet marks. All other bits belong to others and are never touched.
//!
//! ```text
//!  31          20 19                 8 7            0
//! ┌──────────────┬────────────────────┬──────────────┐
//! │ others' bits │ zone-group (ct)    │ path         │
//! └──────────────┴────────────────────┴──────────────┘
//! ```
//! In a *ct mark* both fields are written once, when a flow is new. In a *packet mark* only the path field is ours.

use serde::{Deserialize, Serialize};

/// A path's number in marks and routing tables: 1 to 239.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathIndex(pub u8);

/// The number of a (zone, group) pair: 1 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ZoneGroupIndex(pub u16);

/// A 32-bit mark, seen through our layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(pub u32);

impl Mark {
    pub const PATH_MASK: u32 = 0x0000_00ff;
    pub const ZONE_GROUP_MASK: u32 = 0x000f_ff00;
    pub const OURS: u32 = Self::PATH_MASK | Self::ZONE_GROUP_MASK;
    /// Path field of permitted zone-to-zone traffic and of traffic between a zone and the gateway.
    pub const LOCAL: u32 = 0xfe;
    /// Path field of a flow that is to be refused: no path may carry it.
    pub const REFUSED: u32 = 0xfd;
    pub const LAST_PATH: u8 = 0xef;

    pub const fn path(self) -> Option<PathIndex> {
        match (self.0 & Self::PATH_MASK) as u8 {
            0 => None,
            path if path <= Self::LAST_PATH => Some(PathIndex(path)),
            _ => None,
        }
    }

    pub const fn zone_group(self) -> Option<ZoneGroupIndex> {
        match ((self.0 & Self::ZONE_GROUP_MASK) >> 8) as u16 {
            0 => None,
            index => Some(ZoneGroupIndex(index)),
        }
    }
}

impl PathIndex {
    /// Not a path: under this number the kernel learns which clients began their log-in over IPv4, in groups whose paths
    /// do not all carry IPv6. Until they are quiet they stay with IPv4, or a service would see two addresses.
    pub const BY_IPV4: Self = Self(0xfc);

    pub const fn mark(self) -> Mark {
        Mark(self.0 as u32)
    }

    /// The number of the path's routing table.
    pub const fn table(self) -> u32 {
        0x5e00 + self.0 as u32
    }
}

impl ZoneGroupIndex {
    /// The gateway's own traffic, which belongs to no zone.
    pub const GATEWAY: Self = Self(0xfff);
    /// The greatest number for a zone and group of the plan.
    pub const LAST: u16 = 0xffe;

    pub const fn mark(self) -> Mark {
        Mark((self.0 as u32) << 8)
    }
}

/// Routing table for LAN routes; looked up before any path's.
pub const ZONES_TABLE: u32 = 0x5e00;
