//! How long a packet of a flow under way takes through the gateway, with and without a flowtable, under our table and under
//! the least that does the same (conntrack, both translations, one rule). Run by `seimon-guest bench` in a guest whose clock
//! counts instructions; the packets are made by the kernel (pktgen) and dropped as they arrive.
//!
//! Prints `arm NAME NANOSECONDS` for each run. What packets cost outside the gateway is in every arm alike: look at differences.

#![expect(clippy::print_stdout, reason = "what it prints is its result")]
#![allow(unreachable_pub, unused_imports, dead_code, reason = "shares its world with the tests")]

#[path = "../tests/segmentation/matrix.rs"]
mod matrix;
#[path = "../tests/segmentation/probing.rs"]
mod probing;
#[path = "../tests/segmentation/schools.rs"]
mod schools;
#[path = "../tests/segmentation/world.rs"]
mod world;

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use seimon_core::network_plan::{Change, ChangeSet, Dataplane as _, Ruleset, diff, render_replacement};

use world::{FAR, World, inside, sh};

const PACKETS: u32 = 4_000;
const FIRST: u32 = 300;
const PORT: u16 = 7000;
const ARMS: [&str; 4] = ["ours-slow", "ours-fast", "bare-fast", "bare-slow"];

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).context("how many rounds?")?.parse()?;
    let mut world = World::raise(schools::six_zones()?)?;
    sh(
        "internet",
        &format!(
            "nft 'table netdev sink {{ chain in {{ type filter hook ingress device \"eth0\" priority 0; udp dport {PORT} udp sport >= 20000 jump gone; }}; chain gone {{ }}; }}'"
        ),
    )?;
    let mut source = 20_000;
    for round in 0..rounds {
        let mut arms = ARMS;
        if round % 2 == 1 {
            arms.reverse();
        }
        for arm in arms {
            source += 1;
            set_up(&mut world, arm)?;
            begin(source)?;
            sh("internet", "nft add rule netdev sink gone drop")?;
            send(source, FIRST)?;
            let took = send(source, PACKETS)?;
            sh("internet", "nft flush chain netdev sink gone")?;
            println!("arm {arm} {:.1}", took * 1e3 / f64::from(PACKETS));
        }
    }
    Ok(())
}

fn set_up(world: &mut World, arm: &str) -> Result<()> {
    let script = match arm {
        "ours-fast" => render_replacement(&world.net.ruleset),
        "ours-slow" => render_replacement(&world.net.ruleset.clone().without_flowtable()),
        "bare-fast" => bare(world, "ct state established flow add @fast")?,
        _ => bare(world, "")?,
    };
    sh("gw", "nft flush ruleset")?;
    world.apply(Change::Nft { script })?;
    if arm == "ours-fast" {
        let more = diff(&world.linux.observe(&[])?, None, &world.net);
        world.linux.apply(&ChangeSet { changes: more.changes })?;
    }
    Ok(())
}

/// Routes are by mark as ever.
fn bare(world: &World, offload: &str) -> Result<String> {
    let path = world.net.allocation.paths.get(&world::path("direct")).context("the path")?;
    let (table, mark) = (Ruleset::TABLE, path.0);
    let flowtable = if offload.is_empty() {
        ""
    } else {
        "flowtable fast { hook ingress priority 0; devices = { \"z-guest\", \"wan2\" }; counter; }"
    };
    Ok(format!(
        "table inet {table} {{
            {flowtable}
            chain pre {{ type filter hook prerouting priority mangle; meta mark set {mark}; }}
            chain forward {{ type filter hook forward priority filter; policy drop; {offload}
                ct state established,related accept
                iifname \"z-guest\" accept
            }}
            chain post {{ type nat hook postrouting priority srcnat; oifname \"wan2\" masquerade; }}
        }}\n"
    ))
}

/// A flow that has been answered.
fn begin(source: u16) -> Result<()> {
    inside("guest", || {
        let socket = UdpSocket::bind(("0.0.0.0", source))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        for _ in 0..3 {
            socket.send_to(b"who", (FAR, PORT))?;
            let length = socket.recv(&mut [0; 128]).context("no answer")?;
            ensure!(length > 0);
        }
        Ok(())
    })
}

/// Microseconds that the packets took.
fn send(source: u16, count: u32) -> Result<f64> {
    let mac = world::mac_of("gw", "z-guest")?;
    let from = sh("guest", "ip -4 -o address show dev eth0")?;
    let from = from
        .split_whitespace()
        .find_map(|word| word.split_once('/'))
        .context("the client's address")?
        .0
        .to_owned();
    let lines = [
        format!("count {count}"),
        "pkt_size 60".into(),
        "clone_skb 0".into(),
        "delay 0".into(),
        format!("dst_mac {}", mac.trim()),
        format!("dst {FAR}"),
        format!("src_min {from}"),
        format!("src_max {from}"),
        format!("udp_src_min {source}"),
        format!("udp_src_max {source}"),
        format!("udp_dst_min {PORT}"),
        format!("udp_dst_max {PORT}"),
    ];
    let mut script = String::from(
        "cd /proc/net/pktgen; echo rem_device_all > kpktgend_0; echo add_device eth0 > kpktgend_0; ",
    );
    for line in lines {
        script += &format!("echo '{line}' > eth0; ");
    }
    let seen = sh("guest", &(script + "echo start > pgctrl; cat eth0"))?;
    // `Result: OK: 53871(c53871+d0) usec, 4000 (60byte,0frags)`
    let result = seen.split_once("Result: OK: ").with_context(|| format!("pktgen: {seen}"))?.1;
    ensure!(result.contains(&format!("usec, {count} ")), "pktgen: {result}");
    Ok(result.split_once('(').context("a time")?.0.parse()?)
}
