//! Overlapping permits made into elements that do not overlap, as interval sets demand. The most specific prefix wins;
//! among equals the first in the plan.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::network_plan::Value;

/// A destination that a permit opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) net: IpNet,
    pub(super) protocol: u8,
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) verdict: Value,
}

/// The same policy without overlaps, for one zone and one protocol at a time.
pub(super) fn disjoint(openings: &[Opening]) -> Vec<Opening> {
    let mut result = Vec::new();
    let mut protocols: Vec<u8> = openings.iter().map(|o| o.protocol).collect();
    protocols.sort_unstable();
    protocols.dedup();
    for protocol in protocols {
        let of: Vec<&Opening> = openings.iter().filter(|o| o.protocol == protocol).collect();
        let mut edges: Vec<u32> =
            of.iter().flat_map(|o| [u32::from(o.first), u32::from(o.last) + 1]).collect();
        edges.sort_unstable();
        edges.dedup();
        let mut open: BTreeMap<IpNet, Opening> = BTreeMap::new();
        for pair in edges.windows(2) {
            let (first, last) = (pair[0] as u16, (pair[1] - 1) as u16);
            let here: Vec<(IpNet, Value)> = of
                .iter()
                .filter(|o| o.first <= first && last <= o.last)
                .map(|o| (o.net.trunc(), o.verdict.clone()))
                .collect();
            let mut next = BTreeMap::new();
            for (net, verdict) in disjoint_nets(&here) {
                let opening = match open.remove(&net) {
                    Some(before) if before.verdict == verdict && u32::from(before.last) + 1 == pair[0] => {
                        Opening { last, ..before }
                    }
                    Some(before) => {
                        result.push(before);
                        Opening { net, protocol, first, last, verdict }
                    }
                    None => Opening { net, protocol, first, last, verdict },
                };
                next.insert(net, opening);
            }
            result.extend(open.into_values());
            open = next;
        }
        result.extend(open.into_values());
    }
    result
}

/// Prefixes without overlaps: a wider one is cut up around a narrower one with another verdict.
pub(super) fn disjoint_nets(nets: &[(IpNet, Value)]) -> Vec<(IpNet, Value)> {
    let mut unique: Vec<(IpNet, Value)> = Vec::new();
    for (net, verdict) in nets {
        if !unique.iter().any(|(seen, _)| seen == net) {
            unique.push((*net, verdict.clone()));
        }
    }
    let mut result = Vec::new();
    for (net, verdict) in &unique {
        // What its narrowest container already says need not be said again.
        let container = unique
            .iter()
            .filter(|(other, _)| other != net && other.contains(net))
            .max_by_key(|(other, _)| other.prefix_len());
        if container.is_some_and(|(_, same)| same == verdict) {
            continue;
        }
        let inner: Vec<IpNet> = unique
            .iter()
            .filter(|(other, different)| other != net && net.contains(other) && different != verdict)
            .map(|(other, _)| *other)
            .collect();
        let mut pieces = Vec::new();
        carve(*net, &inner, &mut pieces);
        // Same verdict again below another's: those pieces come from the narrower entry itself.
        result.extend(pieces.into_iter().map(|piece| (piece, verdict.clone())));
    }
    result
}

/// `net` without `holes`.
pub(super) fn carve(net: IpNet, holes: &[IpNet], pieces: &mut Vec<IpNet>) {
    if holes.iter().any(|hole| hole.contains(&net)) {
        return;
    }
    if !holes.iter().any(|hole| net.contains(hole)) {
        pieces.push(net);
        return;
    }
    for half in halves(net) {
        carve(half, holes, pieces);
    }
}

fn halves(net: IpNet) -> Vec<IpNet> {
    match net {
        IpNet::V4(net) => net.subnets(net.prefix_len() + 1).map(|s| s.map(IpNet::V4).collect()),
        IpNet::V6(net) => net.subnets(net.prefix_len() + 1).map(|s| s.map(IpNet::V6).collect()),
    }
    .unwrap_or_default()
}

pub(super) fn aggregate4(nets: impl IntoIterator<Item = Ipv4Net>) -> Vec<Ipv4Net> {
    Ipv4Net::aggregate(&nets.into_iter().collect())
}

pub(super) fn aggregate6(nets: impl IntoIterator<Item = Ipv6Net>) -> Vec<Ipv6Net> {
    Ipv6Net::aggregate(&nets.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network_plan::Verdict;
    use proptest::prelude::*;

    fn goto(n: u8) -> Value {
        Value::Verdict(Verdict::Goto(format!("c{n}")))
    }

    /// The rule in words: most specific prefix, then first.
    fn expected(openings: &[Opening], address: std::net::IpAddr, protocol: u8, port: u16) -> Option<Value> {
        let mut best: Option<&Opening> = None;
        for o in openings {
            let hit =
                o.protocol == protocol && o.net.contains(&address) && (o.first..=o.last).contains(&port);
            if hit && best.is_none_or(|b| o.net.prefix_len() > b.net.prefix_len()) {
                best = Some(o);
            }
        }
        best.map(|o| o.verdict.clone())
    }

    fn opening() -> impl Strategy<Value = Opening> {
        (0u32..16, 24u8..=30, 0u8..2, 1u16..12, 0u16..6, 0u8..3).prop_map(
            |(host, len, proto, first, more, v)| {
                let net = Ipv4Net::new((0x0a00_0000 + host * 16).into(), len).unwrap().trunc();
                Opening {
                    net: net.into(),
                    protocol: 6 + proto * 11,
                    first,
                    last: first + more,
                    verdict: goto(v),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn the_elements_never_overlap_and_say_the_same(openings in prop::collection::vec(opening(), 1..8)) {
            let result = disjoint(&openings);
            for (i, a) in result.iter().enumerate() {
                for b in &result[i + 1..] {
                    let nets = a.net.contains(&b.net) || b.net.contains(&a.net);
                    prop_assert!(!(nets && a.protocol == b.protocol && a.first <= b.last && b.first <= a.last), "{a:?} {b:?}");
                }
            }
            for host in 0u32..256 {
                for port in 0u16..20 {
                    let address = std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + host));
                    let got = result.iter().find(|o| o.protocol == 6 && o.net.contains(&address) && (o.first..=o.last).contains(&port));
                    prop_assert_eq!(got.map(|o| o.verdict.clone()), expected(&openings, address, 6, port));
                }
            }
        }
    }
}
