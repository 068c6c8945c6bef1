//! Inside addresses, forged sources, and what the lines may begin.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use seimon_core::network_plan::PathChoice;

use crate::probing::{Kind, Seen, ask, exchange, send_as, send_error};
use crate::schools;
use crate::world::{FAR, FAR6, HUB, REAL_DIRECT6, World, host4, host6, in_namespaces, path, sh, zone};

const LOGIN: &str = "login.school.example";
const AFFAIRS: &str = "affairs.school.example";
const DRILL: &str = "drill.school.example";

fn is(seen: &Seen, node: &str, from: &str) -> Result<()> {
    let good = matches!(seen, Seen::Answer { by, from: source } if by == node && source.to_string() == from);
    ensure!(good, "not {node}, who saw {from}, but {seen:?}");
    Ok(())
}

#[test]
fn an_inside_address_serves_its_own_zone_on_its_own_ports_and_never_leaves() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise(schools::six_zones()?)?;
        let (four, six) = (world.inside4("affairs", AFFAIRS)?, world.inside6("affairs", AFFAIRS)?);
        let both = [IpAddr::V4(four), IpAddr::V6(six)];
        is(&ask("affairs", four.into(), Kind::Tcp(443))?, "carrier", "10.20.1.100")?;
        for kind in [Kind::Tcp(80), Kind::Udp(7000), Kind::Ping] {
            for address in both {
                ensure!(ask("affairs", address, kind)? == Seen::Refused, "{address} {kind:?}");
            }
        }
        // The closed path has no IPv6: at once, not after a time-out.
        ensure!(ask("affairs", six.into(), Kind::Tcp(443))? == Seen::Refused, "IPv6 on a path without it");
        for stranger in ["learning", "staff", "guest", "printers", "management"] {
            for address in both {
                let seen = ask(stranger, address, Kind::Tcp(443))?;
                ensure!(seen == Seen::Refused, "{stranger} at another zone's {address}: {seen:?}");
            }
        }
        world.choose("affairs", "affairs", &PathChoice::On(path("direct")))?;
        sh("gw", "nft flush set inet seimon aff_1")?;
        is(&ask("affairs", four.into(), Kind::Tcp(443))?, "internet", "192.0.2.2")?;
        is(&ask("affairs", six.into(), Kind::Tcp(443))?, "internet", "2001:db8:2::2")?;
        // No real address of this name is known on the direct line.
        for address in [IpAddr::V4(world.inside4("affairs", LOGIN)?), world.inside6("affairs", LOGIN)?.into()]
        {
            ensure!(ask("affairs", address, Kind::Tcp(443))? == Seen::Refused, "{address}");
        }
        world.choose("affairs", "affairs", &PathChoice::Blocked("test".into()))?;
        sh("gw", "nft flush set inet seimon aff_2")?;
        for address in both {
            ensure!(ask("affairs", address, Kind::Tcp(443))? == Seen::Refused, "blocked: {address}");
        }
        world.nothing_has_leaked()
    })
}

#[test]
fn a_real_address_that_turns_out_to_be_the_schools_own_leads_nowhere() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise(schools::six_zones()?)?;
        let four = world.inside4("affairs", AFFAIRS)?;
        // A name server that says the service is a learning machine, the gateway, or an inside address.
        for lie in ["10.20.2.100", "10.20.1.1", "10.10.0.1", "192.0.2.2", "100.127.0.2", "127.0.0.1"] {
            let elements = |real: &str| {
                Ok::<_, anyhow::Error>(seimon_core::network_plan::real_elements(
                    &world.net.allocation,
                    &zone("affairs"),
                    AFFAIRS,
                    &path("closed"),
                    Some(real.parse()?),
                    None,
                ))
            };
            let (remove, add) = (elements("10.50.0.80")?, elements(lie)?);
            world.apply(seimon_core::network_plan::Change::Elements { remove, add })?;
            let seen = ask("affairs", four.into(), Kind::Tcp(443))?;
            ensure!(seen.node().is_none(), "{lie}: {seen:?}");
        }
        ask("affairs", HUB.into(), Kind::Ping)?;
        ask("guest", FAR.into(), Kind::Ping)?;
        world.nothing_has_leaked()
    })
}

