//! Disks: a GUID partition table with our partitions, an ESP with the guardian, a boot state and two slots.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use seimon_boot::state::{Copy, Found, RECORD, newest};
use seimon_boot::{BootState, Slot, Status, partition};

use crate::image::Image;

const SECTOR: u64 = 512;
const MIB: u64 = 1024 * 1024;
/// (name, type GUID as on the disk, MiB).
const PARTITIONS: [(&str, [u8; 16], u64); 5] = [
    (partition::ESP, ESP_TYPE, 8),
    (partition::BOOT_STATE, OUR_TYPE, 1),
    (partition::SLOT_A, OUR_TYPE, 2),
    (partition::SLOT_B, OUR_TYPE, 2),
    (partition::DATA, OUR_TYPE, 1),
];
/// c12a7328-f81f-11d2-ba4b-00a0c93ec93b.
const ESP_TYPE: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
/// Linux file system data, 0fc63daf-8483-4772-8e79-3d69d8477de4.
const OUR_TYPE: [u8; 16] =
    [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];

/// What is to be on a disk.
#[derive(Debug)]
pub struct Content<'a> {
    pub guardian: &'a Path,
    pub a: Option<&'a Image>,
    pub b: Option<&'a Image>,
    /// `None`: neither copy is written.
    pub state: Option<BootState>,
}

impl<'a> Content<'a> {
    /// Slot A preferred; a slot without an image is empty.
    pub fn new(guardian: &'a Path, a: Option<(&'a Image, Status)>, b: Option<(&'a Image, Status)>) -> Self {
        let mut state = BootState::fresh();
        if let Some((image, status)) = a {
            state.a = image.slot_state(status);
        }
        if let Some((image, status)) = b {
            state.b = image.slot_state(status);
        }
        Self { guardian, a: a.map(|(image, _)| image), b: b.map(|(image, _)| image), state: Some(state) }
    }

    pub fn write_to(&self, file: &Path) -> Result<Disk> {
        let total = PARTITIONS.iter().map(|(_, _, mib)| mib).sum::<u64>() + 2;
        let mut bytes = vec![0; usize::try_from(total * MIB)?];
        table(&mut bytes);
        let mut put = |at: u64, what: &[u8]| -> Result<()> {
            let at = usize::try_from(at)?;
            bytes
                .get_mut(at..at + what.len())
                .context("an image is larger than its slot")?
                .copy_from_slice(what);
            Ok(())
        };
        put(start_of(partition::ESP), &esp(self.guardian, file)?)?;
        for (name, image) in [(partition::SLOT_A, self.a), (partition::SLOT_B, self.b)] {
            if let Some(image) = image {
                put(start_of(name), &image.bytes)?;
            }
        }
        if let Some(state) = &self.state {
            put(start_of(partition::BOOT_STATE), &state.encode())?;
        }
        std::fs::write(file, bytes).with_context(|| file.display().to_string())?;
        Ok(Disk { file: file.to_path_buf() })
    }
}

/// A disk that is there. Look at it or change it only while no machine runs from it.
#[derive(Clone, Debug)]
pub struct Disk {
    pub file: PathBuf,
}

impl Disk {
    fn open(&self) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.file)
            .with_context(|| self.file.display().to_string())
    }

    pub fn write(&self, partition: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut file = self.open()?;
        file.seek(SeekFrom::Start(start_of(partition) + offset))?;
        Ok(file.write_all(bytes)?)
    }

    pub fn read(&self, partition: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut file = self.open()?;
        file.seek(SeekFrom::Start(start_of(partition) + offset))?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// `None`: both copies are torn.
    pub fn state(&self) -> Result<Option<BootState>> {
        Ok(self.found()?.state)
    }

    fn found(&self) -> Result<Found> {
        let copy = |copy: Copy| self.read(partition::BOOT_STATE, copy.offset(), RECORD);
        Ok(newest(&copy(Copy::First)?, &copy(Copy::Second)?))
    }

    /// What the agent does in the running system.
    pub fn change_state(&self, change: impl FnOnce(&mut BootState)) -> Result<()> {
        let found = self.found()?;
        let mut state = found.state.context("both copies of the boot state are torn")?;
        change(&mut state);
        self.write(partition::BOOT_STATE, found.write_to.offset(), &state.advanced().encode())
    }

    pub fn tear_both_copies(&self) -> Result<()> {
        for copy in [Copy::First, Copy::Second] {
            self.write(partition::BOOT_STATE, copy.offset() + 100, &[0xa5; 64])?;
        }
        Ok(())
    }

    pub fn flip(&self, slot: Slot, byte: u64, bit: u8) -> Result<()> {
        let old = self.read(slot.partition(), byte, 1)?;
        self.write(slot.partition(), byte, &[old[0] ^ 1 << (bit % 8)])
    }

    /// The disk ends here, whatever its table says.
    pub fn cut_off(&self, partition: &str, offset: u64) -> Result<()> {
        Ok(self.open()?.set_len((start_of(partition) + offset).next_multiple_of(SECTOR))?)
    }

    pub fn copy_to(&self, file: &Path) -> Result<Self> {
        std::fs::copy(&self.file, file).with_context(|| file.display().to_string())?;
        Ok(Self { file: file.to_path_buf() })
    }
}

