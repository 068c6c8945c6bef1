//! What schools have of the hub.

use std::time::Duration;

use anyhow::{Result, ensure};
use seimon_ipc::control::Light;

use crate::harness::{INTERNET, TOWN, ask, connect, in_world, inside};

const PATIENCE: Duration = Duration::from_secs(8);

#[test]
fn schools_reach_the_town_as_themselves_and_the_internet_under_their_registered_addresses() -> Result<()> {
    in_world(|world| {
        for (node, from, to, seen_as) in [
            ("a", "10.60.1.2", TOWN, "10.60.1.2"),
            ("a", "10.20.1.5", TOWN, "10.20.1.5"),
            ("b", "10.60.1.3", TOWN, "10.60.1.3"),
            ("a", "10.60.1.2", INTERNET, "198.51.100.10"),
            ("a", "10.20.1.5", INTERNET, "198.51.100.10"),
            ("b", "10.60.1.3", INTERNET, "198.51.100.11"),
            ("b", "10.21.1.5", INTERNET, "198.51.100.11"),
        ] {
            let mut connection = connect(node, from, to, PATIENCE)?;
            ensure!(connection.seen_as == seen_as, "{from} to {to}: seen as {}", connection.seen_as);
            connection.exchange(100_000, PATIENCE)?;
        }
        for id in ["a", "b"] {
            let end = world.agent.school(id)?;
            ensure!(
                end.light == Light::Green && end.received > 100_000 && end.handshake_s.is_some(),
                "{end:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn what_schools_ask_of_the_hubs_own_address_goes_to_the_towns_dns_servers() -> Result<()> {
    in_world(|_| {
        let server = inside("town", || Ok(std::net::UdpSocket::bind("10.50.0.53:53")?))?;
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, peer)) = server.recv_from(&mut buffer) {
                let answer = [&buffer[..length], b" of ", peer.ip().to_string().as_bytes()].concat();
                let _lost = server.send_to(&answer, peer);
            }
        });
        let answer = ask("a", "10.60.1.2", "10.60.0.1:53", PATIENCE)?;
        ensure!(answer == b"question of 10.60.1.2", "{}", String::from_utf8_lossy(&answer));
        Ok(())
    })
}
