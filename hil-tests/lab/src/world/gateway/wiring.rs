//! Joining the ports of the namespace `gw` with a box: for each port one bridge of two members.
//!
//! ```text
//!            namespace gw
//!  wires ══ wan1 ── j-wan1 ── t-wan1 ┆ QEMU: eth0
//! affairs ─ lan1 ── j-lan1 ── t-lan1 ┆       eth2
//! ```
//! The bridges learn where addresses are and do nothing else: no spanning tree, no snooping. The namespace has no addresses
//! and forwards nothing. Frames leave by `wan1` as they always do in the lab: with checksums, no larger than the MTU.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::nodes::Node;
use crate::wire::trunk::{Ends, Trunk};
use crate::world::town::plain_frames;

/// The namespace itself says nothing on any port.
pub(super) fn be_silent(node: &Node) -> Result<()> {
    node.sysctl(&[
        ("ipv6/conf/default/disable_ipv6", "1"),
        ("ipv6/conf/all/disable_ipv6", "1"),
        ("ipv4/ip_forward", "0"),
    ])
}

/// The name of a port's TAP.
pub(super) fn tap(port: &str) -> String {
    format!("t-{port}")
}

/// Makes the TAP that QEMU is then started on.
pub(super) fn make_tap(node: &Node, port: &str) -> Result<()> {
    node.ip(&format!("tuntap add dev {} mode tap\n", tap(port)))
        .context("a TAP for the machine: /dev/net/tun, as root")
}

/// `port` (a veth of the town) and `other` (a TAP, or a card of this host) are one cable from now on.
pub(super) fn join(node: &Node, port: &str, other: &str) -> Result<()> {
    let bridge = format!("j-{port}");
    let mut lines = format!("link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n");
    for member in [port, other] {
        let _ = writeln!(lines, "link set {member} master {bridge} up");
    }
    let _ = writeln!(lines, "link set {bridge} up");
    node.ip(&lines)
}

/// The zones' ports are networks on one cable from now on, by their tags.
pub(super) fn trunk(node: &Node, ends: &Ends, tags: &[(&str, u16)]) -> Result<Trunk> {
    // Datagram sockets of a few frames each would be full at once.
    node.sysctl(&[("unix/max_dgram_qlen", "512")])?;
    for (port, _) in tags {
        node.ip(&format!("link set {port} up\n"))?;
        plain_frames(node, port)?;
    }
    let networks = tags.iter().map(|(port, tag)| ((*port).to_owned(), *tag)).collect();
    Trunk::raise(node.name(), ends, networks)
}
