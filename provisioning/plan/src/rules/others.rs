//! The board and its ports, references between sections, hub, echo, forwarding, the gateway's own traffic.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, Report, repeated, suggestion};
use crate::error::text;
use crate::model::{INTERNET_GROUP, PermitTarget, ZoneId};

/// The plan is for this board.
pub(super) fn board(context: &Context<'_>, report: &mut Report<'_>) {
    let (wanted, given) = (&context.plan.site.board, &context.board.id);
    if wanted != given {
        report.at(
            "site.board",
            text(
                format!("the plan is for board `{wanted}`, this is board `{given}`"),
                format!("計画のボードは「{wanted}」ですが、この機器は「{given}」です"),
            ),
            text(
                format!(
                    "write `board = \"{given}\"` and check every port, or give the other board's descriptor"
                ),
                format!(
                    "`board = \"{given}\"` と書いて全ポートを確認するか、対応するボード定義を使ってください"
                ),
            ),
        );
    }
}

/// Every place that names a trunk, with its zone.
fn trunks<'a>(context: &'a Context<'_>) -> Vec<(String, &'a ZoneId, &'a str)> {
    let zones = context.plan.zones.iter().flat_map(|(id, zone)| {
        let place = move |i| format!("zones.{id}.trunks[{i}]");
        zone.trunks.iter().enumerate().map(move |(i, port)| (place(i), id, port.as_str()))
    });
    zones.collect()
}

/// Tags are numbers of 802.1Q, one zone's each, on ports that carry nothing untagged.
pub(super) fn vlan(context: &Context<'_>, report: &mut Report<'_>) {
    let plan = context.plan;
    for (id, zone) in &plan.zones {
        match zone.vlan {
            Some(vlan) if !(1..=4094).contains(&vlan) => report.at(
                &format!("zones.{id}.vlan"),
                text(format!("there is no VLAN {vlan}"), format!("VLAN {vlan} はありません")),
                text(
                    "write the number that the switch or access point uses for this zone: 1 to 4094",
                    "スイッチや無線アクセスポイントでこのゾーンに割り当てた番号（1〜4094）を書いてください",
                ),
            ),
            Some(vlan) if zone.trunks.is_empty() => report.at(
                &format!("zones.{id}.vlan"),
                text(
                    format!("zone `{id}` has VLAN {vlan}, and no trunk on which its frames carry that tag"),
                    format!("ゾーン「{id}」には VLAN {vlan} がありますが、それを運ぶトランクポートがありません"),
                ),
                text(
                    "name the port to the switch in `trunks`, or remove `vlan`",
                    "スイッチにつながるポートを `trunks` に書くか、`vlan` を削除してください",
                ),
            ),
            None if !zone.trunks.is_empty() => report.at(
                &format!("zones.{id}.trunks"),
                text(
                    format!("zone `{id}` has trunks, and no `vlan` by which its frames are known there"),
                    format!("ゾーン「{id}」にトランクポートがありますが、フレームを見分ける `vlan` がありません"),
                ),
                text(
                    "write `vlan` with the zone's number on the switch; for a port that is this zone's alone use `ports`",
                    "スイッチでのこのゾーンの番号を `vlan` に書いてください。このゾーン専用のポートなら `ports` を使ってください",
                ),
            ),
            Some(_) | None => {}
        }
    }
    let numbered: Vec<_> = plan.zones.iter().filter_map(|(id, zone)| Some((id, zone.vlan?))).collect();
    for (earlier, later) in repeated(numbered.iter().map(|(_, vlan)| *vlan)) {
        let ((other, vlan), (id, _)) = (numbered[earlier], numbered[later]);
        report.at(
            &format!("zones.{id}.vlan"),
            text(
                format!("VLAN {vlan} is zone `{other}`'s already: their frames could not be told apart"),
                format!("VLAN {vlan} は既にゾーン「{other}」のものです。フレームを見分けられません"),
            ),
            text("give one of them another number", "どちらかを別の番号にしてください"),
        );
    }
    let trunks = trunks(context);
    for (earlier, later) in repeated(trunks.iter().map(|(_, zone, port)| (*zone, *port))) {
        let ((other, ..), (place, zone, port)) = (&trunks[earlier], &trunks[later]);
        report.at(
            place,
            text(
                format!("zone `{zone}` names trunk `{port}` twice, also in `{other}`"),
                format!("ゾーン「{zone}」にトランクポート「{port}」が 2 回書かれています（`{other}`）"),
            ),
            text("remove one of them", "一方を削除してください"),
        );
    }
    let untagged: BTreeMap<&str, String> =
        ports(context).into_iter().map(|(place, port)| (port, place)).collect();
    for (place, _, port) in &trunks {
        if let Some(other) = untagged.get(port) {
            report.at(
                place,
                text(
                    format!("port `{port}` is a trunk, and `{other}` has untagged frames there"),
                    format!("ポート「{port}」はトランクですが、`{other}` がタグなしで使っています"),
                ),
                text(
                    "a trunk carries tagged frames only: give that zone a `vlan` on it too, or another port",
                    "トランクポートはタグ付きフレームだけを運びます。そのゾーンにも `vlan` を付けるか、別のポートにしてください",
                ),
            );
        }
    }
}

