//! The hub's table.
//!
//! ```text
//!  pre ─ known flow? ──▶ keep_<way>: way into the packet's mark, done
//!   └─ from the tunnel ──▶ school4: a school's source? ─ no ─▶ dropped
//!                            ▼ yes
//!                          where4: DNS, the hub itself, a school (refused), the town, the internet
//!                            ▼
//!                          to_town, to_internet, to_hub: ct mark written
//!  to_servers ─ DNS to the town's servers
//!  between ─ a capped school's rate; (way, from, to) as planned; policy drop
//!  leaving ─ out_<way>: the school's registered address
//!  arriving ─ the tunnel's port, ping, those of [control]; policy drop
//! ```
//! The same with 6. One thing a school: an element of `from4_32`, `out4_32`, `cap4_32` and their like for other lengths.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use seimon_board::InterfaceName;
use seimon_plan::{Cap, HubPlan, HubSchool, Nat4, Protocol, SiteId};

use super::{TO_INTERNET, TO_TOWN, egress4, egress6, sources};
use crate::network_plan::{
    Hook, Key, KeyPart, KeyType, Mark, PathIndex, REFUSE, Ruleset, Value, ValueType, Verdict, goto,
};
use crate::segmentation::{Builder, write_ct, write_packet};

/// Interfaces by what they are for.
pub(super) struct Ground<'a> {
    pub(super) plan: &'a HubPlan,
    pub(super) tunnel: &'a InterfaceName,
    pub(super) outer: &'a InterfaceName,
    pub(super) town: &'a InterfaceName,
    pub(super) egress: Option<&'a InterfaceName>,
    pub(super) control: Option<&'a InterfaceName>,
    /// Of every line.
    pub(super) ports: BTreeSet<&'a InterfaceName>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ip {
    Four,
    Six,
}

impl Ip {
    const BOTH: [Self; 2] = [Self::Four, Self::Six];

    const fn digit(self) -> char {
        match self {
            Self::Four => '4',
            Self::Six => '6',
        }
    }

    /// nft's word.
    const fn word(self) -> &'static str {
        match self {
            Self::Four => "ip",
            Self::Six => "ip6",
        }
    }

    const fn key(self) -> KeyType {
        match self {
            Self::Four => KeyType::Ipv4,
            Self::Six => KeyType::Ipv6,
        }
    }

    const fn value(self) -> ValueType {
        match self {
            Self::Four => ValueType::Ipv4,
            Self::Six => ValueType::Ipv6,
        }
    }

    const fn whole(self) -> u8 {
        match self {
            Self::Four => 32,
            Self::Six => 128,
        }
    }

    const fn of(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::Four,
            IpNet::V6(_) => Self::Six,
        }
    }

    /// An address of the packet with all but the first bits taken away: `ip saddr & 255.255.0.0`.
    fn masked(self, which: &str, length: u8) -> String {
        let field = format!("{} {which}", self.word());
        if length == self.whole() {
            return field;
        }
        match self {
            Self::Four => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                format!("{field} & {}", Ipv4Addr::from(mask))
            }
            Self::Six => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                format!("{field} & {}", Ipv6Addr::from(mask))
            }
        }
    }
}

fn key(net: &IpNet) -> Key {
    Key(vec![match net {
        IpNet::V4(net) => KeyPart::Ipv4(net.network()),
        IpNet::V6(net) => KeyPart::Ipv6(net.network()),
    }])
}

/// Sources of schools by kind and length, with whose they are.
type ByLength<'a> = BTreeMap<u8, Vec<(IpNet, &'a SiteId, &'a HubSchool)>>;

/// Longest first. Those of single hosts are always there, so that the first school of a town makes no new rule.
fn lengths(ground: &Ground<'_>, ip: Ip) -> Vec<u8> {
    let mut lengths: Vec<u8> = by_length(ground, ip).into_keys().chain([ip.whole()]).collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths.reverse();
    lengths
}

fn by_length<'a>(ground: &Ground<'a>, ip: Ip) -> ByLength<'a> {
    let mut found: ByLength<'a> = BTreeMap::new();
    for (id, school) in &ground.plan.schools {
        for net in sources(school).filter(|net| Ip::of(net) == ip) {
            found.entry(net.prefix_len()).or_default().push((net, id, school));
        }
    }
    found
}

pub(super) fn ruleset(ground: &Ground<'_>) -> Ruleset {
    let mut builder = Builder::default();
    let b = &mut builder;
    entry(ground, b);
    for ip in Ip::BOTH {
        school(ground, b, ip);
        destination(ground, b, ip);
    }
    ways(b);
    refuse(b);
    to_servers(ground, b);
    between(ground, b);
    leaving(ground, b);
    arriving(ground, b);
    builder.finish()
}

