//! Our partitions in a GUID partition table (UEFI Specification 2.10, chapter 5.3), found by their names.
//!
//! Read by ourselves and from the whole disk, because it has to mean the same on every boot firmware, and because a second
//! disk with the same GUIDs must not be taken for ours. The first table is used, or the backup at the disk's end where the
//! first is damaged.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::Slot;
use crate::disk::{Disk, DiskError};
use crate::partition;

/// Where a partition lies, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    pub start: u64,
    pub length: u64,
}

/// Those that the guardian uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partitions {
    pub boot_state: Option<Partition>,
    pub slot_a: Option<Partition>,
    pub slot_b: Option<Partition>,
}

impl Partitions {
    pub fn slot(&self, slot: Slot) -> Option<Partition> {
        match slot {
            Slot::A => self.slot_a,
            Slot::B => self.slot_b,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GptError {
    /// Neither table is whole.
    NoTable,
    /// Two partitions have the same name of ours.
    Twice(&'static str),
    Disk(DiskError),
}

impl fmt::Display for GptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable => f.write_str(
                "the disk's partition table is damaged, and so is its backup: write the image onto the disk again",
            ),
            Self::Twice(name) => {
                write!(f, "two partitions are named `{name}`: write the image onto the disk again")
            }
            Self::Disk(error) => write!(f, "the partition table could not be read: {error}"),
        }
    }
}

impl core::error::Error for GptError {}

const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER: usize = 92;
/// A table of 128 entries has 16 KiB. More than this is nonsense.
const ENTRIES_MOST: u64 = 256 * 1024;

/// Reads the table. A disk that cannot be read at its beginning may still be read at its end.
pub fn partitions(disk: &mut dyn Disk) -> Result<Partitions, GptError> {
    let sector = disk.sector();
    if sector < 512 || disk.length() < 4 * sector {
        return Err(GptError::NoTable);
    }
    let last = disk.length() / sector - 1;
    match table(disk, 1) {
        Ok(found) => Ok(found),
        Err(twice @ GptError::Twice(_)) => Err(twice),
        Err(first @ (GptError::NoTable | GptError::Disk(_))) => {
            table(disk, last).map_err(|backup| if let GptError::Twice(_) = backup { backup } else { first })
        }
    }
}

fn table(disk: &mut dyn Disk, at: u64) -> Result<Partitions, GptError> {
    let sector = disk.sector();
    let mut header = [0; HEADER];
    disk.read(at.saturating_mul(sector), &mut header).map_err(GptError::Disk)?;
    let header = Header::parse(&header, at).ok_or(GptError::NoTable)?;
    let start = header.entries_at.checked_mul(sector).ok_or(GptError::NoTable)?;
    let length = usize::try_from(header.entries_length()).map_err(|_| GptError::NoTable)?;
    if start.checked_add(header.entries_length()).is_none_or(|end| end > disk.length()) {
        return Err(GptError::NoTable);
    }
    let mut entries = vec![0; length];
    disk.read(start, &mut entries).map_err(GptError::Disk)?;
    if crc32fast::hash(&entries) != header.entries_crc {
        return Err(GptError::NoTable);
    }
    let mut found = Partitions::default();
    for entry in entries.chunks_exact(header.entry_size as usize) {
        let Some((name, partition)) = entry_of(entry, sector) else { continue };
        let (place, name) = match name.as_str() {
            partition::BOOT_STATE => (&mut found.boot_state, partition::BOOT_STATE),
            partition::SLOT_A => (&mut found.slot_a, partition::SLOT_A),
            partition::SLOT_B => (&mut found.slot_b, partition::SLOT_B),
            _ => continue,
        };
        if place.replace(partition).is_some() {
            return Err(GptError::Twice(name));
        }
    }
    Ok(found)
}

struct Header {
    entries_at: u64,
    count: u32,
    entry_size: u32,
    entries_crc: u32,
}

impl Header {
    /// `at`: the sector that it was read from, which it must name.
    fn parse(bytes: &[u8; HEADER], at: u64) -> Option<Self> {
        let u32_at = |at: usize| le32(bytes, at);
        let size = u32_at(12)?;
        let mut summed = *bytes;
        summed.get_mut(16..20)?.fill(0);
        // Every writer makes headers of 92 bytes; a longer one would be summed over what is not read here.
        if !bytes.starts_with(SIGNATURE)
            || size as usize != HEADER
            || u32_at(16)? != crc32fast::hash(&summed)
            || le64(bytes, 24)? != at
        {
            return None;
        }
        let header = Self {
            entries_at: le64(bytes, 72)?,
            count: u32_at(80)?,
            entry_size: u32_at(84)?,
            entries_crc: u32_at(88)?,
        };
        let sane = (128..=4096).contains(&header.entry_size) && header.entries_length() <= ENTRIES_MOST;
        sane.then_some(header)
    }

    fn entries_length(&self) -> u64 {
        u64::from(self.count) * u64::from(self.entry_size)
    }
}

/// `None`: not in use, or not where a partition can be.
fn entry_of(entry: &[u8], sector: u64) -> Option<(String, Partition)> {
    if entry.get(..16)?.iter().all(|byte| *byte == 0) {
        return None;
    }
    let (first, last) = (le64(entry, 32)?, le64(entry, 40)?);
    let count = last.checked_sub(first)?.checked_add(1)?;
    let start = first.checked_mul(sector)?;
    let length = count.checked_mul(sector)?;
    start.checked_add(length)?;
    let units: Vec<u16> = entry
        .get(56..128)?
        .as_chunks::<2>()
        .0
        .iter()
        .map(|unit| u16::from_le_bytes(*unit))
        .take_while(|unit| *unit != 0)
        .collect();
    Some((String::from_utf16_lossy(&units), Partition { start, length }))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
