//! Raising the town: namespaces, links, addresses, routes.
//!
//! ```text
//! affairs ─lan1┐                ┌wan1 ═carrier═ ce ── core ── hall ─┐
//! learning lan2├───── gw ───────┤                    (DNS, files)   ├─ inet (SaaS, IdP, www, DNS, echo, drill)
//! printers lan3┘                │                            hub ───┤
//!                               └wan2 ═internet═ isp ───────────────┘
//! ```
//! The hub is the far end of tunnels ([`super::hub`]); a private link joins it with the town hall. In `one-line-town` there
//! is no carrier's line: the tunnel is the closed path, and leaves by the town hall's own egress address.
//! With `lines.lte = "present"` a modem besides: gw ─usb1 ═lte═ mobile ── inet. In the hall there is a web proxy, 10.50.0.80:8080.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::params::Topology;
use crate::capture::{CLIENT_DSCP, Permitted, PermittedFlow, Ports, Tap, Zone};
use crate::netns::feed;
use crate::nodes::Node;
use crate::wire::{Pmtu, Wire, WireConfig};

/// Nodes in the order of their raising.
const NODES: [&str; 11] =
    ["gw", "wires", "ce", "core", "hall", "hub", "isp", "inet", "affairs", "learning", "printers"];

/// The mobile network's router, in towns that have one.
const MOBILE: &str = "mobile";

/// Egress address → path, as the outside world sees it.
pub(crate) fn path_of(address: IpAddr) -> &'static str {
    const CLOSED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
    const VPN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
    const DIRECT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const LTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 130);
    /// After the line was given other addresses.
    const RENUMBERED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 6);
    match address.to_canonical() {
        IpAddr::V4(CLOSED) => "closed",
        IpAddr::V4(VPN) => "vpn",
        IpAddr::V4(DIRECT | RENUMBERED) => "direct",
        IpAddr::V4(LTE) => "lte",
        IpAddr::V6(a) if a.segments()[..4] == [0x2001, 0xdb8, 1, 0] => "closed",
        IpAddr::V6(a) if a == Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2) => "direct",
        IpAddr::V4(_) | IpAddr::V6(_) => "other",
    }
}

/// One device of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Interface that its sockets are bound to.
    pub(crate) interface: String,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Option<Ipv6Addr>,
    /// The zone's gateway, which is also the resolver.
    pub(crate) gateway: Ipv4Addr,
}

/// What [`raise`] made. Fields are dropped in this order: users of namespaces first.
#[derive(Debug)]
pub(crate) struct Town {
    pub(crate) wires: BTreeMap<&'static str, Wire>,
    pub(crate) taps: BTreeMap<&'static str, Tap>,
    /// Flows between zones that are no leaks.
    pub(crate) permitted: Permitted,
    pub(crate) devices: BTreeMap<&'static str, Vec<Device>>,
    /// There is no carrier's line.
    pub(crate) one_line: bool,
    pub(crate) nodes: BTreeMap<&'static str, Arc<Node>>,
    pub(crate) has_ipv6_on_internet: bool,
}

impl Town {
    pub(crate) fn node(&self, name: &str) -> Result<&Arc<Node>> {
        self.nodes.get(name).with_context(|| format!("no node `{name}`; there are {}", NODES.join(", ")))
    }
}

/// The school's zones.
pub(crate) fn zones() -> [Zone; 3] {
    [
        Zone { name: "affairs", v4: [10, 20, 1], v6: Some([0xfd20, 0, 0, 1]) },
        Zone { name: "learning", v4: [10, 20, 2], v6: Some([0xfd20, 0, 0, 2]) },
        Zone { name: "printers", v4: [10, 20, 3], v6: None },
    ]
}

/// As in the shipped plan, for towns without an agent; a scenario's plan brings its own.
fn permitted() -> Vec<PermittedFlow> {
    [("affairs", 9100), ("affairs", 631), ("learning", 631)]
        .into_iter()
        .map(|(from, port)| {
            let ports = Ports { protocol: 6, first: port, last: port };
            PermittedFlow { from: from.into(), to: "printers".into(), ports: Some(ports) }
        })
        .collect()
}

