//! Carrying out what the cores ask for: children kept running, probes sent, machines driven, flows counted.

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use seimon_core::health::{HealthEvent, Liveness};
use seimon_core::migration::{Action, ClockTrust, Command, Event, Notice, View, WindowState, ZoneGroup};
use seimon_core::network_plan::{FlowKill, PathChoice, PathIndex, ZoneGroupIndex};
use seimon_core::status;
use seimon_ipc::probe::{FromProbe, ToProbe};
use seimon_ipc::resolver::{FromResolver, LISTENERS_ENV, Listener, PathUp, ToResolver, Transport};
use seimon_plan::{GroupId, PathId, ValidSitePlan, ZoneId};

use crate::agent::{Agent, ProbeState, clock_floor_every, gateway_paths, today};
use crate::census;
use crate::children::Program;
use crate::clock::Reading;
use crate::events::Happening;
use crate::network::Network;
use crate::plans::LoadedPlan;
use crate::probing::{Finished, Ground};
use crate::requests::bilingual;
use crate::views;

/// First inherited descriptor after the socket pair.
const FIRST_LISTENER_FD: i32 = 4;
/// Steps of all machines in one turn; what is left goes on in the next.
const STEPS: usize = 1_000;

impl Agent {
    pub(crate) fn listen_to_children(&mut self, now: Reading) {
        let (messages, outcome) = self.resolver.receive::<FromResolver>();
        for message in messages {
            self.hear_resolver(message, now);
        }
        if let Err(error) = outcome {
            self.lose_resolver(&error, now);
        }
        let (messages, outcome) = self.probe.receive::<FromProbe>();
        for message in messages {
            if let Err(error) = self.hear_probe(message, now) {
                self.lose_probe(&error, now);
            }
        }
        if let Err(error) = outcome {
            self.lose_probe(&error, now);
        }
    }

    fn lose_resolver(&mut self, error: &anyhow::Error, now: Reading) {
        tracing::warn!(error = format!("{error:#}"), "the resolver is started again");
        self.resolver.stop(now.mono);
        self.resolver_config = None;
    }

    fn lose_probe(&mut self, error: &anyhow::Error, now: Reading) {
        tracing::warn!(error = format!("{error:#}"), "the probe is started again");
        self.probe.stop(now.mono);
        self.probe_state = ProbeState::Off;
        self.probing.abandon();
    }

    fn hear_resolver(&mut self, message: FromResolver, now: Reading) {
        match message {
            FromResolver::Hello { version } => {
                tracing::info!(version, "the resolver is there");
                self.resolver_config = None;
                self.resolver_outdated = true;
            }
            FromResolver::Bind { token, zone, name, path, ipv4, ipv6 } => {
                let reply = match self.network.bind(&zone, &name, &path, ipv4, ipv6) {
                    Ok(()) => ToResolver::InForce { token },
                    Err(error) => {
                        let reason = format!("{error:#}");
                        self.note(
                            "dataplane",
                            format!("名前の宛先を設定できません（{reason}）"),
                            format!("an address could not be put in force: {reason}"),
                            now,
                        );
                        ToResolver::NotInForce { token, reason }
                    }
                };
                self.resolver.send(&reply);
            }
            FromResolver::Stats(stats) => self.resolver_stats = stats,
        }
    }

