//! The process that carries the tunnel: what it may, and what its end means.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use seimon_core::network_plan::{Change, LinkKind};

use crate::traffic::{connect, exchange, serve};
use crate::world::{World, in_namespaces, sh, until};

const PATIENCE: Duration = Duration::from_secs(8);

#[test]
fn the_process_has_no_capability_and_gets_none() -> Result<()> {
    in_namespaces(|| {
        let world = World::raise()?;
        let pid = world.process()?;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = std::fs::read_to_string(task?.path().join("status"))?;
            for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                let line = status.lines().find(|line| line.starts_with(field)).context(field)?;
                ensure!(line.ends_with("\t0000000000000000"), "{line}");
            }
            ensure!(status.lines().any(|line| line == "NoNewPrivs:\t1"), "{status}");
        }
        Ok(())
    })
}

#[test]
fn when_the_process_dies_its_interface_goes_with_it_and_both_are_made_anew() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise()?;
        serve()?;
        let mut stream = connect(PATIENCE)?;
        exchange(&mut stream, 10_000)?;
        let pid = i32::try_from(world.process()?)?;
        kill_process(Pid::from_raw(pid).context("a process")?, Signal::KILL)?;
        until(
            2,
            "the interface goes",
            || Ok((!sh("gw", "ip -o link")?.contains("wg-closed")).then_some(())),
        )?;
        ensure!(connect(Duration::from_secs(1)).is_err(), "a path without a route leads nowhere");
        let changes = world.converge()?;
        let made = |change: &Change| matches!(change, Change::LinkUp(link) if link.kind == LinkKind::Tunnel);
        ensure!(changes.iter().any(made), "{changes:?}");
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        exchange(&mut stream, 10_000)?;
        Ok(())
    })
}

#[test]
fn when_the_agent_goes_the_process_and_its_interface_go() -> Result<()> {
    in_namespaces(|| {
        let world = World::raise()?;
        let pid = world.process()?;
        drop(world);
        until(
            2,
            "the interface goes",
            || Ok((!sh("gw", "ip -o link")?.contains("wg-closed")).then_some(())),
        )?;
        ensure!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
        Ok(())
    })
}

#[test]
fn an_interface_of_that_name_that_is_not_ours_is_left_alone() -> Result<()> {
    in_namespaces(|| {
        let mut world = World::raise()?;
        let pid = i32::try_from(world.process()?)?;
        kill_process(Pid::from_raw(pid).context("a process")?, Signal::KILL)?;
        until(
            2,
            "the interface goes",
            || Ok((!sh("gw", "ip -o link")?.contains("wg-closed")).then_some(())),
        )?;
        sh("gw", "ip link add wg-closed type bridge")?;
        let error = world.converge().err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(error.contains("not of ours"), "{error}");
        ensure!(sh("gw", "ip -d link show wg-closed")?.contains("bridge"));
        Ok(())
    })
}
