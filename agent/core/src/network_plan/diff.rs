//! From what the kernel has to what the plan says, as ordered steps.
//!
//! Closing comes first and opening last: table → routing rules → sysctls → links, tunnels → addresses → routes → what is no longer
//! wanted → forwarding.

use std::collections::{BTreeMap, BTreeSet};

use seimon_board::InterfaceName;

use super::NetworkPlan;
use super::change::{Change, ChangeSet, Observed, TableState};
use super::link::{Link, LinkKind, Sysctl};
use super::render::{flowtable_devices, render_replacement};
use super::ruleset::{Element, Ruleset};
use super::sketch::Sketch;
use super::transaction::transaction;
use super::tunnel::Tunnel;

/// Elements that go by netlink; more go as text, whole.
const FEW: usize = 512;

/// The steps that make `observed` agree with `plan`; none when it does. `parent` is the plan that the kernel was last seen to
/// agree with: where the table is neither its nor the plan's, somebody else has been at it, and it is replaced whole.
///
/// Elements of run-time maps are made equal to the plan's: give it those that are meant now.
pub fn diff(observed: &Observed, parent: Option<&NetworkPlan>, plan: &NetworkPlan) -> ChangeSet {
    let mut changes: Vec<Change> = table(observed.table.as_ref(), parent, &plan.ruleset);
    let wanted: BTreeSet<_> = plan.rules.iter().collect();
    changes.extend(plan.rules.iter().filter(|r| !observed.rules.contains(r)).cloned().map(Change::RuleAdd));
    changes
        .extend(observed.rules.iter().filter(|rule| !wanted.contains(rule)).cloned().map(Change::RuleRemove));
    let (late, early) = sysctls(observed, plan);
    changes.extend(early);
    changes
        .extend(plan.links.iter().filter(|link| !link_stands(observed, link)).cloned().map(Change::LinkUp));
    let unmet = plan.tunnels.iter().filter(|(name, tunnel)| !tunnel_stands(observed, name, tunnel));
    changes.extend(
        unmet.map(|(name, tunnel)| Change::TunnelSet { interface: name.clone(), tunnel: tunnel.clone() }),
    );
    let addresses: BTreeSet<_> = plan.addresses.iter().collect();
    changes.extend(
        plan.addresses.iter().filter(|a| !observed.addresses.contains(a)).cloned().map(Change::AddressAdd),
    );
    changes.extend(
        observed.addresses.iter().filter(|a| !addresses.contains(a)).cloned().map(Change::AddressRemove),
    );
    let routes: BTreeSet<_> = plan.routes.iter().collect();
    changes.extend(
        plan.routes.iter().filter(|r| !observed.routes.contains(r)).cloned().map(Change::RouteReplace),
    );
    // A route that was replaced is not there any more: only destinations that the plan lacks are taken out.
    let destinations: BTreeSet<_> = routes.iter().map(|route| (route.table, route.destination)).collect();
    changes.extend(
        observed
            .routes
            .iter()
            .filter(|route| !destinations.contains(&(route.table, route.destination)))
            .cloned()
            .map(Change::RouteRemove),
    );
    let names: BTreeSet<_> = plan.links.iter().map(|link| &link.name).collect();
    changes.extend(
        observed
            .links
            .iter()
            .filter(|link| !names.contains(&link.name) && !matches!(link.kind, LinkKind::Uplink))
            .map(|link| Change::LinkRemove(link.name.clone())),
    );
    changes.extend(flowtable(observed, &changes, &plan.ruleset));
    changes.extend(late);
    ChangeSet { changes }
}

fn table(seen: Option<&TableState>, parent: Option<&NetworkPlan>, wanted: &Ruleset) -> Vec<Change> {
    let whole = || vec![Change::Nft { script: render_replacement(wanted) }];
    let Some(seen) = seen else { return whole() };
    let seen = Sketch::of_kernel(seen);
    let target = Sketch::of_plan(wanted);
    if seen == target {
        return Vec::new();
    }
    if seen.same_shape(&target)
        && let Some(elements) = few_elements(&seen, &target, wanted)
    {
        return vec![elements];
    }
    let known = seen.same_frame(&target)
        || parent.is_some_and(|parent| seen.same_frame(&Sketch::of_plan(&parent.ruleset)));
    match transaction(&seen, wanted) {
        Some(script) if known => vec![Change::Nft { script }],
        Some(_) => whole(),
        None => Vec::new(),
    }
}

/// The flowtable's devices, after those that we make ourselves have been made.
fn flowtable(observed: &Observed, before: &[Change], wanted: &Ruleset) -> Option<Change> {
    let wanted = &wanted.flowtable.as_ref()?.devices;
    let table = observed.table.as_ref();
    let anew = before
        .iter()
        .any(|change| matches!(change, Change::Nft { script } if script.contains("delete table ")));
    let none = BTreeSet::new();
    let had = table.and_then(|table| table.flowtable.as_ref()).filter(|_| !anew).unwrap_or(&none);
    // An interface that is made anew leaves the flowtable with the one before it.
    let gone = |name: &InterfaceName| !observed.interfaces.contains_key(name);
    let seen: BTreeSet<InterfaceName> = had.iter().filter(|name| !gone(name)).cloned().collect();
    flowtable_devices(&seen, wanted).map(|script| Change::Nft { script })
}

