//! Who uses which line: counted at every look at the flows, written down by day, asked by whoever wants to cancel a contract.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use seimon_board::Instant;
use seimon_core::acceptance::{line_word, zone_word};
use seimon_core::line_use::{Kind, Ledger, LineFlow, Straggler, Tie};
use seimon_core::network_plan::{Flow, PathIndex, ZoneGroupIndex};
use seimon_core::segmentation::zone_of;
use seimon_ipc::control::{Bilingual, Response};
use seimon_ipc::report::{self, LineUse};
use seimon_plan::{LineId, PathId, ValidSitePlan};

use crate::agent::{Agent, today};
use crate::clock::Reading;
use crate::requests::bilingual;

/// Looks further apart than this leave the time between them unwatched.
const LONGEST_GAP: Duration = Duration::from_secs(90);
/// News is written down at once, but not more often than this; everything else this often.
const NEWS_EVERY: Duration = Duration::from_secs(60);
const WRITE_EVERY: Duration = Duration::from_secs(3600);

/// Counts that are partly on disk.
#[derive(Debug, Default)]
pub(crate) struct LineUseCount {
    pub(crate) ledger: Ledger,
    looked: Option<Instant>,
    /// Of the time watched, less than a second that is not in the ledger yet.
    rest: Duration,
    written: Option<Instant>,
    news: BTreeSet<LineId>,
}

/// Whether the wall clock tells on which day something was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dates {
    Known,
    Unknown,
}

impl LineUseCount {
    pub(crate) fn of(ledger: Ledger) -> Self {
        Self { ledger, ..Self::default() }
    }

    /// Somebody looks now: whole seconds that have been watched since they were last told.
    fn watched(&mut self, dates: Dates, now: Instant) -> u32 {
        let gap = self.looked.replace(now).map_or(Duration::ZERO, |looked| now.since(looked));
        if dates == Dates::Known && gap <= LONGEST_GAP {
            self.rest += gap;
        }
        let whole = self.rest.as_secs();
        self.rest -= Duration::from_secs(whole);
        u32::try_from(whole).unwrap_or(u32::MAX)
    }
}

impl Agent {
    /// `ours`: whether an address is one of the probe's.
    pub(crate) fn count_line_use(&mut self, flows: &[Flow], ours: impl Fn(IpAddr) -> bool, now: Reading) {
        let plan = self.network.plan();
        let on_lines = on_lines(plan, &self.network.allocation().paths, flows, ours);
        let watched =
            self.line_use.watched(if now.trusted { Dates::Known } else { Dates::Unknown }, now.mono);
        let date = today(plan, now.calendar);
        let lines: Vec<LineId> = plan.lines.keys().cloned().collect();
        let news = self.line_use.ledger.look(date, watched, lines, &on_lines);
        self.line_use.news.extend(news);
        let since = |then: Option<Instant>| then.map_or(Duration::MAX, |then| now.mono.since(then));
        let written = since(self.line_use.written);
        if written >= WRITE_EVERY || !self.line_use.news.is_empty() && written >= NEWS_EVERY {
            self.write_line_use(now);
        }
    }

    /// Today's counts to the journal. (Those of the day before are written within the hour before midnight.)
    pub(crate) fn write_line_use(&mut self, now: Reading) {
        let date = today(self.network.plan(), now.calendar);
        self.line_use.written = Some(now.mono);
        self.line_use.news.clear();
        for line in self.network.plan().lines.keys().cloned().collect::<Vec<_>>() {
            let Some(day) = self.line_use.ledger.day(&line, date).cloned() else { continue };
            if let Err(error) = self.store.save_line_day(&line, date, day) {
                tracing::warn!(error = format!("{error:#}"), %line, "the use of a line was not written down");
            }
        }
    }

    pub(crate) fn answer_line_use(&self, line: &LineId, days: u32, now: Reading) -> Response {
        let plan = self.network.plan();
        if !plan.lines.contains_key(line) {
            let known: Vec<String> = plan.lines.keys().map(ToString::to_string).collect();
            return Response::Refused {
                reasons: vec![Bilingual {
                    ja: format!("回線「{line}」は計画にありません。あるのは {} です。", known.join("、")),
                    en: format!("the plan has no line `{line}`; it has {}", known.join(", ")),
                }],
            };
        }
        let date = today(plan, now.calendar);
        let verdict = self.line_use.ledger.verdict(line, date, days, self.ties(line));
        let (binding, notes): (Vec<&Tie>, Vec<&Tie>) = verdict.ties.iter().partition(|tie| tie.binds());
        let say = |ties: Vec<&Tie>| ties.into_iter().map(|tie| bilingual(tie.sentence())).collect();
        Response::LineUse(Box::new(LineUse {
            line: line.clone(),
            may_cancel: verdict.yes(),
            sentence: bilingual(with_word(plan, line, verdict.sentence())),
            quiet_days: verdict.quiet_days,
            wanted_days: verdict.wanted_days,
            last_flow: verdict.last_flow.map(|date| date.to_string()),
            stragglers: verdict.stragglers.iter().map(|found| straggler(plan, found)).collect(),
            reasons: say(binding),
            notes: say(notes),
        }))
    }

