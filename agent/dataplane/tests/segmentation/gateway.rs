//! What of the gateway itself can be reached.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::probing::{Kind, Seen, ask};
use crate::schools;
use crate::world::{World, in_namespaces, inside, sh};

/// Behind our own filter: what comes as far as this reaches a socket, if there is one.
const REACHED: &str = "table inet reached {
    set ports { type ifname . inet_proto . inet_service; flags dynamic; size 65535; }
    chain input { type filter hook input priority 100;
        ct state new meta l4proto { tcp, udp } add @ports { iifname . meta l4proto . th dport };
    }
}";

/// Knocks at every TCP and UDP port from 1 to 1024.
fn scan(node: &str, to: IpAddr) -> Result<()> {
    inside(node, || {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let udp = UdpSocket::bind(any)?;
        // All at once would be more files than a process may open.
        for ports in (1..=1024_u16).collect::<Vec<_>>().chunks(256) {
            let mut knocking = Vec::new();
            for port in ports {
                let to = SocketAddr::new(to, *port);
                let socket =
                    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
                // In progress, or refused already: either way the packet is out.
                let _begun = rustix::net::connect(&socket, &to);
                knocking.push(socket);
                let _refused = udp.send_to(b"", to);
            }
        }
        Ok(())
    })?;
    // What was sent before this has been decided on.
    ask(node, to, Kind::Ping)?;
    Ok(())
}

/// `tcp/53` and so on, as seen behind the filter on the interface.
fn reached(interface: &str) -> Result<BTreeSet<String>> {
    let listing = sh("gw", "nft -nn list set inet reached ports")?;
    let elements = listing.split_once("elements = {").map_or("", |(_, rest)| rest);
    let mut ports = BTreeSet::new();
    for element in elements.split(',') {
        let words: Vec<&str> =
            element.split([' ', '\n', '\t', '.', '}', '"']).filter(|w| !w.is_empty()).collect();
        let [on, protocol, port] = words.as_slice() else { continue };
        if *on == interface {
            let protocol = if ["6", "tcp"].contains(protocol) { "tcp" } else { "udp" };
            ports.insert(format!("{protocol}/{port}"));
        }
    }
    Ok(ports)
}

#[test]
fn zones_reach_only_names_leases_time_ping_and_the_status_page_of_the_gateway_and_lines_only_ping()
-> Result<()> {
    in_namespaces(|| {
        let world = World::raise(schools::two_line_town()?)?;
        sh("gw", &format!("nft '{REACHED}'"))?;
        let expected: BTreeSet<String> =
            ["tcp/53", "tcp/80", "udp/53", "udp/67", "udp/123", "udp/547"].map(str::to_owned).into();
        for (node, interface, to) in [
            ("affairs", "z-affairs", "10.20.1.1"),
            ("learning", "z-learning", "fd20:0:0:2::1"),
            ("printers", "z-printers", "10.20.3.1"),
        ] {
            scan(node, to.parse()?)?;
            let got = reached(interface)?;
            ensure!(got == expected, "{node} → {to}: {got:?}");
        }
        for (node, interface, to) in [
            ("carrier", "wan1", "10.10.0.1"),
            ("internet", "wan2", "192.0.2.2"),
            ("internet", "wan2", "2001:db8:2::2"),
            // A zone's address, asked for by way of a line.
            ("internet", "wan2", "10.20.1.1"),
        ] {
            scan(node, to.parse()?)?;
            let got = reached(interface)?;
            ensure!(got.is_empty(), "{node} → {to}: {got:?}");
        }
        for (node, to) in [
            ("carrier", "10.10.0.1"),
            ("internet", "192.0.2.2"),
            ("internet", "2001:db8:2::2"),
            ("affairs", "10.20.1.1"),
            ("affairs", "fd20:0:0:1::1"),
        ] {
            let seen = ask(node, to.parse()?, Kind::Ping)?;
            ensure!(seen.node().is_some(), "{node} → {to}: {seen:?}");
        }
        // What is served there is served to zones, not to lines.
        let name = |node: &str, to: &str| ask(node, to.parse().context("address")?, Kind::Tcp(53));
        ensure!(name("affairs", "10.20.1.1")?.node() == Some("gw"), "names");
        ensure!(name("internet", "192.0.2.2")? == Seen::Silent, "names for the internet");
        // Nor one zone's to another, nor the lines' own addresses to anybody inside.
        for to in ["10.20.1.1", "192.0.2.2", "10.10.0.1", "100.127.255.254"] {
            let seen = ask("learning", to.parse()?, Kind::Tcp(53))?;
            ensure!(seen == Seen::Refused, "learning → {to}: {seen:?}");
        }
        drop(world);
        Ok(())
    })
}
