//! The agent in small: the same pure cores, wired as the agent wires them, on a simulated kernel, disk and network.

mod checks;
mod names;
mod network;
mod store;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

pub(crate) use self::store::{current_on, rewrite, time_on, trial_on};

use seimon_core::health::{Health, HealthConfig, HealthEvent};
use seimon_core::migration::{
    Action, BootId, ClockTrust, Command, Config, DiskRoom, Event, Machine, Mechanisms, Switch, View,
    WindowState, ZoneGroup,
};
use seimon_core::network_plan::{Generation, PathChoice};
use seimon_plan::{PathId, ZoneId};

use self::checks::Probe;
use self::names::{Names, Situation, address_in};
use self::network::Network;
use self::store::{Others, Store};
use crate::ground::{Fault, Ground, Moment, Mutation, Stop};

const HOUSEKEEPING: u64 = 500;
const HOUSEKEEPING_AT_REST: u64 = 2_000;
const CONVERGE_AGAIN: u64 = 30_000;
/// A clock that is put right by so little has not jumped.
const PUT_RIGHT: i64 = 30_000;

#[derive(Debug)]
pub struct Gateway {
    store: Store,
    network: Network,
    health: Health,
    machines: BTreeMap<ZoneGroup, Machine>,
    probe: Probe,
    names: Names,
    boot: BootId,
    housekeeping_at: u64,
    converge_at: u64,
    window: Option<(i64, WindowState)>,
    /// Since the resolver was last told of the situation.
    acted: bool,
    pub started: u64,
}

/// Why the agent did not start; it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStarted {
    Stopped(Stop),
    DiskRefuses,
    KernelRefuses,
}

impl From<Stop> for NotStarted {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

fn mechanisms(mutation: Mutation) -> Mechanisms {
    let mut all = Mechanisms::default();
    if mutation == Mutation::EgressVeto {
        all.egress_veto = Switch::Off;
    }
    if mutation == Mutation::WindowVeto {
        all.window_veto = Switch::Off;
    }
    if mutation == Mutation::Rollback {
        all.rollback = Switch::Off;
    }
    if mutation == Mutation::Checkpoint {
        all.checkpoint = Switch::Off;
    }
    if mutation == Mutation::BlameService {
        all.blame_service = Switch::Off;
    }
    all
}

impl Gateway {
    pub fn start(ground: &mut Ground<'_, '_>) -> Result<Self, NotStarted> {
        let now = ground.clocks.mono(ground.now);
        let others = if ground.mutation == Mutation::Strict { Others::Refused } else { Others::PassedOver };
        let mut store = Store::open(ground.disk.clone(), others).ok_or(NotStarted::DiskRefuses)?;
        ground.act()?;
        if ground.mutation == Mutation::Forgets {
            store.checkpoints.clear();
        }
        let boot = BootId(format!("boot-{}", ground.clocks.boots));
        let plan = &ground.town.plan;
        let mut health_config = HealthConfig::from_plan(plan, 7);
        if ground.mutation == Mutation::Liveness {
            health_config.thresholds.down_lost = u32::MAX;
        }
        if ground.mutation == Mutation::Hasty {
            (health_config.thresholds.down_lost, health_config.thresholds.down_of) = (1, 1);
            (health_config.thresholds.up_count, health_config.more_in_row) = (1, 0);
        }
        let mut gateway = Self {
            store,
            network: Network::default(),
            health: Health::new(health_config, now),
            machines: BTreeMap::new(),
            probe: Probe::new(ground),
            names: Names::new(ground),
            boot,
            housekeeping_at: ground.now,
            converge_at: ground.now + CONVERGE_AGAIN,
            window: None,
            acted: true,
            started: ground.now,
        };
        let (mut choices, mut trials) = (BTreeMap::new(), BTreeMap::new());
        for route in plan.routes() {
            let config = Config::from_plan(plan, route, mechanisms(ground.mutation));
            let zone_group = config.zone_group.clone();
            let view = gateway.bare_view(ground);
            let machine = match gateway.store.checkpoints.get(&zone_group) {
                None => Machine::new(config, &view, now),
                Some(saved) => {
                    Machine::restore_or_rest(config, saved, &view, now).map(|(machine, _)| machine)
                }
            };
            let Some(machine) = machine else { continue };
            let choice = PathChoice::On(machine.current().clone());
            let key = (zone_group.zone.clone(), zone_group.group.clone());
            trials.extend(machine.state().trial().map(|trial| (key.clone(), trial.clone())));
            choices.insert(key, choice);
            gateway.machines.insert(zone_group, machine);
        }
        gateway.network = Network::begin(ground, choices, trials, Generation(1));
        if !gateway.network.converge(ground) {
            return Err(NotStarted::KernelRefuses);
        }
        ground.look();
        ground.act()?;
        gateway.drive(ground)?;
        Ok(gateway)
    }

