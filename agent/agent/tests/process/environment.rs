//! What the machine may lack: nft, privileges, interfaces, space, a sound disk.

use std::ffi::CStr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use seimon_ipc::control::Response;

use crate::harness::agent::{Agent, BINARY, Ended, Setup, lockdown};
use crate::harness::traffic::{FAR, Sender, Sink, at_work, echo_service};
use crate::harness::world::{PLAN, World, command_at, in_world};
use crate::harness::{kernel, millis, secs, until};

/// Hides every `nft` that the agent could find; back when dropped.
struct Hidden(Vec<std::path::PathBuf>);

impl Hidden {
    fn nft() -> Result<Self> {
        let mut hidden = Vec::new();
        for folder in ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin", "/usr/local/bin"] {
            let file = Path::new(folder).join("nft");
            // One of these may be a link to another, which is hidden already.
            if file.metadata().is_ok_and(|facts| facts.is_file()) {
                mount_bind("/dev/null", &file)?;
                hidden.push(file);
            }
        }
        Ok(Self(hidden))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        for file in &self.0 {
            let _gone = unmount(file, UnmountFlags::empty());
        }
    }
}

fn failed(ended: &Ended, words: &[&str]) -> Result<()> {
    ensure!(ended.status.code() == Some(1), "{}: {}", ended.status, ended.log);
    for word in words {
        ensure!(ended.log.contains(word), "it does not say `{word}`: {}", ended.log);
    }
    Ok(())
}

#[test]
fn without_nft_the_start_fails_and_says_what_to_install() -> Result<()> {
    in_world(|world| {
        world.gw("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
        let hidden = Hidden::nft()?;
        failed(&Setup::new(world).fail()?, &["nft", "install"])?;
        // What the service manager does next.
        lockdown()?;
        ensure!(!kernel::forwarding(world)?);
        drop(hidden);
        Setup::new(world).start()?.stop()
    })
}

#[test]
fn nft_that_vanishes_leaves_traffic_alone_and_is_reported() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let (agent, sink, sender) = at_work(&Setup::new(world))?;
        let hidden = Hidden::nft()?;
        // Something to repair, so that it is missed.
        world.gw("ip rule del pref $(ip rule | grep prohibit | head -1 | cut -d: -f1)")?;
        until(secs(5), "the problem in the status", || {
            let dataplane = agent.sockets.status()?.dataplane;
            Ok(dataplane.problems.iter().any(|problem| problem.contains("nft")))
        })?;
        sink.wait_more(secs(2))?;
        drop(hidden);
        until(secs(5), "verified again", || Ok(agent.sockets.status()?.dataplane.verified))?;
        world.gw("ip rule | grep -q prohibit")?;
        drop(sender);
        agent.stop()
    })
}

#[test]
fn without_privileges_the_start_fails_and_changes_nothing() -> Result<()> {
    in_world(|world| {
        let own = world.path("own");
        std::fs::create_dir(&own)?;
        let everybody =
            format!("chmod 755 {}; chown 65534:65534 {}", world.path("").display(), own.display());
        if world.sh(&everybody).is_err() || !Path::new("/usr/bin/setpriv").exists() {
            eprintln!("skipped: no other user or no setpriv here");
            return Ok(());
        }
        // The program itself may be in a folder that only its owner may enter.
        std::fs::copy(BINARY, own.join("seimon-agent"))?;
        let setup = Setup::new(world).state(own.join("state")).run(own.join("run"));
        let board = own.join("board.toml");
        std::fs::copy(setup.board_file(), &board)?;
        let setup = setup.board(board);
        let nobody = |arguments: &[std::ffi::OsString]| {
            let mut command = command_at("gw", "setpriv");
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
                .arg("--bounding-set=-all")
                .arg(own.join("seimon-agent"))
                .args(arguments);
            command
        };
        world.gw("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
        let command = nobody(&setup.arguments());
        let ended = setup.spawn_command(command)?.ended()?;
        failed(&ended, &["CAP_NET_ADMIN"])?;
        ensure!(!kernel::table_exists(world));
        let mut command = nobody(&["lockdown".into()]);
        let output = command.output()?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && words.contains("CAP_NET_ADMIN"), "{words}");
        Ok(())
    })
}