#[test]
fn forged_sources_are_dropped() -> Result<()> {
    in_namespaces(|| {
        let world = World::raise(schools::six_zones()?)?;
        let hub: SocketAddr = (HUB, 7000).into();
        let far: SocketAddr = (FAR, 7000).into();
        let far6: SocketAddr = (FAR6, 7000).into();
        let arrived = |words: &str| world.mail.values().any(|mailbox| mailbox.has(words));
        // Node, its own source, where it may send to; then sources that are not its own.
        let cases: [(&str, &str, SocketAddr, &[&str]); 4] = [
            (
                "affairs",
                "10.20.1.100",
                hub,
                &["10.20.6.100", "10.20.6.1", "10.20.2.100", "198.51.100.7", "100.127.0.1", "192.0.2.2"],
            ),
            ("learning", "10.20.2.100", far, &["10.20.4.100", "10.20.1.100", "10.10.0.1", "203.0.113.98"]),
            ("guest", "10.20.5.100", far, &["10.20.2.100", "100.127.255.254"]),
            (
                "guest",
                "fd20:0:0:5::100",
                far6,
                &["fd20:0:0:2::100", "fd20:0:0:2::1", "2001:db8:2::2", "2001:db8:77::7", "fd53:6569:6d6f::1"],
            ),
        ];
        for (node, own, to, forged) in cases {
            let words = format!("{node} as itself to {to}");
            send_as(node, SocketAddr::new(own.parse()?, 5555), to, &words)?;
            until(|| arrived(&words)).context(words)?;
            for source in forged {
                send_as(node, SocketAddr::new(source.parse()?, 5555), to, &format!("{node} as {source}"))?;
            }
            // What was sent before this has been decided on.
            let words = format!("{node} again to {to}");
            send_as(node, SocketAddr::new(own.parse()?, 5556), to, &words)?;
            until(|| arrived(&words)).context(words)?;
            for source in forged {
                ensure!(!arrived(&format!("{node} as {source}")), "{node} as {source} reached {to}");
            }
        }
        world.nothing_has_leaked()
    })
}

