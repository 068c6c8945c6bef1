//! Routes against permits, zones and paths; thresholds and times.

use std::time::Duration;

use ipnet::IpNet;

use super::{Context, Report, repeated};
use crate::error::text;
use crate::model::{Canary, INTERNET_GROUP, Internet, MigrationRoute, PathKind, PlanDuration};

/// Whatever a zone is permitted to reach has a route.
pub(super) fn permit_without_route(context: &Context<'_>, report: &mut Report<'_>) {
    for (i, zone, id) in context.service_permits() {
        let Some(service) = context.plan.services.get(id) else { continue };
        if context.plan.zones.contains_key(zone) && context.route(zone, &service.group).is_none() {
            let group = &service.group;
            report.at(
                &format!("permits[{i}].to"),
                text(
                    format!("no path may carry service `{id}` (group `{group}`) from zone `{zone}`"),
                    format!("ゾーン「{zone}」からサービス「{id}」（グループ「{group}」）を運べるパスがありません"),
                ),
                text(
                    format!("add to [migration] a route with zone = \"{zone}\", group = \"{group}\" and its paths"),
                    format!("[migration] に zone = \"{zone}\"、group = \"{group}\" とパスを持つ route を追加してください"),
                ),
            );
        }
    }
}

/// A service that is reached only by addresses of a family is permitted only where the zone and some path of the
/// route have that family.
pub(super) fn permit_uncarriable(context: &Context<'_>, report: &mut Report<'_>) {
    let plan = context.plan;
    for (i, zone_id, id) in context.service_permits() {
        let (Some(service), Some(zone)) = (plan.services.get(id), plan.zones.get(zone_id)) else { continue };
        let Some(route) = context.route(zone_id, &service.group) else { continue };
        if !service.names.is_empty() || service.prefixes.is_empty() {
            continue;
        }
        let path_has_ipv4 = |path| {
            plan.paths.get(path).is_some_and(|path| {
                path.kind == PathKind::Wireguard
                    || plan.lines.get(&path.line).is_some_and(|line| line.ipv4.is_some())
            })
        };
        let carried = service.prefixes.iter().any(|net| match net {
            IpNet::V4(_) => route.paths.iter().any(path_has_ipv4),
            IpNet::V6(_) => zone.ipv6.is_some() && route.paths.iter().any(|path| context.has_ipv6(path)),
        });
        if !carried && !route.paths.is_empty() {
            report.at(
                &format!("permits[{i}].to"),
                text(
                    format!(
                        "no path may carry service `{id}` from zone `{zone_id}`: the zone or all its paths lack the \
                         addresses' family"
                    ),
                    format!(
                        "ゾーン「{zone_id}」からサービス「{id}」を運べるパスがありません。ゾーンか全パスにこの種類のアドレスがありません"
                    ),
                ),
                text(
                    "add a path that has it to the route, or prefixes of the other family to the service",
                    "その種類のアドレスを持つパスを route に追加するか、サービスに別の種類のプレフィックスを追加してください",
                ),
            );
        }
    }
}

/// A route that no permit uses is a mistake in one of the two.
pub(super) fn route_without_permit(context: &Context<'_>, report: &mut Report<'_>) {
    let plan = context.plan;
    for (i, route) in plan.migration.routes.iter().enumerate() {
        let known = plan.zones.contains_key(&route.zone)
            && plan.services.values().any(|service| service.group == route.group);
        let used = context.service_permits().any(|(_, zone, id)| {
            *zone == route.zone && plan.services.get(id).is_some_and(|service| service.group == route.group)
        });
        if known && !used {
            let (zone, group) = (&route.zone, &route.group);
            report.at(
                &format!("migration.routes[{i}]"),
                text(
                    format!("zone `{zone}` has a route for group `{group}` and no permit to any of its services"),
                    format!("ゾーン「{zone}」にグループ「{group}」の route がありますが、そのサービスへの許可がありません"),
                ),
                text("add the permit, or remove the route", "許可を追加するか、route を削除してください"),
            );
        }
    }
}

