//! Who still uses a line, by day and kind: may its contract be cancelled?
//!
//! Only counts by day, zone and kind of traffic are kept: no addresses, no names. A day counts as *watched* when the gateway
//! has looked for most of it; only watched days without any flow speak for cancelling.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::civil::Date;
use seimon_plan::{LineId, ZoneId};
use serde::{Deserialize, Serialize};

use crate::status::Sentence;

/// Of a day, so that it counts as watched.
const MOST_OF_A_DAY: u32 = 20 * 3600;
/// Days that are remembered.
const KEPT: usize = 400;
/// Kinds that are told apart on one line and day; the rest is counted together.
const KINDS: usize = 64;

/// What a flow is for, as far as its port tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Web,
    Names,
    Time,
    Mail,
    FileServer,
    Printer,
    /// Fax adapters and telephones (SIP).
    Fax,
    Camera,
    RemoteDesktop,
    Directory,
    Tunnel,
    /// Monitoring of machines (SNMP, syslog).
    Monitoring,
    Ping,
    Unknown {
        protocol: u8,
        port: u16,
    },
    /// Beyond what is told apart.
    Others,
}

impl Kind {
    pub fn of(protocol: u8, port: u16) -> Self {
        const TCP: u8 = 6;
        const UDP: u8 = 17;
        match (protocol, port) {
            (1 | 58, _) => Self::Ping,
            (47 | 50 | 51, _) | (UDP, 500 | 1194 | 1701 | 4500 | 51820) | (TCP, 1723) => Self::Tunnel,
            (TCP | UDP, 53) | (TCP, 853) => Self::Names,
            (UDP, 123) => Self::Time,
            (TCP, 80 | 443 | 8080 | 8443) | (UDP, 443) => Self::Web,
            (TCP, 25 | 110 | 143 | 465 | 587 | 993 | 995) => Self::Mail,
            (TCP, 139 | 445 | 2049) | (UDP, 137 | 138) => Self::FileServer,
            (TCP, 515 | 631 | 9100..=9107) => Self::Printer,
            (TCP | UDP, 5060 | 5061) => Self::Fax,
            (TCP | UDP, 554 | 8554) | (TCP, 8000 | 34567 | 37777) | (UDP, 3702) => Self::Camera,
            (TCP | UDP, 3389) | (TCP, 5900..=5903) => Self::RemoteDesktop,
            (TCP | UDP, 88 | 389 | 464) | (TCP, 135 | 636 | 3268 | 3269) => Self::Directory,
            (UDP, 161 | 162 | 514) | (TCP, 10050 | 10051) => Self::Monitoring,
            _ => Self::Unknown { protocol, port },
        }
    }

    pub fn sentence(self) -> Sentence {
        let (ja, en) = match self {
            Self::Web => ("ウェブやクラウドの利用", "web and cloud services"),
            Self::Names => ("行き先の名前調べ", "name look-ups"),
            Self::Time => ("時計合わせ", "time"),
            Self::Mail => ("メール", "mail"),
            Self::FileServer => ("ファイルサーバー", "a file server"),
            Self::Printer => ("プリンター", "a printer"),
            Self::Fax => ("FAX や電話の変換機", "a fax adapter or telephone"),
            Self::Camera => ("防犯カメラ", "a camera"),
            Self::RemoteDesktop => ("遠隔操作", "remote control of a computer"),
            Self::Directory => {
                ("パソコンのログイン（役所の台帳）", "log-in of computers to the town's directory")
            }
            Self::Tunnel => ("別の暗号の通り道（VPN）", "another tunnel (VPN)"),
            Self::Monitoring => ("機器の見守り", "monitoring of machines"),
            Self::Ping => ("応答の確認（ping）", "ping"),
            Self::Others => ("そのほか多数", "many others"),
            Self::Unknown { protocol, port } => {
                let protocol = match protocol {
                    6 => "tcp/".to_owned(),
                    17 => "udp/".to_owned(),
                    other => format!("{other}/"),
                };
                return Sentence::new(
                    format!("種類の分からない機器（{protocol}{port}）"),
                    format!("unknown ({protocol}{port})"),
                );
            }
        };
        Sentence::new(ja, en)
    }
}

/// One day of one line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// Seconds for which the gateway looked, on a clock that it trusted.
    pub watched_s: u32,
    /// New flows by where they came from and what they were. `None`: from no zone of the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<(Option<ZoneId>, Kind, u64)>,
}