fn entry(ground: &Ground<'_>, builder: &mut Builder) {
    let mut restore = BTreeMap::new();
    for (mark, chain) in [
        (u32::from(TO_TOWN.0), "keep_town"),
        (u32::from(TO_INTERNET.0), "keep_internet"),
        (Mark::LOCAL, "keep_hub"),
    ] {
        restore.insert(Key(vec![KeyPart::Mark(Mark(mark))]), goto(chain));
        builder.chain(chain).rule(write_packet(mark), "known flows keep their way");
    }
    builder.map("restore", &[KeyType::Mark], ValueType::Verdict, restore);
    builder
        .base("pre", "filter", Hook::Prerouting, -150)
        .rule(format!("ct mark & {:#x} vmap @restore", Mark::PATH_MASK), "known flows keep their way")
        .rule(format!("iifname \"{}\" goto from_school", ground.tunnel), "new flows begin at schools only");
    builder
        .chain("from_school")
        .rule("ct state invalid drop", "a packet of no flow")
        .rule("meta nfproto ipv4 goto school4", "whose it is")
        .rule("goto school6", "whose it is");
}

/// Whether the source is a school's. WireGuard has seen to it that it is the right one's.
fn school(ground: &Ground<'_>, builder: &mut Builder, ip: Ip) {
    let known = by_length(ground, ip);
    let digit = ip.digit();
    for length in lengths(ground, ip) {
        let nets = known.get(&length).into_iter().flatten().map(|(net, _, _)| key(net)).collect();
        builder.set(&format!("from{digit}_{length}"), &[ip.key()], nets);
        builder.chain(format!("school{digit}")).rule(
            format!("{} @from{digit}_{length} goto where{digit}", ip.masked("saddr", length)),
            "a school's own address",
        );
    }
    builder.chain(format!("school{digit}")).rule("drop", "nobody has this source");
}

fn hub_address(ground: &Ground<'_>, ip: Ip) -> Option<IpNet> {
    match ip {
        Ip::Four => Some(IpNet::V4(ground.plan.tunnel.ipv4)),
        Ip::Six => ground.plan.tunnel.ipv6.map(IpNet::V6),
    }
}

fn servers(ground: &Ground<'_>, ip: Ip) -> Vec<IpAddr> {
    let all = ground.plan.dns.iter().flat_map(|dns| dns.servers.iter().copied());
    all.filter(|server| server.is_ipv4() == (ip == Ip::Four)).collect()
}

fn destination(ground: &Ground<'_>, builder: &mut Builder, ip: Ip) {
    let (digit, word) = (ip.digit(), ip.word());
    let lengths = lengths(ground, ip);
    let mut chain = builder.chain(format!("where{digit}"));
    let Some(own) = hub_address(ground, ip) else {
        chain.rule(format!("goto {REFUSE}"), "there is no IPv6 in the tunnel");
        return;
    };
    if !servers(ground, ip).is_empty() {
        for protocol in ["udp", "tcp"] {
            let text = format!("{word} daddr {} {protocol} dport 53 goto to_town", own.addr());
            chain.rule(text, "dns: the town's servers");
        }
    }
    chain.rule("fib daddr type local goto to_hub", "the hub itself: ping, and nothing else");
    chain.rule(format!("{word} daddr {} goto {REFUSE}", own.trunc()), "schools do not reach each other");
    for length in lengths.into_iter().filter(|length| *length != ip.whole()) {
        let text = format!("{} @from{digit}_{length} goto {REFUSE}", ip.masked("daddr", length));
        chain.rule(text, "schools do not reach each other");
    }
    for net in ground.plan.town.prefixes.iter().filter(|net| Ip::of(net) == ip) {
        chain.rule(format!("{word} daddr {} goto to_town", net.trunc()), "town.prefixes");
    }
    if has_egress(ground, ip) {
        chain.rule("goto to_internet", "egress");
    } else {
        chain.rule(format!("goto {REFUSE}"), "there is no way to the internet through the hub");
    }
}

fn has_egress(ground: &Ground<'_>, ip: Ip) -> bool {
    ground.plan.egress.as_ref().is_some_and(|egress| match ip {
        Ip::Four => !egress.ipv4.is_empty(),
        Ip::Six => !egress.ipv6.is_empty(),
    })
}

fn ways(builder: &mut Builder) {
    for (chain, mark, because) in [
        ("to_town", TO_TOWN.mark().0, "to the town"),
        ("to_internet", TO_INTERNET.mark().0, "to the internet"),
        ("to_hub", Mark::LOCAL, "to the hub itself"),
    ] {
        builder.chain(chain).rule(write_ct(Mark(mark)), because).rule(write_packet(mark), because);
    }
}

