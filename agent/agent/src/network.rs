//! The network as it should be, and the acts that make the kernel agree: converge, move a group, bind an address.
//!
//! The plan's run-time maps always hold what is meant *now*, so that a table which somebody else destroyed is rebuilt with the
//! path choice and the addresses of the moment, not with those of the start.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use seimon_board::{Instant, InterfaceName, MacAddress};
use seimon_core::network_plan::{
    AffinityEntry, Allocation, ApplyError, Change, ChangeSet, Dataplane, Element, Flow, FlowKill, Generation,
    Link, LinkKind, NetworkPlan, Observed, PathChoice, PathIndex, RouteKind, ZoneGroupIndex, compile,
    current_element, diff, gateway_element, real_elements, render_replacement, twin_element, verify,
};
use seimon_dataplane::Linux;
use seimon_plan::{GroupId, PathId, ValidSitePlan, ZoneId};

use crate::sabotage::Sabotage;

pub(crate) type Choices = BTreeMap<(ZoneId, GroupId), PathChoice>;

/// Run-time maps that hold what the resolver has found out. (`current` follows the choices.)
const LEARNT: [&str; 3] = ["real4", "real6", "twin6"];

/// Where a name is on a path.
pub(crate) type Bindings = BTreeMap<(ZoneId, String, PathId), (Option<Ipv4Addr>, Option<Ipv6Addr>)>;

/// Everything needed to compile, kept together so that the kernel's state can be derived anew at any time.
#[derive(Debug)]
pub(crate) struct Network {
    dataplane: Linux,
    plan: ValidSitePlan,
    allocation: Allocation,
    choices: Choices,
    gateway_path: PathId,
    bindings: Bindings,
    compiled: NetworkPlan,
    /// The plan that the kernel was last seen to agree with.
    verified: Option<NetworkPlan>,
    verified_at: Option<Instant>,
    problems: Vec<String>,
    missing: Vec<InterfaceName>,
    /// Of every chain's rules, as the kernel read them back after our last change.
    digests: BTreeMap<String, String>,
    /// Clients' affinity as last seen, to be put back if the table is lost.
    affinity: Vec<AffinityEntry>,
    repairs: u64,
    sabotage: Sabotage,
}

/// How the kernel compares with the plan.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Convergence {
    /// It was as it should be.
    InForce,
    /// It was made so.
    Changed,
}

impl Network {
    pub(crate) fn new(
        dataplane: Linux,
        plan: ValidSitePlan,
        allocation: &Allocation,
        choices: Choices,
        generation: Generation,
        wall: Timestamp,
        sabotage: Sabotage,
    ) -> Result<Self> {
        let allocation = allocation.extend(&plan).context("numbers for the plan")?;
        let gateway_path = first_gateway_path(&plan)?;
        let in_force = plan.in_force_at(wall);
        let mut compiled = compile(&in_force, &allocation, &choices, None, generation)
            .context("the plan cannot be made into a network")?;
        sabotage.maim(&mut compiled);
        Ok(Self {
            dataplane,
            plan,
            allocation,
            choices,
            gateway_path,
            bindings: Bindings::new(),
            compiled,
            verified: None,
            verified_at: None,
            problems: Vec::new(),
            missing: Vec::new(),
            digests: BTreeMap::new(),
            affinity: Vec::new(),
            repairs: 0,
            sabotage,
        })
    }

    pub(crate) fn plan(&self) -> &ValidSitePlan {
        &self.plan
    }

    pub(crate) fn allocation(&self) -> &Allocation {
        &self.allocation
    }

    pub(crate) fn choices(&self) -> &Choices {
        &self.choices
    }

    pub(crate) fn compiled(&self) -> &NetworkPlan {
        &self.compiled
    }

    pub(crate) fn generation(&self) -> Generation {
        self.compiled.generation
    }

    pub(crate) fn repairs(&self) -> u64 {
        self.repairs
    }

    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// What the kernel was last seen to have is what it should have, lines that do not exist aside.
    pub(crate) fn is_verified(&self) -> bool {
        self.verified_at.is_some() && self.problems.len() == self.missing.len()
    }

    pub(crate) fn verified_at(&self) -> Option<Instant> {
        self.verified_at
    }

