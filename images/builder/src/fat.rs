//! The EFI system partition: a FAT32 volume with one file, `EFI/BOOT/BOOTAA64.EFI`, written once (Microsoft's
//! "FAT: General Overview of On-Disk Format", 1.03). Without times, and always the same for the same file.

use anyhow::{Result, ensure};

const SECTOR: usize = 512;
const RESERVED: usize = 32;
const CLUSTER: usize = SECTOR;
const END: u32 = 0x0fff_ffff;
const FOLDER: u8 = 0x10;
const FILE: u8 = 0x20;

/// The volume's beginning; the rest of the partition's `length` bytes is zero.
pub(crate) fn esp(length: u64, file: &[u8], serial: u32) -> Result<Vec<u8>> {
    let sectors = usize::try_from(length)? / SECTOR;
    // Each FAT entry of 4 bytes describes a cluster of one sector: 128 a sector, in two FATs; two entries describe none.
    let fat = (sectors - RESERVED + 2).div_ceil(128 + 2);
    let first_data = RESERVED + 2 * fat;
    let clusters = sectors - first_data;
    ensure!(clusters >= 65_525, "{length} bytes are too few for FAT32");
    // Clusters: 2 is the root, 3 EFI, 4 BOOT, from 5 on the file.
    let chain = file.len().div_ceil(CLUSTER);
    ensure!(
        chain + 3 <= clusters,
        "the EFI system partition is too small for a file of {} bytes",
        file.len()
    );
    let mut table = vec![0x0fff_fff8, END, END, END, END];
    for at in 0..chain {
        table.push(if at + 1 == chain { END } else { 5 + at as u32 + 1 });
    }
    let free = (clusters - 3 - chain) as u32;

    let mut bytes = vec![0; (first_data + 3 + chain) * SECTOR];
    let mut put = |sector: usize, at: usize, what: &[u8]| {
        let start = sector * SECTOR + at;
        bytes[start..start + what.len()].copy_from_slice(what);
    };
    for sector in [0, 6] {
        put(sector, 0, b"\xeb\x58\x90SEIMON  ");
        put(sector, 11, &(SECTOR as u16).to_le_bytes());
        put(sector, 13, &[1, RESERVED as u8, 0, 2]);
        put(sector, 21, &[0xf8]);
        put(sector, 24, &[32, 0, 64, 0]);
        put(sector, 32, &(sectors as u32).to_le_bytes());
        put(sector, 36, &(fat as u32).to_le_bytes());
        put(sector, 44, &[2, 0, 0, 0, 1, 0, 6, 0]);
        put(sector, 64, &[0x80, 0, 0x29]);
        put(sector, 67, &serial.to_le_bytes());
        put(sector, 71, b"SEIMON ESP FAT32   ");
        put(sector, 510, &[0x55, 0xaa]);
        put(sector + 1, 0, b"RRaA");
        put(sector + 1, 484, b"rrAa");
        put(sector + 1, 488, &free.to_le_bytes());
        put(sector + 1, 492, &(5 + chain as u32).to_le_bytes());
        put(sector + 1, 510, &[0x55, 0xaa]);
    }
    let entries: Vec<u8> = table.iter().flat_map(|entry: &u32| entry.to_le_bytes()).collect();
    put(RESERVED, 0, &entries);
    put(RESERVED + fat, 0, &entries);
    put(first_data, 0, &entry(b"SEIMON ESP ", 0x08, 0, 0));
    put(first_data, 32, &entry(b"EFI        ", FOLDER, 3, 0));
    put(first_data + 1, 0, &entry(b".          ", FOLDER, 3, 0));
    put(first_data + 1, 32, &entry(b"..         ", FOLDER, 0, 0));
    put(first_data + 1, 64, &entry(b"BOOT       ", FOLDER, 4, 0));
    put(first_data + 2, 0, &entry(b".          ", FOLDER, 4, 0));
    put(first_data + 2, 32, &entry(b"..         ", FOLDER, 3, 0));
    put(first_data + 2, 64, &entry(b"BOOTAA64EFI", FILE, if chain == 0 { 0 } else { 5 }, file.len() as u32));
    put(first_data + 3, 0, file);
    Ok(bytes)
}

fn entry(name: &[u8; 11], attributes: u8, cluster: u32, size: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..11].copy_from_slice(name);
    bytes[11] = attributes;
    // 1980-01-01, the earliest date there is.
    for at in [16, 18, 24] {
        bytes[at..at + 2].copy_from_slice(&0x21_u16.to_le_bytes());
    }
    bytes[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    bytes[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    bytes[28..].copy_from_slice(&size.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_partition_too_small_is_refused() {
        assert!(esp(32 << 20, b"x", 1).is_err());
        assert!(esp(64 << 20, &vec![1; 65 << 20], 1).is_err());
    }

    /// By fsck.fat and mtools, where they are installed.
    #[test]
    fn others_read_the_file_and_find_nothing_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("esp");
        let content: Vec<u8> = (0..300_001_u32).map(|at| (at % 251) as u8).collect();
        let mut bytes = esp(64 << 20, &content, 0x1234_5678).unwrap();
        bytes.resize(64 << 20, 0);
        std::fs::write(&image, bytes).unwrap();
        if let Ok(output) = Command::new("/usr/sbin/fsck.fat").arg("-n").arg(&image).output() {
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
        }
        let read = folder.path().join("read");
        let mcopy =
            Command::new("mcopy").arg("-i").arg(&image).arg("::EFI/BOOT/BOOTAA64.EFI").arg(&read).status();
        if mcopy.is_ok_and(|status| status.success()) {
            assert_eq!(std::fs::read(&read).unwrap(), content);
        }
    }
}
