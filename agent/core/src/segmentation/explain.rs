//! Why a flow may or may not, and which way it goes: the same lookups as the kernel makes, in the plan's own elements.

use std::net::IpAddr;

use ipnet::IpNet;
use seimon_board::MacAddress;
use seimon_plan::{GroupId, PathId, Permit, PermitTarget, PortSpec, Protocol, ServiceId, SitePlan, ZoneId};

use super::canary::{Client, Picked, picks};
use super::permits::{ANY, AS_LOCAL, INTERNET, PERMIT, WIDE_MAP, number};
use crate::network_plan::{
    AffinityEntry, CANARY, CURRENT, Key, KeyPart, Mark, NetworkPlan, PathIndex, REAL4, REAL6, Value, Verdict,
    ZoneGroupIndex, bridge_name,
};
use crate::status::Sentence;

/// Where a flow is meant to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Name(String),
    Address(IpAddr),
}

/// A flow to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub from: ZoneId,
    /// The client's own address, where it is known: canaries may go by it.
    pub address: Option<IpAddr>,
    /// The client, where its learnt path is to be taken into account.
    pub client: Option<MacAddress>,
    /// The gateway's port by which it was heard last, as printed on the case.
    pub plugged: Option<String>,
    pub to: Target,
    pub protocol: Protocol,
    /// `None`: the service's first port, or 443.
    pub port: Option<u16>,
}

/// What becomes of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It leaves the school over [`Explanation::path`].
    Leaves,
    /// It stays in the school.
    Local,
    /// It is answered with a reset or "prohibited" at once.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub outcome: Outcome,
    /// The plan's rule in the administrator's words.
    pub rule: String,
    pub service: Option<ServiceId>,
    pub group: Option<GroupId>,
    pub path: Option<PathId>,
    /// What the resolver answers with.
    pub inside: Vec<IpAddr>,
    /// What that becomes on the path; empty where not known yet.
    pub real: Vec<IpAddr>,
    /// What to know besides, in Japanese and English.
    pub why: Vec<Sentence>,
}

/// The zone whose prefix holds the address.
pub fn zone_of(plan: &SitePlan, address: IpAddr) -> Option<ZoneId> {
    let holds = |zone: &seimon_plan::Zone| match address {
        IpAddr::V4(v4) => zone.ipv4.contains(&v4),
        IpAddr::V6(v6) => zone.ipv6.is_some_and(|net| net.contains(&v6)),
    };
    plan.zones.iter().find(|(_, zone)| holds(zone)).map(|(id, _)| id.clone())
}

/// Explains a new flow as the network plan decides it. `affinity` is what the kernel has learnt; empty: as for a new client.
pub fn explain(
    plan: &SitePlan,
    net: &NetworkPlan,
    affinity: &[AffinityEntry],
    question: &Question,
) -> Explanation {
    let mut answer = Explanation {
        outcome: Outcome::Refused,
        rule: String::new(),
        service: None,
        group: None,
        path: None,
        inside: Vec::new(),
        real: Vec::new(),
        why: Vec::new(),
    };
    let Some(zone) = plan.zones.get(&question.from) else {
        answer.rule = format!("[zones] {}", question.from);
        answer.say("そのゾーンは計画にありません。", "the plan has no such zone");
        return answer;
    };
    let open = matches!(zone.internet, seimon_plan::Internet::Open);
    let destination = match &question.to {
        Target::Address(address) => Some(*address),
        Target::Name(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            match net.allocation.inside.get(&(question.from.clone(), name.clone())) {
                Some((v4, v6)) => {
                    answer.inside = vec![IpAddr::V4(*v4), IpAddr::V6(*v6)];
                    Some(IpAddr::V4(*v4))
                }
                None => {
                    answer.service = service_named(plan, &name);
                    None
                }
            }
        }
    };
    let index = |chain: &str| net.allocation.zone_groups.iter().find(|(_, n)| format!("zg_{}", n.0) == chain);
    let chain = match destination {
        Some(address) => {
            let (permit, service) = permit_for(plan, net, question, address);
            answer.service = service.clone();
            let port = question.port.or_else(|| first_port(plan, service.as_ref(), question.protocol));
            if let Some(permit) = permit {
                answer.rule = words(permit);
            }
            look(net, question, address, port.unwrap_or(443), open)
        }
        None if open => internet_chain(net, &question.from),
        None => None,
    };
    let Some(chain) = chain else {
        answer.rule =
            format!("[zones.{}] internet = {}", question.from, if open { "\"open\"" } else { "\"listed\"" });
        if open {
            answer.say(
                "私的なアドレスや校内は対象外です。",
                "private and school addresses are not part of the internet",
            );
        } else {
            answer.say(
                "このゾーンは許可 (permits) にある宛先だけに届きます。",
                "this zone reaches only what a permit names: add a [[permits]] entry",
            );
        }
        return answer;
    };
    if chain == AS_LOCAL {
        answer.outcome = Outcome::Local;
        if answer.rule.is_empty() {
            answer.rule = format!("[zones.{}]", question.from);
        }
        return answer;
    }
    if let Some(((_, group), zone_group)) = index(&chain) {
        answer.group = Some(group.clone());
        if answer.rule.is_empty() {
            answer.rule = format!("[zones.{}] internet = \"open\"", question.from);
        }
        follow(plan, net, affinity, question, *zone_group, &mut answer);
    } else if let Some(path) = path_of(net, &chain, "via_") {
        answer.rule = format!("[hub] path = \"{path}\"");
        answer.outcome = Outcome::Leaves;
        answer.path = Some(path);
    }
    finish(plan, net, destination, &mut answer);
    answer
}

