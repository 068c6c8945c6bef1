//! One-line forms of declarations, equal whether they come from a plan or are read back from the kernel.
//!
//! ```text
//!  set ifname . ipv4_addr . inet_service interval
//!  set mark . ether_addr dynamic 65535
//!  map mark . ipv4_addr : ipv4_addr
//!  filter prerouting -150 accept
//! ```

use super::ruleset::{ChainKind, Hook, KeyType, Map, Set, ValueType};

impl KeyType {
    /// nft's name of the type.
    pub const fn nft_name(self) -> &'static str {
        match self {
            Self::Ifname => "ifname",
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
            Self::Ether => "ether_addr",
            Self::Mark => "mark",
            Self::Proto => "inet_proto",
            Self::Port => "inet_service",
        }
    }
}

impl ValueType {
    /// nft's name of the type.
    pub const fn nft_name(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Mark => "mark",
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
        }
    }
}

impl Hook {
    /// nft's name of the hook.
    pub const fn nft_name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

/// As nft writes a concatenated type: `mark . ether_addr`.
pub fn key_type_text(key: &[KeyType]) -> String {
    key.iter().map(|part| part.nft_name()).collect::<Vec<_>>().join(" . ")
}

impl Set {
    /// The declaration, without elements: what `TableState::containers` says of the set.
    pub fn fingerprint(&self) -> String {
        let interval = if self.interval { " interval" } else { "" };
        let dynamic = self.dynamic.map(|size| format!(" dynamic {size}")).unwrap_or_default();
        format!("set {}{interval}{dynamic}", key_type_text(&self.key))
    }
}

impl Map {
    /// The declaration, without elements: what `TableState::containers` says of the map.
    pub fn fingerprint(&self) -> String {
        let interval = if self.interval { " interval" } else { "" };
        format!("map {} : {}{interval}", key_type_text(&self.key), self.value.nft_name())
    }
}

impl ChainKind {
    /// What `ChainState::base` says of the chain.
    pub fn fingerprint(&self) -> String {
        match self {
            Self::Regular => String::new(),
            Self::Base { chain_type, hook, priority, drop_by_default } => {
                let policy = if *drop_by_default { "drop" } else { "accept" };
                format!("{chain_type} {} {priority} {policy}", hook.nft_name())
            }
            Self::Ingress { port: _ } => "filter ingress -150 accept".to_owned(),
        }
    }
}
