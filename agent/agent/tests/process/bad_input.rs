//! Plans that cannot be used, at the start and later: the last verified one stays.

use anyhow::{Context as _, Result, ensure};
use seimon_ipc::control::{Command, Response};

use crate::harness::agent::{Agent, Setup};
use crate::harness::traffic::{FAR, Sender, Sink, at_work, echo_service};
use crate::harness::world::{PLAN, World, in_world};
use crate::harness::{kernel, millis, secs};

fn plan_in_force(agent: &Agent) -> Result<(String, u64)> {
    agent.sockets.plan()
}

fn refusals(answer: &Response) -> Result<Vec<String>> {
    let Response::Refused { reasons } = answer else { anyhow::bail!("not refused: {answer:?}") };
    Ok(reasons.iter().map(|reason| reason.en.clone()).collect())
}

/// An agent that ends at its first start, having set up nothing.
fn refused_at_start(world: &World, words: &[&str]) -> Result<()> {
    let ended = Setup::new(world).fail()?;
    ensure!(ended.status.code() == Some(1), "{}: {}", ended.status, ended.log);
    for word in words {
        ensure!(ended.log.contains(word), "it does not say `{word}`: {}", ended.log);
    }
    ensure!(ended.log.len() < 20_000, "{} bytes are more than anybody reads", ended.log.len());
    ensure!(!kernel::forwarding(world)? && !kernel::table_exists(world));
    Ok(())
}

#[test]
fn an_invalid_first_plan_is_refused_with_every_error_in_it() -> Result<()> {
    in_world(|world| {
        let bad = PLAN
            .replace("version = 1\n", "version = 1\nflavour = \"sweet\"\n")
            .replace("port = \"WAN2\"", "port = \"WAN9\"")
            .replace("10.20.2.1/24", "10.20.1.129/25");
        std::fs::write(world.path("plan.toml"), bad)?;
        refused_at_start(world, &["flavour", "plan.toml"])?;
        let bad =
            PLAN.replace("port = \"WAN2\"", "port = \"WAN9\"").replace("10.20.2.1/24", "10.20.1.129/25");
        std::fs::write(world.path("plan.toml"), bad)?;
        refused_at_start(world, &["WAN9", "10.20.1.129/25", "plan.toml"])
    })
}

#[test]
fn files_that_are_no_plan_at_all_are_refused() -> Result<()> {
    in_world(|world| {
        let file = world.path("plan.toml");
        std::fs::write(&file, "")?;
        refused_at_start(world, &["version"])?;
        std::fs::write(&file, b"version = 1\n# \xff\xfe\n")?;
        refused_at_start(world, &["UTF-8"])?;
        // Ten megabytes of noise, the same each time.
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(10 << 20)
        .collect();
        std::fs::write(&file, &noise)?;
        refused_at_start(world, &["plan.toml"])?;
        std::fs::write(&file, "[a]\n".repeat((10 << 20) / 4))?;
        refused_at_start(world, &["plan.toml"])?;
        std::fs::remove_file(&file)?;
        refused_at_start(world, &["plan.toml", "No such file"])?;
        std::fs::create_dir(&file)?;
        refused_at_start(world, &["plan.toml"])
    })
}

#[test]
fn a_missing_certificate_file_is_named() -> Result<()> {
    in_world(|world| {
        std::fs::remove_file(world.path("lab-ca.pem"))?;
        refused_at_start(world, &["lab-ca.pem", "ca_file"])
    })
}

#[test]
fn a_plan_for_another_board_is_refused() -> Result<()> {
    in_world(|world| {
        std::fs::write(world.path("plan.toml"), PLAN.replace("lab-namespace", "some-other-board"))?;
        refused_at_start(world, &["some-other-board"])
    })
}

#[test]
fn an_invalid_plan_is_not_applied_and_the_old_one_stays() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let (agent, sink, sender) = at_work(&Setup::new(world))?;
        let before = (plan_in_force(&agent)?, kernel::table(world)?, kernel::routing(world)?);
        let bad =
            PLAN.replace("port = \"WAN2\"", "port = \"WAN9\"").replace("10.20.2.1/24", "10.20.1.129/25");
        let reasons = refusals(&agent.sockets.apply(&bad)?)?;
        ensure!(reasons.len() >= 2, "{reasons:?}");
        ensure!(reasons.iter().any(|reason| reason.contains("WAN9")), "{reasons:?}");
        let line = PLAN.lines().position(|line| line.contains("WAN2")).context("WAN2")? + 1;
        ensure!(
            reasons.iter().any(|reason| reason.contains(&format!("{line}"))),
            "no line {line}: {reasons:?}"
        );
        for nonsense in ["", "version = 7", "\u{0}", "version = 1\nversion = 1\n"] {
            refusals(&agent.sockets.apply(nonsense)?).with_context(|| format!("{nonsense:?}"))?;
        }
        let noise = "#".repeat(7 << 20);
        refusals(&agent.sockets.apply(&noise)?).context("seven megabytes")?;
        refusals(&agent.sockets.ask(Command::PlanDiff { plan: bad, file: "bad.toml".to_owned() })?)?;
        let after = (plan_in_force(&agent)?, kernel::table(world)?, kernel::routing(world)?);
        ensure!(before == after);
        sink.wait_more(secs(2))?;
        drop(sender);
        agent.stop()
    })
}

