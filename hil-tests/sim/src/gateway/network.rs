//! The network as it should be, and the acts that make the kernel agree.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use seimon_core::migration::ZoneGroup;
use seimon_core::network_plan::{
    AffinityEntry, Change, ChangeSet, Dataplane as _, Element, Generation, NetworkPlan, PathChoice,
    PathIndex, ZoneGroupIndex, canary_element, current_element, diff, real_elements, twin_element, verify,
};
use seimon_plan::{GroupId, PathId, ZoneId};

use crate::ground::{Ground, Mutation};
use crate::town::Choices;

const LEARNT: [&str; 3] = ["real4", "real6", "twin6"];

pub(super) type Trials = BTreeMap<(ZoneId, GroupId), PathId>;

#[derive(Debug, Default)]
pub(super) struct Network {
    choices: Choices,
    /// Of the few who try first.
    trials: Trials,
    compiled: Option<NetworkPlan>,
    verified: Option<NetworkPlan>,
    bindings: BTreeMap<(ZoneId, String, PathId), Ipv4Addr>,
    /// As last seen, to be put back if the table is lost.
    affinity: Vec<AffinityEntry>,
}

fn maim(mutation: Mutation, net: &mut NetworkPlan) {
    let mut cut = |chains: &str, words: &str| {
        for (_, chain) in net.ruleset.chains.iter_mut().filter(|(name, _)| name.starts_with(chains)) {
            chain.rules.retain(|rule| !rule.text.contains(words));
        }
    };
    match mutation {
        Mutation::Affinity => cut("zg_", "@aff_"),
        Mutation::Zones => {
            if let Some(map) = net.ruleset.maps.get("permit4").cloned()
                && let Some(permits) = net.ruleset.maps.get_mut("permit4")
            {
                let froms: Vec<_> = map.elements.keys().filter_map(|key| key.0.first().cloned()).collect();
                for (key, value) in &map.elements {
                    for from in &froms {
                        let mut key = key.clone();
                        key.0[0] = from.clone();
                        permits.elements.entry(key).or_insert_with(|| value.clone());
                    }
                }
            }
        }
        Mutation::Between => {
            if let Some(chain) = net.ruleset.chains.get_mut("between") {
                let all = chain.rules.first().map(|rule| seimon_core::network_plan::Rule {
                    text: "accept".into(),
                    because: rule.because.clone(),
                });
                chain.rules.splice(0..0, all);
            }
        }
        Mutation::None
        | Mutation::EgressVeto
        | Mutation::WindowVeto
        | Mutation::Rollback
        | Mutation::Checkpoint
        | Mutation::BlameService
        | Mutation::ActsFirst
        | Mutation::DiskLies
        | Mutation::Forgets
        | Mutation::Liveness
        | Mutation::Hasty
        | Mutation::Reobserve
        | Mutation::WildClock
        | Mutation::Strict => {}
    }
}

impl Network {
    pub(super) fn begin(
        ground: &mut Ground<'_, '_>,
        choices: Choices,
        trials: Trials,
        generation: Generation,
    ) -> Self {
        let known = ground.lore.compiled.get(&choices).cloned();
        let compiled = known.or_else(|| ground.town.compile(&choices, generation).ok());
        if let Some(compiled) = &compiled {
            ground.lore.compiled.entry(choices.clone()).or_insert_with(|| compiled.clone());
        } else {
            ground.reference.complain(ground.now, "the plan cannot be compiled", format!("{choices:?}"));
        }
        let mut compiled = compiled;
        if let Some(compiled) = &mut compiled {
            maim(ground.mutation, compiled);
        }
        let allocation = &ground.town.allocation;
        let under_way =
            trials.iter().filter_map(|((zone, group), path)| canary_element(allocation, zone, group, path));
        let under_way: Vec<Element> = under_way.collect();
        let mut network = Self { choices, trials, compiled, ..Self::default() };
        under_way.iter().for_each(|element| network.note(element));
        network.adopt(ground);
        network
    }

