//! Prefixes, addresses, next hops, MTUs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Context, Report};
use crate::error::text;
use crate::model::{Line, LineId};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inside,
    Zone,
    Line,
    Hub,
    Service,
}

/// A prefix with its place and owner.
struct Claim {
    kind: Kind,
    owner: String,
    owner_ja: String,
    place: String,
    net: IpNet,
}

fn claims(context: &Context<'_>) -> Vec<Claim> {
    let plan = context.plan;
    let mut claims = Vec::new();
    let mut claim = |kind, owner: String, owner_ja: String, place: String, net: IpNet| {
        claims.push(Claim { kind, owner, owner_ja, place, net: net.trunc() });
    };
    for (key, net) in [("ipv4", IpNet::V4(plan.inside.ipv4)), ("ipv6", IpNet::V6(plan.inside.ipv6))] {
        claim(Kind::Inside, "`inside`".into(), "「inside」".into(), format!("inside.{key}"), net);
    }
    for (id, zone) in &plan.zones {
        for (key, net) in [("ipv4", Some(IpNet::V4(zone.ipv4))), ("ipv6", zone.ipv6.map(IpNet::V6))] {
            if let Some(net) = net {
                claim(
                    Kind::Zone,
                    format!("zone `{id}`"),
                    format!("ゾーン「{id}」"),
                    format!("zones.{id}.{key}"),
                    net,
                );
            }
        }
    }
    for (id, line) in &plan.lines {
        for (key, net) in [("ipv4", line.ipv4.map(IpNet::V4)), ("ipv6", line.ipv6.map(IpNet::V6))] {
            if let Some(net) = net {
                claim(
                    Kind::Line,
                    format!("line `{id}`"),
                    format!("回線「{id}」"),
                    format!("lines.{id}.{key}"),
                    net,
                );
            }
        }
    }
    for (i, net) in plan.hub.iter().flat_map(|hub| hub.prefixes.iter().enumerate()) {
        claim(Kind::Hub, "the hub".into(), "ハブ".into(), format!("hub.prefixes[{i}]"), *net);
    }
    for (id, service) in &plan.services {
        for (i, net) in service.prefixes.iter().enumerate() {
            claim(
                Kind::Service,
                format!("service `{id}`"),
                format!("サービス「{id}」"),
                format!("services.{id}.prefixes[{i}]"),
                *net,
            );
        }
    }
    claims
}

/// Nothing overlaps, except: two lines may have the very same prefix (two leased routers do), services may share
/// prefixes among each other and lie behind the hub, and on a line.
pub(super) fn overlap(context: &Context<'_>, report: &mut Report<'_>) {
    let claims = claims(context);
    for (i, later) in claims.iter().enumerate() {
        // Services come last and may overlap each other: there can be thousands of them.
        for earlier in claims[..i].iter().take_while(|claim| claim.kind != Kind::Service) {
            let overlaps = earlier.net.contains(&later.net) || later.net.contains(&earlier.net);
            let allowed = match (earlier.kind, later.kind) {
                (Kind::Line, Kind::Line) => earlier.net == later.net,
                (Kind::Hub | Kind::Line | Kind::Service, Kind::Service) => true,
                (Kind::Inside | Kind::Zone | Kind::Line | Kind::Hub | Kind::Service, _) => false,
            };
            if overlaps && !allowed {
                report.at(
                    &later.place,
                    text(
                        format!("{} ({}) overlaps {} ({})", later.owner, later.net, earlier.owner, earlier.net),
                        format!("{}（{}）が{}（{}）と重なっています", later.owner_ja, later.net, earlier.owner_ja, earlier.net),
                    ),
                    text(
                        "give one of them another prefix; only two lines behind leased routers may have the very same",
                        "どちらかのプレフィックスを変更してください。まったく同じでよいのは、リースルーター配下の 2 回線だけです",
                    ),
                );
            }
        }
    }
}

/// Whether a host can have it.
pub(crate) fn usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            !a.is_unspecified()
                && !a.is_loopback()
                && !a.is_multicast()
                && !a.is_broadcast()
                && a.octets()[0] != 0
        }
        IpAddr::V6(a) => {
            !a.is_unspecified() && !a.is_loopback() && !a.is_multicast() && a.to_ipv4_mapped().is_none()
        }
    }
}

/// Whether it is neither the prefix's network nor its broadcast address (nor, for v6, its any-router address).
pub(crate) fn is_host_of(net: IpNet) -> bool {
    match net {
        IpNet::V4(net) if net.prefix_len() >= 31 => true,
        IpNet::V4(net) => net.addr() != net.network() && net.addr() != net.broadcast(),
        IpNet::V6(net) if net.prefix_len() >= 127 => true,
        IpNet::V6(net) => net.addr() != net.network(),
    }
}