impl Day {
    fn is_watched(&self) -> bool {
        self.watched_s >= MOST_OF_A_DAY
    }

    fn add(&mut self, zone: Option<ZoneId>, kind: Kind) -> Seen {
        if let Some((_, _, count)) = self.flows.iter_mut().find(|(z, k, _)| *z == zone && *k == kind) {
            *count += 1;
            return Seen::Before;
        }
        if self.flows.len() >= KINDS && kind != Kind::Others {
            return self.add(None, Kind::Others);
        }
        self.flows.push((zone, kind, 1));
        Seen::First
    }
}

/// Whether something of that kind had been seen on the day already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    First,
    Before,
}

/// All lines, all days that are remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    days: BTreeMap<LineId, BTreeMap<Date, Day>>,
    /// Connections that have been counted and still live, by the kernel's number.
    counted: BTreeSet<u32>,
}

/// A flow that left, or wanted to leave, by a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFlow {
    /// The kernel's number for it; unique among live flows.
    pub id: u32,
    pub line: LineId,
    pub zone: Option<ZoneId>,
    pub kind: Kind,
}

impl Ledger {
    /// From the record of one line's day, as [`Self::day`] gave it.
    pub fn restore(&mut self, line: LineId, date: Date, day: Day) {
        let days = self.days.entry(line).or_default();
        days.insert(date, day);
        while days.len() > KEPT {
            days.pop_first();
        }
    }

    pub fn day(&self, line: &LineId, date: Date) -> Option<&Day> {
        self.days.get(line)?.get(&date)
    }

    /// Every record, for a compaction.
    pub fn records(&self) -> impl Iterator<Item = (&LineId, Date, &Day)> {
        self.days.iter().flat_map(|(line, days)| days.iter().map(move |(date, day)| (line, *date, day)))
    }

    /// All live flows on lines, as just looked at; `for_s`: seconds since the last look, 0 where the clock is not trusted or
    /// nobody looked in between. Lines on which something was seen that is new on this day: worth writing down at once.
    pub fn look(
        &mut self,
        today: Date,
        for_s: u32,
        lines: impl IntoIterator<Item = LineId>,
        flows: &[LineFlow],
    ) -> BTreeSet<LineId> {
        for line in lines {
            let day = self.days.entry(line).or_default().entry(today).or_default();
            day.watched_s = day.watched_s.saturating_add(for_s);
        }
        let mut news = BTreeSet::new();
        for flow in flows.iter().filter(|flow| !self.counted.contains(&flow.id)) {
            let day = self.days.entry(flow.line.clone()).or_default().entry(today).or_default();
            if day.add(flow.zone.clone(), flow.kind) == Seen::First {
                news.insert(flow.line.clone());
            }
        }
        self.counted = flows.iter().map(|flow| flow.id).collect();
        for days in self.days.values_mut() {
            while days.len() > KEPT {
                days.pop_first();
            }
        }
        news
    }

    /// May the contract of `line` be cancelled? `ties`: what in the plan or at work holds on to it.
    pub fn verdict(&self, line: &LineId, today: Date, wanted_days: u32, ties: Vec<Tie>) -> MayCancel {
        let none = BTreeMap::new();
        let days = self.days.get(line).unwrap_or(&none);
        let last = days.iter().rev().find(|(_, day)| !day.flows.is_empty()).map(|(date, _)| *date);
        let after_last = |date: &Date| last.is_none_or(|last| *date > last) && *date <= today;
        let quiet = days.iter().filter(|(date, day)| after_last(date) && day.is_watched()).count();
        let quiet_days = u32::try_from(quiet).unwrap_or(u32::MAX);
        let since = today.checked_sub(Duration::from_secs(u64::from(wanted_days) * 86_400)).unwrap_or(today);
        let mut stragglers: BTreeMap<(Option<ZoneId>, Kind), (u64, Date)> = BTreeMap::new();
        for (date, day) in days.range(since..) {
            for (zone, kind, count) in &day.flows {
                let entry = stragglers.entry((zone.clone(), *kind)).or_insert((0, *date));
                entry.0 += count;
                entry.1 = entry.1.max(*date);
            }
        }
        let mut stragglers: Vec<Straggler> = stragglers
            .into_iter()
            .map(|((zone, kind), (flows, last))| Straggler { zone, kind, flows, last })
            .collect();
        stragglers.sort_by(|a, b| b.last.cmp(&a.last).then(b.flows.cmp(&a.flows)));
        MayCancel { quiet_days, wanted_days, last_flow: last, stragglers, ties }
    }
}

