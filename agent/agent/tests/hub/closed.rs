//! What nobody gets through the hub, and into it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use seimon_ipc::control::{Command, Response};
use seimon_ipc::hub::HubAsk;

use crate::harness::{Agent, INTERNET, TOWN, World, ask, connect, in_world, inside, sh, until};

const PATIENCE: Duration = Duration::from_secs(8);
const SHORT: Duration = Duration::from_millis(700);

/// Datagrams that arrive at an address, told by their sources.
fn listen(node: &str, address: &str) -> Result<UdpSocket> {
    let socket = inside(node, || Ok(UdpSocket::bind(address)?))?;
    socket.set_read_timeout(Some(SHORT))?;
    Ok(socket)
}

fn send(node: &str, from: &str, to: &str) -> Result<()> {
    let socket = inside(node, || Ok(UdpSocket::bind(format!("{from}:0"))?))?;
    for _ in 0..3 {
        socket.send_to(b"forged", to)?;
    }
    Ok(())
}

/// An echo request (RFC 792), and its reply.
fn ping(node: &str, from: &str, to: &str) -> Result<()> {
    let (from, to): (SocketAddr, SocketAddr) = (format!("{from}:0").parse()?, format!("{to}:0").parse()?);
    let socket = inside(node, || {
        let (raw, icmp) = (socket2::Type::RAW, socket2::Protocol::ICMPV4);
        Ok(socket2::Socket::new(socket2::Domain::IPV4, raw, Some(icmp))?)
    })?;
    socket.bind(&from.into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Type 8; its checksum; identifier and sequence 0.
    socket.send_to(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0], &to.into())?;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 128];
    socket.recv_from(&mut buffer).context("the hub does not answer a ping").map(drop)
}

fn both_work() -> Result<()> {
    ask("a", "10.60.1.2", TOWN, PATIENCE)?;
    ask("b", "10.60.1.3", TOWN, PATIENCE).map(drop)
}

#[test]
fn no_school_reaches_another() -> Result<()> {
    in_world(|_| {
        both_work()?;
        for to in ["10.60.1.3:8080", "10.21.1.5:8080"] {
            for from in ["10.60.1.2", "10.20.1.5"] {
                let refused = connect("a", from, to, PATIENCE).err().context("a school reached another")?;
                ensure!(format!("{refused:#}").contains("refused"), "{from} to {to}: {refused:#}");
                ensure!(ask("a", from, to, SHORT).is_err(), "{from} to {to} by UDP");
            }
        }
        both_work()
    })
}

