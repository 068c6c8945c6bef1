//! Who "we" are, as the kernel's notifications name the author of a change.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Authors kept; far more than changes between two looks at the notifications.
const KEPT: usize = 128;

/// Processes and threads that changed things for us of late, and the ports of our sockets. Shared between the
/// implementation that changes and the watch that is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ours(Arc<Mutex<Authors>>);

#[derive(Debug, Default)]
struct Authors {
    processes: VecDeque<u32>,
    ports: Vec<u32>,
}

impl Ours {
    fn with<T>(&self, use_it: impl FnOnce(&mut Authors) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn add_process(&self, process: u32) {
        self.with(|authors| {
            authors.processes.retain(|known| *known != process);
            authors.processes.push_back(process);
            if authors.processes.len() > KEPT {
                authors.processes.pop_front();
            }
        });
    }

    pub(crate) fn add_this_thread(&self) {
        self.add_process(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned());
    }

    pub(crate) fn add_port(&self, port: u32) {
        self.with(|authors| authors.ports.push(port));
    }

    pub(crate) fn has_process(&self, process: u32) -> bool {
        self.with(|authors| authors.processes.contains(&process))
    }

    pub(crate) fn has_port(&self, port: u32) -> bool {
        self.with(|authors| authors.ports.contains(&port))
    }
}