/// Something that would be lost with the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tie {
    /// A group of services is carried by it now.
    Carries { what: String },
    /// Somebody is logged in over it.
    Clients { what: String, count: u64 },
    /// The plan reaches the town hall only by it.
    Hub,
    /// A domain's servers are asked only over it.
    Domain { domain: String },
    /// The gateway itself has no other way out.
    Gateway,
    /// Services could go back to it if the other line failed. No reason against, but to be known.
    WayBack,
}

impl Tie {
    /// Stands against cancelling.
    pub fn binds(&self) -> bool {
        !matches!(self, Self::WayBack)
    }

    pub fn sentence(&self) -> Sentence {
        match self {
            Self::Carries { what } => Sentence::new(
                format!("「{what}」が、今もこの回線を使っています。先に新しい回線へ移してください。"),
                format!("{what} uses this line now: move it first."),
            ),
            Self::Clients { what, count } => Sentence::new(
                format!("「{what}」を、{count} 台がこの回線で使っている途中です。終わるのを待ってください。"),
                format!("{count} devices are at work in {what} over this line: wait until they are done."),
            ),
            Self::Hub => Sentence::new(
                "役所のサーバーへは、この回線でしか行けません（計画の hub）。移すか、やめるかを先に決めてください。",
                "The town hall is reached only over this line (the plan's hub): decide what becomes of that first.",
            ),
            Self::Domain { domain } => Sentence::new(
                format!("「{domain}」の名前は、この回線の先でしか分かりません（計画の dns.forward）。"),
                format!("Names under {domain} are asked over this line only (the plan's dns.forward)."),
            ),
            Self::Gateway => Sentence::new(
                "正門の機械自身の通信が、この回線しか使えません（計画の gateway）。",
                "The gateway itself has no other way out (the plan's gateway).",
            ),
            Self::WayBack => Sentence::new(
                "解約すると、新しい回線が切れたときの戻り先がなくなります。",
                "Without it there is nothing to go back to when the other line fails.",
            ),
        }
    }
}

/// Something that still uses the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Straggler {
    pub zone: Option<ZoneId>,
    pub kind: Kind,
    /// In the days that were asked about.
    pub flows: u64,
    pub last: Date,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayCancel {
    /// Watched days since the last flow.
    pub quiet_days: u32,
    pub wanted_days: u32,
    pub last_flow: Option<Date>,
    pub stragglers: Vec<Straggler>,
    pub ties: Vec<Tie>,
}

impl MayCancel {
    pub fn yes(&self) -> bool {
        self.quiet_days >= self.wanted_days && !self.ties.iter().any(Tie::binds)
    }

    /// The answer in one sentence.
    pub fn sentence(&self) -> Sentence {
        let Self { quiet_days, wanted_days, .. } = self;
        if self.yes() {
            return Sentence::new(
                format!("解約できます。見守った {quiet_days} 日のあいだ、だれも使っていません。"),
                format!("It may be cancelled: nobody has used it on {quiet_days} watched days."),
            );
        }
        if self.quiet_days < self.wanted_days {
            let why = match self.last_flow {
                Some(date) => Sentence::new(
                    format!("最後に使われたのは {date} です。"),
                    format!("It was last used on {date}."),
                ),
                None => Sentence::new("まだ見守り始めたばかりです。", "It has not been watched for long."),
            };
            return Sentence::new(
                format!(
                    "まだ解約できません。{}使われない日が {wanted_days} 日続く必要があります（今は {quiet_days} 日）。",
                    why.ja
                ),
                format!("Not yet. {} {wanted_days} quiet days are wanted, there are {quiet_days}.", why.en),
            );
        }
        Sentence::new(
            "まだ解約できません。この回線を必要としているものが残っています。",
            "Not yet: something still depends on this line.",
        )
    }
}

