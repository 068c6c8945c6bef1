//! A table reduced to what both a plan and the kernel's listing can say: declarations, rule tags, elements.

use std::collections::BTreeMap;

use super::change::TableState;
use super::ruleset::{Key, KeyPart, Name, Ruleset, Value};

pub(super) type Elements = BTreeMap<Key, Option<Value>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sketch {
    /// Base line and rule tags.
    pub(super) chains: BTreeMap<Name, (String, Vec<Option<String>>)>,
    pub(super) containers: BTreeMap<Name, String>,
    /// Of all but learnt sets, in canonical form.
    pub(super) elements: BTreeMap<Name, Elements>,
    /// Declared; its devices come and go without the table.
    pub(super) flowtable: bool,
}

impl Sketch {
    pub(super) fn of_plan(ruleset: &Ruleset) -> Self {
        let Ruleset { sets, maps, chains, flowtable } = ruleset;
        let tags = |name: &Name| {
            let rules = chains.get(name).map(|chain| chain.rules.as_slice()).unwrap_or_default();
            rules.iter().map(|rule| Some(rule.tag(name))).collect()
        };
        let mut sketch = Self {
            chains: chains
                .iter()
                .map(|(name, chain)| (name.clone(), (chain.kind.fingerprint(), tags(name))))
                .collect(),
            flowtable: flowtable.is_some(),
            ..Self::default()
        };
        for (name, set) in sets {
            sketch.containers.insert(name.clone(), set.fingerprint());
            if set.dynamic.is_none() {
                let elements = set.elements.iter().map(|key| (canonical(key), None)).collect();
                sketch.elements.insert(name.clone(), elements);
            }
        }
        for (name, map) in maps {
            sketch.containers.insert(name.clone(), map.fingerprint());
            let elements =
                map.elements.iter().map(|(key, value)| (canonical(key), Some(value.clone()))).collect();
            sketch.elements.insert(name.clone(), elements);
        }
        sketch
    }

    pub(super) fn of_kernel(table: &TableState) -> Self {
        let TableState { chains, containers, elements, flowtable } = table;
        Self {
            flowtable: flowtable.is_some(),
            chains: chains
                .iter()
                .map(|(name, chain)| (name.clone(), (chain.base.clone(), chain.rule_tags.clone())))
                .collect(),
            containers: containers.clone(),
            elements: elements
                .iter()
                .map(|(name, elements)| {
                    let elements = elements.iter().map(|(key, value)| (canonical(key), value.clone()));
                    (name.clone(), elements.collect())
                })
                .collect(),
        }
    }

    /// Whether both have the same chains and containers, whatever rules are missing, and every rule is one of ours.
    pub(super) fn same_frame(&self, other: &Self) -> bool {
        let frame = |sketch: &Self| -> Vec<(Name, String)> {
            sketch.chains.iter().map(|(name, (base, _))| (name.clone(), base.clone())).collect()
        };
        self.containers == other.containers
            && frame(self) == frame(other)
            && self.chains.values().all(|(_, tags)| tags.iter().all(Option::is_some))
    }

    /// Whether chains and declarations are the same; elements aside.
    pub(super) fn same_shape(&self, other: &Self) -> bool {
        self.chains == other.chains
            && self.containers == other.containers
            && self.flowtable == other.flowtable
    }
}

/// A prefix or range of one value is that value: the kernel does not tell them apart.
fn canonical(key: &Key) -> Key {
    let one = |part: &KeyPart| match part {
        KeyPart::Ipv4Prefix(net) if net.prefix_len() == 32 => KeyPart::Ipv4(net.addr()),
        KeyPart::Ipv4Prefix(net) => KeyPart::Ipv4Prefix(net.trunc()),
        KeyPart::Ipv6Prefix(net) if net.prefix_len() == 128 => KeyPart::Ipv6(net.addr()),
        KeyPart::Ipv6Prefix(net) => KeyPart::Ipv6Prefix(net.trunc()),
        KeyPart::PortRange(first, last) if first == last => KeyPart::Port(*first),
        KeyPart::Ifname(_)
        | KeyPart::Ipv4(_)
        | KeyPart::Ipv6(_)
        | KeyPart::Ether(_)
        | KeyPart::Mark(_)
        | KeyPart::Proto(_)
        | KeyPart::Port(_)
        | KeyPart::PortRange(..) => part.clone(),
    };
    Key(key.0.iter().map(one).collect())
}
