//! A kernel in memory, for tests: it takes the same changes and tells the same observations as [`Linux`](crate::Linux).
//!
//! Clones share one kernel, so a test keeps one and hands the other over.

mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use seimon_board::{InterfaceName, MacAddress};
use seimon_core::network_plan::{
    Address, AffinityEntry, ApplyError, Change, ChangeSet, Dataplane, Element, Flow, IpRule, Key, KeyType,
    Link, LinkKind, Mark, Name, Observed, PathIndex, Route, RouteKind, TableState, Tunnel, TunnelState,
    Value, ValueType, key_type_text,
};
use seimon_plan::WireguardKey;

use crate::linux::affinity_set;

/// A kernel in memory.
#[derive(Clone, Debug, Default)]
pub struct Fake(Arc<Mutex<Kernel>>);

/// What the fake kernel knows. Tests may change it, as others on a gateway may.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// Interfaces, and whether each is up.
    pub interfaces: BTreeMap<InterfaceName, bool>,
    pub links: BTreeMap<InterfaceName, Link>,
    /// Tunnels that somebody answers for; take one out, and it is as if its process had ended.
    pub tunnels: BTreeMap<InterfaceName, TunnelState>,
    pub addresses: BTreeSet<Address>,
    pub routes: BTreeSet<Route>,
    pub rules: BTreeSet<IpRule>,
    pub sysctls: BTreeMap<String, String>,
    pub table: Option<Table>,
    /// All conntrack entries, also those that are not ours.
    pub flows: Vec<Flow>,
    /// No flow is deleted while there is a flowtable, as on kernels that refuse it.
    pub keeps_offloaded: bool,
    /// Learnt affinity. It does not grow old by itself.
    pub affinity: BTreeSet<AffinityEntry>,
    pub neighbours: BTreeMap<InterfaceName, BTreeMap<IpAddr, MacAddress>>,
    /// Every change that was carried out, in order.
    pub log: Vec<Change>,
}

/// Our table, as text and elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Rules of each chain, as nft text.
    pub rules: BTreeMap<Name, Vec<String>>,
    /// Declarations of base chains, as `ChainKind::fingerprint` tells them.
    pub bases: BTreeMap<Name, String>,
    pub containers: BTreeMap<Name, Container>,
    /// The flowtable's devices; `None`: there is no flowtable.
    pub flowtable: Option<BTreeSet<InterfaceName>>,
}

/// A set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub is_map: bool,
    pub key: Vec<KeyType>,
    pub value: Option<ValueType>,
    pub interval: bool,
    pub dynamic: bool,
    pub size: u32,
    pub elements: BTreeMap<Key, Option<Value>>,
}

impl Container {
    fn fingerprint(&self) -> String {
        let key = key_type_text(&self.key);
        let interval = if self.interval { " interval" } else { "" };
        match (self.value, self.dynamic) {
            (Some(value), _) => format!("map {key} : {}{interval}", value.nft_name()),
            (None, true) => format!("set {key}{interval} dynamic {}", self.size),
            (None, false) => format!("set {key}{interval}"),
        }
    }
}

impl Fake {
    /// A kernel with these interfaces and `lo`, all down, and nothing else.
    pub fn new(interfaces: impl IntoIterator<Item = InterfaceName>) -> Self {
        let fake = Self::default();
        let loopback = InterfaceName::new("lo").ok();
        let all = interfaces.into_iter().chain(loopback).map(|name| (name, false)).collect();
        fake.with(|kernel| kernel.interfaces = all);
        fake
    }

    /// Looks at the kernel, or changes it behind our back.
    pub fn with<T>(&self, look: impl FnOnce(&mut Kernel) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value of an element, as a packet would find it; `None` where there is none.
    pub fn lookup(&self, container: &str, key: &Key) -> Option<Option<Value>> {
        self.with(|kernel| kernel.table.as_ref()?.containers.get(container)?.elements.get(key).cloned())
    }
}

fn refused(doing: impl Into<String>, kind: io::ErrorKind) -> ApplyError {
    ApplyError::Kernel { doing: doing.into(), source: kind.into() }
}

impl Kernel {
    fn need(&self, name: &InterfaceName) -> Result<(), ApplyError> {
        match self.interfaces.contains_key(name) {
            true => Ok(()),
            false => Err(ApplyError::NoSuchInterface(name.clone())),
        }
    }

