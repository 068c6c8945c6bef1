//! The one screen for somebody who is not an engineer.

use seimon_ipc::control::{
    DataplaneStatus, GroupStatus, Light, PathStatus, ServiceStatus, Status, TunnelStatus,
};
use seimon_plan::PathId;

use crate::args::Lang;
use crate::screen::{Look, Paint, clean, pad, table, width};
use crate::words::{self, pick, say};

/// Everything.
pub(crate) fn status(lang: Lang, look: Look, status: &Status) -> String {
    let mut text = header(lang, look, status);
    text.push_str(&section(look, &say(lang, "サービス群", "Service groups")));
    text.push_str(&groups(lang, look, &status.groups));
    text.push_str(&section(look, &say(lang, "経路", "Paths")));
    text.push_str(&paths(lang, &status.paths));
    if !status.metered.is_empty() {
        text.push_str(&section(look, &say(lang, "非常用の回線", "Emergency lines")));
        for line in &status.metered {
            text.push_str(&look.indented(2, &pick(lang, &line.sentence)));
        }
    }
    if !status.proxy.is_empty() {
        text.push_str(&section(look, &say(lang, "庁舎のプロキシ", "The town's proxy")));
        for zone in &status.proxy {
            text.push_str(&look.indented(2, &pick(lang, &zone.sentence)));
        }
    }
    if !status.services.is_empty() {
        text.push_str(&section(look, &say(lang, "サービス", "Services")));
        text.push_str(&services(lang, &status.services));
    }
    text.push_str(&section(look, &say(lang, "通信の規則", "Rules in the kernel")));
    text.push_str(&dataplane(lang, look, &status.dataplane));
    text
}

/// Only the groups, for `migrate status`.
pub(crate) fn groups(lang: Lang, look: Look, groups: &[GroupStatus]) -> String {
    if groups.is_empty() {
        return look.indented(
            2,
            &say(lang, "計画に移行の経路がありません。", "The plan has no routes to move along."),
        );
    }
    groups.iter().map(|status| group(lang, look, status)).collect()
}

