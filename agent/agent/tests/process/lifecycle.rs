//! Start, stop, kill and start again.

use anyhow::{Context as _, Result, ensure};
use seimon_ipc::control::{Command, Response};

use crate::harness::agent::{Setup, lockdown};
use crate::harness::traffic::{FAR, Sender, Sink, at_work, echo_service};
use crate::harness::world::{World, in_world, inside};
use crate::harness::{kernel, millis, secs, until};

/// The gateway's system has configured the network by itself, and forwards whatever comes.
fn open_gate(world: &World) -> Result<()> {
    world
        .gw("ip address add 10.20.1.1/24 dev lan1; ip link set lan1 up
         ip address add 10.20.2.1/24 dev lan2; ip link set lan2 up
         ip address add 10.10.0.1/30 dev wan1; ip link set wan1 up
         ip route add default via 10.10.0.2
         echo 1 >/proc/sys/net/ipv4/ip_forward")
        .map(drop)
}

#[test]
fn nothing_is_forwarded_from_lockdown_until_the_policy_is_in_force() -> Result<()> {
    in_world(|world| {
        let sink = Sink::listen("carrier", FAR)?;
        open_gate(world)?;
        // Nobody permits the affairs zone this destination; the learning zone may go anywhere.
        let forbidden = Sender::start("affairs", FAR)?;
        sink.wait_more(secs(5))?;
        lockdown()?;
        ensure!(!kernel::forwarding(world)?);
        sink.stays_silent(&forbidden, millis(200))?;
        let agent = Setup::new(world).start()?;
        ensure!(kernel::forwarding(world)?);
        sink.stays_silent(&forbidden, millis(500))?;
        drop(forbidden);
        let permitted = Sender::start("learning", FAR)?;
        sink.wait_more(secs(5))?;
        drop(permitted);
        agent.stop()
    })
}

#[test]
fn an_open_gate_without_our_table_is_closed_before_anything_else_is_read() -> Result<()> {
    in_world(|world| {
        let sink = Sink::listen("carrier", FAR)?;
        open_gate(world)?;
        let sender = Sender::start("learning", FAR)?;
        sink.wait_more(secs(5))?;
        std::fs::write(world.path("plan.toml"), "version = 1\nnonsense = true\n")?;
        let ended = Setup::new(world).fail()?;
        ensure!(ended.status.code() == Some(1), "{}", ended.log);
        sink.stays_silent(&sender, millis(200))
    })
}

#[test]
fn forwarding_is_switched_on_only_when_the_table_is_there() -> Result<()> {
    in_world(|world| {
        let agent = Setup::new(world).spawn()?;
        let process = rustix::process::Pid::from_raw(i32::try_from(agent.pid())?).context("a process id")?;
        // The agent is stopped in the moment after, and the table looked for at leisure.
        inside("gw", || {
            let begun = std::time::Instant::now();
            while std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?.trim() != "1" {
                ensure!(begun.elapsed() < secs(10), "no forwarding");
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
            Ok(rustix::process::kill_process(process, rustix::process::Signal::STOP)?)
        })?;
        let chain = world.gw("nft list table inet seimon | grep -c 'hook forward'");
        rustix::process::kill_process(process, rustix::process::Signal::CONT)?;
        ensure!(chain.is_ok(), "forwarding without a table");
        agent.stop()
    })
}

#[test]
fn a_stop_closes_forwarding_and_keeps_what_was_learnt() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let (agent, sink, sender) = at_work(&Setup::new(world))?;
        let affinity = "nft list set inet seimon aff_1 | grep -c expires";
        until(secs(5), "affinity", || Ok(world.gw(affinity).is_ok()))?;
        agent.stop()?;
        ensure!(kernel::table_exists(world));
        ensure!(world.gw(affinity).is_ok(), "affinity is gone");
        let flows = world.gw("conntrack -L -p udp --dport 9999 2>/dev/null | grep -c mark")?;
        ensure!(flows.trim() != "0", "conntrack is empty");
        sink.stays_silent(&sender, millis(300))?;
        // And it is opened again.
        let agent = Setup::new(world).start()?;
        sink.wait_more(secs(5))?;
        drop(sender);
        agent.stop()
    })
}

