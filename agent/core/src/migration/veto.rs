//! What stands against a move (or a command), as values with sentences.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use seimon_plan::{PathId, ServiceId, ZoneId};
use serde::{Deserialize, Serialize};

use super::state::StateName;
use crate::health::{Ailment, Stage};
use crate::status::{Sentence, list};

/// Append only: part of checkpoints (as a cause).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "veto")]
pub enum Veto {
    WindowClosed {
        next: Option<String>,
    },
    Frozen {
        reason: String,
        until: Option<String>,
    },
    ClockNotTrusted,
    EgressNotRegistered {
        path: PathId,
        addresses: BTreeSet<IpAddr>,
    },
    EgressNotMeasured {
        path: PathId,
    },
    /// Median times of a check, and the most that is allowed.
    Slower {
        path: PathId,
        service: ServiceId,
        took: Duration,
        current: Duration,
        allowed: Duration,
    },
    /// Liveness packets lost, per thousand, and the most that is allowed.
    Lossier {
        path: PathId,
        lost: u32,
        allowed: u32,
    },
    CandidateDown {
        path: PathId,
    },
    CandidateUnknown {
        path: PathId,
    },
    ServiceIll {
        path: PathId,
        service: ServiceId,
        stage: Option<Stage>,
    },
    NotQualified {
        path: PathId,
        service: ServiceId,
        good: u32,
        needed: u32,
    },
    PathNotInRoute {
        path: PathId,
        route: Vec<PathId>,
    },
    HeldDown {
        path: PathId,
        left: Duration,
    },
    AlreadyThere {
        path: PathId,
    },
    /// Another thing is under way.
    Busy {
        state: StateName,
    },
    /// Pause, resume or roll-back with nothing to pause, resume or roll back.
    NothingToDo {
        state: StateName,
    },
    /// Roll-back: the path before cannot carry the traffic.
    NoWayBack {
        path: PathId,
    },
    CheckpointNotWritten {
        reason: String,
    },
    /// It carries packets, but badly.
    Ailing {
        path: PathId,
        ailment: Ailment,
    },
    /// Strangers have the same egress address, and a service admits people by it.
    EgressShared {
        path: PathId,
    },
    /// Clients of the zone reach services through the town hall's proxy: a move would move nothing for them. Counts of the
    /// last hour.
    ProxyInTheWay {
        zone: ZoneId,
        clients: u32,
        flows: u64,
    },
    /// The group is on an emergency line, from which it returns by itself.
    OnEmergencyLine {
        path: PathId,
    },
    /// The gateway's own disk has no room for what a move writes down.
    DiskFull,
}