    /// Does what is due.
    pub fn turn(&mut self, ground: &mut Ground<'_, '_>) -> Result<(), Stop> {
        let now = ground.clocks.mono(ground.now);
        for (target, outcome) in self.probe.listen(ground) {
            let passed = match outcome {
                seimon_core::health::CheckOutcome::Good { .. } => seimon_core::migration::Passed::Yes,
                seimon_core::health::CheckOutcome::Failed { .. } => seimon_core::migration::Passed::No,
            };
            self.health.handle_check(&target, outcome, now);
            let zone_group = ZoneGroup { zone: target.zone.clone(), group: target.group.clone() };
            self.inform(
                &zone_group,
                Event::Check { path: target.path, service: target.service, passed },
                ground,
            );
        }
        self.probe.send(ground, &mut self.health, &self.network);
        let mut news = false;
        while let Some(event) = self.health.poll_event() {
            ground.tell(|| format!("{event:?}"));
            news |= matches!(
                event,
                HealthEvent::Path { .. }
                    | HealthEvent::Service { .. }
                    | HealthEvent::Egress { .. }
                    | HealthEvent::Ailment { .. }
            );
        }
        if news {
            self.inform_all(ground);
        }
        if news || self.acted {
            self.acted = false;
            let situation = self.situation(ground);
            self.names.tell(situation, ground);
        }
        self.names.turn(ground, &mut self.network);
        let foreign = ground.kernel.touched && ground.mutation != Mutation::Reobserve;
        if foreign || (self.converge_at <= ground.now && ground.mutation != Mutation::Reobserve) {
            self.converge_at = ground.now + CONVERGE_AGAIN;
            if !self.network.converge(ground) {
                self.converge_at = ground.now + 1_000;
            }
            ground.look();
        }
        if self.housekeeping_at <= ground.now {
            let moving = self.machines.values().any(|machine| machine.state().is_moving());
            self.housekeeping_at = ground.now + if moving { HOUSEKEEPING } else { HOUSEKEEPING_AT_REST };
            for ((zone, group, path), count) in std::mem::take(&mut ground.flows) {
                self.health.handle_flows(&zone, &group, &path, count, now);
            }
            self.network.refresh_affinity(ground);
            self.store.keep_clock(ground);
            self.inform_all(ground);
        }
        self.drive(ground)
    }

    pub fn command(
        &mut self,
        zone_group: &ZoneGroup,
        command: Command,
        ground: &mut Ground<'_, '_>,
    ) -> Result<bool, Stop> {
        let view = self.view(zone_group, ground);
        let now = ground.clocks.mono(ground.now);
        let Some(machine) = self.machines.get_mut(zone_group) else { return Ok(false) };
        let accepted = machine.handle_command(command, &view, now).is_ok();
        self.drive(ground)?;
        Ok(accepted)
    }

    fn situation(&self, ground: &Ground<'_, '_>) -> Situation {
        let current = self.machines.iter().map(|(zone_group, m)| (zone_group.clone(), m.current().clone()));
        let paths = ground.town.plan.paths.keys();
        Situation {
            current: current.collect(),
            liveness: paths.map(|path| (path.clone(), self.health.liveness(path))).collect(),
        }
    }

    /// A client asks for a name; see [`Self::told`].
    pub fn ask(&mut self, zone: &ZoneId, client: IpAddr, name: &str, ground: &Ground<'_, '_>) -> Option<u64> {
        self.names.ask(zone, client, name, ground)
    }

