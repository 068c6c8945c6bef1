//! Forwarding as a whole: closed before anything is known, and when the agent goes.

use anyhow::{Context as _, Result};
use seimon_core::network_plan::{Change, ChangeSet, Dataplane as _, Sysctl};
use seimon_dataplane::Linux;

/// At the first start the gate is shut before so much as the plan is read. After a crash there is a table of ours, which
/// goes on doing what was last verified.
pub(crate) fn close_unless_continuing(dataplane: &mut Linux) -> Result<()> {
    if dataplane.observe(&[])?.table.is_none() { switch_forwarding_off(dataplane) } else { Ok(()) }
}

/// Closes forwarding and keeps everything else. Where our table is missing, or cannot be asked for, forwarding itself is
/// switched off.
pub(crate) fn lockdown(dataplane: &mut Linux) -> Result<()> {
    let closed = match dataplane.observe(&[]) {
        Ok(observed) => match &observed.table {
            Some(table) => {
                let script = seimon_core::network_plan::lockdown(table);
                dataplane.apply(&ChangeSet { changes: vec![Change::Nft { script }] })
            }
            None => return switch_forwarding_off(dataplane),
        },
        Err(error) => Err(error),
    };
    closed.or_else(|error| {
        tracing::warn!(%error, "forwarding is closed as a whole");
        switch_forwarding_off(dataplane)
    })
}

fn switch_forwarding_off(dataplane: &mut Linux) -> Result<()> {
    let changes = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
        .into_iter()
        .map(|path| Change::SysctlSet(Sysctl { path: path.to_owned(), value: "0".to_owned() }))
        .collect();
    dataplane.apply(&ChangeSet { changes }).context("forwarding could not be closed")
}