/// A route names at least one path, and each once.
pub(super) fn route_paths(context: &Context<'_>, report: &mut Report<'_>) {
    for (i, route) in context.plan.migration.routes.iter().enumerate() {
        if route.paths.is_empty() {
            report.at(
                &format!("migration.routes[{i}].paths"),
                text("the route has no path", "route にパスがありません"),
                text(
                    "name the paths in order: it starts on the first and is meant for the last",
                    "順にパスを書いてください。最初のパスで始まり、最後のパスが目標です",
                ),
            );
        }
        for (_, later) in repeated(&route.paths) {
            report.at(
                &format!("migration.routes[{i}].paths[{later}]"),
                text(
                    format!("path `{}` comes twice", route.paths[later]),
                    format!("パス「{}」が 2 回あります", route.paths[later]),
                ),
                text("keep it once", "1 回だけにしてください"),
            );
        }
    }
}

/// One route a zone and group.
pub(super) fn route_twice(context: &Context<'_>, report: &mut Report<'_>) {
    let routes = &context.plan.migration.routes;
    for (_, later) in repeated(routes.iter().map(|route| (&route.zone, &route.group))) {
        let route = &routes[later];
        report.at(
            &format!("migration.routes[{later}]"),
            text(
                format!("zone `{}` and group `{}` have a route already", route.zone, route.group),
                format!("ゾーン「{}」とグループ「{}」の route は既にあります", route.zone, route.group),
            ),
            text("merge the two into one", "1 つにまとめてください"),
        );
    }
}

/// An open zone has a way to the internet.
pub(super) fn open_without_internet(context: &Context<'_>, report: &mut Report<'_>) {
    for (id, zone) in &context.plan.zones {
        let route =
            context.plan.migration.routes.iter().any(|r| r.zone == *id && r.group.as_str() == INTERNET_GROUP);
        if zone.internet == Internet::Open && !route {
            report.at(
                &format!("zones.{id}.internet"),
                text(
                    format!("zone `{id}` is open and has no route for the group `internet`"),
                    format!("ゾーン「{id}」は開放（open）ですが、グループ「internet」の route がありません"),
                ),
                text(
                    format!("add to [migration] a route with zone = \"{id}\", group = \"internet\", or write \"listed\""),
                    format!("[migration] に zone = \"{id}\"、group = \"internet\" の route を追加するか、\"listed\" と書いてください"),
                ),
            );
        }
    }
}

/// A listed zone reaches only what is permitted.
pub(super) fn listed_with_internet(context: &Context<'_>, report: &mut Report<'_>) {
    for (i, route) in context.plan.migration.routes.iter().enumerate() {
        let listed =
            context.plan.zones.get(&route.zone).is_some_and(|zone| zone.internet == Internet::Listed);
        if listed && route.group.as_str() == INTERNET_GROUP {
            report.at(
                &format!("migration.routes[{i}].group"),
                text(
                    format!("zone `{}` is listed and has a route to the internet", route.zone),
                    format!(
                        "ゾーン「{}」は許可リスト方式（listed）なのに、インターネットへの route があります",
                        route.zone
                    ),
                ),
                text(
                    "remove the route, or write `internet = \"open\"` in the zone",
                    "route を削除するか、ゾーンに `internet = \"open\"` と書いてください",
                ),
            );
        }
    }
}

/// Ports of the route's own zone, and not all of them: that would be everybody.
fn canary_ports(
    context: &Context<'_>,
    route: &MigrationRoute,
    canary: &Canary,
    place: &str,
    report: &mut Report<'_>,
) {
    let Some(zone) = context.plan.zones.get(&route.zone) else { return };
    for (j, port) in canary.ports.iter().enumerate().filter(|(_, port)| !zone.ports.contains(port)) {
        report.at(
            &format!("{place}.ports[{j}]"),
            text(
                format!("port `{port}` is none of zone `{}`", route.zone),
                format!("ポート「{port}」はゾーン「{}」のものではありません", route.zone),
            ),
            text(
                format!("name one of the zone's ports: {}", zone.ports.join(", ")),
                format!("そのゾーンのポートを書いてください: {}", zone.ports.join("、")),
            ),
        );
    }
    if !canary.ports.is_empty() && zone.ports.iter().all(|port| canary.ports.contains(port)) {
        report.at(
            &format!("{place}.ports"),
            text(
                format!("these are all ports of zone `{}`: the canary would be everybody", route.zone),
                format!("ゾーン「{}」の全ポートです。これでは対象が全員になります", route.zone),
            ),
            text(
                "leave a port out, or name `rooms` or a `share` instead",
                "ポートを減らすか、代わりに `rooms` か `share` を書いてください",
            ),
        );
    }
}

