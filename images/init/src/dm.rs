//! The device mapper, as far as it is needed: one device of one target (`include/uapi/linux/dm-ioctl.h`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use crate::{Doing as _, Result};

const CONTROL: &str = "/dev/mapper/control";
const SECTOR: u64 = 512;
/// `struct dm_ioctl`.
const HEADER: usize = 312;
/// `struct dm_target_spec`.
const TARGET: usize = 40;
const BUFFER: usize = 4096;
const READ_ONLY: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

#[derive(Clone, Copy)]
enum Call {
    Create = 3,
    Remove = 4,
    /// Without the suspend flag: resume, which takes the loaded table into use.
    Resume = 6,
    Load = 9,
}

/// Makes `/dev/dm-N` of the name, `length` bytes long, by a target (`linear`, `verity`) with its parameters.
///
/// # Errors
/// The kernel refuses; the device is gone again.
pub fn make(name: &str, access: Access, length: u64, target: &str, parameters: &str) -> Result<PathBuf> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL).doing(CONTROL)?;
    let created =
        call(&control, Call::Create, &header(name, 0, 0)).doing(&format!("making the device {name}"))?;
    let table = table(name, access, length / SECTOR, target, parameters)?;
    let loaded =
        call(&control, Call::Load, &table).and_then(|_| call(&control, Call::Resume, &header(name, 0, 0)));
    if let Err(error) = loaded {
        // The kernel's own words are in its log.
        let _left = call(&control, Call::Remove, &header(name, 0, 0));
        return Err(format!("{target} for {name}: {error}"));
    }
    let mut number = [0; 8];
    number.copy_from_slice(&created[40..48]);
    // New encoding (`huge_encode_dev`): minor's low byte, major, the rest of minor.
    let number = u64::from_le_bytes(number);
    let minor = (number & 0xff) | ((number >> 12) & 0xf_ff00);
    Ok(PathBuf::from(format!("/dev/dm-{minor}")))
}

fn header(name: &str, flags: u32, targets: u32) -> Vec<u8> {
    let mut bytes = vec![0; BUFFER];
    let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
    put(0, &4_u32.to_le_bytes());
    put(12, &(BUFFER as u32).to_le_bytes());
    put(16, &(HEADER as u32).to_le_bytes());
    put(20, &targets.to_le_bytes());
    put(28, &flags.to_le_bytes());
    put(48, &name.as_bytes()[..name.len().min(127)]);
    bytes
}

fn table(name: &str, access: Access, sectors: u64, target: &str, parameters: &str) -> Result<Vec<u8>> {
    if parameters.len() + HEADER + TARGET >= BUFFER || target.len() > 15 {
        return Err(format!("the table for {name} is too long"));
    }
    let flags = match access {
        Access::ReadOnly => READ_ONLY,
        Access::ReadWrite => 0,
    };
    let mut bytes = header(name, flags, 1);
    let mut put = |at: usize, what: &[u8]| bytes[HEADER + at..HEADER + at + what.len()].copy_from_slice(what);
    put(8, &sectors.to_le_bytes());
    put(24, target.as_bytes());
    put(TARGET, parameters.as_bytes());
    Ok(bytes)
}

fn call(control: &File, call: Call, request: &[u8]) -> io::Result<Vec<u8>> {
    // _IOWR(0xfd, call, struct dm_ioctl)
    let number = 3 << 30 | (HEADER as u64) << 16 | 0xfd << 8 | call as u64;
    let mut buffer = request.to_vec();
    #[expect(unsafe_code, reason = "the device mapper has no other interface")]
    // SAFETY: the buffer is as long as its header says (`data_size`), and the kernel writes no more than that.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), number as _, buffer.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(buffer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lies_where_the_kernel_looks() {
        let bytes = table("root", Access::ReadOnly, 8, "linear", "/dev/vda3 16").unwrap();
        assert_eq!(bytes[0..4], [4, 0, 0, 0]);
        assert_eq!(bytes[20], 1);
        assert_eq!(bytes[28], 1, "read-only");
        assert_eq!(&bytes[48..53], b"root\0");
        assert_eq!(bytes[320..328], 8_u64.to_le_bytes());
        assert_eq!(&bytes[336..343], b"linear\0");
        assert_eq!(&bytes[352..365], b"/dev/vda3 16\0");
        assert!(table("root", Access::ReadOnly, 8, "linear", &"x".repeat(BUFFER)).is_err());
        assert_eq!(table("root", Access::ReadWrite, 8, "linear", "").unwrap()[28], 0);
    }
}