    /// `None`: no answer yet; `Some(None)`: an answer without an address.
    pub fn told(&mut self, query: u64) -> Option<Option<Ipv4Addr>> {
        self.names.answers.remove(&query).map(|message| address_in(&message))
    }

    pub fn machines(&self) -> impl Iterator<Item = (&ZoneGroup, &Machine)> {
        self.machines.iter()
    }

    pub fn is_in_order(&self, ground: &mut Ground<'_, '_>) -> bool {
        self.network.is_in_force(ground)
    }

    fn inform(&mut self, zone_group: &ZoneGroup, event: Event, ground: &mut Ground<'_, '_>) {
        let view = self.view(zone_group, ground);
        if let Some(machine) = self.machines.get_mut(zone_group) {
            machine.handle_event(event, &view, ground.clocks.mono(ground.now));
        }
    }

    fn inform_all(&mut self, ground: &mut Ground<'_, '_>) {
        let all: Vec<ZoneGroup> = self.machines.keys().cloned().collect();
        for zone_group in all {
            self.inform(&zone_group, Event::FactsChanged, ground);
        }
    }

    /// Time-outs that are due, then every action until there is none.
    fn drive(&mut self, ground: &mut Ground<'_, '_>) -> Result<(), Stop> {
        let now = ground.clocks.mono(ground.now);
        let is_due = |machine: &Machine| machine.poll_timeout().is_some_and(|(at, _)| at <= now);
        let due: Vec<ZoneGroup> =
            self.machines.iter().filter(|(_, m)| is_due(m)).map(|(zg, _)| zg.clone()).collect();
        for zone_group in due {
            let view = self.view(&zone_group, ground);
            if let Some(machine) = self.machines.get_mut(&zone_group) {
                machine.handle_timeout(&view, now);
                if is_due(machine) {
                    ground.reference.complain(ground.now, "the driver would spin", zone_group.to_string());
                }
            }
        }
        for _ in 0..1_000 {
            let next = self
                .machines
                .iter_mut()
                .find_map(|(zone_group, machine)| Some((zone_group.clone(), machine.poll_action()?)));
            let Some((zone_group, action)) = next else { return Ok(()) };
            self.acted = true;
            let touches = action.touches_kernel();
            if touches || matches!(action, Action::WriteCheckpoint { .. }) {
                ground.act()?;
            }
            let event = self.perform(&zone_group, action, ground)?;
            if touches {
                ground.look();
                ground.strike(Moment::Acted)?;
            }
            if let Some(event) = event {
                self.inform(&zone_group, event, ground);
            }
        }
        ground.reference.complain(ground.now, "a machine never comes to rest", String::new());
        Ok(())
    }

    fn perform(
        &mut self,
        zone_group: &ZoneGroup,
        action: Action,
        ground: &mut Ground<'_, '_>,
    ) -> Result<Option<Event>, Stop> {
        match action {
            Action::WriteCheckpoint { id, checkpoint } => {
                self.write(zone_group, id, *checkpoint, ground).map(Some)
            }
            Action::SetCurrent { id, path, trial, zone_group: _ } => {
                Ok(Some(if self.network.set_current(zone_group, path, trial, ground) {
                    Event::ChangeInForce { id }
                } else {
                    self.converge_at = ground.now;
                    Event::ChangeFailed { id, reason: "simulated".into() }
                }))
            }
            Action::ForceDrain { path, .. } | Action::AffinityDelete { path, .. } => {
                ground.forgets(zone_group, &path);
                self.network.forget_affinity(zone_group, &path, ground);
                Ok(None)
            }
            Action::KillFlows { path, .. } => {
                ground.forgets(zone_group, &path);
                Ok(None)
            }
            Action::Probe { zone_group, pace } => {
                let now = ground.clocks.mono(ground.now);
                self.health.set_pace(&zone_group.zone, &zone_group.group, pace, now);
                Ok(None)
            }
            Action::Emit(notice) => {
                ground.tell(|| format!("{zone_group}: {notice:?}"));
                Ok(None)
            }
            // Affinity of clients with live flows is kept for every path alike.
            Action::Drain { .. } => Ok(None),
        }
    }

