//! `cargo xtask sim`.

use std::process::ExitCode;

use anyhow::Result;

use crate::build;

/// Builds the simulator and runs it with these arguments.
pub(crate) fn simulate(arguments: &[String]) -> Result<ExitCode> {
    let mut command = build::cargo();
    command.args(["run", "--quiet", "--package", "seimon-sim", "--"]).args(arguments);
    build::exit_of(&mut command)
}
