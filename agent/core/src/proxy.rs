//! The town hall's web proxy: who still uses it, and what browsers are told instead.
//!
//! A client that reaches services through the proxy is seen by them from the town hall, whatever path the group is on: for
//! that client, moving the group moves nothing.
//!
//! ```text
//!  flows to the proxy ──▶ Watch ──▶ ProxyUse by zone ──▶ veto, and what people are told
//!  groups that have moved ──▶ PacFile ──▶ /proxy.pac: those directly, the rest through the proxy
//!  who took which PAC file ──▶ Watch: who goes directly now, who does not know yet
//! ```

mod pac;
mod watch;

pub use pac::{Destination, PacFile, Rule, Way};
pub use watch::{Proxied, ProxyUse, Watch};

use seimon_plan::{SitePlan, ZoneId};

use crate::status::Sentence;

/// Names under which browsers look for a PAC file by themselves, in this zone: `wpad`, and `wpad` in the town's own domains.
pub fn wpad_names(plan: &SitePlan, zone: &ZoneId) -> Vec<String> {
    let domains = plan.dns.forward.iter().filter(|forward| forward.zones.contains(zone));
    let inside = domains.map(|forward| format!("wpad.{}", forward.domain.to_ascii_lowercase()));
    std::iter::once("wpad".to_owned()).chain(inside).collect()
}

/// How many of the zone's clients go past the gateway's paths.
pub(crate) fn still_used(zone: &ZoneId, clients: u32, flows: u64) -> Sentence {
    let devices = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
    let connections = if flows == 1 { "1 flow".to_owned() } else { format!("{flows} flows") };
    Sentence::new(
        format!(
            "「{zone}」の端末が、まだ庁舎のプロキシを使っています（この 1 時間に {clients} 台、{flows} 件）。"
        ),
        format!(
            "Clients of zone {zone} still use the town's proxy: {devices}, {connections} in the last hour."
        ),
    )
}