    /// What holds on to the line.
    fn ties(&self, line: &LineId) -> Vec<Tie> {
        let plan = self.network.plan();
        let on_line = |path: &PathId| plan.paths.get(path).is_some_and(|path| path.line == *line);
        let mut ties = Vec::new();
        let mut way_back = false;
        for (zone_group, machine) in &self.machines {
            let what = format!("{}（{}）", zone_word(plan, &zone_group.zone).ja, zone_group.group);
            if on_line(machine.current()) {
                ties.push(Tie::Carries { what });
                continue;
            }
            let route = plan.route(&zone_group.zone, &zone_group.group);
            for path in route.into_iter().flat_map(|route| &route.paths).filter(|path| on_line(path)) {
                way_back = true;
                let clients =
                    self.way(zone_group, path).and_then(|(index, way)| self.census.clients(index, way));
                if let Some(count @ 1..) = clients {
                    ties.push(Tie::Clients { what: what.clone(), count });
                }
            }
        }
        if plan.hub.as_ref().is_some_and(|hub| on_line(&hub.path)) {
            ties.push(Tie::Hub);
        }
        for forward in plan.dns.forward.iter().filter(|forward| forward.path.as_ref().is_some_and(on_line)) {
            ties.push(Tie::Domain { domain: forward.domain.clone() });
        }
        if plan.gateway.paths.iter().all(on_line) {
            ties.push(Tie::Gateway);
        }
        if way_back {
            ties.push(Tie::WayBack);
        }
        ties
    }
}

fn with_word(
    plan: &ValidSitePlan,
    line: &LineId,
    sentence: seimon_core::status::Sentence,
) -> seimon_core::status::Sentence {
    let word = line_word(plan, line);
    seimon_core::status::Sentence::new(
        format!("{}：{}", word.ja, sentence.ja),
        format!("{}: {}", word.en, sentence.en),
    )
}

fn straggler(plan: &ValidSitePlan, straggler: &Straggler) -> report::Straggler {
    let outside = || seimon_core::status::Sentence::new("学校の外", "outside");
    let from = straggler.zone.as_ref().map_or_else(outside, |zone| zone_word(plan, zone));
    report::Straggler {
        zone: straggler.zone.clone(),
        from: bilingual(from),
        kind: bilingual(straggler.kind.sentence()),
        flows: straggler.flows,
        last: straggler.last.to_string(),
    }
}

/// Flows of people and machines on lines: not the probe's, not the gateway's own.
fn on_lines(
    plan: &ValidSitePlan,
    paths: &BTreeMap<PathId, PathIndex>,
    flows: &[Flow],
    ours: impl Fn(IpAddr) -> bool,
) -> Vec<LineFlow> {
    let lines: BTreeMap<PathIndex, &LineId> =
        paths.iter().filter_map(|(path, index)| Some((*index, &plan.paths.get(path)?.line))).collect();
    let own: BTreeSet<IpAddr> = plan
        .lines
        .values()
        .flat_map(|line| [line.ipv4.map(|net| net.addr().into()), line.ipv6.map(|net| net.addr().into())])
        .flatten()
        .collect();
    flows
        .iter()
        .filter(|flow| flow.mark.zone_group() != Some(ZoneGroupIndex::GATEWAY))
        .filter(|flow| !ours(flow.source) && !own.contains(&flow.source) && !own.contains(&flow.destination))
        .filter_map(|flow| {
            let line = lines.get(&flow.mark.path()?)?;
            Some(LineFlow {
                id: flow.id,
                line: (*line).clone(),
                zone: zone_of(plan, flow.source),
                kind: Kind::of(flow.protocol, flow.destination_port),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks so far apart for an hour: how much of it is called watched.
    fn an_hour(apart: Duration, dates: Dates) -> u32 {
        let mut count = LineUseCount::default();
        let (mut now, mut watched) = (Instant::from_micros(7), count.watched(dates, Instant::from_micros(7)));
        for _ in 0..3_600_000 / apart.as_millis() {
            now = now + apart;
            watched += count.watched(dates, now);
        }
        watched
    }

    #[test]
    fn an_hour_is_an_hour_however_often_somebody_looks() {
        for millis in [1, 300, 999, 2_010, 30_000, 90_000] {
            let watched = an_hour(Duration::from_millis(millis), Dates::Known);
            assert!((3_597..=3_600).contains(&watched), "{millis} ms apart: {watched} s");
        }
    }

    #[test]
    fn time_is_not_watched_when_nobody_looks_or_the_date_is_not_known() {
        assert_eq!(an_hour(Duration::from_millis(90_001), Dates::Known), 0);
        assert_eq!(an_hour(Duration::from_secs(1), Dates::Unknown), 0);
    }
}
