//! What people have of it: connections, a cut, a new key, a far end that moves.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Result, ensure};
use seimon_core::network_plan::Change;

use crate::traffic::{Datagrams, connect, echo_datagrams, exchange, serve};
use crate::world::{World, endpoint, in_namespaces, inside, open_to_all, sh, until};

const PATIENCE: Duration = Duration::from_secs(8);

#[test]
fn a_teacher_reaches_the_town_hall_through_the_tunnel_and_only_wireguard_is_on_the_line() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise()?;
        serve()?;
        // Whatever crosses the line and is not the tunnel's.
        sh(
            "net",
            "nft 'table inet w { chain f { type filter hook forward priority 0; }; }'
             nft 'add rule inet w f udp dport 51820 udp sport 51820 accept'
             nft 'add rule inet w f counter comment \"other\"'",
        )?;
        let mut stream = connect(PATIENCE)?;
        exchange(&mut stream, 2_000_000)?;
        let peer = world.peer()?;
        ensure!(peer.handshake.is_some_and(|age| age < Duration::from_secs(20)), "{peer:?}");
        ensure!(peer.sent > 2_000_000 && peer.received > 2_000_000, "{peer:?}");
        let seen = sh("net", "nft list chain inet w f")?;
        ensure!(seen.contains("counter packets 0 bytes 0 comment \"other\""), "{seen}");
        ensure!(world.converge()?.is_empty(), "looking again changes nothing");
        Ok(())
    })
}

#[test]
fn a_connection_outlives_a_cut_of_the_line() -> Result<()> {
    in_namespaces(|| {
        let world = World::raise()?;
        serve()?;
        let mut stream = connect(PATIENCE)?;
        exchange(&mut stream, 10_000)?;
        sh("net", "ip link set eth1 down")?;
        ensure!(connect(Duration::from_secs(2)).is_err(), "nothing else leads to the town hall");
        sh("net", "ip link set eth1 up; ip route replace 192.0.2.0/30 dev eth0 src 192.0.2.1")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        exchange(&mut stream, 10_000)?;
        drop(world);
        Ok(())
    })
}

#[test]
fn a_new_key_that_the_hub_knows_costs_no_connection() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise()?;
        serve()?;
        let mut stream = connect(PATIENCE)?;
        exchange(&mut stream, 10_000)?;
        // The hub learns the new key first; what it lets the school be moves with the peer.
        let new = world.another_key()?;
        let peer = world.hub.tunnel.peers.values().next().cloned().unwrap_or_default();
        world.hub.tunnel.peers = [(new, peer)].into();
        world.hub.configure()?;
        world.reconfigure()?;
        exchange(&mut stream, 10_000)?;
        ensure!(world.hub.peer(&new)?.handshake.is_some(), "by the new key");
        Ok(())
    })
}

#[test]
fn a_new_key_beside_the_present_one_costs_not_one_packet() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise()?;
        echo_datagrams()?;
        let new = world.another_key()?;
        let peer = world.hub.tunnel.peers.values().next().cloned().unwrap_or_default();
        world.hub.tunnel.peers.insert(new, peer);
        let mut traffic = Datagrams::begin()?;
        traffic.go_on(Duration::from_secs(1));
        world.hub.configure()?;
        traffic.go_on(Duration::from_secs(1));
        world.reconfigure()?;
        traffic.go_on(Duration::from_secs(2));
        let (sent, lost) = traffic.end()?;
        ensure!(sent > 1000 && lost == 0, "{lost} of {sent} lost");
        ensure!(world.hub.peer(&new)?.handshake.is_some(), "by the new key");
        Ok(())
    })
}

#[test]
fn a_key_that_the_hub_does_not_know_gets_no_answer_and_costs_nothing_when_the_one_before_comes_back()
-> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise()?;
        serve()?;
        let mut stream = connect(PATIENCE)?;
        exchange(&mut stream, 10_000)?;
        let before = std::fs::read(&world.school_key)?;
        world.another_key()?;
        world.reconfigure()?;
        let peer = world.peer()?;
        ensure!(peer.handshake.is_none(), "{peer:?}");
        // By the session under the key before.
        exchange(&mut stream, 10_000)?;
        ensure!(world.peer()?.handshake.is_none());
        std::fs::write(&world.school_key, before)?;
        world.reconfigure()?;
        let peer = world.peer()?;
        ensure!(peer.handshake.is_some(), "without another handshake: {peer:?}");
        exchange(&mut stream, 10_000)?;
        Ok(())
    })
}

#[test]
fn a_hub_that_moves_and_speaks_is_followed() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise()?;
        serve()?;
        let mut stream = connect(PATIENCE)?;
        exchange(&mut stream, 10_000)?;
        sh(
            "hub",
            "ip address add 198.51.100.21/24 dev eth0; ip address del 198.51.100.20/24 dev eth0
                   ip address replace 198.51.100.21/24 dev eth0; ip route replace default via 198.51.100.1",
        )?;
        // The hub has something to say.
        inside("hub", || {
            let socket = UdpSocket::bind("10.60.1.1:0")?;
            for _ in 0..3 {
                socket.send_to(b"hello", "10.60.1.2:9")?;
            }
            Ok(())
        })?;
        let wanted = endpoint("198.51.100.21:51820")?;
        until(5, "the new address", || Ok((world.peer()?.endpoint == Some(wanted)).then_some(())))?;
        exchange(&mut stream, 10_000)?;
        ensure!(world.converge()?.is_empty(), "having been followed is as planned");
        Ok(())
    })
}

#[test]
fn a_hub_that_moved_silently_is_found_by_being_told_where() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise()?;
        serve()?;
        let mut stream = connect(PATIENCE)?;
        exchange(&mut stream, 10_000)?;
        sh(
            "hub",
            "ip address add 198.51.100.21/24 dev eth0; ip address del 198.51.100.20/24 dev eth0
                   ip address replace 198.51.100.21/24 dev eth0; ip route replace default via 198.51.100.1",
        )?;
        let name = world.name();
        let peer = *world.net.tunnels[&name].peers.keys().next().unwrap_or_else(|| unreachable!("a peer"));
        let told =
            Change::TunnelEndpoint { interface: name, peer, endpoint: endpoint("198.51.100.21:51820")? };
        use seimon_core::network_plan::{ChangeSet, Dataplane as _};
        world.linux.apply(&ChangeSet { changes: vec![told] })?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        exchange(&mut stream, 10_000)?;
        Ok(())
    })
}

#[test]
fn a_key_that_others_can_read_is_refused_and_the_tunnel_is_not_configured() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise()?;
        open_to_all(&world.school_key)?;
        let error = world.reconfigure().err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(error.contains("644") && error.contains("wg-closed"), "{error}");
        Ok(())
    })
}