/// A canary has somebody in it and not everybody, of the route's zone, and somewhere to try.
pub(super) fn canary(context: &Context<'_>, report: &mut Report<'_>) {
    let migration = &context.plan.migration;
    for (i, route) in migration.routes.iter().enumerate() {
        let Some(canary) = &route.canary else { continue };
        let place = format!("migration.routes[{i}].canary");
        let nobody = canary.share == 0 && canary.rooms.is_empty() && canary.ports.is_empty();
        if canary.share > 99 || nobody {
            report.at(
                &place,
                text(
                    format!(
                        "a canary of {} %, {} rooms and {} ports is nobody, or everybody",
                        canary.share,
                        canary.rooms.len(),
                        canary.ports.len()
                    ),
                    format!(
                        "割合 {} %、部屋 {} か所、ポート {} 個では、対象が 0 人か全員になります",
                        canary.share,
                        canary.rooms.len(),
                        canary.ports.len()
                    ),
                ),
                text(
                    "write `share` = 1 to 99, or name `rooms` or `ports`, or remove the canary",
                    "`share` を 1〜99 で書くか、`rooms` に部屋か `ports` にポートを書くか、canary を削除してください",
                ),
            );
        }
        if route.paths.len() < 2 {
            report.at(
                &place,
                text("the route has no second path to try", "route に試す先のパスがありません"),
                text("add the path, or remove the canary", "パスを追加するか、canary を削除してください"),
            );
        }
        canary_ports(context, route, canary, &place, report);
        for (j, id) in canary.rooms.iter().enumerate() {
            if let Some(room) = migration.rooms.get(id).filter(|room| room.zone != route.zone) {
                report.at(
                    &format!("{place}.rooms[{j}]"),
                    text(
                        format!(
                            "room `{id}` is in zone `{}`, the route is of zone `{}`",
                            room.zone, route.zone
                        ),
                        format!(
                            "部屋「{id}」はゾーン「{}」にあり、この route はゾーン「{}」のものです",
                            room.zone, route.zone
                        ),
                    ),
                    text("name a room of the route's zone", "route と同じゾーンの部屋を書いてください"),
                );
            }
        }
    }
    for (id, room) in &migration.rooms {
        let Some(zone) = context.plan.zones.get(&room.zone) else { continue };
        let zone_nets = [Some(IpNet::V4(zone.ipv4.trunc())), zone.ipv6.map(|net| IpNet::V6(net.trunc()))];
        if room.prefixes.is_empty() {
            report.at(
                &format!("migration.rooms.{id}"),
                text(
                    format!("room `{id}` has no prefix"),
                    format!("部屋「{id}」にプレフィックスがありません"),
                ),
                text("write the addresses of its clients", "その部屋の端末のアドレス範囲を書いてください"),
            );
        }
        for (j, net) in room.prefixes.iter().enumerate() {
            if !zone_nets.iter().flatten().any(|zone| zone.contains(net)) {
                report.at(
                    &format!("migration.rooms.{id}.prefixes[{j}]"),
                    text(
                        format!("`{net}` is not in zone `{}`", room.zone),
                        format!("「{net}」はゾーン「{}」の範囲にありません", room.zone),
                    ),
                    text(
                        "write a part of the zone's own prefix",
                        "ゾーンのアドレス範囲の一部を書いてください",
                    ),
                );
            }
        }
    }
}

