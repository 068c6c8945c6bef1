//! Schools that come, go and change their keys, while others are at work.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use seimon_dataplane::PrivateKey;
use seimon_ipc::control::{Command, Response};
use seimon_plan::WireguardKey;

use crate::harness::{TOWN, ask, connect, in_world, inside, of_a, of_b, plan, school, sh, until};

const PATIENCE: Duration = Duration::from_secs(8);

/// A school that asks the town something every five milliseconds, and notes what is not answered.
struct Work {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Done>>,
}

#[derive(Debug)]
struct Done {
    asked: u64,
    lost: u64,
    longest: Duration,
}

impl Work {
    fn begin(node: &str, from: &str) -> Result<Self> {
        // The handshake is not what is looked at.
        ask(node, from, TOWN, PATIENCE)?;
        let socket = inside(node, || Ok(UdpSocket::bind(format!("{from}:0"))?))?;
        socket.connect(TOWN)?;
        // Long enough for a busy machine: what is not answered then is lost.
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut done = Done { asked: 0, lost: 0, longest: Duration::ZERO };
            let mut buffer = [0; 16];
            while !stopped.load(Ordering::Relaxed) {
                done.asked += 1;
                let begun = Instant::now();
                socket.send(&done.asked.to_be_bytes())?;
                loop {
                    match socket.recv(&mut buffer) {
                        Ok(8) if buffer[..8] == done.asked.to_be_bytes() => break,
                        // An answer that came too late for its question.
                        Ok(_) => {}
                        Err(_) => {
                            done.lost += 1;
                            break;
                        }
                    }
                }
                done.longest = done.longest.max(begun.elapsed());
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(done)
        });
        Ok(Self { stop, thread })
    }

    fn end(self) -> Result<Done> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the worker panicked"))?
    }
}

fn strangers(count: u8) -> Vec<String> {
    (0..count)
        .map(|n| {
            let key = PrivateKey::generate().public();
            let prefixes = format!("prefixes = [\"10.30.{n}.0/24\"]\ncap = {{ kbit = 5000 }}");
            school(&format!("other-{n}"), &format!("10.60.2.{}", n + 1), &[key], &prefixes)
        })
        .collect()
}

#[test]
fn schools_that_come_and_go_touch_nobody_else() -> Result<()> {
    in_world(|world| {
        let work = Work::begin("a", "10.60.1.2")?;
        let (a, b) = (of_a(&world.a), of_b(&world.b));
        let handshake = |world: &crate::harness::World| world.agent.school("a").map(|end| end.handshake_s);
        let before = handshake(world)?.context("a handshake")?;
        let table = sh("hub", "nft -s -a -t list chain inet seimon between")?;
        for round in 0..3 {
            world.agent.apply(&plan(std::slice::from_ref(&a)))?;
            ensure!(world.agent.status()?.schools.len() == 1);
            ensure!(
                ask("b", "10.60.1.3", TOWN, Duration::from_millis(700)).is_err(),
                "b is out, and gets through"
            );
            let mut all = vec![a.clone(), b.clone()];
            all.extend(strangers(round * 20));
            world.agent.apply(&plan(&all))?;
            // It has to find out that its session is gone.
            until(30, "b is back", || Ok(ask("b", "10.60.1.3", TOWN, Duration::from_secs(1)).ok()))?;
        }
        let done = work.end()?;
        ensure!(done.lost == 0 && done.asked > 200, "{done:?}");
        eprintln!("while others came and went: {done:?}");
        let after = handshake(world)?.context("a handshake")?;
        ensure!(after > before, "a has shaken hands anew: {before} s, then {after} s ago");
        ensure!(table.contains("chain between"), "{table}");
        Ok(())
    })
}