    fn observe(&mut self) -> Result<Observed> {
        let sysctls: Vec<String> = self.compiled.sysctls.iter().map(|sysctl| sysctl.path.clone()).collect();
        Ok(self.dataplane.observe(&sysctls)?)
    }

    /// Takes over what an earlier run of the agent had learnt and the kernel still knows: where names are on which path.
    pub(crate) fn adopt(&mut self) -> Result<()> {
        let observed = self.observe()?;
        let Some(table) = observed.table else { return Ok(()) };
        for name in LEARNT {
            let (Some(map), Some(elements)) =
                (self.compiled.ruleset.maps.get_mut(name), table.elements.get(name))
            else {
                continue;
            };
            for (key, value) in elements {
                if let Some(value) = value {
                    map.elements.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        self.refresh_affinity()?;
        Ok(())
    }

    /// Makes the kernel agree with the plan and looks again. Nothing is touched where nothing differs.
    pub(crate) fn converge(&mut self, now: Instant) -> Result<Convergence> {
        let outcome = self.try_converge(now);
        if let Err(error) = &outcome {
            self.problems = vec![format!("{error:#}")];
        }
        outcome
    }

    fn try_converge(&mut self, now: Instant) -> Result<Convergence> {
        let observed = self.observe()?;
        let wanted = self.possible(&observed);
        let table_was_lost = self.verified.is_some() && observed.table.is_none();
        let mut changes = diff(&observed, self.verified.as_ref(), &wanted);
        if self.was_edited(&observed, &wanted) {
            let script = render_replacement(&wanted.ruleset);
            changes.changes.insert(0, Change::Nft { script });
        }
        if changes.changes.is_empty() {
            self.settle(&observed, &wanted, now)?;
            return Ok(Convergence::InForce);
        }
        let summary: Vec<String> = changes.changes.iter().map(describe).collect();
        let rest = if summary.len() > 4 { ", …" } else { "" };
        tracing::info!(
            changes = summary.len(),
            "changing the network: {}{rest}",
            summary[..summary.len().min(4)].join("; ")
        );
        tracing::debug!("all changes: {}", summary.join("; "));
        let mut affinity_gone =
            observed.table.is_none() || summary.iter().any(|line| line.starts_with("whole table"));
        match self.dataplane.apply(&changes) {
            Ok(()) => {}
            // What is there is not what the difference was made for: one whole table fits everything.
            Err(ApplyError::NftRefused { message }) if observed.table.is_some() => {
                tracing::warn!(message, "the difference was refused, the whole table is made anew");
                let script = render_replacement(&wanted.ruleset);
                self.dataplane.apply(&ChangeSet { changes: vec![Change::Nft { script }] })?;
                affinity_gone = true;
                let rest = diff(&self.observe()?, None, &wanted);
                self.dataplane.apply(&rest)?;
            }
            Err(error) => return Err(error.into()),
        }
        if affinity_gone && !self.affinity.is_empty() {
            let restored = Change::Affinity { add: self.affinity.clone(), remove: Vec::new() };
            self.dataplane.apply(&ChangeSet { changes: vec![restored] })?;
        }
        // Same plan, and yet there was something to change: somebody else had changed it. Links of the probe's vanish with
        // the probe.
        let by_others = changes.changes.iter().any(|change| !is_probe_link(change));
        if by_others && (table_was_lost || self.verified.as_ref() == Some(&wanted)) {
            self.repairs += 1;
        }
        let observed = self.observe()?;
        self.digests = digests(&observed);
        self.settle(&observed, &wanted, now)?;
        Ok(Convergence::Changed)
    }

    fn settle(&mut self, observed: &Observed, wanted: &NetworkPlan, now: Instant) -> Result<()> {
        let differences: Vec<String> = verify(observed, wanted).iter().map(ToString::to_string).collect();
        if !differences.is_empty() {
            self.problems.clone_from(&differences);
            anyhow::bail!("the kernel does not show what was set: {}", differences.join("; "))
        }
        self.problems =
            self.missing.iter().map(|name| ApplyError::NoSuchInterface(name.clone()).to_string()).collect();
        if self.digests.is_empty() {
            self.digests = digests(observed);
        }
        self.verified = Some(wanted.clone());
        self.verified_at = Some(now);
        Ok(())
    }

    /// Somebody changed a rule of ours and left its tag on.
    fn was_edited(&self, observed: &Observed, wanted: &NetworkPlan) -> bool {
        let same_rules = self.verified.as_ref().is_some_and(|v| v.ruleset.chains == wanted.ruleset.chains);
        same_rules
            && observed.table.is_some()
            && !self.digests.is_empty()
            && self.digests != digests(observed)
    }

    /// The plan without lines whose interface is not there: the other lines are not to suffer for it. The kernel tells when
    /// it comes.
    fn possible(&mut self, observed: &Observed) -> NetworkPlan {
        let there = |name: &InterfaceName| observed.interfaces.contains_key(name);
        let mut plan = self.compiled.clone();
        self.missing = plan
            .links
            .iter()
            .filter(|link| matches!(link.kind, LinkKind::Uplink) && !there(&link.name))
            .map(|link| link.name.clone())
            .collect();
        let lost = |name: &InterfaceName| self.missing.contains(name);
        plan.links.retain(|link| !lost(&link.name));
        plan.addresses.retain(|address| !lost(&address.interface));
        plan.routes.retain(|route| match &route.kind {
            RouteKind::Onlink { interface, .. } | RouteKind::Via { interface, .. } => !lost(interface),
            RouteKind::Prohibit => true,
        });
        plan.sysctls.retain(|sysctl| {
            !self.missing.iter().any(|name| sysctl.path.contains(&format!("/conf/{name}/")))
        });
        plan
    }

    /// Uplinks of the plan that do not exist.
    pub(crate) fn missing(&self) -> &[InterfaceName] {
        &self.missing
    }

    /// Compiles another plan; the kernel is changed by the next [`Self::converge`]. On an error nothing has changed.
    pub(crate) fn adopt_plan(
        &mut self,
        plan: ValidSitePlan,
        choices: Choices,
        wall: Timestamp,
    ) -> Result<()> {
        let allocation = self.allocation.extend(&plan).context("numbers for the plan")?;
        let gateway_path = first_gateway_path(&plan)?;
        let parent = self.compiled.generation;
        let mut compiled =
            compile(&plan.in_force_at(wall), &allocation, &choices, Some(parent), Generation(parent.0 + 1))
                .context("the plan cannot be made into a network")?;
        self.sabotage.maim(&mut compiled);
        // Inside addresses outlive generations, and so does what is known of them.
        for name in LEARNT {
            if let (Some(new), Some(old)) =
                (compiled.ruleset.maps.get_mut(name), self.compiled.ruleset.maps.get(name))
            {
                new.elements.clone_from(&old.elements);
            }
        }
        self.plan = plan;
        self.allocation = allocation;
        self.choices = choices;
        self.gateway_path = gateway_path;
        self.compiled = compiled;
        self.fill_runtime_maps();
        Ok(())
    }

    /// What another plan would change in the kernel, in words; nothing is changed.
    pub(crate) fn preview(
        &mut self,
        plan: &ValidSitePlan,
        choices: &Choices,
        wall: Timestamp,
    ) -> Result<Vec<String>> {
        let allocation = self.allocation.extend(plan).context("numbers for the plan")?;
        let parent = self.compiled.generation;
        let mut compiled =
            compile(&plan.in_force_at(wall), &allocation, choices, Some(parent), Generation(parent.0 + 1))
                .context("the plan cannot be made into a network")?;
        for (name, map) in &mut compiled.ruleset.maps {
            if let Some(current) = self.compiled.ruleset.maps.get(name)
                && LEARNT.contains(&name.as_str())
            {
                map.elements.clone_from(&current.elements);
            }
        }
        let observed = self.observe()?;
        Ok(diff(&observed, self.verified.as_ref(), &compiled).changes.iter().map(describe).collect())
    }

    /// A permit's last day has passed (or a new day begun): compile anew. True if that changes anything.
    pub(crate) fn new_day(&mut self, wall: Timestamp) -> Result<bool> {
        let generation = self.compiled.generation;
        let in_force = self.plan.in_force_at(wall);
        let mut compiled =
            compile(&in_force, &self.allocation, &self.choices, self.compiled.parent, generation)?;
        self.sabotage.maim(&mut compiled);
        for (name, map) in &mut compiled.ruleset.maps {
            if map.runtime
                && let Some(current) = self.compiled.ruleset.maps.get(name)
            {
                map.elements.clone_from(&current.elements);
            }
        }
        if compiled.ruleset == self.compiled.ruleset {
            return Ok(false);
        }
        compiled.generation = Generation(generation.0 + 1);
        compiled.parent = Some(generation);
        self.compiled = compiled;
        Ok(true)
    }

    fn fill_runtime_maps(&mut self) {
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

    pub(crate) fn flows(&mut self) -> Result<Vec<Flow>> {
        Ok(self.dataplane.flows()?)
    }

    pub(crate) fn neighbours(&mut self, interface: &InterfaceName) -> Result<BTreeMap<IpAddr, MacAddress>> {
        Ok(self.dataplane.neighbours(interface)?)
    }

    pub(crate) fn dataplane(&mut self) -> &mut Linux {
        &mut self.dataplane
    }

    /// Names of the interfaces that carry the zones.
    pub(crate) fn bridges(&self) -> Vec<InterfaceName> {
        self.compiled
            .links
            .iter()
            .filter(|link| matches!(link.kind, LinkKind::Bridge { .. }))
            .map(|link| link.name.clone())
            .collect()
    }

    /// Probe links, made anew: their far ends died with the probe that had them, or are about to.
    pub(crate) fn remove_probe_links(&mut self) -> Result<()> {
        let observed = self.observe()?;
        let ours: BTreeSet<&InterfaceName> = self.probe_links().map(|link| &link.name).collect();
        let changes = observed
            .interfaces
            .keys()
            .filter(|name| ours.contains(name))
            .map(|name| Change::LinkRemove((*name).clone()))
            .collect();
        Ok(self.dataplane.apply(&ChangeSet { changes })?)
    }

    fn probe_links(&self) -> impl Iterator<Item = &Link> {
        self.compiled.links.iter().filter(|link| matches!(link.kind, LinkKind::Probe { .. }))
    }

    /// Hands the probe's far ends to the network namespace of process `pid`.
    pub(crate) fn hand_over_probe_links(&mut self, pid: u32) -> Result<()> {
        let fars: Vec<InterfaceName> = self
            .compiled
            .links
            .iter()
            .filter_map(|link| match &link.kind {
                LinkKind::Probe { far, .. } => Some(far.clone()),
                LinkKind::Uplink | LinkKind::Bridge { .. } => None,
            })
            .collect();
        for far in fars {
            self.dataplane
                .move_link_to_process(&far, pid)
                .with_context(|| format!("handing {far} to the probe"))?;
        }
        Ok(())
    }
}

fn first_gateway_path(plan: &ValidSitePlan) -> Result<PathId> {
    plan.gateway.paths.first().cloned().context("the plan gives the gateway's own traffic no path")
}

fn digests(observed: &Observed) -> BTreeMap<String, String> {
    let Some(table) = &observed.table else { return BTreeMap::new() };
    table.chains.iter().map(|(name, chain)| (name.clone(), chain.digest.clone())).collect()
}

fn is_probe_link(change: &Change) -> bool {
    matches!(change, Change::LinkUp(Link { kind: LinkKind::Probe { .. }, .. }))
}

/// A change in words, for logs and `plan diff`.
fn describe(change: &Change) -> String {
    match change {
        Change::Nft { script } if script.contains("delete table inet seimon") => {
            "whole table anew".to_owned()
        }
        Change::Nft { script } => format!("rules ({} lines)", script.lines().count()),
        Change::Elements { remove, add } => format!("elements (-{} +{})", remove.len(), add.len()),
        Change::Affinity { add, remove } => format!("affinity (-{} +{})", remove.len(), add.len()),
        Change::Kill(_) => "flows ended".to_owned(),
        Change::LinkUp(link) => format!("interface {}", link.name),
        Change::LinkRemove(name) => format!("interface {name} removed"),
        Change::AddressAdd(address) => format!("address {} on {}", address.address, address.interface),
        Change::AddressRemove(address) => format!("address {} off {}", address.address, address.interface),
        Change::RouteReplace(route) => format!("route {} in table {}", route.destination, route.table),
        Change::RouteRemove(route) => format!("route {} out of table {}", route.destination, route.table),
        Change::RuleAdd(rule) => format!("rule at {}", rule.priority),
        Change::RuleRemove(rule) => format!("rule at {} removed", rule.priority),
        Change::SysctlSet(sysctl) => format!("{} = {}", sysctl.path, sysctl.value),
    }
}
