//! What a gateway loses with its power: all of the kernel's state, and whatever had not reached its disk.
//!
//! The state directory is a small ext4 image. What the gateway synced is in the image, what it only wrote is in the page
//! cache: a copy of the image, made when the power goes, is what the next start finds (and mends, as ext4 does).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde_json::Value;

use crate::netns::{feed, run};
use crate::nodes::Node;

/// Small, so that it is soon full, and copied in no time.
const BYTES: u64 = 16 << 20;
const BLOCK: usize = 1024;
/// Nothing is written back by itself for as long as a scenario lasts, nor because a file was renamed.
const OPTIONS: &str = "loop,commit=300,noauto_da_alloc";
/// Takes what room there is.
const BALLAST: &str = "ballast";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The gateway's disk: an image, mounted as its state directory.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    mounted_at: PathBuf,
    /// Power cuts so far; each leaves a copy of its own.
    cuts: u32,
}

impl Disk {
    /// Makes an image in `folder` and mounts it at `mounted_at`, which exists.
    ///
    /// # Errors
    /// Loop devices need root.
    pub(super) fn make(folder: &Path, mounted_at: &Path) -> Result<Self> {
        let disk = Self { folder: folder.to_owned(), mounted_at: mounted_at.to_owned(), cuts: 0 };
        File::create(disk.image())?.set_len(BYTES)?;
        let image = disk.image();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", &BLOCK.to_string(), text(&image)?])
            .context("a disk of its own for the gateway (Debian package e2fsprogs)")?;
        disk.mount()?;
        Ok(disk)
    }

    pub(super) const fn cuts(&self) -> u32 {
        self.cuts
    }

    fn image(&self) -> PathBuf {
        self.folder.join(format!("disk-{}.img", self.cuts))
    }

    fn mount(&self) -> Result<()> {
        run("mount", &["-t", "ext4", "-o", OPTIONS, text(&self.image())?, text(&self.mounted_at)?])
            .context("the gateway's disk (a loop device: needs root)")?;
        Ok(fs::set_permissions(&self.mounted_at, Permissions::from_mode(0o700))?)
    }

    /// The power goes: what is not in the image is gone. Nobody may have the disk open any more.
    pub(super) fn cut(&mut self) -> Result<()> {
        let before = self.image();
        self.cuts += 1;
        fs::copy(&before, self.image())?;
        unmount(&self.mounted_at, UnmountFlags::DETACH).context("the gateway's disk")?;
        fs::remove_file(before)?;
        self.mount()
    }

    /// Not a byte more goes on it.
    pub(super) fn fill(&self) -> Result<()> {
        let path = self.mounted_at.join(BALLAST);
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        for size in [256 * BLOCK, BLOCK] {
            let zeros = vec![0; size];
            loop {
                match file.write_all(&zeros) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(file.sync_all()?)
    }

    pub(super) fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.mounted_at.join(BALLAST))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.mounted_at, UnmountFlags::DETACH);
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Makes the node's kernel state that of a box that has just been switched on: its own ports, down, and nothing else.
pub(super) fn forget(node: &Node, ports: &[&str]) -> Result<()> {
    node.nft("flush ruleset\n")?;
    node.sysctl(&[("ipv4/ip_forward", "0"), ("ipv6/conf/all/forwarding", "0")])?;
    let links = feed("ip", &["-n", node.name(), "-j", "link"], "")?;
    let links: Value = serde_json::from_str(&links).context("ip -j link")?;
    let names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
    for name in names.filter(|name| *name != "lo") {
        if ports.contains(&name) {
            node.ip(&format!("link set {name} down nomaster\naddr flush dev {name}\n"))?;
        } else {
            // A pair's other end goes with the first.
            let _ = node.ip(&format!("link del {name}\n"));
        }
    }
    for family in ["-4", "-6"] {
        for kind in ["unicast", "prohibit", "blackhole", "unreachable", "throw"] {
            // "Nothing to flush" is an error to some versions.
            let _ =
                feed("ip", &["-n", node.name(), family, "route", "flush", "table", "all", "type", kind], "");
        }
        let rules = "rule flush\nrule add pref 32766 lookup main\n";
        feed("ip", &["-n", node.name(), family, "-batch", "-"], rules)?;
    }
    node.ip("rule add pref 32767 lookup default\n")?;
    let flushed = node.command("conntrack").arg("-F").output().context("conntrack")?;
    if !flushed.status.success() {
        bail!("conntrack -F: {}", String::from_utf8_lossy(&flushed.stderr).trim());
    }
    Ok(())
}

/// From now on this boot is another one, for whoever is started in this private world.
pub(super) fn another_boot(folder: &Path, number: u32) -> Result<()> {
    let file = folder.join("boot-id");
    fs::write(&file, format!("{number:08x}-0000-4000-8000-000000000000\n"))?;
    let _ = unmount(BOOT_ID, UnmountFlags::DETACH);
    mount_bind(&file, BOOT_ID).context("another boot's number")?;
    Ok(())
}
