//! The report: one HTML file that needs nothing else. What happened, when, and why, in Japanese and English side by
//! side; timelines as SVG.

mod evidence;
mod svg;
mod words;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::result::{Results, Status, readable};
use crate::runner::Record;

/// One act of a report: a played scenario.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    pub title_ja: &'a str,
    pub title_en: &'a str,
    /// What this act shows.
    pub about_ja: &'a str,
    pub about_en: &'a str,
    pub record: &'a Record,
    pub results: &'a Results,
}

const STYLE: &str = "\
:root{color-scheme:light;--ink:#1b1f24;--soft:#6a737d;--line:#d8dee4}\
body{font:15px/1.6 system-ui,'Hiragino Sans','Noto Sans JP',sans-serif;color:var(--ink);max-width:1180px;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .2rem;border-top:1px solid var(--line);padding-top:1.2rem}\
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1.2rem}.pair p{margin:.2rem 0}\
table{border-collapse:collapse;width:100%;margin:.8rem 0;font-variant-numeric:tabular-nums}\
th{text-align:left;font-weight:600;color:var(--soft);font-size:.85rem}td,th{padding:.25rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}\
td.n{text-align:right;white-space:nowrap}.pass{color:#116329}.fail{color:#a40e26;font-weight:700}.unclear{color:#8a4600;font-weight:700}\
svg{width:100%;height:auto;margin:.6rem 0}.legend span{display:inline-block;margin-right:1.2rem;color:var(--soft)}\
.swatch{display:inline-block;width:.9em;height:.9em;border-radius:2px;margin-right:.35em;vertical-align:-.1em}\
.verdict{font-size:1.1rem;padding:.5rem .9rem;border-radius:6px;margin:1rem 0}.verdict.pass{background:#dafbe1}.verdict.fail{background:#ffebe9}\
.why{color:var(--soft)}footer{color:var(--soft);font-size:.85rem;margin-top:2rem}";