#[test]
fn nobody_speaks_in_anothers_flow() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise(schools::six_zones()?)?;
        world.choose("learning", "learning", &PathChoice::On(path("direct")))?;
        sh("gw", &format!("nft '{TRIES}'"))?;
        // Who is not known to the gateway yet could not even ask for its address under another's.
        for (node, to) in [
            ("affairs", "10.20.1.1"),
            ("guest", "10.20.5.1"),
            ("printers", "10.20.3.1"),
            ("affairs", "10.50.0.53"),
            ("guest", "203.0.113.99"),
        ] {
            let seen = ask(node, to.parse()?, Kind::Ping)?;
            ensure!(seen.node().is_some(), "{node} → {to}: {seen:?}");
        }
        sh(
            "carrier",
            "ip address add 2001:db8:c::2/64 dev eth0 nodad; \
             ip route add default via $(ip -n gw -6 -o address show dev wan1 scope link | awk '{print $4}' | cut -d/ -f1) dev eth0",
        )?;
        let arrived = |world: &World, words: &str| world.mail.values().any(|mailbox| mailbox.has(words));
        let targets: [(IpAddr, IpAddr); 2] = [
            (host4(&world.plan, &zone("learning")).into(), world.inside4("learning", DRILL)?.into()),
            (
                host6(&world.plan, &zone("learning")).context("v6")?.into(),
                world.inside6("learning", DRILL)?.into(),
            ),
        ];
        for (client, service) in targets {
            let (client, service) = (SocketAddr::new(client, 6000), SocketAddr::new(service, 7000));
            let socket = crate::world::inside("learning", || {
                let socket = UdpSocket::bind(client)?;
                socket.connect(service)?;
                Ok(socket)
            })?;
            for _ in 0..3 {
                let answer = exchange(&socket, b"who").context("the flow itself")?;
                ensure!(answer.starts_with("internet|"), "{answer}");
            }
            // Others know all of the flow's numbers.
            let real: SocketAddr = if client.is_ipv4() {
                (crate::world::REAL_DIRECT, 7000).into()
            } else {
                (REAL_DIRECT6, 7000).into()
            };
            for intruder in ["affairs", "guest", "printers", "carrier", "internet"] {
                for (to, name) in [(service, "inside"), (real, "real")] {
                    // At home it would not leave the machine.
                    if intruder == "internet" && name == "real" {
                        continue;
                    }
                    let gateway = if client.is_ipv4() { "10.10.0.1" } else { "2001:db8:2::2" };
                    if intruder == "carrier" && client.is_ipv4() {
                        sh(
                            intruder,
                            &format!(
                                "ip address del {}/32 dev eth0 2>&1 || true; ip route replace {} via {gateway}",
                                to.ip(),
                                to.ip()
                            ),
                        )?;
                    }
                    send_as(intruder, client, to, &format!("{intruder} in {client}'s flow to {name}"))?;
                }
            }
            exchange(&socket, b"the flow goes on")?;
            until(|| arrived(&world, "the flow goes on")).context("the flow goes on")?;
            let mut wrong = Vec::new();
            for intruder in ["affairs", "guest", "printers", "carrier", "internet"] {
                for name in ["inside", "real"] {
                    let words = format!("{intruder} in {client}'s flow to {name}");
                    if arrived(&world, &words) {
                        wrong.push(words);
                    }
                }
            }
            ensure!(wrong.is_empty(), "arrived: {wrong:?}");
        }
        for set in ["tried4", "tried6"] {
            let tried = sh("gw", &format!("nft list set inet tries {set}"))?;
            for interface in ["z-learning", "z-affairs", "z-guest", "z-printers", "wan1", "wan2"] {
                ensure!(tried.contains(interface), "{interface} sent nothing: {tried}");
            }
        }
        world.nothing_has_leaked()
    })
}

#[test]
fn errors_about_a_flow_come_its_own_way_only() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise(schools::six_zones()?)?;
        world.choose("learning", "learning", &PathChoice::On(path("direct")))?;
        let drill = world.inside6("learning", DRILL)?;
        // Client, what it asks; the flow's ends as the far side sees them, and where that is.
        let cases: [(&str, &str, SocketAddr, SocketAddr, SocketAddr, &str); 2] = [
            (
                "affairs",
                "10.20.1.100:6000",
                (HUB, 7000).into(),
                "10.20.1.100:6000".parse()?,
                (HUB, 7000).into(),
                "carrier",
            ),
            (
                "learning",
                "[fd20:0:0:2::100]:6000",
                (drill, 7000).into(),
                "[2001:db8:2::2]:6000".parse()?,
                (REAL_DIRECT6, 7000).into(),
                "internet",
            ),
        ];
        for (client, own, to, from, about, line) in cases {
            let socket = crate::world::inside(client, || {
                let socket = UdpSocket::bind(own)?;
                socket.connect(to)?;
                Ok(socket)
            })?;
            exchange(&socket, b"who").context("the flow itself")?;
            let others = ["affairs", "guest", "printers", "staff", "management"].into_iter();
            for other in others.filter(|other| *other != client) {
                send_error(other, from, about)?;
                // A ping behind it: the error has been decided on.
                ask(other, world.plan.zones[&zone(other)].ipv4.addr().into(), Kind::Ping)?;
                let answer = exchange(&socket, b"who");
                ensure!(answer.is_ok(), "{other} spoke of {client}'s flow: {answer:?}");
            }
            send_error(line, from, about)?;
            std::thread::sleep(Duration::from_millis(20));
            ensure!(
                socket.send(b"who").is_err() || socket.recv(&mut [0; 64]).is_err(),
                "an error from {line} is lost"
            );
        }
        Ok(())
    })
}