#[test]
fn a_school_changes_its_key_and_keeps_its_connection_and_others_notice_nothing() -> Result<()> {
    in_world(|world| {
        let mut connection = connect("b", "10.60.1.3", TOWN, PATIENCE)?;
        connection.exchange(10_000, PATIENCE)?;
        let work = Work::begin("a", "10.60.1.2")?;
        let (old, next) = (world.b.key, PrivateKey::generate());
        let with = |keys: &[WireguardKey], a: String| {
            plan(&[a, school("b", "10.60.1.3", keys, "prefixes = [\"10.21.1.0/24\"]")])
        };
        world.agent.apply(&with(&[old, next.public()], of_a(&world.a)))?;
        connection.exchange(10_000, PATIENCE)?;
        ensure!(world.agent.school("b")?.key == Some(old.to_string()));
        world.b.switch_to(&next)?;
        let took = connection.exchange(10_000, Duration::from_secs(20))?;
        eprintln!("the connection stood still for {took:?}");
        ensure!(took < Duration::from_secs(5), "it stood still for {took:?}");
        let new = next.public().to_string();
        until(3, "the new key", || Ok((world.agent.school("b")?.key.as_ref() == Some(&new)).then_some(())))?;
        ensure!(
            world.agent.events()?.iter().any(|event| event.reason.en.contains("uses another of its keys"))
        );
        world.agent.apply(&with(&[next.public()], of_a(&world.a)))?;
        connection.exchange(10_000, PATIENCE)?;
        let done = work.end()?;
        ensure!(done.lost == 0 && done.asked > 8, "{done:?}");
        Ok(())
    })
}

#[test]
fn a_cap_holds_for_flows_under_way_and_goes_again() -> Result<()> {
    in_world(|world| {
        let mut connection = connect("b", "10.21.1.5", TOWN, PATIENCE)?;
        let with = |cap: &str| {
            let more = format!("prefixes = [\"10.21.1.0/24\"]\n{cap}");
            plan(&[of_a(&world.a), school("b", "10.60.1.3", &[world.b.key], &more)])
        };
        world.agent.apply(&with("cap = { kbit = 4000 }"))?;
        let capped = connection.exchange(2_500_000, Duration::from_secs(60))?;
        // 20 Mbit at 4 Mbit/s; a second's worth passes at once.
        ensure!(capped > Duration::from_millis(3_800), "2.5 MB each way in {capped:?}: above the cap");
        world.agent.apply(&with(""))?;
        let free = connection.exchange(2_500_000, Duration::from_secs(60))?;
        eprintln!("2.5 MB each way: {capped:?} with a cap of 4 Mbit/s, {free:?} without");
        ensure!(free < capped, "{free:?} without, {capped:?} with a cap");
        Ok(())
    })
}

#[test]
fn a_plan_with_mistakes_changes_nothing_and_every_mistake_is_told() -> Result<()> {
    in_world(|world| {
        let key = world.a.key;
        let bad = plan(&[
            of_a(&world.a),
            school("b", "10.61.1.3", &[key], "prefixes = [\"10.20.3.0/24\"]\negress = \"198.51.100.99\""),
        ]);
        let answer = world.agent.ask(Command::Apply { plan: bad, file: "new.toml".to_owned() })?;
        let Response::Refused { reasons } = answer else { bail!("taken: {answer:?}") };
        for rule in ["hub/school-address", "hub/key", "hub/overlap", "hub/egress"] {
            ensure!(reasons.iter().any(|reason| reason.en.contains(rule)), "{rule}: {reasons:?}");
        }
        ask("b", "10.60.1.3", TOWN, PATIENCE)?;
        ensure!(world.agent.status()?.generation == 1);
        Ok(())
    })
}

#[test]
fn a_restart_begins_with_the_plan_that_was_applied_and_keeps_the_hubs_key() -> Result<()> {
    in_world(|world| {
        world.agent.apply(&plan(&[of_b(&world.b)]))?;
        let key = world.agent.status()?.public_key;
        ask("b", "10.60.1.3", TOWN, PATIENCE)?;
        // So that the agent knows where it is.
        world.agent.status()?;
        world.agent.kill()?;
        let begun = Instant::now();
        world.agent = crate::harness::Agent::spawn()?;
        world.agent.wait_ready()?;
        // b would find out by itself only after fifteen seconds.
        until(8, "b is back", || Ok(ask("b", "10.60.1.3", TOWN, Duration::from_millis(500)).ok()))?;
        eprintln!("back {:?} after the hub was killed", begun.elapsed());
        let status = world.agent.status()?;
        ensure!(status.public_key == key && status.generation == 2, "{status:?}");
        ensure!(status.schools.len() == 1, "the applied plan counts, not the file");
        Ok(())
    })
}
