//! `/init` of the initramfs: from the kernel to systemd on a verified, read-only root.
//!
//! modules → partitions → boot state (a wipe is carried out here) → device key and machine id → dm-linear over the root's
//! bytes in the slot → dm-verity over that → erofs → `/sbin/init`.
//!
//! There is no shell. What fails is said on the console, in words for a technician, and the box starts again: the guardian
//! counts that, and takes the other slot when this one does not come up.

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::system::{RebootCommand, reboot};
use seimon_boot::partition;
use seimon_boot::state::Request;
use seimon_init::command_line::{BLOCK, CommandLine};
use seimon_init::device_key::{self, DeviceKey};
use seimon_init::facts::{self, Level};
use seimon_init::{Doing as _, Result, boot_state, disk, dm, modules};

const NEW_ROOT: &str = "/sysroot";
/// Long enough to read the line.
const BEFORE_RESTART: Duration = Duration::from_secs(10);
/// A LUKS2 header with all its key slots is in the first 16 MiB; the rest is no use without it.
const WIPED: u64 = 32 << 20;

fn main() -> ExitCode {
    let Err(error) = start();
    facts::say(Level::Alert, &format!("this image cannot start: {error}"));
    facts::say(
        Level::Alert,
        "the box starts again in 10 seconds; if this goes on, hold the button for rescue",
    );
    sleep(BEFORE_RESTART);
    rustix::fs::sync();
    let _never_returns = reboot(RebootCommand::Restart);
    ExitCode::FAILURE
}

fn start() -> Result<Infallible> {
    for (kind, at, flags) in [
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC),
        ("proc", "/proc", MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV),
        ("sysfs", "/sys", MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV),
        ("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV),
    ] {
        mount(kind, at, kind, flags, (kind == "tmpfs").then_some(c"mode=0755,size=20%")).doing(at)?;
    }
    facts::note("init-ms", &facts::uptime_ms().to_string())?;
    for problem in modules::load_all()? {
        facts::say(Level::Warning, &format!("a kernel module was not taken: {problem}"));
    }
    let line = fs::read_to_string("/proc/cmdline").doing("/proc/cmdline")?;
    let line = CommandLine::parse(&line)?;
    facts::note("slot", &line.slot.letter().to_string())?;

    let boot_state = disk::partition(&line.disk, partition::BOOT_STATE)?;
    let boot_state =
        OpenOptions::new().read(true).write(true).open(&boot_state.device).doing("the boot state")?;
    if boot_state::request(&boot_state)? == Request::Wipe {
        wipe(&line.disk, &boot_state)?;
    }
    let key = device_key(&boot_state)?;
    fs::write("/run/machine-id", format!("{}\n", key.machine_id())).doing("/run/machine-id")?;

    mount_root(&line)?;
    mount_bind("/run/machine-id", format!("{NEW_ROOT}/etc/machine-id")).doing("/etc/machine-id")?;
    let own = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", format!("{NEW_ROOT}/tmp"), "tmpfs", own, Some(c"mode=1777,size=10%")).doing("/tmp")?;
    facts::note("root-ms", &facts::uptime_ms().to_string())?;
    switch_root()
}

/// Each step can be repeated; only the last one takes the request back. So wherever power goes, the next start goes on.
fn wipe(disk: &str, boot_state: &File) -> Result<()> {
    facts::say(Level::Alert, "erasing everything that this box knows, as was asked");
    let data = disk::partition(disk, partition::DATA)?;
    let file = OpenOptions::new().write(true).open(&data.device).doing("the data partition")?;
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < data.length.min(WIPED) {
        file.write_all_at(&zeros, at).doing("erasing the data partition")?;
        at += zeros.len() as u64;
    }
    file.sync_all().doing("erasing the data partition")?;
    device_key::erase(boot_state)?;
    boot_state::done(boot_state)
}

fn device_key(boot_state: &File) -> Result<DeviceKey> {
    if let Some(key) = device_key::read(boot_state)? {
        return Ok(key);
    }
    facts::say(Level::Warning, "first start: this box makes its own key");
    let mut secret = [0; 32];
    // Waits until the kernel has gathered enough.
    let got =
        rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty()).doing("randomness")?;
    if got != secret.len() {
        return Err("randomness: the kernel gave less than it was asked for".to_owned());
    }
    let mut key = DeviceKey::new(secret);
    device_key::write(boot_state, &mut key)?;
    device_key::write(boot_state, &mut key)?;
    Ok(key)
}

fn mount_root(line: &CommandLine) -> Result<()> {
    let CommandLine { disk, slot, root } = line;
    let slot = disk::partition(disk, slot.partition())?;
    if root.offset + root.length > slot.length {
        return Err("the slot is smaller than the image: it was not written whole".to_owned());
    }
    let device = slot.device.display();
    let bytes = dm::make(
        "seimon-root",
        dm::Access::ReadOnly,
        root.length,
        "linear",
        &format!("{device} {}", root.offset / 512),
    )?;
    let bytes = bytes.display();
    let blocks = root.data / BLOCK;
    // A block that is not what was signed: start again. The guardian then verifies the whole slot before it starts it.
    let parameters = format!(
        "1 {bytes} {bytes} {BLOCK} {BLOCK} {blocks} {blocks} sha256 {} {} 1 restart_on_corruption",
        root.hash, root.salt
    );
    let verified = dm::make("seimon-verity", dm::Access::ReadOnly, root.data, "verity", &parameters)?;
    mount(verified, NEW_ROOT, "erofs", MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID, None)
        .doing("the root file system")
}

/// The initramfs's memory is given back, then `/sbin/init` takes this process's place.
fn switch_root() -> Result<Infallible> {
    for mounted in ["/dev", "/proc", "/sys", "/run"] {
        mount_move(mounted, format!("{NEW_ROOT}{mounted}")).doing(mounted)?;
    }
    let own = fs::metadata("/").doing("/")?.dev();
    std::env::set_current_dir(NEW_ROOT).doing(NEW_ROOT)?;
    empty(Path::new("/"), own);
    mount_move(".", "/").doing("the new root")?;
    rustix::process::chroot(".").doing("the new root")?;
    std::env::set_current_dir("/").doing("the new root")?;
    let console = OpenOptions::new().read(true).write(true).open("/dev/console").doing("/dev/console")?;
    let another = || console.try_clone().doing("/dev/console");
    let (input, output, errors) = (another()?, another()?, another()?);
    let error = Command::new("/sbin/init")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin")
        .stdin(input)
        .stdout(output)
        .stderr(errors)
        .exec();
    Err(format!("/sbin/init: {error}"))
}

/// Removes what lies on the initramfs itself. What stays costs memory only.
fn empty(folder: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(about) = entry.metadata() else { continue };
        if about.dev() != device {
            continue;
        }
        if about.is_dir() {
            empty(&entry.path(), device);
            let _stays = fs::remove_dir(entry.path());
        } else {
            let _stays = fs::remove_file(entry.path());
        }
    }
}