/// Only single elements differ: by netlink, without a run of nft.
fn few_elements(seen: &Sketch, target: &Sketch, wanted: &Ruleset) -> Option<Change> {
    let (mut remove, mut add) = (Vec::new(), Vec::new());
    let none = BTreeMap::new();
    let names: BTreeSet<_> = seen.elements.keys().chain(target.elements.keys()).collect();
    for name in names {
        let had = seen.elements.get(name).unwrap_or(&none);
        let want = target.elements.get(name).unwrap_or(&none);
        if had == want {
            continue;
        }
        let interval = wanted.sets.get(name).is_some_and(|set| set.interval)
            || wanted.maps.get(name).is_some_and(|map| map.interval);
        if interval {
            return None;
        }
        let element = |(key, value): (&_, &Option<_>)| Element {
            container: name.clone(),
            key: Clone::clone(key),
            value: value.clone(),
        };
        remove.extend(had.iter().filter(|(key, value)| want.get(*key) != Some(value)).map(element));
        add.extend(want.iter().filter(|(key, value)| had.get(*key) != Some(value)).map(element));
    }
    (remove.len() + add.len() <= FEW).then_some(Change::Elements { remove, add })
}

/// Whether the link is there, up and made as the plan says.
pub(super) fn link_stands(observed: &Observed, link: &Link) -> bool {
    if observed.interfaces.get(&link.name) != Some(&true) {
        return false;
    }
    let seen = observed.links.iter().find(|seen| seen.name == link.name);
    match &link.kind {
        LinkKind::Uplink => true,
        LinkKind::Bridge { members } => {
            let wanted: BTreeSet<&InterfaceName> = members.iter().collect();
            let joined = seen.is_some_and(|seen| match &seen.kind {
                LinkKind::Bridge { members } => members.iter().collect::<BTreeSet<_>>() == wanted,
                LinkKind::Uplink
                | LinkKind::Probe { .. }
                | LinkKind::Tunnel
                | LinkKind::Trunk { .. }
                | LinkKind::Vlan { .. } => false,
            });
            joined && members.iter().all(|member| observed.interfaces.get(member) == Some(&true))
        }
        LinkKind::Probe { bridge, .. } => seen.is_some_and(|seen| match &seen.kind {
            LinkKind::Probe { bridge: joined, .. } => joined == bridge,
            LinkKind::Uplink
            | LinkKind::Bridge { .. }
            | LinkKind::Tunnel
            | LinkKind::Trunk { .. }
            | LinkKind::Vlan { .. } => false,
        }),
        LinkKind::Trunk { ports } => {
            seen.is_some_and(|seen| seen.kind == link.kind)
                && ports.keys().all(|port| observed.interfaces.get(port) == Some(&true))
        }
        LinkKind::Vlan { .. } => seen.is_some_and(|seen| seen.kind == link.kind),
        LinkKind::Tunnel => seen.is_some_and(|seen| {
            seen.kind == LinkKind::Tunnel
                && link.mtu.is_none_or(|mtu| seen.mtu == Some(mtu))
                && observed.tunnels.contains_key(&link.name)
        }),
    }
}

/// Whether the tunnel is configured as the plan says.
pub(super) fn tunnel_stands(observed: &Observed, name: &InterfaceName, tunnel: &Tunnel) -> bool {
    observed.tunnels.get(name).is_some_and(|seen| tunnel.is_met_by(seen))
}

/// Late ones: those of interfaces that the plan makes, and forwarding, in the plan's order.
fn sysctls(observed: &Observed, plan: &NetworkPlan) -> (Vec<Change>, Vec<Change>) {
    let made: Vec<String> = plan
        .links
        .iter()
        .filter(|link| !matches!(link.kind, LinkKind::Uplink))
        .map(|link| format!("/{}/", link.name))
        .collect();
    let is_late = |sysctl: &Sysctl| {
        made.iter().any(|part| sysctl.path.contains(part))
            || sysctl.path.ends_with("/ip_forward")
            || sysctl.path.ends_with("/forwarding")
    };
    let differs =
        |sysctl: &&Sysctl| observed.sysctls.get(&sysctl.path).map(|v| v.trim()) != Some(&sysctl.value);
    let (late, early): (Vec<&Sysctl>, Vec<&Sysctl>) =
        plan.sysctls.iter().filter(differs).partition(|sysctl| is_late(sysctl));
    let changes = |all: Vec<&Sysctl>| all.into_iter().cloned().map(Change::SysctlSet).collect();
    (changes(late), changes(early))
}
