//! As the unit runs it: a user of its own, who may change the network and nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::harness::agent::{Agent, BINARY, Setup, process_fact, processes};
use crate::harness::traffic::echo_service;
use crate::harness::world::{World, command_at, in_world};
use crate::harness::{secs, until};

/// Nobody: no file of anybody's is this user's.
const USER: &str = "65534";
const CAPABILITIES: &str = "-all,+net_admin,+net_bind_service";
const PROGRAMS: [&str; 6] =
    ["seimon-agent", "seimon-resolver", "seimon-probe", "seimon-page", "seimon-tunnel", "seimonctl"];
/// Its word for "you are not allowed".
const NOT_ALLOWED: i32 = 4;

/// `setpriv` to that user, with nothing; to be gone on with.
fn as_user(node: &str) -> Command {
    let mut command = command_at(node, "setpriv");
    command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups"]);
    command
}

/// The programs in a folder that the user may enter, and that user's own folders. `None`: no other user here.
fn installed(world: &World) -> Result<Option<PathBuf>> {
    let own = world.path("own");
    std::fs::create_dir(&own)?;
    for program in PROGRAMS {
        let file = Path::new(BINARY).with_file_name(program);
        ensure!(file.exists(), "{program} is not built: run `cargo build` for the whole workspace first");
        std::fs::copy(&file, own.join(program)).with_context(|| program.to_owned())?;
    }
    let hand_over = format!("chmod 755 {}; chown {USER}:{USER} {}", world.path("").display(), own.display());
    let tried = as_user("gw").args(["--inh-caps=-all", "--bounding-set=-all", "true"]).output();
    if world.sh(&hand_over).is_err() || !tried.is_ok_and(|tried| tried.status.success()) {
        eprintln!("skipped: no other user or no setpriv here");
        return Ok(None);
    }
    Ok(Some(own))
}

fn start(world: &World, own: &Path) -> Result<Agent> {
    let board = own.join("board.toml");
    let setup = Setup::new(world).state(own.join("state")).run(own.join("run"));
    std::fs::copy(setup.board_file(), &board)?;
    let setup = setup.board(board);
    let mut command = as_user("gw");
    command.args([
        "--inh-caps",
        CAPABILITIES,
        "--ambient-caps",
        CAPABILITIES,
        "--bounding-set",
        CAPABILITIES,
    ]);
    command.args(["--no-new-privs", "--"]).arg(own.join("seimon-agent")).args(setup.arguments());
    let mut agent = setup.spawn_command(command)?;
    agent.wait_ready()?;
    Ok(agent)
}

/// Exit code and words of `seimonctl status`, asked by that user.
fn asked(agent: &Agent, own: &Path, more: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = as_user("gw");
    command.args(["--inh-caps=-all", "--bounding-set=-all"]).args(more).arg("--").arg(own.join("seimonctl"));
    let output =
        command.arg("--socket").arg(agent.sockets.control()).args(["--lang", "en", "status"]).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
}

#[test]
fn as_a_user_of_its_own_it_carries_traffic_and_its_children_may_command_nobody() -> Result<()> {
    in_world(|world| {
        let Some(own) = installed(world)? else { return Ok(()) };
        echo_service()?;
        let agent = start(world, &own)?;
        until(secs(20), "paths are up, so the probe works", || {
            Ok(agent.sockets.status()?.paths.iter().all(|path| path.health == "up"))
        })
        .with_context(|| agent.log())?;
        // Somebody who has become that user may ask, as with sudo -u.
        let (code, words) = asked(&agent, &own, &[])?;
        ensure!(code == Some(0), "{code:?} {words}");
        // Whoever has given up gaining privileges may not …
        let (code, words) = asked(&agent, &own, &["--no-new-privs"])?;
        ensure!(
            code == Some(NOT_ALLOWED) && words.contains("given up gaining privileges"),
            "{code:?} {words}"
        );
        // … and that is what every child is: the agent's user, without a way to more.
        for name in ["seimon-resolver", "seimon-probe", "seimon-page"] {
            // The kernel shows 15 bytes of a name.
            let found = processes(&name.chars().take(15).collect::<String>());
            ensure!(!found.is_empty(), "{name} does not run");
            for pid in found {
                let users = process_fact(pid, "Uid")?;
                ensure!(users.split_whitespace().all(|user| user == USER), "{name}: {users}");
                ensure!(process_fact(pid, "NoNewPrivs")? == "1", "{name} could gain privileges");
            }
        }
        agent.stop()
    })
}
