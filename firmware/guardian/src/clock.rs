//! Time since power-on, from the processor's generic timer (Arm ARM, D12), for embassy and for people.

use core::task::Waker;
use core::time::Duration;

use embassy_time_driver::{Driver, TICK_HZ, time_driver_impl};

struct Counter;

time_driver_impl!(static COUNTER: Counter = Counter);

impl Driver for Counter {
    fn now(&self) -> u64 {
        let (count, frequency) = read();
        u64::try_from(u128::from(count) * u128::from(TICK_HZ) / u128::from(frequency)).unwrap_or(u64::MAX)
    }

    fn schedule_wake(&self, _: u64, waker: &Waker) {
        // Everything is polled all the time (see `rescue::poll`), so whoever waits sees by itself that it is late enough.
        waker.wake_by_ref();
    }
}

pub(crate) fn since_power_on() -> Duration {
    Duration::from_micros(Counter.now().saturating_mul(1_000_000) / TICK_HZ)
}

/// The counter as it is: different at every start.
pub(crate) fn count() -> u64 {
    read().0
}

/// Count, and counts per second.
fn read() -> (u64, u64) {
    let (count, frequency): (u64, u64);
    #[expect(unsafe_code, reason = "system registers have no safe way in")]
    // SAFETY: both registers may be read at the exception levels that UEFI runs at, and reading changes nothing.
    unsafe {
        core::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) count, options(nomem, nostack, preserves_flags));
        core::arch::asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack, preserves_flags));
    }
    // A firmware that forgot to set it: what most have.
    (count, if frequency == 0 { 62_500_000 } else { frequency })
}

struct Alone;

critical_section::set_impl!(Alone);

#[expect(unsafe_code, reason = "the trait is unsafe")]
// SAFETY: boot services run on one processor, and nothing of ours runs in an interrupt or event.
unsafe impl critical_section::Impl for Alone {
    unsafe fn acquire() {}

    unsafe fn release((): ()) {}
}