/// Raises everything but servers and the gateway's own configuration.
pub(crate) fn raise(topology: &Topology, seed: u64, start: Instant) -> Result<Town> {
    let mut nodes = BTreeMap::new();
    let has_lte = topology.word("lines.lte") == "present";
    for name in NODES.into_iter().chain(has_lte.then_some(MOBILE)) {
        nodes.insert(name, Arc::new(Node::raise(name)?));
    }
    let permitted = Arc::new(Mutex::new(permitted()));
    let town = Town {
        wires: BTreeMap::new(),
        taps: BTreeMap::new(),
        permitted: Arc::clone(&permitted),
        devices: BTreeMap::new(),
        one_line: !topology.has_line("carrier"),
        nodes,
        has_ipv6_on_internet: topology.word("paths.direct.ipv6") == "nat66",
    };
    settings(&town)?;
    feed("ip", &["-batch", "-"], LINKS).context("cannot make the town's links")?;
    town.node("wires")?.ip(WIRES)?;
    if has_lte {
        modem(&town)?;
    }
    offloads(&town)?;
    upstream(&town, topology)?;
    let devices = schools(&town, topology)?;
    let mut wires = BTreeMap::new();
    let lines = [("carrier", ["carrier0", "carrier1"]), ("internet", ["internet0", "internet1"])];
    for (line, ends) in lines.into_iter().filter(|(line, _)| topology.has_line(line)) {
        let seed = seed ^ line.bytes().fold(0, |sum, byte| (sum << 7) + u64::from(byte));
        wires
            .insert(line, Wire::raise("wires", ends[0], ends[1], line_config(topology, line)?, seed, start)?);
    }
    if has_lte {
        wires.insert("lte", Wire::raise("wires", "lte0", "lte1", modem_config(), seed ^ 0x17e, start)?);
    }
    let all = zones();
    let mut taps = BTreeMap::new();
    for zone in &all {
        taps.insert(zone.name, Tap::raise(zone.name, "port", zone, &all, Arc::clone(&permitted), start)?);
    }
    Ok(Town { wires, taps, permitted, devices, ..town })
}

/// A modem at the gateway and the mobile network behind it: 192.0.2.128/30, to the internet without any NAT.
fn modem(town: &Town) -> Result<()> {
    feed(
        "ip",
        &["-batch", "-"],
        "link add usb1 netns gw type veth peer name lte0 netns wires\n\
         link add line netns mobile type veth peer name lte1 netns wires\n\
         link add inet netns mobile type veth peer name mobile netns inet\n",
    )
    .context("cannot make the modem's links")?;
    town.node("wires")?.ip("link set lte0 arp off up\nlink set lte1 arp off up\n")?;
    let mobile = town.node(MOBILE)?;
    mobile.sysctl(&[
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
    ])?;
    mobile.ip("addr add 192.0.2.129/30 dev line\nlink set line up\naddr add 198.18.0.6/30 dev inet\n\
         link set inet up\nroute add default via 198.18.0.5\n")?;
    town.node("inet")?.ip(
        "addr add 198.18.0.5/30 dev mobile\nlink set mobile up\nroute add 192.0.2.128/30 via 198.18.0.6\n",
    )?;
    for (node, interface) in [("gw", "usb1"), (MOBILE, "line"), ("wires", "lte0"), ("wires", "lte1")] {
        plain_frames(town.node(node)?, interface)?;
    }
    Ok(())
}

/// As mobile lines are: some 30 ms away, 50 Mbit/s.
fn modem_config() -> WireConfig {
    WireConfig { delay: std::time::Duration::from_millis(15), rate: 50_000_000, ..WireConfig::default() }
}

fn line_config(topology: &Topology, line: &str) -> Result<WireConfig> {
    let id = |name: &str| format!("lines.{line}.{name}");
    Ok(WireConfig {
        mtu: usize::try_from(topology.integer(&id("mtu")))?,
        pmtu: pmtu(topology.word(&id("pmtu")))?,
        delay: topology.millis(&id("delay_ms")),
        jitter: topology.millis(&id("jitter_ms")),
        loss: topology.share(&id("loss")),
        burst_loss: topology.share(&id("burst_loss")),
        reorder: topology.share(&id("reorder")),
        duplicate: topology.share(&id("duplicate")),
        rate: u64::try_from(topology.integer(&id("rate")))?,
        ..WireConfig::default()
    })
}

