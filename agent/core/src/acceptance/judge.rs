//! Outcomes as rows: what was found, whose job it is, what to do. One trial alone seldom tells whose job it is: a service
//! that fails over every path is ill itself; one that fails over a dead line says something about the line only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use seimon_plan::{DeviceKind, PathId, ServiceId, ValidSitePlan};

use super::words::line_word;
use super::{Cable, Item, Outcome, Row, Topic, Trial, Verdict, Whose, recommended_mbps};
use crate::health::{Liveness, Stage};
use crate::status::Sentence;

/// A refusal by the gate comes at once; one by a machine far away takes its round trip.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Losing more is felt by people.
const MOST_LOSS: f64 = 0.03;

/// One row for each subject; where several trials have one subject, the worst is told. `outcomes` belong to `items` by
/// their place; missing ones were not tried.
pub fn judge(plan: &ValidSitePlan, items: &[Item], outcomes: &[Outcome]) -> Vec<Row> {
    let outcome = |i: usize| outcomes.get(i).unwrap_or(&Outcome::NotTried);
    let evidence = Evidence::gather(items, &outcome);
    let mut rows: Vec<Row> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let row = judge_one(plan, item, outcome(i), &evidence);
        match rows.iter_mut().find(|other| other.topic == row.topic && other.subject == row.subject) {
            Some(other) if other.verdict < row.verdict => *other = row,
            Some(_) => {}
            None => rows.push(row),
        }
    }
    rows
}

/// What the trials say about each other.
struct Evidence<'a> {
    dead: BTreeSet<&'a PathId>,
    /// Over how many living paths a service was tried and failed, and over how many it went well.
    services: BTreeMap<&'a ServiceId, (usize, usize)>,
}

impl<'a> Evidence<'a> {
    fn gather(items: &'a [Item], outcome: &impl Fn(usize) -> &'a Outcome) -> Self {
        let mut dead = BTreeSet::new();
        for (i, item) in items.iter().enumerate() {
            if let (Trial::Line { path, .. }, Outcome::Line { liveness, .. }) = (&item.trial, outcome(i))
                && *liveness == Liveness::Down
            {
                dead.insert(path);
            }
        }
        let mut services: BTreeMap<&ServiceId, (usize, usize)> = BTreeMap::new();
        for (i, item) in items.iter().enumerate() {
            let Trial::Service { path, service, .. } = &item.trial else { continue };
            if dead.contains(path) {
                continue;
            }
            let (failed, well) = services.entry(service).or_default();
            match outcome(i) {
                Outcome::Well { .. } => *well += 1,
                Outcome::Stopped { .. } => *failed += 1,
                Outcome::Line { .. }
                | Outcome::Connected { .. }
                | Outcome::Refused { .. }
                | Outcome::NobodyThere
                | Outcome::Silent
                | Outcome::Loaded { .. }
                | Outcome::NotTried => {}
            }
        }
        Self { dead, services }
    }
}

/// Verdict, finding, whose job, what to do; the rest of a row is the item's.
type Judged = (Verdict, Sentence, Option<Whose>, Sentence);

fn judge_one(plan: &ValidSitePlan, item: &Item, outcome: &Outcome, evidence: &Evidence<'_>) -> Row {
    let (verdict, found, whose, to_do) = if *outcome == Outcome::NotTried {
        not_tried(plan, item)
    } else if !matches!(item.trial, Trial::Line { .. } | Trial::Apart { .. } | Trial::Name { .. })
        && evidence.dead.contains(item.trial.path())
        && !matches!(outcome, Outcome::Well { .. } | Outcome::Connected { .. } | Outcome::Loaded { .. })
        && leaves(plan, item)
    {
        because_of_the_line()
    } else {
        match &item.trial {
            Trial::Line { line, .. } => {
                let port = plan.lines.get(line).map(|line| line.port.as_str()).unwrap_or_default();
                judge_line(&line_word(plan, line), port, outcome)
            }
            Trial::Name { .. } => judge_name(outcome),
            Trial::Service { service, .. } => judge_service(service, outcome, evidence),
            Trial::Reach { target, .. } => judge_reach(plan, item.topic, target.ip(), outcome),
            Trial::Apart { .. } => judge_apart(outcome),
            Trial::Speed { .. } => judge_speed(plan.school.pupils, outcome),
        }
    };
    Row { topic: item.topic, subject: item.subject.clone(), verdict, found, whose, to_do }
}