#[test]
fn a_source_that_is_another_schools_or_nobodys_does_not_come_out_of_the_tunnel() -> Result<()> {
    in_world(|_| {
        both_work()?;
        for address in ["10.60.1.3", "10.21.1.5", "10.60.9.9", "10.50.0.1", "198.51.100.1"] {
            sh("a", &format!("ip address add {address}/32 dev wg-closed"))?;
        }
        let town = listen("town", "10.50.0.80:7777")?;
        // That nothing is dropped by the hub's table is how it is known that WireGuard did it.
        sh("hub", "nft add table inet watch; nft 'add chain inet watch c { type filter hook prerouting priority -300; }'
                   nft 'add rule inet watch c iifname wg-hub udp dport 7777 counter comment \"out of the tunnel\"'")?;
        let mut buffer = [0; 64];
        for address in ["10.60.1.3", "10.21.1.5", "10.60.9.9", "10.50.0.1", "198.51.100.1"] {
            send("a", address, "10.50.0.80:7777")?;
            ensure!(town.recv_from(&mut buffer).is_err(), "{address} arrived");
        }
        let seen = sh("hub", "nft list chain inet watch c")?;
        ensure!(seen.contains("counter packets 0 bytes 0"), "{seen}");
        send("a", "10.60.1.2", "10.50.0.80:7777")?;
        ensure!(town.recv_from(&mut buffer)?.1.ip().to_string() == "10.60.1.2");
        let seen = sh("hub", "nft list chain inet watch c")?;
        ensure!(!seen.contains("counter packets 0 bytes 0"), "the counter counts: {seen}");
        Ok(())
    })
}

#[test]
fn the_hub_itself_is_closed_but_for_the_tunnels_port_and_those_of_control() -> Result<()> {
    in_world(|_| {
        both_work()?;
        let listeners = inside("hub", || {
            Ok([
                TcpListener::bind("0.0.0.0:22")?,
                TcpListener::bind("0.0.0.0:53")?,
                TcpListener::bind("0.0.0.0:8080")?,
            ])
        })?;
        let tries = [
            ("net", "198.51.100.1", "198.51.100.20:22"),
            ("net", "198.51.100.1", "198.51.100.10:22"),
            ("net", "198.51.100.1", "198.51.100.20:8080"),
            ("town", "10.50.255.1", "10.50.255.2:22"),
            ("town", "10.50.9.9", "10.50.255.2:8080"),
            ("a", "10.60.1.2", "10.60.0.1:22"),
            ("a", "10.60.1.2", "10.50.255.2:22"),
            ("a", "10.60.1.2", "198.51.100.20:22"),
        ];
        for (node, from, to) in tries {
            ensure!(connect(node, from, to, SHORT).is_err(), "{from} reached {to}");
        }
        let [ssh, ..] = listeners;
        let accepted = std::thread::spawn(move || {
            ssh.accept().map(|(mut stream, peer)| {
                use std::io::Write as _;
                let _gone = stream.write_all(b"hello\n");
                peer
            })
        });
        connect("town", "10.50.9.9", "10.50.255.2:22", PATIENCE)?;
        let peer = accepted.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        ensure!(peer.ip().to_string() == "10.50.9.9");
        ping("a", "10.60.1.2", "10.60.0.1")?;
        Ok(())
    })
}

#[test]
fn nobody_from_outside_begins_anything_with_a_school() -> Result<()> {
    in_world(|_| {
        both_work()?;
        sh(
            "net",
            "ip route add 10.60.0.0/16 via 198.51.100.20; ip route add 10.20.0.0/16 via 198.51.100.20",
        )?;
        for (node, from) in [("town", "10.50.255.1"), ("net", "198.51.100.1")] {
            for to in ["10.60.1.2:8080", "10.20.1.5:8080"] {
                ensure!(connect(node, from, to, SHORT).is_err(), "{from} reached {to}");
            }
        }
        both_work()
    })
}

fn is_shut(world: &World, what: &str) -> Result<()> {
    for (from, to) in [("10.60.1.2", TOWN), ("10.60.1.2", INTERNET), ("10.20.1.5", TOWN)] {
        ensure!(ask("a", from, to, SHORT).is_err(), "{what}: {from} reached {to}");
    }
    let _alive = world.agent.pid();
    Ok(())
}

#[test]
fn a_table_that_somebody_takes_away_shuts_the_hub_and_comes_back() -> Result<()> {
    in_world(|world| {
        both_work()?;
        let pid = Pid::from_raw(i32::try_from(world.agent.pid())?).context("a process")?;
        kill_process(pid, Signal::STOP)?;
        sh("hub", "nft flush ruleset")?;
        is_shut(world, "without a table")?;
        kill_process(pid, Signal::CONT)?;
        until(5, "the table comes back", || Ok(ask("a", "10.60.1.2", TOWN, SHORT).ok()))?;
        let status = world.agent.status()?;
        ensure!(status.dataplane.repairs == 1, "{status:?}");
        Ok(())
    })
}

#[test]
fn a_rule_that_somebody_changed_is_put_right() -> Result<()> {
    in_world(|world| {
        both_work()?;
        sh("hub", "nft insert rule inet seimon between accept")?;
        until(5, "it is taken out", || {
            let chain = sh("hub", "nft list chain inet seimon between")?;
            Ok((!chain.contains("\t\taccept\n")).then_some(()))
        })?;
        ensure!(world.agent.status()?.dataplane.repairs >= 1);
        both_work()
    })
}

#[test]
fn before_there_is_a_policy_and_after_an_orderly_stop_nothing_is_forwarded() -> Result<()> {
    in_world(|world| {
        both_work()?;
        let pid = Pid::from_raw(i32::try_from(world.agent.pid())?).context("a process")?;
        kill_process(pid, Signal::TERM)?;
        ensure!(world.agent.ended()?.success());
        is_shut(world, "after the stop")?;
        // As at the first start of all, with a plan that is none.
        sh("hub", "nft flush ruleset; echo 1 > /proc/sys/net/ipv4/ip_forward")?;
        std::fs::write("/run/plan.toml", "version = 1\nrole = \"hub\"\n")?;
        std::fs::remove_dir_all("/run/state")?;
        let mut agent = Agent::spawn()?;
        ensure!(!agent.ended()?.success());
        ensure!(sh("hub", "cat /proc/sys/net/ipv4/ip_forward")?.trim() == "0");
        is_shut(world, "with a bad plan")
    })
}

#[test]
fn a_tunnel_whose_process_dies_is_made_anew_and_schools_are_called_back() -> Result<()> {
    in_world(|world| {
        both_work()?;
        // So that the agent knows where they are.
        world.agent.status()?;
        let carried = sh("hub", "pgrep -f 'seimon-tunnel wg-hub'")?;
        let pid = carried.split_whitespace().next().context("a process")?.parse::<i32>()?;
        kill_process(Pid::from_raw(pid).context("a process")?, Signal::KILL)?;
        // Schools would find out by themselves only after fifteen seconds.
        until(8, "a is back", || Ok(ask("a", "10.60.1.2", TOWN, SHORT).ok()))?;
        ask("b", "10.60.1.3", TOWN, PATIENCE)?;
        Ok(())
    })
}

#[test]
fn what_explain_says_is_what_happens() -> Result<()> {
    in_world(|world| {
        let explain = |from: &str, to: &str| -> Result<(bool, Option<String>)> {
            let request = HubAsk::Explain { from: from.to_owned(), to: to.to_owned() };
            let answer = world.agent.ask(Command::Hub { ask: request })?;
            let Response::HubExplanation(answer) = answer else { anyhow::bail!("{answer:?}") };
            Ok((answer.allowed, answer.seen_as.map(|address| address.to_string())))
        };
        for (node, from, to) in [
            ("a", "10.60.1.2", TOWN),
            ("a", "10.20.1.5", INTERNET),
            ("b", "10.60.1.3", INTERNET),
            ("a", "10.60.1.2", "10.60.1.3:8080"),
            ("a", "10.60.1.2", "10.21.1.5:8080"),
            ("b", "10.60.1.3", "10.60.7.7:8080"),
        ] {
            let (allowed, seen_as) = explain(from, to)?;
            let happened = connect(node, from, to, PATIENCE).ok().map(|connection| connection.seen_as);
            ensure!(
                allowed == happened.is_some() && seen_as == happened,
                "{from} to {to}: {allowed} {seen_as:?}, {happened:?}"
            );
        }
        ensure!(explain("a", "10.50.0.53")? == (true, Some("10.60.1.2".to_owned())));
        ensure!(!explain("10.99.1.1", TOWN)?.0);
        Ok(())
    })
}
