//! The boot guardian, `BOOTAA64.EFI`: the first program of ours that runs on a gateway.
//!
//! What it decides is `seimon_boot::guardian`; here is what that needs from the boot firmware: the [`own_disk`] that we were
//! loaded from, the [`board`], [`start`]ing a kernel, and [`rescue`] with a network. One binary for EDK2 and U-Boot: whatever
//! a firmware may lack is asked for and done without.
#![no_std]
#![no_main]

extern crate alloc;

mod board;
mod clock;
mod console;
mod own_disk;
mod rescue;
mod start;

use alloc::string::ToString as _;
use core::time::Duration;

use seimon_boot::guardian::{Guardian, Next, Ready};
use seimon_boot::policy::WhyRescue;
use seimon_boot::rescue::{Report, Trouble, page};
use seimon_boot::{Anchors, GUARDIAN_VERSION};
use uefi::Status;
use uefi::boot;

use crate::console::{reset, say};
use crate::own_disk::OwnDisk;

/// Whom we believe (build.rs).
static ANCHORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/anchors"));
/// How long the status page is shown before what can be started is tried.
const RESCUE: Duration = Duration::from_secs(600);
/// Reading and hashing a large slot on a slow disk takes less.
const WATCHDOG_SECONDS: usize = 900;

#[uefi::entry]
fn main() -> Status {
    say(format_args!(
        "boot guardian {} (interface {GUARDIAN_VERSION}), {:.1} s after power-on, firmware {} {:#x}",
        env!("CARGO_PKG_VERSION"),
        clock::since_power_on().as_secs_f32(),
        uefi::system::firmware_vendor(),
        uefi::system::firmware_revision(),
    ));
    // Where it is refused, `start` says so.
    let _none = boot::set_watchdog_timer(WATCHDOG_SECONDS, 0, None);
    let Some(anchors) = Anchors::new(ANCHORS) else {
        reset(format_args!("the keys built into this guardian are none: build it again with good ones"))
    };
    let seen = board::seen();
    say(format_args!("board: {seen}"));
    let report = |trouble: &Trouble, state: Option<&seimon_boot::BootState>| {
        let lines = console::lines();
        page(&Report { guardian: env!("CARGO_PKG_VERSION"), seen: &seen, trouble, state, lines: &lines })
    };
    let without = |trouble: Trouble| -> ! {
        say(format_args!("nothing can be started: {trouble}"));
        show(&|| report(&trouble, None));
        reset(format_args!("looking at the disk again"))
    };
    let mut disk = match OwnDisk::find() {
        Ok(disk) => disk,
        Err(error) => without(Trouble::Disk(error.to_string())),
    };
    let mut guardian = match Guardian::open(&mut disk, &anchors, &seen, &mut say) {
        Ok(guardian) => guardian,
        Err(error) => without(Trouble::Disk(error.to_string())),
    };
    loop {
        let trouble = match guardian.next(&mut say) {
            Next::Start(ready) => {
                let slot = ready.slot;
                jump(ready);
                guardian.not_started(slot, &mut say);
                continue;
            }
            Next::Rescue(WhyRescue::Requested) => Trouble::Requested,
            Next::Rescue(WhyRescue::NothingBootable) => Trouble::NothingBootable,
        };
        say(format_args!("{trouble}"));
        let state = *guardian.state();
        show(&|| report(&trouble, Some(&state)));
        if trouble == Trouble::NothingBootable
            && let Some(ready) = guardian.last_resort(&mut say)
        {
            jump(ready);
        }
    }
}

fn jump(ready: Ready) {
    let slot = ready.slot;
    say(format_args!(
        "slot {slot}: starting version {}, {:.1} s after power-on",
        ready.version,
        clock::since_power_on().as_secs_f32()
    ));
    let why = start::start(ready, say);
    say(format_args!("slot {slot}: not started: {why}"));
}

fn show(page: &dyn Fn() -> alloc::vec::Vec<u8>) {
    // Nobody resets who waits for people.
    let _none = boot::set_watchdog_timer(0, 0, None);
    rescue::show(page, RESCUE);
    let _none = boot::set_watchdog_timer(WATCHDOG_SECONDS, 0, None);
}
