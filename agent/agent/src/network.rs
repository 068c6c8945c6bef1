//! The network as it should be, and the acts that make the kernel agree: converge, move a group, bind an address.
//!
//! The plan's run-time maps always hold what is meant *now*, so that a table which somebody else destroyed is rebuilt with the
//! path choice and the addresses of the moment, not with those of the start.

mod converge;
mod elements;
mod rotation;
mod tunnels;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use seimon_board::{Instant, InterfaceName, MacAddress};
use seimon_core::network_plan::{
    AffinityEntry, Allocation, Change, ChangeSet, Dataplane, Flow, Generation, Link, LinkKind, NetworkPlan,
    Observed, PathChoice, compile, diff,
};
use seimon_dataplane::Linux;
use seimon_plan::{GroupId, PathId, ValidSitePlan, ZoneId};

pub(crate) use self::converge::{describe, digests, without};
pub(crate) use self::rotation::Rotated;
use self::rotation::Rotation;
use self::tunnels::Tunnels;
pub(crate) use self::tunnels::Wanted;
use crate::sabotage::Sabotage;

pub(crate) type Choices = BTreeMap<(ZoneId, GroupId), PathChoice>;

/// Paths that the plan's canary clients try, by group with a canary under way.
pub(crate) type Trials = BTreeMap<(ZoneId, GroupId), PathId>;

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
    trials: Trials,
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
    tunnels: Tunnels,
    rotation: Option<Rotation>,
    fast: Fast,
    sabotage: Sabotage,
}

/// Whether flows under way may leave the rules, which is the kernel's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fast {
    Yes,
    No,
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
        let fast = match dataplane.has_flowtables() {
            Ok(true) => Fast::Yes,
            Ok(false) => Fast::No,
            // It is told by the first converge, which needs nft as well.
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "flowtables");
                Fast::No
            }
        };
        tracing::info!(flowtable = fast == Fast::Yes, "flows under way");
        Ok(Self {
            dataplane,
            plan,
            allocation,
            choices,
            trials: Trials::new(),
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
            tunnels: Tunnels::default(),
            rotation: None,
            fast,
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

    /// What the kernel was last seen to have is what it should have, lines and tunnels that cannot be had aside.
    pub(crate) fn is_verified(&self) -> bool {
        self.verified_at.is_some() && self.problems.len() == self.missing.len() + self.tunnels.unusable.len()
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
        if self.fast == Fast::No {
            compiled.ruleset = compiled.ruleset.without_flowtable();
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

    pub(crate) fn flows(&mut self) -> Result<Vec<Flow>> {
        Ok(self.dataplane.flows()?)
    }

    pub(crate) fn neighbours(&mut self, interface: &InterfaceName) -> Result<BTreeMap<IpAddr, MacAddress>> {
        Ok(self.dataplane.neighbours(interface)?)
    }

    /// By which port each client of the bridge was heard last; nothing where the kernel does not tell.
    pub(crate) fn heard_at(&mut self, bridge: &InterfaceName) -> BTreeMap<MacAddress, InterfaceName> {
        self.dataplane.heard_at(bridge).unwrap_or_else(|error| {
            tracing::debug!(error = format!("{error:#}"), "ports of clients");
            BTreeMap::new()
        })
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
                LinkKind::Uplink
                | LinkKind::Bridge { .. }
                | LinkKind::Trunk { .. }
                | LinkKind::Vlan { .. }
                | LinkKind::Tunnel => None,
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