impl fmt::Display for MayCancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sentence().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str) -> LineId {
        LineId::new(id).unwrap()
    }

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    fn flow(id: u32, port: u16) -> LineFlow {
        let zone = ZoneId::new("affairs").ok();
        LineFlow { id, line: line("carrier"), zone, kind: Kind::of(17, port) }
    }

    /// Watches for so many whole days from the first of April; the day after the last.
    fn quiet(ledger: &mut Ledger, days: i64) -> Date {
        let mut today = date("2027-04-01");
        for _ in 0..days {
            ledger.look(today, 86_400, [line("carrier")], &[]);
            today = today.tomorrow().unwrap();
        }
        today
    }

    #[test]
    fn a_line_may_go_after_so_many_watched_days_without_a_flow() {
        let mut ledger = Ledger::default();
        let today = quiet(&mut ledger, 34);
        assert!(!ledger.verdict(&line("carrier"), today, 35, vec![]).yes());
        ledger.look(today, 86_400, [line("carrier")], &[]);
        assert!(ledger.verdict(&line("carrier"), today, 35, vec![]).yes());
        assert!(ledger.verdict(&line("carrier"), today, 35, vec![Tie::WayBack]).yes(), "only to be known");
        let bound = ledger.verdict(&line("carrier"), today, 35, vec![Tie::Hub]);
        assert!(!bound.yes() && bound.sentence().ja.starts_with("まだ"), "{bound}");
    }

    #[test]
    fn days_that_nobody_watched_do_not_count_as_quiet() {
        let mut ledger = Ledger::default();
        let mut today = date("2027-04-01");
        for _ in 0..60 {
            ledger.look(today, MOST_OF_A_DAY - 1, [line("carrier")], &[]);
            today = today.tomorrow().unwrap();
        }
        assert_eq!(ledger.verdict(&line("carrier"), today, 35, vec![]).quiet_days, 0);
        assert_eq!(ledger.verdict(&line("other"), today, 35, vec![]).quiet_days, 0);
    }

    #[test]
    fn one_fax_a_month_keeps_the_line_and_is_named() {
        let mut ledger = Ledger::default();
        let fax = quiet(&mut ledger, 20);
        assert_eq!(ledger.look(fax, 10, [], &[flow(7, 5060)]), BTreeSet::from([line("carrier")]));
        let mut today = fax;
        for _ in 0..30 {
            ledger.look(today, 86_400, [line("carrier")], &[]);
            today = today.tomorrow().unwrap();
        }
        let verdict = ledger.verdict(&line("carrier"), today, 35, vec![]);
        assert!(!verdict.yes());
        assert_eq!(verdict.last_flow, Some(fax));
        let [straggler] = verdict.stragglers.as_slice() else { panic!("{:?}", verdict.stragglers) };
        assert_eq!((straggler.kind, straggler.flows), (Kind::Fax, 1));
        assert!(straggler.kind.sentence().ja.contains("FAX"));
    }

    #[test]
    fn a_flow_counts_once_however_often_it_is_looked_at() {
        let mut ledger = Ledger::default();
        let today = date("2027-04-01");
        for _ in 0..5 {
            ledger.look(today, 30, [line("carrier")], &[flow(7, 554)]);
        }
        assert!(ledger.look(today, 30, [line("carrier")], &[flow(8, 554)]).is_empty(), "the same kind");
        let day = ledger.day(&line("carrier"), today).unwrap();
        assert_eq!(day.flows, vec![(ZoneId::new("affairs").ok(), Kind::Camera, 2)]);
    }

    #[test]
    fn what_is_kept_is_bounded_however_many_ports_are_used() {
        let mut ledger = Ledger::default();
        let today = date("2027-04-01");
        let flows: Vec<LineFlow> = (0..5_000).map(|i| flow(i, 20_000 + i as u16)).collect();
        ledger.look(today, 30, [line("carrier")], &flows);
        let day = ledger.day(&line("carrier"), today).unwrap();
        assert!(day.flows.len() <= KINDS + 1, "{}", day.flows.len());
        assert_eq!(day.flows.iter().map(|(_, _, count)| count).sum::<u64>(), 5_000);
        let end = quiet(&mut ledger, 500);
        assert_eq!(ledger.records().count(), KEPT);
        assert!(ledger.day(&line("carrier"), end.yesterday().unwrap()).is_some());
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut ledger = Ledger::default();
        let today = date("2027-04-01");
        ledger.look(today, 30, [line("carrier")], &[flow(1, 5060), flow(2, 40_000)]);
        let mut again = Ledger::default();
        for (line, date, day) in ledger.records() {
            let text = serde_json::to_string(day).unwrap();
            again.restore(line.clone(), date, serde_json::from_str(&text).unwrap());
        }
        assert!(again.records().eq(ledger.records()));
    }
}