#[test]
fn the_lines_begin_nothing_in_the_school_and_nothing_through_it() -> Result<()> {
    in_namespaces(|| {
        let world = World::raise(schools::six_zones()?)?;
        let plan = &world.plan;
        let mut targets: Vec<IpAddr> = plan.zones.keys().map(|id| host4(plan, id).into()).collect();
        targets.extend(plan.zones.keys().filter_map(|id| host6(plan, id)).map(IpAddr::V6));
        targets.push(world.inside4("affairs", AFFAIRS)?.into());
        targets.push(world.inside6("learning", DRILL)?.into());
        // Through the gateway to the other line.
        let (across, back): (IpAddr, IpAddr) = ("10.50.0.80".parse()?, "198.51.100.1".parse()?);
        sh(
            "carrier",
            "ip address add 2001:db8:c::2/64 dev eth0 nodad; ip route add default via fe80::1 dev eth0 onlink",
        )?;
        std::thread::scope(|scope| {
            let ask_all = |node: &'static str, other: IpAddr| {
                let targets = targets.iter().copied().chain([other]);
                let all: Vec<_> = targets
                    .flat_map(|to| [(to, Kind::Tcp(443)), (to, Kind::Udp(7000)), (to, Kind::Ping)])
                    .map(|(to, kind)| (to, kind, scope.spawn(move || ask(node, to, kind))))
                    .collect();
                for (to, kind, thread) in all {
                    let seen = thread.join().map_err(|_| anyhow::anyhow!("panicked"))??;
                    ensure!(seen.node().is_none(), "{node} → {to} {kind:?}: {seen:?}");
                }
                Ok(())
            };
            ask_all("carrier", back)?;
            ask_all("internet", across)
        })?;
        // With sources of the school's own.
        let printers = host4(plan, &zone("printers"));
        let printers6 = host6(plan, &zone("printers")).context("v6")?;
        for line in ["carrier", "internet"] {
            for (source, to) in [("10.20.4.100", IpAddr::V4(printers)), ("fd20:0:0:4::100", printers6.into())]
            {
                send_as(
                    line,
                    SocketAddr::new(source.parse()?, 5555),
                    (to, 7000).into(),
                    &format!("{line} as {source}"),
                )?;
            }
        }
        ask("affairs", HUB.into(), Kind::Ping)?;
        ask("guest", FAR.into(), Kind::Ping)?;
        for zone in plan.zones.keys() {
            for (from, to) in world.arrived(zone.as_str())? {
                // The gateway's own talk about multicast groups.
                if from.is_unspecified() || to.is_multicast() {
                    continue;
                }
                ensure!(["affairs", "guest"].contains(&zone.as_str()), "{from} → {to} came to {zone}");
                ensure!(from == HUB || from == FAR, "{from} → {to} came to {zone}");
            }
        }
        Ok(())
    })
}

/// Which interfaces the client's port was seen on, before anything was decided.
const TRIES: &str = "table inet tries {
    set tried4 { type ifname; flags dynamic; size 64; }
    set tried6 { type ifname; flags dynamic; size 64; }
    chain first { type filter hook prerouting priority -300;
        meta nfproto ipv4 udp sport 6000 add @tried4 { iifname };
        meta nfproto ipv6 udp sport 6000 add @tried6 { iifname };
    }
}";

/// For what takes its time.
fn until(mut holds: impl FnMut() -> bool) -> Result<()> {
    for _ in 0..200 {
        if holds() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    anyhow::bail!("not within a second")
}