/// Every place that names a port which is one line's or one zone's alone.
fn ports<'a>(context: &'a Context<'_>) -> Vec<(String, &'a str)> {
    let plan = context.plan;
    let lines = plan.lines.iter().map(|(id, line)| (format!("lines.{id}.port"), line.port.as_str()));
    let zones = plan.zones.iter().flat_map(|(id, zone)| {
        zone.ports.iter().enumerate().map(move |(i, port)| (format!("zones.{id}.ports[{i}]"), port.as_str()))
    });
    lines.chain(zones).collect()
}

/// The board has every port that the plan names.
pub(super) fn port_unknown(context: &Context<'_>, report: &mut Report<'_>) {
    let trunks = trunks(context).into_iter().map(|(place, _, port)| (place, port));
    for (place, port) in ports(context).into_iter().chain(trunks) {
        if context.board.interface_of(port).is_none() {
            report.at(
                &place,
                text(
                    format!("board `{}` has no port `{port}`", context.board.id),
                    format!("ボード「{}」にポート「{port}」はありません", context.board.id),
                ),
                suggestion(port, context.board.ports.keys().map(String::as_str)),
            );
        }
    }
}

/// A port belongs to one line or one zone.
pub(super) fn port_twice(context: &Context<'_>, report: &mut Report<'_>) {
    let ports = ports(context);
    for (earlier, later) in repeated(ports.iter().map(|(_, port)| *port)) {
        let (place, port) = &ports[later];
        let other = &ports[earlier].0;
        report.at(
            place,
            text(
                format!("port `{port}` is used already, by `{other}`"),
                format!("ポート「{port}」は既に「{other}」で使われています"),
            ),
            text("give one of them another port", "どちらかを別のポートにしてください"),
        );
    }
}

/// Names and lists that must not be empty.
pub(super) fn empty(context: &Context<'_>, report: &mut Report<'_>) {
    let plan = context.plan;
    let mut lists = vec![
        ("site.name".to_owned(), plan.site.name.trim().is_empty()),
        ("lines".to_owned(), plan.lines.is_empty()),
        ("paths".to_owned(), plan.paths.is_empty()),
        ("zones".to_owned(), plan.zones.is_empty()),
    ];
    lists.extend(
        plan.zones
            .iter()
            .map(|(id, zone)| (format!("zones.{id}.ports"), zone.ports.is_empty() && zone.trunks.is_empty())),
    );
    for (place, empty) in lists {
        if empty {
            report.at(
                &place,
                text(format!("`{place}` is empty"), format!("「{place}」が空です")),
                text("write at least one entry", "1 つ以上書いてください"),
            );
        }
    }
}

