//! What comes round again by itself: users counted, the day looked at, the watchdog fed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;
use seimon_core::migration::DiskRoom;
use seimon_core::network_plan::PathIndex;
use seimon_plan::{GroupId, PathId, ValidSitePlan, ZoneId};

use crate::agent::{Agent, clock_floor_every, today};
use crate::census;
use crate::clock::Reading;

/// Between looks at the flows where somebody may use the town hall's proxy.
const PROXY_WATCHED: std::time::Duration = std::time::Duration::from_secs(5);

/// When the flows are looked at. Out of turn it is for the proxy's sake only: how long a flow goes unanswered is counted in
/// looks that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    WhenDue,
    Now,
}

impl Agent {
    /// Every two seconds; twice a second while something moves.
    pub(crate) fn keep_house(&mut self, now: Reading) {
        self.clock.look();
        if let Err(error) = self.count(Look::WhenDue, now) {
            tracing::warn!(error = format!("{error:#}"), "flows could not be counted");
        }
        if self.clock_floor_at <= now.mono && now.trusted {
            self.clock_floor_at = now.mono + clock_floor_every();
            self.raise_clock_floor(now.wall);
            if let Err(error) = self.store.save_clock_floor(now.wall) {
                tracing::warn!(error = format!("{error:#}"), "the time was not written down");
            }
        }
        self.look_at_disk(now);
        self.meter_lines(crate::metering::Write::WhatMatters, now);
        self.look_for_far_ends(now);
        self.number_events();
        let day = today(self.network.plan(), now.calendar);
        if self.day.replace(day).is_some_and(|before| before != day) {
            match self.network.new_day(now.calendar) {
                Ok(true) => self.converge_at = Some(now.mono),
                Ok(false) => {}
                Err(error) => tracing::warn!(error = format!("{error:#}"), "permits of the new day"),
            }
        }
        self.inform_all(now);
        let colour = self.matter(now).colour();
        self.panel.show(colour);
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
            tracing::trace!(%error, "no service manager");
        }
    }

    pub(crate) fn look_at_disk(&mut self, now: Reading) {
        let room = self.store.room();
        if std::mem::replace(&mut self.disk, room) == room {
            return;
        }
        let (ja, en) = match room {
            DiskRoom::Short => (
                "記憶域に空きがありません。切り替えは始めませんが、元に戻すことはできます。",
                "The disk is full: nothing begins, going back works.",
            ),
            DiskRoom::Enough => ("記憶域に空きができました。", "The disk has room again."),
        };
        self.note("agent", ja.to_owned(), en.to_owned(), now);
    }

    /// Who is where, and who is at work: such clients are kept on their paths.
    pub(crate) fn count(&mut self, look: Look, now: Reading) -> Result<()> {
        let probes: Vec<(IpAddr, IpAddr, seimon_board::MacAddress)> = self
            .network
            .allocation()
            .probes
            .values()
            .map(|probe| (IpAddr::V4(probe.ipv4), IpAddr::V6(probe.ipv6), probe.mac))
            .collect();
        let affinity = self.network.refresh_affinity()?.to_vec();
        self.census.take_affinity(&affinity, |mac| probes.iter().any(|&(_, _, probe)| mac == probe));
        let pace = if self.is_at_rest() {
            let idle = self.network.plan().services.values().map(|service| service.session_idle.0).min();
            census::pace_at_rest(self.census.has_clients(), idle.unwrap_or_default())
        } else {
            std::time::Duration::ZERO
        };
        let pace = if self.network.plan().proxy.is_some() { pace.min(PROXY_WATCHED) } else { pace };
        if look == Look::WhenDue && !self.census.is_due(pace, now.mono) {
            return Ok(());
        }
        let flows = self.network.flows()?;
        let is_probe = |source| probes.iter().any(|&(v4, v6, _)| source == v4 || source == v6);
        let behind_proxy = self.watch_proxy(&flows, is_probe, now);
        let findings = match look {
            Look::WhenDue => {
                self.count_line_use(&flows, is_probe, now);
                self.census.take_flows(&flows, is_probe, now.mono)
            }
            Look::Now => self.census.nothing_new(now.mono),
        };
        let mut names = BTreeMap::new();
        let allocation = self.network.allocation();
        for ((zone, group), &index) in &allocation.zone_groups {
            names.insert(index, (zone.clone(), group.clone()));
        }
        let paths: BTreeMap<PathIndex, PathId> =
            allocation.paths.iter().map(|(path, &index)| (index, path.clone())).collect();
        for ((index, way), count) in findings.judged {
            if let (Some((zone, group)), Some(path)) = (names.get(&index), paths.get(&way)) {
                self.health.handle_flows(zone, group, path, count, now.mono);
            }
        }
        let mut active = findings.active;
        if !self.sabotage.off("pac-affinity") {
            active.extend(behind_proxy);
        }
        if active.is_empty() || self.sabotage.off("affinity") {
            return Ok(());
        }
        let mut neighbours = BTreeMap::new();
        for bridge in self.network.bridges() {
            neighbours.extend(self.network.neighbours(&bridge)?);
        }
        let plan = self.network.plan().clone();
        let by_ipv4: Vec<_> = active
            .iter()
            .filter(|((index, _), source)| {
                source.is_ipv4()
                    && names.get(index).is_some_and(|(zone, group)| carries_ipv6_in_part(&plan, zone, group))
            })
            .map(|&((index, _), source)| ((index, PathIndex::BY_IPV4), source))
            .collect();
        active.extend(by_ipv4);
        let keep = census::to_keep(&active, findings.gap, &neighbours, &affinity, |index| {
            names.get(&index).map_or(std::time::Duration::ZERO, |(_, group)| plan.session_idle(group).0)
        });
        self.network.keep_affinity(keep)
    }
}

/// Some paths of the route carry IPv6 and others do not.
fn carries_ipv6_in_part(plan: &ValidSitePlan, zone: &ZoneId, group: &GroupId) -> bool {
    let Some(route) = plan.route(zone, group) else { return false };
    let carries =
        |path: &PathId| plan.paths.get(path).is_some_and(|path| path.ipv6 != seimon_plan::PathIpv6::None);
    route.all_paths().any(carries) && !route.all_paths().all(carries)
}
