//! The root file system's tree: Debian's packages as far as they are wanted, our programs and units, and what packages'
//! scripts would have written: accounts, the authorities' bundle, the modules' index.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::apt::Apt;
use crate::kernel::{self, Chosen, Modules};
use crate::settings::{Lock, Packages};
use crate::tree::{Node, Tree};
use crate::{say, unpack};

/// Folders that a running system needs though they are empty.
pub(crate) const MOUNT_POINTS: [&str; 8] = ["dev", "proc", "root", "run", "sys", "tmp", "var", "home"];

/// Programs of ours, and where they go.
const PROGRAMS: [(&str, &str); 7] = [
    ("seimon-agent", "usr/sbin"),
    ("seimon-resolver", "usr/sbin"),
    ("seimon-probe", "usr/sbin"),
    ("seimon-page", "usr/sbin"),
    ("seimon-tunnel", "usr/sbin"),
    ("seimonctl", "usr/sbin"),
    ("seimon-maintenance", "usr/lib/seimon"),
];

/// Units that are started without being asked for by others.
const WANTED: [(&str, &[&str]); 4] = [
    ("local-fs.target", &["seimon-data.service"]),
    (
        "sysinit.target",
        &[
            "seimon-drivers.service",
            "systemd-journald.service",
            "systemd-modules-load.service",
            "systemd-sysctl.service",
            "systemd-timesyncd.service",
            "systemd-tmpfiles-setup-dev.service",
            "systemd-tmpfiles-setup.service",
        ],
    ),
    ("sockets.target", &["systemd-journald-dev-log.socket", "systemd-journald.socket"]),
    ("multi-user.target", &["seimon-agent.service", "seimon-maintenance.service"]),
];

/// Nobody has a password, and nobody a shell.
const PASSWD: &str = "\
root:x:0:0:root:/root:/usr/sbin/nologin
seimon:x:990:990:Seimon gateway agent:/:/usr/sbin/nologin
systemd-timesync:x:991:991:Time synchronisation:/:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/:/usr/sbin/nologin
";
const GROUPS: [(&str, u32); 12] = [
    ("root", 0),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("kmem", 15),
    ("utmp", 43),
    ("input", 104),
    ("kvm", 105),
    ("seimon", 990),
    ("systemd-timesync", 991),
    ("systemd-journal", 999),
    ("nogroup", 65534),
];

/// What the builder was given.
pub(crate) struct Ingredients<'a> {
    /// The repository.
    pub(crate) root: &'a Path,
    /// For files that other programs must see.
    pub(crate) work: &'a Path,
    pub(crate) apt: &'a Apt,
    pub(crate) packages: &'a Packages,
    pub(crate) lock: &'a Lock,
    /// Folders with our programs for the gateway.
    pub(crate) programs: &'a Path,
    pub(crate) init_programs: &'a Path,
    pub(crate) board_file: &'a Path,
    pub(crate) board: &'a str,
    pub(crate) version: &'a str,
}

pub(crate) struct System {
    pub(crate) tree: Tree,
    /// As Debian signed it: an EFI application.
    pub(crate) kernel: Vec<u8>,
    pub(crate) kernel_version: String,
    pub(crate) initramfs_modules: Vec<(String, Vec<u8>)>,
    /// Modules that the lists ask for and this kernel does not have.
    pub(crate) missing: Vec<String>,
}

