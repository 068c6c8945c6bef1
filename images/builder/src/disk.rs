//! A whole disk, as a maker writes it to a new box: our partitions, the boot guardian, an image in slot A.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use seimon_board::hardware::{BOOT_STATE_MIB, Storage};
use seimon_boot::state::{COPY_DISTANCE, Copy};
use seimon_boot::{BootState, SignedHead, Slot, partition};

use crate::fat;
use crate::gpt::{self, SECTOR};

/// Writes a sparse file of the board's disk size.
pub(crate) fn write(
    file: &Path,
    board: &str,
    storage: &Storage,
    image: &[u8],
    head: &SignedHead,
    guardian: Option<&[u8]>,
) -> Result<()> {
    let Storage { class: _, device: _, size_mib, reserved_mib, esp_mib, slot_mib } = storage;
    let length = u64::from(*size_mib) << 20;
    let wanted = [
        (partition::ESP, gpt::ESP, Some(*esp_mib)),
        (partition::BOOT_STATE, gpt::RESERVED, Some(BOOT_STATE_MIB)),
        (partition::SLOT_A, gpt::LINUX, Some(*slot_mib)),
        (partition::SLOT_B, gpt::LINUX, Some(*slot_mib)),
        (partition::DATA, gpt::LUKS, None),
    ];
    let partitions = gpt::lay_out(length, *reserved_mib, &wanted)?;
    let disk = File::create(file).with_context(|| file.display().to_string())?;
    disk.set_len(length)?;
    let (first, second) = gpt::tables(length, &partitions, board);
    disk.write_all_at(&first, 0)?;
    disk.write_all_at(&second, length - second.len() as u64)?;
    let [esp, state, slot_a, _slot_b, _data] = partitions.as_slice() else {
        anyhow::bail!("the layout has five partitions");
    };
    let serial = gpt::identifier(board, "esp");
    let serial = u32::from_le_bytes([serial[0], serial[1], serial[2], serial[3]]);
    disk.write_all_at(&fat::esp(esp.length, guardian.unwrap_or_default(), serial)?, esp.offset)?;
    ensure!(image.len() as u64 <= slot_a.length, "the image is larger than the slot");
    disk.write_all_at(image, slot_a.offset)?;
    // A new box has nothing to fall back to: its image was tried by its maker.
    let mut fresh = BootState::fresh();
    fresh.staged(Slot::A, head);
    ensure!(fresh.apply(Slot::A) && fresh.confirm(Slot::A), "the image cannot be started");
    debug_assert_eq!(Copy::Second.offset(), COPY_DISTANCE);
    disk.write_all_at(&fresh.encode(), state.offset + Copy::First.offset())?;
    disk.write_all_at(&fresh.advanced().encode(), state.offset + Copy::Second.offset())?;
    debug_assert!(state.length >= SECTOR);
    disk.sync_all()?;
    Ok(())
}
