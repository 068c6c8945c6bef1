//! What each school brings: addresses in the tunnel, keys, an egress address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::civil::Date;

use super::super::model::HubPlan;
use crate::error::text;
use crate::model::{SiteId, WireguardKey};
use crate::rules::Report;

/// A key that comes in, one that goes, and no more: every key is a door.
const MOST_KEYS: usize = 2;

/// A school's address in the tunnel is in the tunnel's prefix, its own, and not the hub's.
pub(super) fn address(plan: &HubPlan, report: &mut Report<'_>) {
    let mut taken: BTreeMap<IpAddr, &SiteId> = BTreeMap::new();
    let nets = [Some(IpNet::V4(plan.tunnel.ipv4)), plan.tunnel.ipv6.map(IpNet::V6)];
    for (id, school) in &plan.schools {
        let addresses = [Some(IpAddr::V4(school.ipv4)), school.ipv6.map(IpAddr::V6)];
        for ((key, net), address) in ["ipv4", "ipv6"].into_iter().zip(nets).zip(addresses) {
            let Some(address) = address else { continue };
            let place = format!("schools.{id}.{key}");
            let Some(net) = net else {
                report.at(
                    &place,
                    text("there is no IPv6 in the tunnel", "トンネルに IPv6 がありません"),
                    text(
                        "add `ipv6` to [tunnel], or remove this",
                        "[tunnel] に `ipv6` を書くか、この記述を削除してください",
                    ),
                );
                continue;
            };
            let edge = match net {
                IpNet::V4(net) => {
                    net.prefix_len() < 31 && [net.network(), net.broadcast()].contains(&school.ipv4)
                }
                IpNet::V6(net) => address == IpAddr::V6(net.network()),
            };
            if !net.contains(&address) || address == net.addr() || edge {
                report.at(
                    &place,
                    text(
                        format!("{address} is not an address that a school can have in the tunnel ({})", net.trunc()),
                        format!("{address} は、トンネル（{}）で学校に割り当てられるアドレスではありません", net.trunc()),
                    ),
                    text(
                        format!(
                            "write the address that the school's own plan has, without prefix length; {} is the hub's",
                            net.addr()
                        ),
                        format!("学校側の計画にあるアドレスを、プレフィックス長なしで書いてください（{} はハブ自身です）", net.addr()),
                    ),
                );
            }
            if let Some(other) = taken.insert(address, id) {
                report.at(
                    &place,
                    text(
                        format!("{address} is school `{other}`'s already"),
                        format!("{address} は既に学校「{other}」のものです"),
                    ),
                    text("give each school an address of its own", "学校ごとに別のアドレスにしてください"),
                );
            }
        }
    }
}

/// A key is one school's. Two schools with one key would be one school.
pub(super) fn key(plan: &HubPlan, report: &mut Report<'_>) {
    let mut taken: BTreeMap<WireguardKey, &SiteId> = BTreeMap::new();
    for (id, school) in &plan.schools {
        if school.keys.len() > MOST_KEYS {
            report.at(
                &format!("schools.{id}.keys[{MOST_KEYS}]"),
                text(
                    format!("school `{id}` has {} keys", school.keys.len()),
                    format!("学校「{id}」に鍵が {} 個あります", school.keys.len()),
                ),
                text(
                    "leave the one in use and at most one that is to take its place",
                    "使用中の鍵と、これから切り替える鍵の 2 個までにしてください",
                ),
            );
        }
        for (i, key) in school.keys.iter().enumerate() {
            if let Some(other) = taken.insert(key.public_key, id) {
                report.at(
                    &format!("schools.{id}.keys[{i}].public_key"),
                    text(
                        format!("this key is school `{other}`'s already"),
                        format!("この鍵は既に学校「{other}」のものです"),
                    ),
                    text(
                        "write what `seimonctl status` shows at this school's gateway",
                        "この学校のゲートウェイで `seimonctl status` が表示する公開鍵を書いてください",
                    ),
                );
            }
        }
    }
}

/// A key counts for at least a day.
pub(super) fn key_days(plan: &HubPlan, report: &mut Report<'_>) {
    let day = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Date>().ok());
    for (id, school) in &plan.schools {
        for (i, key) in school.keys.iter().enumerate() {
            if let (Some(first), Some(last)) = (day(&key.from), day(&key.until))
                && last < first
            {
                report.at(
                    &format!("schools.{id}.keys[{i}].until"),
                    text(
                        format!("the last day, {last}, is before the first, {first}"),
                        format!("最終日 {last} が開始日 {first} より前です"),
                    ),
                    text("correct one of the two", "どちらかを直してください"),
                );
            }
        }
    }
}

/// A school that is to be seen under an address is seen under one of the hub's.
pub(super) fn egress(plan: &HubPlan, report: &mut Report<'_>) {
    for (id, school) in &plan.schools {
        let Some(address) = school.egress else { continue };
        let pool = plan.egress.as_ref().map(|egress| egress.ipv4.as_slice()).unwrap_or_default();
        if !pool.contains(&address) {
            let known: Vec<String> = pool.iter().map(ToString::to_string).collect();
            report.at(
                &format!("schools.{id}.egress"),
                text(
                    format!("{address} is not among the hub's egress addresses"),
                    format!("{address} は egress.ipv4 にありません"),
                ),
                match known.is_empty() {
                    true => text(
                        "add [egress] with `ipv4`, or remove this",
                        "[egress] に `ipv4` を書くか、この記述を削除してください",
                    ),
                    false => text(
                        format!("write one of {}, or add it to `egress.ipv4`", known.join(", ")),
                        format!("{} のいずれかを書くか、`egress.ipv4` に追加してください", known.join("、")),
                    ),
                },
            );
        }
    }
}