impl Veto {
    /// A veto that no waiting within this move can lift: the move is given up at once.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::WindowClosed { .. }
            | Self::Frozen { .. }
            | Self::ClockNotTrusted
            | Self::EgressNotRegistered { .. }
            | Self::EgressShared { .. }
            | Self::ProxyInTheWay { .. }
            | Self::OnEmergencyLine { .. }
            | Self::DiskFull
            | Self::CandidateDown { .. }
            | Self::PathNotInRoute { .. }
            | Self::AlreadyThere { .. }
            | Self::Busy { .. }
            | Self::NothingToDo { .. }
            | Self::NoWayBack { .. }
            | Self::CheckpointNotWritten { .. } => true,
            Self::EgressNotMeasured { .. }
            | Self::Slower { .. }
            | Self::Lossier { .. }
            | Self::Ailing { .. }
            | Self::CandidateUnknown { .. }
            | Self::ServiceIll { .. }
            | Self::NotQualified { .. }
            | Self::HeldDown { .. } => false,
        }
    }

    /// What stands against it, by what evidence, and what to do.
    pub fn sentence(&self) -> Sentence {
        match self {
            Self::WindowClosed { next: Some(next) } => Sentence::new(
                format!(
                    "今は切り替えてよい時間帯ではありません。次に始められるのは {next} です。それまで待つか、計画の時間帯を変えてください。"
                ),
                format!(
                    "This is outside the hours in which a move may begin. They next open at {next}: wait, or change the plan's windows."
                ),
            ),
            Self::WindowClosed { next: None } => Sentence::new(
                "計画には、切り替えてよい時間帯がこの先ありません。計画に時間帯を加えてください。",
                "The plan has no hours ahead in which a move may begin. Add a window to the plan.",
            ),
            Self::Frozen { reason, until } => {
                let (ja, en) = match until {
                    Some(until) => (format!("（{until} まで）"), format!(" (until {until})")),
                    None => (String::new(), String::new()),
                };
                Sentence::new(
                    format!(
                        "切り替えを止める期間です{ja}。理由：{reason}。この期間が過ぎてから始めてください。"
                    ),
                    format!("Moves are frozen{en}: {reason}. Begin after that."),
                )
            }
            Self::ClockNotTrusted => Sentence::new(
                "機器の時計が正しいと確かめられていないため、時間帯を判断できません。時刻サーバーに届くか確かめてください。",
                "The gateway's clock has not been confirmed, so the permitted hours cannot be judged. Check that its time server can be reached.",
            ),
            Self::EgressNotRegistered { path, addresses } => Sentence::new(
                format!(
                    "経路「{path}」から出ると、相手には {} と見えますが、この番号はサービスに登録されていません。サービスの提供元に登録を頼み、計画にも書いてください。",
                    list(addresses)
                ),
                format!(
                    "Over path {path} the outside sees {}, which is not registered with the service. Have it registered by the provider, and put it in the plan.",
                    list(addresses)
                ),
            ),
            Self::EgressNotMeasured { path } => Sentence::new(
                format!(
                    "経路「{path}」で外からどの番号に見えるか、まだ測れていません。少し待ち、続くときは確認用サーバーに届くか確かめてください。"
                ),
                format!(
                    "Which address the outside sees on path {path} has not been measured yet. Wait a little; if it stays so, check that the echo service can be reached over it."
                ),
            ),
            Self::Slower { path, service, took, current, allowed } => Sentence::new(
                format!(
                    "経路「{path}」では「{service}」の応答に {} ミリ秒かかり、今の経路（{} ミリ秒）より遅すぎます（許容 {} ミリ秒）。回線を調べてください。",
                    took.as_millis(),
                    current.as_millis(),
                    allowed.as_millis()
                ),
                format!(
                    "Over path {path} a check of {service} takes {} ms, over the current path {} ms; at most {} ms are allowed. Have the line looked at.",
                    took.as_millis(),
                    current.as_millis(),
                    allowed.as_millis()
                ),
            ),
            Self::Lossier { path, lost, allowed } => Sentence::new(
                format!(
                    "経路「{path}」で通信の {} が失われています（許容 {}）。回線を調べてください。",
                    permille(*lost),
                    permille(*allowed)
                ),
                format!(
                    "Path {path} loses {} of test packets; at most {} are allowed. Have the line looked at.",
                    permille(*lost),
                    permille(*allowed)
                ),
            ),
            Self::Ailing { path, ailment } => Sentence::new(
                format!("経路「{path}」は{}。回線を調べてください。", ailment.sentence().ja),
                format!("Path {path} {}. Have the line looked at.", ailment.sentence().en),
            ),
            Self::EgressShared { path } => Sentence::new(
                format!(
                    "経路「{path}」から外に見える番号は、無関係な人も使う共用のものです。番号で利用者を見分けるサービスでは、その人たちも入れてしまいます。専用の番号を契約するか、番号を登録しない方式にしてください。"
                ),
                format!(
                    "Strangers share the address that the outside sees on path {path}; a service that admits people by address would admit them too. Order an address of your own, or have the service trust something else."
                ),
            ),
            Self::ProxyInTheWay { zone, clients, flows } => {
                let used = crate::proxy::still_used(zone, *clients, *flows);
                Sentence::new(
                    format!(
                        "{}このまま移しても、その端末の通信はこれまでどおり庁舎から出ます。端末のプロキシ設定を外すか、計画の [proxy] に `pac = \"serve\"` と書いてください。",
                        used.ja
                    ),
                    format!(
                        "{} A move would move nothing for them: take the proxy out of their settings, or write `pac = \"serve\"` under [proxy] in the plan.",
                        used.en
                    ),
                )
            }
            Self::OnEmergencyLine { path } => Sentence::new(
                format!(
                    "いまは非常用の経路「{path}」を使っています。ふだんの回線が直って自動で戻ってから始めてください。"
                ),
                format!(
                    "This traffic is on the emergency path {path}. Begin when an ordinary line works again; it returns there by itself."
                ),
            ),
            Self::CandidateDown { path } => Sentence::new(
                format!("経路「{path}」がつながっていません。ケーブルと回線の機器を確かめてください。"),
                format!("Path {path} does not carry anything. Check the cable and the line's equipment."),
            ),
            Self::CandidateUnknown { path } => Sentence::new(
                format!("経路「{path}」がつながるか、まだ確かめている途中です。少し待ってください。"),
                format!("Whether path {path} works is still being examined. Wait a little."),
            ),
            Self::ServiceIll { path, service, stage } => Sentence::new(
                format!(
                    "経路「{path}」では「{service}」が使えません（{}）。回線とサービスの状態を確かめてください。",
                    stage_ja(*stage)
                ),
                format!(
                    "Over path {path}, {service} does not work ({}). Check the line and the service.",
                    stage_en(*stage)
                ),
            ),
            Self::NotQualified { path, service, good, needed } => Sentence::new(
                format!(
                    "経路「{path}」での「{service}」の確認は、続けて {needed} 回のうち {good} 回まで済みました。終わるまで待ってください。"
                ),
                format!(
                    "Checks of {service} over path {path}: {good} good in a row, {needed} are needed. Wait until they are done."
                ),
            ),
            Self::PathNotInRoute { path, route } => Sentence::new(
                format!("計画では、この通信に経路「{path}」を使えません。使えるのは {} です。", list(route)),
                format!("The plan does not let this traffic use path {path}; it may use {}.", list(route)),
            ),
            Self::HeldDown { path, left } => Sentence::new(
                format!("経路「{path}」は少し前に不調だったため、あと {} 秒待ちます。", left.as_secs() + 1),
                format!(
                    "Path {path} failed a short while ago and is left alone for another {} s. Try again then.",
                    left.as_secs() + 1
                ),
            ),
            Self::AlreadyThere { path } => Sentence::new(
                format!("すでに経路「{path}」を使っています。することはありません。"),
                format!("This traffic already uses path {path}. There is nothing to do."),
            ),
            Self::Busy { state } => Sentence::new(
                format!("別の切り替えの途中です（{state}）。終わるのを待つか、元に戻してください。"),
                format!("Another step is under way ({state}). Wait for its end, or roll it back."),
            ),
            Self::NothingToDo { state } => Sentence::new(
                format!(
                    "今の状態（{state}）では、その操作の対象がありません。`seimonctl migrate status` で確かめてください。"
                ),
                format!(
                    "In this state ({state}) there is nothing for that command to act on. See `seimonctl migrate status`."
                ),
            ),
            Self::NoWayBack { path } => Sentence::new(
                format!(
                    "戻り先の経路「{path}」が今は使えません。その回線を直してから、もう一度戻してください。"
                ),
                format!(
                    "Path {path}, to go back to, cannot be used now. Repair that line, then roll back again."
                ),
            ),
            Self::DiskFull => Sentence::new(
                "機器の記憶域に空きがないため、切り替えを始めません。状態フォルダーのあるディスクの空きを増やしてください。元に戻す動きは、空きがなくても行います。",
                "The gateway's disk is full, so nothing begins. Make room on the disk of the state directory. Going back works even so.",
            ),
            Self::CheckpointNotWritten { reason } => Sentence::new(
                format!(
                    "記録を保存できないため、何も変えませんでした（{reason}）。保存場所の空きを確かめてください。"
                ),
                format!(
                    "Nothing was changed, because the record of it could not be saved ({reason}). Check the free space of the state directory."
                ),
            ),
        }
    }
}

fn permille(n: u32) -> String {
    format!("{}.{} %", n / 10, n % 10)
}

/// What a check was doing when it failed, for people.
pub(crate) fn stage_ja(stage: Option<Stage>) -> &'static str {
    match stage {
        Some(Stage::Dns) => "名前を調べられません",
        Some(Stage::Tcp) => "接続できません",
        Some(Stage::Tls) => "証明書を確かめられません",
        Some(Stage::HttpStatus) => "サービスが断っています",
        Some(Stage::Body) => "応答の内容が違います",
        None => "応答がありません",
    }
}

pub(crate) fn stage_en(stage: Option<Stage>) -> &'static str {
    match stage {
        Some(Stage::Dns) => "its name cannot be looked up",
        Some(Stage::Tcp) => "no connection",
        Some(Stage::Tls) => "its certificate cannot be verified",
        Some(Stage::HttpStatus) => "it refuses",
        Some(Stage::Body) => "its answer is not the expected one",
        None => "no answer",
    }
}
