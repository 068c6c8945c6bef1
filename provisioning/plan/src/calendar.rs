//! When a move may begin: windows and freezes, in the site's time zone.
//!
//! A local time that a clock change skips is taken as the instant after the gap; one that comes twice as the first.
//! A weekly window of all days from 00:00 to 00:00 is always open.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::model::{Migration, Weekday, Window};
use crate::valid::ValidSitePlan;

/// Whether a move may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowState {
    /// It may. `until` is the first instant known to be outside; at most about 60 days ahead are looked at.
    Open { until: Timestamp },
    /// No window is open. `next`: the next instant at which one is open and nothing is frozen; `None`: never.
    Closed { next: Option<Timestamp> },
    /// A freeze is in force until `until`, whatever the windows say. (A window need not be open then.)
    Frozen { reason: String, until: Timestamp },
}

/// Whether a move may begin at `now`, by the plan's windows and freezes.
pub fn window_state(plan: &ValidSitePlan, now: Timestamp) -> WindowState {
    plan.calendar().state(now)
}

/// Half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
}

impl Interval {
    fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Calendar {
    pub(crate) zone: TimeZone,
    weekly: Vec<Weekly>,
    once: Vec<Interval>,
    freezes: Vec<(Interval, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Weekly {
    days: Vec<Weekday>,
    from: Time,
    to: Time,
}

/// `Open::until` looks this far.
const LOOK_AHEAD_DAYS: i64 = 60;

impl Calendar {
    /// Entries that cannot be read are left out: the rules have reported them.
    pub(crate) fn new(zone: TimeZone, migration: &Migration) -> Self {
        let mut calendar = Self { zone, weekly: Vec::new(), once: Vec::new(), freezes: Vec::new() };
        for window in &migration.windows {
            match window {
                Window::Weekly { days, from, to } => {
                    if let (Some(from), Some(to)) = (time_of_day(from), time_of_day(to)) {
                        calendar.weekly.push(Weekly { days: days.clone(), from, to });
                    }
                }
                Window::Once { start, end } => {
                    if let (Some(start), Some(end)) = (local_date_time(start), local_date_time(end)) {
                        let interval = calendar.interval(start, end);
                        calendar.once.extend(interval);
                    }
                }
            }
        }
        for freeze in &migration.freezes {
            if let (Some(first), Some(last)) = (date(&freeze.first), date(&freeze.last)) {
                let after = last.tomorrow().unwrap_or(Date::MAX);
                if let Some(interval) = calendar.interval(midnight(first), midnight(after)) {
                    calendar.freezes.push((interval, freeze.reason.clone()));
                }
            }
        }
        calendar
    }

    pub(crate) fn state(&self, now: Timestamp) -> WindowState {
        if let Some((_, reason)) = self.freezes.iter().find(|(frozen, _)| frozen.contains(now)) {
            return WindowState::Frozen { reason: reason.clone(), until: self.thaw(now) };
        }
        match self.window_end(now) {
            Some(end) => WindowState::Open { until: self.close(now, end) },
            None => WindowState::Closed { next: self.next_open(now) },
        }
    }

    /// The first instant not before `from` at which a window is open and nothing is frozen.
    pub(crate) fn next_open(&self, from: Timestamp) -> Option<Timestamp> {
        let mut at = from;
        loop {
            // Each turn either ends, leaves a freeze for good, or goes to a later start: both are finite in number
            // between freezes, and weekly windows recur within days.
            at = self.thaw(at);
            if self.window_end(at).is_some() && !self.is_frozen(at) {
                return Some(at);
            }
            at = self.next_start(at)?;
        }
    }

    /// Whether it opens at any time after `now`; without `now`: at any time at all.
    pub(crate) fn opens_from(&self, now: Option<Timestamp>) -> bool {
        match now {
            Some(now) => self.next_open(now).is_some(),
            // Weekly windows outlive every freeze, unless a freeze lasts to the end of the calendar.
            None => self
                .once
                .iter()
                .map(|window| window.start)
                .chain(self.freezes.iter().map(|(frozen, _)| frozen.end))
                .chain([Timestamp::UNIX_EPOCH])
                .any(|from| self.next_open(from).is_some()),
        }
    }

    fn is_frozen(&self, at: Timestamp) -> bool {
        self.freezes.iter().any(|(frozen, _)| frozen.contains(at))
    }

    /// The end of all freezes that hold from `at` on without a break; `at` itself when none does.
    fn thaw(&self, at: Timestamp) -> Timestamp {
        let mut at = at;
        while let Some((frozen, _)) = self.freezes.iter().find(|(frozen, _)| frozen.contains(at)) {
            at = frozen.end;
        }
        at
    }

    /// The latest end of the windows that are open at `at`.
    fn window_end(&self, at: Timestamp) -> Option<Timestamp> {
        self.around(at, -2, 1).filter(|window| window.contains(at)).map(|window| window.end).max()
    }

    fn next_start(&self, after: Timestamp) -> Option<Timestamp> {
        self.around(after, -1, 9).map(|window| window.start).filter(|&start| start > after).min()
    }

    fn close(&self, now: Timestamp, end: Timestamp) -> Timestamp {
        let horizon = now.checked_add(Span::new().hours(24 * LOOK_AHEAD_DAYS)).unwrap_or(Timestamp::MAX);
        let frozen_from =
            self.freezes.iter().map(|(frozen, _)| frozen.start).filter(|&start| start > now).min();
        let limit = frozen_from.map_or(horizon, |start| start.min(horizon));
        let mut end = end;
        while end < limit {
            match self.window_end(end) {
                Some(later) => end = later,
                None => return end,
            }
        }
        limit
    }

    /// Single windows, and weekly ones that begin on days `first..=last` counted from the day of `at`.
    fn around(&self, at: Timestamp, first: i64, last: i64) -> impl Iterator<Item = Interval> + '_ {
        let today = at.to_zoned(self.zone.clone()).date();
        let weekly = (first..=last)
            .filter_map(move |days| today.checked_add(Span::new().days(days)).ok())
            .flat_map(move |day| {
                self.weekly
                    .iter()
                    .filter(move |weekly| weekly.days.contains(&weekday(day)))
                    .filter_map(move |weekly| self.occurrence(weekly, day))
            });
        self.once.iter().copied().chain(weekly)
    }

    fn occurrence(&self, weekly: &Weekly, day: Date) -> Option<Interval> {
        let last_day = if weekly.to > weekly.from { day } else { day.tomorrow().ok()? };
        self.interval(day.to_datetime(weekly.from), last_day.to_datetime(weekly.to))
    }

    /// `None` when it is empty (as when a clock change swallows it) or out of the calendar's range.
    fn interval(&self, start: DateTime, end: DateTime) -> Option<Interval> {
        let instant = |local: DateTime| Some(local.to_zoned(self.zone.clone()).ok()?.timestamp());
        let (start, end) = (instant(start)?, instant(end)?);
        (start < end).then_some(Interval { start, end })
    }
}

fn midnight(day: Date) -> DateTime {
    day.to_datetime(Time::midnight())
}

fn weekday(day: Date) -> Weekday {
    match day.weekday() {
        jiff::civil::Weekday::Monday => Weekday::Mon,
        jiff::civil::Weekday::Tuesday => Weekday::Tue,
        jiff::civil::Weekday::Wednesday => Weekday::Wed,
        jiff::civil::Weekday::Thursday => Weekday::Thu,
        jiff::civil::Weekday::Friday => Weekday::Fri,
        jiff::civil::Weekday::Saturday => Weekday::Sat,
        jiff::civil::Weekday::Sunday => Weekday::Sun,
    }
}

/// `18:00`, exactly.
pub(crate) fn time_of_day(text: &str) -> Option<Time> {
    let digits = |at: std::ops::Range<usize>| text.get(at)?.parse::<i8>().ok();
    let shape = text.len() == 5
        && text.bytes().enumerate().all(|(i, b)| if i == 2 { b == b':' } else { b.is_ascii_digit() });
    if !shape {
        return None;
    }
    Time::new(digits(0..2)?, digits(3..5)?, 0, 0).ok()
}

/// `2026-08-01`, exactly.
pub(crate) fn date(text: &str) -> Option<Date> {
    let shape = text.len() == 10
        && text
            .bytes()
            .enumerate()
            .all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() });
    if shape { text.parse().ok() } else { None }
}

/// `2026-08-01T18:00`, exactly.
pub(crate) fn local_date_time(text: &str) -> Option<DateTime> {
    let (day, time) = text.split_once('T')?;
    Some(date(day)?.to_datetime(time_of_day(time)?))
}
