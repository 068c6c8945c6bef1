//! Stands in for a kernel in tests of the guardian: says what it was given, then does what its command line says.
//!
//! `payload=off` powers off, `payload=reset` starts over, `payload=return` gives the machine back to the guardian,
//! `payload=hang` does nothing for ever, calling the firmware now and then as a kernel's boot stub does. Without any of them it hangs.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;
use core::ptr;
use core::time::Duration;

use seimon_boot::Digest;
use uefi::boot::{self, SearchType};
use uefi::proto::loaded_image::LoadedImage;
use uefi::runtime::{self, ResetType};
use uefi::{Guid, Handle, Status, guid, println};
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::media::LoadFile2Protocol;

/// `LINUX_EFI_INITRD_MEDIA_GUID`.
const INITRD: Guid = guid!("5568e427-68fc-4f3d-ac74-ca555231cc68");

#[uefi::entry]
fn main() -> Status {
    let options = options().unwrap_or_default();
    println!("payload: command line `{options}`");
    match initramfs() {
        Ok(bytes) => println!("payload: initramfs {} bytes {}", bytes.len(), Digest::of(&bytes)),
        Err(status) => println!("payload: no initramfs: {status}"),
    }
    println!("payload: up");
    let told = options.split(' ').find_map(|word| word.strip_prefix("payload="));
    match told {
        Some("off") => runtime::reset(ResetType::SHUTDOWN, Status::SUCCESS, None),
        Some("reset") => runtime::reset(ResetType::COLD, Status::SUCCESS, None),
        Some("return") => Status::ABORTED,
        _ => loop {
            boot::stall(Duration::from_millis(100));
        },
    }
}

fn options() -> Option<String> {
    let image = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle()).ok()?;
    image.get()?.load_options_as_cstr16().ok().map(|text| text.to_string())
}

/// As Linux's boot stub looks for it: the handle whose device path is this vendor's medium, and the two calls.
fn initramfs() -> Result<Vec<u8>, Status> {
    for handle in boot::locate_handle_buffer(SearchType::ByProtocol(&LoadFile2Protocol::GUID))
        .map_err(|error| error.status())?
        .iter()
    {
        if is_initramfs(*handle) {
            return read(*handle);
        }
    }
    Err(Status::NOT_FOUND)
}

fn is_initramfs(handle: Handle) -> bool {
    let Ok(path) = boot::open_protocol_exclusive::<uefi::proto::device_path::DevicePath>(handle) else {
        return false;
    };
    path.get().is_some_and(|path| path.as_bytes().get(4..20) == Some(&INITRD.to_bytes()[..]))
}

fn read(handle: Handle) -> Result<Vec<u8>, Status> {
    let table = uefi::table::system_table_raw().ok_or(Status::NOT_READY)?;
    let mut interface = ptr::null_mut();
    #[expect(unsafe_code, reason = "uefi has no safe way to a LoadFile2 without a path of its own")]
    // SAFETY: the protocol's calls as the specification has them; the firmware's tables are there until ExitBootServices.
    unsafe {
        let services = &*table.as_ref().boot_services;
        let status = (services.handle_protocol)(handle.as_ptr(), &LoadFile2Protocol::GUID, &mut interface);
        if status != Status::SUCCESS {
            return Err(status);
        }
        let protocol: *mut LoadFile2Protocol = interface.cast();
        // Linux passes what is left of the path: its end.
        let end: [u8; 4] = [0x7f, 0xff, 4, 0];
        let end: *const DevicePathProtocol = end.as_ptr().cast();
        let mut size = 0;
        let status = ((*protocol).load_file)(protocol, end, false.into(), &mut size, ptr::null_mut());
        if status != Status::BUFFER_TOO_SMALL {
            return Err(status);
        }
        let mut bytes = vec![0; size];
        let status =
            ((*protocol).load_file)(protocol, end, false.into(), &mut size, bytes.as_mut_ptr().cast());
        if status == Status::SUCCESS { Ok(bytes) } else { Err(status) }
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("payload: {info}");
    boot::stall(Duration::from_secs(1));
    runtime::reset(ResetType::COLD, Status::ABORTED, None)
}