#[test]
fn a_missing_interface_is_named_nothing_passes_and_it_is_waited_for() -> Result<()> {
    in_world(|world| {
        let sink = Sink::listen("carrier", FAR)?;
        world.gw("ip link set lan2 name other")?;
        let mut agent = Setup::new(world).spawn()?;
        until(secs(10), "the problem in the status", || {
            Ok(agent.sockets.status().is_ok_and(|status| {
                !status.dataplane.verified && status.dataplane.problems.iter().any(|p| p.contains("lan2"))
            }))
        })?;
        let sender = Sender::start("affairs", FAR)?;
        sink.stays_silent(&sender, secs(3))?;
        drop(sender);
        let told = agent.sockets.events()?.iter().filter(|event| event.reason.en.contains("lan2")).count();
        ensure!((1..=2).contains(&told), "said {told} times in three seconds");
        world.gw("ip link set other name lan2")?;
        agent.wait_ready()?;
        let sender = Sender::start("learning", FAR)?;
        sink.wait_more(secs(3))?;
        drop(sender);
        agent.stop()
    })
}

#[test]
fn an_interface_that_is_renamed_under_way_is_reported_and_taken_back() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let (agent, sink, sender) = at_work(&Setup::new(world))?;
        world.gw("ip link set lan3 down; ip link set lan3 name other; ip link set other up")?;
        until(secs(5), "the problem in the status", || {
            Ok(agent.sockets.status()?.dataplane.problems.iter().any(|problem| problem.contains("lan3")))
        })?;
        // The other zones do not suffer.
        sink.wait_more(secs(2))?;
        ensure!(agent.sockets.has_event("dataplane", "lan3")?);
        world.gw("ip link set other down; ip link set other name lan3")?;
        until(secs(5), "verified again", || Ok(agent.sockets.status()?.dataplane.verified))?;
        world.gw("ip -o link show lan3 | grep 'master z-printers' | grep -q UP")?;
        drop(sender);
        agent.stop()
    })
}

/// A tiny disk at the state directory.
/// Too small for what is set aside for a full disk.
fn tiny_disk(world: &World) -> Result<std::path::PathBuf> {
    disk(world, c"size=128k,mode=700")
}

fn disk(world: &World, options: &CStr) -> Result<std::path::PathBuf> {
    let state = world.path("state");
    std::fs::create_dir(&state)?;
    mount("tmpfs", &state, "tmpfs", MountFlags::empty(), Some(options))?;
    Ok(state)
}

fn fill(state: &Path) -> Result<()> {
    let chunk = [0_u8; 4096];
    let mut file = std::fs::File::create(state.join("filler"))?;
    while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
    Ok(())
}

/// Applies plans that say the same, with a comment so long that the journal ends just before the end of a page.
fn leave_no_slack(agent: &Agent, plan: &str, state: &Path) -> Result<()> {
    const PAGE: u64 = 4096;
    let length = || -> Result<u64> { Ok(std::fs::metadata(state.join("journal"))?.len()) };
    let apply = |comment: usize| -> Result<()> {
        let answer = agent.sockets.apply(&format!("{plan}# {}\n", "x".repeat(comment)))?;
        ensure!(matches!(answer, Response::Done { .. }), "{answer:?}");
        Ok(())
    };
    let first = length()?;
    apply(1)?;
    let second = length()?;
    let end = second + (second - first) - 1;
    // Room for less than any checkpoint.
    let comment = usize::try_from(2 * PAGE - 20 - end % PAGE)?;
    apply(comment)?;
    let left = PAGE - length()? % PAGE;
    ensure!(left < 64, "{left} bytes are left in the page");
    Ok(())
}

fn plan_in_force(agent: &Agent) -> Result<String> {
    Ok(agent.sockets.plan()?.0)
}

