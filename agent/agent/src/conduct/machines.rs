//! The machines of migration: told what has happened, asked what is to be done, and obeyed.

use std::collections::BTreeMap;

use anyhow::Result;
use seimon_core::migration::{
    Action, ClockTrust, Command, DiskRoom, Event, Notice, View, WindowState, ZoneGroup,
};
use seimon_core::network_plan::{FlowKill, PathChoice, PathIndex, ZoneGroupIndex};
use seimon_core::status;
use seimon_plan::{PathId, ValidSitePlan};

use crate::agent::Agent;
use crate::clock::Reading;
use crate::events::Happening;
use crate::requests::bilingual;

/// Steps of all machines in one turn; what is left goes on in the next.
const STEPS: usize = 1_000;

impl Agent {
    /// The facts for one machine, as they are now.
    pub(crate) fn view(&self, zone_group: &ZoneGroup, now: Reading) -> View {
        let paths: Vec<PathId> = self
            .network
            .plan()
            .route(&zone_group.zone, &zone_group.group)
            .map(|route| route.all_paths().cloned().collect())
            .unwrap_or_default();
        let facts = paths
            .into_iter()
            .map(|path| {
                let clients = self
                    .way(zone_group, &path)
                    .and_then(|(index, way)| self.census.clients(index, way))
                    .and_then(|count| u32::try_from(count).ok());
                let mut facts =
                    self.health.facts(&zone_group.zone, &zone_group.group, &path, clients, now.mono);
                facts.bypassed = self.bypassed(&zone_group.zone, &path, now);
                (path, facts)
            })
            .collect();
        View { paths: facts, disk: self.disk, ..bare_view(self.network.plan(), &self.boot, now) }
    }

    pub(crate) fn way(&self, zone_group: &ZoneGroup, path: &PathId) -> Option<(ZoneGroupIndex, PathIndex)> {
        let allocation = self.network.allocation();
        let index =
            allocation.zone_groups.get(&(zone_group.zone.clone(), zone_group.group.clone())).copied()?;
        Some((index, allocation.paths.get(path).copied()?))
    }

    pub(super) fn inform(&mut self, zone_group: &ZoneGroup, event: Event, now: Reading) {
        let view = self.view(zone_group, now);
        if let Some(machine) = self.machines.get_mut(zone_group) {
            machine.handle_event(event, &view, now.mono);
        }
    }

    pub(super) fn inform_all(&mut self, now: Reading) {
        self.resolver_outdated = true;
        self.wake_emergency_lines(now);
        let all: Vec<ZoneGroup> = self.machines.keys().cloned().collect();
        for zone_group in all {
            self.inform(&zone_group, Event::FactsChanged, now);
        }
    }

    pub(crate) fn command(
        &mut self,
        zone_group: &ZoneGroup,
        command: Command,
        now: Reading,
    ) -> Option<Result<(), Vec<seimon_core::migration::Veto>>> {
        if matches!(command, Command::Start { .. }) {
            self.look_at_proxy(now);
            self.look_at_disk(now);
        }
        let view = self.view(zone_group, now);
        let outcome = self.machines.get_mut(zone_group)?.handle_command(command, &view, now.mono);
        // A move may have begun: from now on look more often.
        self.housekeeping_at = now.mono;
        self.drive_machines(now);
        self.tell_resolver(now);
        self.flush_children(now);
        Some(outcome)
    }

