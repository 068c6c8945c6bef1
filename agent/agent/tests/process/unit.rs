//! The systemd unit: as systemd itself judges it, and whether what it forbids is what our programs do not do.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use seimon_ipc::control;

use crate::harness::agent::{BINARY, Setup};
use crate::harness::control::Sockets;
use crate::harness::traffic::{echo_service, look_up, name_service};
use crate::harness::world::{command_at, in_world};
use crate::harness::{secs, until};

const UNIT: &str = include_str!("../../systemd/seimon-agent.service");
/// Tenths of systemd's points for how exposed a service is; it is 3.1 with the network's own capability, namespaces for the
/// probe and the kernel's network settings, without which there is no gateway.
const MOST_EXPOSED: &str = "31";

/// The unit in a folder of its own, with a program that is there.
fn installed() -> Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("seimon-agent.service");
    std::fs::write(&file, UNIT.replace("/usr/sbin/seimon-agent", BINARY))?;
    Ok((folder, file))
}

/// What stands behind `key=`, in words.
fn setting(key: &str) -> Result<Vec<&'static str>> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    Ok(line.with_context(|| format!("{key} in the unit"))?.split_whitespace().collect())
}

#[test]
fn the_unit_is_one_that_systemd_understands() -> Result<()> {
    let (_folder, file) = installed()?;
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output();
    let Ok(verified) = verified else {
        eprintln!("skipped: systemd-analyze is not to be had here");
        return Ok(());
    };
    let words = String::from_utf8_lossy(&verified.stderr).into_owned();
    let about_us: Vec<&str> = words.lines().filter(|line| line.contains("seimon-agent.service")).collect();
    ensure!(about_us.is_empty(), "{about_us:#?}");
    Ok(())
}

#[test]
fn the_unit_exposes_no_more_than_a_gateway_needs() -> Result<()> {
    let (_folder, file) = installed()?;
    let mut judge = Command::new("systemd-analyze");
    judge.args(["security", "--offline=true", "--no-pager", "--threshold", MOST_EXPOSED]).arg(&file);
    let Ok(judged) = judge.output() else {
        eprintln!("skipped: systemd-analyze is not to be had here");
        return Ok(());
    };
    let words = String::from_utf8_lossy(&judged.stdout).into_owned();
    if !words.contains("exposure level") {
        eprintln!("skipped: this systemd-analyze does not judge files");
        return Ok(());
    }
    ensure!(judged.status.success(), "{words}");
    Ok(())
}

/// System calls by name, sets (`@network-io`) opened; `None`: systemd's sets are not to be had here.
fn permitted_calls() -> Result<Option<BTreeSet<String>>> {
    let mut open: Vec<String> = setting("SystemCallFilter")?.into_iter().map(str::to_owned).collect();
    let (mut calls, mut sets) = (BTreeSet::new(), BTreeSet::new());
    while let Some(word) = open.pop() {
        if !word.starts_with('@') {
            calls.insert(word);
        } else if sets.insert(word.clone()) {
            let listed =
                Command::new("systemd-analyze").args(["--no-pager", "syscall-filter", &word]).output();
            let Ok(listed) = listed else { return Ok(None) };
            ensure!(listed.status.success(), "{word} is no set of systemd's");
            let text = String::from_utf8(listed.stdout)?;
            let inside = text.lines().filter_map(|line| line.strip_prefix("    "));
            open.extend(inside.filter(|line| !line.starts_with('#')).map(str::to_owned));
        }
    }
    Ok(Some(calls))
}

/// Permitted or not according to their arguments, or sure to be used.
const LOOKED_AT: [&str; 5] = ["execve", "openat", "socket", "socketpair", "unshare"];

/// What was called, from strace's lines: `17 openat(AT_FDCWD, "/dev/null", …) = 3`.
fn calls(trace: &str) -> impl Iterator<Item = (&str, &str)> {
    trace.lines().filter_map(|line| {
        let (_, rest) = line.split_once(' ')?;
        let (name, arguments) = rest.trim_start().split_once('(')?;
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        is_name.then_some((name, arguments))
    })
}

