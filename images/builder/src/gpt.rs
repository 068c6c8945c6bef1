//! A disk's partition table (UEFI 2.10, chapter 5) with our five partitions, and a file that is such a disk.

use anyhow::{Result, ensure};
use sha2::{Digest as _, Sha256};

pub(crate) const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;
const ENTRIES: usize = 128;
const ENTRY: usize = 128;
/// Sectors of the table's entries.
const TABLE: u64 = (ENTRIES * ENTRY) as u64 / SECTOR;

/// Types, as they are written.
pub(crate) const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
pub(crate) const RESERVED: &str = "8da63339-0007-60c0-c436-083ac8230908";
pub(crate) const LINUX: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
pub(crate) const LUKS: &str = "ca7d7ccb-63ed-4c53-861c-1742536059cc";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    /// Bytes from the disk's beginning.
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Puts partitions one after the other, on whole MiB; the last takes what is left.
pub(crate) fn lay_out(
    disk: u64,
    reserved_mib: u32,
    wanted: &[(&'static str, &'static str, Option<u32>)],
) -> Result<Vec<Partition>> {
    let mut at = MIB * u64::from(reserved_mib.max(1));
    let end = disk.saturating_sub(MIB);
    let mut partitions = Vec::new();
    for (name, kind, mib) in wanted {
        let length = mib.map_or(end.saturating_sub(at), |mib| MIB * u64::from(mib));
        ensure!(length >= MIB && at + length <= end, "the disk of {} MiB has no room for {name}", disk / MIB);
        partitions.push(Partition { name, kind, offset: at, length });
        at += length;
    }
    Ok(partitions)
}

/// What goes to the disk's first 34 sectors and to its last 33. Identifiers come from `seed`: the same disk for the same
/// image.
pub(crate) fn tables(disk: u64, partitions: &[Partition], seed: &str) -> (Vec<u8>, Vec<u8>) {
    let last = disk / SECTOR - 1;
    let mut entries = vec![0; ENTRIES * ENTRY];
    for (partition, entry) in partitions.iter().zip(entries.chunks_exact_mut(ENTRY)) {
        let Partition { name, kind, offset, length } = partition;
        entry[..16].copy_from_slice(&mixed_endian(&parse(kind)));
        entry[16..32].copy_from_slice(&mixed_endian(&identifier(seed, name)));
        entry[32..40].copy_from_slice(&(offset / SECTOR).to_le_bytes());
        entry[40..48].copy_from_slice(&((offset + length) / SECTOR - 1).to_le_bytes());
        for (unit, place) in name.encode_utf16().zip(entry[56..].chunks_exact_mut(2)) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
    }
    let header = |own: u64, other: u64, table: u64| {
        let mut bytes = vec![0; SECTOR as usize];
        let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
        put(0, b"EFI PART\0\0\x01\0\x5c\0\0\0");
        put(24, &own.to_le_bytes());
        put(32, &other.to_le_bytes());
        put(40, &(2 + TABLE).to_le_bytes());
        put(48, &(last - TABLE - 1).to_le_bytes());
        put(56, &mixed_endian(&identifier(seed, "disk")));
        put(72, &table.to_le_bytes());
        put(80, &(ENTRIES as u32).to_le_bytes());
        put(84, &(ENTRY as u32).to_le_bytes());
        put(88, &crc32fast::hash(&entries).to_le_bytes());
        let crc = crc32fast::hash(&bytes[..92]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        bytes
    };
    let first = [protective(disk), header(1, last, 2), entries.clone()].concat();
    let second = [entries.clone(), header(last, 1, last - TABLE)].concat();
    (first, second)
}

/// An MBR that says: this disk is taken.
fn protective(disk: u64) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR as usize];
    let sectors = u32::try_from(disk / SECTOR - 1).unwrap_or(u32::MAX);
    bytes[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    bytes[454..458].copy_from_slice(&1_u32.to_le_bytes());
    bytes[458..462].copy_from_slice(&sectors.to_le_bytes());
    bytes[510..].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

/// A version 8 UUID (RFC 9562) out of words.
pub(crate) fn identifier(seed: &str, what: &str) -> [u8; 16] {
    let digest = Sha256::new().chain_update(seed).chain_update([0]).chain_update(what).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

pub(crate) fn text(identifier: &[u8; 16]) -> String {
    let hex: String = identifier.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn parse(text: &str) -> [u8; 16] {
    let digits: Vec<u8> =
        text.bytes().filter_map(|byte| (byte as char).to_digit(16)).map(|d| d as u8).collect();
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    bytes
}

/// As UEFI writes a GUID: the first three fields are little-endian.
fn mixed_endian(bytes: &[u8; 16]) -> [u8; 16] {
    let mut mixed = *bytes;
    mixed[..4].reverse();
    mixed[4..6].reverse();
    mixed[6..8].reverse();
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn partitions() -> Vec<Partition> {
        let wanted = [
            ("esp", ESP, Some(64)),
            ("boot-state", RESERVED, Some(1)),
            ("slot-a", LINUX, Some(100)),
            ("slot-b", LINUX, Some(100)),
            ("data", LUKS, None),
        ];
        lay_out(512 * MIB, 16, &wanted).unwrap()
    }

    #[test]
    fn partitions_follow_each_other_and_the_last_takes_the_rest() {
        let all = partitions();
        assert_eq!(all[0].offset, 16 * MIB);
        assert!(all.windows(2).all(|pair| pair[0].offset + pair[0].length == pair[1].offset));
        assert_eq!(all[4].offset + all[4].length, 511 * MIB);
        assert!(lay_out(100 * MIB, 0, &[("slot-a", LINUX, Some(100))]).is_err());
    }

    /// By sfdisk's reading, where it is installed; and by our own in any case.
    #[test]
    fn the_table_is_read_back() {
        let (first, second) = tables(512 * MIB, &partitions(), "seed");
        assert_eq!((first.len() as u64, second.len() as u64), (34 * SECTOR, 33 * SECTOR));
        let crc = |header: &[u8]| {
            let mut zeroed = header[..92].to_vec();
            zeroed[16..20].fill(0);
            crc32fast::hash(&zeroed).to_le_bytes() == header[16..20]
        };
        assert!(crc(&first[512..1024]) && crc(&second[32 * 512..]));
        let name: Vec<u8> = first[1024 + 2 * 128 + 56..].iter().step_by(2).take(6).copied().collect();
        assert_eq!(name, b"slot-a");

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk");
        let mut disk = vec![0; 512 * MIB as usize];
        disk[..first.len()].copy_from_slice(&first);
        let at = disk.len() - second.len();
        disk[at..].copy_from_slice(&second);
        std::fs::write(&file, disk).unwrap();
        let Ok(output) = Command::new("/usr/sbin/sfdisk").arg("--json").arg(&file).output() else { return };
        let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let read = read["partitiontable"]["partitions"].as_array().unwrap().clone();
        assert_eq!(read.len(), 5, "{}", String::from_utf8_lossy(&output.stderr));
        for (read, ours) in read.iter().zip(partitions()) {
            assert_eq!(read["name"], ours.name);
            assert_eq!(read["start"], ours.offset / SECTOR);
            assert_eq!(read["size"], ours.length / SECTOR);
            assert_eq!(read["type"].as_str().unwrap().to_lowercase(), ours.kind);
        }
        let verified = Command::new("/usr/sbin/sfdisk").arg("--verify").arg(&file).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
}
