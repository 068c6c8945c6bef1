//! The town hall's proxy: where it is, and who can reach it.

use super::{Context, Report, repeated};
use crate::error::text;

/// The proxy is behind the hub, and the zones that are to use it can get there.
pub(super) fn proxy(context: &Context<'_>, report: &mut Report<'_>) {
    let Some(proxy) = &context.plan.proxy else { return };
    if proxy.zones.is_empty() {
        report.at(
            "proxy.zones",
            text("no zone uses the proxy", "プロキシを使うゾーンがありません"),
            text("name the zones, or remove [proxy]", "ゾーンを書くか、[proxy] を削除してください"),
        );
    }
    for (_, later) in repeated(&proxy.zones) {
        report.at(
            &format!("proxy.zones[{later}]"),
            text(
                format!("zone `{}` comes twice", proxy.zones[later]),
                format!("ゾーン「{}」が 2 回あります", proxy.zones[later]),
            ),
            text("keep it once", "1 回だけにしてください"),
        );
    }
    let hub = context.plan.hub.as_ref();
    if !hub.is_some_and(|hub| hub.prefixes.iter().any(|net| net.contains(&proxy.address))) {
        report.at(
            "proxy.address",
            text(
                format!("the proxy {} is not behind the hub", proxy.address),
                format!("プロキシ {} はハブの範囲にありません", proxy.address),
            ),
            text(
                "add its address to `hub.prefixes`, or correct it",
                "`hub.prefixes` にその番号を加えるか、番号を直してください",
            ),
        );
        return;
    }
    for (i, zone) in proxy.zones.iter().enumerate() {
        if !hub.is_some_and(|hub| hub.zones.contains(zone)) {
            report.at(
                &format!("proxy.zones[{i}]"),
                text(
                    format!("zone `{zone}` cannot reach the hub, and so not the proxy"),
                    format!("ゾーン「{zone}」はハブに到達できないため、プロキシを使えません"),
                ),
                text(
                    "add the zone to `hub.zones`, or remove it here",
                    "`hub.zones` に加えるか、ここから削除してください",
                ),
            );
        }
    }
}
