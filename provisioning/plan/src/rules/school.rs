//! What pages and papers for the school name is there.

use super::{Context, Report, suggestion};
use crate::error::text;
use crate::model::Protocol;

pub(super) fn school(context: &Context<'_>, report: &mut Report<'_>) {
    references(context, report);
    values(context, report);
}

fn references(context: &Context<'_>, report: &mut Report<'_>) {
    let plan = context.plan;
    let school = &plan.school;
    let lines: Vec<&str> = plan.lines.keys().map(|id| id.as_str()).collect();
    let zones: Vec<&str> = plan.zones.keys().map(|id| id.as_str()).collect();
    let services: Vec<&str> = plan.services.keys().map(|id| id.as_str()).collect();
    let mut refer = |place: String, (en, ja): (&str, &str), id: &str, known: &[&str]| {
        if !known.contains(&id) {
            report.at(
                &place,
                text(format!("there is no {en} `{id}`"), format!("{ja}「{id}」はありません")),
                suggestion(id, known.iter().copied()),
            );
        }
    };
    let (line, zone, service) = (("line", "回線"), ("zone", "ゾーン"), ("service", "サービス"));
    for id in school.words.lines.keys() {
        refer(format!("school.words.lines.{id}"), line, id.as_str(), &lines);
    }
    for id in school.words.zones.keys() {
        refer(format!("school.words.zones.{id}"), zone, id.as_str(), &zones);
    }
    for id in school.words.services.keys() {
        refer(format!("school.words.services.{id}"), service, id.as_str(), &services);
    }
    for (i, id) in school.identity.iter().enumerate() {
        refer(format!("school.identity[{i}]"), service, id.as_str(), &services);
    }
    for (i, device) in school.devices.iter().enumerate() {
        refer(format!("school.devices[{i}].from"), zone, device.from.as_str(), &zones);
    }
    if let Some(speed) = &school.speed {
        refer("school.speed.service".to_owned(), service, speed.service.as_str(), &services);
    }
}

fn values(context: &Context<'_>, report: &mut Report<'_>) {
    let school = &context.plan.school;
    for (i, contact) in school.contacts.iter().enumerate() {
        for (key, value) in [("who", &contact.who), ("phone", &contact.phone)] {
            if value.trim().is_empty() {
                report.at(
                    &format!("school.contacts[{i}].{key}"),
                    text("nobody could be called", "連絡先が空です"),
                    text(
                        "write an office and its number, or remove the entry",
                        "窓口と電話番号を書くか、削除してください",
                    ),
                );
            }
        }
    }
    for (i, device) in school.devices.iter().enumerate() {
        let port = device.port;
        if port.protocol != Protocol::Tcp || port.first != port.last {
            report.at(
                &format!("school.devices[{i}].port"),
                text(
                    format!("`{port}` cannot be tried: only a connection to one TCP port says that it works"),
                    format!("「{port}」では確かめられません。1 つの TCP ポートが必要です"),
                ),
                text(
                    "write one, as in tcp/9100 or tcp/445",
                    "tcp/9100 や tcp/445 のように 1 つ書いてください",
                ),
            );
        }
    }
    if let Some(speed) = &school.speed {
        let graphic = speed.path.starts_with('/') && speed.path.bytes().all(|b| b.is_ascii_graphic());
        if !graphic {
            report.at(
                "school.speed.path",
                text(
                    "the path does not begin with `/`, or has spaces or other signs in it",
                    "パスが「/」で始まっていないか、使えない文字があります",
                ),
                text("write it as in /100MB.bin", "/100MB.bin のように書いてください"),
            );
        }
        if context.plan.services.get(&speed.service).is_some_and(|service| service.health.is_none()) {
            report.at(
                "school.speed.service",
                text(
                    format!(
                        "service `{}` has no health check, so where to load from is not known",
                        speed.service
                    ),
                    format!(
                        "サービス「{}」に health がないため、どこから読み込むか分かりません",
                        speed.service
                    ),
                ),
                text("give it one", "health を書いてください"),
            );
        }
    }
}
