//! Giving up what is no longer needed. Nothing here can be taken back.

use std::io;

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[error("capabilities cannot be given up")]
    Capabilities(#[source] io::Error),
    #[error("no_new_privs cannot be set")]
    NoNewPrivileges(#[source] io::Error),
    #[error("the resource limits cannot be set")]
    Limits(#[source] io::Error),
    #[error("the file system cannot be closed off")]
    Landlock(#[source] landlock::RulesetError),
}

/// Whether the kernel closes the file system off. A kernel without Landlock is no reason not to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    Closed,
    Open,
}

/// Most files that the probe has open: a socket for each job and a few of its own.
const FILES: u64 = 1024;

/// No capabilities, no new privileges, no files, no core dumps, bounded descriptors and memory. For the calling thread:
/// call it while there is only one.
pub fn confine() -> Result<Files, ConfineError> {
    let limits = [(Resource::Nofile, FILES), (Resource::Core, 0), (Resource::Data, 128 << 20)];
    for (resource, most) in limits {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(|error| ConfineError::Limits(error.into()))?;
    }
    rustix::thread::set_no_new_privs(true).map_err(|error| ConfineError::NoNewPrivileges(error.into()))?;
    let files = close_files().map_err(ConfineError::Landlock)?;
    drop_capabilities().map_err(|error| ConfineError::Capabilities(error.into()))?;
    Ok(files)
}

fn close_files() -> Result<Files, landlock::RulesetError> {
    let abi = ABI::V6;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .restrict_self()?;
    match status.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(Files::Closed),
        RulesetStatus::NotEnforced => Ok(Files::Open),
    }
}

fn drop_capabilities() -> rustix::io::Result<()> {
    // The bounding set needs CAP_SETPCAP; without it no_new_privs alone keeps exec from giving anything back.
    for capability in CapabilitySet::all() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )
}
