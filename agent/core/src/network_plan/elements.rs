//! Elements that are moved while running. Moving a group of services is one element of `current`; learning where a name
//! is on a path is one element of `real4` or `real6`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use seimon_plan::{GroupId, PathId, ZoneId};

use super::allocation::Allocation;
use super::compile::PathChoice;
use super::mark::{Mark, PathIndex, ZoneGroupIndex};
use super::ruleset::{Element, Key, KeyPart, Value, Verdict};

/// Map: zone-group bits (and, for probe hosts, path bits) of the ct mark → what new flows do.
pub(crate) const CURRENT: &str = "current";
/// Map: zone-group bits of the ct mark → who of the group's clients tries another path. Empty unless a canary is under way.
pub(crate) const CANARY: &str = "canary";
/// Map: path . inside address → the address that the name has there.
pub(crate) const REAL4: &str = "real4";
pub(crate) const REAL6: &str = "real6";
/// Map: inside IPv6 addresses whose name is also known to have an IPv4 address → refused to those who are to stay with it.
pub(crate) const TWIN6: &str = "twin6";
/// Chain that answers "not permitted" at once.
pub(crate) const REFUSE: &str = "refuse";

pub(crate) fn use_chain(zone_group: ZoneGroupIndex, path: PathIndex) -> String {
    format!("use_{}_{}", zone_group.0, path.0)
}

/// Chain that takes a canary's clients to the path, and everybody else to the current one.
pub(crate) fn pick_chain(zone_group: ZoneGroupIndex, path: PathIndex) -> String {
    format!("pick_{}_{}", zone_group.0, path.0)
}

pub(crate) fn via_chain(path: PathIndex) -> String {
    format!("via_{}", path.0)
}

pub(crate) fn gateway_chain(path: PathIndex) -> String {
    format!("gw_{}", path.0)
}

pub(crate) fn affinity_set(path: PathIndex) -> String {
    format!("aff_{}", path.0)
}

pub(crate) fn goto(chain: impl Into<String>) -> Value {
    Value::Verdict(Verdict::Goto(chain.into()))
}

/// Where new flows of the group in the zone go from now on. `None` when the allocation knows no such group or path.
pub fn current_element(
    allocation: &Allocation,
    zone: &ZoneId,
    group: &GroupId,
    choice: &PathChoice,
) -> Option<Element> {
    let index = *allocation.zone_groups.get(&(zone.clone(), group.clone()))?;
    let value = match choice {
        PathChoice::On(path) => goto(use_chain(index, *allocation.paths.get(path)?)),
        PathChoice::Blocked(_) => goto(REFUSE),
    };
    Some(Element {
        container: CURRENT.into(),
        key: Key(vec![KeyPart::Mark(index.mark())]),
        value: Some(value),
    })
}

/// Present while new flows of the plan's canary clients of the group take `path`. `None` when the allocation knows no such
/// group or path. Only for routes that have a canary: others have no such map.
pub fn canary_element(
    allocation: &Allocation,
    zone: &ZoneId,
    group: &GroupId,
    path: &PathId,
) -> Option<Element> {
    let index = *allocation.zone_groups.get(&(zone.clone(), group.clone()))?;
    let path = *allocation.paths.get(path)?;
    Some(Element {
        container: CANARY.into(),
        key: Key(vec![KeyPart::Mark(index.mark())]),
        value: Some(goto(pick_chain(index, path))),
    })
}

/// The path of the gateway's own traffic from now on.
pub fn gateway_element(allocation: &Allocation, path: &PathId) -> Option<Element> {
    let path = *allocation.paths.get(path)?;
    let key = Key(vec![KeyPart::Mark(ZoneGroupIndex::GATEWAY.mark())]);
    Some(Element { container: CURRENT.into(), key, value: Some(goto(gateway_chain(path))) })
}

/// What the zone's name translates to on the path. A `None` address gives no element: take out what was there with
/// [`super::Change::Elements`]. Empty when the allocation has no inside address for the name.
pub fn real_elements(
    allocation: &Allocation,
    zone: &ZoneId,
    name: &str,
    path: &PathId,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
) -> Vec<Element> {
    let inside = allocation.inside.get(&(zone.clone(), name.to_owned()));
    let (Some((inside4, inside6)), Some(path)) = (inside, allocation.paths.get(path)) else {
        return Vec::new();
    };
    let path = KeyPart::Mark(Mark(u32::from(path.0)));
    let four = ipv4.map(|real| Element {
        container: REAL4.into(),
        key: Key(vec![path.clone(), KeyPart::Ipv4(*inside4)]),
        value: Some(Value::Ipv4(real)),
    });
    let six = ipv6.map(|real| Element {
        container: REAL6.into(),
        key: Key(vec![path.clone(), KeyPart::Ipv6(*inside6)]),
        value: Some(Value::Ipv6(real)),
    });
    four.into_iter().chain(six).collect()
}

/// Present while the zone's name is known to have an IPv4 address on some path: then a client may be told to stay with IPv4.
pub fn twin_element(allocation: &Allocation, zone: &ZoneId, name: &str) -> Option<Element> {
    let (_, inside6) = allocation.inside.get(&(zone.clone(), name.to_owned()))?;
    Some(Element {
        container: TWIN6.into(),
        key: Key(vec![KeyPart::Ipv6(*inside6)]),
        value: Some(goto(REFUSE)),
    })
}

/// The elements of `current` that a plan begins with.
pub(super) fn initial_current(
    allocation: &Allocation,
    choice: &BTreeMap<(ZoneId, GroupId), PathChoice>,
) -> Vec<Element> {
    choice
        .iter()
        .filter_map(|((zone, group), choice)| current_element(allocation, zone, group, choice))
        .collect()
}