/// What is tried stands outside the school.
fn leaves(plan: &ValidSitePlan, item: &Item) -> bool {
    match &item.trial {
        Trial::Reach { target, .. } => !plan.zones.values().any(|zone| match target.ip() {
            std::net::IpAddr::V4(v4) => zone.ipv4.contains(&v4),
            std::net::IpAddr::V6(v6) => zone.ipv6.is_some_and(|net| net.contains(&v6)),
        }),
        Trial::Line { .. }
        | Trial::Name { .. }
        | Trial::Service { .. }
        | Trial::Apart { .. }
        | Trial::Speed { .. } => true,
    }
}

fn nothing() -> Sentence {
    Sentence::default()
}

fn ok(ja: impl Into<String>, en: impl Into<String>) -> Judged {
    (Verdict::Ok, Sentence::new(ja, en), None, nothing())
}

fn not_tried(plan: &ValidSitePlan, item: &Item) -> Judged {
    if item.topic == Topic::Speed && plan.school.speed.is_none() {
        return (
            Verdict::CannotTell,
            Sentence::new("速さを測る相手が決まっていません。", "There is nothing to measure against."),
            Some(Whose::Municipality),
            Sentence::new(
                "計画の school.speed に、測るための大きなファイルの場所を書いてください。",
                "Name a large file in the plan's school.speed.",
            ),
        );
    }
    (
        Verdict::CannotTell,
        Sentence::new("時間内に確かめられませんでした。", "It could not be tried in time."),
        Some(Whose::Municipality),
        Sentence::new("もう一度、開通試験をしてください。", "Run the test again."),
    )
}

fn because_of_the_line() -> Judged {
    (
        Verdict::CannotTell,
        Sentence::new(
            "この回線がつながっていないため、確かめられません。",
            "The line carries nothing, so this cannot be told.",
        ),
        None,
        Sentence::new("回線が直ってから、もう一度試してください。", "Try again once the line works."),
    )
}

fn judge_line(word: &Sentence, port: &str, outcome: &Outcome) -> Judged {
    let Outcome::Line { liveness, loss, round_trip, cable } = outcome else { return odd() };
    let percent = loss.unwrap_or(0.0) * 100.0;
    match (cable, liveness) {
        (Cable::Out, _) => (
            Verdict::Failed,
            Sentence::new(
                format!("箱の差し込み口 {port} に線がつながっていません。"),
                format!("No cable is in port {port}, or what it leads to is off."),
            ),
            Some(Whose::School),
            Sentence::new(
                format!("{port} に線が奥まで入っているか、線の先の機械の電源が入っているか見てください。"),
                format!("Push the cable into {port}; see that the box at its other end is on."),
            ),
        ),
        (Cable::In | Cable::Unknown, Liveness::Down) => (
            Verdict::Failed,
            Sentence::new(
                "線はありますが、外までつながりません。",
                "There is a cable, but nothing answers outside.",
            ),
            Some(Whose::Carrier),
            Sentence::new(
                format!("回線事業者に「{}」が使えるようになっているか確かめてもらってください。", word.ja),
                format!("Ask the carrier whether {} is in service.", word.en),
            ),
        ),
        (Cable::In | Cable::Unknown, Liveness::Unknown) => (
            Verdict::CannotTell,
            Sentence::new("まだ様子を見ているところです。", "It has not been watched long enough."),
            Some(Whose::Municipality),
            Sentence::new("1 分待って、もう一度試してください。", "Wait a minute and try again."),
        ),
        (Cable::In | Cable::Unknown, Liveness::Up) if loss.is_some_and(|loss| loss > MOST_LOSS) => (
            Verdict::Failed,
            Sentence::new(
                format!("つながりますが、通信の {percent:.0}% が途中で消えています。"),
                format!("It works, but {percent:.0} % of packets are lost."),
            ),
            Some(Whose::Carrier),
            Sentence::new(
                "回線事業者に、通信が途中で失われていると伝えてください。",
                "Tell the carrier that packets are being lost.",
            ),
        ),
        (Cable::In | Cable::Unknown, Liveness::Up) => {
            let ms = round_trip.map(|rtt| rtt.as_secs_f64() * 1_000.0);
            match ms {
                Some(ms) => ok(
                    format!("つながっています（行って戻るまで {ms:.0} ミリ秒）。"),
                    format!("It works (round trip {ms:.0} ms)."),
                ),
                None => ok("つながっています。", "It works."),
            }
        }
    }
}

