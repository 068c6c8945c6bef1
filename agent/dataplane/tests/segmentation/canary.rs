//! A few clients try a new path first.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use seimon_board::{InterfaceName, MacAddress};
use seimon_core::network_plan::{Change, Dataplane as _, Element, bridge_name, canary_element};
use seimon_core::segmentation::{Question, Target, explain};
use seimon_plan::{GroupId, Protocol};

use crate::probing::{Kind, ask};
use crate::schools;
use crate::world::{World, in_namespaces, path, sh, zone};

const AFFAIRS: &str = "affairs.school.example";

fn begin(world: &World) -> Result<Element> {
    let group = GroupId::new("affairs")?;
    let element = canary_element(&world.net.allocation, &zone("affairs"), &group, &path("direct"));
    element.context("the element")
}

/// A second machine in the zone, with a MAC address of its own.
fn second_machine() -> Result<()> {
    sh(
        "affairs",
        "ip netns add second; ip link add link eth0 name mv type macvlan mode bridge; ip link set mv netns second name eth0",
    )?;
    sh(
        "second",
        "ip link set lo up; ip address add 10.20.1.101/24 dev eth0; ip address add fd20:0:0:1::101/64 dev eth0 nodad; \
         ip link set eth0 up; ip route add default via 10.20.1.1; ip -6 route add default via fd20:0:0:1::1",
    )?;
    Ok(())
}

#[test]
fn a_room_tries_the_new_path_and_nobody_else_does() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise(schools::town_with_canary("rooms = [\"office\"]")?)?;
        second_machine()?;
        let (four, six) = (world.inside4("affairs", AFFAIRS)?, world.inside6("affairs", AFFAIRS)?);
        let on = |node: &str, service: IpAddr| ask(node, service, Kind::Tcp(443));
        let element = begin(&world)?;
        world.apply(Change::Elements { remove: Vec::new(), add: vec![element.clone()] })?;
        ensure!(on("second", four.into())?.node() == Some("internet"), "it is in the room");
        ensure!(on("second", six.into())?.node() == Some("internet"), "by its MAC address from now on");
        ensure!(on("affairs", four.into())?.node() == Some("carrier"), "it is not");
        world.apply(Change::Elements { remove: vec![element.clone()], add: Vec::new() })?;
        ensure!(on("second", four.into())?.node() == Some("internet"), "it is logged in there");
        let paths: Vec<_> = world.net.allocation.paths.values().copied().collect();
        let remove = world.linux.affinity(&paths)?;
        world.apply(Change::Affinity { add: Vec::new(), remove })?;
        ensure!(on("second", four.into())?.node() == Some("carrier"), "the canary is over");
        // Who is in the middle of work on the old path stays there when one begins.
        world.apply(Change::Elements { remove: Vec::new(), add: vec![element] })?;
        ensure!(on("second", four.into())?.node() == Some("carrier"));
        world.nothing_has_leaked()
    })
}

#[test]
fn a_share_of_the_clients_tries_the_new_path_and_always_the_same_ones() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise(schools::town_with_canary("share = 40")?)?;
        second_machine()?;
        let service = world.inside4("affairs", AFFAIRS)?;
        world.apply(Change::Elements { remove: Vec::new(), add: vec![begin(&world)?] })?;
        let paths: Vec<_> = world.net.allocation.paths.values().copied().collect();
        let mut picked: [BTreeSet<u8>; 2] = Default::default();
        for round in &mut picked {
            for client in 0..40_u8 {
                sh("second", &format!("ip link set eth0 address 02:00:00:00:77:{client:02x}"))?;
                // The gateway is to know the client by its present MAC address.
                sh("second", "ip neigh flush all; ip route replace default via 10.20.1.1")?;
                if ask("second", service.into(), Kind::Tcp(443))?.node() == Some("internet") {
                    round.insert(client);
                }
                let remove = world.linux.affinity(&paths)?;
                world.apply(Change::Affinity { add: Vec::new(), remove })?;
            }
        }
        ensure!((6..=28).contains(&picked[0].len()), "about two in five: {:?}", picked[0]);
        ensure!(picked[0] == picked[1], "{picked:?}");
        let told: BTreeSet<u8> = (0..40).filter(|&client| is_told_to_try(&world, client)).collect();
        ensure!(told == picked[0], "what is explained is what happens: {told:?}, {:?}", picked[0]);
        world.nothing_has_leaked()
    })
}

/// What `explain` says of the client with this MAC address while the canary is under way.
fn is_told_to_try(world: &World, client: u8) -> bool {
    let mut net = world.net.clone();
    let (Ok(element), Some(map)) = (begin(world), net.ruleset.maps.get_mut("canary")) else { return false };
    map.elements.extend(element.value.map(|value| (element.key, value)));
    let question = Question {
        from: zone("affairs"),
        address: None,
        client: Some(MacAddress([2, 0, 0, 0, 0x77, client])),
        plugged: None,
        to: Target::Name(AFFAIRS.to_owned()),
        protocol: Protocol::Tcp,
        port: None,
    };
    explain(&world.plan, &net, &[], &question).path == Some(path("direct"))
}

#[test]
fn who_is_plugged_in_at_a_port_tries_the_new_path_and_nobody_else_does() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise(schools::town_with_canary_at("LAN4")?)?;
        // The far end of the zone's second port.
        sh("affairs", "ip netns add second; ip link set lan4x netns second name eth0")?;
        sh(
            "second",
            "ip link set lo up; ip address add 10.20.1.101/24 dev eth0; ip address add fd20:0:0:1::101/64 dev eth0 nodad; \
             ip link set eth0 up; ip route add default via 10.20.1.1; ip -6 route add default via fd20:0:0:1::1",
        )?;
        let (four, six) = (world.inside4("affairs", AFFAIRS)?, world.inside6("affairs", AFFAIRS)?);
        let on = |node: &str, service: IpAddr| ask(node, service, Kind::Tcp(443));
        ensure!(on("second", four.into())?.node() == Some("carrier"), "nothing is under way yet");
        let paths: Vec<_> = world.net.allocation.paths.values().copied().collect();
        let remove = world.linux.affinity(&paths)?;
        world.apply(Change::Affinity { add: Vec::new(), remove })?;
        world.apply(Change::Elements { remove: Vec::new(), add: vec![begin(&world)?] })?;
        ensure!(on("second", four.into())?.node() == Some("internet"), "it is at the port");
        ensure!(on("second", six.into())?.node() == Some("internet"), "in both families");
        ensure!(on("affairs", four.into())?.node() == Some("carrier"), "it is at the zone's other port");
        let heard = world.linux.heard_at(&bridge_name(&zone("affairs"))?)?;
        let shown = sh("second", "ip -br link show eth0")?;
        let is_second = |(mac, port): (&MacAddress, &InterfaceName)| {
            port.as_str() == "lan4" && shown.contains(&mac.to_string())
        };
        ensure!(heard.iter().any(is_second), "{shown}: {heard:?}");
        world.converge()?;
        world.nothing_has_leaked()
    })
}
