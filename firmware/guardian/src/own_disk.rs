//! The disk that we were loaded from, and no other.
//!
//! The firmware names the partition that we came from; the disk is what its device path begins with. A second disk, were it
//! a bit for bit copy, has another path.

use alloc::vec::Vec;
use core::fmt;

use seimon_boot::disk::{Disk, DiskError};
use uefi::boot::{
    self, AllocateType, MemoryType, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol,
};
use uefi::proto::ProtocolPointer;
use uefi::proto::device_path::DevicePath;
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::media::block::BlockIO;
use uefi::{Handle, Status};

/// Bytes asked of the firmware at a time.
const PIECE: usize = 1024 * 1024;
/// UEFI's page.
const PAGE: usize = 4096;
/// The node that ends a device path.
const END: usize = 4;

/// Why there is no disk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoDisk {
    /// The firmware does not say where we came from.
    Unknown(Status),
    /// Loaded over the network, or the disk is gone.
    NotADisk,
    NoMedium,
    Memory(Status),
}

impl fmt::Display for NoDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(status) => {
                write!(
                    f,
                    "the boot firmware does not say which disk this was loaded from ({status}): update the firmware"
                )
            }
            Self::NotADisk => f.write_str("this was not loaded from a disk: start from the box's own disk"),
            Self::NoMedium => f.write_str("the disk says that it is empty: check its seat, else replace it"),
            Self::Memory(status) => write!(f, "no memory for reading the disk ({status})"),
        }
    }
}

/// A protocol that others go on using.
fn shared<P: ProtocolPointer + ?Sized>(handle: Handle) -> Result<ScopedProtocol<P>, Status> {
    let params = OpenProtocolParams { handle, agent: boot::image_handle(), controller: None };
    #[expect(
        unsafe_code,
        reason = "opening it exclusively would take the disk from the firmware's own drivers"
    )]
    // SAFETY: single-threaded, and the firmware's drivers do not run while we do, but for those we call.
    let opened = unsafe { boot::open_protocol::<P>(params, OpenProtocolAttributes::GetProtocol) };
    opened.map_err(|error| error.status())
}

/// A device path without its end.
fn steps(handle: Handle) -> Option<Vec<u8>> {
    let path = shared::<DevicePath>(handle).ok()?;
    let bytes = path.get()?.as_bytes();
    Some(bytes.get(..bytes.len().checked_sub(END)?)?.to_vec())
}

pub(crate) struct OwnDisk {
    block_io: ScopedProtocol<BlockIO>,
    medium: u32,
    sector: u64,
    sectors: u64,
    /// Of [`PIECE`] bytes, page-aligned: what any firmware can read into.
    buffer: &'static mut [u8],
}

impl OwnDisk {
    pub(crate) fn find() -> Result<Self, NoDisk> {
        let image = shared::<LoadedImage>(boot::image_handle()).map_err(NoDisk::Unknown)?;
        let device = image.get().and_then(LoadedImage::device).ok_or(NoDisk::Unknown(Status::NOT_FOUND))?;
        let ours = steps(device).ok_or(NoDisk::NotADisk)?;
        let mut best: Option<(usize, ScopedProtocol<BlockIO>)> = None;
        for handle in boot::find_handles::<BlockIO>().unwrap_or_default() {
            let Some(path) = steps(handle) else { continue };
            let Ok(block_io) = shared::<BlockIO>(handle) else { continue };
            let Some(whole) = block_io.get().map(|block_io| !block_io.media().is_logical_partition()) else {
                continue;
            };
            let longer = best.as_ref().is_none_or(|(length, _)| path.len() > *length);
            if whole && longer && !path.is_empty() && ours.starts_with(&path) {
                best = Some((path.len(), block_io));
            }
        }
        let (_, block_io) = best.ok_or(NoDisk::NotADisk)?;
        let medium = block_io.get().ok_or(NoDisk::NotADisk)?.media();
        let sector = u64::from(medium.block_size());
        if !medium.is_media_present() || sector == 0 || PIECE as u64 % sector != 0 {
            return Err(NoDisk::NoMedium);
        }
        let sectors = medium.last_block().saturating_add(1);
        let medium = medium.media_id();
        let pages = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, PIECE / PAGE)
            .map_err(|error| NoDisk::Memory(error.status()))?;
        #[expect(unsafe_code, reason = "memory from the firmware")]
        // SAFETY: just allocated with this length, never freed, and named nowhere else.
        let buffer = unsafe {
            pages.as_ptr().write_bytes(0, PIECE);
            core::slice::from_raw_parts_mut(pages.as_ptr(), PIECE)
        };
        Ok(Self { block_io, medium, sector, sectors, buffer })
    }

    /// The sectors, as many as fit the buffer, around `length` bytes at `offset`: (first sector, bytes of the buffer in use,
    /// where in it `offset` is, how many bytes of what was asked for it holds).
    fn window(&self, offset: u64, length: usize) -> Result<Window, DiskError> {
        let first = offset / self.sector;
        let skip = usize::try_from(offset % self.sector).map_err(|_| DiskError::PastTheEnd)?;
        let here = length.min(PIECE - skip);
        let sector = usize::try_from(self.sector).map_err(|_| DiskError::PastTheEnd)?;
        let used = (skip + here).next_multiple_of(sector);
        let end = first.saturating_add((used / sector) as u64);
        if end > self.sectors {
            return Err(DiskError::PastTheEnd);
        }
        Ok(Window { first, used, skip, here })
    }
}

struct Window {
    first: u64,
    used: usize,
    skip: usize,
    here: usize,
}

impl Disk for OwnDisk {
    fn sector(&self) -> u64 {
        self.sector
    }

    fn length(&self) -> u64 {
        self.sectors.saturating_mul(self.sector)
    }

    fn read(&mut self, mut offset: u64, mut into: &mut [u8]) -> Result<(), DiskError> {
        while !into.is_empty() {
            let Window { first, used, skip, here } = self.window(offset, into.len())?;
            let buffer = &mut self.buffer[..used];
            self.block_io.read_blocks(self.medium, first, buffer).map_err(|_| DiskError::Read { offset })?;
            let (now, later) = into.split_at_mut(here);
            now.copy_from_slice(&buffer[skip..skip + here]);
            into = later;
            offset += here as u64;
        }
        Ok(())
    }

    fn write(&mut self, mut offset: u64, mut bytes: &[u8]) -> Result<(), DiskError> {
        while !bytes.is_empty() {
            let Window { first, used, skip, here } = self.window(offset, bytes.len())?;
            let buffer = &mut self.buffer[..used];
            if skip != 0 || used != here {
                self.block_io
                    .read_blocks(self.medium, first, buffer)
                    .map_err(|_| DiskError::Read { offset })?;
            }
            let (now, later) = bytes.split_at(here);
            buffer[skip..skip + here].copy_from_slice(now);
            self.block_io
                .write_blocks(self.medium, first, buffer)
                .map_err(|_| DiskError::Write { offset })?;
            bytes = later;
            offset += here as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        match self.block_io.flush_blocks() {
            Ok(()) => Ok(()),
            // Firmwares that write through have nothing to flush, and some say so in this way.
            Err(error) if error.status() == Status::UNSUPPORTED => Ok(()),
            Err(_) => Err(DiskError::Flush),
        }
    }
}