/// An outcome that does not belong to its trial.
fn odd() -> Judged {
    (
        Verdict::CannotTell,
        Sentence::new("結果を読み取れませんでした。", "The outcome could not be understood."),
        Some(Whose::Municipality),
        Sentence::new(
            "保守の担当に、この紙を見せてください。",
            "Show this page to whoever looks after the gateway.",
        ),
    )
}

fn judge_name(outcome: &Outcome) -> Judged {
    match outcome {
        Outcome::Well { .. } => ok("行き先の案内が返ってきます。", "Names are answered."),
        Outcome::Stopped { .. } | Outcome::Silent | Outcome::Refused { .. } | Outcome::NobodyThere => (
            Verdict::Failed,
            Sentence::new("行き先の名前を調べても、答えが返ってきません。", "Names are not answered."),
            Some(Whose::Municipality),
            Sentence::new(
                "正門の機械の担当に、「名前の案内が動いていない」と伝えてください。",
                "Tell whoever looks after the gateway that its name server does not answer.",
            ),
        ),
        Outcome::Line { .. } | Outcome::Connected { .. } | Outcome::Loaded { .. } | Outcome::NotTried => {
            odd()
        }
    }
}

fn judge_service(service: &ServiceId, outcome: &Outcome, evidence: &Evidence<'_>) -> Judged {
    let (stage, detail) = match outcome {
        Outcome::Well { took } => {
            let seconds = took.as_secs_f64();
            return ok(
                format!("最初の画面が出ます（{seconds:.2} 秒）。"),
                format!("The first page comes ({seconds:.2} s)."),
            );
        }
        Outcome::Stopped { stage, detail } => (*stage, detail),
        Outcome::Line { .. }
        | Outcome::Connected { .. }
        | Outcome::Refused { .. }
        | Outcome::NobodyThere
        | Outcome::Silent
        | Outcome::Loaded { .. }
        | Outcome::NotTried => return odd(),
    };
    let (failed, well) = evidence.services.get(service).copied().unwrap_or_default();
    // Over at least two ways, and over none of them does it work.
    let everywhere = failed > 1 && well == 0;
    if stage == Stage::HttpStatus && detail.contains("403") && !everywhere {
        return (
            Verdict::Failed,
            Sentence::new(
                "サービスに入るのを断られました。学校の回線の番号が、まだ登録されていないようです。",
                "The service refuses us: the address of this line seems not to be registered.",
            ),
            Some(Whose::Municipality),
            Sentence::new(
                "サービス事業者に、この回線の番号（アドレス）の登録を頼んでください。",
                "Have the provider register this line's addresses.",
            ),
        );
    }
    let found = match stage {
        Stage::Dns => Sentence::new("行き先が見つかりません。", "Its name cannot be found."),
        Stage::Tcp => Sentence::new("相手が応答しません。", "It does not answer."),
        Stage::Tls => Sentence::new(
            "相手が本物だと確かめられません。",
            "It cannot prove that it is what it claims to be.",
        ),
        Stage::HttpStatus | Stage::Body => Sentence::new(
            "応答はありますが、いつもの画面ではありません。",
            "It answers, but not with its usual page.",
        ),
    };
    if everywhere {
        return (
            Verdict::Failed,
            found,
            Some(Whose::Provider),
            Sentence::new(
                "どの回線でも同じです。サービス事業者に、動いているか確かめてもらってください。",
                "It is the same over every line: ask the provider whether the service is up.",
            ),
        );
    }
    let (whose, to_do) = match stage {
        Stage::Dns | Stage::Tcp if well > 0 => (
            Whose::Carrier,
            Sentence::new(
                "ほかの回線では使えます。回線事業者に、この回線から届くか確かめてもらってください。",
                "It works over another line: ask the carrier whether it can be reached over this one.",
            ),
        ),
        Stage::Tls if well > 0 => (
            Whose::Carrier,
            Sentence::new(
                "ほかの回線では使えます。この回線の途中で別の画面（利用手続きなど）が出ていないか、回線事業者に確かめてもらってください。",
                "It works over another line: ask the carrier whether something on this one answers in its place.",
            ),
        ),
        Stage::Dns | Stage::Tcp | Stage::Tls | Stage::HttpStatus | Stage::Body => (
            Whose::Provider,
            Sentence::new(
                "サービス事業者に、動いているか、この回線の番号が登録されているか確かめてもらってください。",
                "Ask the provider whether the service is up and this line's addresses are registered.",
            ),
        ),
    };
    (Verdict::Failed, found, Some(whose), to_do)
}

