//! What a path needs from its line and its tunnel.

use std::net::IpAddr;

use super::{Context, Report};
use crate::error::text;
use crate::model::{Endpoint, PathIpv6, PathKind};
use crate::valid::endpoint_resolvers;

/// Words of the format that this version does not carry out.
pub(super) fn not_supported(context: &Context<'_>, report: &mut Report<'_>) {
    for (id, _) in context.plan.paths.iter().filter(|(_, path)| path.ipv6 == PathIpv6::Nptv6) {
        report.at(
            &format!("paths.{id}.ipv6"),
            text(
                "`nptv6` (prefix translation) is not supported by this version",
                "`nptv6`（プレフィックス変換）はこのバージョンでは使えません",
            ),
            text("write \"nat66\" until it is", "当面は \"nat66\" と書いてください"),
        );
    }
}

/// A path that says it has IPv6 has an address and a next hop for it.
pub(super) fn ipv6(context: &Context<'_>, report: &mut Report<'_>) {
    for (id, path) in &context.plan.paths {
        let Some(line) = context.plan.lines.get(&path.line) else { continue };
        let word = match path.ipv6 {
            PathIpv6::Native => "native",
            PathIpv6::Nat66 => "nat66",
            PathIpv6::Nptv6 | PathIpv6::None => continue,
        };
        let (there, en, ja) = match path.kind {
            PathKind::Plain => (
                line.ipv6.is_some() && line.gateway6.is_some(),
                format!("line `{}` has no `ipv6` with `gateway6`", path.line),
                format!("回線「{}」に `ipv6` と `gateway6` がありません", path.line),
            ),
            PathKind::Wireguard => (
                path.wireguard.as_ref().is_none_or(|tunnel| tunnel.ipv6.is_some()),
                "its tunnel has no `ipv6`".to_owned(),
                "トンネルに `ipv6` がありません".to_owned(),
            ),
        };
        if !there {
            report.at(
                &format!("paths.{id}.ipv6"),
                text(
                    format!("path `{id}` says IPv6 is {word}, and {en}"),
                    format!("パス「{id}」の IPv6 は {word} とありますが、{ja}"),
                ),
                text(
                    "add the addresses, or write `ipv6 = \"none\"`",
                    "アドレスを追加するか、`ipv6 = \"none\"` と書いてください",
                ),
            );
        }
    }
}

/// A plain path has IPv4 or IPv6 to go by; a tunnel has an outer family that its line has.
pub(super) fn ipv4(context: &Context<'_>, report: &mut Report<'_>) {
    for (id, path) in &context.plan.paths {
        let Some(line) = context.plan.lines.get(&path.line) else { continue };
        let lacking = match (path.kind, &path.wireguard) {
            (PathKind::Plain, _) if line.ipv4.is_none() && path.ipv6 == PathIpv6::None => "IPv4",
            (PathKind::Wireguard, Some(tunnel)) => match tunnel.endpoint.address() {
                Some(hub) if hub.is_ipv4() && line.ipv4.is_none() => "IPv4",
                Some(hub) if hub.is_ipv6() && line.ipv6.is_none() => "IPv6",
                None if line.ipv4.is_none() && line.ipv6.is_none() => "IPv4 or IPv6",
                Some(_) | None => continue,
            },
            (PathKind::Plain | PathKind::Wireguard, _) => continue,
        };
        report.at(
            &format!("paths.{id}.line"),
            text(
                format!("path `{id}` needs {lacking}, which line `{}` does not have", path.line),
                format!("パス「{id}」には {lacking} が必要ですが、回線「{}」にありません", path.line),
            ),
            text("give the line an address of that family", "回線にその種類のアドレスを設定してください"),
        );
    }
}