    fn apply(&mut self, change: &Change) -> Result<(), ApplyError> {
        match change {
            Change::Nft { script } => script::run(script, &mut self.table)?,
            Change::Elements { remove, add } => self.elements(remove, add)?,
            Change::Affinity { add, remove } => self.change_affinity(add, remove)?,
            Change::Kill(which) => {
                let flows = self.flows.iter().filter(|flow| which.matches(flow)).count();
                let is_fast = self.table.as_ref().is_some_and(|table| table.flowtable.is_some());
                if flows > 0 && is_fast && self.keeps_offloaded {
                    return Err(ApplyError::Offloaded { flows });
                }
                self.flows.retain(|flow| !which.matches(flow));
            }
            Change::LinkUp(link) => self.link_up(link)?,
            Change::LinkRemove(name) => self.link_remove(name),
            Change::TunnelSet { interface, tunnel } => self.tunnel_set(interface, tunnel)?,
            Change::TunnelEndpoint { interface, peer, endpoint } => {
                self.need(interface)?;
                let tunnel = self.tunnels.get_mut(interface);
                if let Some(peer) = tunnel.and_then(|tunnel| tunnel.peers.get_mut(peer)) {
                    peer.endpoint = Some(*endpoint);
                }
            }
            Change::AddressAdd(address) => {
                self.need(&address.interface)?;
                self.addresses.insert(address.clone());
            }
            Change::AddressRemove(address) => {
                self.addresses.remove(address);
            }
            Change::RouteReplace(route) => {
                match &route.kind {
                    RouteKind::Onlink { interface, .. } | RouteKind::Via { interface, .. } => {
                        self.need(interface)?;
                    }
                    RouteKind::Prohibit => {}
                }
                self.remove_route(route);
                self.routes.insert(route.clone());
            }
            Change::RouteRemove(route) => self.remove_route(route),
            Change::RuleAdd(rule) => {
                self.rules.insert(rule.clone());
            }
            Change::RuleRemove(rule) => {
                self.rules.remove(rule);
            }
            Change::SysctlSet(sysctl) => {
                self.sysctls.insert(sysctl.path.clone(), sysctl.value.clone());
            }
        }
        self.log.push(change.clone());
        Ok(())
    }

    fn remove_route(&mut self, route: &Route) {
        self.routes.retain(|have| (have.table, have.destination) != (route.table, route.destination));
    }

    fn elements(&mut self, remove: &[Element], add: &[Element]) -> Result<(), ApplyError> {
        let table = self.table.as_mut().ok_or_else(|| refused("change elements", io::ErrorKind::NotFound))?;
        let mut next = table.clone();
        for (element, put) in remove.iter().map(|e| (e, false)).chain(add.iter().map(|e| (e, true))) {
            let container = next.containers.get_mut(&element.container).ok_or_else(|| {
                refused(format!("change elements of {}", element.container), io::ErrorKind::NotFound)
            })?;
            if put {
                container.elements.insert(element.key.clone(), element.value.clone());
            } else {
                container.elements.remove(&element.key);
            }
        }
        script::references(&next).map_err(|why| refused(why, io::ErrorKind::NotFound))?;
        *table = next;
        Ok(())
    }

    fn change_affinity(&mut self, add: &[AffinityEntry], remove: &[AffinityEntry]) -> Result<(), ApplyError> {
        for entry in add.iter().chain(remove) {
            let name = affinity_set(entry.path);
            let known = self.table.as_ref().is_some_and(|table| table.containers.contains_key(&name));
            if !known {
                return Err(refused(format!("change elements of {name}"), io::ErrorKind::NotFound));
            }
        }
        let id = |entry: &AffinityEntry| (entry.path, entry.zone_group, entry.client);
        let gone: BTreeSet<_> = remove.iter().chain(add).map(id).collect();
        self.affinity.retain(|entry| !gone.contains(&id(entry)));
        self.affinity.extend(add.iter().cloned());
        Ok(())
    }

    fn link_up(&mut self, link: &Link) -> Result<(), ApplyError> {
        match &link.kind {
            LinkKind::Uplink => self.need(&link.name)?,
            LinkKind::Bridge { members } => {
                members.iter().try_for_each(|member| self.need(member))?;
                for member in members {
                    self.interfaces.insert(member.clone(), true);
                }
                self.links.insert(link.name.clone(), link.clone());
            }
            LinkKind::Trunk { ports } => {
                ports.keys().try_for_each(|port| self.need(port))?;
                for port in ports.keys() {
                    self.interfaces.insert(port.clone(), true);
                }
                self.links.insert(link.name.clone(), link.clone());
            }
            LinkKind::Vlan { over, .. } => {
                self.need(over)?;
                self.links.insert(link.name.clone(), link.clone());
            }
            LinkKind::Probe { bridge, far, .. } => {
                self.need(bridge)?;
                if self.links.insert(link.name.clone(), link.clone()).is_none() {
                    self.interfaces.insert(far.clone(), false);
                }
            }
            LinkKind::Tunnel => {
                self.links.insert(link.name.clone(), link.clone());
                self.tunnels.entry(link.name.clone()).or_default();
            }
        }
        self.interfaces.insert(link.name.clone(), true);
        Ok(())
    }