#[test]
fn lockdown_may_be_repeated_with_and_without_a_table() -> Result<()> {
    in_world(|world| {
        let sink = Sink::listen("carrier", FAR)?;
        world.gw("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")?;
        lockdown()?;
        lockdown()?;
        ensure!(!kernel::forwarding(world)?);
        ensure!(world.gw("cat /proc/sys/net/ipv6/conf/all/forwarding")?.trim() == "0");
        let agent = Setup::new(world).start()?;
        let sender = Sender::start("learning", FAR)?;
        sink.wait_more(secs(5))?;
        agent.kill()?;
        // The kernel goes on by itself while no agent runs.
        sink.wait_more(secs(2))?;
        lockdown()?;
        sink.stays_silent(&sender, millis(200))?;
        lockdown()?;
        ensure!(kernel::table_exists(world));
        Ok(())
    })
}

#[test]
fn a_start_after_kill_touches_nothing_and_interrupts_nobody() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let sink = Sink::listen("carrier", FAR)?;
        let setup = Setup::new(world);
        let agent = setup.start()?;
        let generation = agent.sockets.status()?.generation;
        let sender = Sender::start("learning", FAR)?;
        sink.wait_more(secs(5))?;
        let before = (kernel::table(world)?, kernel::routing(world)?);
        agent.kill()?;
        let counted = (sender.sent(), sink.count());
        let agent = setup.start()?;
        std::thread::sleep(millis(300));
        let sent = sender.sent() - counted.0;
        let arrived = sink.count() - counted.1;
        ensure!(arrived + 10 >= sent, "{sent} datagrams were sent and {arrived} arrived");
        let after = (kernel::table(world)?, kernel::routing(world)?);
        ensure!(before.0 == after.0, "the table was changed:\n{}\n{}", before.0, after.0);
        ensure!(before.1 == after.1, "routing was changed:\n{}\n{}", before.1, after.1);
        let status = agent.sockets.status()?;
        ensure!(status.generation == generation, "generation {} is now {}", generation, status.generation);
        ensure!(status.dataplane.repairs == 0);
        drop(sender);
        agent.stop()
    })
}

#[test]
fn events_of_the_next_run_have_higher_numbers() -> Result<()> {
    in_world(|world| {
        let setup = Setup::new(world);
        let mut last = 0;
        for _ in 0..3 {
            let agent = setup.start()?;
            let numbers: Vec<u64> = agent.sockets.events()?.iter().map(|event| event.seq).collect();
            ensure!(numbers.first().is_some_and(|first| *first > last), "{numbers:?} after {last}");
            ensure!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
            last = numbers.last().copied().unwrap_or(last);
            agent.kill()?;
        }
        Ok(())
    })
}

#[test]
fn a_second_agent_ends_with_the_reason_and_disturbs_nothing() -> Result<()> {
    in_world(|world| {
        let setup = Setup::new(world);
        let agent = setup.start()?;
        let before = (kernel::table(world)?, kernel::routing(world)?);
        let second = setup.clone().log(world.path("second.log")).fail()?;
        ensure!(second.status.code() == Some(1), "{}", second.log);
        ensure!(second.log.contains("already running"), "{}", second.log);
        // Nor with a state directory of its own.
        let third = setup.clone().state(world.path("state-3")).log(world.path("third.log")).fail()?;
        ensure!(third.status.code() == Some(1), "{}", third.log);
        ensure!(third.log.contains("already running"), "{}", third.log);
        ensure!(before == (kernel::table(world)?, kernel::routing(world)?));
        let status = agent.sockets.status()?;
        ensure!(status.dataplane.verified && status.dataplane.repairs == 0);
        let answer = agent.sockets.ask(Command::PlanShow)?;
        ensure!(matches!(answer, Response::Plan { .. }));
        ensure!(agent.sockets.metrics()?.contains("seimon_generation"));
        agent.stop()
    })
}
