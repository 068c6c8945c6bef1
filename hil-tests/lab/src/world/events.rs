//! What can happen in a town: the table that `[[event]] do = …` is checked against and that the vocabulary prints.

use crate::load::spec::Key;

/// One kind of event.
#[derive(Clone, Copy, Debug)]
pub struct EventInfo {
    pub name: &'static str,
    /// Allowed values of `target`; empty: the event takes none.
    pub targets: &'static [&'static str],
    /// Keys besides `at`, `after`, `plus`, `do`, `target`, `for`.
    pub keys: &'static [Key],
    /// Whether `for` may be given: the world undoes it afterwards.
    pub undone: bool,
    pub meaning: &'static str,
}

const fn key(key: &'static str, ty: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { key, ty, default, meaning }
}

const LINES: &[&str] = &["carrier", "internet", "lte"];
const SITES: &[&str] = &["affairs", "idp", "learning"];
const DNS: &[&str] = &["closed", "direct"];
/// Where somebody translates addresses before the world sees them.
const EGRESSES: &[&str] = &["carrier", "internet", "hub"];

/// Events that need the gateway's state on a disk of its own, or its wall clock to be one that can be moved.
pub(crate) const OF_THE_DISK: &[&str] = &["gateway.power-cut", "gateway.disk-full"];
pub(crate) const OF_THE_CLOCK: &[&str] = &["clock.set", "clock.jump"];