fn judge_reach(plan: &ValidSitePlan, topic: Topic, address: std::net::IpAddr, outcome: &Outcome) -> Judged {
    let inside = plan.zones.values().any(|zone| match address {
        std::net::IpAddr::V4(v4) => zone.ipv4.contains(&v4),
        std::net::IpAddr::V6(v6) => zone.ipv6.is_some_and(|net| net.contains(&v6)),
    });
    let printer = topic == Topic::Device(DeviceKind::Printer);
    match outcome {
        Outcome::Connected { .. } if printer => ok("印刷の受け付けに応答します。", "It takes print jobs."),
        Outcome::Connected { .. } => ok("応答します。", "It answers."),
        Outcome::Refused { took } if *took < AT_ONCE && !inside => (
            Verdict::Failed,
            Sentence::new("入るのを断られました。", "The connection is refused."),
            Some(Whose::Municipality),
            Sentence::new(
                "計画で許可されているか、相手の機械が受け付けているか確かめてください。",
                "See that the plan permits it and that the machine takes connections.",
            ),
        ),
        Outcome::Refused { .. } => (
            Verdict::Failed,
            Sentence::new("機械はありますが、受け付けません。", "The machine is there and refuses."),
            Some(if inside { Whose::School } else { Whose::Municipality }),
            Sentence::new(
                "電源を入れ直し、それでもだめなら計画の許可を確かめてもらってください。",
                "Switch it off and on; if that does not help, have the plan's permits looked at.",
            ),
        ),
        Outcome::Silent | Outcome::NobodyThere if inside => (
            Verdict::Failed,
            Sentence::new("応答がありません。", "It does not answer."),
            Some(Whose::School),
            Sentence::new(
                "電源が入っているか、線が抜けていないか見てください。",
                "See that it is on and its cable is in.",
            ),
        ),
        Outcome::Silent | Outcome::NobodyThere => (
            Verdict::Failed,
            Sentence::new("応答がありません。", "It does not answer."),
            Some(Whose::Municipality),
            Sentence::new(
                "役所の機械が動いているか、回線の先で止められていないか確かめてください。",
                "See that the machine in the town hall is up and nothing on the way stops it.",
            ),
        ),
        Outcome::Line { .. }
        | Outcome::Well { .. }
        | Outcome::Stopped { .. }
        | Outcome::Loaded { .. }
        | Outcome::NotTried => odd(),
    }
}

