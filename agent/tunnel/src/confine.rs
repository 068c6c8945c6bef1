//! Giving up what is not needed, before the first packet of anybody's is read. Nothing here can be taken back.

use std::io;

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineError {
    #[error("capabilities cannot be given up")]
    Capabilities(#[source] io::Error),
    #[error("no_new_privs cannot be set")]
    NoNewPrivileges(#[source] io::Error),
    #[error("the resource limits cannot be set")]
    Limits(#[source] io::Error),
    #[error("the file system cannot be closed off")]
    Landlock(#[source] landlock::RulesetError),
}

/// Descriptors: two inherited, two UDP sockets, a few for waiting.
const FILES: u64 = 64;

/// No capabilities, no new privileges, no files, no core dumps (there is a key in memory), few descriptors. For the
/// calling thread and those that it begins: call it while there is only one.
pub(crate) fn confine() -> Result<(), ConfineError> {
    for (resource, most) in [(Resource::Nofile, FILES), (Resource::Core, 0)] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(|error| ConfineError::Limits(error.into()))?;
    }
    rustix::thread::set_no_new_privs(true).map_err(|error| ConfineError::NoNewPrivileges(error.into()))?;
    close_files().map_err(ConfineError::Landlock)?;
    drop_capabilities().map_err(|error| ConfineError::Capabilities(error.into()))
}

/// A kernel without Landlock is no reason not to carry a tunnel.
fn close_files() -> Result<(), landlock::RulesetError> {
    let abi = ABI::V6;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .restrict_self()
        .map(|_| ())
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