    /// Time-outs that are due, then every action until there is none.
    pub(crate) fn drive_machines(&mut self, now: Reading) {
        let due: Vec<ZoneGroup> = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.poll_timeout().is_some_and(|(at, _)| at <= now.mono))
            .map(|(zone_group, _)| zone_group.clone())
            .collect();
        for zone_group in due {
            let view = self.view(&zone_group, now);
            if let Some(machine) = self.machines.get_mut(&zone_group) {
                machine.handle_timeout(&view, now.mono);
            }
        }
        for _ in 0..STEPS {
            let next = self
                .machines
                .iter_mut()
                .find_map(|(zone_group, machine)| Some((zone_group.clone(), machine.poll_action()?)));
            let Some((zone_group, action)) = next else { break };
            if let Some(event) = self.perform(&zone_group, action, now) {
                self.inform(&zone_group, event, now);
            }
        }
    }

    fn perform(&mut self, zone_group: &ZoneGroup, action: Action, now: Reading) -> Option<Event> {
        match action {
            Action::WriteCheckpoint { id, checkpoint } => {
                Some(match self.store.save_checkpoint(*checkpoint) {
                    Ok(()) => {
                        // As a restart would have it: what is on disk is not taken back by a clock that jumps.
                        if let Some(floor) = self.store.clock_floor() {
                            self.raise_clock_floor(floor);
                        }
                        Event::CheckpointDurable { id }
                    }
                    Err(error) => Event::CheckpointFailed { id, reason: format!("{error:#}") },
                })
            }
            Action::SetCurrent { id, zone_group, path, trial } => {
                self.resolver_outdated = true;
                let (zone, group) = (&zone_group.zone, &zone_group.group);
                Some(match self.network.set_current(zone, group, PathChoice::On(path), trial) {
                    Ok(()) => Event::ChangeInForce { id },
                    Err(error) => {
                        // Perhaps the table is not what we think it is: look, and try again after.
                        self.converge_at = Some(now.mono);
                        Event::ChangeFailed { id, reason: format!("{error:#}") }
                    }
                })
            }
            // Affinity of clients with live flows is kept for every path alike.
            Action::Drain { .. } => None,
            Action::ForceDrain { zone_group, path } => {
                self.forget(&zone_group, &path, now);
                self.end_flows(&zone_group, &path, now);
                None
            }
            Action::AffinityDelete { zone_group, path } => {
                self.forget(&zone_group, &path, now);
                None
            }
            Action::KillFlows { zone_group, path } => {
                self.end_flows(&zone_group, &path, now);
                None
            }
            Action::Probe { zone_group, pace } => {
                self.health.set_pace(&zone_group.zone, &zone_group.group, pace, now.mono);
                None
            }
            Action::Emit(notice) => {
                self.publish(zone_group, &notice, now);
                None
            }
        }
    }

    pub(crate) fn raise_clock_floor(&mut self, to: jiff::Timestamp) {
        if !self.sabotage.off("clock-floor") {
            self.clock.raise_floor(to);
        }
    }

    fn forget(&mut self, zone_group: &ZoneGroup, path: &PathId, now: Reading) {
        let Some((index, way)) = self.way(zone_group, path) else { return };
        if let Err(error) = self.network.forget_affinity(index, way) {
            let text = format!("{error:#}");
            self.note("dataplane", text.clone(), format!("affinity could not be deleted: {text}"), now);
        }
    }

    fn end_flows(&mut self, zone_group: &ZoneGroup, path: &PathId, now: Reading) {
        if self.sabotage.off("reset") {
            return;
        }
        let Some((index, way)) = self.way(zone_group, path) else { return };
        let mut kill = FlowKill { path: Some(way), zone_group: Some(index), ..FlowKill::default() };
        if self.sabotage.off("selective-kill") {
            kill = FlowKill::default();
        }
        if let Err(error) = self.network.kill_flows(kill) {
            let text = format!("{error:#}");
            self.note("dataplane", text.clone(), format!("flows could not be ended: {text}"), now);
        }
    }

    fn publish(&mut self, zone_group: &ZoneGroup, notice: &Notice, now: Reading) {
        let mut happening = Happening {
            kind: "state",
            zone: Some(zone_group.zone.clone()),
            group: Some(zone_group.group.clone()),
            reason: bilingual(status::notice(notice)),
            ..Happening::default()
        };
        match notice {
            Notice::State { from, to, path, cause: _ } => {
                happening.from = Some(from.to_string());
                happening.to = Some(to.to_string());
                happening.path = Some(path.clone());
            }
            Notice::Vetoed { .. } => happening.kind = "veto",
            Notice::ServiceBlamed { .. } => happening.kind = "check",
            Notice::Forced { path, .. } => {
                happening.kind = "drain";
                happening.path = Some(path.clone());
            }
            Notice::CheckpointFailed { .. } | Notice::ChangeFailed { .. } => happening.kind = "dataplane",
        }
        self.events.record(happening, now);
    }
}

/// Without any measurement: window, clock and boot only.
pub(crate) fn bare_view(plan: &ValidSitePlan, boot: &seimon_core::migration::BootId, now: Reading) -> View {
    let spoken =
        |at: jiff::Timestamp| at.to_zoned(plan.time_zone().clone()).strftime("%Y-%m-%d %H:%M").to_string();
    let window = match seimon_plan::window_state(plan, now.wall) {
        seimon_plan::WindowState::Open { .. } => WindowState::Open,
        seimon_plan::WindowState::Closed { next } => WindowState::Closed { next: next.map(spoken) },
        seimon_plan::WindowState::Frozen { reason, until } => {
            WindowState::Frozen { reason, until: Some(spoken(until)) }
        }
    };
    let clock = if now.trusted { ClockTrust::Trusted } else { ClockTrust::NotTrusted };
    // A time that nobody vouches for is not written down: after the next start no right clock would be believed any more,
    // and permits would run out by it.
    let wall_ms = now.calendar.as_millisecond();
    let disk = DiskRoom::default();
    View { window, clock, disk, paths: BTreeMap::new(), boot: boot.clone(), wall_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::{SignedDuration, Timestamp};
    use seimon_board::{Board, Instant};

    #[test]
    fn a_time_that_nobody_vouches_for_is_not_written_down() {
        let board = Board::shipped("lab-namespace").unwrap();
        let text = include_str!("../../../../provisioning/plan/examples/two-line-town.toml");
        let plan = seimon_plan::parse(text, "town.toml", &board).unwrap();
        let boot = seimon_core::migration::BootId("boot-1".into());
        let known: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
        let wild = known + SignedDuration::from_hours(24 * 365 * 10);
        let reading = |trusted, calendar| Reading { mono: Instant::ZERO, wall: wild, trusted, calendar };
        let written = |now| bare_view(&plan, &boot, now).wall_ms;
        assert_eq!(written(reading(false, known)), known.as_millisecond());
        assert_eq!(written(reading(true, wild)), wild.as_millisecond());
    }
}
