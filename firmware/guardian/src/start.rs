//! Starting a verified kernel: through the firmware's LoadImage, so that Secure Boot has its say, with its command line as
//! load options and the initramfs by the LoadFile2 protocol that Linux looks for (`include/linux/efi.h`,
//! `LINUX_EFI_INITRD_MEDIA_GUID`).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::fmt;
use core::ptr;

use seimon_boot::guardian::Ready;
use uefi::boot::{self, LoadImageSource};
use uefi::proto::loaded_image::LoadedImage;
use uefi::{Handle, Identify as _, Status, guid};
use uefi_raw::Boolean;
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::media::LoadFile2Protocol;

/// The firmware starts over if the kernel does not take over within this.
pub(crate) const WATCHDOG_SECONDS: usize = 60;

/// Why the kernel does not run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NotStarted {
    /// Secure Boot.
    NotSigned,
    Load(Status),
    Options(Status),
    Initramfs(Status),
    /// It ran and came back.
    Returned(Status),
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSigned => f.write_str(
                "Secure Boot refuses its kernel: sign the kernel with a key that is in this firmware's db, or enrol the key there",
            ),
            Self::Load(status) => write!(f, "the boot firmware cannot load its kernel ({status})"),
            Self::Options(status) => {
                write!(f, "the boot firmware does not take the kernel's command line ({status})")
            }
            Self::Initramfs(status) => write!(f, "the boot firmware does not take the initramfs ({status})"),
            Self::Returned(status) => write!(f, "its kernel gave up ({status})"),
        }
    }
}

/// Comes back only when it was not started.
pub(crate) fn start(ready: Ready, say: fn(fmt::Arguments<'_>)) -> NotStarted {
    let Ready { slot: _, version: _, kernel, initramfs, command_line } = ready;
    let source = LoadImageSource::FromBuffer { buffer: &kernel, file_path: None };
    let image = match boot::load_image(boot::image_handle(), source) {
        Ok(image) => image,
        Err(error) if matches!(error.status(), Status::SECURITY_VIOLATION | Status::ACCESS_DENIED) => {
            return NotStarted::NotSigned;
        }
        Err(error) => return NotStarted::Load(error.status()),
    };
    // The firmware has made its own copy.
    drop(kernel);
    let options: Vec<u16> = command_line.bytes().map(u16::from).chain([0]).collect();
    let started = match give_options(image, &options) {
        Err(status) => NotStarted::Options(status),
        Ok(()) => match Initramfs::offer(&initramfs) {
            Err(status) => NotStarted::Initramfs(status),
            Ok(offered) => {
                if let Err(error) = boot::set_watchdog_timer(WATCHDOG_SECONDS, 0, None) {
                    say(format_args!(
                        "the boot firmware has no watchdog ({}): a kernel that hangs while it starts stays so until the power is cut",
                        error.status()
                    ));
                }
                let returned = boot::start_image(image);
                let _none = boot::set_watchdog_timer(0, 0, None);
                offered.withdraw();
                NotStarted::Returned(returned.map_or_else(|error| error.status(), |()| Status::SUCCESS))
            }
        },
    };
    // Where it has unloaded itself already, there is nothing left to do.
    let _gone = boot::unload_image(image);
    started
}

fn give_options(image: Handle, options: &[u16]) -> Result<(), Status> {
    let size = u32::try_from(size_of_val(options)).map_err(|_| Status::INVALID_PARAMETER)?;
    let mut loaded = boot::open_protocol_exclusive::<LoadedImage>(image).map_err(|error| error.status())?;
    let loaded = loaded.get_mut().ok_or(Status::UNSUPPORTED)?;
    #[expect(unsafe_code, reason = "the firmware keeps the pointer")]
    // SAFETY: `options` outlives the image: the caller unloads it before they are dropped.
    unsafe {
        loaded.set_load_options(options.as_ptr().cast(), size);
    }
    Ok(())
}

/// A vendor's media device path and its end.
#[repr(C, align(8))]
struct Path([u8; 24]);

static PATH: Path = {
    let mut bytes = [0; 24];
    let guid = guid!("5568e427-68fc-4f3d-ac74-ca555231cc68").to_bytes();
    // Media, vendor, 20 bytes.
    (bytes[0], bytes[1], bytes[2]) = (4, 3, 20);
    let mut at = 0;
    while at < guid.len() {
        bytes[4 + at] = guid[at];
        at += 1;
    }
    (bytes[20], bytes[21], bytes[22]) = (0x7f, 0xff, 4);
    Path(bytes)
};

#[repr(C)]
struct Source {
    protocol: LoadFile2Protocol,
    bytes: *const u8,
    length: usize,
}

struct Initramfs {
    handle: Handle,
    source: *mut Source,
}

impl Initramfs {
    fn offer(bytes: &[u8]) -> Result<Self, Status> {
        let source = Box::into_raw(Box::new(Source {
            protocol: LoadFile2Protocol { load_file },
            bytes: bytes.as_ptr(),
            length: bytes.len(),
        }));
        #[expect(unsafe_code, reason = "the firmware keeps the pointers")]
        // SAFETY: the path is static; source and bytes live until `withdraw`, or until the kernel has taken over.
        let offered = unsafe {
            boot::install_protocol_interface(
                None,
                &uefi::proto::device_path::DevicePath::GUID,
                ptr::from_ref(&PATH).cast(),
            )
            .and_then(|handle| {
                boot::install_protocol_interface(Some(handle), &LoadFile2Protocol::GUID, source.cast())
            })
        };
        offered.map(|handle| Self { handle, source }).map_err(|error| error.status())
    }

    fn withdraw(self) {
        let Self { handle, source } = self;
        #[expect(unsafe_code, reason = "as it was installed")]
        // SAFETY: the kernel has come back, so nobody uses them; if the firmware does not let go, the source stays (leaks).
        unsafe {
            let gone = boot::uninstall_protocol_interface(handle, &LoadFile2Protocol::GUID, source.cast());
            let _path = boot::uninstall_protocol_interface(
                handle,
                &uefi::proto::device_path::DevicePath::GUID,
                ptr::from_ref(&PATH).cast(),
            );
            if gone.is_ok() {
                drop(Box::from_raw(source));
            }
        }
    }
}

#[expect(unsafe_code, reason = "called by the kernel")]
unsafe extern "efiapi" fn load_file(
    this: *mut LoadFile2Protocol,
    _path: *const DevicePathProtocol,
    boot_policy: Boolean,
    size: *mut usize,
    buffer: *mut c_void,
) -> Status {
    if this.is_null() || size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    if bool::from(boot_policy) {
        return Status::UNSUPPORTED;
    }
    // SAFETY: `this` is the first field of a `Source` that lives until `withdraw`, `size` points at the caller's integer, and
    // the buffer has as many bytes as that says.
    unsafe {
        let Source { bytes, length, .. } = &*this.cast::<Source>();
        let room = core::mem::replace(&mut *size, *length);
        if buffer.is_null() || room < *length {
            return Status::BUFFER_TOO_SMALL;
        }
        ptr::copy_nonoverlapping(*bytes, buffer.cast(), *length);
    }
    Status::SUCCESS
}