    /// Takes over what the run before had learnt and the kernel still knows.
    fn adopt(&mut self, ground: &mut Ground<'_, '_>) {
        let Ok(observed) = ground.kernel.observe(&[]) else { return };
        let (Some(table), Some(compiled)) = (observed.table, &mut self.compiled) else { return };
        for name in LEARNT {
            let (Some(map), Some(elements)) = (compiled.ruleset.maps.get_mut(name), table.elements.get(name))
            else {
                continue;
            };
            for (key, value) in elements {
                if let Some(value) = value {
                    map.elements.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        self.refresh_affinity(ground);
    }

    /// True when the kernel then shows what was meant.
    pub(super) fn converge(&mut self, ground: &mut Ground<'_, '_>) -> bool {
        let Some(wanted) = &self.compiled else { return false };
        let sysctls: Vec<String> = wanted.sysctls.iter().map(|sysctl| sysctl.path.clone()).collect();
        let Ok(observed) = ground.kernel.observe(&sysctls) else { return false };
        let changes = diff(&observed, self.verified.as_ref(), wanted);
        if changes.changes.is_empty() && self.verified.is_some() {
            return true;
        }
        let whole =
            |change: &Change| matches!(change, Change::Nft { script } if script.contains("delete table"));
        let affinity_gone = observed.table.is_none() || changes.changes.iter().any(whole);
        if ground.kernel.apply(&changes).is_err() {
            return false;
        }
        if affinity_gone && !self.affinity.is_empty() {
            let put_back = Change::Affinity { add: self.affinity.clone(), remove: Vec::new() };
            if ground.kernel.apply(&ChangeSet { changes: vec![put_back] }).is_err() {
                return false;
            }
        }
        let Ok(observed) = ground.kernel.observe(&sysctls) else { return false };
        let differences = verify(&observed, wanted);
        if differences.is_empty() {
            self.verified = Some(wanted.clone());
            return true;
        }
        let all: Vec<String> = differences.iter().map(ToString::to_string).collect();
        ground.reference.complain(ground.now, "what was applied is not in force", all.join("; "));
        false
    }

    pub(super) fn is_in_force(&self, ground: &mut Ground<'_, '_>) -> bool {
        let Some(wanted) = &self.compiled else { return false };
        let sysctls: Vec<String> = wanted.sysctls.iter().map(|sysctl| sysctl.path.clone()).collect();
        ground.kernel.observe(&sysctls).is_ok_and(|observed| verify(&observed, wanted).is_empty())
    }

    fn existing(&self, wanted: &Element) -> Option<Element> {
        let value = self.compiled.as_ref()?.ruleset.maps.get(&wanted.container)?.elements.get(&wanted.key)?;
        Some(Element { value: Some(value.clone()), ..wanted.clone() })
    }

    fn note(&mut self, element: &Element) {
        for plan in [self.compiled.as_mut(), self.verified.as_mut()].into_iter().flatten() {
            let Some(map) = plan.ruleset.maps.get_mut(&element.container) else { continue };
            match &element.value {
                Some(value) => map.elements.insert(element.key.clone(), value.clone()),
                None => map.elements.remove(&element.key),
            };
        }
    }

    fn replace(&mut self, elements: Vec<Element>, ground: &mut Ground<'_, '_>) -> bool {
        self.exchange(elements, Vec::new(), ground)
    }

    /// In one transaction, in the kernel and in what is meant.
    fn exchange(
        &mut self,
        elements: Vec<Element>,
        unwanted: Vec<Element>,
        ground: &mut Ground<'_, '_>,
    ) -> bool {
        let gone: Vec<Element> = unwanted.iter().filter_map(|element| self.existing(element)).collect();
        let add: Vec<Element> =
            elements.into_iter().filter(|element| self.existing(element).as_ref() != Some(element)).collect();
        if add.is_empty() && gone.is_empty() {
            return true;
        }
        let remove =
            add.iter().filter_map(|element| self.existing(element)).chain(gone.iter().cloned()).collect();
        let change = Change::Elements { remove, add: add.clone() };
        if ground.kernel.apply(&ChangeSet { changes: vec![change] }).is_err() {
            return false;
        }
        add.iter().for_each(|element| self.note(element));
        gone.into_iter().for_each(|element| self.note(&Element { value: None, ..element }));
        true
    }

    pub(super) fn set_current(
        &mut self,
        zone_group: &ZoneGroup,
        path: PathId,
        trial: Option<PathId>,
        ground: &mut Ground<'_, '_>,
    ) -> bool {
        let choice = PathChoice::On(path);
        let (zone, group) = (&zone_group.zone, &zone_group.group);
        let allocation = &ground.town.allocation;
        let Some(current) = current_element(allocation, zone, group, &choice) else { return false };
        let key = (zone.clone(), group.clone());
        let canary = |path: &PathId| canary_element(allocation, zone, group, path);
        let before: Vec<Element> = self.trials.get(&key).and_then(canary).into_iter().collect();
        let now: Vec<Element> = trial.as_ref().and_then(canary).into_iter().collect();
        let unwanted = if now.is_empty() { before } else { Vec::new() };
        if !self.exchange([vec![current], now].concat(), unwanted, ground) {
            return false;
        }
        match trial {
            Some(trial) => self.trials.insert(key.clone(), trial),
            None => self.trials.remove(&key),
        };
        self.choices.insert(key, choice);
        true
    }

    /// In force in the kernel where this is true. `None`: there is no such address.
    pub(super) fn bind(
        &mut self,
        zone: &ZoneId,
        name: &str,
        path: &PathId,
        real: Option<Ipv4Addr>,
        ground: &mut Ground<'_, '_>,
    ) -> bool {
        let key = (zone.clone(), name.to_owned(), path.clone());
        let allocation = &ground.town.allocation;
        let done = match real {
            Some(real) => {
                let elements = real_elements(allocation, zone, name, path, Some(real), None);
                self.replace(
                    elements.into_iter().chain(twin_element(allocation, zone, name)).collect(),
                    ground,
                )
            }
            None => {
                let old = self.bindings.get(&key).copied();
                self.take_out(real_elements(allocation, zone, name, path, old, None), ground)
            }
        };
        if done {
            match real {
                Some(real) => self.bindings.insert(key, real),
                None => self.bindings.remove(&key),
            };
        }
        done
    }

    fn take_out(&mut self, elements: Vec<Element>, ground: &mut Ground<'_, '_>) -> bool {
        let remove: Vec<Element> = elements.iter().filter_map(|element| self.existing(element)).collect();
        if remove.is_empty() {
            return true;
        }
        let change = Change::Elements { remove: remove.clone(), add: Vec::new() };
        if ground.kernel.apply(&ChangeSet { changes: vec![change] }).is_err() {
            return false;
        }
        for element in remove {
            self.note(&Element { value: None, ..element });
        }
        true
    }

    /// Where the kernel sends flows of the name on the path.
    pub(super) fn real_of(&self, zone: &ZoneId, name: &str, path: &PathId) -> Option<IpAddr> {
        self.bindings.get(&(zone.clone(), name.to_owned(), path.clone())).map(|real| IpAddr::V4(*real))
    }

    fn way(
        zone_group: &ZoneGroup,
        path: &PathId,
        ground: &Ground<'_, '_>,
    ) -> Option<(ZoneGroupIndex, PathIndex)> {
        let allocation = &ground.town.allocation;
        let index = allocation.zone_groups.get(&(zone_group.zone.clone(), zone_group.group.clone()))?;
        Some((*index, *allocation.paths.get(path)?))
    }

    pub(super) fn clients(
        &self,
        zone_group: &ZoneGroup,
        path: &PathId,
        ground: &Ground<'_, '_>,
    ) -> Option<u32> {
        let (index, way) = Self::way(zone_group, path, ground)?;
        Some(ground.kernel.clients(index, way))
    }

    pub(super) fn forget_affinity(
        &mut self,
        zone_group: &ZoneGroup,
        path: &PathId,
        ground: &mut Ground<'_, '_>,
    ) {
        let Some((index, way)) = Self::way(zone_group, path, ground) else { return };
        self.refresh_affinity(ground);
        let is_meant = |entry: &AffinityEntry| entry.zone_group == index && entry.path == way;
        let remove: Vec<AffinityEntry> = self.affinity.iter().filter(|e| is_meant(e)).cloned().collect();
        let change = Change::Affinity { add: Vec::new(), remove };
        if ground.kernel.apply(&ChangeSet { changes: vec![change] }).is_ok() {
            self.affinity.retain(|entry| !is_meant(entry));
        }
    }

    pub(super) fn refresh_affinity(&mut self, ground: &mut Ground<'_, '_>) {
        let paths: Vec<PathIndex> =
            ground.town.allocation.paths.values().copied().chain([PathIndex::BY_IPV4]).collect();
        if ground.kernel.has_table()
            && let Ok(affinity) = ground.kernel.affinity(&paths)
        {
            self.affinity = affinity;
        }
    }
}
