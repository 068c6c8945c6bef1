//! The systemd unit, as systemd itself judges it.

use std::process::Command;

use anyhow::{Result, ensure};

#[test]
fn the_unit_is_one_that_systemd_understands() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("seimon-agent.service");
    let unit = include_str!("../../systemd/seimon-agent.service");
    // The program is not installed here.
    let binary = env!("CARGO_BIN_EXE_seimon-agent");
    std::fs::write(&file, unit.replace("/usr/sbin/seimon-agent", binary))?;
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