fn judge_apart(outcome: &Outcome) -> Judged {
    match outcome {
        Outcome::Refused { took } if *took < AT_ONCE => ok("すぐに断られました。", "It was refused at once."),
        // The gate refuses at once. Whatever else happens, the packet was not stopped there.
        Outcome::Refused { .. } | Outcome::NobodyThere | Outcome::Connected { .. } | Outcome::Silent => (
            Verdict::Failed,
            Sentence::new(
                "断られるはずの通信が、断られませんでした。",
                "What must be refused was not refused.",
            ),
            Some(Whose::Municipality),
            Sentence::new(
                "すぐに正門の機械の担当に知らせてください。",
                "Tell whoever looks after the gateway at once.",
            ),
        ),
        Outcome::Line { .. }
        | Outcome::Well { .. }
        | Outcome::Stopped { .. }
        | Outcome::Loaded { .. }
        | Outcome::NotTried => odd(),
    }
}

fn judge_speed(pupils: Option<u32>, outcome: &Outcome) -> Judged {
    let mbps = match outcome {
        Outcome::Loaded { bytes, took } if *bytes > 0 && !took.is_zero() => {
            *bytes as f64 * 8.0 / took.as_secs_f64() / 1e6
        }
        Outcome::Loaded { .. } | Outcome::Stopped { .. } | Outcome::Silent | Outcome::NobodyThere => {
            return (
                Verdict::CannotTell,
                Sentence::new(
                    "測るためのファイルを読み込めませんでした。",
                    "The file to measure with did not come.",
                ),
                Some(Whose::Municipality),
                Sentence::new(
                    "測る相手（計画の school.speed）が動いているか確かめてください。",
                    "See that what the plan's school.speed names is up.",
                ),
            );
        }
        Outcome::Line { .. }
        | Outcome::Well { .. }
        | Outcome::Connected { .. }
        | Outcome::Refused { .. }
        | Outcome::NotTried => return odd(),
    };
    let Some((pupils, wanted)) = pupils.and_then(|pupils| Some((pupils, recommended_mbps(pupils)?))) else {
        return (
            Verdict::CannotTell,
            Sentence::new(
                format!("{mbps:.0} メガ出ていますが、学校の人数が分からず、足りるか判断できません。"),
                format!("{mbps:.0} Mbit/s; the number of pupils is not known, so nothing to compare with."),
            ),
            Some(Whose::Municipality),
            Sentence::new(
                "計画の school.pupils に児童生徒数を書いてください。",
                "Write school.pupils into the plan.",
            ),
        );
    };
    if mbps >= f64::from(wanted) {
        return ok(
            format!("{mbps:.0} メガ出ています（{pupils} 人の学校の目安は {wanted} メガ）。"),
            format!("{mbps:.0} Mbit/s ({wanted} are recommended for {pupils} pupils)."),
        );
    }
    (
        Verdict::Failed,
        Sentence::new(
            format!("{mbps:.0} メガしか出ていません（{pupils} 人の学校の目安は {wanted} メガ）。"),
            format!("Only {mbps:.0} Mbit/s ({wanted} are recommended for {pupils} pupils)."),
        ),
        Some(Whose::Carrier),
        Sentence::new(
            "回線事業者に、契約どおりの速さか確かめてもらってください。契約どおりなら、契約の見直しを考えてください。",
            "Ask the carrier whether that is what the contract says; if so, think about another contract.",
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;
    use seimon_board::Board;
    use seimon_plan::ZoneId;

    use super::super::{Item, programme};
    use super::*;

    fn plan() -> ValidSitePlan {
        let text = include_str!("../../../../provisioning/plan/examples/two-line-town.toml");
        seimon_plan::parse(text, "town.toml", &Board::shipped("lab-namespace").unwrap()).unwrap()
    }

    fn items(plan: &ValidSitePlan) -> Vec<Item> {
        let zones = ["affairs", "learning", "printers"].map(|id| ZoneId::new(id).unwrap());
        let paths = ["closed", "direct"].map(|id| PathId::new(id).unwrap());
        let hosts: BTreeSet<(ZoneId, PathId)> =
            zones.iter().flat_map(|zone| paths.iter().map(|path| (zone.clone(), path.clone()))).collect();
        programme(plan, &hosts, Timestamp::UNIX_EPOCH)
    }

    fn well(trial: &Trial) -> Outcome {
        let took = Duration::from_millis(40);
        match trial {
            Trial::Line { .. } => Outcome::Line {
                liveness: Liveness::Up,
                loss: Some(0.0),
                round_trip: Some(took),
                cable: Cable::In,
            },
            Trial::Name { .. } | Trial::Service { .. } => Outcome::Well { took },
            Trial::Reach { .. } => Outcome::Connected { took },
            Trial::Apart { .. } => Outcome::Refused { took: Duration::from_millis(1) },
            Trial::Speed { .. } => Outcome::Loaded { bytes: 600_000_000, took: Duration::from_secs(6) },
        }
    }

    /// All went well but where `other` says otherwise.
    fn rows(other: impl Fn(&Trial) -> Option<Outcome>) -> Vec<Row> {
        let plan = plan();
        let items = items(&plan);
        let outcomes: Vec<Outcome> =
            items.iter().map(|item| other(&item.trial).unwrap_or_else(|| well(&item.trial))).collect();
        judge(&plan, &items, &outcomes)
    }

    fn failed(rows: &[Row]) -> Vec<(&str, Option<Whose>)> {
        let failed = rows.iter().filter(|row| row.verdict == Verdict::Failed);
        failed.map(|row| (row.subject.ja.as_str(), row.whose)).collect()
    }

    #[test]
    fn a_good_gateway_passes_every_row_and_every_topic_is_there() {
        let rows = rows(|_| None);
        assert!(rows.iter().all(|row| row.verdict == Verdict::Ok && row.whose.is_none()), "{rows:#?}");
        let topics: BTreeSet<Topic> = rows.iter().map(|row| row.topic).collect();
        assert_eq!(topics.len(), 8, "{topics:?}");
        assert!(rows.is_sorted_by_key(|row| row.topic));
    }

    #[test]
    fn nothing_that_was_not_tried_is_called_ok() {
        let plan = plan();
        let items = items(&plan);
        for outcomes in [vec![], vec![Outcome::NotTried; items.len()]] {
            for row in judge(&plan, &items, &outcomes) {
                assert_eq!(row.verdict, Verdict::CannotTell, "{row:?}");
            }
        }
    }

    #[test]
    fn every_row_that_is_not_ok_says_what_to_do_in_both_languages() {
        let stages = [Stage::Dns, Stage::Tcp, Stage::Tls, Stage::HttpStatus, Stage::Body];
        let mut outcomes = vec![Outcome::NobodyThere, Outcome::Silent, Outcome::NotTried];
        outcomes.push(Outcome::Refused { took: Duration::from_millis(1) });
        outcomes.push(Outcome::Loaded { bytes: 1_000_000, took: Duration::from_secs(6) });
        outcomes
            .extend(stages.map(|stage| Outcome::Stopped { stage, detail: "status 403, not 200".to_owned() }));
        for cable in [Cable::In, Cable::Out, Cable::Unknown] {
            for liveness in [Liveness::Up, Liveness::Down, Liveness::Unknown] {
                outcomes.push(Outcome::Line { liveness, loss: Some(0.2), round_trip: None, cable });
            }
        }
        for outcome in outcomes {
            for row in rows(|_| Some(outcome.clone())).iter().filter(|row| row.verdict != Verdict::Ok) {
                assert!(!row.found.ja.is_empty() && !row.to_do.ja.is_ascii(), "{row:?}");
                assert!(!row.found.en.is_empty() && row.to_do.en.is_ascii(), "{row:?}");
                assert!(row.whose.is_some() || row.verdict == Verdict::CannotTell, "{row:?}");
            }
        }
    }

    #[test]
    fn a_cable_that_is_out_is_the_schools_job_and_a_dead_line_the_carriers() {
        for (cable, whose) in [(Cable::Out, Whose::School), (Cable::In, Whose::Carrier)] {
            let rows = rows(|trial| match trial {
                Trial::Line { path, .. } if path.as_str() == "direct" => {
                    Some(Outcome::Line { liveness: Liveness::Down, loss: Some(1.0), round_trip: None, cable })
                }
                Trial::Service { path, .. } if path.as_str() == "direct" => {
                    Some(Outcome::Stopped { stage: Stage::Dns, detail: "no answer".to_owned() })
                }
                Trial::Line { .. }
                | Trial::Name { .. }
                | Trial::Service { .. }
                | Trial::Reach { .. }
                | Trial::Apart { .. }
                | Trial::Speed { .. } => None,
            });
            assert_eq!(failed(&rows), [("新しいインターネット回線", Some(whose))], "services are not blamed");
            assert!(rows.iter().any(|row| row.topic == Topic::Service && row.verdict == Verdict::CannotTell));
        }
    }

    #[test]
    fn a_service_that_is_ill_everywhere_is_its_providers_job_and_403_on_one_line_the_towns() {
        let affairs =
            |trial: &Trial| matches!(trial, Trial::Service { service, .. } if service.as_str() == "affairs");
        let ill = rows(|trial| {
            affairs(trial)
                .then(|| Outcome::Stopped { stage: Stage::Tcp, detail: "no answer in time".to_owned() })
        });
        assert!(
            failed(&ill).iter().all(|(_, whose)| *whose == Some(Whose::Provider)) && failed(&ill).len() == 2
        );
        let refused = rows(|trial| {
            (affairs(trial) && trial.path().as_str() == "direct").then(|| Outcome::Stopped {
                stage: Stage::HttpStatus,
                detail: "status 403, not 200".to_owned(),
            })
        });
        let [(subject, whose)] = failed(&refused)[..] else { panic!("{refused:#?}") };
        assert_eq!(whose, Some(Whose::Municipality));
        assert!(
            subject.contains("校務支援システム") && subject.contains("新しいインターネット回線"),
            "{subject}"
        );
    }

    #[test]
    fn a_zone_that_lets_anything_through_fails_whatever_comes_back() {
        let late = Outcome::Refused { took: Duration::from_secs(1) };
        let open = Outcome::Connected { took: Duration::from_millis(1) };
        for outcome in [Outcome::Silent, Outcome::NobodyThere, late, open] {
            let learning =
                |trial: &Trial| matches!(trial, Trial::Apart { zone, .. } if zone.as_str() == "learning");
            let rows = rows(|trial| learning(trial).then(|| outcome.clone()));
            let failed = failed(&rows);
            assert!(
                !failed.is_empty()
                    && failed.iter().all(|(name, _)| name.starts_with("「子どもたちの学習用」"))
            );
        }
    }

    #[test]
    fn speed_is_judged_by_the_schools_size() {
        // 500 Mbit/s; 525 are recommended for 320 pupils.
        let loaded = || Outcome::Loaded { bytes: 375_000_000, took: Duration::from_secs(6) };
        let slow = rows(|trial| matches!(trial, Trial::Speed { .. }).then(loaded));
        assert_eq!(failed(&slow).len(), 2);
        assert!(
            slow.iter().any(|row| row.found.ja.contains("500 メガ") && row.found.ja.contains("525 メガ"))
        );
    }

    #[test]
    fn separation_is_tried_between_all_zones_and_never_on_a_port_that_is_permitted() {
        let plan = plan();
        let apart: Vec<Item> =
            items(&plan).into_iter().filter(|item| item.topic == Topic::Separation).collect();
        let subjects: BTreeSet<&str> = apart.iter().map(|item| item.subject.ja.as_str()).collect();
        assert_eq!(subjects.len(), 6 + 2, "six pairs, two zones with a list: {subjects:?}");
        for item in apart {
            let Trial::Apart { target, .. } = item.trial else { panic!("{item:?}") };
            assert!(![9100, 631].contains(&target.port()), "{target}");
            assert!(plan.school.devices.iter().all(|device| device.address != target.ip()));
        }
    }
}
