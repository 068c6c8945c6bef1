//! What the boot firmware says of the board: the device tree, SMBIOS, or both.

use core::ffi::c_void;

use seimon_boot::board::{Seen, device_tree_compatible, device_tree_length, smbios_system};
use uefi::Guid;
use uefi::guid;
use uefi::table::cfg::ConfigTableEntry;

/// Devicetree Specification 0.4 by way of the EBBR, 2.4.
const DEVICE_TREE: Guid = guid!("b1b621d5-f19c-41a5-830b-d9152c69aae0");
/// Larger is none.
const TABLE_MOST: usize = 4 * 1024 * 1024;

pub(crate) fn seen() -> Seen {
    let mut seen = Seen::default();
    uefi::system::with_config_table(|tables| {
        for table in tables {
            if table.guid == DEVICE_TREE {
                if let Some(length) = device_tree_length(at(table.address, 8)) {
                    seen.compatible = device_tree_compatible(at(table.address, length));
                }
            } else if table.guid == ConfigTableEntry::SMBIOS3_GUID {
                seen.smbios = seen.smbios.take().or_else(|| smbios_system(structures3(table.address)?));
            } else if table.guid == ConfigTableEntry::SMBIOS_GUID {
                seen.smbios = seen.smbios.take().or_else(|| smbios_system(structures2(table.address)?));
            }
        }
    });
    seen
}

/// DSP0134, 5.2.2: the 64-bit entry point.
fn structures3(entry: *const c_void) -> Option<&'static [u8]> {
    let entry = at(entry, 24);
    let length = u32::from_le_bytes(*entry.get(12..)?.first_chunk()?);
    let address = u64::from_le_bytes(*entry.get(16..)?.first_chunk()?);
    entry.starts_with(b"_SM3_").then(|| at(address as *const c_void, length as usize))
}

/// DSP0134, 5.2.1: the 32-bit entry point.
fn structures2(entry: *const c_void) -> Option<&'static [u8]> {
    let entry = at(entry, 31);
    let length = u16::from_le_bytes(*entry.get(22..)?.first_chunk()?);
    let address = u32::from_le_bytes(*entry.get(24..)?.first_chunk()?);
    entry.starts_with(b"_SM_").then(|| at(address as usize as *const c_void, usize::from(length)))
}

fn at(address: *const c_void, length: usize) -> &'static [u8] {
    if address.is_null() || length > TABLE_MOST {
        return &[];
    }
    #[expect(unsafe_code, reason = "the firmware's tables lie where it says that they lie")]
    // SAFETY: a table of the firmware's, at its address with the length that it names; they stay until the kernel takes over.
    // A firmware that lies here has the machine anyway: it is below us (firmware/README.md, on trust).
    unsafe {
        core::slice::from_raw_parts(address.cast(), length)
    }
}