/// Everything that a gateway's programs do in a day, as far as it fits into seconds.
fn a_day(sockets: &Sockets) -> Result<()> {
    until(secs(30), "paths are up", || {
        Ok(sockets.status().is_ok_and(|status| status.paths.iter().all(|path| path.health == "up")))
    })?;
    until(secs(20), "services are looked at", || Ok(!sockets.status()?.services.is_empty()))?;
    until(secs(10), "a name is answered", || {
        Ok(look_up("affairs", "10.20.1.1", "affairs.school.example")?.is_some())
    })?;
    sockets.metrics()?;
    let (plan, _) = sockets.plan()?;
    let answer = sockets.apply(&plan.replace("\"tcp/9100\"", "\"tcp/9101\""))?;
    ensure!(matches!(answer, control::Response::Done { .. }), "{answer:?}");
    let answer = sockets.ask(control::Command::Diagnostics)?;
    ensure!(matches!(answer, control::Response::Diagnostics(_)), "{answer:?}");
    Ok(())
}

#[test]
fn the_programs_make_no_system_call_and_open_no_device_that_the_unit_forbids() -> Result<()> {
    in_world(|world| {
        let Some(permitted) = permitted_calls()? else {
            eprintln!("skipped: systemd-analyze is not to be had here");
            return Ok(());
        };
        let trace = world.path("trace");
        let setup = Setup::new(world);
        let mut command = command_at("gw", "strace");
        // The tracer stays in the background: the process that is started is the agent. It stops at nothing that is
        // permitted whatever its arguments, so that time limits hold.
        let unseen = permitted.iter().filter(|name| !LOOKED_AT.contains(&name.as_str()));
        let unseen: Vec<String> = unseen.map(|name| format!("?{name}")).collect();
        command.args(["-D", "-f", "--seccomp-bpf", "-qq", "-s", "64", "-e"]);
        command.arg(format!("trace=!{}", unseen.join(","))).arg("-o").arg(&trace).arg("--").arg(BINARY);
        command.args(setup.arguments());
        let tried = Command::new("strace").args(["-f", "--seccomp-bpf", "-o", "/dev/null", "true"]).output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            eprintln!("skipped: strace is not to be had here");
            return Ok(());
        }
        echo_service()?;
        name_service(std::net::Ipv4Addr::new(203, 0, 113, 10))?;
        let mut agent = setup.spawn_command(command)?;
        agent.wait_ready()?;
        a_day(&agent.sockets).with_context(|| agent.log())?;
        agent.stop()?;
        let trace = std::fs::read_to_string(&trace)?;
        let families: BTreeSet<&str> = setting("RestrictAddressFamilies")?.into_iter().collect();
        let devices: BTreeSet<&str> =
            setting("DeviceAllow")?.into_iter().filter(|word| word.starts_with('/')).collect();
        let (mut used, mut forbidden) = (BTreeSet::new(), BTreeSet::new());
        for (name, arguments) in calls(&trace) {
            used.insert(name);
            if !permitted.contains(name) {
                forbidden.insert(name.to_owned());
            }
            let first = arguments.split([',', ')']).next().unwrap_or_default();
            if matches!(name, "socket" | "socketpair") && !families.contains(first) {
                forbidden.insert(format!("{name}({first})"));
            }
            let path = arguments.split('"').nth(1).unwrap_or_default();
            // Those that DevicePolicy=closed leaves.
            let harmless = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
            if name == "openat"
                && path.starts_with("/dev/")
                && !devices.contains(path)
                && !harmless.contains(&path)
            {
                forbidden.insert(path.to_owned());
            }
        }
        // Each is used by the agent or by the probe.
        let seen = LOOKED_AT.iter().all(|name| used.contains(name));
        ensure!(seen, "hardly anything was seen: {used:?}");
        ensure!(forbidden.is_empty(), "the unit forbids {forbidden:?}");
        Ok(())
    })
}
