//! The acceptance test's report: as a page, as lines on a terminal, and whether it is genuine.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ring::signature::{ED25519, UnparsedPublicKey};
use seimon_ipc::control::Bilingual;
use seimon_ipc::report::{AcceptanceReport, AcceptanceRow, FORMAT, SignedReport, Topic, Verdict, Whose};

use crate::args::Lang;
use crate::paper::{Block, Cell, Document, Numbered, Tone};
use crate::screen::{Look, Paint, clean};
use crate::words::say;

/// How a signed report begins, wherever it stands.
const MARK: &[u8] = b"{\"seimon_signed_report\":";

/// Why a file is no proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotGenuine {
    /// There is no signed report in it.
    None,
    /// The report and the signature do not belong together.
    Signature,
    /// It is of a version that this program does not know.
    Version,
    /// Signed well, by another key than the one given.
    OtherKey,
}

/// The first signed report in a file, whatever the file is.
pub(crate) fn find(bytes: &[u8]) -> Option<SignedReport> {
    let starts = bytes.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    starts.map(|(at, _)| &bytes[at..]).find_map(|rest| {
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<SignedReport>();
        values.next()?.ok()
    })
}

/// The report, if the signature is of the key that stands beside it, and that key is the one expected.
pub(crate) fn genuine(signed: &SignedReport, expected: Option<&str>) -> Result<AcceptanceReport, NotGenuine> {
    let key = unhex(&signed.public_key).ok_or(NotGenuine::Signature)?;
    let signature = unhex(&signed.signature).ok_or(NotGenuine::Signature)?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(signed.report.as_bytes(), &signature)
        .map_err(|_| NotGenuine::Signature)?;
    let bare = |key: &str| key.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    if expected.is_some_and(|expected| bare(expected) != bare(&signed.public_key)) {
        return Err(NotGenuine::OtherKey);
    }
    let report: AcceptanceReport = serde_json::from_str(&signed.report).map_err(|_| NotGenuine::Version)?;
    if report.format == FORMAT { Ok(report) } else { Err(NotGenuine::Version) }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

fn pick(lang: Lang, text: &Bilingual) -> String {
    let (first, second) = match lang {
        Lang::Ja => (&text.ja, &text.en),
        Lang::En => (&text.en, &text.ja),
    };
    clean(if first.is_empty() { second } else { first })
}

fn topic(lang: Lang, topic: Topic) -> String {
    let (ja, en) = match topic {
        Topic::Line => ("外への回線", "Lines"),
        Topic::Names => ("行き先の案内（名前から場所を調べる係）", "Names"),
        Topic::Identity => ("ログインの窓口", "Identity provider"),
        Topic::Service => ("使うサービスの最初の画面", "Services' log-in pages"),
        Topic::FileServer => ("ファイルサーバー", "File servers"),
        Topic::Printer => ("プリンター", "Printers"),
        Topic::Separation => {
            ("ネットワークが混ざらないこと（断られるのが正しい）", "Separation (refusals are right)")
        }
        Topic::Speed => ("回線の速さ", "Speed"),
    };
    say(lang, ja, en)
}

fn verdict(lang: Lang, verdict: Verdict) -> (String, Tone, Paint) {
    match verdict {
        Verdict::Ok => (say(lang, "OK", "OK"), Tone::Good, Paint::Green),
        Verdict::CannotTell => (say(lang, "確認できない", "cannot tell"), Tone::Unsure, Paint::Yellow),
        Verdict::Failed => (say(lang, "不合格", "FAILED"), Tone::Bad, Paint::Red),
    }
}

fn whose(lang: Lang, whose: Whose) -> String {
    let (ja, en) = match whose {
        Whose::School => ("学校", "school"),
        Whose::Carrier => ("回線事業者", "carrier"),
        Whose::Provider => ("サービス事業者", "service provider"),
        Whose::Municipality => ("自治体", "municipality"),
    };
    say(lang, ja, en)
}

/// In the site's time zone.
fn time(lang: Lang, report: &AcceptanceReport) -> String {
    let zone = TimeZone::get(&report.time_zone).unwrap_or(TimeZone::UTC);
    let Ok(at) = Timestamp::from_millisecond(report.begun_ms) else { return "----".to_owned() };
    let format = match lang {
        Lang::Ja => "%Y年%-m月%-d日 %H:%M",
        Lang::En => "%Y-%m-%d %H:%M",
    };
    let time = at.to_zoned(zone).strftime(format).to_string();
    match (report.clock_trusted, lang) {
        (true, _) => time,
        (false, Lang::Ja) => format!("{time}（時計が未確認）"),
        (false, Lang::En) => format!("{time} (clock not trusted)"),
    }
}

fn counts(report: &AcceptanceReport) -> (usize, usize) {
    let of = |verdict| report.rows.iter().filter(|row| row.verdict == verdict).count();
    (of(Verdict::Failed), of(Verdict::CannotTell))
}

fn conclusion(lang: Lang, report: &AcceptanceReport) -> (Tone, String) {
    let (all, (failed, unsure)) = (report.rows.len(), counts(report));
    match (failed, unsure, lang) {
        (0, 0, Lang::Ja) => (Tone::Good, format!("{all} 項目すべて合格です。")),
        (0, 0, Lang::En) => (Tone::Good, format!("All {all} rows passed.")),
        (0, _, Lang::Ja) => {
            (Tone::Unsure, format!("不合格はありません。確認できなかった項目が {unsure} 件あります。"))
        }
        (0, _, Lang::En) => (Tone::Unsure, format!("Nothing failed; {unsure} rows could not be told.")),
        (_, 0, Lang::Ja) => (Tone::Bad, format!("{all} 項目のうち、{failed} 件が不合格です。")),
        (_, 0, Lang::En) => (Tone::Bad, format!("{failed} of {all} rows failed.")),
        (_, _, Lang::Ja) => (
            Tone::Bad,
            format!(
                "{all} 項目のうち、{failed} 件が不合格です。確認できなかった項目も {unsure} 件あります。"
            ),
        ),
        (_, _, Lang::En) => {
            (Tone::Bad, format!("{failed} of {all} rows failed; {unsure} could not be told."))
        }
    }
}

/// Something to do, and for what.
struct Job {
    verdict: Verdict,
    subjects: Vec<String>,
    to_do: String,
}

/// What failed first; equal things to do are told once.
fn jobs(lang: Lang, report: &AcceptanceReport) -> BTreeMap<Whose, Vec<Job>> {
    let mut jobs: BTreeMap<Whose, Vec<Job>> = BTreeMap::new();
    let mut rows: Vec<&AcceptanceRow> = report.rows.iter().filter(|row| row.verdict != Verdict::Ok).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.verdict));
    for row in rows {
        let Some(whose) = row.whose else { continue };
        let (subject, to_do) = (pick(lang, &row.subject), pick(lang, &row.to_do));
        let of_one = jobs.entry(whose).or_default();
        match of_one.iter_mut().find(|job| job.to_do == to_do && job.verdict == row.verdict) {
            Some(job) => job.subjects.push(subject),
            None => of_one.push(Job { verdict: row.verdict, subjects: vec![subject], to_do }),
        }
    }
    jobs
}