pub(crate) fn assemble(given: &Ingredients<'_>, storage: &str) -> Result<System> {
    let Ingredients { root, work, apt, packages, lock, board_file, .. } = given;
    say::step("unpacking packages");
    let mut tree = Tree::default();
    for (package, deb) in lock.package.iter().zip(apt.fetch(lock)?) {
        unpack::package(&mut tree, &package.name, &deb, packages).with_context(|| package.name.clone())?;
    }
    let kernel_path =
        tree.below("boot").map(|(path, _)| path.to_owned()).find(|path| path.starts_with("boot/vmlinuz"));
    let kernel_path = kernel_path.context("the kernel's package has no kernel")?;
    let Some(Node::File { content: kernel, .. }) = tree.remove(&kernel_path) else {
        anyhow::bail!("{kernel_path} is no file");
    };
    let modules = Modules::find(&tree)?;
    let list = |name: &str| {
        let file = root.join("images").join(name);
        fs::read_to_string(&file).with_context(|| file.display().to_string())
    };
    let early = list("initramfs.list")?;
    let lines = [kernel::section_lines(&early, "common"), kernel::section_lines(&early, storage)].concat();
    let early = modules.choose(lines)?;
    let initramfs_modules = early
        .all
        .iter()
        .filter_map(|name| {
            let content = tree.content(modules.path(name)?)?.to_vec();
            Some((format!("{name}.ko"), content))
        })
        .collect();
    let later = list("modules.list")?;
    let mut later = modules.choose(later.lines())?;
    // What the initramfs loads is there later, too, for `modprobe` to know of.
    later.all.extend(early.all);
    kernel::thin(&mut tree, &modules, &later);
    index_modules(&mut tree, &modules, work)?;
    load_at_start(&mut tree, &later);

    bundle_authorities(&mut tree)?;
    accounts(&mut tree);
    tree.overlay(&root.join("images/root"), "")?;
    let unit = root.join("agent/agent/systemd/seimon-agent.service");
    tree.file("usr/lib/systemd/system/seimon-agent.service", 0o644, fs::read(unit)?);
    tree.file("usr/share/seimon/board.toml", 0o644, fs::read(board_file)?);
    our_programs(&mut tree, given)?;
    skeleton(&mut tree, given);
    wanted_units(&mut tree)?;
    tree.prune(&MOUNT_POINTS);
    let kernel_version = modules.folder.rsplit('/').next().unwrap_or_default().to_owned();
    let missing = [early.missing, later.missing].concat();
    Ok(System { tree, kernel, kernel_version, initramfs_modules, missing })
}

/// `depmod` on a copy of the modules.
fn index_modules(tree: &mut Tree, modules: &Modules, work: &Path) -> Result<()> {
    let top = fresh(work, "modules")?;
    let mut part = Tree::default();
    for (path, node) in tree.below(&modules.folder) {
        part.put(path, node.clone());
    }
    part.write(&top)?;
    symlink("usr/lib", top.join("lib"))?;
    let version = modules.folder.rsplit('/').next().context("no kernel version")?;
    let output = Command::new("depmod")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .arg("-b")
        .arg(&top)
        .arg(version)
        .output()
        .context("depmod (Debian package kmod)")?;
    ensure!(output.status.success(), "depmod: {}", String::from_utf8_lossy(&output.stderr));
    for entry in fs::read_dir(top.join(&modules.folder))?.flatten() {
        let name = entry.file_name();
        if let Some(name) = name.to_str().filter(|name| name.starts_with("modules.")) {
            tree.file(&format!("{}/{name}", modules.folder), 0o644, fs::read(entry.path())?);
        }
    }
    fs::remove_dir_all(top)?;
    Ok(())
}

fn load_at_start(tree: &mut Tree, chosen: &Chosen) {
    let text = format!("# From images/modules.list.\n{}\n", chosen.loaded.join("\n"));
    tree.file("usr/lib/modules-load.d/seimon.conf", 0o644, text);
}

/// What `update-ca-certificates` would make of the packages' authorities.
fn bundle_authorities(tree: &mut Tree) -> Result<()> {
    let folder = "usr/share/ca-certificates";
    let found: Vec<(String, Vec<u8>)> = tree
        .below(folder)
        .filter_map(|(path, node)| match node {
            Node::File { content, .. } => Some((path.to_owned(), content.clone())),
            Node::Folder { .. } | Node::Link { .. } => None,
        })
        .collect();
    ensure!(found.len() > 50, "the package ca-certificates holds only {} authorities", found.len());
    let mut bundle = Vec::new();
    for (path, content) in found {
        tree.remove(&path);
        bundle.extend_from_slice(content.trim_ascii_end());
        bundle.push(b'\n');
    }
    tree.file("etc/ssl/certs/ca-certificates.crt", 0o644, bundle);
    Ok(())
}

