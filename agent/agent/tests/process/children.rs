//! The processes beside the agent: killed, and looked at from outside.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};

use crate::harness::agent::{Agent, Setup, process_fact, processes};
use crate::harness::traffic::{echo_service, look_up, name_service};
use crate::harness::world::in_world;
use crate::harness::{eventually, secs, until};

const NAME: &str = "affairs.school.example";
const REAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// The one process with this name.
fn only(name: &str) -> Result<u32> {
    // The kernel shows 15 bytes of a name.
    let shown: String = name.chars().take(15).collect();
    eventually(secs(5), name, || match processes(&shown)[..] {
        [pid] => Ok(Some(pid)),
        _ => Ok(None),
    })
}

/// The inside address that the resolver gives a client in the affairs zone.
fn inside_address() -> Result<Ipv4Addr> {
    eventually(secs(5), "an answer to a question for the service", || {
        Ok(match look_up("affairs", "10.20.1.1", NAME)? {
            Some((0, addresses)) => addresses.first().copied(),
            _ => None,
        })
    })
}

fn paths_up(agent: &Agent) -> Result<bool> {
    Ok(agent.sockets.status()?.paths.iter().all(|path| path.health == "up"))
}

#[test]
fn a_killed_resolver_is_back_within_two_seconds_with_the_same_addresses() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        name_service(REAL)?;
        let agent = Setup::new(world).start()?;
        let before = inside_address()?;
        ensure!(before.octets()[..2] == [100, 127], "{before}");
        let old = only("seimon-resolver")?;
        world.sh(&format!("kill -9 {old}"))?;
        let begun = std::time::Instant::now();
        let after = inside_address()?;
        ensure!(begun.elapsed() < secs(2), "back after {:?}", begun.elapsed());
        ensure!(after == before, "{before} has become {after}");
        ensure!(only("seimon-resolver")? != old);
        ensure!(agent.sockets.metrics()?.contains("seimon_child_starts_total{child=\"seimon-resolver\"} 2"));
        agent.stop()?;
        ensure!(processes("seimon-resolver").is_empty() && processes("seimon-probe").is_empty());
        Ok(())
    })
}

#[test]
fn a_killed_probe_is_back_and_says_nothing_about_paths() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let agent = Setup::new(world).start()?;
        until(secs(15), "paths up", || paths_up(&agent)).with_context(|| agent.log())?;
        // The pauses grow: in the end there is none for longer than a path may be silent.
        for _ in 0..5 {
            let old = only("seimon-probe")?;
            world.sh(&format!("kill -9 {old}"))?;
            until(secs(8), "another probe", || {
                ensure!(paths_up(&agent)?, "{}", agent.log());
                Ok(processes("seimon-probe").iter().any(|pid| *pid != old))
            })?;
        }
        for _ in 0..20 {
            ensure!(paths_up(&agent)?, "{}", agent.log());
            std::thread::sleep(crate::harness::millis(100));
        }
        let events = agent.sockets.events()?;
        ensure!(!events.iter().any(|e| e.kind == "path" && e.to.as_deref() == Some("down")), "{events:?}");
        // It does measure again.
        world.at("carrier", "ip address del 203.0.113.7/32 dev eth0")?;
        until(secs(10), "the closed path is down", || {
            Ok(agent
                .sockets
                .status()?
                .paths
                .iter()
                .any(|p| p.path.as_str() == "closed" && p.health == "down"))
        })?;
        agent.stop()
    })
}

#[test]
fn a_probe_that_hangs_is_replaced_and_says_nothing_about_paths() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let agent = Setup::new(world).start()?;
        until(secs(15), "paths up", || paths_up(&agent)).with_context(|| agent.log())?;
        let old = only("seimon-probe")?;
        world.sh(&format!("kill -STOP {old}"))?;
        until(secs(10), "another probe", || {
            ensure!(paths_up(&agent)?, "{}", agent.log());
            Ok(!processes("seimon-probe").is_empty() && !processes("seimon-probe").contains(&old))
        })?;
        ensure!(agent.log().contains("said nothing"), "{}", agent.log());
        agent.stop()
    })
}

#[test]
fn children_have_no_capabilities_and_cannot_get_any() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        name_service(REAL)?;
        let agent = Setup::new(world).start()?;
        inside_address()?;
        until(secs(15), "paths up", || paths_up(&agent)).with_context(|| agent.log())?;
        for name in ["seimon-resolver", "seimon-probe"] {
            for pid in processes(&name.chars().take(15).collect::<String>()) {
                for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                    let value = process_fact(pid, set)?;
                    ensure!(value.trim_matches('0').is_empty(), "{name} {set}: {value}");
                }
                ensure!(process_fact(pid, "NoNewPrivs")? == "1", "{name}");
            }
        }
        // Only the agent is in the gateway's network with powers there.
        ensure!(process_fact(agent.pid(), "CapEff")?.trim_matches('0') != "");
        agent.stop()
    })
}

#[test]
fn children_do_not_outlive_a_killed_agent() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let agent = Setup::new(world).start()?;
        only("seimon-resolver")?;
        only("seimon-probe")?;
        agent.kill()?;
        until(secs(3), "the children end", || {
            Ok(processes("seimon-resolver").is_empty() && processes("seimon-probe").is_empty())
        })
    })
}