/// Whatever a section refers to exists.
pub(super) fn unknown_reference(context: &Context<'_>, report: &mut Report<'_>) {
    let plan = context.plan;
    let lines: BTreeSet<&str> = plan.lines.keys().map(|id| id.as_str()).collect();
    let paths: BTreeSet<&str> = plan.paths.keys().map(|id| id.as_str()).collect();
    let zones: BTreeSet<&str> = plan.zones.keys().map(|id| id.as_str()).collect();
    let rooms: BTreeSet<&str> = plan.migration.rooms.keys().map(|id| id.as_str()).collect();
    let services: BTreeSet<&str> = plan.services.keys().map(|id| id.as_str()).collect();
    let groups: BTreeSet<&str> =
        plan.services.values().map(|service| service.group.as_str()).chain([INTERNET_GROUP]).collect();
    let mut refer = |place: String, kind: (&str, &str), id: &str, known: &BTreeSet<&str>| {
        if !known.contains(id) {
            let (en, ja) = kind;
            report.at(
                &place,
                text(format!("there is no {en} `{id}`"), format!("{ja}「{id}」はありません")),
                suggestion(id, known.iter().copied()),
            );
        }
    };
    let (line, path, zone) = (("line", "回線"), ("path", "パス"), ("zone", "ゾーン"));
    let (service, group) = (("service", "サービス"), ("service group", "サービスグループ"));
    for (id, written) in &plan.paths {
        refer(format!("paths.{id}.line"), line, written.line.as_str(), &lines);
    }
    for (i, permit) in plan.permits.iter().enumerate() {
        refer(format!("permits[{i}].from"), zone, permit.from.as_str(), &zones);
        match &permit.to {
            PermitTarget::Service(id) => refer(format!("permits[{i}].to"), service, id.as_str(), &services),
            PermitTarget::Zone(id) => refer(format!("permits[{i}].to"), zone, id.as_str(), &zones),
        }
    }
    if let Some(hub) = &plan.hub {
        refer("hub.path".to_owned(), path, hub.path.as_str(), &paths);
        for (i, id) in hub.zones.iter().enumerate() {
            refer(format!("hub.zones[{i}]"), zone, id.as_str(), &zones);
        }
    }
    for (i, id) in plan.proxy.iter().flat_map(|proxy| &proxy.zones).enumerate() {
        refer(format!("proxy.zones[{i}]"), zone, id.as_str(), &zones);
    }
    for (i, forward) in plan.dns.forward.iter().enumerate() {
        if let Some(id) = &forward.path {
            refer(format!("dns.forward[{i}].path"), path, id.as_str(), &paths);
        }
        for (j, id) in forward.zones.iter().enumerate() {
            refer(format!("dns.forward[{i}].zones[{j}]"), zone, id.as_str(), &zones);
        }
    }
    for (i, id) in plan.gateway.paths.iter().enumerate() {
        refer(format!("gateway.paths[{i}]"), path, id.as_str(), &paths);
    }
    for (i, route) in plan.migration.routes.iter().enumerate() {
        refer(format!("migration.routes[{i}].zone"), zone, route.zone.as_str(), &zones);
        refer(format!("migration.routes[{i}].group"), group, route.group.as_str(), &groups);
        for (j, id) in route.paths.iter().enumerate() {
            refer(format!("migration.routes[{i}].paths[{j}]"), path, id.as_str(), &paths);
        }
        for (j, id) in route.emergency.iter().enumerate() {
            refer(format!("migration.routes[{i}].emergency[{j}]"), path, id.as_str(), &paths);
        }
        for (j, id) in route.canary.iter().flat_map(|canary| &canary.rooms).enumerate() {
            refer(format!("migration.routes[{i}].canary.rooms[{j}]"), ("room", "部屋"), id.as_str(), &rooms);
        }
    }
    for (id, room) in &plan.migration.rooms {
        refer(format!("migration.rooms.{id}.zone"), zone, room.zone.as_str(), &zones);
    }
}

/// A hub has prefixes, each reachable over its path, and zones that may reach them.
pub(super) fn hub(context: &Context<'_>, report: &mut Report<'_>) {
    let Some(hub) = &context.plan.hub else { return };
    for (key, empty) in [("prefixes", hub.prefixes.is_empty()), ("zones", hub.zones.is_empty())] {
        if empty {
            report.at(
                &format!("hub.{key}"),
                text(format!("the hub has no {key}"), format!("ハブの「{key}」が空です")),
                text("add some, or remove [hub]", "追加するか、[hub] を削除してください"),
            );
        }
    }
    for (i, net) in hub.prefixes.iter().enumerate() {
        let v6 = matches!(net, ipnet::IpNet::V6(_));
        if v6 && context.plan.paths.contains_key(&hub.path) && !context.has_ipv6(&hub.path) {
            report.at(
                &format!("hub.prefixes[{i}]"),
                text(
                    format!("{net} cannot be reached: path `{}` has no IPv6", hub.path),
                    format!("パス「{}」に IPv6 がないため、{net} に到達できません", hub.path),
                ),
                text("remove it, or give the path IPv6", "削除するか、パスに IPv6 を設定してください"),
            );
        }
        if net.prefix_len() == 0 {
            report.at(
                &format!("hub.prefixes[{i}]"),
                text("the hub cannot be the whole internet", "ハブをインターネット全体にはできません"),
                text("write the town's own prefixes", "自治体のプレフィックスを書いてください"),
            );
        }
    }
}

