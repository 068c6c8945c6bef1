//! Timelines. One row a group (its states), and one a load: by which path it was served, errors, latency.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::runner::{LoadTrack, Record};
use crate::world::Bucket;

const WIDTH: f64 = 1120.0;
const LEFT: f64 = 150.0;
const PLOT: f64 = WIDTH - LEFT - 10.0;
const STATE_HEIGHT: f64 = 24.0;
const LOAD_HEIGHT: f64 = 70.0;
const GAP: f64 = 12.0;
const TOP: f64 = 26.0;

/// Points drawn at most: a tenth of a second each up to this, then wider.
const MOST: usize = 240;

pub(super) fn timeline(record: &Record) -> String {
    let total = record.end.as_secs_f64().max(0.1);
    let x = |at: Duration| LEFT + (at.as_secs_f64() / total).clamp(0.0, 1.0) * PLOT;
    let mut body = String::new();
    let mut y = TOP;
    for (group, changes) in record.states() {
        label(&mut body, y + 16.0, &group);
        for (index, (at, event)) in changes.iter().enumerate() {
            let end = changes.get(index + 1).map_or(record.end, |(next, _)| *next);
            let state = event.to.as_deref().unwrap_or("");
            let path = event.path.as_ref().map(|p| p.as_str()).unwrap_or("");
            let (from, to) = (x(*at), x(end));
            let _ = write!(
                body,
                "<rect x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{STATE_HEIGHT}\" fill=\"{}\" stroke=\"#fff\"><title>{} {state} {path}</title></rect>",
                (to - from).max(1.0),
                state_colour(state),
                super::escape(&group),
            );
            if to - from > 60.0 {
                let _ = write!(
                    body,
                    "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\">{state}</text>",
                    from + 4.0,
                    y + 16.0
                );
            }
        }
        y += STATE_HEIGHT + GAP / 2.0;
    }
    for load in &record.loads {
        row(&mut body, y, load, total);
        y += LOAD_HEIGHT + GAP;
    }
    for (number, happened) in record.happened.iter().enumerate() {
        let at = x(happened.at);
        let (_, en) = super::words::event(&happened.what, happened.target.as_deref());
        let _ = write!(
            body,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{y:.1}\" stroke=\"#8250df\" stroke-dasharray=\"3 3\"/>\
             <text x=\"{at:.1}\" y=\"18\" font-size=\"11\" fill=\"#8250df\" text-anchor=\"middle\">▶{}<title>{}</title></text>",
            number + 1,
            super::escape(&en),
        );
        if let Some(until) = happened.until {
            let _ = write!(
                body,
                "<rect x=\"{at:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#8250df\" opacity=\".07\"/>",
                x(until) - at,
                y - TOP
            );
        }
    }
    axis(&mut body, y, total);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" font-family=\"system-ui,sans-serif\" role=\"img\">{body}</svg>",
        y + 24.0
    )
}

fn label(body: &mut String, y: f64, text: &str) {
    let _ = write!(body, "<text x=\"0\" y=\"{y:.1}\" font-size=\"12\">{}</text>", super::escape(text));
}

fn state_colour(state: &str) -> &'static str {
    match state {
        "Steady" => "#dafbe1",
        "Qualifying" => "#ddf4ff",
        "Canary" => "#eaf5d0",
        "CuttingOver" => "#fff8c5",
        "Soaking" => "#fbefff",
        "RollingBack" => "#ffebe9",
        "Blocked" => "#ffc1ba",
        _ => "#eaeef2",
    }
}

fn path_colour(path: &str) -> &'static str {
    match path {
        "closed" => "#8fb8de",
        "vpn" => "#9fd3a8",
        "direct" => "#f2b66d",
        _ => "#c9c9c9",
    }
}

