//! What the guest starts from: an archive with programs and modules, made once, and one with the job.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cpio::Archive;
use crate::{modules, packages};

/// One thing to do in the guest.
#[derive(Debug, Default)]
pub(crate) struct Job {
    /// Run by `sh -e`; its status is the job's.
    pub(crate) script: String,
    /// Absolute names in the guest, permission bits, contents.
    pub(crate) files: Vec<(String, u32, Vec<u8>)>,
}

/// Line by which the guest tells the job's status.
pub(crate) const STATUS: &str = "seimon-guest: the job ended with ";

/// The guest's first process. A panic of the kernel ends QEMU without a status.
const INIT: &str = "\
#!/bin/dash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/applets HOME=/root TERM=dumb
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /root /applets /var/lib
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mkdir -p /dev/pts /dev/shm
/bin/busybox mount -t devpts pts /dev/pts
/bin/busybox mount -t tmpfs shm /dev/shm
/bin/busybox mount -t tmpfs run /run
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox --install -s /applets
for module in /modules/*.ko; do insmod $module || echo \"insmod $module failed\"; done
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ping_group_range 2>/dev/null
cd /
dash -e /job/run < /dev/null
status=$?
echo
echo \"seimon-guest: the job ended with $status\"
sync
poweroff -f
";

pub(crate) struct Images {
    pub(crate) kernel: PathBuf,
    pub(crate) base: PathBuf,
}

/// The base archive, made when it is not there.
pub(crate) fn base(folder: &Path) -> Result<Images> {
    let unpacked = packages::unpacked(folder)?;
    let base = folder.join("base.cpio");
    let newer_than =
        |a: &Path, b: &Path| -> Result<bool> { Ok(a.metadata()?.modified()? > b.metadata()?.modified()?) };
    let stale = !base.exists() || newer_than(&std::env::current_exe()?, &base)?;
    if stale {
        let fresh = folder.join(format!("base.cpio.{}", std::process::id()));
        let mut archive = Archive::new(BufWriter::new(File::create(&fresh)?));
        archive.console()?;
        archive.file("init", 0o755, INIT.as_bytes())?;
        archive.file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )?;
        archive.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
        // nft asks it for names of protocols.
        archive.file(
            "etc/protocols",
            0o644,
            b"icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\n",
        )?;
        archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n")?;
        // Debian's folders are links into /usr; its packages of the day do not bring the links.
        for name in ["lib", "bin", "sbin"] {
            archive.folder(name)?;
        }
        archive.tree(&unpacked.root, &is_wanted)?;
        // Not busybox's shell: it runs its own `ip` before any other.
        archive.symlink("bin/sh", "dash")?;
        for (number, (name, bytes)) in modules::in_order(&unpacked.modules)?.into_iter().enumerate() {
            archive.file(&format!("modules/{number:03}-{name}.ko"), 0o644, &bytes)?;
        }
        archive.finish()?;
        std::fs::rename(&fresh, &base)?;
    }
    Ok(Images { kernel: unpacked.kernel, base })
}

/// No modules (the wanted ones are elsewhere), no documentation, nothing for a compiler.
fn is_wanted(name: &str) -> bool {
    const LEFT_OUT: [&str; 9] = [
        "boot",
        "complete",
        "lib/modules",
        "usr/lib/modules",
        "usr/share",
        "usr/lib/locale",
        "usr/lib/systemd",
        "lib/systemd",
        "usr/lib/aarch64-linux-gnu/gconv",
    ];
    !LEFT_OUT.contains(&name)
}

/// Base and job in one file, as QEMU takes only one.
pub(crate) fn with_job(images: &Images, job: &Job, into: &Path) -> Result<()> {
    std::fs::copy(&images.base, into).with_context(|| into.display().to_string())?;
    let file = File::options().append(true).open(into)?;
    let mut archive = Archive::new(BufWriter::new(file));
    archive.folder("job")?;
    archive.file("job/run", 0o755, job.script.as_bytes())?;
    for (name, mode, content) in &job.files {
        archive.file(name, *mode, content)?;
    }
    archive.finish()?.flush()?;
    Ok(())
}
