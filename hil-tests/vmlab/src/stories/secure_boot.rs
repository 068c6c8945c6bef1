//! With Secure Boot on, the firmware checks guardian and kernel by its own keys, before we check them by ours.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use seimon_boot::Status;

use super::{Numbers, PATIENCE, Quick, Stage, Story};
use crate::disk::Content;
use crate::image::Recipe;
use crate::vm::Firmware;

pub const STORIES: &[Story] =
    &[Story { name: "secure-boot", firmware: &[Firmware::Edk2Secure], quick: Quick::No, tell: secure_boot }];

/// Of Debian's package ovmf: made to be known by everybody.
const KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil.key";
const CERTIFICATE: &str = "/usr/share/ovmf/PkKek-1-snakeoil.pem";

fn secure_boot(stage: &Stage<'_>) -> Result<Numbers> {
    let programs = stage.programs;
    let key = stage.file("snakeoil.key");
    run(Command::new("openssl").args(["rsa", "-in", KEY, "-passin", "pass:snakeoil", "-out"]).arg(&key))?;
    let guardian = sign(&key, &programs.guardian, &stage.file("guardian.signed"))?;
    let kernel = std::fs::read(sign(&key, &programs.payload_file, &stage.file("payload.signed"))?)?;

    let signed = Recipe::new("1.0.0", &kernel, "off").signed(&programs.key)?;
    let unsigned = Recipe::new("2.0.0", &programs.payload, "off").signed(&programs.key)?;
    let slots = Some((&unsigned, Status::Trial));
    let disk =
        Content::new(&guardian, slots, Some((&signed, Status::Confirmed))).write_to(&stage.file("disk"))?;
    stage.on(&disk, |vm| {
        vm.expect("slot A: not started: Secure Boot refuses its kernel", PATIENCE)?;
        vm.expect("seimon.slot=b", PATIENCE)?;
        vm.off(PATIENCE)
    })?;
    let disk = Content::new(&programs.guardian, Some((&signed, Status::Confirmed)), None)
        .write_to(&stage.file("disk"))?;
    stage.on(&disk, |vm| {
        let first =
            vm.first_of(&["Access Denied", "Security Violation", "seimon: boot guardian"], PATIENCE)?;
        if first == 2 { bail!("an unsigned guardian was started") } else { Ok(()) }
    })?;
    Ok(vec![])
}

fn sign(key: &Path, program: &Path, out: &Path) -> Result<PathBuf> {
    run(Command::new("sbsign")
        .arg("--key")
        .arg(key)
        .args(["--cert", CERTIFICATE, "--output"])
        .arg(out)
        .arg(program))?;
    Ok(out.to_path_buf())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| {
        format!("{:?} (Debian packages sbsigntool, openssl and ovmf)", command.get_program())
    })?;
    if !output.status.success() {
        bail!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