    fn hear_probe(&mut self, message: FromProbe, now: Reading) -> Result<()> {
        match message {
            FromProbe::Hello { version: _, pid } => {
                // The far ends of these died with the probe before it, or are about to.
                self.network.remove_probe_links()?;
                self.converge(now);
                self.network.hand_over_probe_links(pid)?;
                let hosts = views::probe_hosts(self.network.plan(), self.network.allocation());
                self.probe.send(&ToProbe::Configure { hosts });
                self.probe_state = ProbeState::Greeted;
            }
            FromProbe::Configured { error: Some(error) } => {
                anyhow::bail!("it could not set itself up: {error}")
            }
            FromProbe::Configured { error: None } => {
                tracing::info!("the probe is ready");
                self.probe_state = ProbeState::Ready;
                let orders = self.health.echo_orders();
                let watch = self.probing.watch(orders, ground(&self.network, &self.loaded), now.mono);
                self.probe.send(&watch);
            }
            report @ (FromProbe::Watched { .. } | FromProbe::Checked { .. }) => {
                for finished in self.probing.finish(report, now.mono) {
                    self.take(finished, now);
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, finished: Finished, now: Reading) {
        match finished {
            Finished::Echo { path, family, outcome } => {
                self.health.handle_echo(&path, family, outcome, now.mono);
            }
            Finished::Check { target, outcome } => {
                let passed = match outcome {
                    seimon_core::health::CheckOutcome::Good { .. } => seimon_core::migration::Passed::Yes,
                    seimon_core::health::CheckOutcome::Failed { .. } => seimon_core::migration::Passed::No,
                };
                self.health.handle_check(&target, outcome, now.mono);
                let zone_group = ZoneGroup { zone: target.zone.clone(), group: target.group.clone() };
                let event = Event::Check { path: target.path, service: target.service, passed };
                self.inform(&zone_group, event, now);
            }
        }
    }

    /// Starts what is not running and due.
    pub(crate) fn tend_children(&mut self, now: Reading) {
        if self.resolver.start_due().is_some_and(|at| at <= now.mono) {
            let started = self.prepare_resolver().and_then(|()| match &self.resolver_program {
                Some(program) => self.resolver.start(program, now.mono),
                None => anyhow::bail!("no listening sockets"),
            });
            if let Err(error) = started {
                self.complain_of_child(self.resolver.name(), &error, now);
                self.resolver.postpone(now.mono);
            }
        }
        if self.probe.start_due().is_some_and(|at| at <= now.mono) {
            self.probe_state = ProbeState::Off;
            let program = Program {
                executable: self.probe_executable(),
                environment: child_environment(),
                inherited: Vec::new(),
            };
            if let Err(error) = self.probe.start(&program, now.mono) {
                self.complain_of_child(self.probe.name(), &error, now);
                self.probe.postpone(now.mono);
            }
        }
    }

    fn complain_of_child(&mut self, child: &str, error: &anyhow::Error, now: Reading) {
        self.note(
            "agent",
            format!("{child} を起動できません。自動でやり直します（{error:#}）"),
            format!("{child} could not be started, trying again: {error:#}"),
            now,
        );
    }

    /// Sockets on port 53 of every zone, kept open while resolvers come and go.
    fn prepare_resolver(&mut self) -> Result<()> {
        if self.resolver_program.is_some() {
            return Ok(());
        }
        let (mut listeners, mut inherited) = (Vec::new(), Vec::<OwnedFd>::new());
        for (zone, address) in views::dns_addresses(self.network.plan()) {
            let udp = UdpSocket::bind(address).with_context(|| format!("UDP port 53 on {}", address.ip()))?;
            let tcp =
                TcpListener::bind(address).with_context(|| format!("TCP port 53 on {}", address.ip()))?;
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            for (protocol, fd) in [(Transport::Udp, OwnedFd::from(udp)), (Transport::Tcp, OwnedFd::from(tcp))]
            {
                let number = FIRST_LISTENER_FD + i32::try_from(inherited.len())?;
                listeners.push(Listener { fd: number, zone: zone.clone(), protocol, address });
                inherited.push(fd);
            }
        }
        let mut environment = child_environment();
        environment.push((LISTENERS_ENV.to_owned(), serde_json::to_string(&listeners)?));
        environment.push(("SEIMON_WITHOUT".to_owned(), self.sabotage.names()));
        let executable = self.resolver_executable();
        self.resolver_program = Some(Program { executable, environment, inherited });
        Ok(())
    }

    /// The plan's zones or probe hosts have changed: both children begin anew.
    pub(crate) fn restart_children(&mut self, now: Reading) {
        self.resolver.stop(now.mono);
        self.resolver.hurry(now.mono);
        self.resolver_program = None;
        self.resolver_config = None;
        self.resolver_outdated = true;
        self.probe.stop(now.mono);
        self.probe.hurry(now.mono);
        self.probe_state = ProbeState::Off;
        self.probing.abandon();
    }

    /// Sends the resolver its configuration if it is another than the one it has.
    pub(crate) fn tell_resolver(&mut self, now: Reading) {
        if !self.resolver.is_running() {
            return;
        }
        let current = self
            .machines
            .iter()
            .map(|(zg, machine)| ((zg.zone.clone(), zg.group.clone()), Some(machine.current().clone())))
            .collect();
        let up = self
            .network
            .plan()
            .paths
            .keys()
            .map(|path| {
                let up = match self.health.liveness(path) {
                    Liveness::Down => PathUp::Down,
                    Liveness::Up | Liveness::Unknown => PathUp::Up,
                };
                (path.clone(), up)
            })
            .collect();
        let config = views::resolver_config(
            self.network.plan(),
            self.network.allocation(),
            &current,
            &up,
            now.calendar,
        );
        if self.resolver_config.as_ref() != Some(&config) {
            self.resolver.send(&ToResolver::Configure(config.clone()));
            self.resolver_config = Some(config);
        }
    }

    pub(crate) fn flush_children(&mut self, now: Reading) {
        if let Err(error) = self.resolver.flush() {
            self.lose_resolver(&error, now);
        }
        if let Err(error) = self.probe.flush() {
            self.lose_probe(&error, now);
        }
    }

    /// Probes what is due, and judges what has come back.
    pub(crate) fn examine(&mut self, now: Reading) {
        // While there is no probe nothing is sent, and silence would say nothing.
        if self.probe_state == ProbeState::Ready {
            match self.probing.expire(now.mono) {
                Ok(()) => self.send_checks(now),
                Err(silent) => self.lose_probe(&silent.into(), now),
            }
        }
        let mut news = false;
        while let Some(event) = self.health.poll_event() {
            news = true;
            self.report_health(event, now);
        }
        if news {
            self.choose_gateway_path(now);
            self.inform_all(now);
        }
    }

    fn send_checks(&mut self, now: Reading) {
        self.health.handle_timeout(now.mono);
        while let Some(target) = self.health.poll_check() {
            let ground = ground(&self.network, &self.loaded);
            if let Some(job) = self.probing.check(target, ground, now.mono) {
                self.probe.send(&job);
            }
        }
    }

    fn report_health(&mut self, event: HealthEvent, now: Reading) {
        let reason = bilingual(status::health_event(&event));
        let happening = match event {
            HealthEvent::Path { path, verdict } => Happening {
                kind: "path",
                path: Some(path),
                to: Some(format!("{verdict:?}").to_lowercase()),
                reason,
                ..Happening::default()
            },
            HealthEvent::Service { target, verdict } => Happening {
                kind: "check",
                zone: Some(target.zone),
                group: Some(target.group),
                path: Some(target.path),
                to: Some(format!("{verdict:?}").to_lowercase()),
                reason,
                ..Happening::default()
            },
            HealthEvent::Egress { path, address } => Happening {
                kind: "egress",
                path: Some(path),
                to: Some(address.to_string()),
                reason,
                ..Happening::default()
            },
        };
        self.events.record(happening, now);
    }

    /// The gateway's own traffic goes by the first of its paths that is not dead.
    fn choose_gateway_path(&mut self, now: Reading) {
        let plan = self.network.plan().clone();
        let living = gateway_paths(&plan).find(|path| self.health.liveness(path) != Liveness::Down);
        if let Some(path) = living.or(gateway_paths(&plan).next())
            && let Err(error) = self.network.set_gateway_path(path)
        {
            let text = format!("{error:#}");
            self.note("dataplane", text.clone(), text, now);
        }
    }

    /// The facts for one machine, as they are now.
    pub(crate) fn view(&self, zone_group: &ZoneGroup, now: Reading) -> View {
        let paths: Vec<PathId> = self
            .network
            .plan()
            .route(&zone_group.zone, &zone_group.group)
            .map(|route| route.paths.clone())
            .unwrap_or_default();
        let facts = paths
            .into_iter()
            .map(|path| {
                let clients = self
                    .way(zone_group, &path)
                    .and_then(|(index, way)| self.census.clients(index, way))
                    .and_then(|count| u32::try_from(count).ok());
                let facts = self.health.facts(&zone_group.zone, &zone_group.group, &path, clients, now.mono);
                (path, facts)
            })
            .collect();
        View { paths: facts, ..bare_view(self.network.plan(), &self.boot, now) }
    }

    pub(crate) fn way(&self, zone_group: &ZoneGroup, path: &PathId) -> Option<(ZoneGroupIndex, PathIndex)> {
        let allocation = self.network.allocation();
        let index =
            allocation.zone_groups.get(&(zone_group.zone.clone(), zone_group.group.clone())).copied()?;
        Some((index, allocation.paths.get(path).copied()?))
    }

    fn inform(&mut self, zone_group: &ZoneGroup, event: Event, now: Reading) {
        let view = self.view(zone_group, now);
        if let Some(machine) = self.machines.get_mut(zone_group) {
            machine.handle_event(event, &view, now.mono);
        }
    }

    fn inform_all(&mut self, now: Reading) {
        self.resolver_outdated = true;
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
                    Ok(()) => Event::CheckpointDurable { id },
                    Err(error) => Event::CheckpointFailed { id, reason: format!("{error:#}") },
                })
            }
            Action::SetCurrent { id, zone_group, path } => {
                self.resolver_outdated = true;
                let choice = PathChoice::On(path);
                Some(match self.network.set_current(&zone_group.zone, &zone_group.group, choice) {
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
        let kill = FlowKill { path: Some(way), zone_group: Some(index), ..FlowKill::default() };
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

    /// Every two seconds; twice a second while something moves.
    pub(crate) fn keep_house(&mut self, now: Reading) {
        self.clock.look();
        if let Err(error) = self.count(now) {
            tracing::warn!(error = format!("{error:#}"), "flows could not be counted");
        }
        if self.clock_floor_at <= now.mono && now.trusted {
            self.clock_floor_at = now.mono + clock_floor_every();
            self.clock.raise_floor(now.wall);
            if let Err(error) = self.store.save_clock_floor(now.wall) {
                tracing::warn!(error = format!("{error:#}"), "the time was not written down");
            }
        }
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
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
            tracing::trace!(%error, "no service manager");
        }
    }

    fn count(&mut self, now: Reading) -> Result<()> {
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
        if !self.census.is_due(pace, now.mono) {
            return Ok(());
        }
        let flows = self.network.flows()?;
        let findings = self.census.take_flows(
            &flows,
            |source| probes.iter().any(|&(v4, v6, _)| source == v4 || source == v6),
            now.mono,
        );
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
        if findings.active.is_empty() || self.sabotage.off("affinity") {
            return Ok(());
        }
        let mut neighbours = BTreeMap::new();
        for bridge in self.network.bridges() {
            neighbours.extend(self.network.neighbours(&bridge)?);
        }
        let plan = self.network.plan().clone();
        let mut active = findings.active;
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

fn ground<'a>(network: &'a Network, loaded: &'a LoadedPlan) -> Ground<'a> {
    Ground { plan: network.plan(), allocation: network.allocation(), authorities: &loaded.authorities }
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
    View { window, clock, paths: BTreeMap::new(), boot: boot.clone(), wall_ms: now.wall.as_millisecond() }
}

/// Some paths of the route carry IPv6 and others do not.
fn carries_ipv6_in_part(plan: &ValidSitePlan, zone: &ZoneId, group: &GroupId) -> bool {
    let Some(route) = plan.route(zone, group) else { return false };
    let carries =
        |path: &PathId| plan.paths.get(path).is_some_and(|path| path.ipv6 != seimon_plan::PathIpv6::None);
    route.paths.iter().any(carries) && !route.paths.iter().all(carries)
}

fn child_environment() -> Vec<(String, String)> {
    // Where to find the system's certificate authorities, and how much to log; nothing else is inherited.
    ["SEIMON_LOG", "SSL_CERT_FILE", "SSL_CERT_DIR"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
        .collect()
}
