//! A timer that wakes the process exactly once. The runtime's own wakes it on the way too, whenever a deadline comes down a
//! level of its wheel, which for a few wakings a second doubles them.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

#[derive(Debug)]
pub(crate) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    set: Option<Instant>,
}

impl Alarm {
    /// Not set yet. Must be called within the runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(unsafe_code, reason = "tokio has no other way to wait for a descriptor of our own")]
        // SAFETY: the descriptor is owned by the `AsyncFd`, which deregisters it before it is closed, and an `OwnedFd` is
        // always the same one.
        let timer = unsafe { AsyncFd::register(timer) }.map_err(io::Error::from)?;
        Ok(Self { timer, set: None })
    }

    /// To ring at this time, at once if it has passed. A ring that nobody has heard yet may still be heard.
    pub(crate) fn set(&mut self, at: Option<Instant>) -> io::Result<()> {
        if self.set == at {
            return Ok(());
        }
        let left = at.map(|at| at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1)));
        let it_value = match left.map(Timespec::try_from) {
            Some(left) => left.map_err(io::Error::other)?,
            // All zero disarms it.
            None => Timespec::default(),
        };
        timerfd_settime(
            self.timer.get_ref(),
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: Timespec::default(), it_value },
        )?;
        self.set = at;
        Ok(())
    }

    /// Waits until it rings. Cancel-safe; it rings again only after it has been set to another time.
    pub(crate) async fn rings(&mut self) -> io::Result<()> {
        // Not read: setting it anew forgets that it rang.
        self.timer.readable_mut().await?.clear_ready();
        self.set = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rings_at_its_time_each_time_and_not_when_taken_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut alarm = Alarm::new().unwrap();
            for millis in [0, 30, 5] {
                let at = Instant::now() + Duration::from_millis(millis);
                alarm.set(Some(at)).unwrap();
                alarm.rings().await.unwrap();
                assert!(Instant::now() >= at);
            }
            alarm.set(Some(Instant::now() + Duration::from_millis(10))).unwrap();
            alarm.set(None).unwrap();
            let taken_back = tokio::time::timeout(Duration::from_millis(60), alarm.rings()).await;
            assert!(taken_back.is_err());
        });
    }
}
