//! What stays and what goes when the kernel is told something new.

use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use seimon_core::network_plan::{Change, Dataplane as _, FlowKill, PathChoice, PathIndex, lockdown};

use crate::probing::{Kind, Seen, ask, connect, who};
use crate::schools;
use crate::world::{FAR, FAR6, HUB, World, in_namespaces, inside, path, sh};

const AFFAIRS: &str = "affairs.school.example";

fn closed(world: &World) -> PathIndex {
    world.net.allocation.paths[&path("closed")]
}

#[test]
fn one_element_moves_new_clients_and_leaves_flows_and_log_ins_where_they_are() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise(schools::two_line_town()?)?;
        // A second machine in the zone, with a MAC address of its own.
        sh(
            "affairs",
            "ip netns add second; ip link add link eth0 name mv type macvlan mode bridge; ip link set mv netns second name eth0",
        )?;
        sh(
            "second",
            "ip link set lo up; ip address add 10.20.1.101/24 dev eth0; ip link set eth0 up; ip route add default via 10.20.1.1",
        )?;
        let service = world.inside4("affairs", AFFAIRS)?;
        let to: SocketAddr = (service, 443).into();
        let on = |node: &str| ask(node, service.into(), Kind::Tcp(443));
        let mut old = connect("affairs", to)?;
        ensure!(who(&mut old)? == "carrier");
        world.choose("affairs", "affairs", &PathChoice::On(path("direct")))?;
        ensure!(who(&mut old)? == "carrier", "a flow under way");
        ensure!(on("affairs")?.node() == Some("carrier"), "a client that is logged in");
        ensure!(on("second")?.node() == Some("internet"), "a client that begins");
        let remove = world.linux.affinity(&[closed(&world)])?;
        ensure!(remove.len() == 1, "one client is on the closed path: {remove:?}");
        world.apply(Change::Affinity { add: Vec::new(), remove })?;
        ensure!(on("affairs")?.node() == Some("internet"), "nothing holds it any more");
        ensure!(who(&mut old)? == "carrier", "the flow still under way");
        world.choose("affairs", "affairs", &PathChoice::On(path("closed")))?;
        ensure!(on("second")?.node() == Some("internet"), "it has logged in on the direct path meanwhile");
        world.nothing_has_leaked()
    })
}

#[test]
fn a_flow_whose_entry_is_gone_is_reset_at_once_and_may_begin_again() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise(schools::two_line_town()?)?;
        world.choose("affairs", "affairs", &PathChoice::On(path("direct")))?;
        let (four, six) = (world.inside4("affairs", AFFAIRS)?, world.inside6("affairs", AFFAIRS)?);
        for service in [IpAddr::V4(four), IpAddr::V6(six)] {
            let mut took = Vec::new();
            for _ in 0..5 {
                let mut stream = connect("affairs", (service, 443).into())?;
                ensure!(who(&mut stream)? == "internet");
                let kill = FlowKill {
                    path: Some(world.net.allocation.paths[&path("direct")]),
                    ..FlowKill::default()
                };
                world.apply(Change::Kill(kill))?;
                let begun = Instant::now();
                let error = who(&mut stream).err().context("the flow should be gone")?;
                took.push(begun.elapsed());
                ensure!(error.kind() == ErrorKind::ConnectionReset, "{service}: {error}");
            }
            took.sort();
            ensure!(took[2] < Duration::from_millis(100), "{service}: {took:?}");
            ensure!(ask("affairs", service, Kind::Tcp(443))?.node() == Some("internet"));
        }
        Ok(())
    })
}

/// Asks for things that are permitted, all at once: who answered.
fn answers() -> Result<Vec<String>> {
    let targets =
        [HUB.into(), IpAddr::V4(FAR), FAR6.into(), "10.20.3.100".parse()?, "fd20:0:0:3::100".parse()?];
    let asked: Vec<(&str, IpAddr, Kind)> = ["affairs", "staff", "guest"]
        .into_iter()
        .flat_map(|node| targets.map(|to| [(node, to, Kind::Tcp(631)), (node, to, Kind::Udp(7000))]))
        .flatten()
        .collect();
    std::thread::scope(|scope| {
        let all: Vec<_> =
            asked.iter().map(|(node, to, kind)| scope.spawn(|| ask(node, *to, *kind))).collect();
        let mut answers = Vec::new();
        for ((node, to, kind), thread) in asked.iter().zip(all) {
            if let Seen::Answer { by, from: _ } = thread.join().map_err(|_| anyhow::anyhow!("panicked"))?? {
                answers.push(format!("{node} → {to} {kind:?}: {by}"));
            }
        }
        Ok(answers)
    })
}