fn accounts(tree: &mut Tree) {
    tree.file("etc/passwd", 0o644, PASSWD);
    let shadow: String =
        PASSWD.lines().filter_map(|l| l.split(':').next()).map(|n| format!("{n}:!*:1::::::\n")).collect();
    tree.file("etc/shadow", 0o600, shadow);
    let groups: String = GROUPS.iter().map(|(name, id)| format!("{name}:x:{id}:\n")).collect();
    tree.file("etc/group", 0o644, groups);
    let shadow: String = GROUPS.iter().map(|(name, _)| format!("{name}:!*::\n")).collect();
    tree.file("etc/gshadow", 0o600, shadow);
}

fn our_programs(tree: &mut Tree, given: &Ingredients<'_>) -> Result<()> {
    let read = |folder: &Path, name: &str| -> Result<Vec<u8>> {
        let file = folder.join(name);
        fs::read(&file).with_context(|| file.display().to_string())
    };
    for (name, folder) in PROGRAMS {
        tree.file(&format!("{folder}/{name}"), 0o755, read(given.programs, name)?);
    }
    tree.file("usr/lib/seimon/seimon-data", 0o755, read(given.init_programs, "seimon-data")?);
    Ok(())
}

fn skeleton(tree: &mut Tree, given: &Ingredients<'_>) {
    for folder in MOUNT_POINTS {
        tree.folder(folder);
    }
    tree.put("root", Node::Folder { mode: 0o700 });
    tree.put("tmp", Node::Folder { mode: 0o1777 });
    for (path, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("usr/sbin/init", "../lib/systemd/systemd"),
        ("etc/localtime", "../usr/share/zoneinfo/Asia/Tokyo"),
        ("etc/mtab", "../proc/self/mounts"),
        // The plan, which a school keeps: on the data partition.
        ("etc/seimon", "../var/seimon"),
        ("etc/os-release", "../usr/lib/os-release"),
    ] {
        tree.link(path, target);
    }
    let Ingredients { version, board, .. } = given;
    let release = format!(
        "NAME=\"Seimon\"\nID=seimon\nID_LIKE=debian\nVERSION_ID=\"{version}\"\nIMAGE_ID=\"seimon-{board}\"\nIMAGE_VERSION=\"{version}\"\nPRETTY_NAME=\"Seimon {version}\"\n"
    );
    tree.file("usr/lib/os-release", 0o644, release);
    // systemd's own: the box's is bound over it.
    tree.file("etc/machine-id", 0o444, "");
    tree.file("etc/hostname", 0o644, "seimon\n");
    tree.file("etc/hosts", 0o644, "127.0.0.1 localhost seimon\n::1 localhost seimon\n");
    tree.file("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n");
    tree.file("etc/fstab", 0o644, "");
}

fn wanted_units(tree: &mut Tree) -> Result<()> {
    let units = "usr/lib/systemd/system";
    let folders: Vec<String> =
        tree.below(units).map(|(path, _)| path.to_owned()).filter(|path| path.contains(".wants/")).collect();
    for path in folders {
        tree.remove(&path);
    }
    for (target, wanted) in WANTED {
        for unit in wanted {
            ensure!(
                tree.get(&format!("{units}/{unit}")).is_some(),
                "the unit {unit} is wanted and not there"
            );
            tree.link(&format!("{units}/{target}.wants/{unit}"), &format!("../{unit}"));
        }
    }
    tree.link(&format!("{units}/default.target"), "multi-user.target");
    Ok(())
}

/// An empty folder of that name.
pub(crate) fn fresh(work: &Path, name: &str) -> Result<PathBuf> {
    let folder = work.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}
