//! A gateway between a client and a server, joined by plain veth pairs: either ours, as compiled from a site plan, or the
//! bare one (the limit), or the same policy as linear rules. Everything else is the same for all.
//!
//! ```text
//!   client ──lan2 (learning, open)── gw ──wan2── server   203.0.113.80
//!          ──lan1 (affairs, listed)─┘            and 198.18.0.0/15 behind it
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result};
use seimon_board::Board;
use seimon_core::bench_support::{linear, plan_text};
use seimon_core::network_plan::{
    Allocation, ChangeSet, Dataplane, Element, Generation, Key, KeyPart, Mark, NetworkPlan, PathChoice,
    Value, compile, diff,
};
use seimon_dataplane::Linux;
use seimon_plan::{PathId, ValidSitePlan};

use super::frames::TRAFFIC_CLASS;
use crate::nodes::{Node, enter};

/// Where the open zone's traffic goes.
pub(super) const OPEN: &str = "203.0.113.80";
/// The destination of the last permit, of whatever plan.
pub(super) const LISTED: &str = "198.18.255.254";
pub(super) const PORT: u16 = 7000;

pub(super) struct Gate {
    client: Node,
    gw: Node,
    server: Node,
}

/// What the gateway between them is.
pub(super) enum Rules<'a> {
    Ours(&'a NetworkPlan),
    /// One script for nft.
    Script(&'a str),
}

impl Gate {
    /// `name` keeps the gates of one bench apart.
    pub(super) fn raise(name: &str, rules: &Rules<'_>) -> Result<Self> {
        let client = Node::raise(&format!("{name}-cl"))?;
        let gw = Node::raise(&format!("{name}-gw"))?;
        let server = Node::raise(&format!("{name}-srv"))?;
        for (port, peer, node) in [
            ("wan1", "w1", &server),
            ("wan2", "w2", &server),
            ("lan1", "e1", &client),
            ("lan2", "e2", &client),
            ("lan3", "e3", &client),
        ] {
            gw.ip(&format!("link add {port} type veth peer name {peer} netns {}", node.name()))?;
            gw.ip(&format!("link set {port} up"))?;
            node.ip(&format!("link set {peer} up"))?;
        }
        server.ip(
            "address add 10.10.0.2/30 dev w1\naddress add 192.0.2.1/30 dev w2\naddress add 203.0.113.80/32 dev lo\n\
             route add local 198.18.0.0/15 dev lo",
        )?;
        client.ip("address add 10.20.1.100/24 dev e1\naddress add 10.20.2.100/24 dev e2\n\
             route add 203.0.113.80/32 via 10.20.2.1\nroute add 198.18.0.0/15 via 10.20.1.1")?;
        // What the generator sends ends where it arrives, at the price of one rule.
        sink(&server, &["w1", "w2"])?;
        sink(&client, &["e1", "e2", "e3"])?;
        match rules {
            Rules::Ours(plan) => apply(gw.name(), plan)?,
            Rules::Script(script) => plain_gateway(&gw, script)?,
        }
        // A closed connection must not stay in the table for longer than the next measurement takes.
        gw.sysctl(&[
            ("netfilter/nf_conntrack_tcp_timeout_close", "1"),
            ("netfilter/nf_conntrack_tcp_timeout_time_wait", "1"),
            ("netfilter/nf_conntrack_tcp_timeout_syn_sent", "5"),
        ])?;
        Ok(Self { client, gw, server })
    }

    pub(super) fn gateway(&self) -> &Node {
        &self.gw
    }

    pub(super) fn client(&self) -> &Node {
        &self.client
    }

    pub(super) fn server(&self) -> &Node {
        &self.server
    }
}

/// Drops the generator's frames (known by their traffic class) as soon as they have been counted.
fn sink(node: &Node, interfaces: &[&str]) -> Result<()> {
    let class = TRAFFIC_CLASS >> 2;
    let chains: String = interfaces
        .iter()
        .map(|name| {
            format!(
                "chain {name} {{\ntype filter hook ingress device \"{name}\" priority 0\nip dscp {class} drop\n}}\n"
            )
        })
        .collect();
    node.nft(&format!("table netdev sink {{\n{chains}}}\n"))
}

/// Brings a network plan into force in a namespace, as the agent does.
fn apply(namespace: &str, plan: &NetworkPlan) -> Result<()> {
    let (namespace, plan) = (namespace.to_owned(), plan.clone());
    let thread = std::thread::spawn(move || -> Result<()> {
        enter(&namespace)?;
        let mut kernel = Linux::open()?;
        let keys: Vec<String> = plan.sysctls.iter().map(|s| s.path.clone()).collect();
        let observed = kernel.observe(&keys)?;
        kernel.apply(&diff(&observed, None, &plan))?;
        Ok(())
    });
    thread.join().map_err(|_| anyhow::anyhow!("the applying thread died"))?
}

/// The same bridges, addresses and conntrack settings as ours, with plain routing.
fn plain_gateway(gw: &Node, script: &str) -> Result<()> {
    gw.ip(
        "link add z-affairs type bridge\nlink add z-learning type bridge\nlink set lan1 master z-affairs\n\
         link set lan2 master z-learning\nlink set z-affairs up\nlink set z-learning up\n\
         address add 10.20.1.1/24 dev z-affairs\naddress add 10.20.2.1/24 dev z-learning\n\
         address add 10.10.0.1/30 dev wan1\naddress add 192.0.2.2/30 dev wan2\nroute add default via 192.0.2.1",
    )?;
    gw.nft(script)?;
    gw.sysctl(&[("netfilter/nf_conntrack_acct", "1"), ("ipv4/ip_forward", "1")])
}

/// Conntrack, NAT both ways as ours has it (destinations by a map, sources masqueraded), and nothing else.
pub(super) const BARE: &str = "table inet bare {
  map real { type ipv4_addr : ipv4_addr; elements = { 100.127.0.1 : 203.0.113.80 }; }
  chain to_real { type nat hook prerouting priority dstnat; dnat ip to ip daddr map @real; }
  chain forward { type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname { \"z-affairs\", \"z-learning\" } accept
  }
  chain post { type nat hook postrouting priority srcnat; oifname { \"wan1\", \"wan2\" } masquerade; }
}";

/// A plan of this many permits by name, every name with its real address, and the same policy as linear rules; and the
/// inside address of the last permit.
pub(super) fn walked(permits: usize) -> Result<(NetworkPlan, NetworkPlan, Ipv4Addr)> {
    let board = Board::shipped("lab-namespace").context("the lab's board is not shipped")?;
    let plan = seimon_plan::parse(&plan_text(permits), "bench.toml", &board)
        .map_err(|errors| anyhow::anyhow!("the bench's plan is not valid: {errors}"))?;
    let mut ours = compiled(&plan)?;
    let inside: Vec<Ipv4Addr> = ours
        .ruleset
        .maps
        .get("permit4")
        .into_iter()
        .flat_map(|map| map.elements.keys())
        .filter_map(|key| match key.0.as_slice() {
            [_, KeyPart::Ipv4(to), _, KeyPart::Port(443)] => Some(*to),
            _ => None,
        })
        .collect();
    let last = inside.iter().copied().max().context("the plan permits nothing")?;
    let real = ours.ruleset.maps.get_mut("real4").context("the plan has no map of real addresses")?;
    let to: Ipv4Addr = OPEN.parse()?;
    for address in inside {
        real.elements.insert(Key(vec![KeyPart::Mark(Mark(2)), KeyPart::Ipv4(address)]), Value::Ipv4(to));
    }
    let mut walked = ours.clone();
    walked.ruleset = linear(&ours.ruleset);
    Ok((ours, walked, last))
}

/// Destination of the n-th permit; the last is [`LISTED`].
fn destination(number: usize, permits: usize) -> String {
    if number == permits {
        LISTED.to_owned()
    } else {
        format!("198.18.{}.{}", number / 250, number % 250 + 1)
    }
}

/// A plan with this many permitted destinations in the affairs zone, all on the direct path.
pub(super) fn plan(permits: usize) -> Result<NetworkPlan> {
    let text = std::fs::read_to_string(
        crate::runner::repository().join("provisioning/plan/examples/two-line-town.toml"),
    )?;
    let mut document: toml::Table = text.parse()?;
    // Ten destinations a permit: a plan's text is limited in size, and each destination is looked up by itself.
    let per = if permits > 1000 { 10 } else { 1 };
    let mut services = String::new();
    let mut rules = String::new();
    let numbers: Vec<usize> = (1..=permits).collect();
    for (index, chunk) in numbers.chunks(per).enumerate() {
        let prefixes: Vec<String> =
            chunk.iter().map(|n| format!("\"{}/32\"", destination(*n, permits))).collect();
        services.push_str(&format!(
            "[services.b{index}]\ngroup=\"affairs\"\nprefixes=[{}]\nports=[\"tcp/{PORT}\"]\n",
            prefixes.join(",")
        ));
        rules.push_str(&format!(
            "[[permits]]\nfrom=\"affairs\"\nto=\"service:b{index}\"\nwho=\"b\"\nwhy=\"b\"\nuntil=\"2099-12-31\"\n"
        ));
    }
    let more: toml::Table = format!("{services}{rules}").parse()?;
    for (key, value) in more {
        match (document.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => old.extend(new),
            (Some(toml::Value::Array(old)), toml::Value::Array(new)) => old.extend(new),
            (_, value) => {
                document.insert(key, value);
            }
        }
    }
    let board = Board::shipped("lab-namespace").context("the lab's board is not shipped")?;
    let plan = seimon_plan::parse(&toml::to_string(&document)?, "bench.toml", &board)
        .map_err(|errors| anyhow::anyhow!("the bench's plan is not valid: {errors}"))?;
    compiled(&plan)
}

fn compiled(plan: &ValidSitePlan) -> Result<NetworkPlan> {
    let allocation = Allocation::default().extend(plan)?;
    let direct = PathChoice::On(PathId::new("direct")?);
    let choice: BTreeMap<_, _> =
        plan.routes().iter().map(|r| ((r.zone.clone(), r.group.clone()), direct.clone())).collect();
    let mut network = compile(plan, &allocation, &choice, None, Generation(1))?;
    // What is measured here is the rules. (What leaves them: `seimon-guest bench`.)
    network.ruleset = network.ruleset.without_flowtable();
    Ok(network)
}

/// How long one group's move takes until the kernel has it, in microseconds: the median of many there and back.
pub(super) fn move_time(gate: &Gate, there: &Element, back: &Element, moves: usize) -> Result<f64> {
    let namespace = gate.gateway().name().to_owned();
    let changes = [there, back].map(|element| ChangeSet {
        changes: vec![seimon_core::network_plan::Change::Elements {
            remove: vec![Element { value: None, ..element.clone() }],
            add: vec![element.clone()],
        }],
    });
    let thread = std::thread::spawn(move || -> Result<f64> {
        enter(&namespace)?;
        let mut kernel = Linux::open()?;
        let mut times = Vec::with_capacity(moves);
        for number in 0..moves {
            let begin = Instant::now();
            kernel.apply(&changes[number % 2])?;
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        super::median(&times).context("no moves")
    });
    thread.join().map_err(|_| anyhow::anyhow!("the moving thread died"))?
}

/// Puts many elements into a set of the gateway's, in batches.
pub(super) fn fill(gate: &Gate, elements: Vec<Element>) -> Result<()> {
    let namespace = gate.gateway().name().to_owned();
    let thread = std::thread::spawn(move || -> Result<()> {
        enter(&namespace)?;
        let mut kernel = Linux::open()?;
        for batch in elements.chunks(500) {
            kernel.apply(&ChangeSet {
                changes: vec![seimon_core::network_plan::Change::Elements {
                    remove: Vec::new(),
                    add: batch.to_vec(),
                }],
            })?;
        }
        Ok(())
    });
    thread.join().map_err(|_| anyhow::anyhow!("the filling thread died"))?
}
