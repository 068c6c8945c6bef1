//! What must be on the machine, and how it gets there.
//!
//! As root, or where CI is set, missing Debian packages are installed without a question. Otherwise the exact command
//! is printed and `sudo` is used only after a yes.

use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::say;

/// Programs and the Debian packages that carry them.
const LAB: [(&str, &str); 4] =
    [("nft", "nftables"), ("ip", "iproute2"), ("ethtool", "ethtool"), ("conntrack", "conntrack")];
const BENCH: [(&str, &str); 2] = [("iperf3", "iperf3"), ("wireguard-go", "wireguard-go")];
/// For scenarios that move the clock or cut the power.
const FAULTS: [(&str, &str); 2] = [("faketime", "faketime"), ("mkfs.ext4", "e2fsprogs")];

const IMAGE: [(&str, &str); 6] = [
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("mkfs.erofs", "erofs-utils"),
    ("depmod", "kmod"),
    ("zstd", "zstd"),
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
];
const MACHINE: [(&str, &str); 1] = [("qemu-system-aarch64", "qemu-system-arm qemu-efi-aarch64")];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Lab,
    Bench,
    /// The lab with all scenarios.
    Faults,
    /// To make an image.
    Image,
    /// To start one.
    VirtualMachine,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    Ask,
    Given,
}

/// Installs or names what is missing; an error says what to type.
pub(crate) fn ensure(need: Need, consent: Consent) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("the lab is made of Linux network namespaces; run this on Linux (a virtual machine will do)");
    }
    let missing = missing(need);
    if !missing.is_empty() {
        install(&missing, consent)?;
    }
    match need {
        Need::Lab | Need::Bench | Need::Faults => namespaces(),
        Need::Image | Need::VirtualMachine => Ok(()),
    }
}

fn missing(need: Need) -> Vec<&'static str> {
    let base: &[(&str, &str)] = match need {
        Need::Lab | Need::Bench | Need::Faults => &LAB,
        Need::Image => &IMAGE,
        Need::VirtualMachine => &MACHINE,
    };
    let more: &[(&str, &str)] = match need {
        Need::Lab | Need::Image | Need::VirtualMachine => &[],
        Need::Bench => &BENCH,
        Need::Faults => &FAULTS,
    };
    base.iter().chain(more).filter(|(program, _)| !present(program)).map(|(_, package)| *package).collect()
}

/// Looks where administrators' programs are, too: an ordinary user's PATH often lacks `sbin`.
pub(crate) fn present(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().map(|d| Path::new(d).to_path_buf()))
        .any(|folder| folder.join(program).is_file())
}

pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|s| {
            s.lines().find_map(|l| l.strip_prefix("Uid:").map(|r| r.split_whitespace().nth(1) == Some("0")))
        })
        .unwrap_or(false)
}

pub(crate) fn install(packages: &[&str], consent: Consent) -> Result<()> {
    let line =
        format!("apt-get update && apt-get install --yes --no-install-recommends {}", packages.join(" "));
    if !present("apt-get") {
        bail!("missing: {}. Install these with your distribution's package manager.", packages.join(", "));
    }
    let root = is_root();
    let ci = std::env::var_os("CI").is_some();
    if !root && !ci && consent == Consent::Ask {
        say::line(&format!("missing: {}\nto install them: sudo sh -c '{line}'", packages.join(", ")));
        if !std::io::stdin().is_terminal() || !yes("run this now with sudo? [y/N] ")? {
            bail!("nothing was changed; run the line above, then try again");
        }
    }
    say::step(&format!("installing {}", packages.join(", ")));
    let mut command = if root { Command::new("sh") } else { Command::new("sudo") };
    if !root {
        // In CI there is nobody to type a password.
        command.args(if ci { &["-n", "sh"][..] } else { &["sh"][..] });
    }
    let status = command
        .args(["-c", &line])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::inherit())
        .stdout(Stdio::null())
        .status()
        .context("the package manager could not be started")?;
    if !status.success() {
        bail!("installing failed; try by hand: {}{line}", if root { "" } else { "sudo sh -c … " });
    }
    Ok(())
}

fn yes(question: &str) -> Result<bool> {
    say::out(question);
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Namespaces of one's own: as root, or as anybody inside a user namespace.
fn namespaces() -> Result<()> {
    if can_unshare() {
        return Ok(());
    }
    bail!(
        "this user may not make network namespaces. Either run as root, or allow user namespaces: \
         sudo sysctl kernel.unprivileged_userns_clone=1 (Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0)"
    )
}

pub(crate) fn can_unshare() -> bool {
    let flags = if is_root() { "-nm" } else { "-Urnm" };
    Command::new("unshare")
        .args([flags, "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}
