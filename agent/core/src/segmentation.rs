//! Zones × services → the typed ruleset of our one table.
//!
//! What a packet meets; everything below `pre` happens once a flow:
//!
//! ```text
//!  pre ─ known flow? ──▶ keep_<path>: path into the packet's mark, done
//!   │
//!   ├─ from a line ──▶ up_<path>: only to the gateway itself; answers leave where it came in
//!   └─ from a zone ──▶ zone4_<zone> ─ its own source? ─ no ─▶ odd4_<zone>: DHCP, probe hosts; else dropped
//!                         ▼ yes
//!                      look4_<zone>: permit4; in an open zone simply4_<zone> → the internet; wide4, any4; else refuse
//!                         ▼
//!                      zg_<n>: the client's path so far (aff_<path>), else the group's current path (or a canary's)
//!                         ▼
//!                      use_<n>_<path>: ct mark written, affinity refreshed
//!  to_real ─ inside address → the path's real address; none known: refuse
//!  between ─ under way? into the flowtable, and from then on past all of this; else (path, from, to) as planned; policy drop
//!  leaving ─ nat_<path>
//! ```
//! The same with 6 for IPv6, where a known flow's source is looked at as well: IPv4's is by routing. Nothing walks along
//! the permits.

mod builder;
mod canary;
mod cap;
mod classify;
mod ended;
mod explain;
mod fast;
mod gateway;
mod intervals;
mod permits;
mod translate;

use seimon_plan::{GroupId, INTERNET_GROUP};

pub use ended::ended;
pub use explain::{Explanation, Outcome, Question, Target, explain, zone_of};

pub(crate) use builder::Builder;
pub(crate) use classify::{write_ct, write_packet};

use crate::network_plan::{CompileError, Ruleset, Terrain};

/// The whole table, with `current` empty: paths are chosen elsewhere.
pub(crate) fn ruleset(terrain: &Terrain<'_>) -> Result<Ruleset, CompileError> {
    let mut builder = Builder::default();
    permits::lookups(terrain, &mut builder)?;
    classify::chains(terrain, &mut builder)?;
    canary::chains(terrain, &mut builder)?;
    cap::chains(terrain, &mut builder)?;
    translate::chains(terrain, &mut builder)?;
    gateway::chains(terrain, &mut builder)?;
    Ok(builder.finish())
}

pub(crate) fn is_internet(group: &GroupId) -> bool {
    group.as_str() == INTERNET_GROUP
}
