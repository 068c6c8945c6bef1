//! Plain words for people: what is happening, whether it is good, and who has to act. Written for a school clerk; no
//! jargon. Japanese and English always say the same.

use std::fmt::{self, Display};

use seimon_plan::ServiceId;
use serde::{Deserialize, Serialize};

use crate::health::{Ailment, HealthEvent, Liveness, ServiceVerdict};
use crate::migration::{BlockReason, Cause, DrainState, Manner, Notice, State, Veto, ZoneGroup};
use crate::proxy::{self, ProxyUse};

/// The same sentence(s) in both languages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sentence {
    pub ja: String,
    pub en: String,
}

impl Sentence {
    pub fn new(ja: impl Into<String>, en: impl Into<String>) -> Self {
        Self { ja: ja.into(), en: en.into() }
    }

    fn then(self, next: Self) -> Self {
        Self { ja: self.ja + &next.ja, en: format!("{} {}", self.en, next.en) }
    }
}

impl Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {}", self.ja, self.en)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Colour {
    /// Nothing to do.
    Green,
    /// Being dealt with, or to be watched.
    Yellow,
    /// People are cut off, or somebody must act.
    Red,
}

impl Colour {
    pub fn word(self) -> Sentence {
        match self {
            Self::Green => Sentence::new("緑", "green"),
            Self::Yellow => Sentence::new("黄", "yellow"),
            Self::Red => Sentence::new("赤", "red"),
        }
    }
}

/// Who has to act now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    Nobody,
    /// The education board or its network office.
    Municipality,
}

