//! Prefixes and addresses of the hub and what lies behind it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::model::HubPlan;
use crate::error::text;
use crate::rules::Report;
use crate::rules::addresses::{example, is_host_of, usable};

/// Addresses of the hub are ones that a host can have.
pub(super) fn address(plan: &HubPlan, report: &mut Report<'_>) {
    let mut own: Vec<(String, IpNet)> = vec![("tunnel.ipv4".to_owned(), plan.tunnel.ipv4.into())];
    own.extend(plan.tunnel.ipv6.map(|net| ("tunnel.ipv6".to_owned(), net.into())));
    for (id, line) in &plan.lines {
        own.extend(line.ipv4.map(|net| (format!("lines.{id}.ipv4"), net.into())));
        own.extend(line.ipv6.map(|net| (format!("lines.{id}.ipv6"), net.into())));
    }
    for (place, net) in own {
        if !usable(net.addr()) || !is_host_of(net) {
            report.at(
                &place,
                text(
                    format!("{net} is not an address that the hub can have"),
                    format!("{net} はハブに設定できるアドレスではありません"),
                ),
                text(
                    format!("write the hub's own address, not the network's, as in {}", example(net)),
                    format!(
                        "ネットワークアドレスではなく、{} のようにハブ自身のアドレスを書いてください",
                        example(net)
                    ),
                ),
            );
        }
    }
    let egress = plan.egress.iter();
    let four =
        egress.clone().flat_map(|e| e.ipv4.iter().enumerate()).map(|(i, a)| ("ipv4", i, IpAddr::V4(*a)));
    let six = egress.flat_map(|e| e.ipv6.iter().enumerate()).map(|(i, a)| ("ipv6", i, IpAddr::V6(*a)));
    for (key, i, address) in four.chain(six) {
        if !usable(address) {
            report.at(
                &format!("egress.{key}[{i}]"),
                text(
                    format!("nobody can be seen as {address}"),
                    format!("{address} は送信元に使えるアドレスではありません"),
                ),
                text(
                    "write the addresses that the provider has given to the hub",
                    "回線事業者からハブに割り当てられたアドレスを書いてください",
                ),
            );
        }
    }
}

/// What has IPv6 lies on a line that has it; the same for IPv4.
pub(super) fn family(plan: &HubPlan, report: &mut Report<'_>) {
    let mut check = |place: String, line: &crate::model::LineId, is_ipv4: bool| {
        let Some(known) = plan.lines.get(line) else { return };
        let (there, word) =
            if is_ipv4 { (known.ipv4.is_some(), "IPv4") } else { (known.ipv6.is_some(), "IPv6") };
        if !there {
            report.at(
                &place,
                text(
                    format!("line `{line}` has no {word}, so this leads nowhere"),
                    format!("回線「{line}」に {word} がないため、どこにも届きません"),
                ),
                text(
                    "give the line an address of that family, or remove this",
                    "回線にその種類のアドレスを設定するか、この記述を削除してください",
                ),
            );
        }
    };
    for (i, net) in plan.town.prefixes.iter().enumerate() {
        check(format!("town.prefixes[{i}]"), &plan.town.line, net.addr().is_ipv4());
    }
    if let Some(egress) = &plan.egress {
        for i in 0..egress.ipv4.len() {
            check(format!("egress.ipv4[{i}]"), &egress.line, true);
        }
        for i in 0..egress.ipv6.len() {
            check(format!("egress.ipv6[{i}]"), &egress.line, false);
        }
    }
    let tunnel_has_ipv6 = plan.tunnel.ipv6.is_some();
    for (id, school) in &plan.schools {
        let with_ipv6 = school.prefixes.iter().position(|net| net.addr().is_ipv6());
        if let Some(i) = with_ipv6.filter(|_| !tunnel_has_ipv6) {
            report.at(
                &format!("schools.{id}.prefixes[{i}]"),
                text(
                    "there is no IPv6 in the tunnel, so this prefix cannot come through it",
                    "トンネルに IPv6 がないため、このプレフィックスは通れません",
                ),
                text(
                    "add `ipv6` to [tunnel], or remove this",
                    "[tunnel] に `ipv6` を書くか、この記述を削除してください",
                ),
            );
        }
    }
}

