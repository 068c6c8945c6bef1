//! Emergency lines: when they are needed, and what they have carried.

use std::collections::BTreeSet;
use std::time::Duration;

use seimon_board::{Instant, InterfaceName};
use seimon_core::acceptance::line_word;
use seimon_core::health::Liveness;
use seimon_core::metering::{Meter, Volume};
use seimon_ipc::control::MeteredStatus;
use seimon_plan::{LineId, LineRole, PathId};

use crate::agent::{Agent, ProbeState, today};
use crate::clock::Reading;
use crate::requests::bilingual;

/// The interfaces' counters, of the network namespace that the agent is in.
const COUNTERS: &str = "/proc/self/net/dev";
/// Between looks; the counters go on without us.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Written down after so many bytes, and otherwise so often.
const MUCH: u64 = 4_000_000;
const WRITE_EVERY: Duration = Duration::from_secs(3600);

/// What is to be written down of what was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    WhatMatters,
    Everything,
}

/// Emergency lines as they are counted and needed.
#[derive(Debug, Default)]
pub(crate) struct Metering {
    meter: Meter,
    looked: Option<Instant>,
    written: Option<Instant>,
    /// Their paths that are used, or may be at any moment.
    pub(crate) needed: BTreeSet<PathId>,
}

impl Metering {
    pub(crate) fn of(meter: Meter) -> Self {
        Self { meter, ..Self::default() }
    }
}

impl Agent {
    /// Emergency lines are looked at often, and names looked up over them, while somebody may need them: as soon as one of
    /// their groups has no ordinary path that is known to live.
    pub(crate) fn wake_emergency_lines(&mut self, now: Reading) {
        let plan = self.network.plan();
        let mut needed = BTreeSet::new();
        for (zone_group, machine) in &self.machines {
            let Some(route) = plan.route(&zone_group.zone, &zone_group.group) else { continue };
            let lives = |path: &PathId| self.health.liveness(path) == Liveness::Up;
            if machine.config().is_emergency(machine.current()) || !route.paths.iter().any(lives) {
                needed.extend(route.emergency.iter().cloned());
            }
        }
        if self.metering.needed == needed {
            return;
        }
        self.metering.needed.clone_from(&needed);
        self.resolver_outdated = true;
        if self.health.set_needed(needed) && self.probe_state == ProbeState::Ready {
            self.send_watch(now);
        }
    }

    /// Counts what emergency lines carry, and writes it down.
    pub(crate) fn meter_lines(&mut self, write: Write, now: Reading) {
        let lines = self.emergency_lines();
        let due = |then: Option<Instant>, pause| then.is_none_or(|then| now.mono.since(then) >= pause);
        if lines.is_empty() || (write == Write::WhatMatters && !due(self.metering.looked, LOOK_EVERY)) {
            return;
        }
        self.metering.looked = Some(now.mono);
        let Ok(text) = std::fs::read_to_string(COUNTERS) else { return };
        let date = today(self.network.plan(), now.calendar);
        let hourly = due(self.metering.written, WRITE_EVERY);
        if hourly {
            self.metering.written = Some(now.mono);
        }
        let at_least = if hourly || write == Write::Everything { 1 } else { MUCH };
        for (line, interface) in lines {
            let Some(volume) = counters(&text, &interface) else { continue };
            self.metering.meter.look(&line, volume, &self.boot.0, date);
            if let Some(day) = self.metering.meter.to_write(&line, at_least)
                && let Err(error) = self.store.save_metered(day)
            {
                tracing::warn!(error = format!("{error:#}"), %line, "what a line carried was not written down");
            }
        }
    }

    fn emergency_lines(&self) -> Vec<(LineId, InterfaceName)> {
        let plan = self.network.plan();
        let lines = plan.lines.iter().filter(|(_, line)| line.role == LineRole::Emergency);
        lines.filter_map(|(id, line)| Some((id.clone(), plan.interface_of(&line.port)?.clone()))).collect()
    }

    pub(crate) fn metered_statuses(&self, now: Reading) -> Vec<MeteredStatus> {
        let plan = self.network.plan();
        let date = today(plan, now.calendar);
        let on = |line: &LineId| {
            self.machines.values().any(|machine| {
                let path = machine.current();
                machine.config().is_emergency(path)
                    && plan.paths.get(path).is_some_and(|path| path.line == *line)
            })
        };
        self.emergency_lines()
            .into_iter()
            .map(|(line, _)| {
                let (day, month) = self.metering.meter.used(&line, date);
                let included = plan.lines.get(&line).and_then(|line| line.metered.as_ref()?.mb_per_month);
                let in_use = on(&line);
                let word = line_word(plan, &line);
                let used = (megabytes(day.total()), megabytes(month.total()));
                let use_ja = if in_use { "使用中です。" } else { "待機中です。" };
                let use_en = if in_use { "in use" } else { "waiting" };
                let of_ja = included.map(|mb| format!("（契約 {mb} MB）")).unwrap_or_default();
                let of_en = included.map(|mb| format!(" of {mb} MB")).unwrap_or_default();
                let sentence = seimon_core::status::Sentence::new(
                    format!("{}：{use_ja}今日 {} MB、今月 {} MB{of_ja}。", word.ja, used.0, used.1),
                    format!("{}: {use_en}; {} MB today, {} MB{of_en} this month.", word.en, used.0, used.1),
                );
                MeteredStatus {
                    line,
                    in_use,
                    today: day.total(),
                    month: month.total(),
                    month_included: included.map(|mb| u64::from(mb) * 1_000_000),
                    sentence: bilingual(sentence),
                }
            })
            .collect()
    }
}

/// With one digit after the point.
fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Received and sent bytes of an interface, from the text of `/proc/net/dev`.
fn counters(text: &str, interface: &InterfaceName) -> Option<Volume> {
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(interface.as_str())?.strip_prefix(':'))?;
    let mut numbers = line.split_whitespace().map(str::parse::<u64>);
    let received = numbers.next()?.ok()?;
    // Packets, errs, drop, fifo, frame, compressed, multicast; then what was sent.
    let sent = numbers.nth(7)?.ok()?;
    Some(Volume { received, sent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interfaces_counters_are_read_and_anothers_are_not_taken_for_them() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n    \
            usb10:  77 1 0 0 0 0 0 0 88 1 0 0 0 0 0 0\n  \
            usb1: 1000 10 0 0 0 0 0 0 200 4 0 0 0 0 0 0\n";
        let name = |text: &str| InterfaceName::new(text).unwrap();
        assert_eq!(counters(text, &name("usb1")), Some(Volume { received: 1_000, sent: 200 }));
        assert_eq!(counters(text, &name("usb2")), None);
    }

    #[test]
    fn volumes_are_shown_in_megabytes_and_nothing_used_is_not_shown_as_nothing() {
        assert_eq!(
            (megabytes(0), megabytes(1), megabytes(12_340_000)),
            ("0.0".into(), "0.1".into(), "12.4".into())
        );
    }
}