impl Actor {
    pub fn sentence(self) -> Sentence {
        match self {
            Self::Nobody => {
                Sentence::new("今あなたがすることはありません。", "There is nothing for you to do now.")
            }
            Self::Municipality => Sentence::new(
                "教育委員会のネットワーク担当に知らせてください。",
                "Please tell the network office of the education board.",
            ),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What is happening, followed by who has to act.
    pub sentence: Sentence,
    pub colour: Colour,
    pub actor: Actor,
}

impl Report {
    fn new(colour: Colour, actor: Actor, what: Sentence) -> Self {
        Self { sentence: what.then(actor.sentence()), colour, actor }
    }
}

/// One group's state, where it belongs on `home`.
pub fn report(zone_group: &ZoneGroup, state: &State, home: &seimon_plan::PathId) -> Report {
    let ZoneGroup { zone, group } = zone_group;
    let paused = if state.is_paused() {
        Sentence::new("（一時停止中）", " (paused)")
    } else {
        Sentence::default()
    };
    let (pj, pe) = (paused.ja, paused.en);
    match state {
        State::Steady { path } if path == home => Report::new(
            Colour::Green,
            Actor::Nobody,
            Sentence::new(
                format!("「{zone}」の「{group}」は、いつもの経路「{path}」で使えています。"),
                format!("{group} in {zone} works over its usual path, {path}."),
            ),
        ),
        State::Steady { path } => Report::new(
            Colour::Yellow,
            Actor::Nobody,
            Sentence::new(
                format!(
                    "「{zone}」の「{group}」は、経路「{home}」が不調のため、経路「{path}」で使えています。直れば自動で戻ります。"
                ),
                format!(
                    "{group} in {zone} works over path {path}, because {home} failed; it returns by itself once that is well."
                ),
            ),
        ),
        State::Qualifying { from, to, .. } => Report::new(
            Colour::Green,
            Actor::Nobody,
            Sentence::new(
                format!(
                    "「{zone}」の「{group}」を経路「{to}」に移す前の確認中です{pj}。今は経路「{from}」で今までどおり使えます。"
                ),
                format!(
                    "Path {to} is being examined{pe} before {group} in {zone} moves to it; work goes on over {from} as before."
                ),
            ),
        ),
        State::Canary { from, to, tried, .. } => {
            let so_far = match tried {
                0 => Sentence::new("まだ誰も試していません。", "Nobody of them has used it yet."),
                n => Sentence::new(
                    format!("これまでに{n}台が試しています。"),
                    format!("So far {n} of them have used it."),
                ),
            };
            Report::new(
                Colour::Green,
                Actor::Nobody,
                Sentence::new(
                    format!(
                        "「{zone}」の「{group}」は、一部の端末だけが経路「{to}」を試しています{pj}。ほかの人は経路「{from}」で今までどおり使えます。"
                    ),
                    format!(
                        "A few devices of {group} in {zone} try path {to}{pe}; everybody else works over {from} as before."
                    ),
                )
                .then(so_far),
            )
        }
        State::CuttingOver { from, to } => Report::new(
            Colour::Green,
            Actor::Nobody,
            Sentence::new(
                format!(
                    "「{zone}」の「{group}」を経路「{from}」から「{to}」へ移しています。今までどおり使えます。"
                ),
                format!("{group} in {zone} is being moved from {from} to {to}; work goes on as before."),
            ),
        ),
        State::Soaking { from, to, drained, .. } => {
            let old = match drained {
                DrainState::Underway => Sentence::new(
                    format!("作業中の人は終わるまで「{from}」のまま使えます。"),
                    format!("Whoever is in the middle of work stays on {from} until done."),
                ),
                DrainState::Forced { clients } => Sentence::new(
                    format!("期限になったため、「{from}」に残っていた{clients}台も移しました。"),
                    format!("The deadline passed, so the {clients} still on {from} were moved too."),
                ),
                DrainState::OldPathDied => Sentence::new(
                    format!("「{from}」がつながらなくなったため、残りの人も移しました。"),
                    format!("Path {from} failed, so everybody on it was moved too."),
                ),
            };
            Report::new(
                Colour::Green,
                Actor::Nobody,
                Sentence::new(
                    format!("「{zone}」の「{group}」は経路「{to}」に移り、様子を見ています{pj}。"),
                    format!("{group} in {zone} now uses {to} and is being watched{pe}."),
                )
                .then(old),
            )
        }
        State::RollingBack { leaving, to, manner, .. } => {
            let how = match manner {
                Manner::Hard => Sentence::new(
                    "つながり直すまで数秒かかることがあります。",
                    "It may take a few seconds to connect again.",
                ),
                Manner::Soft { .. } => Sentence::new(
                    "作業中の人は終わるまでそのまま使えます。",
                    "Whoever is in the middle of work can finish first.",
                ),
            };
            Report::new(
                Colour::Yellow,
                Actor::Nobody,
                Sentence::new(
                    format!("「{zone}」の「{group}」を経路「{leaving}」から「{to}」へ戻しています。"),
                    format!("{group} in {zone} is being moved away from {leaving}, to {to}."),
                )
                .then(how),
            )
        }
        State::Blocked { reason, .. } => Report::new(
            Colour::Red,
            Actor::Municipality,
            Sentence::new(
                format!("「{zone}」の「{group}」は今使えません。"),
                format!("{group} in {zone} cannot be used at the moment."),
            )
            .then(reason.sentence())
            .then(Sentence::new(
                "回線が直れば自動で再開します。",
                "It resumes by itself once a line works again.",
            )),
        ),
    }
}

/// A group that is carried by an emergency line.
pub fn on_emergency_line(zone_group: &ZoneGroup, path: &seimon_plan::PathId) -> Report {
    let ZoneGroup { zone, group } = zone_group;
    Report::new(
        Colour::Yellow,
        Actor::Nobody,
        Sentence::new(
            format!(
                "ふだんの回線がすべて不通のため、「{zone}」の「{group}」は非常用の経路「{path}」で、速さをおさえて使えています。直れば自動で戻ります。"
            ),
            format!(
                "Every ordinary line is dead: {group} in {zone} works over the emergency path {path}, at a limited rate; it returns by itself once a line works."
            ),
        ),
    )
}

/// The same report where these services are known not to work over the group's path; nothing changes where there are none.
pub fn with_ill(report: Report, zone_group: &ZoneGroup, state: &State, services: &[ServiceId]) -> Report {
    if services.is_empty() {
        return report;
    }
    let ZoneGroup { zone, group } = zone_group;
    let (names_ja, names_en) = (list_ja(services), list(services));
    match state {
        State::Steady { path } => Report::new(
            Colour::Yellow,
            Actor::Nobody,
            Sentence::new(
                format!(
                    "「{zone}」の「{group}」では、{names_ja}が今使えません（経路「{path}」）。移っても直らないため、このまま待っています。"
                ),
                format!(
                    "{group} in {zone}: {names_en} does not work at the moment over path {path}. No other path would help, so it stays and waits."
                ),
            ),
        ),
        // Nothing works there; that is told already.
        State::Blocked { .. } => report,
        State::Qualifying { .. }
        | State::Canary { .. }
        | State::CuttingOver { .. }
        | State::Soaking { .. }
        | State::RollingBack { .. } => {
            let Report { sentence, colour, actor } = report;
            let but = Sentence::new(
                format!("ただし{names_ja}は今使えません。"),
                format!("But {names_en} does not work at the moment."),
            );
            Report { sentence: sentence.then(but), colour: colour.max(Colour::Yellow), actor }
        }
    }
}

/// The same report where clients of the zone go past the gateway's paths: nothing is called moved that the service still
/// sees from the town hall.
pub fn with_proxy(report: Report, zone: &seimon_plan::ZoneId, used: ProxyUse) -> Report {
    if used.is_none() {
        return report;
    }
    let still = proxy::still_used(zone, used.clients, used.flows);
    let Report { sentence, colour, actor } = report;
    Report {
        sentence: sentence
            .then(still)
            .then(Sentence::new("その端末はまだ移っていません。", "For them nothing has moved.")),
        colour: colour.max(Colour::Yellow),
        actor,
    }
}

impl BlockReason {
    pub fn sentence(&self) -> Sentence {
        match self {
            Self::NoLivingPath => {
                Sentence::new("どの回線もつながっていません。", "None of the lines carries anything.")
            }
            Self::NotRegistered { living } => Sentence::new(
                format!("つながっている経路（{}）の番号が、サービスに登録されていません。", list(living)),
                format!(
                    "The addresses of the paths that work ({}) are not registered with the service.",
                    list(living)
                ),
            ),
        }
    }
}

impl Cause {
    /// Why a state was entered.
    pub fn sentence(&self) -> Sentence {
        match self {
            Self::FirstStart => Sentence::new("初めて動き始めました。", "First start."),
            Self::Restored => Sentence::new(
                "再起動のあと、記録から続けています。",
                "Going on from the record after a restart.",
            ),
            Self::RestoreFailed { reason } => Sentence::new(
                format!("記録が読めないため、最後に落ち着いていた経路に戻りました（{reason}）。"),
                format!("The record could not be used, so the last settled path was taken: {reason}."),
            ),
            Self::Commanded => Sentence::new("担当者の指示によります。", "Somebody asked for it."),
            Self::Vetoed { vetoes } => {
                let all: Vec<Sentence> = vetoes.iter().map(Veto::sentence).collect();
                Sentence {
                    ja: all.iter().map(|s| s.ja.as_str()).collect(),
                    en: all.iter().map(|s| s.en.as_str()).collect::<Vec<_>>().join(" "),
                }
            }
            Self::Qualified => {
                Sentence::new("移す先の確認がすべて済みました。", "The new path passed every examination.")
            }
            Self::ChangeInForce => Sentence::new(
                "切り替えが機器に反映されました。",
                "The change is in force; new connections take the new path.",
            ),
            Self::Committed { path } => Sentence::new(
                format!("経路「{path}」で問題がなかったため、移行を完了しました。"),
                format!("All went well on path {path}; the move is complete."),
            ),
            Self::PathDown { path } => Sentence::new(
                format!("経路「{path}」がつながらなくなりました。"),
                format!("Path {path} stopped carrying anything."),
            ),
            Self::ServiceIll { path, service, stage } => Sentence::new(
                format!(
                    "経路「{path}」でだけ「{service}」が使えなくなりました（{}）。",
                    crate::migration::stage_ja(*stage)
                ),
                format!(
                    "{service} stopped working over path {path} only ({}).",
                    crate::migration::stage_en(*stage)
                ),
            ),
            Self::EgressUnregistered { path, addresses } => Sentence::new(
                format!("経路「{path}」の番号が、登録されていない {} に変わりました。", list(addresses)),
                format!("Path {path} is now seen as {}, which is not registered.", list(addresses)),
            ),
            Self::FlowsUnanswered { path, percent, other_percent } => Sentence::new(
                format!(
                    "経路「{path}」では通信の{percent}%しか応答がありません（もう一方は{other_percent}%）。"
                ),
                format!(
                    "Only {percent} % of connections over path {path} are answered, over the other {other_percent} %."
                ),
            ),
            Self::ChangeFailed { reason } => Sentence::new(
                format!("切り替えを機器に反映できませんでした（{reason}）。"),
                format!("The change could not be made: {reason}."),
            ),
            Self::CheckpointFailed { reason } => Sentence::new(
                format!("記録を保存できませんでした（{reason}）。"),
                format!("The record could not be saved: {reason}."),
            ),
            Self::HomeAgain { path } => Sentence::new(
                format!("いつもの経路「{path}」が直りました。"),
                format!("The usual path, {path}, works again."),
            ),
            Self::PathBack { path } => Sentence::new(
                format!("経路「{path}」がまたつながりました。"),
                format!("Path {path} carries packets again."),
            ),
            Self::NoPath { reason } => reason.sentence(),
            Self::CanaryWell { path, clients } => Sentence::new(
                format!("経路「{path}」を先に試した{clients}台で問題がありませんでした。"),
                format!("The {clients} devices that tried path {path} first were well served."),
            ),
            Self::BrownOut { path, ailment } => Sentence::new(
                format!("経路「{path}」は{}。", ailment.sentence().ja),
                format!("Path {path} {}.", ailment.sentence().en),
            ),
            Self::FlowsFell { path, percent, before_percent } => Sentence::new(
                format!(
                    "経路「{path}」では通信の{percent}%しか応答がなくなりました（ふだんは{before_percent}%）。"
                ),
                format!(
                    "Only {percent} % of connections over path {path} are answered now, usually {before_percent} %."
                ),
            ),
            Self::LastResort { path } => Sentence::new(
                format!("ふだんの回線がすべて不通のため、非常用の経路「{path}」を使います。"),
                format!("Every ordinary line is dead, so the emergency path {path} is used."),
            ),
            Self::Left { path } => Sentence::new(
                format!("全員が経路「{path}」から離れました。"),
                format!("Everybody is off path {path}."),
            ),
        }
    }
}

/// One line of the log about a migration.
pub fn notice(notice: &Notice) -> Sentence {
    match notice {
        Notice::State { cause, .. } => cause.sentence(),
        Notice::Vetoed { vetoes } => Cause::Vetoed { vetoes: vetoes.clone() }.sentence(),
        Notice::ServiceBlamed { service } => Sentence::new(
            format!("「{service}」はどの経路でも使えません。サービス側の不調とみて、このまま様子を見ます。"),
            format!("{service} does not work over any path: its own fault, so nothing is moved."),
        ),
        Notice::Forced { path, clients } => Sentence::new(
            format!("期限になったため、経路「{path}」に残っていた{clients}台を移しました。"),
            format!("The deadline passed: the {clients} devices still on path {path} were moved."),
        ),
        Notice::CheckpointFailed { reason } => Cause::CheckpointFailed { reason: reason.clone() }.sentence(),
        Notice::ChangeFailed { reason } => Cause::ChangeFailed { reason: reason.clone() }.sentence(),
    }
}

impl Ailment {
    /// What follows the path's name.
    pub fn sentence(self) -> Sentence {
        match self {
            Self::Lossy { permille } => Sentence::new(
                format!("通信の{}.{}%が失われています", permille / 10, permille % 10),
                format!("loses {}.{} % of all packets", permille / 10, permille % 10),
            ),
            Self::Slow { millis, usual_millis } => Sentence::new(
                format!("応答がふだんより遅くなっています（{millis}ミリ秒、ふだんは{usual_millis}ミリ秒）"),
                format!("answers in {millis} ms, usually in {usual_millis} ms"),
            ),
            Self::LargeStall => Sentence::new(
                "短い通信は通りますが、大きなデータが途中で止まります",
                "lets short messages through, but long ones stall",
            ),
        }
    }
}

/// One line of the log about health.
pub fn health_event(event: &HealthEvent) -> Sentence {
    match event {
        HealthEvent::Path { path, verdict } => {
            let (ja, en) = match verdict {
                Liveness::Up => ("つながっています", "carries packets"),
                Liveness::Down => ("つながりません", "does not carry anything"),
                Liveness::Unknown => ("確認中です", "is being examined"),
            };
            Sentence::new(format!("経路「{path}」は{ja}。"), format!("Path {path} {en}."))
        }
        HealthEvent::Service { target, verdict } => {
            let (service, path) = (&target.service, &target.path);
            let (ja, en) = match verdict {
                ServiceVerdict::Well => ("使えます", "works"),
                ServiceVerdict::Ill => ("使えません", "does not work"),
                ServiceVerdict::Unknown => ("確認中です", "is being examined"),
            };
            Sentence::new(
                format!("経路「{path}」で「{service}」は{ja}。"),
                format!("Over path {path}, {service} {en}."),
            )
        }
        HealthEvent::Unregistered { path, group, address } => Sentence::new(
            format!(
                "経路「{path}」の番号 {address} は、「{group}」のサービスに登録されていません。提供元への依頼文は `seimonctl egress letter` で作れます。"
            ),
            format!(
                "The address {address} of path {path} is not registered with the services of {group}. `seimonctl egress letter` writes the letter to the provider."
            ),
        ),
        HealthEvent::Ailment { path, ailment: Some(ailment) } => Sentence::new(
            format!("経路「{path}」は{}。", ailment.sentence().ja),
            format!("Path {path} {}.", ailment.sentence().en),
        ),
        HealthEvent::Ailment { path, ailment: None } => Sentence::new(
            format!("経路「{path}」の不調はおさまりました。"),
            format!("Path {path} is well again."),
        ),
        HealthEvent::Ipv6 { path, verdict } => {
            let (ja, en) = match verdict {
                Liveness::Up => ("IPv6 が使えます", "carries IPv6"),
                Liveness::Down => (
                    "IPv6 だけが使えません。IPv4 で使えるようにしています",
                    "does not carry IPv6; names are answered with IPv4 only",
                ),
                Liveness::Unknown => ("IPv6 を確認中です", "is being examined for IPv6"),
            };
            Sentence::new(format!("経路「{path}」は{ja}。"), format!("Path {path} {en}."))
        }
        HealthEvent::Egress { path, address } => Sentence::new(
            format!("経路「{path}」から出ると、外からは {address} と見えます。"),
            format!("On path {path} the outside sees {address}."),
        ),
    }
}

/// 「a」「b」
fn list_ja<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("「{item}」")).collect()
}