fn start_of(name: &str) -> u64 {
    let before = PARTITIONS.iter().take_while(|(other, _, _)| *other != name);
    MIB + before.map(|(_, _, mib)| mib * MIB).sum::<u64>()
}

/// UEFI Specification 2.10, 5.3: protective MBR, table, backup table.
fn table(bytes: &mut [u8]) {
    let sectors = bytes.len() as u64 / SECTOR;
    let mut entries = vec![0_u8; 128 * 128];
    for (number, ((name, kind, mib), entry)) in
        PARTITIONS.iter().zip(entries.chunks_exact_mut(128)).enumerate()
    {
        let first = start_of(name) / SECTOR;
        entry[..16].copy_from_slice(kind);
        // The same on every disk of the lab: nothing may depend on them.
        entry[16..32].fill(number as u8 + 1);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&(first + mib * MIB / SECTOR - 1).to_le_bytes());
        for (unit, character) in entry[56..].chunks_exact_mut(2).zip(name.encode_utf16()) {
            unit.copy_from_slice(&character.to_le_bytes());
        }
    }
    let header = |at: u64, other: u64, entries_at: u64| {
        let mut header = [0_u8; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x1_0000_u32.to_le_bytes());
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[24..32].copy_from_slice(&at.to_le_bytes());
        header[32..40].copy_from_slice(&other.to_le_bytes());
        header[40..48].copy_from_slice(&34_u64.to_le_bytes());
        header[48..56].copy_from_slice(&(sectors - 34).to_le_bytes());
        header[56..72].fill(0x5e);
        header[72..80].copy_from_slice(&entries_at.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
        let crc = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header
    };
    let at = |sector: u64| (sector * SECTOR) as usize;
    bytes[446 + 1] = 0;
    bytes[446 + 4] = 0xee;
    bytes[446 + 8..446 + 12].copy_from_slice(&1_u32.to_le_bytes());
    bytes[446 + 12..446 + 16].copy_from_slice(&(sectors as u32 - 1).to_le_bytes());
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes[at(1)..][..92].copy_from_slice(&header(1, sectors - 1, 2));
    bytes[at(2)..][..entries.len()].copy_from_slice(&entries);
    bytes[at(sectors - 1)..][..92].copy_from_slice(&header(sectors - 1, 1, sectors - 33));
    bytes[at(sectors - 33)..][..entries.len()].copy_from_slice(&entries);
}

/// A FAT file system with the guardian where every UEFI firmware looks.
fn esp(guardian: &Path, beside: &Path) -> Result<Vec<u8>> {
    let file = beside.with_extension("esp");
    let run = |program: &str, arguments: &[&str]| -> Result<()> {
        let output = Command::new(program)
            .args(["-i"])
            .arg(&file)
            .args(arguments)
            .env("MTOOLS_SKIP_CHECK", "1")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{program} (Debian package mtools)"))?;
        if !output.status.success() {
            bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    };
    let esp_mib = PARTITIONS[0].2;
    File::create(&file)?.set_len(esp_mib * MIB)?;
    // Tracks of 1 MiB: 64 heads of 32 sectors.
    run("mformat", &["-t", &esp_mib.to_string(), "-h", "64", "-s", "32", "::"])?;
    run("mmd", &["::/EFI", "::/EFI/BOOT"])?;
    run("mcopy", &[&guardian.display().to_string(), "::/EFI/BOOT/BOOTAA64.EFI"])?;
    let bytes = std::fs::read(&file)?;
    std::fs::remove_file(&file)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use seimon_boot::disk::{Disk as Bytes, DiskError};
    use seimon_boot::gpt;

    struct Memory(Vec<u8>);

    impl Bytes for Memory {
        fn sector(&self) -> u64 {
            SECTOR
        }

        fn length(&self) -> u64 {
            self.0.len() as u64
        }

        fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
            let at = offset as usize;
            into.copy_from_slice(self.0.get(at..at + into.len()).ok_or(DiskError::PastTheEnd)?);
            Ok(())
        }

        fn write(&mut self, offset: u64, _: &[u8]) -> Result<(), DiskError> {
            Err(DiskError::Write { offset })
        }

        fn flush(&mut self) -> Result<(), DiskError> {
            Ok(())
        }
    }

    #[test]
    fn the_table_made_here_is_read_there_also_from_its_backup() {
        let mut bytes = vec![0; 16 << 20];
        table(&mut bytes);
        let found = gpt::partitions(&mut Memory(bytes.clone())).unwrap();
        let boot_state = found.boot_state.unwrap();
        assert_eq!((boot_state.start, boot_state.length), (9 << 20, 1 << 20));
        assert_eq!(found.slot(Slot::B).unwrap().start, 12 << 20);
        bytes[SECTOR as usize + 40] ^= 1;
        assert_eq!(gpt::partitions(&mut Memory(bytes)).unwrap(), found);
    }
}