impl Explanation {
    fn say(&mut self, ja: &str, en: &str) {
        self.why.push(Sentence::new(ja, en));
    }
}

fn service_named(plan: &SitePlan, name: &str) -> Option<ServiceId> {
    plan.services.iter().find(|(_, s)| s.names.iter().any(|n| n == name)).map(|(id, _)| id.clone())
}

fn first_port(plan: &SitePlan, service: Option<&ServiceId>, protocol: Protocol) -> Option<u16> {
    let service = plan.services.get(service?)?;
    service.ports.iter().find(|spec| spec.protocol == protocol).map(|spec| spec.first)
}

/// One line for readers of either language: what the administrator wrote stays as it is.
fn words(permit: &Permit) -> String {
    let Permit { from, to, ports, who, why, until } = permit;
    let ports = ports.iter().map(PortSpec::to_string).collect::<Vec<_>>().join(" ");
    let ports = if ports.is_empty() { ports } else { format!(" {ports}") };
    format!("{from} → {to}{ports} ({why}; {who}; {until} まで / until {until})")
}

/// The permit by which the address is reached, and the service that it is.
fn permit_for<'a>(
    plan: &'a SitePlan,
    net: &NetworkPlan,
    question: &Question,
    address: IpAddr,
) -> (Option<&'a Permit>, Option<ServiceId>) {
    let name = net.allocation.inside.iter().find(|((zone, _), (v4, v6))| {
        *zone == question.from && (address == IpAddr::V4(*v4) || address == IpAddr::V6(*v6))
    });
    let service = match name {
        Some(((_, name), _)) => service_named(plan, name),
        None => {
            let holds = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
            plan.services.iter().find(|(_, s)| holds(&s.prefixes)).map(|(id, _)| id.clone())
        }
    };
    let zone = zone_of(plan, address);
    let permit = plan.permits.iter().find(|permit| {
        permit.from == question.from
            && match &permit.to {
                PermitTarget::Service(id) => service.as_ref() == Some(id),
                PermitTarget::Zone(id) => zone.as_ref() == Some(id),
            }
    });
    (permit, service)
}

/// The chain that the zone's lookups lead to; `None`: refused.
fn look(net: &NetworkPlan, question: &Question, to: IpAddr, port: u16, open: bool) -> Option<String> {
    let bridge = bridge_name(&question.from).ok()?;
    let family = usize::from(to.is_ipv6());
    let wanted = [
        Probe::Interface(&bridge),
        Probe::Address(to),
        Probe::Protocol(number(question.protocol)),
        Probe::Port(port),
    ];
    let find = |map: &str, wanted: &[Probe<'_>]| {
        let elements = &net.ruleset.maps.get(map)?.elements;
        let value = elements.iter().find(|(key, _)| matches_key(key, wanted))?.1;
        chain_of(value)
    };
    let found = find(PERMIT[family], &wanted)
        .or_else(|| find(WIDE_MAP[family], &wanted))
        .or_else(|| find(ANY[family], &wanted[..2]));
    if found.is_some() || !open {
        return found;
    }
    let internet = net.ruleset.sets.get(INTERNET[family])?;
    let is_internet = internet.elements.iter().any(|key| matches_key(key, &[Probe::Address(to)]));
    if is_internet { internet_chain(net, &question.from) } else { None }
}