/// One flow of each kind.
fn flows() -> Result<Vec<(&'static str, TcpStream)>> {
    Ok(vec![
        ("carrier", connect("affairs", (HUB, 443).into())?),
        ("internet", connect("guest", (FAR, 443).into())?),
        ("internet", connect("guest", (FAR6, 443).into())?),
        ("printers", connect("staff", "10.20.3.100:631".parse()?)?),
        ("printers", connect("staff", "[fd20:0:0:3::100]:631".parse()?)?),
    ])
}

/// Whether each is answered.
fn talk(streams: &mut [(&'static str, TcpStream)]) -> Result<Vec<bool>> {
    std::thread::scope(|scope| {
        let all: Vec<_> = streams
            .iter_mut()
            .map(|(by, stream)| scope.spawn(|| who(stream).is_ok_and(|seen| seen.starts_with(*by))))
            .collect();
        all.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("panicked"))).collect()
    })
}

fn shut_and_open(shut: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
    let mut world = World::raise(schools::six_zones()?)?;
    let mut streams = flows()?;
    ensure!(talk(&mut streams)? == [true; 5]);
    ensure!(answers()?.len() > 8, "only {:?}", answers()?);
    shut(&mut world)?;
    let got = answers()?;
    ensure!(got.is_empty(), "{got:?}");
    let got = talk(&mut streams)?;
    ensure!(got == [false; 5], "flows under way: {got:?}");
    world.converge()?;
    // What was sent in vain is sent again.
    for (_, stream) in &mut streams {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    }
    let got = talk(&mut streams)?;
    ensure!(got == [true; 5], "flows under way do not go on: {got:?}");
    ensure!(answers()?.len() > 8, "afterwards");
    Ok(())
}

#[test]
fn nothing_is_forwarded_under_lockdown_and_flows_go_on_after_it() -> Result<()> {
    in_namespaces(|| {
        shut_and_open(|world| {
            let table = world.linux.observe(&[])?.table.context("our table")?;
            world.apply(Change::Nft { script: lockdown(&table) })
        })
    })
}

#[test]
fn nothing_is_forwarded_after_a_foreign_flush_and_flows_go_on_after_its_repair() -> Result<()> {
    in_namespaces(|| shut_and_open(|_| sh("gw", "nft flush ruleset").map(drop)))
}

/// What a transaction puts into force, it does not put into force all at once: an open zone's guest tries all the time.
#[test]
fn nothing_private_is_reached_while_the_table_is_made_anew() -> Result<()> {
    const PRIVATE: &str = "10.66.0.10";
    in_namespaces(|| {
        let mut world = World::raise(schools::six_zones()?)?;
        let over = AtomicBool::new(false);
        let tries = std::thread::scope(|scope| -> Result<u64> {
            let guest = scope.spawn(|| {
                inside("guest", || {
                    let to: SocketAddr = (PRIVATE.parse::<IpAddr>()?, 7000).into();
                    let mut tries = 0;
                    while !over.load(Ordering::Relaxed) {
                        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
                        for _ in 0..64 {
                            // A refusal of the packet before is told here.
                            tries += u64::from(socket.send_to(b"?", to).is_ok());
                        }
                    }
                    Ok(tries)
                })
            });
            let made_anew: Result<()> = (0..25).try_for_each(|_| {
                sh("gw", "nft flush ruleset")?;
                world.converge()
            });
            over.store(true, Ordering::Relaxed);
            let tries = guest.join().map_err(|_| anyhow::anyhow!("the guest panicked"))??;
            made_anew.map(|()| tries)
        })?;
        ensure!(tries > 10_000, "the guest tried {tries} times only");
        let private: IpAddr = PRIVATE.parse()?;
        for line in ["carrier", "internet"] {
            let arrived = world.arrived(line)?;
            ensure!(!arrived.iter().any(|(_, to)| *to == private), "{line}: {arrived:?}");
        }
        Ok(())
    })
}

