//! Zones told apart by VLAN tags, on one cable. Needs a kernel with VLANs and bridges that filter them.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::io::Errno;
use seimon_core::network_plan::{Change, Dataplane as _, diff, verify};

use crate::matrix::whole_matrix;
use crate::probing::{Kind, ask};
use crate::schools;
use crate::world::{FAR, World, in_namespaces, inside, mac_of, sh};

/// Says `skipped` and tells `false` where the kernel lacks something.
fn has_vlans() -> Result<bool> {
    let tried = std::process::Command::new("unshare")
        .args([
            "-n",
            "sh",
            "-ec",
            "ip link add try0 type bridge vlan_filtering 1; ip link add link try0 name try0.9 type vlan id 9",
        ])
        .output()?;
    if !tried.status.success() {
        eprintln!("skipped: this kernel has no VLANs, or no bridges that filter them");
    }
    Ok(tried.status.success())
}

#[test]
fn zones_on_one_trunk_reach_each_other_exactly_by_permits() -> Result<()> {
    if !has_vlans()? {
        return Ok(());
    }
    in_namespaces(|| whole_matrix(schools::six_zones_on_a_trunk()?))
}

/// Sends as if from a machine of the zone `affairs`, whose permits lead to the printers.
fn knock(device: &str, source: &str) -> Result<()> {
    sh("switch", &format!("ip address add {source}/24 dev {device}; ip link set {device} up"))?;
    inside("switch", || {
        let socket = UdpSocket::bind((source.parse::<IpAddr>()?, 0))?;
        for port in [53, 7000, 631] {
            for to in ["10.20.1.1", "10.20.3.100", "203.0.113.99"] {
                match socket.send_to(b"?", (to, port)) {
                    Ok(_) => {}
                    // Nobody answers for that address.
                    Err(error)
                        if matches!(
                            Errno::from_io_error(&error),
                            Some(Errno::NETUNREACH | Errno::HOSTUNREACH)
                        ) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        // Silence, or the own kernel's word that nobody is there.
        let heard = socket.recv(&mut [0; 64]);
        ensure!(heard.is_err(), "{device}: {heard:?}");
        Ok(())
    })?;
    // Not even the question who has the gateway's address is answered.
    let neighbours = sh("switch", &format!("ip neighbour show dev {device}"))?;
    ensure!(!neighbours.contains("lladdr"), "{device}: {neighbours}");
    sh("switch", &format!("ip address del {source}/24 dev {device}"))?;
    Ok(())
}

#[test]
fn frames_without_a_tag_or_of_no_zones_vlan_go_nowhere() -> Result<()> {
    if !has_vlans()? {
        return Ok(());
    }
    in_namespaces(|| {
        let mut world = World::raise(schools::six_zones_on_a_trunk()?)?;
        sh("switch", "ip link add link eth0 name none type vlan id 99")?;
        knock("none", "10.20.1.77")?;
        knock("eth0", "10.20.1.78")?;
        ensure!(ask("guest", FAR.into(), Kind::Tcp(443))?.node() == Some("internet"), "others go on");
        for source in ["10.20.1.77", "10.20.1.78"] {
            let source: IpAddr = source.parse()?;
            for node in ["carrier", "internet", "printers", "guest"] {
                ensure!(world.arrived(node)?.iter().all(|(from, _)| *from != source), "{source} at {node}");
            }
            ensure!(world.linux.flows()?.iter().all(|flow| flow.source != source), "{source} has a flow");
        }
        world.nothing_has_leaked()
    })
}

#[test]
fn a_trunk_that_others_break_is_mended_and_never_opens() -> Result<()> {
    if !has_vlans()? {
        return Ok(());
    }
    in_namespaces(|| {
        let mut world = World::raise(schools::six_zones_on_a_trunk()?)?;
        for damage in [
            "bridge vlan del dev lan6 vid 50",
            "bridge vlan add dev lan6 vid 99",
            "bridge vlan add dev lan6 vid 50 pvid untagged",
            "ip link set lan6 nomaster",
            "ip link del trunk.50",
            "ip link set trunk down",
            "ip link del trunk",
            "ip link set trunk type bridge vlan_filtering 0",
        ] {
            sh("gw", damage)?;
            let seen = world.linux.observe(&[])?;
            ensure!(
                verify(&seen, &world.net).iter().any(|d| d.to_string().contains("interface")),
                "not noticed: {damage}"
            );
            world.converge()?;
            ensure!(ask("guest", FAR.into(), Kind::Tcp(443))?.node() == Some("internet"), "after: {damage}");
        }
        Ok(())
    })
}

#[test]
fn a_client_on_a_vlan_keeps_its_path_by_its_hardware_address_and_its_port_is_known() -> Result<()> {
    if !has_vlans()? {
        return Ok(());
    }
    in_namespaces(|| {
        let mut world = World::raise(schools::six_zones_on_a_trunk()?)?;
        let mac = mac_of("affairs", "eth0")?.parse()?;
        let service = world.inside4("affairs", "affairs.school.example")?;
        ensure!(ask("affairs", service.into(), Kind::Tcp(443))?.node() == Some("carrier"));
        let closed = world.net.allocation.paths[&crate::world::path("closed")];
        let held = world.linux.affinity(&[closed])?;
        ensure!(held.iter().any(|entry| entry.client == mac), "{held:?}");
        let bridge = seimon_core::network_plan::bridge_name(&crate::world::zone("affairs"))?;
        let neighbours = world.linux.neighbours(&bridge)?;
        ensure!(neighbours.values().any(|seen| *seen == mac), "{neighbours:?}");
        let heard = world.linux.heard_at(&bridge)?;
        ensure!(heard.get(&mac).is_some_and(|port| port.as_str() == "lan6"), "{heard:?}");
        Ok(())
    })
}

/// Step by step, with a guest and a stranger who try all the time: not a packet before the table is there, none of the
/// stranger's ever.
#[test]
fn nothing_passes_a_trunk_before_the_policy_is_in_force() -> Result<()> {
    if !has_vlans()? {
        return Ok(());
    }
    in_namespaces(|| {
        let mut world = World::raise(schools::six_zones_on_a_trunk()?)?;
        // As after a power-on, on a machine that forwards.
        sh(
            "gw",
            "nft flush ruleset; for link in trunk z-affairs z-learning z-printers z-staff z-guest z-management; do ip link del $link; done
             ip rule flush; ip -6 rule flush; ip rule add pref 32766 lookup main; ip -6 rule add pref 32766 lookup main
             for port in lan3 lan6 wan1 wan2; do ip link set $port down; done
             sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        )?;
        sh(
            "switch",
            "ip link add link eth0 name none type vlan id 99; ip address add 10.20.1.77/24 dev none; ip link set none up",
        )?;
        for node in ["carrier", "internet", "printers", "guest"] {
            sh(node, "nft flush set inet witness seen4; nft flush set inet witness seen6")?;
        }
        let stop = AtomicBool::new(false);
        let (sent, steps) = std::thread::scope(|scope| -> Result<_> {
            let tries = ["guest", "switch"].map(|node| {
                let stop = &stop;
                scope.spawn(move || inside(node, move || knock_until(stop)))
            });
            let steps = raise_step_by_step(&mut world);
            stop.store(true, Ordering::Relaxed);
            let mut sent = 0;
            for one in tries {
                sent += one.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            }
            Ok((sent, steps?))
        })?;
        ensure!(sent > 100 && steps > 20, "{sent} packets over {steps} steps");
        for node in ["carrier", "internet", "printers"] {
            let arrived = world.arrived(node)?;
            let stranger: IpAddr = "10.20.1.77".parse()?;
            ensure!(arrived.iter().all(|(from, _)| *from != stranger), "{node}: {arrived:?}");
        }
        ensure!(
            ask("guest", FAR.into(), Kind::Tcp(443))?.node() == Some("internet"),
            "in the end it is open"
        );
        Ok(())
    })
}

/// Packets to everywhere, as fast as they are taken.
fn knock_until(stop: &AtomicBool) -> Result<u64> {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for to in ["10.20.3.100", "203.0.113.99", "10.50.0.53"] {
            sent += u64::from(socket.send_to(b"?", (to, 7000)).is_ok());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(sent)
}

/// One change after the other. Until the last, nothing may have passed from the guest's zone to anybody.
fn raise_step_by_step(world: &mut World) -> Result<usize> {
    let sysctls: Vec<String> = world.net.sysctls.iter().map(|sysctl| sysctl.path.clone()).collect();
    let changes = diff(&world.linux.observe(&sysctls)?, None, &world.net).changes;
    let table = changes.iter().position(|change| matches!(change, Change::Nft { .. }));
    ensure!(table == Some(0), "the table comes first, not at {table:?}");
    let steps = changes.len();
    for change in changes {
        let name = format!("{change:?}");
        world.apply(change)?;
        if name.starts_with("LinkUp") {
            std::thread::sleep(Duration::from_millis(30));
            let arrived = world.arrived("printers")?;
            let zones: Vec<_> = arrived
                .iter()
                .filter(|(from, _)| !from.to_string().starts_with("10.20.3.") && from.is_ipv4())
                .collect();
            ensure!(zones.is_empty(), "after {name}: {zones:?}");
        }
    }
    Ok(steps)
}