/// Every event that [`super::World::perform`] knows.
pub const EVENTS: &[EventInfo] = &[
    EventInfo {
        name: "line.cut",
        targets: LINES,
        keys: &[],
        undone: true,
        meaning: "the cable is pulled: no carrier at the gateway's port",
    },
    EventInfo {
        name: "line.blackhole",
        targets: LINES,
        keys: &[key("direction", "both | up | down", "both", "up = from the gateway")],
        undone: true,
        meaning: "packets vanish, the carrier stays",
    },
    EventInfo {
        name: "line.set",
        targets: LINES,
        keys: &[
            key("mtu", "bytes", "as it was", "largest IP packet"),
            key("pmtu", "icmp | silent", "as it was", "what happens to larger ones"),
            key("delay_ms", "ms", "as it was", "one-way delay"),
            key("jitter_ms", "ms", "as it was", "extra delay, order kept"),
            key("loss", "share", "as it was", "independent loss"),
            key("burst_loss", "share", "as it was", "loss in bursts"),
            key("reorder", "share", "as it was", "share that waits 5 ms longer"),
            key("duplicate", "share", "as it was", "share that arrives twice"),
            key("rate", "bits/s", "as it was", "0 = unlimited"),
            key(
                "lose_every",
                "integer",
                "as it was",
                "2 = every other packet from the gateway is lost; 0 = none",
            ),
        ],
        undone: true,
        meaning: "the line's quality changes; mtu with pmtu = silent: packets of more bytes are lost",
    },
    EventInfo {
        name: "line.ipv6-dead",
        targets: LINES,
        keys: &[],
        undone: true,
        meaning: "IPv6 goes no further than the line's next router, IPv4 works",
    },
    EventInfo {
        name: "line.users-lost",
        targets: LINES,
        keys: &[],
        undone: true,
        meaning: "the line loses what clients send; everything of the gateway's own passes, its checks included",
    },
    EventInfo {
        name: "line.portal",
        targets: &["internet"],
        keys: &[],
        undone: true,
        meaning: "captive portal: the provider answers all https itself, 200 and a page of its own, with a certificate \
                  of its own; echoes and names work",
    },
    EventInfo {
        name: "line.renumber",
        targets: &["internet"],
        keys: &[],
        undone: true,
        meaning: "the provider gives the line 192.0.2.4/30 (next router 192.0.2.5); the addresses before lead nowhere",
    },
    EventInfo {
        name: "service.ill",
        targets: SITES,
        keys: &[
            key("how", "500 | wrong-body | no-answer | stall | bad-certificate", "500", "its illness"),
            key("egress", "any | closed | vpn | direct", "any", "ill only for clients who come from there"),
        ],
        undone: true,
        meaning: "a service answers badly; stall = answers above 64 kB stop half way",
    },
    EventInfo {
        name: "service.register",
        targets: &["affairs"],
        keys: &[key(
            "egress",
            "all | both | closed | vpn | direct | none",
            "all",
            "whose addresses it admits",
        )],
        undone: true,
        meaning: "the SaaS changes whom it admits",
    },
    EventInfo {
        name: "egress.change",
        targets: EGRESSES,
        keys: &[],
        undone: true,
        meaning: "the line's egress address changes to one that is registered nowhere (NAT upstream)",
    },
    EventInfo {
        name: "egress.pool",
        targets: LINES,
        keys: &[],
        undone: true,
        meaning: "NAT upstream has a pool: most flows leave by the usual egress address, one in sixteen by one that is \
                  registered nowhere",
    },
    EventInfo {
        name: "dns.other-site",
        targets: DNS,
        keys: &[key("name", "text", "affairs.school.example", "the name that is answered wrongly")],
        undone: true,
        meaning: "a path's DNS server gives a name the address of another site, which answers there",
    },
    EventInfo {
        name: "dns.fault",
        targets: DNS,
        keys: &[key(
            "how",
            "servfail | nxdomain | silence | nonsense | truncated | wrong-id",
            "silence",
            "truncated = over UDP only, TCP answers",
        )],
        undone: true,
        meaning: "a path's DNS server misbehaves",
    },
    EventInfo {
        name: "dns.affairs",
        targets: &["closed"],
        keys: &[key("answer", "private | public", "public", "address of affairs.school.example")],
        undone: true,
        meaning: "the closed network's DNS answers another address",
    },
    EventInfo {
        name: "echo.fault",
        targets: &[],
        keys: &[],
        undone: true,
        meaning: "the echo service answers nothing",
    },
    EventInfo {
        name: "hub.silence",
        targets: &[],
        keys: &[],
        undone: true,
        meaning: "the tunnels' far end hears nothing any more, and nobody is told",
    },
    EventInfo {
        name: "hub.kill",
        targets: &[],
        keys: &[],
        undone: true,
        meaning: "kill -9 of the tunnel's process at the far end: sessions are lost; undone = it is started again",
    },
    EventInfo {
        name: "hub.move",
        targets: &[],
        keys: &[key(
            "session",
            "kept | lost",
            "kept",
            "lost = another machine with the same key takes over: nothing that it says is understood before a handshake",
        )],
        undone: false,
        meaning: "the hub's address becomes 198.51.100.21, and hub.town.example with it",
    },
    EventInfo {
        name: "gateway.flush",
        targets: &["nft", "rules"],
        keys: &[],
        undone: false,
        meaning: "somebody else flushes all nftables tables, or all policy routing rules, on the gateway",
    },
    EventInfo {
        name: "gateway.kill",
        targets: &["agent", "resolver", "probe", "tunnel"],
        keys: &[],
        undone: false,
        meaning: "kill -9 of a process of the gateway",
    },
    EventInfo {
        name: "gateway.terminate",
        targets: &[],
        keys: &[],
        undone: false,
        meaning: "the agent is asked to stop (SIGTERM) and waited for",
    },
    EventInfo {
        name: "gateway.start",
        targets: &[],
        keys: &[],
        undone: false,
        meaning: "the agent is started (again) with the same plan and state",
    },
    EventInfo {
        name: "gateway.restart",
        targets: &[],
        keys: &[],
        undone: false,
        meaning: "kill -9 of the agent and its helpers, then start at once",
    },
    EventInfo {
        name: "gateway.upgrade",
        targets: &[],
        keys: &[key("journal", "older | newer", "older", "as which version would have written it")],
        undone: false,
        meaning: "the agent is stopped (SIGTERM), its journal becomes what another version would have left, and it is started",
    },
    EventInfo {
        name: "gateway.power-cut",
        targets: &[],
        keys: &[],
        undone: true,
        meaning: "the gateway's power goes: what was not synced is gone, and all that the kernel knew; with `for` it comes back",
    },
    EventInfo {
        name: "gateway.disk-full",
        targets: &[],
        keys: &[],
        undone: true,
        meaning: "there is no room left on the disk of the agent's state",
    },
    EventInfo {
        name: "clock.set",
        targets: &[],
        keys: &[key("to", "text", "required", "2028-09-02T05:59, in Japan")],
        undone: true,
        meaning: "the agent's wall clock is set (and still counts as synchronised)",
    },
    EventInfo {
        name: "clock.jump",
        targets: &[],
        keys: &[key("by", "text", "required", "2h, -400d")],
        undone: true,
        meaning: "the agent's wall clock jumps (and still counts as synchronised)",
    },
];