/// Thresholds that can be reached and mean something.
pub(super) fn thresholds(context: &Context<'_>, report: &mut Report<'_>) {
    let t = &context.plan.migration.thresholds;
    let mut say = |key: &str, wrong: bool, en: &str, ja: &str| {
        if wrong {
            report.at(
                &format!("migration.thresholds.{key}"),
                text(
                    format!("`{key}` makes no sense as written"),
                    format!("「{key}」の値が適切ではありません"),
                ),
                text(en, ja),
            );
        }
    };
    let within = |d: PlanDuration, low: u64, high: u64| {
        (Duration::from_millis(low)..=Duration::from_millis(high)).contains(&d.0)
    };
    say(
        "liveness_interval",
        !within(t.liveness_interval, 10, 60_000),
        "write 10ms to 60s",
        "10ms〜60s で書いてください",
    );
    say(
        "liveness_timeout",
        !within(t.liveness_timeout, 10, 60_000),
        "write 10ms to 60s",
        "10ms〜60s で書いてください",
    );
    say("down_of", !(1..=1000).contains(&t.down_of), "write 1 to 1000", "1〜1000 で書いてください");
    say(
        "down_lost",
        t.down_lost == 0 || t.down_lost > t.down_of,
        "write 1 to the value of `down_of`",
        "1 から `down_of` の値までで書いてください",
    );
    say("up_count", !(1..=1000).contains(&t.up_count), "write 1 to 1000", "1〜1000 で書いてください");
    say(
        "check_interval",
        !within(t.check_interval, 100, 86_400_000),
        "write 100ms to 1d",
        "100ms〜1d で書いてください",
    );
    say(
        "check_interval_moving",
        !within(t.check_interval_moving, 100, 86_400_000),
        "write 100ms to 1d",
        "100ms〜1d で書いてください",
    );
    say(
        "check_timeout",
        !within(t.check_timeout, 10, 120_000),
        "write 10ms to 120s",
        "10ms〜120s で書いてください",
    );
    say("ill_count", !(1..=1000).contains(&t.ill_count), "write 1 to 1000", "1〜1000 で書いてください");
    say(
        "qualify_checks",
        !(1..=10_000).contains(&t.qualify_checks),
        "write 1 to 10000",
        "1〜10000 で書いてください",
    );
    say(
        "latency_ratio",
        !(1.0..=100.0).contains(&t.latency_ratio),
        "write 1 to 100",
        "1〜100 で書いてください",
    );
    say(
        "latency_slack",
        !within(t.latency_slack, 0, 60_000),
        "write at most 60s",
        "60s 以下で書いてください",
    );
    say("loss_slack", !(0.0..=1.0).contains(&t.loss_slack), "write 0 to 1", "0〜1 で書いてください");
}

/// Phases that begin and end; idle times that are neither nothing nor for ever.
pub(super) fn times(context: &Context<'_>, report: &mut Report<'_>) {
    let day = Duration::from_secs(86_400);
    let t = &context.plan.migration.times;
    let mut entries = vec![
        ("migration.times.qualify".to_owned(), t.qualify, 7 * day),
        ("migration.times.soak".to_owned(), t.soak, 60 * day),
        ("migration.times.drain".to_owned(), t.drain, 60 * day),
        ("migration.times.hold_down".to_owned(), t.hold_down, 7 * day),
    ];
    for (i, route) in context.plan.migration.routes.iter().enumerate() {
        if let Some(canary) = &route.canary {
            entries.push((format!("migration.routes[{i}].canary.time"), canary.time, 60 * day));
        }
    }
    for (id, service) in &context.plan.services {
        entries.push((format!("services.{id}.session_idle"), service.session_idle, 7 * day));
    }
    for (place, written, most) in entries {
        if written.0.is_zero() || written.0 > most {
            report.at(
                &place,
                text(
                    format!("`{written}` is not possible here"),
                    format!("「{written}」はここでは使えません"),
                ),
                text(
                    format!("write more than 0 and at most {}", PlanDuration(most)),
                    format!("0 より長く {} 以下で書いてください", PlanDuration(most)),
                ),
            );
        }
    }
    // Checks come one an interval: with fewer than wanted, no candidate would ever qualify.
    let thresholds = &context.plan.migration.thresholds;
    let needed = thresholds.check_interval_moving.0.saturating_mul(thresholds.qualify_checks);
    if !t.qualify.0.is_zero() && needed > t.qualify.0 {
        report.at(
            "migration.times.qualify",
            text(
                format!(
                    "{} checks every {} do not fit into `qualify`, {}",
                    thresholds.qualify_checks, thresholds.check_interval_moving, t.qualify
                ),
                format!(
                    "{} 間隔の確認 {} 回は qualify の {} に収まりません",
                    thresholds.check_interval_moving, thresholds.qualify_checks, t.qualify
                ),
            ),
            text(
                "make `qualify` longer, or ask for fewer or quicker checks",
                "`qualify` を長くするか、確認の回数か間隔を減らしてください",
            ),
        );
    }
}