/// The schools' questions go to servers that schools may reach.
pub(super) fn dns(plan: &HubPlan, report: &mut Report<'_>) {
    for (i, server) in plan.dns.iter().flat_map(|dns| dns.servers.iter().enumerate()) {
        if !plan.town.prefixes.iter().any(|net| net.contains(server)) {
            report.at(
                &format!("dns.servers[{i}]"),
                text(
                    format!("the server {server} is in none of the town's prefixes"),
                    format!("サーバー {server} が town.prefixes のどれにも含まれていません"),
                ),
                text(
                    "add its prefix to `town.prefixes`, or name another server",
                    "`town.prefixes` に追加するか、別のサーバーを書いてください",
                ),
            );
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Line,
    Tunnel,
    Town,
    School,
}

struct Claim {
    kind: Kind,
    owner: (String, String),
    place: String,
    net: IpNet,
}

fn claims(plan: &HubPlan) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut claim = |kind, (en, ja): (String, String), place: String, net: IpNet| {
        claims.push(Claim { kind, owner: (en, ja), place, net: net.trunc() });
    };
    for (id, line) in &plan.lines {
        let nets = [("ipv4", line.ipv4.map(IpNet::V4)), ("ipv6", line.ipv6.map(IpNet::V6))];
        for (key, net) in nets.into_iter().filter_map(|(key, net)| Some((key, net?))) {
            claim(
                Kind::Line,
                (format!("line `{id}`"), format!("回線「{id}」")),
                format!("lines.{id}.{key}"),
                net,
            );
        }
    }
    let tunnel = || ("the tunnel".to_owned(), "トンネル".to_owned());
    claim(Kind::Tunnel, tunnel(), "tunnel.ipv4".to_owned(), plan.tunnel.ipv4.into());
    if let Some(net) = plan.tunnel.ipv6 {
        claim(Kind::Tunnel, tunnel(), "tunnel.ipv6".to_owned(), net.into());
    }
    for (i, net) in plan.town.prefixes.iter().enumerate() {
        claim(Kind::Town, ("the town".to_owned(), "庁内".to_owned()), format!("town.prefixes[{i}]"), *net);
    }
    for (id, school) in &plan.schools {
        for (i, net) in school.prefixes.iter().enumerate() {
            let owner = (format!("school `{id}`"), format!("学校「{id}」"));
            claim(Kind::School, owner, format!("schools.{id}.prefixes[{i}]"), *net);
        }
    }
    claims
}

/// Nothing overlaps, except: the town's prefixes and its line, and each other.
pub(super) fn overlap(plan: &HubPlan, report: &mut Report<'_>) {
    let mut claims = claims(plan);
    // In this order whatever contains a prefix stands before it, with nothing but its other parts in between: of
    // thousands of schools each is compared with few.
    claims.sort_by_key(|claim| (claim.net.addr(), claim.net.prefix_len()));
    let mut around: Vec<&Claim> = Vec::new();
    for claim in &claims {
        around.retain(|outer| outer.net.contains(&claim.net));
        for outer in &around {
            let fine = match (outer.kind, claim.kind) {
                (Kind::Town, Kind::Town | Kind::Line) | (Kind::Line, Kind::Town) => true,
                (Kind::Line | Kind::Tunnel | Kind::Town | Kind::School, _) => false,
            };
            if fine {
                continue;
            }
            // Schools are what is added: the mistake is more likely there.
            let (here, there) = if outer.kind == Kind::School { (*outer, claim) } else { (claim, *outer) };
            report.at(
                &here.place,
                text(
                    format!("{} ({}) overlaps {} ({})", here.owner.0, here.net, there.owner.0, there.net),
                    format!("{}（{}）が{}（{}）と重なっています", here.owner.1, here.net, there.owner.1, there.net),
                ),
                text(
                    "give one of them another prefix; a school whose addresses are another's, too, translates them itself \
                     (`nat4 = \"masquerade\"` in its own plan) and has no prefixes here",
                    "どちらかのプレフィックスを変更してください。校内アドレスがほかの学校と同じ場合は、学校側の計画で \
                     `nat4 = \"masquerade\"` とし、ここには書きません",
                ),
            );
        }
        around.push(claim);
    }
}
