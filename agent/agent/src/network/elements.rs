//! What changes while a plan is in force, one transaction each: the path of a group, the place of a name, affinity, flows.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use seimon_core::network_plan::{
    AffinityEntry, Change, ChangeSet, Dataplane, Element, FlowKill, PathChoice, PathIndex, ZoneGroupIndex,
    canary_element, current_element, end_flows, gateway_element, real_elements, twin_element,
};
use seimon_plan::{GroupId, PathId, ZoneId};

use super::{Network, Trials};

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
            .chain(
                self.trials
                    .iter()
                    .filter_map(|((zone, group), path)| canary_element(allocation, zone, group, path)),
            )
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

    /// An element or two in one transaction: new flows of the group in the zone take another way from now on, those of the
    /// plan's canary clients `trial`.
    pub(crate) fn set_current(
        &mut self,
        zone: &ZoneId,
        group: &GroupId,
        choice: PathChoice,
        trial: Option<PathId>,
    ) -> Result<()> {
        let number = || format!("{zone}/{group} has no number");
        let current = current_element(&self.allocation, zone, group, &choice).with_context(number)?;
        let key = (zone.clone(), group.clone());
        let before =
            self.trials.get(&key).and_then(|path| canary_element(&self.allocation, zone, group, path));
        match &trial {
            Some(path) => {
                let canary = canary_element(&self.allocation, zone, group, path).with_context(number)?;
                self.replace(vec![current, canary])?;
                self.trials.insert(key.clone(), path.clone());
            }
            None => {
                self.exchange(vec![current], before.into_iter().collect())?;
                self.trials.remove(&key);
            }
        }
        self.choices.insert(key, choice);
        Ok(())
    }

    /// Of the groups whose canary was under way when the agent was last running. Before the first converge.
    pub(crate) fn set_trials(&mut self, trials: Trials) {
        self.trials = trials;
        self.fill_runtime_maps();
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
        self.exchange(elements, Vec::new())
    }

    /// Elements of run-time maps put in and taken out in one transaction, in the kernel and in what is meant.
    fn exchange(&mut self, wanted: Vec<Element>, unwanted: Vec<Element>) -> Result<()> {
        let add: Vec<Element> = wanted.into_iter().filter(|e| self.existing(e).as_ref() != Some(e)).collect();
        let gone: Vec<Element> = unwanted.iter().filter_map(|element| self.existing(element)).collect();
        if add.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let remove =
            add.iter().filter_map(|element| self.existing(element)).chain(gone.iter().cloned()).collect();
        self.dataplane.apply(&ChangeSet { changes: vec![Change::Elements { remove, add: add.clone() }] })?;
        // What was seen to be in force has changed with our own act.
        for plan in [Some(&mut self.compiled), self.verified.as_mut()].into_iter().flatten() {
            for element in &add {
                if let (Some(map), Some(value)) =
                    (plan.ruleset.maps.get_mut(&element.container), element.value.clone())
                {
                    map.elements.insert(element.key.clone(), value);
                }
            }
            for element in &gone {
                if let Some(map) = plan.ruleset.maps.get_mut(&element.container) {
                    map.elements.remove(&element.key);
                }
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

    fn take_out(&mut self, elements: Vec<Element>) -> Result<()> {
        self.exchange(Vec::new(), elements)
    }

    pub(crate) fn kill_flows(&mut self, kill: FlowKill) -> Result<()> {
        let in_force = self.verified.as_ref().unwrap_or(&self.compiled);
        Ok(end_flows(&mut self.dataplane, &in_force.ruleset, &kill)?)
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