/// The table `wireguard` comes with the kind and only with it; one listening port a tunnel.
pub(super) fn wireguard(context: &Context<'_>, report: &mut Report<'_>) {
    let mut ports = std::collections::BTreeMap::new();
    for (id, path) in &context.plan.paths {
        match (path.kind, &path.wireguard) {
            (PathKind::Plain, Some(_)) => report.at(
                &format!("paths.{id}.wireguard"),
                text(
                    format!("path `{id}` is plain and has a tunnel's settings"),
                    format!("パス「{id}」は plain なのにトンネルの設定があります"),
                ),
                text(
                    "write `kind = \"wireguard\"`, or remove this table",
                    "`kind = \"wireguard\"` と書くか、このテーブルを削除してください",
                ),
            ),
            (PathKind::Wireguard, None) => report.at(
                &format!("paths.{id}.kind"),
                text(
                    format!("path `{id}` is a WireGuard tunnel without settings"),
                    format!("WireGuard のパス「{id}」に設定がありません"),
                ),
                text(
                    format!("add [paths.{id}.wireguard] with endpoint, public_key, private_key_file and ipv4"),
                    format!("[paths.{id}.wireguard] に endpoint、public_key、private_key_file、ipv4 を書いてください"),
                ),
            ),
            (PathKind::Wireguard, Some(tunnel)) => {
                if let Some(other) = ports.insert(tunnel.listen_port, id) {
                    report.at(
                        &format!("paths.{id}.wireguard.listen_port"),
                        text(
                            format!("paths `{other}` and `{id}` listen on the same UDP port {}", tunnel.listen_port),
                            format!("パス「{other}」と「{id}」が同じ UDP ポート {} で待ち受けています", tunnel.listen_port),
                        ),
                        text("give one of them another `listen_port`", "どちらかの `listen_port` を変更してください"),
                    );
                }
                if matches!(tunnel.endpoint, Endpoint::Name(..)) && endpoint_resolvers(context.plan, id).is_empty() {
                    report.at(
                        &format!("paths.{id}.wireguard.endpoint"),
                        text(
                            format!("nobody on line `{}` can be asked for the name `{}`", path.line, tunnel.endpoint),
                            format!("回線「{}」に、名前「{}」を問い合わせる相手がありません", path.line, tunnel.endpoint),
                        ),
                        text(
                            "write the address, or `resolvers` in this table: DNS servers that answer over the line \
                             itself",
                            "アドレスを書くか、このテーブルに `resolvers`（この回線で応答する DNS サーバー）を書いてください",
                        ),
                    );
                }
                if tunnel.private_key_file.trim().is_empty() {
                    report.at(
                        &format!("paths.{id}.wireguard.private_key_file"),
                        text("no file is named for the private key", "秘密鍵のファイル名がありません"),
                        text("name the file on the gateway", "ゲートウェイ上のファイル名を書いてください"),
                    );
                }
            }
            (PathKind::Plain, None) => {}
        }
    }
}

/// Every path has resolvers, of families that it carries.
pub(super) fn resolvers(context: &Context<'_>, report: &mut Report<'_>) {
    for (id, path) in &context.plan.paths {
        if path.resolvers.is_empty() {
            report.at(
                &format!("paths.{id}.resolvers"),
                text(format!("path `{id}` has no resolver"), format!("パス「{id}」にリゾルバーがありません")),
                text(
                    "name at least one DNS server that answers over this path",
                    "このパスで応答する DNS サーバーを 1 つ以上書いてください",
                ),
            );
        }
        let Some(line) = context.plan.lines.get(&path.line) else { continue };
        let ipv4 = path.kind == PathKind::Wireguard || line.ipv4.is_some();
        for (i, resolver) in path.resolvers.iter().enumerate() {
            let (carried, family) = match resolver {
                IpAddr::V4(_) => (ipv4, "IPv4"),
                IpAddr::V6(_) => (path.ipv6 != PathIpv6::None, "IPv6"),
            };
            if !carried {
                report.at(
                    &format!("paths.{id}.resolvers[{i}]"),
                    text(
                        format!("resolver {resolver} cannot be asked: path `{id}` has no {family}"),
                        format!(
                            "パス「{id}」に {family} がないため、リゾルバー {resolver} に問い合わせできません"
                        ),
                    ),
                    text(
                        "remove it, or give the path that family",
                        "削除するか、パスにその種類のアドレスを設定してください",
                    ),
                );
            }
        }
    }
}
