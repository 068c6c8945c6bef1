//! The demo's acts and what they must show. Each act is a scenario; the checks below are computed from what clients and
//! servers measured in it.

use std::time::Duration;

use crate::result::{Check, Goal};
use crate::runner::{LoadTrack, Measure, Record};

/// One act.
#[derive(Clone, Copy, Debug)]
pub struct ActInfo {
    /// Begins the names of the act's checks.
    pub key: &'static str,
    /// Beside the shipped scenarios.
    pub file: &'static str,
    pub title_ja: &'static str,
    pub title_en: &'static str,
    pub about_ja: &'static str,
    pub about_en: &'static str,
    pub judge: fn(&Record, Measure<'_>) -> Vec<Check>,
}

pub const ACTS: &[ActInfo] = &[
    ActInfo {
        key: "move",
        file: "demo/1-move.toml",
        title_ja: "1. 引っ越し",
        title_en: "1. The move",
        about_ja: "先生100人と児童が使い続けるなか、学習系を閉域網からインターネット直接接続へ、校務系を閉域網からインターネットVPNへ、さらに直接接続へ移します。",
        about_en: "While a hundred teachers and their pupils work, learning leaves the closed network for direct https, and school affairs for the internet VPN and then for direct https.",
        judge: moves,
    },
    ActInfo {
        key: "death",
        file: "demo/2-silent-death.toml",
        title_ja: "2. 様子見の最中に回線が黙って切れる",
        title_en: "2. The new line dies silently while it is being watched",
        about_ja: "切り替え直後にインターネット回線が何も言わずに切れます。門は自分で元の経路へ戻ります。",
        about_en: "Just after the cut-over the internet line swallows everything. The gateway goes back by itself.",
        judge: silent_death,
    },
    ActInfo {
        key: "unregistered",
        file: "demo/3-unregistered.toml",
        title_ja: "3. 登録されていない出口",
        title_en: "3. An egress that nobody registered",
        about_ja: "回線の出口アドレスが、校務サービスに登録されていないものに変わります。門は移行を断り、理由を告げます。",
        about_en: "The line's egress address becomes one that the service does not know. The gateway refuses to move and says why.",
        judge: unregistered,
    },
    ActInfo {
        key: "killed",
        file: "demo/4-killed.toml",
        title_ja: "4. 移行の最中に強制終了",
        title_en: "4. Killed in the middle of the move",
        about_ja: "切り替えの途中でエージェントを強制終了します。再起動すると、続きから進みます。",
        about_en: "The agent is killed in mid-move. Started again, it goes on from where it was.",
        judge: killed,
    },
];

/// Sum of a metric over the loads that have it.
fn sum(record: &Record, measure: Measure<'_>, metrics: &[&str]) -> Option<f64> {
    let mut any = None;
    for load in &record.loads {
        for metric in metrics {
            let value = measure(&format!("{}.{metric}", load.id), record.start, record.start + record.end);
            if let Some(value) = value {
                any = Some(any.unwrap_or(0.0) + value);
            }
        }
    }
    any
}

fn count(name: &str, value: Option<f64>, goal: Goal) -> Check {
    Check::number(name, value, "count", goal)
}

/// Log-ins by path, over an interval of the scenario.
fn log_ins(record: &Record, measure: Measure<'_>, path: &str, from: Duration, to: Duration) -> f64 {
    record
        .loads
        .iter()
        .filter(|l| l.kind == "session")
        .filter_map(|l| measure(&format!("{}.on.{path}", l.id), record.start + from, record.start + to))
        .sum()
}

/// The group's first settled time on its new path after the command `id`.
fn settled(record: &Record, id: &str) -> Option<Duration> {
    let command = record.happened.iter().find(|h| h.id == id)?;
    record.entered(command.target.as_deref()?, "Steady", command.at)
}

fn moves(record: &Record, measure: Measure<'_>) -> Vec<Check> {
    let none = Goal::Equal(0.0);
    let whole = |path| log_ins(record, measure, path, Duration::ZERO, record.end);
    let share = |path: &str, from: Duration, to: Duration| {
        let on = |path: &str| log_ins(record, measure, path, from, to);
        let all = on("closed") + on("vpn") + on("direct") + on("other");
        (all > 0.0).then(|| on(path) / all)
    };
    // Once a move has settled, everybody begins on its new path: on the VPN until the next cut-over, then directly.
    let on_vpn = settled(record, "move-vpn");
    let on_direct = settled(record, "move-direct");
    let cut = record
        .happened
        .iter()
        .find(|h| h.id == "move-direct")
        .and_then(|h| record.entered("affairs/affairs", "CuttingOver", h.at));
    let shares = [
        on_vpn.zip(cut).and_then(|(from, to)| share("vpn", from, to)),
        on_direct.and_then(|from| share("direct", from, record.end)),
    ];
    let moved = shares.into_iter().collect::<Option<Vec<_>>>().map(|all| all.into_iter().fold(1.0, f64::min));
    let mut moved = Check::number("move.moved_share", moved, "share", Goal::Equal(1.0));
    if settled(record, "move-learning").is_none() || on_vpn.is_none() || on_direct.is_none() {
        moved = moved.with_note("the moves did not end");
    }
    let forced = record.status.as_ref().map(|s| s.groups.iter().map(|g| g.forced_by_deadline as f64).sum());
    let mut checks = unnoticed(record, measure, "move");
    checks.extend([
        moved,
        count("move.on_new", Some(whole("direct")), Goal::AtLeast(100.0)),
        count("move.on_vpn", Some(whole("vpn")), Goal::AtLeast(100.0)),
        count("move.on_old", Some(whole("closed")), Goal::AtLeast(100.0)),
        count("move.forced_by_deadline", forced, none),
    ]);
    checks
}

/// That nobody at any load noticed anything, as checks that begin with `head`.
pub(crate) fn unnoticed(record: &Record, measure: Measure<'_>, head: &str) -> Vec<Check> {
    let kinds: [(&str, &[&str]); 5] = [
        ("lost", &["errors", "lost", "timeouts"]),
        ("resets", &["resets"]),
        ("logouts", &["logouts"]),
        ("two_addresses", &["two_addresses"]),
        ("checksum_errors", &["checksum_errors"]),
    ];
    let check = |(name, metrics): (&str, &[&str])| {
        count(&format!("{head}.{name}"), sum(record, measure, metrics), Goal::Equal(0.0))
    };
    kinds.into_iter().map(check).collect()
}

fn silent_death(record: &Record, measure: Measure<'_>) -> Vec<Check> {
    let cut = record.happened.iter().find(|h| h.id == "cut").map(|h| h.at);
    let served = cut.and_then(|cut| {
        record.loads.iter().filter(|l| l.zone == "affairs").map(|l| served_again(l, cut)).max().flatten()
    });
    let returned = cut.and_then(|cut| {
        // Back: after the service was restored, nobody is served over the dead line, and log-ins come from the old one.
        let from = cut + Duration::from_secs(5);
        (from < record.end).then(|| log_ins(record, measure, "closed", from, record.end))
    });
    vec![
        Check::number(
            "silent_death_ms",
            served.map(|s| s.as_secs_f64() * 1000.0),
            "ms",
            Goal::AtMost(3000.0),
        ),
        count("death.log_ins_after_return", returned, Goal::AtLeast(10.0)),
    ]
}

/// From `cut` until the load is served as before: at least four fifths of the rate of the five seconds before, over a
/// whole second. None: it never was.
pub fn served_again(load: &LoadTrack, cut: Duration) -> Option<Duration> {
    const SECOND: usize = 10;
    let cut_at = usize::try_from(cut.as_millis() / 100).ok()?;
    let ok: Vec<u64> = load.buckets.iter().map(|b| b.ok).collect();
    let before = ok.get(cut_at.checked_sub(5 * SECOND)?..cut_at)?;
    let rate = before.iter().sum::<u64>() as f64 / 5.0;
    if rate <= 0.0 {
        return None;
    }
    // The bucket in which the line died was served in part.
    let first = cut_at + 1;
    let begin = (first..=ok.len().checked_sub(SECOND)?)
        .find(|at| ok[*at..at + SECOND].iter().sum::<u64>() as f64 >= 0.8 * rate && ok[*at] > 0)?;
    Some(Duration::from_millis(100 * (begin as u64 + 1)).saturating_sub(cut))
}

fn unregistered(record: &Record, measure: Measure<'_>) -> Vec<Check> {
    let refused = record
        .happened
        .iter()
        .find(|h| h.id == "move")
        .and_then(|h| h.command.as_ref())
        .map(|(code, _)| f64::from(u8::from(*code == 1)));
    let over = |path| log_ins(record, measure, path, Duration::ZERO, record.end);
    vec![
        Check::number("unregistered.refused", refused, "0 or 1", Goal::Equal(1.0)),
        count("unregistered.log_ins_on_new", Some(over("direct") + over("other")), Goal::Equal(0.0)),
        count("unregistered.log_ins_on_old", Some(over("closed")), Goal::AtLeast(10.0)),
        count("unregistered.errors", sum(record, measure, &["errors", "refused"]), Goal::Equal(0.0)),
    ]
}

fn killed(record: &Record, measure: Measure<'_>) -> Vec<Check> {
    let killed_at = record.happened.iter().find(|h| h.id == "kill").map(|h| h.at);
    let steady = killed_at.and_then(|at| record.entered("affairs/affairs", "Steady", at));
    let share = steady.and_then(|from| {
        let on = |path| log_ins(record, measure, path, from, record.end);
        let all = on("closed") + on("direct") + on("other");
        (all > 0.0).then(|| on("direct") / all)
    });
    vec![
        Check::number("killed.moved_share", share, "share", Goal::Equal(1.0)),
        count("killed.lost", sum(record, measure, &["errors", "lost", "timeouts"]), Goal::Equal(0.0)),
        count("killed.logouts", sum(record, measure, &["logouts"]), Goal::Equal(0.0)),
        count("killed.two_addresses", sum(record, measure, &["two_addresses"]), Goal::Equal(0.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Bucket;

    fn load(rates: &[(usize, u64)]) -> LoadTrack {
        let buckets = rates
            .iter()
            .flat_map(|(tenths, ok)| std::iter::repeat_n(Bucket { ok: *ok, ..Bucket::default() }, *tenths))
            .collect();
        LoadTrack { id: "t".to_owned(), zone: "affairs".to_owned(), kind: "session".to_owned(), buckets }
    }

    #[test]
    fn served_again_counts_from_the_cut_to_the_first_good_second() {
        let track = load(&[(100, 50), (20, 0), (50, 50)]);
        let gap = served_again(&track, Duration::from_secs(10)).unwrap();
        assert!((2000..=2200).contains(&gap.as_millis()), "{gap:?}");
    }

    #[test]
    fn a_trickle_is_not_service() {
        let track = load(&[(100, 50), (20, 0), (50, 10)]);
        assert_eq!(served_again(&track, Duration::from_secs(10)), None);
    }
}