    /// Sessions of peers that stay go on. There is no private key to be read: its public half is the one that was asked for.
    fn tunnel_set(&mut self, interface: &InterfaceName, tunnel: &Tunnel) -> Result<(), ApplyError> {
        self.need(interface)?;
        let state = self
            .tunnels
            .get_mut(interface)
            .ok_or_else(|| refused(format!("configure tunnel {interface}"), io::ErrorKind::NotFound))?;
        state.own = Some(tunnel.own.unwrap_or(WireguardKey([1; 32])));
        state.listen_port = tunnel.listen_port;
        state.mark = Some(tunnel.mark);
        state.peers.retain(|key, _| tunnel.peers.contains_key(key));
        for (key, peer) in &tunnel.peers {
            let seen = state.peers.entry(*key).or_default();
            seen.allowed.clone_from(&peer.allowed);
            seen.keepalive = peer.keepalive;
            seen.endpoint = peer.endpoint.or(seen.endpoint);
        }
        Ok(())
    }

    /// As the kernel does, with everything that depends on it.
    fn link_remove(&mut self, name: &InterfaceName) {
        let Some(link) = self.links.remove(name) else { return };
        self.tunnels.remove(name);
        let mut gone = vec![link.name];
        if let LinkKind::Probe { far, .. } = link.kind {
            gone.push(far);
        }
        for name in &gone {
            self.interfaces.remove(name);
            if let Some(devices) = self.table.as_mut().and_then(|table| table.flowtable.as_mut()) {
                devices.remove(name);
            }
            self.addresses.retain(|address| address.interface != *name);
            self.routes.retain(|route| match &route.kind {
                RouteKind::Onlink { interface, .. } | RouteKind::Via { interface, .. } => interface != name,
                RouteKind::Prohibit => true,
            });
        }
    }

    fn observe(&self, sysctls: &[String]) -> Observed {
        let Self { interfaces, links, tunnels, addresses, routes, rules, .. } = self;
        let wanted = sysctls.iter().filter_map(|path| Some((path.clone(), self.sysctls.get(path)?.clone())));
        Observed {
            interfaces: interfaces.clone(),
            links: links.values().cloned().collect(),
            tunnels: tunnels.clone(),
            addresses: addresses.clone(),
            routes: routes.clone(),
            rules: rules.clone(),
            sysctls: wanted.collect(),
            table: self.table.as_ref().map(script::state),
        }
    }
}

impl Table {
    /// As an observation shows it.
    pub fn state(&self) -> TableState {
        script::state(self)
    }
}

impl Dataplane for Fake {
    fn observe(&mut self, sysctls: &[String]) -> Result<Observed, ApplyError> {
        Ok(self.with(|kernel| kernel.observe(sysctls)))
    }

    fn apply(&mut self, changes: &ChangeSet) -> Result<(), ApplyError> {
        changes.changes.iter().try_for_each(|change| self.with(|kernel| kernel.apply(change)))
    }

    fn flows(&mut self) -> Result<Vec<Flow>, ApplyError> {
        let ours = |flow: &&Flow| flow.mark.0 & Mark::OURS != 0;
        Ok(self.with(|kernel| kernel.flows.iter().filter(ours).cloned().collect()))
    }

    fn affinity(&mut self, paths: &[PathIndex]) -> Result<Vec<AffinityEntry>, ApplyError> {
        let wanted = |entry: &&AffinityEntry| paths.contains(&entry.path);
        Ok(self.with(|kernel| kernel.affinity.iter().filter(wanted).cloned().collect()))
    }

    fn neighbours(&mut self, interface: &InterfaceName) -> Result<BTreeMap<IpAddr, MacAddress>, ApplyError> {
        self.with(|kernel| {
            kernel.need(interface)?;
            Ok(kernel.neighbours.get(interface).cloned().unwrap_or_default())
        })
    }
}
