//! Which flows under way a plan does not permit any more. The rules let flows go on that have begun; what has been taken out of
//! the plan is to end with it: such flows are deleted from connection tracking, and so from the flowtable. Their next packet
//! meets the rules as that of a flow that nobody knows.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use seimon_board::InterfaceName;
use seimon_plan::{SitePlan, ZoneId};

use super::permits::{ANY, AS_LOCAL, INTERNET, PERMIT, TCP, UDP, WIDE_MAP};
use super::{is_internet, zone_of};
use crate::network_plan::{
    Flow, Key, KeyPart, Mark, NetworkPlan, PathIndex, Value, Verdict, ZoneGroupIndex, bridge_name, use_chain,
    via_chain,
};

/// The flows that the network plan would not let begin now as they are, by id: nothing permits them, or not over the path that
/// they are on. Whoever the plan's zones do not hold (probe hosts, the gateway itself) is left alone.
pub fn ended(plan: &SitePlan, net: &NetworkPlan, flows: &[Flow]) -> BTreeSet<u32> {
    flows.iter().filter(|flow| has_ended(plan, net, flow)).map(|flow| flow.id).collect()
}

fn has_ended(plan: &SitePlan, net: &NetworkPlan, flow: &Flow) -> bool {
    let Flow { mark, source, destination, .. } = flow;
    let is_gateways = mark.zone_group() == Some(ZoneGroupIndex::GATEWAY) || mark.0 & Mark::PATH_MASK == 0;
    if is_gateways || is_probe(net, *source) || is_own(plan, *destination) {
        return false;
    }
    let Some(zone) = zone_of(plan, *source) else {
        // Only zones have groups: this one's is no longer in the plan.
        return mark.zone_group().is_some();
    };
    match permitted(plan, net, &zone, flow) {
        None => true,
        Some(chain) if chain == AS_LOCAL => mark.0 & Mark::PATH_MASK != Mark::LOCAL,
        Some(chain) => mark.path().is_none_or(|path| !leads_over(net, &chain, path)),
    }
}

fn is_probe(net: &NetworkPlan, source: IpAddr) -> bool {
    let probes = net.allocation.probes.values();
    probes.into_iter().any(|probe| source == IpAddr::V4(probe.ipv4) || source == IpAddr::V6(probe.ipv6))
}

/// The gateway's own address in one of the zones, or nobody's in particular: not forwarded.
fn is_own(plan: &SitePlan, destination: IpAddr) -> bool {
    let mut own = plan
        .zones
        .values()
        .flat_map(|zone| [Some(IpAddr::V4(zone.ipv4.addr())), zone.ipv6.map(|net| IpAddr::V6(net.addr()))]);
    let local = match destination {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    };
    local || own.any(|address| address == Some(destination))
}

/// The chain that the flow's zone would lead it to.
fn permitted(plan: &SitePlan, net: &NetworkPlan, zone: &ZoneId, flow: &Flow) -> Option<String> {
    let bridge = bridge_name(zone).ok()?;
    let Flow { destination, protocol, destination_port: port, .. } = flow;
    let family = usize::from(destination.is_ipv6());
    let find = |map: &str, test: &dyn Fn(&Key) -> bool| {
        let elements = &net.ruleset.maps.get(map)?.elements;
        elements.iter().find(|(key, _)| test(key)).map(|(_, value)| value)
    };
    let exact = || {
        let address = match destination {
            IpAddr::V4(v4) => KeyPart::Ipv4(*v4),
            IpAddr::V6(v6) => KeyPart::Ipv6(*v6),
        };
        let key = [KeyPart::Ifname(bridge.clone()), address, KeyPart::Proto(*protocol), KeyPart::Port(*port)];
        net.ruleset.maps.get(PERMIT[family])?.elements.get(&Key(key.to_vec()))
    };
    let has_ports = matches!(*protocol, TCP | UDP);
    let wide = |key: &Key| holds(key, &bridge, *destination, Some((*protocol, *port)));
    let any = |key: &Key| holds(key, &bridge, *destination, None);
    let value = exact()
        .or_else(|| if has_ports { find(WIDE_MAP[family], &wide) } else { None })
        .or_else(|| find(ANY[family], &any));
    if let Some(value) = value {
        return match value {
            Value::Verdict(Verdict::Goto(chain) | Verdict::Jump(chain)) => Some(chain.clone()),
            Value::Verdict(Verdict::Accept | Verdict::Drop | Verdict::Return)
            | Value::Mark(_)
            | Value::Ipv4(_)
            | Value::Ipv6(_) => None,
        };
    }
    let open = plan.zones.get(zone).is_some_and(|zone| matches!(zone.internet, seimon_plan::Internet::Open));
    let internet = net.ruleset.sets.get(INTERNET[family]).filter(|_| open)?;
    internet
        .elements
        .iter()
        .any(|key| key.0.first().is_some_and(|part| contains(part, *destination)))
        .then_some(())?;
    let mut groups = net.allocation.zone_groups.iter();
    groups.find(|((z, group), _)| z == zone && is_internet(group)).map(|(_, index)| format!("zg_{}", index.0))
}

fn contains(part: &KeyPart, address: IpAddr) -> bool {
    match part {
        KeyPart::Ipv4(v4) => IpAddr::V4(*v4) == address,
        KeyPart::Ipv6(v6) => IpAddr::V6(*v6) == address,
        KeyPart::Ipv4Prefix(net) => IpNet::V4(*net).contains(&address),
        KeyPart::Ipv6Prefix(net) => IpNet::V6(*net).contains(&address),
        KeyPart::Ifname(_)
        | KeyPart::Ether(_)
        | KeyPart::Mark(_)
        | KeyPart::Proto(_)
        | KeyPart::Port(_)
        | KeyPart::PortRange(..) => false,
    }
}

/// Whether an element is about the flow: interface and address, and protocol and port where it has them.
fn holds(key: &Key, bridge: &InterfaceName, to: IpAddr, ports: Option<(u8, u16)>) -> bool {
    let [KeyPart::Ifname(interface), address, rest @ ..] = key.0.as_slice() else { return false };
    interface == bridge
        && contains(address, to)
        && match (rest, ports) {
            ([], None) => true,
            ([KeyPart::Proto(protocol), KeyPart::Port(port)], Some(wanted)) => (*protocol, *port) == wanted,
            ([KeyPart::Proto(protocol), KeyPart::PortRange(first, last)], Some((wanted, port))) => {
                *protocol == wanted && (*first..=*last).contains(&port)
            }
            _ => false,
        }
}

/// Whether new flows that come to the chain may be given that path.
fn leads_over(net: &NetworkPlan, chain: &str, path: PathIndex) -> bool {
    if chain == via_chain(path) {
        return true;
    }
    let group = chain.strip_prefix("zg_").and_then(|number| number.parse().ok()).map(ZoneGroupIndex);
    group.is_some_and(|group| net.ruleset.chains.contains_key(&use_chain(group, path)))
}