/// Whose job, for what, what to do.
fn job_table(lang: Lang, jobs: BTreeMap<Whose, Vec<Job>>) -> Block {
    let head = match lang {
        Lang::Ja => ["だれが", "何のために", "何をするか"],
        Lang::En => ["who", "for what", "does what"],
    };
    let and = say(lang, "、", "; ");
    let mut rows = Vec::new();
    for (who, jobs) in jobs {
        for (i, job) in jobs.into_iter().enumerate() {
            let name = if i == 0 { whose(lang, who) } else { String::new() };
            let (_, tone, _) = verdict(lang, job.verdict);
            rows.push(vec![
                Cell::bold(name),
                Cell::toned(job.subjects.join(and.as_str()), tone),
                Cell::new(job.to_do),
            ]);
        }
    }
    Block::Table { widths: vec![0.17, 0.33, 0.50], head: head.map(str::to_owned).to_vec(), rows }
}

/// The page of a report that has been found [`genuine`]. The same report gives the same page.
pub(crate) fn page(lang: Lang, signed: &SignedReport, report: &AcceptanceReport) -> Document {
    let (tone, text) = conclusion(lang, report);
    let seconds = report.took_ms.div_ceil(1000);
    let small = match lang {
        Lang::Ja => format!("試験した日時: {}（かかった時間 {seconds} 秒）", time(lang, report)),
        Lang::En => format!("Tested {}, in {seconds} s.", time(lang, report)),
    };
    let mut blocks = vec![Block::Banner { tone, text, small }];
    let jobs = jobs(lang, report);
    if !jobs.is_empty() {
        blocks.push(Block::Heading(say(lang, "だれが、何をするか", "Who does what")));
        blocks.push(job_table(lang, jobs));
    }
    blocks.push(Block::Heading(say(lang, "試験の結果", "Results")));
    blocks.push(results(lang, report));
    blocks.push(Block::Heading(say(lang, "この紙が本物であること", "That this page is genuine")));
    blocks.push(Block::Paragraph(say(
        lang,
        "この結果は、学校に置いた箱が自分の鍵で署名しました。中身を 1 文字でも変えると、次の確かめ方で分かります: seimonctl acceptance verify このファイル",
        "The gateway has signed this result with its own key. Whoever changes a letter of it is found out by: seimonctl acceptance verify FILE",
    )));
    blocks.push(Block::Note(say(lang, "箱の公開鍵", "Public key")));
    blocks.push(Block::Code(groups(&signed.public_key)));
    blocks.push(Block::Note(say(lang, "署名（Ed25519）", "Signature (Ed25519)")));
    blocks.push(Block::Code(groups(&signed.signature)));
    let (site, name) = (&report.site, clean(&report.site_name));
    let (version, generation) = (clean(&report.agent_version), report.generation);
    blocks.push(Block::Note(match lang {
        Lang::Ja => format!("箱の版 {version}、計画 第 {generation} 世代、学校の番号 {site}。"),
        Lang::En => format!("Gateway version {version}, plan generation {generation}, site {site}."),
    }));
    Document {
        lang,
        title: say(lang, "開通試験の結果", "Acceptance test"),
        subtitle: format!("{name}　{}", time(lang, report)),
        blocks,
        attachment: serde_json::to_string(signed).ok(),
        made_ms: report.begun_ms,
    }
}

