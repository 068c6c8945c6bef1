//! Gives up everything that showing a page does not need, and makes sure of it.

use anyhow::{Context, ensure};
use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, Scope};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    no_new_privs, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

/// Browsers, listeners.
const MAX_FILES: u64 = 512;

/// Address space, in bytes: far above what is ever used, far below what would hurt the box.
const MAX_MEMORY: u64 = 256 << 20;

/// Confines the calling thread: call it before there is another. An error means that privileges remain, and the caller
/// must end.
pub(crate) fn confine() -> anyhow::Result<()> {
    limit(Resource::Nofile, MAX_FILES)?;
    limit(Resource::As, MAX_MEMORY)?;
    limit(Resource::Core, 0)?;
    set_no_new_privs(true).context("no_new_privs was refused")?;
    drop_capabilities()?;
    seal()?;
    ensure!(no_new_privs()?, "no_new_privs did not hold");
    let left = capabilities(None).context("capabilities cannot be read")?;
    ensure!(
        left.effective.is_empty() && left.permitted.is_empty() && left.inheritable.is_empty(),
        "capabilities remain: {:?}",
        left.permitted
    );
    Ok(())
}

/// Lowers a limit; never raises one.
fn limit(resource: Resource, at_most: u64) -> anyhow::Result<()> {
    let hard = getrlimit(resource).maximum.map_or(at_most, |maximum| maximum.min(at_most));
    let new = Rlimit { current: Some(hard), maximum: Some(hard) };
    setrlimit(resource, new).with_context(|| format!("{resource:?} cannot be limited"))
}

fn drop_capabilities() -> anyhow::Result<()> {
    let have = capabilities(None).context("capabilities cannot be read")?;
    if have.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().iter() {
            if capability_is_in_bounding_set(capability).unwrap_or(false) {
                remove_capability_from_bounding_set(capability)
                    .context("the bounding set cannot be emptied")?;
            }
        }
    }
    if have.effective.contains(CapabilitySet::SETUID | CapabilitySet::SETGID) {
        let (user, group) = (rustix::process::Uid::from_raw(NOBODY), rustix::process::Gid::from_raw(NOBODY));
        // In a user namespace there may be no such user: without capabilities its root is nobody as well.
        if set_thread_groups(&[]).is_ok() && set_thread_res_gid(group, group, group).is_ok() {
            let _ = set_thread_res_uid(user, user, user);
        }
    }
    clear_ambient_capability_set().context("ambient capabilities cannot be cleared")?;
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, none).context("capabilities cannot be dropped")
}

/// A kernel without Landlock is no reason not to show a page: there is nothing here but the page.
fn seal() -> anyhow::Result<()> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V6))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .restrict_self()?;
    Ok(())
}
