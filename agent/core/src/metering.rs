//! What emergency lines have carried, by day: such lines are paid for by volume.
//!
//! The kernel counts an interface's bytes from when it appears; only differences mean anything. A count is kept with the
//! last numbers seen, so that nothing is missed while the agent is being restarted, and nothing counted twice.

use std::collections::BTreeMap;

use jiff::civil::Date;
use seimon_plan::LineId;
use serde::{Deserialize, Serialize};

/// Days that are remembered.
const KEPT: usize = 100;

/// Bytes each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub received: u64,
    pub sent: u64,
}

impl Volume {
    pub fn total(self) -> u64 {
        self.received.saturating_add(self.sent)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            received: self.received.saturating_add(other.received),
            sent: self.sent.saturating_add(other.sent),
        }
    }

    /// What came since `before`; all of it where the counters have begun anew.
    fn since(self, before: Self) -> Self {
        if self.received < before.received || self.sent < before.sent {
            return self;
        }
        Self { received: self.received - before.received, sent: self.sent - before.sent }
    }
}

/// One line's day, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeteredDay {
    pub line: LineId,
    pub date: Date,
    pub volume: Volume,
    /// The interface's own counters when this was written, and the boot that they belong to.
    pub counters: Volume,
    pub boot: String,
}

#[derive(Clone, Debug, Default)]
struct OfLine {
    days: BTreeMap<Date, Volume>,
    seen: Option<Seen>,
    written: Volume,
}

#[derive(Clone, Debug)]
struct Seen {
    date: Date,
    counters: Volume,
    boot: String,
}

/// All emergency lines.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    lines: BTreeMap<LineId, OfLine>,
}

impl Meter {
    /// From a record; the later one of a day counts.
    pub fn restore(&mut self, day: &MeteredDay) {
        let line = self.lines.entry(day.line.clone()).or_default();
        line.days.insert(day.date, day.volume);
        if line.seen.as_ref().is_none_or(|seen| seen.date <= day.date) {
            let (counters, boot) = (day.counters, day.boot.clone());
            line.seen = Some(Seen { date: day.date, counters, boot });
            line.written = day.volume;
        }
        forget(&mut line.days);
    }

    /// The interface's counters now.
    pub fn look(&mut self, line: &LineId, counters: Volume, boot: &str, today: Date) {
        let line = self.lines.entry(line.clone()).or_default();
        let new = match &line.seen {
            Some(seen) if seen.boot == boot => counters.since(seen.counters),
            // Since this machine was switched on, and nobody else was here before.
            Some(_) => counters,
            // The very first look: what was before is not known to be ours.
            None => Volume::default(),
        };
        if line.seen.as_ref().is_some_and(|seen| seen.date != today) {
            line.written = Volume::default();
        }
        let day = line.days.entry(today).or_default();
        *day = day.plus(new);
        line.seen = Some(Seen { date: today, counters, boot: boot.to_owned() });
        forget(&mut line.days);
    }

    /// Today's record, if it differs by so many bytes from what was last written.
    pub fn to_write(&mut self, line: &LineId, at_least: u64) -> Option<MeteredDay> {
        let of_line = self.lines.get_mut(line)?;
        let seen = of_line.seen.as_ref()?;
        let volume = of_line.days.get(&seen.date).copied().unwrap_or_default();
        if volume.since(of_line.written).total() < at_least.max(1) {
            return None;
        }
        of_line.written = volume;
        let (date, counters, boot) = (seen.date, seen.counters, seen.boot.clone());
        Some(MeteredDay { line: line.clone(), date, volume, counters, boot })
    }

    /// Every day that is remembered, for a compaction.
    pub fn records(&self) -> impl Iterator<Item = MeteredDay> + '_ {
        self.lines.iter().flat_map(|(line, of_line)| {
            of_line.days.iter().filter_map(move |(date, volume)| {
                let seen = of_line.seen.as_ref()?;
                Some(MeteredDay {
                    line: line.clone(),
                    date: *date,
                    volume: *volume,
                    counters: seen.counters,
                    boot: seen.boot.clone(),
                })
            })
        })
    }

    /// On the day, and in its month so far.
    pub fn used(&self, line: &LineId, today: Date) -> (Volume, Volume) {
        let Some(of_line) = self.lines.get(line) else { return Default::default() };
        let month = of_line.days.range(today.first_of_month()..=today).map(|(_, volume)| *volume);
        (of_line.days.get(&today).copied().unwrap_or_default(), month.fold(Volume::default(), Volume::plus))
    }
}

fn forget(days: &mut BTreeMap<Date, Volume>) {
    while days.len() > KEPT {
        days.pop_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> LineId {
        LineId::new("lte").unwrap()
    }

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    fn counters(received: u64, sent: u64) -> Volume {
        Volume { received, sent }
    }

    #[test]
    fn days_and_months_are_summed_from_the_interfaces_own_counters() {
        let mut meter = Meter::default();
        meter.look(&line(), counters(9_000, 900), "a", day("2027-04-30"));
        meter.look(&line(), counters(9_100, 950), "a", day("2027-04-30"));
        meter.look(&line(), counters(9_300, 990), "a", day("2027-05-01"));
        meter.look(&line(), counters(9_400, 990), "a", day("2027-05-02"));
        let (today, month) = meter.used(&line(), day("2027-05-02"));
        assert_eq!((today, month), (counters(100, 0), counters(300, 40)));
        assert_eq!(meter.used(&line(), day("2027-04-30")), (counters(100, 50), counters(100, 50)));
    }

    #[test]
    fn nothing_is_lost_or_counted_twice_over_a_restart_of_the_agent() {
        let mut meter = Meter::default();
        meter.look(&line(), counters(0, 0), "a", day("2027-05-01"));
        meter.look(&line(), counters(500, 50), "a", day("2027-05-01"));
        let written = meter.to_write(&line(), 100).expect("news");
        assert_eq!(meter.to_write(&line(), 100), None, "nothing new");
        let mut again = Meter::default();
        let text = serde_json::to_string(&written).unwrap();
        again.restore(&serde_json::from_str(&text).unwrap());
        again.look(&line(), counters(700, 50), "a", day("2027-05-01"));
        assert_eq!(again.used(&line(), day("2027-05-01")).0, counters(700, 50));
    }

    #[test]
    fn counters_that_begin_anew_are_counted_from_nothing() {
        let mut meter = Meter::default();
        meter.look(&line(), counters(0, 0), "a", day("2027-05-01"));
        meter.look(&line(), counters(500, 50), "a", day("2027-05-01"));
        // The modem was pulled out and put in again; then the power was cut.
        meter.look(&line(), counters(30, 3), "a", day("2027-05-01"));
        meter.look(&line(), counters(40, 60), "b", day("2027-05-01"));
        assert_eq!(meter.used(&line(), day("2027-05-01")).0, counters(570, 113));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut meter = Meter::default();
        let mut today = day("2027-01-01");
        for i in 0..400 {
            meter.look(&line(), counters(i, i), "a", today);
            today = today.tomorrow().unwrap();
        }
        assert_eq!(meter.records().count(), KEPT);
    }
}
