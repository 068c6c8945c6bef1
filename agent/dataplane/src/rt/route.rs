//! Routes in our tables, rules with our protocol number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{self, RuleAttribute, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol};
use rustix::io::Errno;
use seimon_board::InterfaceName;
use seimon_core::network_plan::{
    ApplyError, Family, IpRule, Route, RouteKind, RuleAction, RuleMatch, ZONES_TABLE,
};

use super::{
    Links, OURS, RTM_DELROUTE, RTM_DELRULE, RTM_GETROUTE, RTM_GETRULE, RTM_NEWROUTE, RTM_NEWRULE, Router,
    failed, family_of,
};
use crate::attributes::{Attribute, Attributes};
use crate::socket::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

/// `struct rtmsg` and `struct fib_rule_hdr` have the same length.
const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const RTN_UNICAST: u8 = 1;
const RTN_PROHIBIT: u8 = 8;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const IPPROTO_UDP: u8 = 17;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_BLACKHOLE: u8 = 6;
const FR_ACT_PROHIBIT: u8 = 8;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// True for the tables that are ours alone.
pub(crate) const fn is_our_table(table: u32) -> bool {
    table & !0xff == ZONES_TABLE
}

/// The table of a route message, from its attribute or its header.
pub(crate) fn table_of(payload: &[u8]) -> Option<u32> {
    let attribute = Attributes::after(payload, RTMSG).find(RTA_TABLE).and_then(Attribute::u32);
    attribute.or_else(|| payload.get(4).map(|table| u32::from(*table)))
}

/// True for a rule message with our protocol number.
pub(crate) fn is_our_rule(payload: &[u8]) -> bool {
    Attributes::after(payload, RTMSG).find(FRA_PROTOCOL).and_then(Attribute::u8) == Some(OURS)
}

fn unspecified(family: u8) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::UNSPECIFIED.into()),
        AF_INET6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    }
}

impl Router {
    pub(crate) fn replace_route(&mut self, route: &Route) -> Result<(), ApplyError> {
        let message = self.route_message(route)?;
        self.ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &message).map_err(|error| {
            failed(format!("set the route to {} in table {:#x}", route.destination, route.table), error)
        })
    }

    /// Removes the route to that destination from our table, whatever it is.
    pub(crate) fn remove_route(&mut self, route: &Route) -> Result<(), ApplyError> {
        let mut message = plain_route(route);
        message.header.scope = RouteScope::NoWhere;
        self.ask_idempotent(RTM_DELROUTE, 0, &message, &[Errno::SRCH, Errno::NOENT, Errno::NODEV]).map_err(
            |error| {
                failed(
                    format!("remove the route to {} in table {:#x}", route.destination, route.table),
                    error,
                )
            },
        )
    }

    fn route_message(&mut self, route: &Route) -> Result<RouteMessage, ApplyError> {
        let mut message = plain_route(route);
        message.header.protocol = RouteProtocol::Other(OURS);
        message.header.kind = RouteType::Unicast;
        let (interface, source) = match &route.kind {
            RouteKind::Prohibit => {
                message.header.kind = RouteType::Prohibit;
                (None, None)
            }
            RouteKind::Onlink { interface, source } => {
                message.header.scope = RouteScope::Link;
                (Some(interface), *source)
            }
            RouteKind::Via { gateway, interface, source } => {
                message.header.flags = RouteFlags::Onlink;
                message.attributes.push(RouteAttribute::Gateway((*gateway).into()));
                (Some(interface), *source)
            }
        };
        if let Some(interface) = interface {
            message.attributes.push(RouteAttribute::Oif(self.links()?.index(interface)?));
        }
        message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
        if let Some(mtu) = route.mtu {
            message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(u32::from(mtu))]));
        }
        Ok(message)
    }

    /// Routes in our tables. Kinds that we never make are left out.
    pub(crate) fn routes(&mut self, links: &Links) -> Result<Vec<Route>, ApplyError> {
        self.list(RTM_GETROUTE, RTM_NEWROUTE, RTMSG, |payload| read_route(payload, links))
            .map_err(|error| failed("list routes", error))
    }

    pub(crate) fn add_rule(&mut self, rule: &IpRule) -> Result<(), ApplyError> {
        self.ask_idempotent(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, &rule_message(rule), &[Errno::EXIST])
            .map_err(|error| failed(format!("add the rule with priority {}", rule.priority), error))
    }

    pub(crate) fn remove_rule(&mut self, rule: &IpRule) -> Result<(), ApplyError> {
        self.ask_idempotent(RTM_DELRULE, 0, &rule_message(rule), &[Errno::NOENT])
            .map_err(|error| failed(format!("remove the rule with priority {}", rule.priority), error))
    }

    /// Rules with our protocol number.
    pub(crate) fn rules(&mut self) -> Result<Vec<IpRule>, ApplyError> {
        self.list(RTM_GETRULE, RTM_NEWRULE, RTMSG, read_rule).map_err(|error| failed("list rules", error))
    }
}

/// Table and destination only.
fn plain_route(route: &Route) -> RouteMessage {
    let destination = route.destination.trunc();
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(destination.addr());
    message.header.destination_prefix_length = destination.prefix_len();
    message.attributes.push(RouteAttribute::Table(route.table));
    if destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination.addr())));
    }
    message
}

