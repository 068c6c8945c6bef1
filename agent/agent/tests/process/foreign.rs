//! What others have in the kernel, and what others do to ours.

use anyhow::{Context as _, Result, ensure};

use crate::harness::agent::{Agent, Setup};
use crate::harness::traffic::{FAR, Sender, Sink, at_work, echo_service};
use crate::harness::world::{PLAN, World, in_world};
use crate::harness::{kernel, millis, secs, until};

#[test]
fn what_others_have_is_untouched_by_start_apply_repair_and_stop() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let sink = Sink::listen("carrier", FAR)?;
        kernel::move_in(world)?;
        let before = kernel::theirs(world)?;
        let same = |after: &str| -> Result<()> {
            let now = kernel::theirs(world)?;
            ensure!(now == before, "after {after}:\n{before}\n{now}");
            Ok(())
        };
        let setup = Setup::new(world);
        let agent = setup.start()?;
        same("start")?;
        let sender = Sender::start("learning", FAR)?;
        sink.wait_more(secs(5))?;
        // Their mark bits stay on packets and connections, beside ours.
        until(
            secs(3),
            "their packet mark on forwarded packets",
            || Ok(kernel::marked_by_others(world)? > 0),
        )?;
        let flows = world.gw("conntrack -L -p udp --dport 9999 2>/dev/null")?;
        let marks: Vec<u32> =
            flows.split_whitespace().filter_map(|word| word.strip_prefix("mark=")?.parse().ok()).collect();
        ensure!(!marks.is_empty() && marks.iter().all(|mark| mark >> 30 == 1), "{flows}");
        ensure!(marks.iter().any(|mark| mark & 0xff != 0), "{flows}");
        let answer = agent.sockets.apply(&PLAN.replace("tcp/9100", "tcp/9101"))?;
        ensure!(matches!(answer, seimon_ipc::control::Response::Done { .. }), "{answer:?}");
        same("apply")?;
        world.gw("nft delete table inet seimon")?;
        repaired(&agent, 0)?;
        same("repair")?;
        agent.kill()?;
        let agent = setup.start()?;
        same("restart")?;
        sink.wait_more(secs(2))?;
        drop(sender);
        agent.stop()?;
        same("stop")
    })
}

/// Waits for more repairs than there were, and for a kernel that is as planned.
fn repaired(agent: &Agent, before: u64) -> Result<()> {
    until(secs(2), "a repair", || {
        let status = agent.sockets.status()?;
        Ok(status.dataplane.verified && status.dataplane.repairs > before)
    })
    .with_context(|| agent.log())
}

#[test]
fn a_flushed_ruleset_is_back_within_a_second_and_nothing_passes_meanwhile() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let sink = Sink::listen("carrier", FAR)?;
        let agent = Setup::new(world).start()?;
        // The system's own way out would carry whatever our rules do not stop.
        world.gw("ip route add default via 10.10.0.2 dev wan1 onlink")?;
        let permitted = Sender::start("learning", FAR)?;
        sink.wait_more(secs(5))?;
        let before = kernel::rules(world)?;
        // With the agent held, the gap is as long as we like.
        world.sh(&format!("kill -STOP {}", agent.pid()))?;
        world.gw("nft flush ruleset")?;
        let quiet = sink.stays_silent(&permitted, millis(300));
        world.sh(&format!("kill -CONT {}", agent.pid()))?;
        quiet?;
        let begun = std::time::Instant::now();
        until(secs(5), "the table", || Ok(kernel::table_exists(world)))?;
        sink.wait_more(secs(1))?;
        ensure!(begun.elapsed() < secs(1), "repaired after {:?}", begun.elapsed());
        drop(permitted);
        repaired(&agent, 0)?;
        ensure!(kernel::rules(world)? == before, "not the same table");
        ensure!(agent.sockets.has_event("dataplane", "put right")?);
        // Traffic that nobody permits does not pass in any gap, however often.
        let forbidden = Sender::start("affairs", FAR)?;
        let count = sink.count();
        for _ in 0..10 {
            world.gw("nft flush ruleset")?;
            std::thread::sleep(millis(70));
        }
        ensure!(forbidden.sent() > 50);
        drop(forbidden);
        ensure!(sink.count() == count, "{} datagrams passed", sink.count() - count);
        agent.stop()
    })
}

#[test]
fn clients_keep_their_path_when_others_flush_the_ruleset() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let (agent, _sink, sender) = at_work(&Setup::new(world))?;
        let affinity = "nft list set inet seimon aff_1 | grep expires";
        until(secs(5), "affinity", || Ok(world.gw(affinity).is_ok()))?;
        drop(sender);
        // Seen by the agent, which looks twice a second.
        until(secs(5), "the client in the status", || {
            Ok(agent.sockets.status()?.groups.iter().any(|group| group.clients.iter().any(|(_, n)| *n > 0)))
        })?;
        world.gw("nft flush ruleset")?;
        repaired(&agent, 0)?;
        world.gw(affinity).context("affinity is lost")?;
        agent.stop()
    })
}

/// Breaks something of ours, and waits until it is as before.
fn mended(world: &World, agent: &Agent, script: &str) -> Result<()> {
    let before = (kernel::rules(world)?, kernel::routing(world)?);
    let repairs = agent.sockets.status()?.dataplane.repairs;
    world.gw(script).context("the disturbance itself")?;
    repaired(agent, repairs).with_context(|| script.to_owned())?;
    let after = (kernel::rules(world)?, kernel::routing(world)?);
    ensure!(before.0 == after.0, "{script}: the table\n{}\n{}", before.0, after.0);
    ensure!(before.1 == after.1, "{script}: routing\n{}\n{}", before.1, after.1);
    Ok(())
}

fn each_is_mended(scripts: &'static [&'static str]) -> impl FnOnce(&World) -> Result<()> {
    move |world| {
        echo_service()?;
        let (agent, sink, sender) = at_work(&Setup::new(world))?;
        for script in scripts {
            mended(world, &agent, script)?;
            sink.wait_more(secs(2)).context(*script)?;
        }
        drop(sender);
        agent.stop()
    }
}

#[test]
fn rules_and_elements_that_others_delete_come_back() -> Result<()> {
    in_world(|world| {
        each_is_mended(&[
            "nft flush chain inet seimon between",
            "nft add rule inet seimon between accept",
            "nft delete element inet seimon arrivals '{ \"z-learning\" }'",
            "nft add element inet seimon carry '{ 0x1 . \"z-printers\" . \"wan1\" }'",
            "nft add chain inet seimon intruder",
        ])(world)
    })
}

#[test]
fn routing_that_others_delete_comes_back() -> Result<()> {
    in_world(|world| {
        each_is_mended(&[
            "ip rule del pref $(ip rule | grep prohibit | head -1 | cut -d: -f1)",
            "ip -6 rule del pref $(ip -6 rule | grep prohibit | head -1 | cut -d: -f1)",
            "ip route flush table $(ip rule | sed -n 's/.*fwmark 0x1.0xff lookup //p' | head -1)",
            "ip link set lan2 nomaster",
            "ip address del 10.20.2.1/24 dev z-learning",
        ])(world)
    })
}

#[test]
fn forwarding_that_others_switch_off_comes_back() -> Result<()> {
    in_world(|world| each_is_mended(&["echo 0 >/proc/sys/net/ipv4/ip_forward"])(world))
}