#[test]
fn the_bits_of_others_stay_in_packet_and_flow_marks() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise(schools::six_zones()?)?;
        sh(
            "gw",
            "nft 'table inet others {
            counter marked { }
            counter spoilt { }
            chain first { type filter hook prerouting priority -190;
                meta mark set meta mark | 0xab000000;
                ct state new ct mark set ct mark | 0xcd000000;
            }
            chain last { type filter hook forward priority 300;
                counter name marked;
                meta mark & 0xff000000 != 0xab000000 counter name spoilt;
                ct mark & 0xff000000 != 0xcd000000 counter name spoilt;
            }
            chain input { type filter hook input priority 300;
                meta mark & 0xff000000 != 0xab000000 counter name spoilt;
            }
        }'",
        )?;
        for (node, to, kind, by) in [
            ("affairs", HUB.into(), Kind::Tcp(443), "carrier"),
            ("affairs", world.inside4("affairs", AFFAIRS)?.into(), Kind::Tcp(443), "carrier"),
            ("learning", FAR.into(), Kind::Udp(7000), "carrier"),
            ("guest", FAR.into(), Kind::Tcp(443), "internet"),
            ("guest", FAR6.into(), Kind::Udp(7000), "internet"),
            ("staff", "10.20.3.100".parse()?, Kind::Tcp(9100), "printers"),
            ("affairs", "10.20.1.1".parse()?, Kind::Tcp(53), "gw"),
        ] {
            let seen = ask(node, to, kind)?;
            ensure!(seen.node() == Some(by), "{node} → {to}: {seen:?}");
        }
        let count = |name: &str| -> Result<u64> {
            let listing = sh("gw", &format!("nft list counter inet others {name}"))?;
            let words: Vec<&str> = listing.split_whitespace().collect();
            let at = words.iter().rposition(|word| *word == "packets").context("a counter")?;
            Ok(words[at + 1].parse()?)
        };
        ensure!(count("marked")? > 20, "their marks were seen on {} packets only", count("marked")?);
        ensure!(count("spoilt")? == 0, "{} packets lost others' bits", count("spoilt")?);
        let flows = world.linux.flows()?;
        // Not the gateway's own: the foreign chain marks what comes in.
        let flows: Vec<_> = flows.iter().filter(|flow| flow.source.to_string().ends_with("100")).collect();
        ensure!(flows.len() >= 6, "{flows:?}");
        for flow in flows {
            let mark = flow.mark.0;
            ensure!(mark & 0xff00_0000 == 0xcd00_0000, "{mark:#x}");
            ensure!(mark & 0xff != 0, "{mark:#x}");
        }
        Ok(())
    })
}

/// Of the six zones' internet line.
const LINE_MTU: u16 = 1454;

#[test]
fn too_large_packets_are_reported_to_the_sender() -> Result<()> {
    in_namespaces(|| {
        let world = World::raise(schools::six_zones()?)?;
        // The far end of the line would take whole packets: only the gateway knows how narrow the line is. Beyond it, a
        // narrower place still.
        sh(
            "internet",
            "ip link set eth0 mtu 1500; ip netns add beyond; ip link add eth1 mtu 1300 type veth peer name eth0 netns beyond; \
            ip link set eth1 up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; \
            ip address add 198.51.100.1/24 dev eth1; ip address add 2001:db8:bb::1/64 dev eth1 nodad; \
            ip -n beyond link set lo up; ip -n beyond link set eth0 up; ip -n beyond address add 198.51.100.2/24 dev eth0; \
            ip -n beyond address add 2001:db8:bb::2/64 dev eth0 nodad; ip -n beyond route add default via 198.51.100.1; \
            ip -n beyond route add default via 2001:db8:bb::1",
        )?;
        crate::probing::serve("beyond", &[], &[443], &[])?;
        for (to, mtu) in [
            ("203.0.113.99", LINE_MTU),
            ("2001:db8:113::99", LINE_MTU),
            ("198.51.100.2", 1300),
            ("2001:db8:bb::2", 1300),
        ] {
            let to: IpAddr = to.parse()?;
            let mut stream = connect("guest", (to, 443).into())?;
            stream.set_write_timeout(Some(Duration::from_secs(3)))?;
            let mut heard = stream.try_clone()?;
            let reader = std::thread::spawn(move || std::io::copy(&mut heard, &mut std::io::sink()));
            let bulk = vec![7; 300_000];
            stream.write_all(&bulk).with_context(|| format!("{to}: the upload stalls"))?;
            stream.shutdown(std::net::Shutdown::Write)?;
            reader
                .join()
                .map_err(|_| anyhow::anyhow!("panicked"))?
                .with_context(|| format!("{to}: no end"))?;
            let ask = format!("ip route get {to}");
            let learnt = |route: &str| route.contains(&format!("mtu {mtu}"));
            if mtu == LINE_MTU {
                // The handshake has said it, both ways: no segment was ever too large.
                let route = sh("guest", &ask)?;
                ensure!(!route.contains("mtu"), "{to}: segments did not fit the line: {route}");
                inside("guest", || {
                    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() };
                    let socket = std::net::UdpSocket::bind((any, 0))?;
                    Ok(socket.send_to(&[0; 1440], (to, 443))?)
                })?;
            }
            let end = Instant::now() + Duration::from_secs(1);
            let mut route = sh("guest", &ask)?;
            while !learnt(&route) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
                route = sh("guest", &ask)?;
            }
            ensure!(learnt(&route), "{to}: the sender has not learnt {mtu}: {route}");
        }
        drop(world);
        Ok(())
    })
}