/// Addresses of the gateway and of servers are ones that a host can have.
pub(super) fn address(context: &Context<'_>, report: &mut Report<'_>) {
    let plan = context.plan;
    let mut own: Vec<(String, IpNet)> = Vec::new();
    for (id, zone) in &plan.zones {
        own.push((format!("zones.{id}.ipv4"), zone.ipv4.into()));
        own.extend(zone.ipv6.map(|net| (format!("zones.{id}.ipv6"), net.into())));
    }
    for (id, line) in &plan.lines {
        own.extend(line.ipv4.map(|net| (format!("lines.{id}.ipv4"), net.into())));
        own.extend(line.ipv6.map(|net| (format!("lines.{id}.ipv6"), net.into())));
    }
    for (id, path) in &plan.paths {
        if let Some(tunnel) = &path.wireguard {
            own.push((format!("paths.{id}.wireguard.ipv4"), tunnel.ipv4.into()));
            own.extend(tunnel.ipv6.map(|net| (format!("paths.{id}.wireguard.ipv6"), net.into())));
        }
    }
    for (place, net) in &own {
        let in_tunnel = place.starts_with("paths.");
        if !usable(net.addr()) || !(in_tunnel || is_host_of(*net)) {
            report.at(
                place,
                text(
                    format!("{net} is not an address that the gateway can have"),
                    format!("{net} はゲートウェイに設定できるアドレスではありません"),
                ),
                text(
                    format!("write the gateway's own address, not the network's, as in {}", example(*net)),
                    format!(
                        "ネットワークアドレスではなく、{} のようにゲートウェイ自身のアドレスを書いてください",
                        example(*net)
                    ),
                ),
            );
        }
        let room = match net {
            IpNet::V4(net) => net.prefix_len() <= 29,
            IpNet::V6(net) => net.prefix_len() == 64,
        };
        if place.starts_with("zones.") && !room {
            report.at(
                place,
                text(
                    format!("a zone with the prefix length {} does not work", net.prefix_len()),
                    format!("プレフィックス長 {} のゾーンは使えません", net.prefix_len()),
                ),
                text(
                    "a zone needs at least an IPv4 /29 and exactly an IPv6 /64 (clients make their own addresses)",
                    "ゾーンには IPv4 で /29 以上の広さ、IPv6 ではちょうど /64 が必要です（端末が自分でアドレスを作るため）",
                ),
            );
        }
    }
    let mut far: Vec<(String, IpAddr)> = vec![("echo.ipv4".to_owned(), plan.echo.ipv4.into())];
    far.extend(plan.echo.ipv6.map(|address| ("echo.ipv6".to_owned(), address.into())));
    for (id, path) in &plan.paths {
        far.extend(
            path.resolvers.iter().enumerate().map(|(i, a)| (format!("paths.{id}.resolvers[{i}]"), *a)),
        );
    }
    for (i, forward) in plan.dns.forward.iter().enumerate() {
        far.extend(
            forward.servers.iter().enumerate().map(|(j, a)| (format!("dns.forward[{i}].servers[{j}]"), *a)),
        );
    }
    for (id, service) in &plan.services {
        let egress = service.registered_egress.iter().enumerate();
        far.extend(egress.map(|(i, a)| (format!("services.{id}.registered_egress[{i}]"), *a)));
    }
    for (place, address) in far.iter().filter(|(_, address)| !usable(*address)) {
        report.at(
            place,
            text(
                format!("{address} is not a host's address"),
                format!("{address} はホストのアドレスではありません"),
            ),
            text("write a unicast address", "ユニキャストアドレスを書いてください"),
        );
    }
}

pub(crate) fn example(net: IpNet) -> IpNet {
    let first = match net.network() {
        IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from(u32::from(a).saturating_add(1))),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from(u128::from(a).saturating_add(1))),
    };
    IpNet::new(first, net.prefix_len()).unwrap_or(net)
}

/// The inside prefixes have room for services, path sources and probe hosts.
pub(super) fn inside(context: &Context<'_>, report: &mut Report<'_>) {
    let inside = &context.plan.inside;
    for (key, fits, en, net) in [
        (
            "ipv4",
            inside.ipv4.prefix_len() <= 24 && usable(inside.ipv4.addr().into()),
            "/24",
            IpNet::V4(inside.ipv4),
        ),
        (
            "ipv6",
            inside.ipv6.prefix_len() <= 112 && usable(inside.ipv6.addr().into()),
            "/112",
            IpNet::V6(inside.ipv6),
        ),
    ] {
        if !fits {
            report.at(
                &format!("inside.{key}"),
                text(
                    format!("{net} cannot hold the stable inside addresses"),
                    format!("{net} は校内固定アドレスには使えません"),
                ),
                text(
                    format!("write a prefix of at least {en}, as in 100.127.0.0/16 or fd53:6569:6d6f::/64"),
                    format!("100.127.0.0/16 や fd53:6569:6d6f::/64 のように、{en} 以上の広さのプレフィックスを書いてください"),
                ),
            );
        }
    }
}

