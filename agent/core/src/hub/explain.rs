//! Whether a school reaches an address through the hub, and why, in words for people.

use std::net::IpAddr;

use ipnet::IpNet;
use seimon_plan::{HubPlan, HubSchool, Nat4, SiteId};

use super::{egress4, egress6, sources};
use crate::status::Sentence;

/// Whose an address is, as the hub sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    School(&'a SiteId),
    Hub,
    Town,
    Elsewhere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubOutcome {
    /// To the town's network.
    ToTown,
    /// By the egress line.
    ToInternet,
    /// To the hub itself: it answers pings.
    ToHub,
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubAnswer {
    pub outcome: HubOutcome,
    pub school: Option<SiteId>,
    /// The key of the plan that decides.
    pub rule: &'static str,
    /// The address that the far side sees it under; `None`: nobody sees it.
    pub seen_as: Option<IpAddr>,
    pub why: Vec<Sentence>,
}

/// The school that has the address.
pub fn school_of(plan: &HubPlan, address: IpAddr) -> Option<(&SiteId, &HubSchool)> {
    let longest = |school: &HubSchool| {
        sources(school).filter(|net| net.contains(&address)).map(|net| net.prefix_len()).max()
    };
    let found = plan.schools.iter().filter_map(|(id, school)| Some((longest(school)?, id, school)));
    found.max_by_key(|(length, _, _)| *length).map(|(_, id, school)| (id, school))
}

fn who(plan: &HubPlan, address: IpAddr) -> Who<'_> {
    let own = [Some(IpNet::V4(plan.tunnel.ipv4)), plan.tunnel.ipv6.map(IpNet::V6)];
    let lines = plan.lines.values();
    let on_lines = lines.flat_map(|line| [line.ipv4.map(IpNet::V4), line.ipv6.map(IpNet::V6)]);
    let egress = plan.egress.iter();
    let pool = egress
        .flat_map(|e| e.ipv4.iter().copied().map(IpAddr::V4).chain(e.ipv6.iter().copied().map(IpAddr::V6)));
    if own.into_iter().chain(on_lines).flatten().any(|net| net.addr() == address)
        || pool.into_iter().any(|own| own == address)
    {
        return Who::Hub;
    }
    if let Some((id, _)) = school_of(plan, address) {
        return Who::School(id);
    }
    if plan.town.prefixes.iter().any(|net| net.contains(&address)) { Who::Town } else { Who::Elsewhere }
}

fn sentence(ja: impl Into<String>, en: impl Into<String>) -> Sentence {
    Sentence { ja: ja.into(), en: en.into() }
}