pub(crate) fn pmtu(word: &str) -> Result<Pmtu> {
    match word {
        "icmp" => Ok(Pmtu::Icmp),
        "silent" => Ok(Pmtu::Silent),
        other => bail!("pmtu must be icmp or silent, not `{other}`"),
    }
}

/// Before links exist, so that new interfaces inherit it.
fn settings(town: &Town) -> Result<()> {
    for name in ["ce", "core", "hall", "hub", "isp", "inet", "affairs", "learning", "printers"] {
        // Addresses are known to be unique: no second of silence before they may be used.
        town.node(name)?
            .sysctl(&[("ipv6/conf/all/accept_dad", "0"), ("ipv6/conf/default/accept_dad", "0")])?;
    }
    for name in ["ce", "core", "hall", "hub", "isp", "inet"] {
        town.node(name)?.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ])?;
    }
    town.node("inet")?.sysctl(&[("ipv4/tcp_max_syn_backlog", "4096"), ("core/somaxconn", "4096")])?;
    town.node("wires")?
        .sysctl(&[("ipv6/conf/default/disable_ipv6", "1"), ("ipv6/conf/all/disable_ipv6", "1")])?;
    for name in ["affairs", "learning", "printers"] {
        town.node(name)?.sysctl(&[
            // Each device answers for its own address only.
            ("ipv4/conf/all/arp_ignore", "1"),
            ("ipv4/conf/all/arp_announce", "2"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv6/conf/all/accept_ra", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv6/conf/default/router_solicitations", "0"),
            // Many short connections: ports may be taken again at once.
            ("ipv4/ip_local_port_range", "10240 65000"),
            // A rootless world knows only group 0.
            ("ipv4/ping_group_range", "0 0"),
        ])?;
    }
    Ok(())
}

const LINKS: &str = "\
link add wan1 netns gw type veth peer name carrier0 netns wires
link add line netns ce type veth peer name carrier1 netns wires
link add wan2 netns gw type veth peer name internet0 netns wires
link add line netns isp type veth peer name internet1 netns wires
link add lan1 netns gw type veth peer name port netns affairs
link add lan2 netns gw type veth peer name port netns learning
link add lan3 netns gw type veth peer name port netns printers
link add core netns ce type veth peer name ce netns core
link add hall netns core type veth peer name core netns hall
link add inet netns hall type veth peer name hall netns inet
link add inet netns isp type veth peer name isp netns inet
link add inet netns hub type veth peer name hub netns inet
link add hall netns hub type veth peer name hub netns hall
";

const WIRES: &str = "\
link set carrier0 arp off up
link set carrier1 arp off up
link set internet0 arp off up
link set internet1 arp off up
";

/// The wires carry real frames: no segments larger than the MTU, checksums filled in.
fn offloads(town: &Town) -> Result<()> {
    let ends = [
        ("gw", "wan1"),
        ("gw", "wan2"),
        ("ce", "line"),
        ("isp", "line"),
        ("wires", "carrier0"),
        ("wires", "carrier1"),
        ("wires", "internet0"),
        ("wires", "internet1"),
    ];
    for (node, interface) in ends {
        plain_frames(town.node(node)?, interface)?;
    }
    Ok(())
}