/// The echo service is elsewhere.
pub(super) fn echo(context: &Context<'_>, report: &mut Report<'_>) {
    let plan = context.plan;
    let own = |address: std::net::IpAddr| {
        let inside = [ipnet::IpNet::V4(plan.inside.ipv4), ipnet::IpNet::V6(plan.inside.ipv6)];
        let zones = plan.zones.values().flat_map(|zone| {
            [Some(ipnet::IpNet::V4(zone.ipv4)), zone.ipv6.map(ipnet::IpNet::V6)].into_iter().flatten()
        });
        inside.into_iter().chain(zones).any(|net| net.contains(&address))
    };
    let addresses =
        [("ipv4", Some(plan.echo.ipv4.into())), ("ipv6", plan.echo.ipv6.map(std::net::IpAddr::V6))];
    for (key, address) in addresses {
        if let Some(address) = address.filter(|address| own(*address)) {
            report.at(
                &format!("echo.{key}"),
                text(
                    format!("{address} is inside the school, so an answer says nothing about a path"),
                    format!("{address} は校内のアドレスなので、応答があってもパスの状態が分かりません"),
                ),
                text(
                    "write the address of the municipality's echo service",
                    "自治体のエコーサービスのアドレスを書いてください",
                ),
            );
        }
    }
}

/// A forwarded domain has servers that its path can reach, and zones that ask; each domain once a zone.
pub(super) fn forward(context: &Context<'_>, report: &mut Report<'_>) {
    let mut seen = BTreeMap::new();
    for (i, forward) in context.plan.dns.forward.iter().enumerate() {
        for (key, empty) in [("servers", forward.servers.is_empty()), ("zones", forward.zones.is_empty())] {
            if empty {
                report.at(
                    &format!("dns.forward[{i}].{key}"),
                    text(
                        format!("the domain `{}` has no {key}", forward.domain),
                        format!("ドメイン「{}」の「{key}」が空です", forward.domain),
                    ),
                    text("write at least one", "1 つ以上書いてください"),
                );
            }
        }
        for (j, server) in forward.servers.iter().enumerate() {
            if let Some(path) = &forward.path
                && server.is_ipv6()
                && context.plan.paths.contains_key(path)
                && !context.has_ipv6(path)
            {
                report.at(
                    &format!("dns.forward[{i}].servers[{j}]"),
                    text(
                        format!("server {server} cannot be asked: path `{path}` has no IPv6"),
                        format!("パス「{path}」に IPv6 がないため、サーバー {server} に問い合わせできません"),
                    ),
                    text("remove it, or give the path IPv6", "削除するか、パスに IPv6 を設定してください"),
                );
            }
        }
        for (j, zone) in forward.zones.iter().enumerate() {
            if seen.insert((&forward.domain, zone), i).is_some() {
                report.at(
                    &format!("dns.forward[{i}].zones[{j}]"),
                    text(
                        format!("zone `{zone}` has an entry for `{}` already", forward.domain),
                        format!("ゾーン「{zone}」には「{}」の設定が既にあります", forward.domain),
                    ),
                    text("keep one of the two", "どちらか一方を残してください"),
                );
            }
        }
    }
}

/// The gateway has a way out for itself.
pub(super) fn gateway_paths(context: &Context<'_>, report: &mut Report<'_>) {
    let paths = &context.plan.gateway.paths;
    if paths.is_empty() {
        report.at(
            "gateway.paths",
            text("the gateway itself has no path", "ゲートウェイ自身のパスがありません"),
            text(
                "name the paths for its own traffic, best first",
                "ゲートウェイ自身の通信に使うパスを優先順に書いてください",
            ),
        );
    }
    for (_, later) in repeated(paths) {
        report.at(
            &format!("gateway.paths[{later}]"),
            text(
                format!("path `{}` comes twice", paths[later]),
                format!("パス「{}」が 2 回あります", paths[later]),
            ),
            text("keep it once", "1 回だけにしてください"),
        );
    }
}
