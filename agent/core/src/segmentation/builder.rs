//! Puts a [`Ruleset`] together.

use std::collections::{BTreeMap, BTreeSet};

use crate::network_plan::{
    Chain, ChainKind, Hook, Key, KeyPart, KeyType, Map, Name, Rule, Ruleset, Set, Value, ValueType,
};

#[derive(Default)]
pub(super) struct Builder {
    ruleset: Ruleset,
}

/// A chain that is being filled; rules come in order.
pub(super) struct Filling<'a>(&'a mut Chain);

impl Filling<'_> {
    pub(super) fn rule(&mut self, text: impl Into<String>, because: impl Into<String>) -> &mut Self {
        self.0.rules.push(Rule { text: text.into(), because: because.into() });
        self
    }
}

impl Builder {
    pub(super) fn chain(&mut self, name: impl Into<Name>) -> Filling<'_> {
        let chain = Chain { kind: ChainKind::Regular, rules: Vec::new() };
        Filling(self.ruleset.chains.entry(name.into()).or_insert(chain))
    }

    /// A base chain that accepts by default.
    pub(super) fn base(&mut self, name: &str, chain_type: &str, hook: Hook, priority: i32) -> Filling<'_> {
        self.base_with(name, chain_type, hook, priority, false)
    }

    /// A base chain that drops by default.
    pub(super) fn closed_base(&mut self, name: &str, hook: Hook, priority: i32) -> Filling<'_> {
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

    pub(super) fn set(&mut self, name: &str, key: &[KeyType], elements: BTreeSet<Key>) {
        let set = Set { key: key.to_vec(), interval: false, dynamic: None, elements };
        self.ruleset.sets.insert(name.to_owned(), set);
    }

    pub(super) fn interval_set(&mut self, name: &str, key: &[KeyType], elements: BTreeSet<Key>) {
        let set = Set { key: key.to_vec(), interval: true, dynamic: None, elements };
        self.ruleset.sets.insert(name.to_owned(), set);
    }

    pub(super) fn learnt_set(&mut self, name: &str, key: &[KeyType], size: u32) {
        let set = Set { key: key.to_vec(), interval: false, dynamic: Some(size), elements: BTreeSet::new() };
        self.ruleset.sets.insert(name.to_owned(), set);
    }

    pub(super) fn map(
        &mut self,
        name: &str,
        key: &[KeyType],
        value: ValueType,
        elements: BTreeMap<Key, Value>,
    ) {
        let map = Map { key: key.to_vec(), value, interval: false, runtime: false, elements };
        self.ruleset.maps.insert(name.to_owned(), map);
    }

    pub(super) fn interval_map(&mut self, name: &str, key: &[KeyType], elements: BTreeMap<Key, Value>) {
        let map =
            Map { key: key.to_vec(), value: ValueType::Verdict, interval: true, runtime: false, elements };
        self.ruleset.maps.insert(name.to_owned(), map);
    }

    /// A map whose elements move while running.
    pub(super) fn runtime_map(
        &mut self,
        name: &str,
        key: &[KeyType],
        value: ValueType,
        elements: BTreeMap<Key, Value>,
    ) {
        let map = Map { key: key.to_vec(), value, interval: false, runtime: true, elements };
        self.ruleset.maps.insert(name.to_owned(), map);
    }

    pub(super) fn map_has(&self, name: &str, test: impl Fn(&Key) -> bool) -> bool {
        self.map_keys(name).any(test)
    }

    /// A map's keys; none where there is no such map.
    pub(super) fn map_keys(&self, name: &str) -> impl Iterator<Item = &Key> {
        self.ruleset.maps.get(name).into_iter().flat_map(|map| map.elements.keys())
    }

    /// A set's elements; none where there is no such set.
    pub(super) fn set_keys(&self, name: &str) -> impl Iterator<Item = &Key> {
        self.ruleset.sets.get(name).into_iter().flat_map(|set| set.elements.iter())
    }

    pub(super) fn finish(self) -> Ruleset {
        self.ruleset
    }
}

/// Whether a key begins with this interface.
pub(super) fn begins_with(key: &Key, interface: &seimon_board::InterfaceName) -> bool {
    matches!(key.0.first(), Some(KeyPart::Ifname(name)) if name == interface)
}