fn groups(hex: &str) -> String {
    let digits: Vec<char> = hex.chars().filter(char::is_ascii_hexdigit).collect();
    digits.chunks(8).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

fn results(lang: Lang, report: &AcceptanceReport) -> Block {
    let head = match lang {
        Lang::Ja => ["試したこと", "結果", "分かったこと", "だれの仕事"],
        Lang::En => ["tried", "result", "found", "whose job"],
    };
    let mut rows = Vec::new();
    let mut before = None;
    for row in &report.rows {
        if before.replace(row.topic) != Some(row.topic) {
            let mut title = vec![Cell::toned(topic(lang, row.topic), Tone::Calm)];
            title.extend((0..3).map(|_| Cell::toned("", Tone::Calm)));
            rows.push(title);
        }
        let (word, tone, _) = verdict(lang, row.verdict);
        rows.push(vec![
            Cell::new(pick(lang, &row.subject)),
            Cell::toned(word, tone),
            Cell::new(pick(lang, &row.found)),
            Cell::new(row.whose.map_or_else(|| "–".to_owned(), |who| whose(lang, who))),
        ]);
    }
    Block::Table { widths: vec![0.35, 0.13, 0.36, 0.16], head: head.map(str::to_owned).to_vec(), rows }
}

/// For a terminal.
pub(crate) fn lines(lang: Lang, look: Look, report: &AcceptanceReport) -> String {
    let (tone, text) = conclusion(lang, report);
    let paint = match tone {
        Tone::Good => Paint::Green,
        Tone::Unsure => Paint::Yellow,
        Tone::Bad | Tone::Plain | Tone::Calm => Paint::Red,
    };
    let mut out = format!(
        "{}  {}\n{}\n",
        look.paint(Paint::Bold, &clean(&report.site_name)),
        time(lang, report),
        look.paint(paint, &text)
    );
    let mut before = None;
    for row in &report.rows {
        if before.replace(row.topic) != Some(row.topic) {
            out.push_str(&format!("\n{}\n", look.paint(Paint::Bold, &topic(lang, row.topic))));
        }
        let (word, _, paint) = verdict(lang, row.verdict);
        let text = format!("{}: {}", pick(lang, &row.subject), pick(lang, &row.found));
        out.push_str(&format!(
            "  {} {}",
            look.paint(paint, &format!("[{word}]")),
            look.indented(6, &text).trim_start()
        ));
        if row.verdict != Verdict::Ok
            && let Some(who) = row.whose
        {
            out.push_str(&look.indented(6, &format!("→ {}: {}", whose(lang, who), pick(lang, &row.to_do))));
        }
    }
    out
}

pub(crate) fn not_genuine(lang: Lang, why: &NotGenuine) -> String {
    let (ja, en) = match why {
        NotGenuine::None => {
            ("署名された開通試験の結果が見つかりません。", "there is no signed acceptance report in it")
        }
        NotGenuine::Signature => (
            "署名が合いません。作られた後で変えられています。",
            "the signature does not fit: it has been changed since it was signed",
        ),
        NotGenuine::Version => (
            "署名は合いますが、この seimonctl では読めない版です。",
            "the signature fits, but the report is of a version that this seimonctl does not know",
        ),
        NotGenuine::OtherKey => (
            "署名は合いますが、別の箱のものです（公開鍵が違います）。",
            "the signature fits, but it is another gateway's: the public key differs",
        ),
    };
    say(lang, ja, en)
}

/// A short list for [`Block::List`], kept here so that both papers number alike.
pub(crate) fn steps(items: Vec<String>) -> Block {
    Block::List { numbered: Numbered::Yes, items }
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::paper::html;

    fn both(ja: &str, en: &str) -> Bilingual {
        Bilingual { ja: ja.to_owned(), en: en.to_owned() }
    }

    fn report() -> AcceptanceReport {
        let row = |topic, verdict, whose| AcceptanceRow {
            topic,
            subject: both("新しい回線", "line new"),
            verdict,
            found: both("つながりません。<script>", "nothing answers"),
            whose,
            to_do: both("線を見てください。", "look at the cable"),
        };
        AcceptanceReport {
            format: FORMAT,
            site: seimon_plan::SiteId::new("hinode").unwrap(),
            site_name: "日の出小学校".to_owned(),
            agent_version: "0.1.0".to_owned(),
            generation: 1,
            begun_ms: 1_795_395_600_000,
            clock_trusted: true,
            time_zone: "Asia/Tokyo".to_owned(),
            took_ms: 31_000,
            rows: vec![
                row(Topic::Line, Verdict::Failed, Some(Whose::School)),
                row(Topic::Speed, Verdict::CannotTell, Some(Whose::Municipality)),
                row(Topic::Printer, Verdict::Ok, None),
            ],
        }
    }

    fn signed(seed: u8) -> SignedReport {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let report = serde_json::to_string(&report()).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        SignedReport {
            seimon_signed_report: FORMAT,
            signature: hex(pair.sign(report.as_bytes()).as_ref()),
            public_key: hex(pair.public_key().as_ref()),
            report,
        }
    }

    #[test]
    fn a_report_is_found_in_its_page_and_is_genuine() {
        let signed = signed(1);
        let html = html::render(&page(Lang::Ja, &signed, &report()));
        let found = find(html.as_bytes()).unwrap();
        assert_eq!(found, signed);
        assert_eq!(genuine(&found, None), Ok(report()));
        assert_eq!(genuine(&found, Some(&groups(&signed.public_key).to_uppercase())), Ok(report()));
        assert_eq!(find(b"{\"seimon_signed_report\":1} no"), None);
        assert_eq!(find(b"<p>nothing</p>"), None);
    }

    #[test]
    fn everybodys_jobs_are_told_once_and_what_failed_comes_first() {
        let mut report = report();
        let (failed, unsure) = (report.rows[0].clone(), report.rows[1].clone());
        let also = AcceptanceRow { whose: Some(Whose::School), ..unsure };
        report.rows = vec![also, failed.clone(), failed];
        let jobs = jobs(Lang::Ja, &report);
        let of_school: Vec<(Verdict, usize)> =
            jobs[&Whose::School].iter().map(|job| (job.verdict, job.subjects.len())).collect();
        assert_eq!(of_school, [(Verdict::Failed, 2), (Verdict::CannotTell, 1)]);
        assert_eq!(jobs.len(), 1);
        let (tone, text) = conclusion(Lang::Ja, &report);
        assert_eq!(tone, Tone::Bad);
        assert!(text.contains("2 件が不合格") && text.contains("確認できなかった項目も 1 件"), "{text}");
    }

    #[test]
    fn one_letter_changed_anywhere_in_the_report_is_found_out() {
        let good = signed(1);
        let changed = SignedReport { report: good.report.replace("failed", "ok"), ..good.clone() };
        assert_eq!(genuine(&changed, None), Err(NotGenuine::Signature));
        let other = signed(2);
        let mixed = SignedReport { public_key: other.public_key.clone(), ..good.clone() };
        assert_eq!(genuine(&mixed, None), Err(NotGenuine::Signature));
        let short = SignedReport { signature: "00".to_owned(), ..good.clone() };
        assert_eq!(genuine(&short, None), Err(NotGenuine::Signature));
        assert_eq!(genuine(&good, Some(&other.public_key)), Err(NotGenuine::OtherKey));
    }

    #[test]
    fn the_page_says_the_conclusion_whose_job_it_is_and_never_runs_what_others_wrote() {
        let html = html::render(&page(Lang::Ja, &signed(1), &report()));
        for word in
            ["3 項目のうち、1 件が不合格です。", "学校", "自治体", "確認できない", "線を見てください。"]
        {
            assert!(html.contains(word), "{word}");
        }
        assert_eq!(html.matches("<script").count(), 1, "only the data");
        let english = html::render(&page(Lang::En, &signed(1), &report()));
        assert!(english.contains("1 of 3 rows failed") && english.contains("look at the cable"));
    }
}
