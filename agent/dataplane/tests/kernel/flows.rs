//! Conntrack entries and neighbours.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};
use seimon_core::network_plan::{Change, Dataplane, FlowKill, FlowStage, Mark, PathIndex, ZoneGroupIndex};
use seimon_dataplane::Linux;

use crate::{apply, in_fresh_namespace, interface, nft, sh};

/// Marks flows by destination port: 7001 is (path 1, zone-group 5), 7002 is (path 2, zone-group 5), 7003 is somebody
/// else's mark.
const MARKING: &str = r#"
table inet seimon {
	map marks { type inet_service : mark; elements = { 7001 : 0x501, 7002 : 0x502, 7003 : 0x700000 } }
	chain out {
		type filter hook output priority -150; policy accept;
		meta l4proto { tcp, udp } ct mark set th dport map @marks
	}
}
"#;

fn ports(linux: &mut Linux) -> Result<Vec<u16>> {
    let mut ports: Vec<_> = linux.flows()?.iter().map(|flow| flow.destination_port).collect();
    ports.sort_unstable();
    Ok(ports)
}

#[test]
fn a_connection_that_one_end_has_closed_is_ending() -> Result<()> {
    in_fresh_namespace("flows::a_connection_that_one_end_has_closed_is_ending", || {
        let mut linux = Linux::open()?;
        apply(&mut linux, [nft(MARKING)])?;
        let listener = TcpListener::bind("127.0.0.1:7001")?;
        let client = TcpStream::connect("127.0.0.1:7001")?;
        let (server, _) = listener.accept()?;
        let mut stage = || linux.flows().map(|flows| flows.iter().map(|flow| flow.stage).collect::<Vec<_>>());
        ensure!(stage()? == [FlowStage::Open], "{:?}", stage()?);
        client.shutdown(std::net::Shutdown::Write)?;
        ensure!(stage()? == [FlowStage::Ending], "{:?}", stage()?);
        drop((client, server));
        ensure!(stage()? == [FlowStage::Ending], "{:?}", stage()?);
        Ok(())
    })
}

#[test]
fn flows_are_listed_by_our_bits_and_killed_selectively() -> Result<()> {
    in_fresh_namespace("flows::flows_are_listed_by_our_bits_and_killed_selectively", || {
        sh("sysctl -qw net.netfilter.nf_conntrack_acct=1")?;
        let mut linux = Linux::open()?;
        apply(&mut linux, [nft(MARKING)])?;
        let client = UdpSocket::bind("127.0.0.1:6000")?;
        let servers: Vec<_> =
            (7001..=7003).map(|port| UdpSocket::bind(("127.0.0.1", port))).collect::<Result<_, _>>()?;
        for port in 7001..=7003 {
            client.send_to(b"hello", ("127.0.0.1", port))?;
        }
        servers[1].set_read_timeout(Some(Duration::from_secs(5)))?;
        let (_, from) = servers[1].recv_from(&mut [0; 16])?;
        servers[1].send_to(b"hello yourself", from)?;

        let flows = linux.flows()?;
        ensure!(flows.len() == 2, "{flows:?}");
        let of = |port: u16| flows.iter().find(|flow| flow.destination_port == port).cloned();
        let (first, second) = (of(7001).expect("7001"), of(7002).expect("7002"));
        ensure!(first.mark == Mark(0x501) && second.mark == Mark(0x502), "{flows:?}");
        ensure!(!first.answered && second.answered);
        ensure!(first.protocol == 17 && first.source_port == 6000, "{first:?}");
        ensure!(first.source.is_loopback() && first.reply_source == first.destination);
        ensure!(first.bytes == 33 && second.bytes == 33 + 42, "{flows:?}");
        ensure!(first.id != second.id);

        let kill = |path, zone_group, unanswered_only| {
            Change::Kill(FlowKill {
                path: Option::map(path, PathIndex),
                zone_group: Option::map(zone_group, ZoneGroupIndex),
                unanswered_only,
                ..FlowKill::default()
            })
        };
        apply(&mut linux, [kill(Some(2), None, true), kill(Some(1), Some(6), false)])?;
        ensure!(ports(&mut linux)? == [7001, 7002], "nothing matched: {:?}", ports(&mut linux)?);
        apply(&mut linux, [kill(None, Some(5), true)])?;
        ensure!(ports(&mut linux)? == [7002], "{:?}", ports(&mut linux)?);
        apply(&mut linux, [kill(Some(2), Some(5), false)])?;
        ensure!(ports(&mut linux)?.is_empty());
        let others = sh("conntrack -L 2>/dev/null")?;
        ensure!(others.contains("dport=7003"), "somebody else's flow is none of our business: {others}");
        Ok(())
    })
}

#[test]
fn neighbours_are_those_of_the_interface_with_an_address() -> Result<()> {
    in_fresh_namespace("flows::neighbours_are_those_of_the_interface_with_an_address", || {
        sh("ip link add p1 type veth peer x1; ip link add p2 type veth peer x2; ip link set p1 up; ip link set p2 up
            ip neigh add 10.0.0.7 lladdr 02:00:5e:00:00:07 dev p1; ip neigh add fd00::7 lladdr 02:00:5e:00:00:07 dev p1
            ip neigh add 10.0.0.8 lladdr 02:00:5e:00:00:08 dev p2")?;
        let mut linux = Linux::open()?;
        let seen = linux.neighbours(&interface("p1"))?;
        let mac = "02:00:5e:00:00:07".parse()?;
        ensure!(seen.get(&"10.0.0.7".parse()?) == Some(&mac), "{seen:?}");
        ensure!(seen.get(&"fd00::7".parse()?) == Some(&mac), "{seen:?}");
        ensure!(!seen.contains_key(&"10.0.0.8".parse()?), "{seen:?}");
        Ok(())
    })
}