/// What the interface sends has checksums and is no larger than the MTU.
pub(crate) fn plain_frames(node: &Node, interface: &str) -> Result<()> {
    let mut command: Command = node.command("ethtool");
    let done = command
        .args(["-K", interface, "tso", "off", "gso", "off", "gro", "off", "tx", "off"])
        .output()
        .context("cannot run ethtool")?;
    if !done.status.success() {
        bail!("ethtool on {}/{interface}: {}", node.name(), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// Everything beyond the gateway's two lines.
fn upstream(town: &Town, topology: &Topology) -> Result<()> {
    let mut ce = "\
addr add 10.10.0.2/30 dev line
link set line up
addr add 10.40.0.1/30 dev core
link set core up
route add default via 10.40.0.2
route add 10.20.0.0/16 via 10.10.0.1
"
    .to_owned();
    let mut core = "\
addr add 10.40.0.2/30 dev ce
link set ce up
addr add 10.40.0.5/30 dev hall
link set hall up
route add default via 10.40.0.6
route add 10.20.0.0/16 via 10.40.0.1
route add 10.10.0.0/30 via 10.40.0.1
"
    .to_owned();
    let one_line = !topology.has_line("carrier");
    let mut hall = "\
addr add 10.50.0.53/32 dev lo
addr add 10.50.0.10/32 dev lo
addr add 10.50.0.80/32 dev lo
addr add 10.40.0.6/30 dev core
link set core up
addr add 198.51.100.10/24 dev inet
addr add 198.51.100.77/24 dev inet
link set inet up
addr add 10.40.0.10/30 dev hub
link set hub up
route add 10.60.1.0/24 via 10.40.0.9
route add default via 198.51.100.1
route add 10.10.0.0/30 via 10.40.0.5
"
    .to_owned();
    // Who has the school behind it.
    let school = if one_line { "10.40.0.9" } else { "10.40.0.5" };
    let _ = writeln!(hall, "route add 10.20.0.0/16 via {school}");
    let hub = format!(
        "addr add 198.19.0.2/30 dev inet\naddr add {HUB}/32 dev lo\nlink set inet up\n\
         route add default via 198.19.0.1 src {HUB}\n\
         addr add 10.40.0.9/30 dev hall\nlink set hall up\nroute add 10.50.0.0/16 via 10.40.0.10\n"
    );
    let mut isp = "\
addr add 192.0.2.1/30 dev line
link set line up
addr add 198.18.0.2/30 dev inet
link set inet up
route add default via 198.18.0.1
"
    .to_owned();
    let mut inet = "\
addr add 10.60.0.10/32 dev lo
addr add 198.51.100.1/24 dev hall
link set hall up
addr add 198.18.0.1/30 dev isp
link set isp up
route add 192.0.2.0/24 via 198.18.0.2
addr add 198.19.0.1/30 dev hub
link set hub up
"
    .to_owned();
    // The hub's addresses: its own, the one it may move to, and those that its users are seen from.
    for address in [HUB, HUB_MOVED, "198.51.100.11", "198.51.100.78"] {
        let _ = writeln!(inet, "route add {address}/32 via 198.19.0.2");
    }
    if one_line {
        inet += "route add 198.51.100.10/32 via 198.19.0.2\n";
    }
    for host in [7, 10, 11, 20, 21, 22, 30, 31, 53, 80] {
        let _ = writeln!(
            inet,
            "addr add 203.0.113.{host}/32 dev lo\naddr add 2001:db8:113::{host}/128 dev lo nodad"
        );
    }
    if topology.word("paths.direct.ipv6") == "nat66" {
        isp += "addr add 2001:db8:2::1/64 dev line nodad\naddr add 2001:db8:f::2/64 dev inet nodad\n\
                route add 2001:db8:113::/64 via 2001:db8:f::1\n";
        inet += "addr add 2001:db8:f::1/64 dev isp nodad\nroute add 2001:db8:2::/64 via 2001:db8:f::2\n";
    }
    if topology.word("paths.closed.ipv6") == "nat66" {
        ce += "addr add 2001:db8:1::1/64 dev line nodad\naddr add 2001:db8:d::1/64 dev core nodad\n\
               route add 2001:db8:113::/64 via 2001:db8:d::2\n";
        core += "addr add 2001:db8:d::2/64 dev ce nodad\naddr add 2001:db8:e::1/64 dev hall nodad\n\
                 route add 2001:db8:113::/64 via 2001:db8:e::2\nroute add 2001:db8:1::/64 via 2001:db8:d::1\n";
        hall += "addr add 2001:db8:e::2/64 dev core nodad\naddr add 2001:db8:10::2/64 dev inet nodad\n\
                 route add 2001:db8:113::/64 via 2001:db8:10::1\nroute add 2001:db8:1::/64 via 2001:db8:e::1\n";
        inet += "addr add 2001:db8:10::1/64 dev hall nodad\nroute add 2001:db8:1::/64 via 2001:db8:10::2\n";
    }
    for (name, lines) in
        [("ce", ce), ("core", core), ("hall", hall), ("hub", hub), ("isp", isp), ("inet", inet)]
    {
        town.node(name)?.ip(&lines)?;
    }
    if topology.word("cdn.learning") == "by-path" {
        cdn_edges(town)?;
    }
    egress(town, "carrier", Egress::Usual)?;
    egress(town, "internet", Egress::Usual)?;
    egress(town, "hub", Egress::Usual)
}

/// Where the tunnels' far end is reached, and where after it has moved.
pub(crate) const HUB: &str = "198.51.100.20";
pub(crate) const HUB_MOVED: &str = "198.51.100.21";

/// Which source address the world sees of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Egress {
    Usual,
    /// One that is registered nowhere.
    Foreign,
    /// The usual one, and for one flow in sixteen the foreign one.
    Pool,
}

/// Sets the NAT upstream of a line; applies to new flows.
pub(crate) fn egress(town: &Town, line: &str, egress: Egress) -> Result<()> {
    let flush = "table inet upstream\ndelete table inet upstream\n";
    let (node, rules) = match line {
        "carrier" => {
            let address = match egress {
                Egress::Usual => "198.51.100.10",
                Egress::Foreign => "198.51.100.77",
                Egress::Pool => "numgen random mod 16 map { 0-14 : 198.51.100.10, 15 : 198.51.100.77 }",
            };
            let from = "{ 10.20.0.0/16, 10.10.0.0/30, 10.40.0.0/16 }";
            ("hall", format!("oifname \"inet\" ip saddr {from} snat ip to {address}"))
        }
        "hub" => {
            let address = match egress {
                Egress::Foreign => "198.51.100.78",
                Egress::Pool => "numgen random mod 16 map { 0-14 : 198.51.100.11, 15 : 198.51.100.78 }",
                // Where the tunnel is the only closed path, it leaves by the town hall's address.
                Egress::Usual if town.one_line => "198.51.100.10",
                Egress::Usual => "198.51.100.11",
            };
            let from = "{ 10.20.0.0/16, 10.60.1.0/24 }";
            ("hub", format!("oifname \"inet\" ip saddr {from} snat ip to {address}"))
        }
        _ if egress == Egress::Usual => ("isp", String::new()),
        _ if egress == Egress::Pool => (
            "isp",
            "oifname \"inet\" ip saddr 192.0.2.2 snat ip to numgen random mod 16 map { 0-14 : 192.0.2.2, 15 : 192.0.2.77 }"
                .to_owned(),
        ),
        _ => (
            "isp",
            "oifname \"inet\" ip saddr 192.0.2.2 snat ip to 192.0.2.77\n\
             oifname \"inet\" ip6 saddr 2001:db8:2::2 snat ip6 to 2001:db8:2::77"
                .to_owned(),
        ),
    };
    town.node(node)?.nft(&format!(
        "{flush}table inet upstream {{\nchain post {{\ntype nat hook postrouting priority srcnat;\n{rules}\n}}\n}}\n"
    ))
}

/// The port on the provider's router where a captive portal answers TLS.
pub(crate) const PORTAL: u16 = 8443;

/// Whether the provider of the internet line answers all of the web itself.
pub(crate) fn portal(town: &Town, on: bool) -> Result<()> {
    let rules = if on {
        format!(
            "table inet portal {{\nchain pre {{\ntype nat hook prerouting priority dstnat;\n\
             iifname \"line\" meta nfproto ipv4 tcp dport 443 redirect to :{PORTAL}\n\
             iifname \"line\" meta nfproto ipv6 tcp dport 443 dnat ip6 to [2001:db8:2::1]:{PORTAL}\n}}\n}}\n"
        )
    } else {
        String::new()
    };
    town.node("isp")?.nft(&format!("table inet portal\ndelete table inet portal\n{rules}"))
}

/// The provider moves the internet line from 192.0.2.0/30 to 192.0.2.4/30, or back.
pub(crate) fn renumber(town: &Town, to_new: bool) -> Result<()> {
    let (old, new) = if to_new { ("192.0.2.1", "192.0.2.5") } else { ("192.0.2.5", "192.0.2.1") };
    town.node("isp")?.ip(&format!("addr del {old}/30 dev line\naddr add {new}/30 dev line\n"))
}

/// Each path has its own edge of the learning service's CDN, which serves only those who come by that path.
fn cdn_edges(town: &Town) -> Result<()> {
    town.node("inet")?.nft(
        "table inet cdn {\nchain input {\ntype filter hook input priority filter;\n\
         ip daddr 203.0.113.30 ip saddr != 198.51.100.0/24 drop\n\
         ip daddr 203.0.113.31 ip saddr != 192.0.2.0/24 drop\n}\n}\n",
    )
}

/// The zones' devices.
fn schools(town: &Town, topology: &Topology) -> Result<BTreeMap<&'static str, Vec<Device>>> {
    let mut all = BTreeMap::new();
    for (zone, number) in [("affairs", 1u8), ("learning", 2)] {
        let count = u8::try_from(topology.integer(&format!("zones.{zone}.clients")))?;
        let gateway = Ipv4Addr::new(10, 20, number, 1);
        let mut lines = "link set port up\n".to_owned();
        let mut devices = Vec::new();
        for i in 0..count {
            let v4 = Ipv4Addr::new(10, 20, number, 100 + i);
            let v6 = Ipv6Addr::new(0xfd20, 0, 0, number.into(), 0, 0, 0, 0x100 + u16::from(i));
            let metric = 100 + u32::from(i);
            let _ = write!(
                lines,
                "link add c{i} link port address 02:20:0{number}:00:00:{i:02x} type macvlan mode bridge\n\
                 addr add {v4}/24 dev c{i}\naddr add {v6}/64 dev c{i} nodad\nlink set c{i} up\n\
                 route add default via {gateway} dev c{i} metric {metric}\n\
                 route add default via fd20:0:0:{number}::1 dev c{i} metric {metric}\n"
            );
            devices.push(Device { interface: format!("c{i}"), v4, v6: Some(v6), gateway });
        }
        town.node(zone)?.ip(&lines)?;
        all.insert(zone, devices);
    }
    town.node("printers")?
        .ip("addr add 10.20.3.10/24 dev port\nlink set port up\nroute add default via 10.20.3.1\n")?;
    let printer = Device {
        interface: "port".into(),
        v4: Ipv4Addr::new(10, 20, 3, 10),
        v6: None,
        gateway: Ipv4Addr::new(10, 20, 3, 1),
    };
    all.insert("printers", vec![printer]);
    for zone in ["affairs", "learning", "printers"] {
        town.node(zone)?.nft(&format!(
            "table inet lab {{\nchain out {{\ntype filter hook output priority mangle;\n\
             meta nfproto ipv4 ip dscp set {CLIENT_DSCP}\nmeta nfproto ipv6 ip6 dscp set {CLIENT_DSCP}\n}}\n}}\n"
        ))?;
    }
    Ok(all)
}

/// The gateway as a plain router: `affairs` by the closed line, `learning` by the direct one.
pub(crate) const STATIC_GATEWAY: (&str, &str) = (
    "\
link set wan1 up
link set wan2 up
link set lan1 up
link set lan2 up
link set lan3 up
addr add 10.10.0.1/30 dev wan1
addr add 192.0.2.2/30 dev wan2
addr add 2001:db8:2::2/64 dev wan2 nodad
addr add 10.20.1.1/24 dev lan1
addr add fd20:0:0:1::1/64 dev lan1 nodad
addr add 10.20.2.1/24 dev lan2
addr add fd20:0:0:2::1/64 dev lan2 nodad
addr add 10.20.3.1/24 dev lan3
route add default via 10.10.0.2 table 101
route add default via 192.0.2.1 table 102
route add default via 192.0.2.1
rule add pref 100 lookup main suppress_prefixlength 0
rule add pref 200 iif lan1 lookup 101
rule add pref 200 iif lan2 lookup 102
route add default via 2001:db8:2::1
",
    "\
table inet static_gateway {
  chain pre { type nat hook prerouting priority dstnat;
    iifname \"lan1\" ip daddr 10.20.1.1 udp dport 53 dnat ip to 10.50.0.53
    iifname \"lan1\" ip daddr 10.20.1.1 tcp dport 53 dnat ip to 10.50.0.53
    iifname \"lan2\" ip daddr 10.20.2.1 udp dport 53 dnat ip to 203.0.113.53
    iifname \"lan2\" ip daddr 10.20.2.1 tcp dport 53 dnat ip to 203.0.113.53
  }
  chain forwarding { type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname \"lan1\" meta nfproto ipv6 reject
    iifname { \"lan1\", \"lan2\" } oifname { \"wan1\", \"wan2\" } accept
    iifname { \"lan1\", \"lan2\" } oifname \"lan3\" tcp dport { 631, 9100 } accept
  }
  chain post { type nat hook postrouting priority srcnat;
    oifname \"wan2\" masquerade
  }
}
",
);