#[test]
fn a_valid_plan_changes_only_what_differs_and_is_remembered() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let setup = Setup::new(world);
        let (agent, sink, sender) = at_work(&setup)?;
        let (_, generation) = plan_in_force(&agent)?;
        let before = (kernel::table(world)?, kernel::routing(world)?);
        let new = PLAN.replace("\"tcp/9100\"", "\"tcp/9101\"");
        let answer =
            agent.sockets.ask(Command::PlanDiff { plan: new.clone(), file: "new.toml".to_owned() })?;
        let Response::Diff { changes } = answer else { anyhow::bail!("{answer:?}") };
        ensure!(!changes.is_empty() && changes.len() <= 3, "{changes:?}");
        let counted = (sender.sent(), sink.count());
        let answer = agent.sockets.apply(&new)?;
        ensure!(matches!(answer, Response::Done { .. }), "{answer:?}");
        std::thread::sleep(millis(200));
        let (sent, arrived) = (sender.sent() - counted.0, sink.count() - counted.1);
        ensure!(arrived + 10 >= sent, "{sent} datagrams were sent and {arrived} arrived");
        ensure!(plan_in_force(&agent)? == (new.clone(), generation + 1));
        // Chains and rules stay as they are, handles included; routing is not touched.
        let after = (kernel::table(world)?, kernel::routing(world)?);
        ensure!(before == after, "{}\n{}", before.0, after.0);
        ensure!(kernel::rules(world).is_ok());
        let permits = world.gw("nft list table inet seimon | grep -c 9101 || true")?;
        ensure!(permits.trim() != "0", "the new permit is not in the kernel");
        ensure!(agent.sockets.status()?.dataplane.repairs == 0, "our own act was taken for a foreign one");
        agent.kill()?;
        let agent = setup.start()?;
        ensure!(plan_in_force(&agent)? == (new.clone(), generation + 1));
        agent.stop()?;
        let agent = setup.start()?;
        ensure!(plan_in_force(&agent)? == (new, generation + 1));
        drop(sender);
        agent.stop()
    })
}

#[test]
fn a_changed_file_wins_at_the_next_start_unless_it_is_invalid() -> Result<()> {
    in_world(|world| {
        let setup = Setup::new(world);
        let agent = setup.start()?;
        let applied = PLAN.replace("\"tcp/9100\"", "\"tcp/9101\"");
        agent.sockets.apply(&applied)?;
        agent.stop()?;
        std::fs::write(world.path("plan.toml"), PLAN.replace("port = \"WAN2\"", "port = \"WAN9\""))?;
        let agent = setup.start()?;
        ensure!(plan_in_force(&agent)?.0 == applied);
        ensure!(agent.sockets.has_event("agent", "WAN9")?, "nobody is told");
        agent.stop()?;
        let changed = PLAN.replace("\"tcp/9100\"", "\"tcp/9102\"");
        std::fs::write(world.path("plan.toml"), &changed)?;
        let agent = setup.start()?;
        let (plan, generation) = plan_in_force(&agent)?;
        ensure!(plan == changed);
        ensure!(generation == 3, "generation {generation}");
        agent.stop()?;
        // A file that has gone away is no new intention.
        std::fs::remove_file(world.path("plan.toml"))?;
        let agent = setup.start()?;
        ensure!(plan_in_force(&agent)? == (changed, 3));
        agent.stop()
    })
}

#[test]
fn a_plan_that_the_kernel_refuses_is_taken_back() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let sink = Sink::listen("carrier", FAR)?;
        let setup = Setup::new(world);
        world.gw("ip link del lan4")?;
        let agent = setup.start()?;
        let sender = Sender::start("learning", FAR)?;
        sink.wait_more(secs(5))?;
        let (old, _) = plan_in_force(&agent)?;
        let before = (kernel::rules(world)?, kernel::routing(world)?);
        let counted = (sender.sent(), sink.count());
        // A zone on a socket that this machine lacks, and another permit, so that both halves change.
        let new = PLAN.replace("[\"LAN3\"]", "[\"LAN3\", \"LAN4\"]").replace("\"tcp/9100\"", "\"tcp/9101\"");
        let reasons = refusals(&agent.sockets.apply(&new)?)?;
        ensure!(reasons.iter().any(|reason| reason.contains("lan4")), "{reasons:?}");
        ensure!(plan_in_force(&agent)?.0 == old);
        ensure!(agent.sockets.status()?.dataplane.verified);
        let after = (kernel::rules(world)?, kernel::routing(world)?);
        ensure!(before == after, "{}\n{}\n{}\n{}", before.0, after.0, before.1, after.1);
        let (sent, arrived) = (sender.sent() - counted.0, sink.count() - counted.1);
        ensure!(arrived + 10 >= sent, "{sent} datagrams were sent and {arrived} arrived");
        agent.kill()?;
        let agent = setup.start()?;
        ensure!(plan_in_force(&agent)?.0 == old);
        drop(sender);
        agent.stop()
    })
}
