//! The far end of the schools' tunnels: from a hub plan to the same [`crate::network_plan::NetworkPlan`] that a school's
//! becomes, so that telling the kernel, looking and comparing are the same.
//!
//! ```text
//!                    wg-hub (one interface, a peer a key)
//!  school A ──┐   ┌──────────────────────────────────────────────┐      town line ─▶ town prefixes, DNS
//!  school B ──┼──▶│ source known? → town, internet, the hub itself │──▶
//!  school C ──┘   └──────────────────────────────────────────────┘      egress line ─▶ NAT to the school's address
//! ```
//! - Whose a packet is, WireGuard says: a source that is not the peer's own does not come out of the tunnel. The table
//!   looks at sources once more, and the forwarding rules never lead from the tunnel into it.
//! - Everything that there is one of for each school is an element of a hash: what a packet costs does not grow with them.
//!   Prefixes are looked up masked, once for each length that the plan has.
//! - An element, a route, a peer is all that a school's coming or going changes.
//! - Without a policy, or when somebody has taken it away, nothing is marked, and what is not marked is not forwarded.

mod compile;
mod explain;
mod pool;
mod roster;
mod ruleset;
mod words;

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use seimon_plan::HubSchool;

pub use compile::{HubCompileError, TUNNEL, compile};
pub use explain::{HubAnswer, HubOutcome, Who, explain, school_of};
pub use pool::{egress4, egress6};
pub use roster::{Roster, Standing, Today};
pub use words::{hub_sentence, school_end};

use crate::network_plan::PathIndex;

/// Paths of the hub, as in the path field of marks.
pub(crate) const TO_TOWN: PathIndex = PathIndex(1);
pub(crate) const TO_INTERNET: PathIndex = PathIndex(2);
/// Outer packets of the tunnel, and the hub's own.
pub(crate) const OUTER: PathIndex = PathIndex(3);

/// Every source that a school may have: its addresses in the tunnel, and its own prefixes.
pub fn sources(school: &HubSchool) -> impl Iterator<Item = IpNet> + '_ {
    let host = |address: IpAddr| match address {
        IpAddr::V4(a) => IpNet::V4(Ipv4Net::from(a)),
        IpAddr::V6(a) => IpNet::V6(Ipv6Net::from(a)),
    };
    let six = school.ipv6.map(IpAddr::V6);
    let own = [Some(IpAddr::V4(school.ipv4)), six].into_iter().flatten().map(host);
    own.chain(school.prefixes.iter().map(IpNet::trunc))
}
