//! Puts a [`Ruleset`] together.

use std::collections::{BTreeMap, BTreeSet};

use seimon_board::InterfaceName;

use crate::network_plan::{
    Chain, ChainKind, Flowtable, Hook, Key, KeyPart, KeyType, Map, Name, Rule, Ruleset, Set, Value, ValueType,
};

#[derive(Default)]
pub(crate) struct Builder {
    ruleset: Ruleset,
}

/// A chain that is being filled; rules come in order.
pub(crate) struct Filling<'a>(&'a mut Chain);

impl Filling<'_> {
    pub(crate) fn rule(&mut self, text: impl Into<String>, because: impl Into<String>) -> &mut Self {
        self.0.rules.push(Rule { text: text.into(), because: because.into() });
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.rules.is_empty()
    }
}

impl Builder {
    pub(crate) fn chain(&mut self, name: impl Into<Name>) -> Filling<'_> {
        let chain = Chain { kind: ChainKind::Regular, rules: Vec::new() };
        Filling(self.ruleset.chains.entry(name.into()).or_insert(chain))
    }

    /// A chain for what comes in by one port of a bridge.
    pub(super) fn ingress(&mut self, name: Name, port: InterfaceName) -> Filling<'_> {
        let chain = Chain { kind: ChainKind::Ingress { port }, rules: Vec::new() };
        Filling(self.ruleset.chains.entry(name).or_insert(chain))
    }

    /// A base chain that accepts by default.
    pub(crate) fn base(&mut self, name: &str, chain_type: &str, hook: Hook, priority: i32) -> Filling<'_> {
        self.base_with(name, chain_type, hook, priority, false)
    }

    /// A base chain that drops by default.
    pub(crate) fn closed_base(&mut self, name: &str, hook: Hook, priority: i32) -> Filling<'_> {
        self.base_with(name, "filter", hook, priority, true)
    }

    fn base_with(
        &mut self,
        name: &str,
        chain_type: &str,
        hook: Hook,
        priority: i32,
        drop_by_default: bool,
    ) -> Filling<'_> {
        let kind = ChainKind::Base { chain_type: chain_type.to_owned(), hook, priority, drop_by_default };
        let chain = Chain { kind, rules: Vec::new() };
        Filling(self.ruleset.chains.entry(name.to_owned()).or_insert(chain))
    }

    pub(crate) fn set(&mut self, name: &str, key: &[KeyType], elements: BTreeSet<Key>) {
        let set = Set { key: key.to_vec(), interval: false, dynamic: None, elements };
        self.ruleset.sets.insert(name.to_owned(), set);
    }

    pub(crate) fn interval_set(&mut self, name: &str, key: &[KeyType], elements: BTreeSet<Key>) {
        let set = Set { key: key.to_vec(), interval: true, dynamic: None, elements };
        self.ruleset.sets.insert(name.to_owned(), set);
    }

    pub(crate) fn learnt_set(&mut self, name: &str, key: &[KeyType], size: u32) {
        let set = Set { key: key.to_vec(), interval: false, dynamic: Some(size), elements: BTreeSet::new() };
        self.ruleset.sets.insert(name.to_owned(), set);
    }

    pub(crate) fn map(
        &mut self,
        name: &str,
        key: &[KeyType],
        value: ValueType,
        elements: BTreeMap<Key, Value>,
    ) {
        let map = Map { key: key.to_vec(), value, interval: false, runtime: false, elements };
        self.ruleset.maps.insert(name.to_owned(), map);
    }

    pub(crate) fn interval_map(&mut self, name: &str, key: &[KeyType], elements: BTreeMap<Key, Value>) {
        let map =
            Map { key: key.to_vec(), value: ValueType::Verdict, interval: true, runtime: false, elements };
        self.ruleset.maps.insert(name.to_owned(), map);
    }

    /// A map whose elements move while running.
    pub(crate) fn runtime_map(
        &mut self,
        name: &str,
        key: &[KeyType],
        value: ValueType,
        elements: BTreeMap<Key, Value>,
    ) {
        let map = Map { key: key.to_vec(), value, interval: false, runtime: true, elements };
        self.ruleset.maps.insert(name.to_owned(), map);
    }

    pub(super) fn flowtable(&mut self, flowtable: Flowtable) {
        self.ruleset.flowtable = Some(flowtable);
    }

    pub(crate) fn map_has(&self, name: &str, test: impl Fn(&Key) -> bool) -> bool {
        self.map_keys(name).any(test)
    }

    /// A map's keys; none where there is no such map.
    pub(crate) fn map_keys(&self, name: &str) -> impl Iterator<Item = &Key> {
        self.ruleset.maps.get(name).into_iter().flat_map(|map| map.elements.keys())
    }

    /// A set's elements; none where there is no such set.
    pub(crate) fn set_keys(&self, name: &str) -> impl Iterator<Item = &Key> {
        self.ruleset.sets.get(name).into_iter().flat_map(|set| set.elements.iter())
    }

    pub(crate) fn finish(self) -> Ruleset {
        self.ruleset
    }
}

/// Whether a key begins with this interface.
pub(crate) fn begins_with(key: &Key, interface: &InterfaceName) -> bool {
    matches!(key.0.first(), Some(KeyPart::Ifname(name)) if name == interface)
}
