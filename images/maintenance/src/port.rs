//! The character device. It reads an end of file while nobody has the other end open, and says by `POLLHUP` when that
//! changes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use seimon_maintenance::frame::PATIENCE;

const BETWEEN: Duration = Duration::from_millis(100);

pub(crate) struct Port {
    device: File,
    /// When the frame that is being read began.
    begun: Option<Instant>,
}

impl Port {
    pub(crate) fn open(device: &str) -> io::Result<Self> {
        Ok(Self { device: OpenOptions::new().read(true).write(true).open(device)?, begun: None })
    }

    /// Returns when there is something to read.
    pub(crate) fn wait_for_a_bench(&mut self) {
        self.begun = None;
        while !self.is_readable(None) {
            std::thread::sleep(BETWEEN);
        }
    }

    /// Throws away what has come until nothing comes for a moment.
    pub(crate) fn forget(&mut self) {
        let mut noise = [0; 4096];
        while self.is_readable(Some(BETWEEN)) && self.device.read(&mut noise).is_ok_and(|length| length > 0) {
        }
    }

    /// `false`: not within that time, or nobody is there.
    fn is_readable(&self, patience: Option<Duration>) -> bool {
        let patience = patience.map(|patience| Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(patience.subsec_nanos()),
        });
        let mut waited = [PollFd::new(&self.device, PollFlags::IN)];
        loop {
            return match poll(&mut waited, patience.as_ref()) {
                Ok(_) => waited[0].revents().contains(PollFlags::IN),
                Err(Errno::INTR) => continue,
                Err(_) => false,
            };
        }
    }
}

impl Read for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let begun = *self.begun.get_or_insert_with(Instant::now);
        if !self.is_readable(Some(PATIENCE.saturating_sub(begun.elapsed()))) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.device.read(buffer)
    }
}

impl Write for Port {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.device.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.device.flush()
    }
}
