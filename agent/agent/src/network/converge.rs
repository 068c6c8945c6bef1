//! Making the kernel agree with the plan, and seeing whether it does.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use seimon_board::{Instant, InterfaceName};
use seimon_core::network_plan::{
    ApplyError, ChainKind, Change, ChangeSet, Dataplane, FlowKill, Link, LinkKind, NetworkPlan, Observed,
    RouteKind, diff, end_flows, render_replacement, verify,
};
use seimon_core::segmentation::ended;

use super::{Convergence, Fast, Network};

impl Network {
    /// Makes the kernel agree with the plan and looks again. Nothing is touched where nothing differs.
    pub(crate) fn converge(&mut self, now: Instant) -> Result<Convergence> {
        let outcome = self.try_converge(now);
        if let Err(error) = &outcome {
            self.problems = vec![format!("{error:#}")];
        }
        outcome
    }

    fn try_converge(&mut self, now: Instant) -> Result<Convergence> {
        self.resume_rotation(now);
        self.ground_tunnels();
        let observed = self.observe()?;
        let mut wanted = self.possible(&observed);
        let table_was_lost = self.verified.is_some() && observed.table.is_none();
        let changes = if self.was_edited(&observed, &wanted) {
            // As if there were none: it is made anew as a whole.
            diff(&Observed { table: None, ..observed.clone() }, self.verified.as_ref(), &wanted)
        } else {
            diff(&observed, self.verified.as_ref(), &wanted)
        };
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
        let mut outcome = self.dataplane.apply(&changes);
        while let Err(ApplyError::Tunnel { interface, why }) = outcome {
            // The others go on without it.
            self.tunnels.unusable.insert(interface, why);
            let observed = self.observe()?;
            wanted = self.possible(&observed);
            outcome = self.dataplane.apply(&diff(&observed, self.verified.as_ref(), &wanted));
        }
        match outcome {
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
        // Another plan, or the first that this process carries out: what it does not permit ends, be it under way.
        if self.verified.as_ref().is_none_or(|before| before.generation != wanted.generation) {
            self.end_what_is_not_permitted(&wanted)?;
        }
        if affinity_gone && !self.affinity.is_empty() {
            let restored = Change::Affinity { add: self.affinity.clone(), remove: Vec::new() };
            self.dataplane.apply(&ChangeSet { changes: vec![restored] })?;
        }
        // Same plan, and yet there was something to change: somebody else had changed it. Links of the probe's vanish with
        // the probe, and a tunnel with the process that carries it.
        let by_others = changes.changes.iter().any(|change| !is_probe_link(change))
            && !changes.changes.iter().any(is_tunnel);
        if by_others && (table_was_lost || self.verified.as_ref() == Some(&wanted)) {
            self.repairs += 1;
        }
        let observed = self.observe()?;
        self.digests = digests(&observed);
        self.settle(&observed, &wanted, now)?;
        Ok(Convergence::Changed)
    }

    fn end_what_is_not_permitted(&mut self, wanted: &NetworkPlan) -> Result<()> {
        let flows = self.dataplane.flows()?;
        let ids = ended(&self.plan, wanted, &flows);
        if ids.is_empty() {
            return Ok(());
        }
        tracing::info!(flows = ids.len(), "flows end that the plan does not permit any more");
        let kill = FlowKill { ids: Some(ids), ..FlowKill::default() };
        Ok(end_flows(&mut self.dataplane, &wanted.ruleset, &kill)?)
    }

    fn settle(&mut self, observed: &Observed, wanted: &NetworkPlan, now: Instant) -> Result<()> {
        let differences: Vec<String> = verify(observed, wanted).iter().map(ToString::to_string).collect();
        if !differences.is_empty() {
            self.problems.clone_from(&differences);
            anyhow::bail!("the kernel does not show what was set: {}", differences.join("; "))
        }
        self.problems =
            self.missing.iter().map(|name| ApplyError::NoSuchInterface(name.clone()).to_string()).collect();
        self.problems.extend(self.tunnels.unusable.iter().map(|(name, why)| format!("tunnel {name}: {why}")));
        self.note_tunnels(observed, now);
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

    /// The plan without tunnels that cannot be had, and lines whose interface is not there: the other lines are not to suffer for it. The kernel tells when
    /// it comes.
    fn possible(&mut self, observed: &Observed) -> NetworkPlan {
        let there = |name: &InterfaceName| observed.interfaces.contains_key(name);
        self.missing = self
            .compiled
            .links
            .iter()
            .filter(|link| matches!(link.kind, LinkKind::Uplink) && !there(&link.name))
            .map(|link| link.name.clone())
            .collect();
        let lost = self.missing.iter().chain(self.tunnels.unusable.keys()).cloned().collect();
        let mut plan = without(&self.compiled, &lost);
        if self.fast == Fast::No {
            plan.ruleset = plan.ruleset.without_flowtable();
        }
        // nft refuses a whole table for a port that is not there.
        plan.ruleset.chains.retain(|_, chain| match &chain.kind {
            ChainKind::Ingress { port } => there(port),
            ChainKind::Base { .. } | ChainKind::Regular => true,
        });
        plan
    }
}

/// The plan without everything that these interfaces would carry.
pub(crate) fn without(plan: &NetworkPlan, lost: &BTreeSet<InterfaceName>) -> NetworkPlan {
    let mut plan = plan.clone();
    plan.tunnels.retain(|name, _| !lost.contains(name));
    if let Some(flowtable) = &mut plan.ruleset.flowtable {
        flowtable.devices.retain(|name| !lost.contains(name));
    }
    plan.links.retain(|link| !lost.contains(&link.name));
    plan.addresses.retain(|address| !lost.contains(&address.interface));
    plan.routes.retain(|route| match &route.kind {
        RouteKind::Onlink { interface, .. } | RouteKind::Via { interface, .. } => !lost.contains(interface),
        RouteKind::Prohibit => true,
    });
    plan.sysctls.retain(|sysctl| !lost.iter().any(|name| sysctl.path.contains(&format!("/conf/{name}/"))));
    plan
}

pub(crate) fn digests(observed: &Observed) -> BTreeMap<String, String> {
    let Some(table) = &observed.table else { return BTreeMap::new() };
    table.chains.iter().map(|(name, chain)| (name.clone(), chain.digest.clone())).collect()
}

fn is_probe_link(change: &Change) -> bool {
    matches!(change, Change::LinkUp(Link { kind: LinkKind::Probe { .. }, .. }))
}

fn is_tunnel(change: &Change) -> bool {
    matches!(change, Change::LinkUp(Link { kind: LinkKind::Tunnel, .. }))
}

/// A change in words, for logs and `plan diff`.
pub(crate) fn describe(change: &Change) -> String {
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
        Change::TunnelSet { interface, .. } => format!("tunnel {interface} configured"),
        Change::TunnelEndpoint { interface, endpoint, .. } => format!("tunnel {interface} to {endpoint}"),
        Change::AddressAdd(address) => format!("address {} on {}", address.address, address.interface),
        Change::AddressRemove(address) => format!("address {} off {}", address.address, address.interface),
        Change::RouteReplace(route) => format!("route {} in table {}", route.destination, route.table),
        Change::RouteRemove(route) => format!("route {} out of table {}", route.destination, route.table),
        Change::RuleAdd(rule) => format!("rule at {}", rule.priority),
        Change::RuleRemove(rule) => format!("rule at {} removed", rule.priority),
        Change::SysctlSet(sysctl) => format!("{} = {}", sysctl.path, sysctl.value),
    }
}
