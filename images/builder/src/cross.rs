//! Our own programs for the gateway (aarch64 Linux), always the same for the same source: paths of the machine are taken
//! out of what the compiler writes.
//!
//! With a toolchain of rustup's that has the target, that one is used; else Debian's (`rustc-web`, `cargo-web`,
//! `libstd-rust-web-dev:arm64`). In both cases the C compiler is `aarch64-linux-gnu-gcc`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::say;

pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";
const DEBIANS_LIBRARY: &str = "/usr/lib/rustlib/aarch64-unknown-linux-gnu";
pub(crate) const PACKAGES: [&str; 8] = [
    "seimon-agent",
    "seimon-resolver",
    "seimon-probe",
    "seimon-page",
    "seimon-tunnel",
    "seimonctl",
    "seimon-updater",
    "seimon-maintenance",
];

/// Folders with the programs, and with the static ones.
pub(crate) struct Built {
    pub(crate) programs: PathBuf,
    pub(crate) init_programs: PathBuf,
}

pub(crate) fn build(root: &Path, target_dir: &Path) -> Result<Built> {
    say::step("building the gateway's programs (the first time takes some minutes)");
    let programs = target_dir.join("programs");
    let mut command = cargo(root, &programs, "")?;
    command.args(["--release"]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    run(&mut command)?;
    let init = target_dir.join("static");
    let mut command = cargo(root, &init, "-C target-feature=+crt-static")?;
    command.args(["--profile", "image-init", "--package", "seimon-init"]);
    run(&mut command)?;
    Ok(Built {
        programs: programs.join(TARGET).join("release"),
        init_programs: init.join(TARGET).join("image-init"),
    })
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().context("cargo could not be started")?;
    ensure!(status.success(), "building the gateway's programs failed (see above)");
    Ok(())
}

fn cargo(root: &Path, target_dir: &Path, flags: &str) -> Result<Command> {
    let (cargo, rustc) = toolchain()?;
    let mut command = Command::new(cargo);
    if let Some(rustc) = rustc {
        command.env("RUSTC", rustc).env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    }
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let mut flags = flags.to_owned();
    for (from, to) in
        [(Some(root.to_owned()), "/seimon"), (home, "/cargo"), (Some(target_dir.to_owned()), "/target")]
    {
        if let Some(from) = from {
            flags.push_str(&format!(" --remap-path-prefix={}={to}", from.display()));
        }
    }
    command
        .arg("build")
        .args(["--locked", "--target", TARGET, "--target-dir"])
        .arg(target_dir)
        .current_dir(root)
        .env("RUSTFLAGS", flags.trim())
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
        .env("CC_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-gcc")
        .env(
            "CFLAGS_aarch64_unknown_linux_gnu",
            format!("-ffile-prefix-map={}=/target", target_dir.display()),
        );
    Ok(command)
}

/// cargo, and the rustc to give it.
fn toolchain() -> Result<(PathBuf, Option<PathBuf>)> {
    let listed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let has_target =
        listed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).lines().any(|l| l == TARGET));
    if has_target {
        return Ok((std::env::var_os("CARGO").map_or("cargo".into(), PathBuf::from), None));
    }
    if Path::new(DEBIANS_LIBRARY).is_dir() {
        return Ok(("/usr/bin/cargo".into(), Some("/usr/bin/rustc".into())));
    }
    bail!(
        "no Rust for {TARGET} is here: `rustup target add {TARGET}`, or on Debian: dpkg --add-architecture arm64; \
         apt-get update; apt-get install --no-install-recommends rustc-web cargo-web libstd-rust-web-dev:arm64 \
         gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
    )
}