#[test]
fn a_plan_that_cannot_be_written_down_is_not_put_in_force() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let sink = Sink::listen("carrier", FAR)?;
        let state = tiny_disk(world)?;
        let setup = Setup::new(world);
        let agent = setup.start()?;
        let sender = Sender::start("learning", FAR)?;
        sink.wait_more(secs(5))?;
        fill(&state)?;
        let before = kernel::rules(world)?;
        // The plan is longer than what may be left of the disk's last page.
        let new = PLAN.replace("\"tcp/9100\"", "\"tcp/9101\"");
        let answer = agent.sockets.apply(&new)?;
        ensure!(
            matches!(&answer, Response::Refused { reasons } if reasons.iter().any(|r| r.en.contains("disk"))),
            "{answer:?}"
        );
        ensure!(plan_in_force(&agent)? == PLAN);
        ensure!(kernel::rules(world)? == before && agent.sockets.status()?.dataplane.verified);
        ensure!(world.gw("nft list table inet seimon | grep -c 9101 || true")?.trim() == "0");
        sink.wait_more(secs(2))?;
        // A start needs no space.
        agent.kill()?;
        let agent = setup.start()?;
        ensure!(plan_in_force(&agent)? == PLAN);
        std::fs::remove_file(state.join("filler"))?;
        let answer = agent.sockets.apply(&new)?;
        ensure!(matches!(answer, Response::Done { .. }), "{answer:?}");
        drop(sender);
        agent.stop()
    })
}

#[test]
fn a_full_disk_stops_no_traffic_when_the_lines_come_and_go() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let sink = Sink::listen("carrier", FAR)?;
        let state = tiny_disk(world)?;
        let agent = Setup::new(world).start()?;
        let sender = Sender::start("learning", FAR)?;
        until(secs(15), "paths up", || {
            Ok(agent.sockets.status()?.paths.iter().all(|path| path.health == "up"))
        })?;
        leave_no_slack(&agent, PLAN, &state)?;
        fill(&state)?;
        world.at("carrier", "ip address del 203.0.113.7/32 dev eth0")?;
        world.at(
            "internet",
            "ip address del 203.0.113.7/32 dev eth0; ip address del 2001:db8:113::7/128 dev eth0",
        )?;
        until(secs(10), "paths down", || {
            Ok(agent.sockets.status()?.paths.iter().all(|path| path.health == "down"))
        })?;
        // Only the echo service is gone: whoever has a way keeps it.
        sink.wait_more(secs(2))?;
        ensure!(agent.sockets.has_event("dataplane", "could not be saved")?, "{}", agent.log());
        world.at("carrier", "ip address add 203.0.113.7/32 dev eth0")?;
        std::fs::remove_file(state.join("filler"))?;
        until(secs(15), "the closed path is up and used", || {
            let status = agent.sockets.status()?;
            Ok(status.paths.iter().any(|path| path.path.as_str() == "closed" && path.health == "up")
                && status.groups.iter().all(|group| group.state == "Steady"))
        })
        .with_context(|| agent.log())?;
        sink.wait_more(secs(2))?;
        drop(sender);
        agent.stop()
    })
}

/// Windows are always open, times short, and the learning group has no health check to wait for.
fn movable() -> String {
    let check = "health = { name = \"learning.school.example\", path = \"/health\", body = \"healthy\", ca_file = \"lab-ca.pem\" }\n";
    let window = "days = [\"sat\", \"sun\"]\nfrom = \"18:00\"\nto = \"06:00\"\n";
    let always = "days = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]\nfrom = \"00:00\"\nto = \"00:00\"\n";
    // What lacks a health check cannot be measured against.
    let speed = PLAN.lines().find(|line| line.starts_with("speed = ")).unwrap_or_default();
    let quick = "\n[migration.thresholds]\ncheck_interval_moving = \"500ms\"\ncheck_timeout = \"1s\"\n";
    let times = |plan: String| plan.replace("\"5min\"", "\"4s\"").replace("\"1h\"", "\"4s\"");
    times(PLAN.replace(check, "").replace(speed, "").replace(window, always)) + quick
}

