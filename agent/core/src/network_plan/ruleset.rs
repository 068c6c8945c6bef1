//! Our one nftables table, typed: sets and maps with typed keys (so that an element can be written both as nft text and as
//! netlink bytes), chains of rules as nft statements.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use seimon_board::{InterfaceName, MacAddress};
use serde::{Deserialize, Serialize};

use super::mark::Mark;

/// Name of a set, map or chain: `[a-z][a-z0-9_]*`, at most 31 bytes, never an nft keyword (we prefix or suffix all).
pub type Name = String;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// `table inet seimon`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    pub sets: BTreeMap<Name, Set>,
    pub maps: BTreeMap<Name, Map>,
    pub chains: BTreeMap<Name, Chain>,
    /// `None`: every packet goes through the rules.
    #[serde(default)]
    pub flowtable: Option<Flowtable>,
}

impl Ruleset {
    pub const TABLE: &'static str = "seimon";
    /// Name of the flowtable.
    pub const FLOWTABLE: &'static str = "fast";

    /// The same policy for a kernel without flowtables.
    pub fn without_flowtable(mut self) -> Self {
        self.flowtable = None;
        for chain in self.chains.values_mut() {
            chain.rules.retain(|rule| !rule.offloads());
        }
        self
    }
}

/// Flows under way that need nothing more than what the kernel remembers of them: their packets are taken where they come in,
/// and leave without meeting a rule. It counts bytes, as connection tracking would.
///
/// The devices are like a set's elements: they come after the table, as they are made, and the kernel takes out those that go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flowtable {
    pub devices: BTreeSet<InterfaceName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyType {
    Ifname,
    Ipv4,
    Ipv6,
    Ether,
    Mark,
    Proto,
    Port,
}

/// One field of a key. Prefixes and port ranges only in sets and maps with `interval`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyPart {
    Ifname(InterfaceName),
    Ipv4(Ipv4Addr),
    Ipv4Prefix(Ipv4Net),
    Ipv6(Ipv6Addr),
    Ipv6Prefix(Ipv6Net),
    Ether(MacAddress),
    Mark(Mark),
    /// IANA protocol number.
    Proto(u8),
    Port(u16),
    PortRange(u16, u16),
}

/// A concatenation; its parts' types are the set's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub Vec<KeyPart>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ValueType {
    Verdict,
    Mark,
    Ipv4,
    Ipv6,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Value {
    Verdict(Verdict),
    Mark(Mark),
    Ipv4(Ipv4Addr),
    Ipv6(Ipv6Addr),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Goto(Name),
    Jump(Name),
}

/// A set whose elements are the plan's (`dynamic: None`) or learnt by the kernel (`Some`: never in the plan).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    pub key: Vec<KeyType>,
    pub interval: bool,
    /// Learnt by rules, with timeouts: the set's maximum size.
    pub dynamic: Option<u32>,
    pub elements: BTreeSet<Key>,
}

/// A map. `runtime`: its elements are moved while running (path choice, real addresses); the plan's elements are where
/// they start, and a reload must not put them back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    pub key: Vec<KeyType>,
    pub value: ValueType,
    pub interval: bool,
    pub runtime: bool,
    pub elements: BTreeMap<Key, Value>,
}

/// An element of a named set or map, as moved at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    pub container: Name,
    pub key: Key,
    /// `None` in sets.
    pub value: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub kind: ChainKind,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChainKind {
    Regular,
    Base {
        /// `filter`, `nat` or `route`.
        chain_type: String,
        hook: Hook,
        priority: i32,
        drop_by_default: bool,
    },
    /// What comes in by one port of a bridge, before the bridge: a base chain at the hook `ingress`, priority -150. Its name
    /// tells the port, for nft's listing does not.
    Ingress {
        port: InterfaceName,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// One rule: nft statements as text, and the plan's rule that asked for it, in the administrator's words (for `explain`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub text: String,
    pub because: String,
}

impl Rule {
    /// Whether it hands flows to the flowtable.
    pub fn offloads(&self) -> bool {
        self.text.contains(" flow add @")
    }
}