fn header(lang: Lang, look: Look, status: &Status) -> String {
    let name = clean(&status.site_name);
    let left = format!("{name} ({})", status.site);
    let clock = match status.clock_trusted {
        true => String::new(),
        false => say(lang, "（時計が未同期）", " (clock not set)"),
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
    format!(
        "{}{}{right}\n{}\n\n{} {}",
        look.paint(Paint::Bold, &left),
        " ".repeat(gap),
        generation,
        lamp(lang, look, status.overall),
        sentence.trim_start()
    )
}

pub(crate) fn section(look: Look, title: &str) -> String {
    format!("\n{}\n", look.paint(Paint::Bold, title))
}

pub(crate) fn lamp_text(lang: Lang, light: Light) -> String {
    format!("[{}]", words::light(lang, light))
}

pub(crate) fn lamp(lang: Lang, look: Look, light: Light) -> String {
    let paint = match light {
        Light::Green => Paint::Green,
        Light::Yellow => Paint::Yellow,
        Light::Red => Paint::Red,
    };
    look.paint(paint, &lamp_text(lang, light))
}

fn group(lang: Lang, look: Look, group: &GroupStatus) -> String {
    let none = say(lang, "なし", "none");
    let current = group.path.as_ref().map_or(none, ToString::to_string);
    let way = match &group.target {
        Some(target) if Some(target) != group.path.as_ref() => format!("{current} → {target}"),
        Some(_) | None => current,
    };
    let mut state = words::state(lang, &group.state);
    if group.paused {
        state.push_str(&say(lang, "（一時停止）", " (held)"));
    }
    let remaining = group.remaining_ms.map_or(String::new(), |ms| {
        let left = words::duration(lang, ms);
        match lang {
            Lang::Ja => format!("  残り {left}"),
            Lang::En => format!("  {left} left"),
        }
    });
    let name = pad(&format!("{}/{}", group.zone, group.group), 20);
    // So that names stand below each other: as wide as the widest lamp, [黄] or [YELLOW].
    let widest = width(&lamp_text(lang, Light::Yellow));
    let gap = " ".repeat(widest.saturating_sub(width(&lamp_text(lang, group.light))));
    let mut text = format!("  {}{gap} {name} {way}  {state}{remaining}\n", lamp(lang, look, group.light));
    let mut line = |ja: &str, en: &str, content: &str| {
        if !content.is_empty() {
            text.push_str(&look.indented(6, &format!("{}{content}", say(lang, ja, en))));
        }
    };
    line("", "", &pick(lang, &group.sentence));
    line("使っている端末: ", "clients: ", &counts(&group.clients));
    line("進行中の通信: ", "connections: ", &counts(&group.flows));
    if group.forced_by_deadline > 0 {
        line("期限で移した端末: ", "moved by the deadline: ", &group.forced_by_deadline.to_string());
    }
    for veto in &group.vetoes {
        line("今は移せない理由: ", "no move now: ", &pick(lang, veto));
    }
    let to_do = words::to_do(lang, group).unwrap_or_default();
    let mut to_do = to_do.lines();
    line("すること: ", "to do: ", to_do.next().unwrap_or_default());
    for command in to_do {
        text.push_str(&format!("      {command}\n"));
    }
    text
}

fn counts(counts: &[(PathId, u64)]) -> String {
    let parts: Vec<String> = counts.iter().map(|(path, count)| format!("{path} {count}")).collect();
    parts.join(", ")
}

fn paths(lang: Lang, paths: &[PathStatus]) -> String {
    let head = match lang {
        Lang::Ja => ["経路", "状態", "損失", "往復", "外から見えるアドレス"],
        Lang::En => ["path", "state", "loss", "round trip", "seen outside as"],
    };
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for path in paths {
        let egress: Vec<String> = path.egress.iter().map(ToString::to_string).collect();
        rows.push(vec![
            path.path.to_string(),
            words::path_health(lang, &path.health),
            format!("{:.1} %", (path.loss * 100.0).clamp(0.0, 100.0)),
            millis(path.rtt_ms),
            egress.join(", "),
        ]);
    }
    let mut text = table(2, &rows);
    for (name, tunnel) in paths.iter().filter_map(|path| Some((&path.path, path.tunnel.as_ref()?))) {
        text.push_str(&tunnel_line(lang, name, tunnel));
    }
    text
}

/// Below the table: who the far end is, when it was last heard of, which key it must know.
fn tunnel_line(lang: Lang, name: &PathId, tunnel: &TunnelStatus) -> String {
    let TunnelStatus { public_key, endpoint, handshake_s, received, sent, problem } = tunnel;
    if let Some(problem) = problem {
        return format!("  {name}: {}\n", clean(problem));
    }
    let none = say(lang, "不明", "not known");
    let endpoint = endpoint.map_or(none.clone(), |endpoint| endpoint.to_string());
    let key = public_key.as_deref().map_or(none, clean);
    let age = match (lang, handshake_s) {
        (Lang::Ja, Some(age)) => format!("{}前", words::duration(lang, age.saturating_mul(1_000))),
        (Lang::En, Some(age)) => format!("{} ago", words::duration(lang, age.saturating_mul(1_000))),
        (Lang::Ja, None) => "なし".to_owned(),
        (Lang::En, None) => "never".to_owned(),
    };
    match lang {
        Lang::Ja => format!(
            "  {name}: センター {endpoint}、最後の握手 {age}、受信 {received} B、送信 {sent} B、公開鍵 {key}\n"
        ),
        Lang::En => format!(
            "  {name}: hub {endpoint}, last handshake {age}, {received} B in, {sent} B out, public key {key}\n"
        ),
    }
}

fn services(lang: Lang, services: &[ServiceStatus]) -> String {
    let rows: Vec<Vec<String>> = services
        .iter()
        .map(|service| {
            vec![
                service.zone.to_string(),
                service.service.to_string(),
                service.path.to_string(),
                words::service_health(lang, &service.health),
                millis(service.median_ms),
                service.failing.as_deref().map(clean).unwrap_or_default(),
            ]
        })
        .collect();
    table(2, &rows)
}

fn millis(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"))
}

pub(crate) fn dataplane(lang: Lang, look: Look, dataplane: &DataplaneStatus) -> String {
    let when = dataplane.verified_ms_ago.map(|ms| words::duration(lang, ms));
    let verified = match (lang, dataplane.verified, when) {
        (Lang::Ja, true, Some(when)) => format!("計画どおりです（{when}前に確認）。"),
        (Lang::Ja, true, None) => "計画どおりです。".to_owned(),
        (Lang::Ja, false, _) => "計画どおりか、まだ確かめられていません。".to_owned(),
        (Lang::En, true, Some(when)) => format!("As the plan says (seen {when} ago)."),
        (Lang::En, true, None) => "As the plan says.".to_owned(),
        (Lang::En, false, _) => "Not seen to be as the plan says.".to_owned(),
    };
    let repairs = match (lang, dataplane.repairs) {
        (_, 0) => String::new(),
        (Lang::Ja, n) => format!("他からの変更を {n} 回直しました。"),
        (Lang::En, n) => format!(" Somebody else's changes were put right {n} times."),
    };
    let mut text = look.indented(2, &format!("{verified}{repairs}"));
    for problem in &dataplane.problems {
        text.push_str(&look.item(2, problem));
    }
    text
}
