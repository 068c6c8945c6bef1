//! Lines for whoever stands at the serial port, kept for the status page too; and what happens on a panic.

use alloc::collections::VecDeque;
use alloc::string::String;
use core::cell::RefCell;
use core::fmt::{self, Write as _};
use core::panic::PanicInfo;
use core::time::Duration;

use uefi::Status;
use uefi::boot;
use uefi::runtime::{self, ResetType};

/// Lines kept.
const KEPT: usize = 60;
/// Long enough to read the last line.
const BEFORE_RESET: Duration = Duration::from_secs(10);

struct Lines(RefCell<VecDeque<String>>);

// SAFETY: boot services run on one processor, and nothing of ours runs in an interrupt or event.
#[expect(unsafe_code, reason = "a static of a single-threaded program")]
unsafe impl Sync for Lines {}

static LINES: Lines = Lines(RefCell::new(VecDeque::new()));

/// One line, with our name in front.
pub(crate) fn say(what: fmt::Arguments<'_>) {
    put(what);
    if let Ok(mut lines) = LINES.0.try_borrow_mut() {
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(alloc::format!("{what}"));
    }
}

fn put(what: fmt::Arguments<'_>) {
    let there = uefi::table::system_table_raw()
        // SAFETY: the table that the firmware gave us is there until the kernel takes over.
        .is_some_and(|table| {
            #[expect(
                unsafe_code,
                reason = "a firmware may be without a console, which the library would panic about"
            )]
            // SAFETY: as above.
            unsafe {
                !table.as_ref().stdout.is_null()
            }
        });
    if there {
        // A console that fails is nothing to stop for.
        let _failed = uefi::system::with_stdout(|out| writeln!(out, "seimon: {what}"));
    }
}

pub(crate) fn lines() -> alloc::vec::Vec<String> {
    LINES.0.try_borrow().map(|lines| lines.iter().cloned().collect()).unwrap_or_default()
}

/// Says it, and starts over some seconds later.
pub(crate) fn reset(why: fmt::Arguments<'_>) -> ! {
    put(format_args!("{why}; starting over in {} s", BEFORE_RESET.as_secs()));
    boot::stall(BEFORE_RESET);
    runtime::reset(ResetType::COLD, Status::ABORTED, None)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    reset(format_args!("stopped by a fault of the guardian ({info})"))
}
