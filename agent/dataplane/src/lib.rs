//! The only way to the network, behind `seimon_core::network_plan::Dataplane`:
//!
//! - [`Linux`] speaks to the kernel; [`Watch`] is told by it what others do;
//! - [`Fake`] is a kernel in memory, for tests;
//! - [`Faulty`] fails on demand around either.

mod attributes;
mod conntrack;
mod fake;
mod faulty;
mod linux;
mod listing;
mod nf;
mod nft;
mod ours;
mod rt;
mod socket;
mod tunnel;
mod watch;

pub use fake::{Container, Fake, Kernel, Table};
pub use faulty::{Faulty, Moment};
pub use linux::Linux;
pub use tunnel::{Made, PrivateKey};
pub use watch::{Event, Watch};

use rustix::io::Errno;
use seimon_core::network_plan::ApplyError;

use crate::socket::NetlinkError;

/// A netlink error as an [`ApplyError`]; `doing` completes "the kernel refused to …".
fn failure(doing: impl Into<String>, error: NetlinkError) -> ApplyError {
    let doing = doing.into();
    match error.errno() {
        Some(Errno::PERM | Errno::ACCESS) => ApplyError::NotPermitted { doing },
        Some(_) | None => ApplyError::Kernel { doing, source: error.into_io() },
    }
}