fn refuse(builder: &mut Builder) {
    let because = "not permitted: refused at once";
    builder
        .chain(REFUSE)
        .rule("meta pkttype != host drop", "nobody answers to broadcasts")
        .rule("meta l4proto tcp reject with tcp reset", because)
        .rule("reject with icmpx admin-prohibited", because);
}

fn to_servers(ground: &Ground<'_>, builder: &mut Builder) {
    let mut entrance = builder.base("to_servers", "nat", Hook::Prerouting, -100);
    let town = TO_TOWN.mark().0;
    for ip in Ip::BOTH {
        let (servers, word) = (servers(ground, ip), ip.word());
        let Some(own) = hub_address(ground, ip) else { continue };
        let to = match servers.as_slice() {
            [] => continue,
            [only] => only.to_string(),
            several => {
                let mut text = format!("numgen inc mod {} map {{ ", several.len());
                for (i, server) in several.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    let _ = write!(text, "{comma}{i} : {server}");
                }
                text + " }"
            }
        };
        entrance.rule(
            format!(
                "{word} daddr {} ct mark & {:#x} == {town:#x} dnat {word} to {to}",
                own.addr(),
                Mark::PATH_MASK
            ),
            "dns: the town's servers, in turns",
        );
    }
}

fn between(ground: &Ground<'_>, builder: &mut Builder) {
    let mut carry = BTreeSet::new();
    let mut add = |way: PathIndex, to: &InterfaceName| {
        let (from, to) = (KeyPart::Ifname(ground.tunnel.clone()), KeyPart::Ifname(to.clone()));
        carry.insert(Key(vec![KeyPart::Mark(way.mark()), from, to]));
    };
    add(TO_TOWN, ground.town);
    if let Some(egress) = ground.egress {
        add(TO_INTERNET, egress);
    }
    builder.set("carry", &[KeyType::Mark, KeyType::Ifname, KeyType::Ifname], carry);
    let mut texts = Vec::new();
    for ip in Ip::BOTH {
        texts.extend(caps(ground, builder, ip));
    }
    let mut chain = builder.closed_base("between", Hook::Forward, 0);
    for text in texts {
        chain.rule(text, "a school with a cap");
    }
    let mask = Mark::PATH_MASK;
    chain
        .rule(format!("ct mark & {mask:#x} . iifname . oifname @carry accept"), "from a school, as planned")
        // Answers, and errors about a flow, travel its own way only.
        .rule(
            format!("ct state established,related ct mark & {mask:#x} . oifname . iifname @carry accept"),
            "answers to schools",
        );
}

/// The rules that look for a capped school, where there is any; both ways, also of flows under way.
fn caps(ground: &Ground<'_>, builder: &mut Builder, ip: Ip) -> Vec<String> {
    let mut rules = Vec::new();
    for (length, known) in by_length(ground, ip).into_iter().rev() {
        let mut elements = BTreeMap::new();
        for (net, _, school) in &known {
            let Some(cap) = school.cap else { continue };
            let chain = cap_chain(school);
            elements.insert(key(net), Value::Verdict(Verdict::Jump(chain.clone())));
            limit(ground, builder, &chain, cap);
        }
        if elements.is_empty() {
            continue;
        }
        let map = format!("cap{}_{length}", ip.digit());
        builder.map(&map, &[ip.key()], ValueType::Verdict, elements);
        for (direction, which) in [("iifname", "saddr"), ("oifname", "daddr")] {
            rules.push(format!("{direction} \"{}\" {} vmap @{map}", ground.tunnel, ip.masked(which, length)));
        }
    }
    rules
}

/// Named after its address, which no other school has.
fn cap_chain(school: &HubSchool) -> String {
    format!("cap_{:08x}", u32::from(school.ipv4))
}

/// nft's bucket holds a second's worth, and the burst: this much may pass at once.
const BURST: u32 = 15_000;

fn limit(ground: &Ground<'_>, builder: &mut Builder, chain: &str, cap: Cap) {
    let mut chain = builder.chain(chain);
    if !chain.is_empty() {
        return;
    }
    let bytes = u64::from(cap.kbit) * 125;
    for direction in ["iifname", "oifname"] {
        chain.rule(
            format!(
                "{direction} \"{}\" limit rate over {bytes} bytes/second burst {BURST} bytes drop",
                ground.tunnel
            ),
            format!("cap: {} kbit/s each way", cap.kbit),
        );
    }
}