fn row(body: &mut String, y: f64, load: &LoadTrack, total: f64) {
    label(body, y + 14.0, &load.id);
    let _ = write!(
        body,
        "<text x=\"0\" y=\"{:.1}\" font-size=\"10\" fill=\"#6a737d\">{} · {}</text>",
        y + 28.0,
        super::escape(&load.zone),
        super::escape(&load.kind)
    );
    let columns = columns(&load.buckets, total);
    let most = columns.iter().map(|c| c.ok).max().unwrap_or(0).max(1) as f64;
    let slowest = columns.iter().filter_map(|c| c.p95_ms).fold(1.0_f64, f64::max);
    let width = PLOT / columns.len().max(1) as f64;
    // The last known share stands where nothing new began: a path does not change because nobody came.
    let mut shares: BTreeMap<String, f64> = BTreeMap::new();
    let mut latency = String::new();
    for (index, column) in columns.iter().enumerate() {
        let left = LEFT + index as f64 * width;
        let seen: u64 = column.by_path.values().sum();
        if seen > 0 {
            shares = column.by_path.iter().map(|(p, n)| (p.clone(), *n as f64 / seen as f64)).collect();
        }
        let height = LOAD_HEIGHT * column.ok as f64 / most;
        let mut bottom = y + LOAD_HEIGHT;
        let unknown = BTreeMap::from([(String::new(), 1.0)]);
        for (path, share) in if shares.is_empty() { &unknown } else { &shares } {
            let part = height * share;
            bottom -= part;
            if part > 0.05 {
                let _ = write!(
                    body,
                    "<rect x=\"{left:.1}\" y=\"{bottom:.1}\" width=\"{:.1}\" height=\"{part:.1}\" fill=\"{}\"/>",
                    width + 0.2,
                    path_colour(path)
                );
            }
        }
        let bad = column.errors + column.lost;
        if bad > 0 {
            let tall = (6.0 + 10.0 * (bad as f64).log10()).min(LOAD_HEIGHT);
            let _ = write!(
                body,
                "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"#d1242f\"><title>{bad}</title></rect>",
                width.max(1.5)
            );
        }
        if let Some(p95) = column.p95_ms {
            let _ =
                write!(latency, "{:.1},{:.1} ", left + width / 2.0, y + LOAD_HEIGHT * (1.0 - p95 / slowest));
        }
    }
    let _ = write!(
        body,
        "<polyline points=\"{latency}\" fill=\"none\" stroke=\"#57606a\" stroke-width=\"1\"/>\
         <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{PLOT}\" height=\"{LOAD_HEIGHT}\" fill=\"none\" stroke=\"#d8dee4\"/>\
         <text x=\"0\" y=\"{:.1}\" font-size=\"10\" fill=\"#6a737d\">≤ {:.0}/s · p95 ≤ {slowest:.0} ms</text>",
        y + 42.0,
        most * columns.len() as f64 / total,
    );
}

/// The buckets in at most [`MOST`] columns.
fn columns(buckets: &[Bucket], total: f64) -> Vec<Bucket> {
    let tenths = (total * 10.0).ceil().max(1.0) as usize;
    let per = tenths.div_ceil(MOST).max(1);
    (0..tenths)
        .step_by(per)
        .map(|begin| {
            let mut sum = Bucket::default();
            for bucket in buckets.iter().skip(begin).take(per) {
                sum.ok += bucket.ok;
                sum.errors += bucket.errors;
                sum.lost += bucket.lost;
                sum.p95_ms = match (sum.p95_ms, bucket.p95_ms) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    (a, b) => a.or(b),
                };
                for (path, n) in &bucket.by_path {
                    *sum.by_path.entry(path.clone()).or_default() += n;
                }
            }
            sum
        })
        .collect()
}

fn axis(body: &mut String, y: f64, total: f64) {
    let step = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0]
        .into_iter()
        .find(|s| total / s <= 14.0)
        .unwrap_or(600.0);
    let mut at = 0.0;
    while at <= total {
        let x = LEFT + at / total * PLOT;
        let _ = write!(
            body,
            "<text x=\"{x:.1}\" y=\"{:.1}\" font-size=\"10\" fill=\"#6a737d\" text-anchor=\"middle\">{at:.0} s</text>",
            y + 14.0
        );
        at += step;
    }
}
