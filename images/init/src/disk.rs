//! Partitions by their names in the GPT, as the kernel tells them in sysfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Doing as _, Result};

const BLOCK_DEVICES: &str = "/sys/class/block";
/// A flash chip may take its time after power-on.
const PATIENCE: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub device: PathBuf,
    /// In bytes.
    pub length: u64,
}

/// Waits until the disk (`vda`) and its partition are there.
///
/// # Errors
/// They never came.
pub fn partition(disk: &str, name: &str) -> Result<Partition> {
    let begun = Instant::now();
    loop {
        if let Some(found) = find(Path::new(BLOCK_DEVICES), disk, name) {
            return Ok(found);
        }
        if begun.elapsed() > PATIENCE {
            let there = Path::new(BLOCK_DEVICES).join(disk).exists();
            return Err(if there {
                format!("the disk /dev/{disk} has no partition `{name}`: write a whole disk image to it")
            } else {
                format!("there is no disk /dev/{disk}: is it plugged in, and is this image for this board?")
            });
        }
        sleep(STEP);
    }
}

fn find(devices: &Path, disk: &str, name: &str) -> Option<Partition> {
    let wanted = format!("PARTNAME={name}");
    for entry in fs::read_dir(devices.join(disk)).ok()?.flatten() {
        let device = entry.file_name().into_string().ok()?;
        if !device.starts_with(disk) {
            continue;
        }
        let Ok(facts) = fs::read_to_string(entry.path().join("uevent")) else { continue };
        if facts.lines().any(|line| line == wanted) {
            let sectors: u64 = fs::read_to_string(entry.path().join("size")).ok()?.trim().parse().ok()?;
            return Some(Partition { device: Path::new("/dev").join(device), length: sectors * 512 });
        }
    }
    None
}

/// The disk in the kernel's command line.
///
/// # Errors
/// There is none.
pub fn named_on_the_command_line() -> Result<String> {
    let line = fs::read_to_string("/proc/cmdline").doing("/proc/cmdline")?;
    crate::command_line::CommandLine::parse(&line).map(|line| line.disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_found_by_its_name_on_that_disk_only() {
        let sys = tempfile::tempdir().unwrap();
        for (path, name) in [("vda/vda1", "esp"), ("vda/vda2", "boot-state"), ("vdb/vdb1", "slot-a")] {
            let folder = sys.path().join(path);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("uevent"), format!("DEVTYPE=partition\nPARTN=1\nPARTNAME={name}\n"))
                .unwrap();
            fs::write(folder.join("size"), "2048\n").unwrap();
        }
        fs::create_dir_all(sys.path().join("vda/queue")).unwrap();
        let found = find(sys.path(), "vda", "boot-state").unwrap();
        assert_eq!(found, Partition { device: "/dev/vda2".into(), length: 1 << 20 });
        assert_eq!(find(sys.path(), "vda", "slot-a"), None);
        assert_eq!(find(sys.path(), "vda", "boot"), None);
    }
}