fn internet_chain(net: &NetworkPlan, zone: &ZoneId) -> Option<String> {
    let mut groups = net.allocation.zone_groups.iter();
    groups.find(|((z, g), _)| z == zone && super::is_internet(g)).map(|(_, index)| format!("zg_{}", index.0))
}

enum Probe<'a> {
    Interface(&'a seimon_board::InterfaceName),
    Address(IpAddr),
    Protocol(u8),
    Port(u16),
}

fn matches_key(key: &Key, wanted: &[Probe<'_>]) -> bool {
    key.0.len() == wanted.len()
        && key.0.iter().zip(wanted).all(|(part, wanted)| match (part, wanted) {
            (KeyPart::Ifname(name), Probe::Interface(wanted)) => name == *wanted,
            (KeyPart::Ipv4(a), Probe::Address(b)) => IpAddr::V4(*a) == *b,
            (KeyPart::Ipv6(a), Probe::Address(b)) => IpAddr::V6(*a) == *b,
            (KeyPart::Ipv4Prefix(net), Probe::Address(b)) => IpNet::V4(*net).contains(b),
            (KeyPart::Ipv6Prefix(net), Probe::Address(b)) => IpNet::V6(*net).contains(b),
            (KeyPart::Proto(a), Probe::Protocol(b)) => a == b,
            (KeyPart::Port(a), Probe::Port(b)) => a == b,
            (KeyPart::PortRange(first, last), Probe::Port(b)) => (first..=last).contains(&b),
            (_, Probe::Interface(_) | Probe::Address(_) | Probe::Protocol(_) | Probe::Port(_)) => false,
        })
}

fn chain_of(value: &Value) -> Option<String> {
    match value {
        Value::Verdict(Verdict::Goto(chain) | Verdict::Jump(chain)) => Some(chain.clone()),
        Value::Verdict(Verdict::Accept | Verdict::Drop | Verdict::Return)
        | Value::Mark(_)
        | Value::Ipv4(_)
        | Value::Ipv6(_) => None,
    }
}

fn path_of(net: &NetworkPlan, chain: &str, prefix: &str) -> Option<PathId> {
    let number: u8 = chain.strip_prefix(prefix)?.parse().ok()?;
    path_with(net, PathIndex(number))
}

fn path_with(net: &NetworkPlan, index: PathIndex) -> Option<PathId> {
    net.allocation.paths.iter().find(|(_, n)| **n == index).map(|(id, _)| id.clone())
}

/// From the group to the path: a client's own first, then a canary's, then the current one.
fn follow(
    plan: &SitePlan,
    net: &NetworkPlan,
    affinity: &[AffinityEntry],
    question: &Question,
    zone_group: ZoneGroupIndex,
    answer: &mut Explanation,
) {
    let learnt = affinity
        .iter()
        .filter(|entry| Some(entry.client) == question.client && entry.zone_group == zone_group)
        .filter(|entry| entry.path != PathIndex::BY_IPV4)
        .min_by_key(|entry| entry.path);
    if let Some(entry) = learnt {
        answer.path = path_with(net, entry.path);
        answer.outcome = Outcome::Leaves;
        answer.say(
            "この端末はログイン中とみなされ、これまでの経路を使い続けます。",
            "this client counts as logged in and stays on the path that it has used",
        );
        return;
    }
    let key = Key(vec![KeyPart::Mark(zone_group.mark())]);
    if let Some(trial) = trial(plan, net, question, zone_group, &key, answer) {
        answer.path = Some(trial);
        answer.outcome = Outcome::Leaves;
        return;
    }
    let current = net.ruleset.maps.get(CURRENT).and_then(|map| map.elements.get(&key)).and_then(chain_of);
    let path = current.as_deref().and_then(|chain| path_of(net, chain, &format!("use_{}_", zone_group.0)));
    match path {
        Some(path) => {
            answer.path = Some(path);
            answer.outcome = Outcome::Leaves;
        }
        None => answer.say(
            "使える経路がないため、このグループは止めています。",
            "the group is blocked: no path of its route can be used now",
        ),
    }
}

/// The path that the client tries before others do, while a canary of the group is under way.
fn trial(
    plan: &SitePlan,
    net: &NetworkPlan,
    question: &Question,
    zone_group: ZoneGroupIndex,
    key: &Key,
    answer: &mut Explanation,
) -> Option<PathId> {
    let chain = net.ruleset.maps.get(CANARY)?.elements.get(key).and_then(chain_of)?;
    let path = path_of(net, &chain, &format!("pick_{}_", zone_group.0))?;
    let of = |route: &&seimon_plan::MigrationRoute| {
        route.zone == question.from && Some(&route.group) == answer.group.as_ref()
    };
    let canary = plan.migration.routes.iter().find(of)?.canary.as_ref()?;
    let client =
        Client { address: question.address, mac: question.client, port: question.plugged.as_deref() };
    match picks(plan, canary, zone_group, client) {
        Picked::Yes => {
            answer.say(
                &format!("この端末は、新しい経路「{path}」を先に試す端末のひとつです（計画の canary）。"),
                &format!("this client is one of the few that try path {path} first (canary in the plan)"),
            );
            Some(path)
        }
        Picked::No => {
            answer.say(
                &format!("一部の端末が新しい経路「{path}」を先に試していますが、この端末は含まれません。"),
                &format!("a few clients try path {path} first; this one is not among them"),
            );
            None
        }
        Picked::Unknown => {
            answer.say(
                &format!(
                    "一部の端末が新しい経路「{path}」を先に試しています。この端末が含まれるかどうかは、通信が見えるまでわかりません。"
                ),
                &format!(
                    "a few clients try path {path} first; whether this one does is known when the gateway has heard from it"
                ),
            );
            None
        }
    }
}

/// Real addresses on the path, and what is missing there.
fn finish(plan: &SitePlan, net: &NetworkPlan, destination: Option<IpAddr>, answer: &mut Explanation) {
    let Some(index) = answer.path.as_ref().and_then(|path| net.allocation.paths.get(path)) else { return };
    let mark = KeyPart::Mark(Mark(u32::from(index.0)));
    if answer.inside.is_empty()
        && let Some(address) = destination
        && net
            .allocation
            .inside
            .values()
            .any(|(v4, v6)| address == IpAddr::V4(*v4) || address == IpAddr::V6(*v6))
    {
        answer.inside = vec![address];
    }
    for address in answer.inside.clone() {
        let (map, part) = match address {
            IpAddr::V4(v4) => (REAL4, KeyPart::Ipv4(v4)),
            IpAddr::V6(v6) => (REAL6, KeyPart::Ipv6(v6)),
        };
        let key = Key(vec![mark.clone(), part]);
        match net.ruleset.maps.get(map).and_then(|map| map.elements.get(&key)) {
            Some(Value::Ipv4(real)) => answer.real.push(IpAddr::V4(*real)),
            Some(Value::Ipv6(real)) => answer.real.push(IpAddr::V6(*real)),
            Some(Value::Verdict(_) | Value::Mark(_)) | None => {}
        }
    }
    if !answer.inside.is_empty() && answer.real.is_empty() {
        answer.say(
            "この経路での実アドレスはまだ問い合わせていません。名前を引くと決まります。",
            "the name has not been asked for on this path yet: its real address is set when it is",
        );
    }
    let no_ipv6 = answer
        .path
        .as_ref()
        .and_then(|path| plan.paths.get(path))
        .is_some_and(|path| matches!(path.ipv6, seimon_plan::PathIpv6::None));
    if no_ipv6 {
        if destination.is_some_and(|address| address.is_ipv6()) {
            answer.outcome = Outcome::Refused;
        }
        answer.say(
            "この経路に IPv6 はありません。IPv6 はすぐに断られます。",
            "this path has no IPv6: IPv6 is refused at once",
        );
    }
}