pub(crate) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "-".to_owned() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::{StateName, Timer};
    use seimon_board::Instant;
    use seimon_plan::{GroupId, PathId, ZoneId};
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn path(id: &str) -> PathId {
        PathId::new(id).expect("an identifier")
    }

    fn states() -> Vec<State> {
        let (a, b) = (path("closed"), path("direct"));
        let running = Timer::new(Instant::ZERO, Duration::from_secs(1));
        let paused = Timer::Paused { left: Duration::from_secs(1) };
        let mut states = vec![State::Steady { path: a.clone() }, State::Steady { path: b.clone() }];
        for timer in [running, paused] {
            states.push(State::Qualifying {
                from: a.clone(),
                to: b.clone(),
                until: timer,
                limit: timer,
                good: BTreeMap::new(),
            });
            for drained in [DrainState::Underway, DrainState::Forced { clients: 3 }, DrainState::OldPathDied]
            {
                states.push(State::Soaking {
                    from: a.clone(),
                    to: b.clone(),
                    soak: timer,
                    drain: timer,
                    drained,
                });
            }
        }
        states.push(State::CuttingOver { from: a.clone(), to: b.clone() });
        for tried in [0, 3] {
            states.push(State::Canary { from: a.clone(), to: b.clone(), until: running, tried });
        }
        for manner in [Manner::Hard, Manner::Soft { drain: running }] {
            let cause = Cause::Commanded;
            states.push(State::RollingBack { leaving: b.clone(), to: a.clone(), cause, manner });
        }
        for reason in [BlockReason::NoLivingPath, BlockReason::NotRegistered { living: vec![b.clone()] }] {
            states.push(State::Blocked { path: a.clone(), reason });
        }
        states
    }

    #[test]
    fn a_service_that_does_not_work_is_named_and_nothing_is_called_green() {
        let zone_group = ZoneGroup {
            zone: ZoneId::new("affairs").expect("an identifier"),
            group: GroupId::new("saas").expect("an identifier"),
        };
        let ill = [ServiceId::new("portal").expect("an identifier")];
        for state in states() {
            let plain = report(&zone_group, &state, &path("closed"));
            assert_eq!(with_ill(plain.clone(), &zone_group, &state, &[]), plain);
            let told = with_ill(plain.clone(), &zone_group, &state, &ill);
            assert!(told.colour >= Colour::Yellow && told.colour >= plain.colour, "{state:?}");
            let blocked = state.name() == StateName::Blocked;
            assert_eq!(told.sentence.ja.contains("「portal」"), !blocked, "{state:?}");
            assert_eq!(told.sentence.en.contains("portal"), !blocked, "{state:?}");
            assert!(!(state.name() == StateName::Steady && told.sentence.en.contains("works over")));
        }
    }

    #[test]
    fn every_state_has_a_sentence_in_both_languages_and_says_who_acts() {
        let zone_group = ZoneGroup {
            zone: ZoneId::new("affairs").expect("an identifier"),
            group: GroupId::new("saas").expect("an identifier"),
        };
        let states = states();
        for name in StateName::ALL {
            assert!(states.iter().any(|s| s.name() == name), "{name} is not in the table");
        }
        let mut seen = std::collections::BTreeSet::new();
        for state in states {
            let report = report(&zone_group, &state, &path("closed"));
            let Sentence { ja, en } = &report.sentence;
            assert!(ja.ends_with('。') && en.ends_with('.'), "{state:?}: {ja} {en}");
            assert!(ja.contains("saas") && en.contains("saas"), "{state:?}");
            assert_eq!(
                ja.contains("今あなたがすることはありません"),
                report.actor == Actor::Nobody,
                "{state:?}"
            );
            assert_eq!(report.actor == Actor::Nobody, report.colour != Colour::Red, "{state:?}");
            for jargon in ["DNAT", "conntrack", "affinity", "nft", "drain", "soak", "egress", "NAT"] {
                assert!(!en.contains(jargon) && !ja.contains(jargon), "{state:?}: {en}");
            }
            assert!(seen.insert(ja.clone()), "two states read the same: {ja}");
        }
    }
}
