//! What can be changed in the kernel, what can be seen there, and the trait between deciding and doing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use seimon_board::{InterfaceName, MacAddress};
use seimon_plan::WireguardKey;
use serde::{Deserialize, Serialize};

use super::link::{Address, IpRule, Link, Route, Sysctl};
use super::mark::{Mark, PathIndex, ZoneGroupIndex};
use super::ruleset::{Element, Key, Name, Value};
use super::tunnel::{Tunnel, TunnelState};

/// One step. Steps of a [`ChangeSet`] are carried out in order; each is atomic by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// One nft transaction, as text for `nft -f -`.
    Nft {
        script: String,
    },
    /// Elements taken out and put in, in one netlink transaction. Taking out what is not there is not an error.
    Elements {
        remove: Vec<Element>,
        add: Vec<Element>,
    },
    /// Affinity of clients, put in or refreshed.
    Affinity {
        add: Vec<AffinityEntry>,
        remove: Vec<AffinityEntry>,
    },
    /// Conntrack entries deleted.
    Kill(FlowKill),
    LinkUp(Link),
    LinkRemove(InterfaceName),
    /// The interface configured so; peers that are so already are not touched.
    TunnelSet {
        interface: InterfaceName,
        tunnel: Tunnel,
    },
    /// Where the far end is now. WireGuard goes on from there as if it had roamed.
    TunnelEndpoint {
        interface: InterfaceName,
        peer: WireguardKey,
        endpoint: SocketAddr,
    },
    AddressAdd(Address),
    AddressRemove(Address),
    RouteReplace(Route),
    RouteRemove(Route),
    RuleAdd(IpRule),
    RuleRemove(IpRule),
    SysctlSet(Sysctl),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeSet {
    pub changes: Vec<Change>,
}

/// A client (by MAC address) that has used a zone-group over a path and keeps it for `remaining`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AffinityEntry {
    pub path: PathIndex,
    pub zone_group: ZoneGroupIndex,
    pub client: MacAddress,
    pub remaining: Duration,
}

/// Which of our conntrack entries to delete. Every `Some` must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowKill {
    pub path: Option<PathIndex>,
    pub zone_group: Option<ZoneGroupIndex>,
    /// Only flows that no answer has been seen for.
    pub unanswered_only: bool,
    /// Only these, by [`Flow::id`].
    #[serde(default)]
    pub ids: Option<BTreeSet<u32>>,
}

impl FlowKill {
    /// Whether the flow is to be deleted.
    pub fn matches(&self, flow: &Flow) -> bool {
        let Self { path, zone_group, unanswered_only, ids } = self;
        flow.mark.0 & Mark::OURS != 0
            && path.is_none_or(|path| flow.mark.path() == Some(path))
            && zone_group.is_none_or(|zone_group| flow.mark.zone_group() == Some(zone_group))
            && !(*unanswered_only && flow.answered)
            && ids.as_ref().is_none_or(|ids| ids.contains(&flow.id))
    }
}

/// A conntrack entry that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Kernel's conntrack id (unique among live flows).
    pub id: u32,
    pub mark: Mark,
    pub protocol: u8,
    /// As the client sent it, before translation.
    pub source: IpAddr,
    pub source_port: u16,
    pub destination: IpAddr,
    pub destination_port: u16,
    /// Where the answers come from: the real destination.
    pub reply_source: IpAddr,
    /// Where the answers go to: the egress address before any further NAT.
    pub reply_destination: IpAddr,
    /// An answer has been seen.
    pub answered: bool,
    pub stage: FlowStage,
    /// Bytes both ways; 0 where accounting is off.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowStage {
    Open,
    /// TCP: one end has closed it or broken it off. What still crosses is the farewell, which a lossy line repeats for
    /// minutes.
    Ending,
}

/// What the kernel has that is ours (links: also what the plan needs and others own).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Interfaces that exist, and whether each is up.
    pub interfaces: BTreeMap<InterfaceName, bool>,
    /// Bridges, probe links and tunnels of ours, with members as they are.
    pub links: Vec<Link>,
    /// How tunnels of ours are configured; those that nobody answers for are left out.
    pub tunnels: BTreeMap<InterfaceName, TunnelState>,
    /// On interfaces that are ours or carry our lines.
    pub addresses: BTreeSet<Address>,
    /// In our tables.
    pub routes: BTreeSet<Route>,
    /// With our protocol number.
    pub rules: BTreeSet<IpRule>,
    /// The sysctls that the plan asked about.
    pub sysctls: BTreeMap<String, String>,
    pub table: Option<TableState>,
}

/// Our table as it is in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableState {
    /// Chains in order of name, with the tags of their rules in order (a rule's tag is in its comment; `None`: not ours).
    pub chains: BTreeMap<Name, ChainState>,
    /// Names of sets and maps with a fingerprint of their declaration.
    pub containers: BTreeMap<Name, String>,
    /// Elements of maps and non-dynamic sets.
    pub elements: BTreeMap<Name, BTreeMap<Key, Option<Value>>>,
    /// The flowtable's devices; `None`: there is no flowtable.
    pub flowtable: Option<BTreeSet<InterfaceName>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainState {
    /// Hook, priority and policy as one line; empty for regular chains.
    pub base: String,
    pub rule_tags: Vec<Option<String>>,
    /// Digest of the rules' expressions as the kernel reads them back, handles and counters left out.
    pub digest: String,
}

/// Why a change was not made, whose doing that is, and whether trying again can help.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("`nft` cannot be run: install the package nftables")]
    NftMissing(#[source] std::io::Error),
    #[error("the kernel refuses: this process lacks CAP_NET_ADMIN; {doing}")]
    NotPermitted { doing: String },
    #[error("nft refused the transaction, nothing of it is in force: {message}")]
    NftRefused { message: String },
    #[error(
        "interface {0} does not exist: check the cable, the board file, and whether the kernel renamed it"
    )]
    NoSuchInterface(InterfaceName),
    #[error("the kernel refused to {doing}")]
    Kernel {
        doing: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{flows} flows are in the flowtable, and this kernel deletes none there")]
    Offloaded { flows: usize },
    #[error("the kernel's answer could not be read: {0}")]
    Unreadable(String),
    #[error("the private key {} cannot be used: {why}", .file.display())]
    PrivateKey { file: PathBuf, why: String },
    #[error("WireGuard for {interface} cannot be started: {why}")]
    Tunnel { interface: InterfaceName, why: String },
}

/// The only way to the network. Implementations: Linux, a fake (in memory), and one that fails on demand.
pub trait Dataplane {
    /// Reads what is in force. `sysctls` names those of interest.
    fn observe(&mut self, sysctls: &[String]) -> Result<Observed, ApplyError>;

    /// Carries out the changes in order and stops at the first that fails.
    fn apply(&mut self, changes: &ChangeSet) -> Result<(), ApplyError>;

    /// Conntrack entries with any of our mark bits.
    fn flows(&mut self) -> Result<Vec<Flow>, ApplyError>;

    /// Learnt affinity, as the kernel has it now.
    fn affinity(&mut self, paths: &[PathIndex]) -> Result<Vec<AffinityEntry>, ApplyError>;

    /// By which of its ports a bridge has heard each client lately. Empty where that cannot be known.
    fn heard_at(
        &mut self,
        _bridge: &InterfaceName,
    ) -> Result<BTreeMap<MacAddress, InterfaceName>, ApplyError> {
        Ok(BTreeMap::new())
    }

    /// MAC addresses of neighbours on the interface.
    fn neighbours(&mut self, interface: &InterfaceName) -> Result<BTreeMap<IpAddr, MacAddress>, ApplyError>;
}