/// A next hop is in the line's prefix, is not the gateway itself, and comes with an address.
pub(super) fn gateway(context: &Context<'_>, report: &mut Report<'_>) {
    next_hops(&context.plan.lines, report);
}

/// As [`gateway`], of any plan's lines.
pub(crate) fn next_hops(lines: &BTreeMap<LineId, Line>, report: &mut Report<'_>) {
    for (id, line) in lines {
        let families: [(&str, Option<IpNet>, Option<IpAddr>); 2] = [
            ("4", line.ipv4.map(IpNet::V4), line.gateway4.map(IpAddr::V4)),
            ("6", line.ipv6.map(IpNet::V6), line.gateway6.map(IpAddr::V6)),
        ];
        if families.iter().all(|(_, net, _)| net.is_none()) {
            report.at(
                &format!("lines.{id}"),
                text(format!("line `{id}` has no address"), format!("回線「{id}」にアドレスがありません")),
                text(
                    "add `ipv4` and `gateway4`, or `ipv6` and `gateway6`, or all",
                    "`ipv4` と `gateway4`、または `ipv6` と `gateway6` を追加してください",
                ),
            );
        }
        for (family, net, next_hop) in families {
            match (net, next_hop) {
                (Some(net), Some(next_hop)) => {
                    let link_local = matches!(next_hop, IpAddr::V6(a) if a.is_unicast_link_local());
                    if next_hop == net.addr() {
                        report.at(
                            &format!("lines.{id}.gateway{family}"),
                            text(
                                format!("{next_hop} is the gateway's own address"),
                                format!("{next_hop} はゲートウェイ自身のアドレスです"),
                            ),
                            text(
                                "write the address of the next router",
                                "次のルーターのアドレスを書いてください",
                            ),
                        );
                    } else if !net.contains(&next_hop) && !link_local {
                        report.at(
                            &format!("lines.{id}.gateway{family}"),
                            text(
                                format!("{next_hop} is not in {}, the prefix of line `{id}`", net.trunc()),
                                format!("{next_hop} は回線「{id}」のプレフィックス {} に含まれていません", net.trunc()),
                            ),
                            text(
                                "correct one of the two; an IPv6 next hop may also be link-local (fe80::…)",
                                "どちらかを直してください。IPv6 の次ホップはリンクローカル（fe80::…）でもかまいません",
                            ),
                        );
                    }
                }
                (Some(_), None) => report.at(
                    &format!("lines.{id}.ipv{family}"),
                    text(
                        format!("line `{id}` has `ipv{family}` and no `gateway{family}`"),
                        format!("回線「{id}」に `ipv{family}` があるのに `gateway{family}` がありません"),
                    ),
                    text(
                        format!("add `gateway{family}`, the address of the next router"),
                        format!("次のルーターのアドレスを `gateway{family}` に書いてください"),
                    ),
                ),
                (None, Some(_)) => report.at(
                    &format!("lines.{id}.gateway{family}"),
                    text(
                        format!("line `{id}` has `gateway{family}` and no `ipv{family}`"),
                        format!("回線「{id}」に `gateway{family}` があるのに `ipv{family}` がありません"),
                    ),
                    text(
                        format!("add `ipv{family}`, the gateway's own address on the line"),
                        format!("回線側のゲートウェイ自身のアドレスを `ipv{family}` に書いてください"),
                    ),
                ),
                (None, None) => {}
            }
        }
    }
}

/// 576 to 9000 bytes; with IPv6 at least 1280 (RFC 8200 section 5).
pub(super) fn mtu(context: &Context<'_>, report: &mut Report<'_>) {
    let plan = context.plan;
    let mut check = |place: String, mtu: u16, ipv6: bool, most: u16| {
        let least = if ipv6 { 1280 } else { 576 };
        if !(least..=most).contains(&mtu) {
            report.at(
                &place,
                text(
                    format!("an MTU of {mtu} bytes does not work here"),
                    format!("MTU {mtu} バイトは使えません"),
                ),
                text(
                    format!("write {least} to {most}{}", if ipv6 { " (IPv6 needs 1280)" } else { "" }),
                    format!(
                        "{least}〜{most} で書いてください{}",
                        if ipv6 { "（IPv6 には 1280 が必要です）" } else { "" }
                    ),
                ),
            );
        }
    };
    for (id, line) in &plan.lines {
        check(format!("lines.{id}.mtu"), line.mtu, line.ipv6.is_some(), 9000);
    }
    for (id, path) in &plan.paths {
        if let (Some(tunnel), Some(line)) = (&path.wireguard, plan.lines.get(&path.line)) {
            let most = line.mtu.saturating_sub(80);
            check(format!("paths.{id}.wireguard.mtu"), tunnel.mtu, tunnel.ipv6.is_some(), most);
        }
    }
}
