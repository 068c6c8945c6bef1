//! `shell`: the town to look around in.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use seimon_lab::netns;
use seimon_lab::runner::{Options, plan_text, raise};
use seimon_lab::world::World;
use seimon_lab::world::params::Topology;

use super::{bin_dir, gateway, line};
use crate::ShellArgs;

pub(crate) fn shell(args: &ShellArgs) -> Result<ExitCode> {
    let bin_dir = bin_dir(args.bin_dir.as_deref())?;
    netns::enter_or_reexec()?;
    let world = World::raise(&Topology::new("two-line-town")?, 1)?;
    let options = Options {
        bin_dir: bin_dir.clone(),
        without: Vec::new(),
        run: "lab",
        log: None,
        gateway: gateway(&args.gateway)?,
    };
    raise(&world, plan_text("town.toml", Path::new("town.toml"), &[&BTreeMap::new()])?, &options)?;
    let gateway = world.gateway()?;
    if let Err(error) = world.start_gateway(Duration::from_secs(20)) {
        line(&format!("the gateway did not get ready: {error:#}\n{}", gateway.log()));
    }
    let socket = gateway.control_socket();
    let mut command = match &args.exec {
        Some(exec) => {
            let mut command = Command::new("sh");
            command.args(["-c", exec]);
            command
        }
        None => {
            line(&format!("The town stands. Nodes: {}", world.nodes().join(", ")));
            line("Enter one:    ip netns exec NODE sh     (the gateway is gw)");
            line("Ask the gateway:  seimonctl status      (also: explain, migrate, events --follow)");
            line("Leave with `exit`; everything is gone then.");
            Command::new(std::env::var_os("SHELL").unwrap_or_else(|| "sh".into()))
        }
    };
    let path = std::env::var("PATH").unwrap_or_default();
    let status = command
        .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", bin_dir.display()))
        .env("SEIMON_SOCKET", &socket)
        .status()
        .context("the shell could not be started")?;
    Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)))
}
