//! The data partition: LUKS2 with ext4 in it, mounted at /var. Made at the first start, opened at each.
//!
//! `seimon-data open` — opens it, or makes it; a factory reset is carried out here.
//! `seimon-data drivers` — loads the drivers of what is in the box: there is no udev.
//! `seimon-data mark NAME` — notes once, as a fact, how long after the kernel's start that was.
//!
//! Making it is repeated from the beginning until its last step is on the disk (`Made` in the device key's record), so power
//! may go at any moment. A partition that was made and cannot be opened is never made anew by itself: what is on it is the
//! school's. The box then runs on memory only, closed, and says so.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use rustix::mount::{MountFlags, mount};
use seimon_boot::partition;
use seimon_boot::state::{COPY_DISTANCE, Request};
use seimon_init::device_key::{self, Data, DeviceKey};
use seimon_init::facts::{self, Level};
use seimon_init::{Doing as _, Result, boot_state, disk, dm};

const MOUNTED_AT: &str = "/var";
const MAPPED: &str = "seimon-data";
const MAPPED_DEVICE: &str = "/dev/mapper/seimon-data";
/// What a factory reset leaves: the key that the box signs its reports with.
const IDENTITY: &str = "lib/seimon/identity.key";
/// The updater's group, in the image's /etc/group (`seimon-image`).
const UPDATER: u32 = 992;
/// What the updater sees of the boot state's partition: both copies. What lies behind them is the box's own key.
const TWO_COPIES: u64 = 2 * COPY_DISTANCE;
const _: () = assert!(TWO_COPIES <= device_key::COPIES[0]);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["open"] => open_or_do_without(),
        ["drivers"] => drivers(),
        ["mark", name] => mark(name),
        _ => Err("seimon-data open | drivers | mark NAME".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            facts::say(Level::Alert, &format!("seimon-data: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn mark(name: &str) -> Result<()> {
    if facts::noted(name).is_some() {
        return Ok(());
    }
    let now = facts::uptime_ms().to_string();
    facts::note(name, &now)?;
    if name == "policy-ms" {
        facts::say(Level::Alert, &format!("ready: the policy is in force {now} ms after the kernel's start"));
    }
    Ok(())
}

/// There is no udev: what the updater writes gets names that do not depend on the board, and the updater's group.
fn hand_to_updater() -> Result<()> {
    let disk = disk::named_on_the_command_line()?;
    let state = disk::partition(&disk, partition::BOOT_STATE)?.device;
    let state = dm::make(
        "seimon-boot-state",
        dm::Access::ReadWrite,
        TWO_COPIES,
        "linear",
        &format!("{} 0", state.display()),
    )?;
    let names = Path::new("/dev/seimon");
    fs::create_dir_all(names).doing("/dev/seimon")?;
    let slot = |name| disk::partition(&disk, name).map(|partition| partition.device);
    for (name, device) in [
        (partition::BOOT_STATE, state),
        (partition::SLOT_A, slot(partition::SLOT_A)?),
        (partition::SLOT_B, slot(partition::SLOT_B)?),
    ] {
        std::os::unix::fs::chown(&device, None, Some(UPDATER)).doing(name)?;
        fs::set_permissions(&device, fs::Permissions::from_mode(0o660)).doing(name)?;
        symlink(&device, names.join(name)).doing(name)?;
    }
    Ok(())
}

fn open_or_do_without() -> Result<()> {
    if let Err(error) = hand_to_updater() {
        facts::say(Level::Alert, &format!("this box cannot be updated: {error}"));
    }
    let error = match open() {
        Ok(()) => {
            facts::note("data", "open")?;
            return facts::note("data-ms", &facts::uptime_ms().to_string());
        }
        Err(error) => error,
    };
    facts::say(Level::Alert, &format!("the data partition cannot be used: {error}"));
    facts::say(Level::Alert, "this box stays closed; if it has to begin anew, ask for a wipe");
    facts::note("data", &format!("unusable: {error}"))?;
    mount("tmpfs", MOUNTED_AT, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755,size=10%"))
        .doing(MOUNTED_AT)?;
    skeleton(Path::new(MOUNTED_AT))
}

fn open() -> Result<()> {
    let disk = disk::named_on_the_command_line()?;
    let state = disk::partition(&disk, partition::BOOT_STATE)?.device;
    let state = OpenOptions::new().read(true).write(true).open(state).doing("the boot state")?;
    let mut key = device_key::read(&state)?.ok_or("this box has no key: it is made by the initramfs")?;
    let data = disk::partition(&disk, partition::DATA)?.device;
    // A TPM would seal the key here; no board that is described has one.
    facts::note("data-key", "device")?;
    match key.data {
        Data::Made => unlock(&data, &key)?,
        Data::ToBeMade => make(&data, &state, &mut key)?,
    }
    check()?;
    let options = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    mount(MAPPED_DEVICE, MOUNTED_AT, "ext4", options, None).doing("mounting the data partition")?;
    if boot_state::request(&state)? == Request::FactoryReset {
        facts::say(Level::Alert, "forgetting this school's settings, as was asked");
        forget(Path::new(MOUNTED_AT)).doing("factory reset")?;
        rustix::fs::sync();
        boot_state::done(&state)?;
    }
    skeleton(Path::new(MOUNTED_AT))
}

fn make(device: &Path, state: &File, key: &mut DeviceKey) -> Result<()> {
    facts::say(Level::Warning, "making the data partition");
    // The key has 256 bits: stretching it would only cost time at each start.
    let format = [
        "luksFormat",
        "--batch-mode",
        "--type",
        "luks2",
        "--cipher",
        "aes-xts-plain64",
        "--key-size",
        "512",
        "--hash",
        "sha256",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
        "--sector-size",
        "4096",
        "--label",
        "seimon-data",
        "--key-file",
        "-",
    ];
    cryptsetup(&format, &[device], key)?;
    unlock(device, key)?;
    run(
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-L", "seimon-data", MAPPED_DEVICE],
        b"",
        &[0],
    )?;
    rustix::fs::sync();
    key.data = Data::Made;
    device_key::write(state, key)
}

fn unlock(device: &Path, key: &DeviceKey) -> Result<()> {
    cryptsetup(&["open", "--type", "luks2", "--key-file", "-"], &[device, Path::new(MAPPED)], key)
}

fn cryptsetup(arguments: &[&str], paths: &[&Path], key: &DeviceKey) -> Result<()> {
    let mut all = arguments.to_vec();
    for path in paths {
        all.push(path.to_str().ok_or("a path is not UTF-8")?);
    }
    run("cryptsetup", &all, key.data_key().as_bytes(), &[0])
}

/// What a power cut left is put right; a tree that is really broken is put right as far as it goes, and that is said.
fn check() -> Result<()> {
    // 1: errors were corrected.
    if run("e2fsck", &["-p", MAPPED_DEVICE], b"", &[0, 1]).is_ok() {
        return Ok(());
    }
    facts::say(Level::Warning, "the data partition is damaged and is being repaired");
    facts::note("data-repaired", "yes")?;
    run("e2fsck", &["-f", "-y", MAPPED_DEVICE], b"", &[0, 1])
}

/// Everything goes but the box's identity. What is half gone goes at the next start.
fn forget(top: &Path) -> std::io::Result<()> {
    forget_in(top, Path::new(""))
}

fn forget_in(top: &Path, folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(top.join(folder))? {
        let entry = entry?;
        let name = folder.join(entry.file_name());
        if name == Path::new(IDENTITY) {
            continue;
        }
        if !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
        } else if Path::new(IDENTITY).starts_with(&name) {
            forget_in(top, &name)?;
        } else {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Everything that the kernel has found says by an alias which driver it wants. What it finds later, it finds because of a
/// driver that was loaded: so it is asked until nothing new comes.
fn drivers() -> Result<()> {
    let mut known = BTreeSet::new();
    for _ in 0..4 {
        let mut aliases = BTreeSet::new();
        collect_aliases(Path::new("/sys/devices"), &mut aliases);
        let new: Vec<&str> = aliases.difference(&known).map(String::as_str).collect();
        if new.is_empty() {
            break;
        }
        // -a: all of them; -b: not those that are switched off; -q: nothing is said of those that nobody drives.
        let arguments = [&["-a", "-b", "-q", "--"], new.as_slice()].concat();
        run("modprobe", &arguments, b"", &[0, 1])?;
        known = aliases;
    }
    name_ports()
}

fn collect_aliases(folder: &Path, aliases: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        // Links lead back up.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_aliases(&entry.path(), aliases);
        } else if entry.file_name() == "modalias"
            && let Ok(alias) = fs::read_to_string(entry.path())
            && !alias.trim().is_empty()
        {
            aliases.insert(alias.trim().to_owned());
        }
    }
}

/// Ports of a virtual machine's host by their names, as udev would.
fn name_ports() -> Result<()> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else { return Ok(()) };
    for port in ports.flatten() {
        let Ok(name) = fs::read_to_string(port.path().join("name")) else { continue };
        let (name, folder) = (name.trim(), Path::new("/dev/virtio-ports"));
        if name.is_empty() || name.contains('/') || folder.join(name).exists() {
            continue;
        }
        fs::create_dir_all(folder).doing("/dev/virtio-ports")?;
        symlink(Path::new("..").join(port.file_name()), folder.join(name)).doing(name)?;
    }
    Ok(())
}

/// What must be there before systemd-tmpfiles has run.
fn skeleton(top: &Path) -> Result<()> {
    for folder in ["lib", "log", "cache", "tmp", "seimon"] {
        fs::create_dir_all(top.join(folder)).doing(folder)?;
    }
    fs::set_permissions(top.join("tmp"), fs::Permissions::from_mode(0o1777)).doing("tmp")?;
    let run = top.join("run");
    if fs::symlink_metadata(&run).is_err() {
        symlink("/run", run).doing("run")?;
    }
    Ok(())
}

/// Runs a program of the image; its exit code must be among those `good`.
fn run(program: &str, arguments: &[&str], input: &[u8], good: &[i32]) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin")
        .env("LC_ALL", "C")
        // There is no udev that would make the nodes.
        .env("DM_DISABLE_UDEV", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .doing(program)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading says why.
        let _unread = stdin.write_all(input);
    }
    let output = child.wait_with_output().doing(program)?;
    if output.status.code().is_some_and(|code| good.contains(&code)) {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {} ({})", words.trim().lines().next_back().unwrap_or("no words"), output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factory_reset_leaves_the_identity_and_nothing_else() {
        let top = tempfile::tempdir().unwrap();
        for file in [
            "seimon/etc/plan.toml",
            "lib/seimon/identity.key",
            "lib/seimon/journal/1",
            "lib/other/x",
            "log/y",
        ] {
            let file = top.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "content").unwrap();
        }
        symlink("/", top.path().join("run")).unwrap();
        forget(top.path()).unwrap();
        forget(top.path()).unwrap();
        assert!(top.path().join(IDENTITY).is_file());
        assert!(!top.path().join("lib/seimon/journal").exists());
        let left: Vec<_> =
            fs::read_dir(top.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["lib"]);
        assert!(Path::new("/etc").is_dir(), "links are not followed");
    }
}