    fn write(
        &mut self,
        zone_group: &ZoneGroup,
        id: u64,
        checkpoint: seimon_core::migration::Checkpoint,
        ground: &mut Ground<'_, '_>,
    ) -> Result<Event, Stop> {
        let number = u32::try_from(ground.hazards.checkpoints.len()).unwrap_or(u32::MAX);
        ground.hazards.checkpoints.push(format!("{zone_group} {:?}", checkpoint.state));
        if let Some(ambush) = ground.hazards.ambush.filter(|ambush| ambush.checkpoint == number) {
            ground.hazards.armed = true;
            match (ambush.fault, ambush.moment) {
                (Fault::DiskFull, _) => {
                    ground.hazards.armed = false;
                    ground.hazards.struck = true;
                    ground.hazards.disk_full_until = ground.now + 5_000;
                    ground.disk.set_mood(crate::disk::Mood::Full);
                    ground.reference.hindered(ground.now + 5_000);
                }
                (Fault::PowerCut | Fault::Kill, Moment::During) => {
                    // A process that is killed in the middle of a write has written some of it.
                    ground.disk.light_fuse(57);
                }
                (Fault::PowerCut | Fault::Kill, Moment::Before | Moment::After | Moment::Acted)
                | (Fault::Older | Fault::Newer | Fault::ClockAhead | Fault::ClockBack, _) => {}
            }
        }
        ground.strike(Moment::Before)?;
        let early = (ground.mutation == Mutation::ActsFirst).then(|| checkpoint.state.current().clone());
        if let Some(path) = early {
            self.network.set_current(zone_group, path, None, ground);
            ground.look();
        }
        let written = self.store.save_checkpoint(checkpoint);
        if ground.disk.is_dark() {
            ground.strike(Moment::During)?;
            return Err(Stop::PowerCut);
        }
        ground.strike(Moment::After)?;
        Ok(if written {
            Event::CheckpointDurable { id }
        } else {
            Event::CheckpointFailed { id, reason: "simulated".into() }
        })
    }

    fn view(&mut self, zone_group: &ZoneGroup, ground: &Ground<'_, '_>) -> View {
        let now = ground.clocks.mono(ground.now);
        let route = ground.town.plan.route(&zone_group.zone, &zone_group.group);
        let paths: &[PathId] = route.map(|route| route.paths.as_slice()).unwrap_or_default();
        let facts = paths.iter().map(|path| {
            let clients = self.network.clients(zone_group, path, ground);
            (path.clone(), self.health.facts(&zone_group.zone, &zone_group.group, path, clients, now))
        });
        let paths = facts.collect();
        View { paths, ..self.bare_view(ground) }
    }

    fn bare_view(&mut self, ground: &Ground<'_, '_>) -> View {
        let wall_ms = ground.clocks.wall(ground.now);
        // Windows begin and end on whole minutes.
        let minute = wall_ms.div_euclid(60_000);
        let window = match &self.window {
            Some((known, window)) if *known == minute => window.clone(),
            Some(_) | None => {
                let window = window_at(ground, wall_ms);
                self.window = Some((minute, window.clone()));
                window
            }
        };
        let vouched = ground.clocks.untrusted_until <= ground.now;
        let trusted = vouched && wall_ms.saturating_add(PUT_RIGHT) >= self.store.clock_floor;
        let known = trusted || ground.mutation == Mutation::WildClock;
        View {
            disk: if ground.disk.is_full() { DiskRoom::Short } else { DiskRoom::Enough },
            window,
            clock: if trusted { ClockTrust::Trusted } else { ClockTrust::NotTrusted },
            paths: BTreeMap::new(),
            boot: self.boot.clone(),
            wall_ms: if known { wall_ms } else { self.store.clock_floor },
        }
    }
}

fn window_at(ground: &Ground<'_, '_>, wall_ms: i64) -> WindowState {
    let Ok(wall) = jiff::Timestamp::from_millisecond(wall_ms) else {
        return WindowState::Closed { next: None };
    };
    match seimon_plan::window_state(&ground.town.plan, wall) {
        seimon_plan::WindowState::Open { .. } => WindowState::Open,
        seimon_plan::WindowState::Closed { .. } => WindowState::Closed { next: None },
        seimon_plan::WindowState::Frozen { reason, .. } => WindowState::Frozen { reason, until: None },
    }
}