fn leaving(ground: &Ground<'_>, builder: &mut Builder) {
    let mut ways = BTreeMap::new();
    let mut way = |index: PathIndex, chain: &str| {
        ways.insert(Key(vec![KeyPart::Mark(index.mark())]), goto(chain));
    };
    if ground.plan.town.nat4 == Nat4::Masquerade {
        way(TO_TOWN, "out_town");
        builder.chain("out_town").rule("meta nfproto ipv4 masquerade", "town.nat4: masquerade");
    }
    if ground.egress.is_some() {
        way(TO_INTERNET, "out_internet");
        for ip in Ip::BOTH.into_iter().filter(|ip| has_egress(ground, *ip)) {
            egress(ground, builder, ip);
        }
        builder.chain("out_internet").rule("drop", "nobody leaves under an address that is not registered");
    }
    builder.map("ways", &[KeyType::Mark], ValueType::Verdict, ways);
    builder
        .base("leaving", "nat", Hook::Postrouting, 100)
        .rule(format!("ct mark & {:#x} vmap @ways", Mark::PATH_MASK), "sources as the far side wants them");
}

fn egress(ground: &Ground<'_>, builder: &mut Builder, ip: Ip) {
    let known = by_length(ground, ip);
    for length in lengths(ground, ip) {
        let mut elements = BTreeMap::new();
        for (net, id, school) in known.get(&length).into_iter().flatten() {
            let address = match ip {
                Ip::Four => egress4(ground.plan, id, school).map(Value::Ipv4),
                Ip::Six => egress6(ground.plan, id).map(Value::Ipv6),
            };
            elements.extend(address.map(|address| (key(net), address)));
        }
        let (digit, word) = (ip.digit(), ip.word());
        let map = format!("out{digit}_{length}");
        builder.map(&map, &[ip.key()], ip.value(), elements);
        let text = format!("snat {word} to {} map @{map}", ip.masked("saddr", length));
        builder.chain("out_internet").rule(text, "the school's registered address");
    }
}

fn arriving(ground: &Ground<'_>, builder: &mut Builder) {
    let discovery = "ct state untracked meta l4proto ipv6-icmp accept";
    let mut from = BTreeMap::new();
    from.insert(Key(vec![KeyPart::Ifname(ground.tunnel.clone())]), goto("from_tunnel"));
    for port in &ground.ports {
        from.insert(Key(vec![KeyPart::Ifname((*port).clone())]), goto(format!("at_{}", slot(ground, port))));
    }
    builder.map("arrivals", &[KeyType::Ifname], ValueType::Verdict, from);
    builder
        .closed_base("arriving", Hook::Input, 0)
        .rule("iifname \"lo\" accept", "inside the hub")
        .rule("ct state established,related accept", "answers to the hub; errors about its flows")
        .rule("iifname vmap @arrivals", "by where it comes from; nothing else is let in");
    for port in &ground.ports {
        let mut chain = builder.chain(format!("at_{}", slot(ground, port)));
        if *port == ground.outer {
            let listen = ground.plan.tunnel.listen_port;
            chain.rule(format!("udp dport {listen} accept"), "the schools' tunnels");
        }
        if let (Some(control), true) = (&ground.plan.control, ground.control == Some(*port)) {
            for net in &control.from {
                let word = Ip::of(net).word();
                for port in &control.ports {
                    let protocol = match port.protocol {
                        Protocol::Tcp => "tcp",
                        Protocol::Udp => "udp",
                    };
                    let ports = match (port.first, port.last) {
                        (first, last) if first == last => first.to_string(),
                        (first, last) => format!("{first}-{last}"),
                    };
                    let text = format!("{word} saddr {} {protocol} dport {ports} accept", net.trunc());
                    chain.rule(text, "control");
                }
            }
        }
        chain.rule("goto from_line", "a line");
    }
    builder
        .chain("from_line")
        .rule(discovery, "neighbour and router discovery")
        .rule("icmp type echo-request limit rate 50/second accept", "ping from outside, bounded")
        .rule("icmpv6 type echo-request limit rate 50/second accept", "ping from outside, bounded")
        .rule("drop", "nothing else of the hub is for the lines");
    builder
        .chain("from_tunnel")
        .rule("icmp type echo-request limit rate 1000/second accept", "ping from schools, bounded")
        .rule("icmpv6 type echo-request limit rate 1000/second accept", "ping from schools, bounded")
        .rule("drop", "nothing else of the hub is for the schools");
}

/// A line's interface as part of a chain's name.
fn slot(ground: &Ground<'_>, port: &InterfaceName) -> usize {
    ground.ports.iter().position(|other| *other == port).unwrap_or(ground.ports.len())
}
