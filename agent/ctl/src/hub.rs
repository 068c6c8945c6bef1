//! A hub: itself, and one line a school.

use seimon_ipc::control::Light;
use seimon_ipc::hub::{HubExplanation, HubStatus, SchoolEnd};

use crate::args::Lang;
use crate::screen::{Look, Paint, clean, pad, table, width};
use crate::status::{dataplane, lamp, lamp_text, section};
use crate::words::{self, pick, say};

pub(crate) fn status(lang: Lang, look: Look, status: &HubStatus) -> String {
    let left = format!("{} ({})", clean(&status.name), status.hub);
    let clock = if status.clock_trusted {
        String::new()
    } else {
        say(lang, "（時計が未同期）", " (clock not set)")
    };
    let right = format!("{}{clock}", words::time(status.wall_ms));
    let gap = look.columns.saturating_sub(width(&left) + width(&right)).max(2);
    let generation = match lang {
        Lang::Ja => {
            format!("計画 第{}世代・エージェント {}", status.generation, clean(&status.agent_version))
        }
        Lang::En => format!("plan generation {}, agent {}", status.generation, clean(&status.agent_version)),
    };
    let sentence = look.indented(width(&lamp_text(lang, status.overall)) + 1, &pick(lang, &status.sentence));
    let mut text = format!(
        "{}{}{right}\n{generation}\n\n{} {}",
        look.paint(Paint::Bold, &left),
        " ".repeat(gap),
        lamp(lang, look, status.overall),
        sentence.trim_start()
    );
    let key = status.public_key.as_deref().map_or_else(|| say(lang, "なし", "none"), clean);
    text.push_str(&match lang {
        Lang::Ja => format!("  公開鍵 {key}、UDP {}\n", status.listen_port),
        Lang::En => format!("  public key {key}, UDP {}\n", status.listen_port),
    });
    if let Some(problem) = &status.problem {
        text.push_str(&look.item(2, problem));
    }
    if !status.schools.is_empty() {
        text.push_str(&section(look, &say(lang, "学校", "Schools")));
        text.push_str(&schools(lang, look, &status.schools));
    }
    text.push_str(&section(look, &say(lang, "通信の規則", "Rules in the kernel")));
    text.push_str(&dataplane(lang, look, &status.dataplane));
    text
}

fn schools(lang: Lang, look: Look, ends: &[SchoolEnd]) -> String {
    let head = match lang {
        Lang::Ja => ["学校", "最後の握手", "最後の受信", "受信", "送信", "いまの場所"],
        Lang::En => ["school", "handshake", "heard", "in", "out", "is at"],
    };
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(ends.iter().map(|end| {
        vec![
            end.school.to_string(),
            ago(lang, end.handshake_s),
            ago(lang, end.heard_s),
            bytes(end.received),
            bytes(end.sent),
            end.endpoint.map_or_else(|| "-".to_owned(), |at| at.to_string()),
        ]
    }));
    let columns = table(0, &rows);
    // As wide as the widest lamp, so that columns stand below each other.
    let widest = width(&lamp_text(lang, Light::Yellow));
    let mut lines = columns.lines();
    let mut text = format!("  {} {}\n", " ".repeat(widest), lines.next().unwrap_or_default());
    for (line, end) in lines.zip(ends) {
        let gap = pad("", widest.saturating_sub(width(&lamp_text(lang, end.light))));
        text.push_str(&format!("  {}{gap} {line}\n", lamp(lang, look, end.light)));
        if end.light == Light::Red {
            text.push_str(&look.indented(4, &pick(lang, &end.sentence)));
        }
    }
    if ends.iter().any(|end| end.light == Light::Yellow) {
        let yellow = ends.iter().filter(|end| end.light == Light::Yellow);
        // One word about each kind, however many schools are quiet.
        let sentences: std::collections::BTreeSet<String> =
            yellow.map(|end| pick(lang, &end.sentence)).collect();
        for sentence in sentences {
            text.push_str(&look.item(2, &format!("{} {sentence}", lamp_text(lang, Light::Yellow))));
        }
    }
    text
}

fn ago(lang: Lang, seconds: Option<u64>) -> String {
    match (lang, seconds) {
        (_, None) => "-".to_owned(),
        (Lang::Ja, Some(age)) => format!("{}前", words::duration(lang, age.saturating_mul(1_000))),
        (Lang::En, Some(age)) => format!("{} ago", words::duration(lang, age.saturating_mul(1_000))),
    }
}

/// Three digits are enough to see who uses how much.
fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut scaled = count;
    let mut tenths = 0;
    let mut unit = 0;
    while scaled >= 1000 && unit + 1 < units.len() {
        tenths = scaled % 1000 / 100;
        scaled /= 1000;
        unit += 1;
    }
    if unit == 0 || scaled >= 100 {
        format!("{scaled} {}", units[unit])
    } else {
        format!("{scaled}.{tenths} {}", units[unit])
    }
}

pub(crate) fn explanation(lang: Lang, look: Look, explanation: &HubExplanation) -> String {
    let HubExplanation { allowed, school, school_name, way, rule, seen_as, why } = explanation;
    let verdict = match (lang, allowed) {
        (Lang::Ja, true) => look.paint(Paint::Green, "[許可]"),
        (Lang::Ja, false) => look.paint(Paint::Red, "[不許可]"),
        (Lang::En, true) => look.paint(Paint::Green, "[ALLOWED]"),
        (Lang::En, false) => look.paint(Paint::Red, "[NOT ALLOWED]"),
    };
    let mut text = format!("{verdict} {}\n", clean(rule));
    let way = way.as_deref().map(|way| match way {
        "town" => say(lang, "庁内", "the town"),
        "internet" => say(lang, "インターネット", "the internet"),
        "hub" => say(lang, "ハブ自身", "the hub itself"),
        other => clean(other),
    });
    let name = school.as_ref().map(|id| match school_name {
        Some(name) => format!("{} ({id})", clean(name)),
        None => id.to_string(),
    });
    for (ja, en, value) in [
        ("学校", "school", name),
        ("行き先", "to", way),
        ("相手から見えるアドレス", "seen there as", seen_as.map(|address| address.to_string())),
    ] {
        if let Some(value) = value {
            text.push_str(&look.indented(2, &format!("{}: {value}", say(lang, ja, en))));
        }
    }
    for why in why {
        text.push_str(&look.item(2, &pick(lang, why)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_bytes_are_short() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (12_345_678, "12.3 MB"),
            (987_654_321_000, "987 GB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
