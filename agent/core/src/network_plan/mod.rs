//! The network plan: everything the kernel is to be told for one generation, with no choices left to whoever
//! executes it. It is made from a valid site plan, a board and the allocation of the generation before; it is immutable
//! and has a parent.
//!
//! ```text
//!  ValidSitePlan + port→interface + Allocation(parent) + path choice ──compile──▶ NetworkPlan(n, parent n-1)
//!  Observed ──diff(plan)──▶ ChangeSet (ordered) ──Dataplane::apply──▶ kernel ──observe──▶ verify
//! ```

mod allocation;
mod change;
mod compile;
mod diff;
mod elements;
mod evict;
mod fingerprint;
mod link;
mod mark;
mod naming;
mod render;
mod ruleset;
mod sketch;
mod terrain;
mod transaction;
mod tunnel;
mod verify;

pub use allocation::{Allocation, AllocationError, ProbeHost};
pub use change::{
    AffinityEntry, ApplyError, ChainState, Change, ChangeSet, Dataplane, Flow, FlowKill, FlowStage, Observed,
    TableState,
};
pub use compile::{CompileError, PathChoice, compile};
pub use diff::diff;
pub use elements::{canary_element, current_element, gateway_element, real_elements, twin_element};
pub use evict::end_flows;
pub use fingerprint::key_type_text;
pub use link::{Address, IpRule, Link, LinkKind, PortVlans, Route, RouteKind, RuleAction, RuleMatch, Sysctl};
pub use mark::{Mark, PathIndex, ZONES_TABLE, ZoneGroupIndex};
pub(crate) use naming::port_names;
pub use naming::{TRUNK, bridge_name, tunnel_name, vlan_name};
pub use render::{lockdown, render, render_replacement};
pub use ruleset::{
    Chain, ChainKind, Element, Family, Flowtable, Hook, Key, KeyPart, KeyType, Map, Name, Rule, Ruleset, Set,
    Value, ValueType, Verdict,
};

pub(crate) use elements::{
    CANARY, CURRENT, REAL4, REAL6, REFUSE, TWIN6, affinity_set, gateway_chain, goto, pick_chain, use_chain,
    via_chain,
};
pub(crate) use terrain::{PathGround, RouteGround, Terrain, ZoneGround};

pub use transaction::nft_diff;
pub use tunnel::{Peer, PeerState, Tunnel, TunnelState};
pub use verify::{Discrepancy, verify};

use std::collections::BTreeMap;

use seimon_board::InterfaceName;
use serde::{Deserialize, Serialize};

/// Number of a network plan; a child's is greater than its parent's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// What the kernel is to be told. Equal plans mean equal networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    pub generation: Generation,
    pub parent: Option<Generation>,
    pub allocation: Allocation,
    /// Trunk and VLANs, bridges and their members, veth pairs, tunnels, in the order in which they can be made.
    pub links: Vec<Link>,
    /// How tunnels among the links are configured.
    #[serde(default)]
    pub tunnels: BTreeMap<InterfaceName, Tunnel>,
    pub addresses: Vec<Address>,
    pub routes: Vec<Route>,
    pub rules: Vec<IpRule>,
    pub sysctls: Vec<Sysctl>,
    pub ruleset: Ruleset,
}