/// Writes the whole report.
pub fn write(file: &Path, title: (&str, &str), acts: &[Act<'_>], total: &Results) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, html(title, acts, total))?;
    Ok(())
}

fn html(title: (&str, &str), acts: &[Act<'_>], total: &Results) -> String {
    let mut out = format!(
        "<!doctype html><html lang=\"ja\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{}</title><style>{STYLE}</style><h1>{}<br><small>{}</small></h1>",
        escape(title.0),
        escape(title.0),
        escape(title.1)
    );
    let (class, ja, en) = if total.good() {
        ("pass", "すべての確認項目が目標を満たしました。", "Every check reached its goal.")
    } else {
        (
            "fail",
            "目標を満たさなかった確認項目があります（下の表の赤字）。",
            "Some checks missed their goal (red in the table below).",
        )
    };
    let _ = write!(
        out,
        "<div class=\"verdict {class}\"><div class=pair><p>{ja}</p><p lang=en>{en}</p></div></div>"
    );
    out.push_str(&checks(total));
    out.push_str(
        "<p class=legend><span><i class=swatch style=\"background:#8fb8de\"></i>閉域網 closed</span>\
         <span><i class=swatch style=\"background:#9fd3a8\"></i>インターネットVPN vpn</span>\
         <span><i class=swatch style=\"background:#f2b66d\"></i>直接 direct</span>\
         <span><i class=swatch style=\"background:#c9c9c9\"></i>その他 other</span>\
         <span><i class=swatch style=\"background:#d1242f\"></i>エラー errors</span>\
         <span><i class=swatch style=\"background:#57606a\"></i>応答時間 latency (p95)</span></p>",
    );
    for act in acts {
        out.push_str(&section(act));
    }
    let _ = writeln!(
        out,
        "<footer>commit {} · 値はすべてこの実行で、利用者の端末・サービスのログ・回線上の観測から得たもの。 Every value was measured in this run, \
         by clients, the services' logs and captures on the wires; only names that begin with “agent.” are the agent's own word.</footer></html>",
        escape(&total.commit)
    );
    out
}

fn checks(results: &Results) -> String {
    let mut out = String::from(
        "<table><tr><th>確認項目 check</th><th>意味 meaning</th><th>値 value</th><th>目標 goal</th><th>判定 status</th></tr>",
    );
    for check in &results.checks {
        let (class, ja) = match check.status {
            Status::Pass => ("pass", "合格 pass"),
            Status::Fail => ("fail", "不合格 fail"),
            Status::Unclear => ("unclear", "判定不能 unclear"),
        };
        let value = check.value.map_or_else(|| "–".to_owned(), readable);
        let note =
            check.note.as_deref().map(|n| format!("<br><small>{}</small>", escape(n))).unwrap_or_default();
        let meaning = words::check(&check.name)
            .map(|(ja, en)| format!("{ja}<br><small>{en}</small>"))
            .unwrap_or_default();
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{meaning}{note}</td><td class=n>{value} {}</td><td class=n>{}</td><td class={class}>{ja}</td></tr>",
            escape(&check.name),
            escape(&check.unit),
            escape(&check.goal),
        );
    }
    out.push_str("</table>");
    out
}

fn section(act: &Act<'_>) -> String {
    let mut out = format!(
        "<h2>{} <small>{}</small></h2><div class=pair><p>{}</p><p lang=en>{}</p></div>",
        escape(act.title_ja),
        escape(act.title_en),
        escape(act.about_ja),
        escape(act.about_en)
    );
    out.push_str(&svg::timeline(act.record));
    out.push_str("<table><tr><th>時刻 time</th><th>出来事と理由</th><th>what happened and why</th></tr>");
    for Line { at, ja, en, mark, evidence } in story(act.record) {
        let (why_ja, why_en) = evidence.unwrap_or_default();
        let small = |text: &str| match text {
            "" => String::new(),
            text => format!("<br><small class=why>{}</small>", escape(text)),
        };
        let _ = write!(
            out,
            "<tr><td class=n>{mark}{:.1} s</td><td>{}{}</td><td lang=en>{}{}</td></tr>",
            at.as_secs_f64(),
            escape(&ja),
            small(&why_ja),
            escape(&en),
            small(&why_en)
        );
    }
    out.push_str("</table>");
    out
}

/// One line of a story.
struct Line {
    at: Duration,
    ja: String,
    en: String,
    mark: &'static str,
    /// Of a decision, in both languages.
    evidence: Option<(String, String)>,
}

/// What was done to the town and what the agent said, in order.
fn story(record: &Record) -> Vec<Line> {
    let mut lines = Vec::new();
    for happened in &record.happened {
        let (ja, en) = words::event(&happened.what, happened.target.as_deref());
        let (ja, en) = match (&happened.command, &happened.failed) {
            (Some((0, _)), _) => (format!("{ja}（受け付けられた）"), format!("{en} (accepted)")),
            (Some((_, said)), _) => {
                let said = said.trim();
                (format!("{ja}（断られた: {said}）"), format!("{en} (refused: {said})"))
            }
            (None, Some(failed)) => {
                (format!("{ja}（できなかった: {failed}）"), format!("{en} (could not be done: {failed})"))
            }
            (None, None) => (ja, en),
        };
        let line = |at, ja, en, mark| Line { at, ja, en, mark, evidence: None };
        lines.push(line(happened.at, ja.clone(), en.clone(), "▶ "));
        if let Some(until) = happened.until {
            lines.push(line(until, format!("{ja}: 終わり"), format!("{en}: over"), "◀ "));
        }
    }
    for (at, event) in record.told.iter().filter(|(_, e)| e.kind != "check") {
        let who = match (&event.zone, &event.group, &event.path) {
            (Some(zone), Some(group), _) => format!("{zone}/{group}"),
            (_, _, Some(path)) => path.to_string(),
            _ => event.kind.clone(),
        };
        let to = event.to.as_deref().map(|to| format!(" → {to}")).unwrap_or_default();
        lines.push(Line {
            at: *at,
            ja: format!("{who}{to}: {}", event.reason.ja),
            en: format!("{who}{to}: {}", event.reason.en),
            mark: "",
            evidence: evidence::of(record, *at, event),
        });
    }
    lines.sort_by_key(|line| line.at);
    lines
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Check, Goal};
    use crate::runner::{Happened, LoadTrack};
    use crate::world::Bucket;

    fn record() -> Record {
        let bucket = Bucket {
            ok: 50,
            errors: 1,
            lost: 0,
            p95_ms: Some(20.0),
            by_path: [("closed".to_owned(), 3), ("direct".to_owned(), 1)].into(),
        };
        Record {
            end: Duration::from_secs(2),
            happened: vec![Happened {
                id: "cut".to_owned(),
                what: "line.cut".to_owned(),
                target: Some("internet".to_owned()),
                at: Duration::from_secs(1),
                until: None,
                command: None,
                failed: Some("<script>".to_owned()),
            }],
            loads: vec![LoadTrack {
                id: "teachers".to_owned(),
                zone: "affairs".to_owned(),
                kind: "session".to_owned(),
                buckets: vec![bucket; 20],
            }],
            ..Record::default()
        }
    }

    #[test]
    fn the_report_tells_the_story_in_both_languages_and_needs_nothing_else() {
        let record = record();
        let results = Results::new(
            "demo",
            "demo",
            1,
            vec![Check::number("move.lost", Some(3.0), "count", Goal::Equal(0.0))],
        );
        let act = Act {
            title_ja: "引っ越し",
            title_en: "The move",
            about_ja: "説明",
            about_en: "about",
            record: &record,
            results: &results,
        };
        let page = html(("正門", "Seimon"), &[act], &results);
        assert!(page.contains("不合格"), "a failed check must be seen to have failed");
        assert!(page.contains("<svg") && page.contains("teachers"));
        assert!(page.contains("internet") && page.contains("回線"));
        assert!(!page.contains("<script"), "what a program said must not become part of the page");
        assert!(
            !page.contains("http://") && !page.contains("https://"),
            "the page must need nothing from elsewhere"
        );
    }
}