#[test]
fn a_move_does_not_begin_on_a_full_disk() -> Result<()> {
    in_world(|world| {
        echo_service()?;
        let sinks = (Sink::listen("carrier", FAR)?, Sink::listen("internet", FAR)?);
        let state = disk(world, c"size=4m,mode=700")?;
        std::fs::write(world.path("plan.toml"), movable())?;
        let agent = Setup::new(world).start()?;
        until(secs(15), "paths up", || {
            Ok(agent.sockets.status()?.paths.iter().all(|path| path.health == "up"))
        })?;
        let sender = Sender::start("learning", FAR)?;
        sinks.0.wait_more(secs(5))?;
        let start = || {
            agent.sockets.ask(seimon_ipc::control::Command::Migrate {
                zone: seimon_plan::ZoneId::new("learning")?,
                group: seimon_plan::GroupId::new("internet")?,
                action: seimon_ipc::control::MigrateAction::Start { to: None },
            })
        };
        let group = || -> Result<seimon_ipc::control::GroupStatus> {
            let groups = agent.sockets.status()?.groups;
            groups.into_iter().find(|group| group.group.as_str() == "internet").context("no such group")
        };
        fill(&state)?;
        let answer = start()?;
        until(secs(5), "it stays where it is", || {
            let group = group()?;
            Ok(group.state == "Steady" && group.path.is_some_and(|path| path.as_str() == "closed"))
        })
        .with_context(|| format!("{answer:?}\n{}", agent.log()))?;
        ensure!(agent.sockets.has_event("veto", "disk is full")?, "{answer:?}\n{}", agent.log());
        let before = sinks.1.count();
        std::thread::sleep(secs(3));
        sinks.0.wait_more(secs(1))?;
        ensure!(sinks.1.count() == before, "somebody was moved");
        ensure!(group()?.state == "Steady");
        // With space there is no other obstacle.
        std::fs::remove_file(state.join("filler"))?;
        let answer = start()?;
        ensure!(matches!(answer, Response::Done { .. }), "{answer:?}");
        until(secs(15), "new clients go the new way", || {
            Ok(group()?.path.is_some_and(|path| path.as_str() == "direct"))
        })
        .with_context(|| agent.log())?;
        drop(sender);
        agent.stop()
    })
}

#[test]
fn a_first_start_on_a_full_disk_says_so_and_forwards_nothing() -> Result<()> {
    in_world(|world| {
        let state = tiny_disk(world)?;
        fill(&state)?;
        failed(&Setup::new(world).fail()?, &["journal", "space"])?;
        ensure!(!kernel::forwarding(world)?);
        std::fs::remove_file(state.join("filler"))?;
        Setup::new(world).start()?.stop()
    })
}

