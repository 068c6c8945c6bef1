//! What changes while a plan is in force, one transaction each: the path of a group, the place of a name, affinity, flows.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use seimon_core::network_plan::{
    AffinityEntry, Change, ChangeSet, Dataplane, Element, FlowKill, PathChoice, PathIndex, ZoneGroupIndex,
    current_element, gateway_element, real_elements, twin_element,
};
use seimon_plan::{GroupId, PathId, ZoneId};

use super::Network;

impl Network {
    pub(super) fn fill_runtime_maps(&mut self) {
        let allocation = &self.allocation;
        let elements: Vec<Element> = self
            .bindings
            .iter()
            .flat_map(|((zone, name, path), (ipv4, ipv6))| {
                real_elements(allocation, zone, name, path, *ipv4, *ipv6)
            })
            .chain(gateway_element(allocation, &self.gateway_path))
            .collect();
        for element in elements {
            self.note(element);
        }
    }

    fn note(&mut self, element: Element) {
        if let (Some(map), Some(value)) =
            (self.compiled.ruleset.maps.get_mut(&element.container), element.value)
        {
            map.elements.insert(element.key, value);
        }
    }

    fn existing(&self, wanted: &Element) -> Option<Element> {
        let value = self.compiled.ruleset.maps.get(&wanted.container)?.elements.get(&wanted.key)?;
        Some(Element {
            container: wanted.container.clone(),
            key: wanted.key.clone(),
            value: Some(value.clone()),
        })
    }

    /// One element in one transaction: new flows of the group in the zone take another way from now on.
    pub(crate) fn set_current(&mut self, zone: &ZoneId, group: &GroupId, choice: PathChoice) -> Result<()> {
        let element = current_element(&self.allocation, zone, group, &choice)
            .with_context(|| format!("{zone}/{group} has no number"))?;
        self.replace(vec![element])?;
        self.choices.insert((zone.clone(), group.clone()), choice);
        Ok(())
    }

    /// The path of the gateway's own traffic.
    pub(crate) fn set_gateway_path(&mut self, path: &PathId) -> Result<()> {
        if self.gateway_path == *path {
            return Ok(());
        }
        let element =
            gateway_element(&self.allocation, path).with_context(|| format!("path {path} has no number"))?;
        self.replace(vec![element])?;
        self.gateway_path = path.clone();
        Ok(())
    }

    fn replace(&mut self, elements: Vec<Element>) -> Result<()> {
        let add: Vec<Element> =
            elements.into_iter().filter(|e| self.existing(e).as_ref() != Some(e)).collect();
        if add.is_empty() {
            return Ok(());
        }
        let remove = add.iter().filter_map(|element| self.existing(element)).collect();
        self.dataplane.apply(&ChangeSet { changes: vec![Change::Elements { remove, add: add.clone() }] })?;
        for element in add {
            self.note(element.clone());
            // What was seen to be in force has changed with our own act.
            if let Some(verified) = &mut self.verified
                && let (Some(map), Some(value)) =
                    (verified.ruleset.maps.get_mut(&element.container), element.value)
            {
                map.elements.insert(element.key, value);
            }
        }
        Ok(())
    }

    /// Where `name` is on `path`; in force in the kernel when this returns.
    pub(crate) fn bind(
        &mut self,
        zone: &ZoneId,
        name: &str,
        path: &PathId,
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
    ) -> Result<()> {
        let wanted = real_elements(&self.allocation, zone, name, path, ipv4, ipv6);
        anyhow::ensure!(
            !wanted.is_empty() || (ipv4.is_none() && ipv6.is_none()),
            "{name} has no inside address in zone {zone}"
        );
        let key = (zone.clone(), name.to_owned(), path.clone());
        let (old4, old6) = self.bindings.get(&key).copied().unwrap_or_default();
        let gone = real_elements(
            &self.allocation,
            zone,
            name,
            path,
            old4.filter(|_| ipv4.is_none()),
            old6.filter(|_| ipv6.is_none()),
        );
        self.take_out(gone)?;
        self.replace(wanted)?;
        self.bindings.insert(key, (ipv4, ipv6));
        self.keep_twin(zone, name)
    }

    /// Whether clients may be held to IPv4 for this name: only while it has such an address.
    fn keep_twin(&mut self, zone: &ZoneId, name: &str) -> Result<()> {
        let Some(element) = twin_element(&self.allocation, zone, name) else { return Ok(()) };
        let by_ipv4 =
            self.bindings.iter().any(|((z, n, _), (ipv4, _))| z == zone && n == name && ipv4.is_some());
        if by_ipv4 { self.replace(vec![element]) } else { self.take_out(vec![element]) }
    }

    /// Elements of run-time maps taken out, in the kernel and in what is meant.
    fn take_out(&mut self, elements: Vec<Element>) -> Result<()> {
        let remove: Vec<Element> = elements.iter().filter_map(|element| self.existing(element)).collect();
        if remove.is_empty() {
            return Ok(());
        }
        let change = Change::Elements { remove: remove.clone(), add: Vec::new() };
        self.dataplane.apply(&ChangeSet { changes: vec![change] })?;
        for element in remove {
            for plan in [Some(&mut self.compiled), self.verified.as_mut()].into_iter().flatten() {
                if let Some(map) = plan.ruleset.maps.get_mut(&element.container) {
                    map.elements.remove(&element.key);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn kill_flows(&mut self, kill: FlowKill) -> Result<()> {
        Ok(self.dataplane.apply(&ChangeSet { changes: vec![Change::Kill(kill)] })?)
    }

    /// Forgets that clients of the zone-group use the path.
    pub(crate) fn forget_affinity(&mut self, zone_group: ZoneGroupIndex, path: PathIndex) -> Result<usize> {
        self.refresh_affinity()?;
        let remove: Vec<AffinityEntry> = self
            .affinity
            .iter()
            .filter(|entry| entry.zone_group == zone_group && entry.path == path)
            .cloned()
            .collect();
        let count = remove.len();
        if count > 0 {
            self.dataplane
                .apply(&ChangeSet { changes: vec![Change::Affinity { add: Vec::new(), remove }] })?;
            self.affinity.retain(|entry| entry.zone_group != zone_group || entry.path != path);
        }
        Ok(count)
    }

    pub(crate) fn keep_affinity(&mut self, entries: Vec<AffinityEntry>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        Ok(self
            .dataplane
            .apply(&ChangeSet { changes: vec![Change::Affinity { add: entries, remove: Vec::new() }] })?)
    }

    pub(crate) fn refresh_affinity(&mut self) -> Result<&[AffinityEntry]> {
        let paths: Vec<PathIndex> =
            self.allocation.paths.values().copied().chain([PathIndex::BY_IPV4]).collect();
        self.affinity = self.dataplane.affinity(&paths)?;
        Ok(&self.affinity)
    }
}
