//! Whether the kernel means what the plan says. Meaning, not text: rules by their tags, sets and maps by declaration and
//! elements, the rest by value. What is in the kernel and not ours is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::NetworkPlan;
use super::change::Observed;
use super::diff::{link_stands, tunnel_stands};
use super::link::{Address, IpRule, Route};
use super::sketch::Sketch;
use seimon_board::InterfaceName;

/// One way in which kernel and plan differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discrepancy {
    TableMissing,
    /// Missing, too much, or with other rules or another hook.
    Chain(String),
    /// Missing, too much, or declared otherwise.
    Container(String),
    /// Elements of a set or map that are missing or different, and those that are too many.
    Elements {
        container: String,
        missing: usize,
        extra: usize,
    },
    /// Not there, too much, or with other devices.
    Flowtable,
    Link(InterfaceName),
    Tunnel(InterfaceName),
    AddressMissing(Address),
    AddressExtra(Address),
    RouteMissing(Route),
    RouteExtra(Route),
    RuleMissing(IpRule),
    RuleExtra(IpRule),
    Sysctl {
        path: String,
        wanted: String,
        seen: Option<String>,
    },
}

impl fmt::Display for Discrepancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TableMissing => f.write_str("the table inet seimon is missing"),
            Self::Chain(name) => write!(f, "chain {name} is not as planned"),
            Self::Container(name) => write!(f, "set or map {name} is not declared as planned"),
            Self::Elements { container, missing, extra } => {
                write!(f, "{container}: {missing} elements missing or different, {extra} too many")
            }
            Self::Flowtable => f.write_str("the flowtable is not as planned"),
            Self::Link(name) => write!(f, "interface {name} is missing, down, or not joined as planned"),
            Self::Tunnel(name) => write!(f, "tunnel {name} is not configured as planned"),
            Self::AddressMissing(a) => write!(f, "address {} is missing on {}", a.address, a.interface),
            Self::AddressExtra(a) => write!(f, "address {} is too many on {}", a.address, a.interface),
            Self::RouteMissing(route) => {
                write!(f, "route {} is missing or different in table {:#x}", route.destination, route.table)
            }
            Self::RouteExtra(route) => {
                write!(f, "route {} is too many in table {:#x}", route.destination, route.table)
            }
            Self::RuleMissing(rule) => {
                write!(f, "{:?} routing rule at {} is missing", rule.family, rule.priority)
            }
            Self::RuleExtra(rule) => {
                write!(f, "{:?} routing rule at {} is too many", rule.family, rule.priority)
            }
            Self::Sysctl { path, wanted, seen: Some(seen) } => write!(f, "{path} is {seen}, not {wanted}"),
            Self::Sysctl { path, wanted, seen: None } => write!(f, "{path} is not there, wanted {wanted}"),
        }
    }
}

/// Everything in which `observed` differs from the plan; empty when the plan is in force. Run-time maps are compared with the
/// plan's elements: give it those that are meant now.
pub fn verify(observed: &Observed, plan: &NetworkPlan) -> Vec<Discrepancy> {
    let mut found = Vec::new();
    table(observed, plan, &mut found);
    found.extend(
        plan.links
            .iter()
            .filter(|link| !link_stands(observed, link))
            .map(|l| Discrepancy::Link(l.name.clone())),
    );
    let unmet = plan.tunnels.iter().filter(|(name, tunnel)| !tunnel_stands(observed, name, tunnel));
    found.extend(unmet.map(|(name, _)| Discrepancy::Tunnel(name.clone())));
    compare(
        &plan.addresses,
        &observed.addresses,
        &mut found,
        Discrepancy::AddressMissing,
        Discrepancy::AddressExtra,
    );
    compare(&plan.routes, &observed.routes, &mut found, Discrepancy::RouteMissing, Discrepancy::RouteExtra);
    compare(&plan.rules, &observed.rules, &mut found, Discrepancy::RuleMissing, Discrepancy::RuleExtra);
    for sysctl in &plan.sysctls {
        let seen = observed.sysctls.get(&sysctl.path).map(|value| value.trim().to_owned());
        if seen.as_deref() != Some(&sysctl.value) {
            found.push(Discrepancy::Sysctl { path: sysctl.path.clone(), wanted: sysctl.value.clone(), seen });
        }
    }
    found
}

fn compare<T: Ord + Clone>(
    plan: &[T],
    seen: &BTreeSet<T>,
    found: &mut Vec<Discrepancy>,
    missing: impl Fn(T) -> Discrepancy,
    extra: impl Fn(T) -> Discrepancy,
) {
    let wanted: BTreeSet<&T> = plan.iter().collect();
    found.extend(wanted.iter().filter(|item| !seen.contains(**item)).map(|item| missing((*item).clone())));
    found.extend(seen.iter().filter(|item| !wanted.contains(item)).map(|item| extra(item.clone())));
}

fn table(observed: &Observed, plan: &NetworkPlan, found: &mut Vec<Discrepancy>) {
    let Some(table) = &observed.table else {
        found.push(Discrepancy::TableMissing);
        return;
    };
    let seen = Sketch::of_kernel(table);
    let wanted = Sketch::of_plan(&plan.ruleset);
    found.extend(differing(&wanted.chains, &seen.chains).into_iter().map(Discrepancy::Chain));
    found.extend(differing(&wanted.containers, &seen.containers).into_iter().map(Discrepancy::Container));
    if table.flowtable.as_ref() != plan.ruleset.flowtable.as_ref().map(|wanted| &wanted.devices) {
        found.push(Discrepancy::Flowtable);
    }
    let none = BTreeMap::new();
    for (name, wanted) in &wanted.elements {
        let seen = seen.elements.get(name).unwrap_or(&none);
        let missing = wanted.iter().filter(|(key, value)| seen.get(*key) != Some(value)).count();
        let extra = seen.keys().filter(|key| !wanted.contains_key(*key)).count();
        if missing + extra > 0 {
            found.push(Discrepancy::Elements { container: name.clone(), missing, extra });
        }
    }
}

fn differing<V: PartialEq>(a: &BTreeMap<String, V>, b: &BTreeMap<String, V>) -> Vec<String> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    names.into_iter().filter(|name| a.get(*name) != b.get(*name)).cloned().collect()
}