/// What becomes of a flow from a school's address. `port` and whether it is DNS matter only for the hub's own address.
pub fn explain(plan: &HubPlan, from: IpAddr, to: IpAddr, port: Option<u16>) -> HubAnswer {
    let Some((id, school)) = school_of(plan, from) else {
        let why = sentence(
            format!(
                "{from} はどの学校のアドレスでもありません。トンネルから来ても、市の側から来ても、通しません。"
            ),
            format!(
                "{from} is no school's address: it is let through neither from the tunnel nor from the town"
            ),
        );
        return HubAnswer {
            outcome: HubOutcome::Refused,
            school: None,
            rule: "schools",
            seen_as: None,
            why: vec![why],
        };
    };
    let answer =
        |outcome, rule, seen_as, why| HubAnswer { outcome, school: Some(id.clone()), rule, seen_as, why };
    let refused = |rule, why| answer(HubOutcome::Refused, rule, None, vec![why]);
    if from.is_ipv4() != to.is_ipv4() {
        return refused(
            "tunnel",
            sentence("IPv4 と IPv6 の間では通信できません。", "IPv4 does not speak to IPv6"),
        );
    }
    let mut tunnel = plan.tunnel.ipv6.map(IpNet::V6).into_iter().chain([IpNet::V4(plan.tunnel.ipv4)]);
    let in_tunnel = tunnel.any(|net| net.contains(&to));
    match who(plan, to) {
        Who::Hub if port == Some(53) && is_tunnel_address(plan, to) => match servers(plan, to) {
            servers if servers.is_empty() => refused(
                "dns",
                sentence(
                    "このハブには名前解決の設定がありません。",
                    "the hub has no DNS servers in its plan",
                ),
            ),
            servers => answer(
                HubOutcome::ToTown,
                "dns",
                seen_in_town(plan, from),
                vec![sentence(
                    format!("名前の問い合わせを {} へ順に渡します。", servers.join("、")),
                    format!("questions go to {} in turns", servers.join(", ")),
                )],
            ),
        },
        Who::Hub => answer(
            HubOutcome::ToHub,
            "tunnel",
            None,
            vec![sentence(
                "ハブ自身のアドレスです。ping にだけ答えます。",
                "this is the hub itself, which answers pings and nothing else",
            )],
        ),
        Who::School(other) => refused(
            "schools",
            sentence(
                format!("学校「{other}」のアドレスです。学校どうしは通信できません。"),
                format!("this is school `{other}`: schools do not reach each other"),
            ),
        ),
        Who::Town | Who::Elsewhere if in_tunnel => refused(
            "tunnel",
            sentence(
                "トンネルの中の、どの学校にも割り当てていないアドレスです。",
                "this is an address in the tunnel that no school has",
            ),
        ),
        Who::Town => {
            let why = match plan.town.nat4 {
                Nat4::Routed => sentence(
                    "庁内のサーバーには、学校のアドレスのまま届きます。",
                    "the town's servers see the school's address",
                ),
                Nat4::Masquerade => sentence(
                    "庁内のサーバーには、ハブのアドレスで届きます。",
                    "the town's servers see the hub's address",
                ),
            };
            answer(HubOutcome::ToTown, "town.prefixes", seen_in_town(plan, from), vec![why])
        }
        Who::Elsewhere => to_internet(plan, id, school, to, answer),
    }
}

fn to_internet(
    plan: &HubPlan,
    id: &SiteId,
    school: &HubSchool,
    to: IpAddr,
    answer: impl Fn(HubOutcome, &'static str, Option<IpAddr>, Vec<Sentence>) -> HubAnswer,
) -> HubAnswer {
    let seen_as = match to {
        IpAddr::V4(_) => egress4(plan, id, school).map(IpAddr::V4),
        IpAddr::V6(_) => egress6(plan, id).map(IpAddr::V6),
    };
    match seen_as {
        Some(address) => answer(
            HubOutcome::ToInternet,
            "egress",
            seen_as,
            vec![sentence(
                format!("相手からは {address} に見えます。この学校は、いつもこのアドレスです。"),
                format!("the far side sees {address}, which this school keeps"),
            )],
        ),
        None => answer(
            HubOutcome::Refused,
            "egress",
            None,
            vec![sentence(
                "庁内のアドレスではなく、ハブからインターネットへ出る設定（egress）もありません。",
                "this is not in the town's prefixes, and the plan has no way to the internet (egress) for it",
            )],
        ),
    }
}

fn is_tunnel_address(plan: &HubPlan, address: IpAddr) -> bool {
    address == IpAddr::V4(plan.tunnel.ipv4.addr())
        || plan.tunnel.ipv6.is_some_and(|net| address == IpAddr::V6(net.addr()))
}

fn servers(plan: &HubPlan, asked: IpAddr) -> Vec<String> {
    let all = plan.dns.iter().flat_map(|dns| &dns.servers);
    all.filter(|server| server.is_ipv4() == asked.is_ipv4()).map(ToString::to_string).collect()
}

fn seen_in_town(plan: &HubPlan, from: IpAddr) -> Option<IpAddr> {
    match (plan.town.nat4, from) {
        (Nat4::Masquerade, IpAddr::V4(_)) => {
            plan.lines.get(&plan.town.line)?.ipv4.map(|net| IpAddr::V4(net.addr()))
        }
        (Nat4::Routed | Nat4::Masquerade, _) => Some(from),
    }
}
