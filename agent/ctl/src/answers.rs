//! Everything but the status screen.

use std::net::IpAddr;

use seimon_ipc::control::{Bilingual, Event, Explanation};

use crate::args::Lang;
use crate::screen::{Look, Paint, clean};
use crate::words::{self, pick, say};

pub(crate) fn explanation(lang: Lang, look: Look, explanation: &Explanation) -> String {
    let verdict = match (lang, explanation.allowed) {
        (Lang::Ja, true) => look.paint(Paint::Green, "[許可]"),
        (Lang::Ja, false) => look.paint(Paint::Red, "[不許可]"),
        (Lang::En, true) => look.paint(Paint::Green, "[ALLOWED]"),
        (Lang::En, false) => look.paint(Paint::Red, "[NOT ALLOWED]"),
    };
    let mut text = format!("{verdict} {}\n", clean(&explanation.rule));
    let id = |id: Option<String>| id.unwrap_or_default();
    for (ja, en, value) in [
        ("ゾーン", "zone", id(explanation.zone.as_ref().map(ToString::to_string))),
        ("サービス", "service", id(explanation.service.as_ref().map(ToString::to_string))),
        ("サービス群", "group", id(explanation.group.as_ref().map(ToString::to_string))),
        ("経路", "path", id(explanation.path.as_ref().map(ToString::to_string))),
        ("校内のアドレス", "inside address", addresses(&explanation.inside)),
        ("実際のアドレス", "real address", addresses(&explanation.real)),
        ("外から見えるアドレス", "seen outside as", addresses(&explanation.egress)),
    ] {
        if !value.is_empty() {
            text.push_str(&look.indented(2, &format!("{}: {value}", say(lang, ja, en))));
        }
    }
    for why in &explanation.why {
        text.push_str(&look.item(2, &pick(lang, why)));
    }
    text
}

/// A list of reasons. One that has several lines keeps them, and stands between empty lines.
pub(crate) fn refusal(lang: Lang, look: Look, reasons: &[Bilingual]) -> String {
    let mut text = say(lang, "実行しませんでした。\n", "Not done:\n");
    let reasons: Vec<Vec<String>> = reasons.iter().map(|reason| words::pick_lines(lang, reason)).collect();
    let spaced = reasons.iter().any(|lines| lines.len() > 1);
    for lines in &reasons {
        if spaced {
            text.push('\n');
        }
        match lines.as_slice() {
            [line] => text.push_str(&look.item(2, line)),
            // Whoever wrote it has laid it out: a quotation is not to be broken.
            lines => {
                for (i, line) in lines.iter().enumerate() {
                    let mark = if i == 0 { "- " } else { "  " };
                    text.push_str(format!("  {mark}{line}").trim_end());
                    text.push('\n');
                }
            }
        }
    }
    text
}

fn addresses(addresses: &[IpAddr]) -> String {
    let parts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    parts.join(", ")
}

pub(crate) fn changes(lang: Lang, changes: &[String]) -> String {
    if changes.is_empty() {
        return say(lang, "変わるものはありません。\n", "Nothing would change.\n");
    }
    changes.iter().map(|change| format!("{}\n", clean(change))).collect()
}

/// One line.
pub(crate) fn event(lang: Lang, event: &Event) -> String {
    let mut words = vec![words::time(event.wall_ms), format!("#{}", event.seq), clean(&event.kind)];
    match (&event.zone, &event.group) {
        (Some(zone), Some(group)) => words.push(format!("{zone}/{group}")),
        (Some(zone), None) => words.push(zone.to_string()),
        (None, Some(group)) => words.push(group.to_string()),
        (None, None) => {}
    }
    let in_words = |word: &String| words::of_event(lang, &event.kind, word);
    match (event.from.as_ref().map(in_words), event.to.as_ref().map(in_words)) {
        (Some(from), Some(to)) => words.push(format!("{from} → {to}")),
        (Some(only), None) | (None, Some(only)) => words.push(only),
        (None, None) => {}
    }
    words.extend(event.path.as_ref().map(|path| format!("[{path}]")));
    let reason = pick(lang, &event.reason);
    if !reason.is_empty() {
        words.push(reason);
    }
    words.join(" ")
}
