//! Services and permits by themselves.

use std::collections::BTreeMap;

use super::{Context, Report, repeated, suggestion};
use crate::error::text;
use crate::model::{INTERNET_GROUP, PermitTarget, Protocol, ServiceId};

/// A service is reachable by something, on something.
pub(super) fn empty(context: &Context<'_>, report: &mut Report<'_>) {
    for (id, service) in &context.plan.services {
        if service.names.is_empty() && service.prefixes.is_empty() {
            report.at(
                &format!("services.{id}"),
                text(
                    format!("service `{id}` has neither names nor prefixes"),
                    format!("サービス「{id}」に名前もプレフィックスもありません"),
                ),
                text(
                    "add `names`, `prefixes` or both",
                    "`names` か `prefixes`、または両方を追加してください",
                ),
            );
        }
        if service.ports.is_empty() {
            report.at(
                &format!("services.{id}.ports"),
                text(format!("service `{id}` has no ports"), format!("サービス「{id}」にポートがありません")),
                text(
                    "add for example `ports = [\"tcp/443\"]`",
                    "`ports = [\"tcp/443\"]` のように追加してください",
                ),
            );
        }
    }
}

/// A name belongs to one service: it has one inside address a zone.
pub(super) fn name_twice(context: &Context<'_>, report: &mut Report<'_>) {
    let mut owners: BTreeMap<&str, &ServiceId> = BTreeMap::new();
    for (id, service) in &context.plan.services {
        for (i, name) in service.names.iter().enumerate() {
            if let Some(owner) = owners.insert(name, id) {
                report.at(
                    &format!("services.{id}.names[{i}]"),
                    text(
                        format!("`{name}` is also a name of service `{owner}`"),
                        format!("「{name}」はサービス「{owner}」の名前でもあります"),
                    ),
                    text("keep it in one of them", "どちらか一方に残してください"),
                );
            }
        }
    }
}

/// `internet` is what no service names.
pub(super) fn reserved_group(context: &Context<'_>, report: &mut Report<'_>) {
    for (id, service) in &context.plan.services {
        if service.group.as_str() == INTERNET_GROUP {
            report.at(
                &format!("services.{id}.group"),
                text(
                    "the group `internet` is reserved for what open zones reach besides named services",
                    "グループ名「internet」は、開放ゾーンが名前付きサービス以外に到達する先のために予約されています",
                ),
                text("choose another word for the group", "別のグループ名にしてください"),
            );
        }
    }
}

/// A health check asks for one of the service's names, on one of its ports.
pub(super) fn health(context: &Context<'_>, report: &mut Report<'_>) {
    for (id, service) in &context.plan.services {
        let Some(health) = &service.health else { continue };
        if !service.names.contains(&health.name) {
            report.at(
                &format!("services.{id}.health.name"),
                text(
                    format!("`{}` is not a name of service `{id}`", health.name),
                    format!("「{}」はサービス「{id}」の名前ではありません", health.name),
                ),
                suggestion(&health.name, service.names.iter().map(String::as_str)),
            );
        }
        let served = |port: &&crate::model::PortSpec| {
            port.protocol == Protocol::Tcp && (port.first..=port.last).contains(&health.port)
        };
        if !service.ports.is_empty() && !service.ports.iter().any(|port| served(&port)) {
            report.at(
                &format!("services.{id}.health.port"),
                text(
                    format!("the check uses tcp/{}, which is not a port of service `{id}`", health.port),
                    format!("確認に使う tcp/{} は、サービス「{id}」のポートではありません", health.port),
                ),
                text(
                    "add the port to the service, or check another",
                    "サービスにポートを追加するか、別のポートで確認してください",
                ),
            );
        }
        if !health.path.starts_with('/') || health.path.chars().any(|c| !c.is_ascii_graphic()) {
            report.at(
                &format!("services.{id}.health.path"),
                text(
                    format!("`{}` is not a path", health.path),
                    format!("「{}」はパスではありません", health.path),
                ),
                text(
                    "write it as in `/health`, without spaces",
                    "`/health` のように空白なしで書いてください",
                ),
            );
        }
        if health.body.is_empty() {
            report.at(
                &format!("services.{id}.health.body"),
                text(
                    "an empty `body` is in every answer, an error page included",
                    "空の `body` はエラーページを含むどの応答にも一致します",
                ),
                text(
                    "write a text that only a healthy answer contains",
                    "正常な応答だけに含まれる文字列を書いてください",
                ),
            );
        }
    }
}

/// A zone need not be permitted to reach itself.
pub(super) fn permit_self(context: &Context<'_>, report: &mut Report<'_>) {
    for (i, permit) in context.plan.permits.iter().enumerate() {
        if matches!(&permit.to, PermitTarget::Zone(zone) if *zone == permit.from) {
            report.at(
                &format!("permits[{i}].to"),
                text(
                    format!("the permit is from zone `{}` to itself", permit.from),
                    format!("ゾーン「{}」から自分自身への許可です", permit.from),
                ),
                text(
                    "remove it: machines of one zone reach each other without the gateway",
                    "削除してください。同じゾーンの機器どうしはゲートウェイなしで通信できます",
                ),
            );
        }
    }
}

/// Two permits for the same thing would run out at two dates.
pub(super) fn permit_twice(context: &Context<'_>, report: &mut Report<'_>) {
    let permits = &context.plan.permits;
    for (earlier, later) in repeated(permits.iter().map(|permit| (&permit.from, &permit.to, &permit.ports))) {
        report.at(
            &format!("permits[{later}].to"),
            text(
                format!(
                    "zone `{}` has this permit to `{}` already (permit {})",
                    permits[later].from,
                    permits[later].to,
                    earlier + 1
                ),
                format!(
                    "ゾーン「{}」から「{}」への同じ許可が既にあります（{} 番目）",
                    permits[later].from,
                    permits[later].to,
                    earlier + 1
                ),
            ),
            text("keep one of the two", "どちらか一方を残してください"),
        );
    }
}

/// Services name their own ports.
pub(super) fn permit_ports(context: &Context<'_>, report: &mut Report<'_>) {
    for (i, permit) in context.plan.permits.iter().enumerate() {
        if matches!(permit.to, PermitTarget::Service(_)) && !permit.ports.is_empty() {
            report.at(
                &format!("permits[{i}].ports"),
                text(
                    "a permit to a service has no ports of its own",
                    "サービスへの許可に独自のポートは指定できません",
                ),
                text(
                    "remove `ports`: the service's are used",
                    "`ports` を削除してください。サービスのポートが使われます",
                ),
            );
        }
    }
}

/// Somebody answers for every permit, with a reason.
pub(super) fn permit_words(context: &Context<'_>, report: &mut Report<'_>) {
    for (i, permit) in context.plan.permits.iter().enumerate() {
        for (key, written) in [("who", &permit.who), ("why", &permit.why)] {
            if written.trim().is_empty() {
                report.at(
                    &format!("permits[{i}].{key}"),
                    text(format!("`{key}` is empty"), format!("「{key}」が空です")),
                    text(
                        "say who answers for this permit and what it is needed for",
                        "許可の責任者と理由を書いてください",
                    ),
                );
            }
        }
    }
}