#[test]
fn a_state_directory_that_others_can_write_is_refused_and_forwarding_stays_closed() -> Result<()> {
    in_world(|world| {
        world.gw("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
        let state = world.path("state");
        world.sh(&format!("mkdir {0} && chmod 777 {0}", state.display()))?;
        failed(&Setup::new(world).fail()?, &["state directory", "777", "chmod 700"])?;
        ensure!(!kernel::forwarding(world)?);
        world.sh(&format!("chmod 755 {}", state.display()))?;
        let agent = Setup::new(world).start()?;
        ensure!(agent.sockets.events()?.iter().any(|event| event.reason.en.contains("others could read")));
        ensure!(world.sh(&format!("stat -c %a {}", state.display()))?.trim() == "700");
        agent.stop()
    })
}

#[test]
fn a_read_only_state_directory_is_named() -> Result<()> {
    in_world(|world| {
        let state = world.path("state");
        std::fs::create_dir(&state)?;
        mount("tmpfs", &state, "tmpfs", MountFlags::RDONLY, Some(c"mode=700"))?;
        failed(&Setup::new(world).fail()?, &["journal", "Read-only"])?;
        std::fs::write(world.path("file"), "")?;
        failed(&Setup::new(world).state(world.path("file")).fail()?, &["/file"])?;
        let setup = Setup::new(world).state(world.path("state-2")).run(world.path("file"));
        failed(&setup.fail()?, &["/file"])
    })
}

/// A state directory with a plan that was applied, and the agent that wrote it gone.
fn with_history(world: &World) -> Result<(Setup, std::path::PathBuf, String)> {
    let setup = Setup::new(world);
    let agent = setup.start()?;
    let new = PLAN.replace("\"tcp/9100\"", "\"tcp/9101\"");
    let answer = agent.sockets.apply(&new)?;
    ensure!(matches!(answer, Response::Done { .. }), "{answer:?}");
    agent.kill()?;
    Ok((setup, world.path("state").join("journal"), new))
}

#[test]
fn a_torn_end_of_the_journal_is_cut_off_and_told() -> Result<()> {
    in_world(|world| {
        let (setup, journal, plan) = with_history(world)?;
        // A power cut in the middle of the next record.
        let mut bytes = std::fs::read(&journal)?;
        bytes.extend_from_slice(&[40, 0, 0, 0, 99, 0, 0]);
        std::fs::write(&journal, &bytes)?;
        let agent = setup.start()?;
        ensure!(agent.sockets.has_event("agent", "cut off")?, "{}", agent.log());
        ensure!(plan_in_force(&agent)? == plan);
        agent.kill()?;
        // And of the very last one: what was before it counts.
        let bytes = std::fs::read(&journal)?;
        std::fs::write(&journal, &bytes[..bytes.len() - 3])?;
        let agent = setup.start()?;
        ensure!(agent.sockets.has_event("agent", "cut off")?, "{}", agent.log());
        agent.stop()
    })
}

#[test]
fn a_journal_damaged_in_the_middle_is_kept_aside_and_its_good_records_are_used() -> Result<()> {
    in_world(|world| {
        let (setup, journal, plan) = with_history(world)?;
        let mut bytes = std::fs::read(&journal)?;
        // In the first record, the allocation; its numbers are derived anew.
        bytes[200] ^= 0x55;
        std::fs::write(&journal, &bytes)?;
        let agent = setup.start()?;
        ensure!(agent.sockets.has_event("agent", "damaged")?, "{}", agent.log());
        ensure!(plan_in_force(&agent)? == plan);
        let kept = std::fs::read_dir(world.path("state"))?
            .flatten()
            .any(|entry| std::fs::read(entry.path()).is_ok_and(|copy| copy == bytes));
        ensure!(kept, "the damaged journal is not kept");
        agent.stop()
    })
}

#[test]
fn a_journal_of_a_newer_version_is_left_alone() -> Result<()> {
    in_world(|world| {
        let (setup, journal, _) = with_history(world)?;
        let before = kernel::table(world)?;
        let mut bytes = std::fs::read(&journal)?;
        bytes[8] = 2;
        std::fs::write(&journal, &bytes)?;
        failed(&setup.fail()?, &["version 2", "install the newer version"])?;
        ensure!(std::fs::read(&journal)? == bytes);
        // The kernel goes on with what was last verified.
        ensure!(kernel::table(world)? == before);
        Ok(())
    })
}

#[test]
fn a_journal_from_another_machine_is_left_alone() -> Result<()> {
    in_world(|world| {
        if !Path::new("/etc/machine-id").exists() {
            eprintln!("skipped: this machine has no identity");
            return Ok(());
        }
        let (setup, journal, _) = with_history(world)?;
        let before = (kernel::table(world)?, std::fs::read(&journal)?);
        let other = world.path("machine-id");
        std::fs::write(&other, "0123456789abcdef0123456789abcdef\n")?;
        mount_bind(&other, "/etc/machine-id")?;
        failed(&setup.fail()?, &["belongs to machine", "state directory of its own"])?;
        ensure!(before == (kernel::table(world)?, std::fs::read(&journal)?));
        // Given one, it starts.
        let agent = setup.state(world.path("state-2")).start()?;
        std::thread::sleep(millis(100));
        agent.stop()
    })
}