fn read_route(payload: &[u8], links: &Links) -> Option<Route> {
    let table = table_of(payload).filter(|table| is_our_table(*table))?;
    let attributes = Attributes::after(payload, RTMSG);
    let ip = |kind| attributes.find(kind).and_then(Attribute::ip);
    let destination = ip(RTA_DST).or_else(|| unspecified(*payload.first()?))?;
    let interface = attributes.find(RTA_OIF).and_then(Attribute::u32).and_then(|index| links.by_index(index));
    let interface = interface.map(|link| link.name.clone());
    let source = ip(RTA_PREFSRC);
    let kind = match (*payload.get(7)?, ip(RTA_GATEWAY)) {
        (RTN_PROHIBIT, _) => RouteKind::Prohibit,
        (RTN_UNICAST, Some(gateway)) => RouteKind::Via { gateway, interface: interface?, source },
        (RTN_UNICAST, None) => RouteKind::Onlink { interface: interface?, source },
        _ => return None,
    };
    let mtu = attributes.find(RTA_METRICS).and_then(|metrics| metrics.nested().find(RTAX_MTU));
    Some(Route {
        table,
        destination: IpNet::new(destination, *payload.get(1)?).ok()?,
        kind,
        mtu: mtu.and_then(Attribute::u32).and_then(|mtu| u16::try_from(mtu).ok()),
    })
}

fn rule_message(rule: &IpRule) -> RuleMessage {
    let IpRule { family, priority, matches, action } = rule;
    let RuleMatch { iif, from, udp_source_port, fwmark } = matches;
    let mut message = RuleMessage::default();
    message.header.family = match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    };
    message.attributes =
        vec![RuleAttribute::Priority(*priority), RuleAttribute::Protocol(RouteProtocol::Other(OURS))];
    message.attributes.extend(iif.as_ref().map(|iif| RuleAttribute::Iifname(iif.to_string())));
    if let Some(from) = from {
        message.header.src_len = from.prefix_len();
        message.attributes.push(RuleAttribute::Source(from.trunc().addr()));
    }
    if let Some(port) = *udp_source_port {
        message.attributes.push(RuleAttribute::IpProtocol(IpProtocol::Udp));
        message.attributes.push(RuleAttribute::SourcePortRange(RulePortRange { start: port, end: port }));
    }
    if let Some((mark, mask)) = fwmark {
        message.attributes.push(RuleAttribute::FwMark(*mark));
        message.attributes.push(RuleAttribute::FwMask(*mask));
    }
    match action {
        RuleAction::Table(table) => {
            message.header.action = rule::RuleAction::ToTable;
            message.attributes.push(RuleAttribute::Table(*table));
        }
        RuleAction::Prohibit => message.header.action = rule::RuleAction::Prohibit,
        RuleAction::Blackhole => message.header.action = rule::RuleAction::Blackhole,
    }
    message
}

fn read_rule(payload: &[u8]) -> Option<IpRule> {
    is_our_rule(payload).then_some(())?;
    let attributes = Attributes::after(payload, RTMSG);
    let number = |kind| attributes.find(kind).and_then(Attribute::u32);
    let from = match attributes.find(FRA_SRC).and_then(Attribute::ip) {
        Some(source) => Some(IpNet::new(source, *payload.get(2)?).ok()?),
        None => None,
    };
    let iif = attributes.find(FRA_IIFNAME).and_then(Attribute::text);
    Some(IpRule {
        family: match *payload.first()? {
            AF_INET => Family::Ipv4,
            AF_INET6 => Family::Ipv6,
            _ => return None,
        },
        priority: number(FRA_PRIORITY).unwrap_or(0),
        matches: RuleMatch {
            iif: iif.and_then(|iif| InterfaceName::new(iif).ok()),
            from,
            udp_source_port: attributes
                .find(FRA_SPORT_RANGE)
                .and_then(|range| one_udp_port(attributes, range)),
            // The kernel leaves a mark of 0 out; a mask of 0 means that no mark is asked for.
            fwmark: number(FRA_FWMASK)
                .filter(|mask| *mask != 0)
                .map(|mask| (number(FRA_FWMARK).unwrap_or(0), mask)),
        },
        action: match *payload.get(7)? {
            FR_ACT_TO_TBL => RuleAction::Table(number(FRA_TABLE)?),
            FR_ACT_BLACKHOLE => RuleAction::Blackhole,
            FR_ACT_PROHIBIT => RuleAction::Prohibit,
            _ => return None,
        },
    })
}

/// The port of a range of one, where the rule is about UDP.
fn one_udp_port(attributes: Attributes<'_>, range: Attribute<'_>) -> Option<u16> {
    (attributes.find(FRA_IP_PROTO).and_then(Attribute::u8) == Some(IPPROTO_UDP)).then_some(())?;
    let [a, b, c, d] = <[u8; 4]>::try_from(range.value).ok()?;
    (u16::from_ne_bytes([a, b]) == u16::from_ne_bytes([c, d])).then_some(u16::from_ne_bytes([a, b]))
}
