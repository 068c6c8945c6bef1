//! Emergency lines: nothing goes over them but what says so, and only as a last resort.

use super::{Context, Report, repeated};
use crate::error::text;
use crate::model::{LineRole, Metered, PathId, PathIpv6};

/// Paths over emergency lines stand in `emergency` of routes and nowhere else; what they may cost comes with the role.
pub(super) fn emergency(context: &Context<'_>, report: &mut Report<'_>) {
    let plan = context.plan;
    for (id, line) in &plan.lines {
        if line.role == LineRole::Ordinary && line.metered.is_some() {
            report.at(
                &format!("lines.{id}.metered"),
                text(
                    format!("line `{id}` is an ordinary line and has limits of an emergency line"),
                    format!("回線「{id}」は通常の回線なのに、非常用回線の上限があります"),
                ),
                text(
                    "write `role = \"emergency\"`, or remove this table",
                    "`role = \"emergency\"` と書くか、このテーブルを削除してください",
                ),
            );
        }
    }
    let is_emergency = |path: &PathId| plan.is_emergency(path);
    let mut ordinary: Vec<(String, &PathId)> = Vec::new();
    for (i, route) in plan.migration.routes.iter().enumerate() {
        let place = |j: usize| format!("migration.routes[{i}].paths[{j}]");
        ordinary.extend(route.paths.iter().enumerate().map(|(j, path)| (place(j), path)));
    }
    ordinary.extend(plan.hub.iter().map(|hub| ("hub.path".to_owned(), &hub.path)));
    let gateway = plan.gateway.paths.iter().enumerate();
    ordinary.extend(gateway.map(|(i, path)| (format!("gateway.paths[{i}]"), path)));
    let forwards = plan.dns.forward.iter().enumerate();
    ordinary.extend(
        forwards.filter_map(|(i, forward)| Some((format!("dns.forward[{i}].path"), forward.path.as_ref()?))),
    );
    for (place, path) in ordinary.into_iter().filter(|(_, path)| is_emergency(path)) {
        report.at(
            &place,
            text(
                format!("path `{path}` is over an emergency line"),
                format!("パス「{path}」は非常用回線のパスです"),
            ),
            text(
                "name it in `emergency` of a route only: it is never moved to, and used while all else is dead",
                "route の `emergency` にだけ書いてください。移行先にはならず、ほかがすべて不通のときだけ使われます",
            ),
        );
    }
    for (i, route) in plan.migration.routes.iter().enumerate() {
        for (_, later) in repeated(&route.emergency) {
            report.at(
                &format!("migration.routes[{i}].emergency[{later}]"),
                text(
                    format!("path `{}` comes twice", route.emergency[later]),
                    format!("パス「{}」が 2 回あります", route.emergency[later]),
                ),
                text("keep it once", "1 回だけにしてください"),
            );
        }
        for (j, path) in route.emergency.iter().enumerate() {
            if plan.paths.contains_key(path) && !is_emergency(path) {
                report.at(
                    &format!("migration.routes[{i}].emergency[{j}]"),
                    text(
                        format!("path `{path}` is not over an emergency line"),
                        format!("パス「{path}」は非常用回線のパスではありません"),
                    ),
                    text(
                        "write `role = \"emergency\"` at its line, or put the path into `paths`",
                        "回線に `role = \"emergency\"` と書くか、パスを `paths` に移してください",
                    ),
                );
            }
        }
    }
    for (id, path) in plan.paths.iter().filter(|(id, _)| is_emergency(id)) {
        if path.ipv6 != PathIpv6::None {
            report.at(
                &format!("paths.{id}.ipv6"),
                text(
                    format!("path `{id}` is over an emergency line: IPv6 is not supported there"),
                    format!("非常用回線のパス「{id}」では IPv6 は使えません"),
                ),
                text("write `ipv6 = \"none\"`", "`ipv6 = \"none\"` と書いてください"),
            );
        }
        let Some(line) = plan.lines.get(&path.line) else { continue };
        let metered = line.metered.clone().unwrap_or_default();
        let Metered { probe_kb_per_day, .. } = metered;
        if metered.watch_every(path.wireguard.as_ref()).is_none() {
            let place = match line.metered {
                Some(_) => format!("lines.{}.metered.probe_kb_per_day", path.line),
                None => format!("lines.{}.role", path.line),
            };
            report.at(
                &place,
                text(
                    format!("{probe_kb_per_day} kB a day are too little to see whether path `{id}` is alive"),
                    format!("1 日 {probe_kb_per_day} kB では、パス「{id}」が使えるかを見張れません"),
                ),
                text(
                    "allow more (a tunnel needs some 600 kB a day), or make the tunnel's `keepalive` longer",
                    "増やしてください（トンネルでは 1 日 600 kB ほど必要です）。またはトンネルの `keepalive` を長くしてください",
                ),
            );
        }
    }
}
