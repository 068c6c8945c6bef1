//! Interfaces, addresses, routes, routing rules, sysctls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use seimon_board::{InterfaceName, MacAddress};
use serde::{Deserialize, Serialize};

use super::ruleset::Family;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub name: InterfaceName,
    pub kind: LinkKind,
    pub mtu: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkKind {
    /// A port of the board that carries a line. It must exist; we set it up.
    Uplink,
    /// A zone's bridge; members are board ports that must exist, and the zone's VLAN.
    Bridge { members: Vec<InterfaceName> },
    /// The bridge that tells zones apart by VLAN tags: what has no tag, or none that the port may have, is dropped as it comes
    /// in. Its ports are board ports that must exist.
    Trunk { ports: BTreeMap<InterfaceName, PortVlans> },
    /// What of a trunk's frames carries one tag, without it.
    Vlan { over: InterfaceName, id: u16 },
    /// Near end of a veth pair whose far end lives in the probe host's namespace; the near end joins `bridge`.
    Probe { bridge: InterfaceName, far: InterfaceName, far_mac: MacAddress },
    /// A WireGuard interface, in the kernel or in user space. How it is configured: [`super::Tunnel`].
    Tunnel,
}

/// Which VLANs a port of a trunk carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortVlans {
    /// That of frames without a tag, both ways; `None`: they are dropped.
    pub untagged: Option<u16>,
    pub tagged: BTreeSet<u16>,
}

/// Added with `noprefixroute`: LAN and uplink prefixes are routed only by our tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    pub interface: InterfaceName,
    pub address: IpNet,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    pub table: u32,
    pub destination: IpNet,
    pub kind: RouteKind,
    /// Path MTU in bytes, where it is below the interface's.
    pub mtu: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RouteKind {
    /// Directly connected.
    Onlink { interface: InterfaceName, source: Option<IpAddr> },
    /// Next hop, reachable on the interface without a prefix route (`onlink`).
    Via { gateway: IpAddr, interface: InterfaceName, source: Option<IpAddr> },
    /// ICMP "administratively prohibited".
    Prohibit,
}

/// A policy routing rule. Ours are recognised by their protocol number (`RTPROT` 0x5e).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IpRule {
    pub family: Family,
    pub priority: u32,
    pub matches: RuleMatch,
    pub action: RuleAction,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleMatch {
    pub iif: Option<InterfaceName>,
    pub from: Option<IpNet>,
    /// UDP packets from this port.
    #[serde(default)]
    pub udp_source_port: Option<u16>,
    /// Value and mask.
    pub fwmark: Option<(u32, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RuleAction {
    Table(u32),
    /// ICMP "administratively prohibited".
    Prohibit,
    /// Dropped without a word.
    Blackhole,
}

/// `net/ipv4/ip_forward` = `1`: path below `/proc/sys`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sysctl {
    pub path: String,
    pub value: String,
}
