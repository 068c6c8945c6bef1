//! Debian packages for the guest: downloaded once, unpacked, never installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::say;

/// Programs, with the packages whose libraries they need.
const PROGRAMS: [&str; 9] = [
    "busybox-static",
    "dash",
    "nftables",
    "iproute2",
    "util-linux",
    "iperf3",
    "conntrack",
    "wireguard-tools",
    "libgcc-s1",
];
/// Of a dependency's closure, what a program does not need to run.
const NOT_NEEDED: [&str; 7] =
    ["debconf", "adduser", "init-system-helpers", "dpkg", "perl", "passwd", "cdebconf"];
const ARCHITECTURE: &str = "arm64";

/// What this machine lacks, in words; empty: nothing.
pub(crate) fn lacking() -> Vec<String> {
    let mut lacking = Vec::new();
    for (program, package) in [
        ("qemu-system-aarch64", "qemu-system-arm"),
        ("dpkg-deb", "dpkg"),
        ("apt-get", "apt"),
        ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu with libc6-dev-arm64-cross"),
    ] {
        if find(program).is_none() {
            lacking.push(format!("{program} (package {package})"));
        }
    }
    if lacking.is_empty() {
        let foreign = Command::new("dpkg").arg("--print-foreign-architectures").output();
        let native = Command::new("dpkg").arg("--print-architecture").output();
        let knows = [foreign, native]
            .into_iter()
            .flatten()
            .any(|output| String::from_utf8_lossy(&output.stdout).lines().any(|line| line == ARCHITECTURE));
        if !knows {
            lacking.push(format!("packages for {ARCHITECTURE} (dpkg --add-architecture {ARCHITECTURE})"));
        }
        if let Err(reason) = crate::cross::toolchain() {
            lacking.push(format!("{reason:#}"));
        }
    }
    lacking
}

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin"].into_iter().map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The unpacked packages.
pub(crate) struct Unpacked {
    pub(crate) root: PathBuf,
    pub(crate) kernel: PathBuf,
    /// `lib/modules/VERSION/kernel` below `root`.
    pub(crate) modules: PathBuf,
}

/// Downloads and unpacks what is not there yet.
pub(crate) fn unpacked(folder: &Path) -> Result<Unpacked> {
    let (debs, root) = (folder.join("debs"), folder.join("root"));
    if !root.join("complete").exists() {
        say::step("the guest's packages (once)");
        std::fs::create_dir_all(&debs)?;
        let names = closure()?;
        download(&debs, &names)?;
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root)?;
        for deb in std::fs::read_dir(&debs)? {
            let status = Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(&root).status()?;
            ensure!(status.success(), "dpkg-deb -x failed in {}", debs.display());
        }
        std::fs::write(root.join("complete"), "")?;
    }
    let kernel = one_of(&root.join("boot"), "vmlinuz-")?;
    let modules = one_of(&root.join("lib/modules"), "")?.join("kernel");
    Ok(Unpacked { root, kernel, modules })
}

fn one_of(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    found.sort();
    found.pop().with_context(|| format!("nothing called {prefix}… in {}", folder.display()))
}

/// The programs' packages and all that they depend on, and the newest kernel.
fn closure() -> Result<Vec<String>> {
    let qualified = |name: &str| format!("{name}:{ARCHITECTURE}");
    let programs: Vec<String> = PROGRAMS.iter().copied().map(qualified).collect();
    let arguments =
        ["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"];
    let more = ["--no-replaces", "--no-enhances", "--no-pre-depends"];
    let listed = words_of(Command::new("apt-cache").args(arguments).args(more).args(&programs))?;
    let mut names: Vec<String> = listed
        .lines()
        .filter(|line| line.ends_with(&format!(":{ARCHITECTURE}")) && !line.starts_with([' ', '<', '|']))
        .filter(|line| !NOT_NEEDED.iter().any(|not| line.starts_with(not)))
        .map(str::to_owned)
        .collect();
    names.extend(programs);
    let kernel = words_of(Command::new("apt-cache").args(["depends", &qualified("linux-image-arm64")]))?;
    let kernel = kernel.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let kernel = kernel.context("apt knows no kernel for arm64: run apt-get update")?.trim();
    names.push(if kernel.contains(':') { kernel.to_owned() } else { qualified(kernel) });
    names.sort();
    names.dedup();
    Ok(names)
}

fn words_of(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn download(debs: &Path, names: &[String]) -> Result<()> {
    let status = Command::new("apt-get")
        .arg("download")
        .args(names)
        .current_dir(debs)
        .stdout(Stdio::null())
        .status()
        .context("apt-get could not be started")?;
    if !status.success() {
        bail!("apt-get download failed (see above); run apt-get update, and try again");
    }
    Ok(())
}
