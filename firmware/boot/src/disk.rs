//! A disk as the guardian sees it: bytes at offsets, and it may fail at any of them.

use core::fmt;

/// What reads and writes whole disks. Offsets and lengths in bytes, of any alignment.
pub trait Disk {
    /// Bytes of a sector.
    fn sector(&self) -> u64;
    /// Bytes of the disk.
    fn length(&self) -> u64;
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError>;
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// Returns once what was written survives the loss of power.
    fn flush(&mut self) -> Result<(), DiskError>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    Read {
        offset: u64,
    },
    Write {
        offset: u64,
    },
    Flush,
    /// What was asked for does not lie on the disk.
    PastTheEnd,
    /// What was written reads back as something else.
    Forgets {
        offset: u64,
    },
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { offset } => {
                write!(f, "reading at byte {offset} failed: check the disk's seat, else replace it")
            }
            Self::Write { offset } => {
                write!(f, "writing at byte {offset} failed: check the disk's seat, else replace it")
            }
            Self::Flush => f.write_str("the disk did not confirm what was written: replace it"),
            Self::PastTheEnd => f.write_str(
                "the disk is shorter than its partition table says: the image was cut off while it was written, write it again",
            ),
            Self::Forgets { offset } => {
                write!(f, "what was written at byte {offset} was not kept: the disk is worn out, replace it")
            }
        }
    }
}

impl core::error::Error for DiskError {}
