//! One schedule, from the first packet to rest.

use seimon_core::migration::{Command, State, ZoneGroup};
use seimon_plan::{GroupId, PathId, ZoneId};

use crate::dice::Dice;
use crate::disk::{Disk, Mood};
use crate::gateway::{Gateway, NotStarted, rewrite, time_on};
use crate::ground::{Ambush, Clocks, Fault, Ground, Hazards, Lore, Mutation, Stop};
use crate::kernel::Kernel;
use crate::people::People;
use crate::reference::{Able, Reference, Rules, Tally, Violation};
use crate::schedule::{Happening, OPEN, Schedule};
use crate::town::{DRAIN_MS, IDLE_MS, Town};
use crate::versions::Writer;
use crate::world::World;

const TICK: u64 = 100;
/// What the kernel refused at the very end is tried again within a second.
const SHORTEST_REST: u64 = 2_000;
/// All hold-downs are over by then.
const LONGEST_REST: u64 = 1_500_000;
const RESTART: u64 = 500;
/// A clock that is wrong when all else is well again is put right after so long.
const CLOCK_MENDED: u64 = 60_000;
const WEEK: i64 = 7 * 86_400_000;
const IN_TWO_YEARS: i64 = 105 * WEEK;

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    pub tally: Tally,
    /// Every checkpoint that was asked for, in order.
    pub checkpoints: Vec<String>,
    /// Whether the ambush came to pass.
    pub struck: bool,
    pub took_ms: u64,
    /// What the gateway said and what happened, where somebody was listening.
    pub story: Vec<String>,
}

/// Whether the story is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    Nobody,
    Somebody,
}

/// Plays schedules of one town, and remembers what does not change from one to the next.
#[derive(Debug)]
pub struct Player<'t> {
    town: &'t Town,
    lore: Lore,
}

impl<'t> Player<'t> {
    pub fn new(town: &'t Town) -> Self {
        Self { town, lore: Lore::default() }
    }

    pub fn play(&mut self, schedule: &Schedule, mutation: Mutation, ambush: Option<Ambush>) -> Outcome {
        self.play_to(schedule, mutation, ambush, Listener::Nobody)
    }

    pub fn play_to(
        &mut self,
        schedule: &Schedule,
        mutation: Mutation,
        ambush: Option<Ambush>,
        listener: Listener,
    ) -> Outcome {
        let mut dice = Dice::new(schedule.seed);
        let people = People::new(self.town, dice.split());
        let ground = Ground {
            town: self.town,
            world: World::new(self.town, dice.split()),
            kernel: Kernel::new(self.town),
            disk: Disk::default(),
            clocks: Clocks { wall_ms: schedule.wall_ms, booted: 0, boots: 1, untrusted_until: 0, off_by: 0 },
            hazards: Hazards { ambush, ..Hazards::default() },
            reference: Reference::new(Rules::of(&self.town.plan), DRAIN_MS, IDLE_MS),
            lore: &mut self.lore,
            mutation,
            dice,
            flows: std::collections::BTreeMap::new(),
            now: 0,
            shown: u64::MAX,
            story: (listener == Listener::Somebody).then(Vec::new),
        };
        if mutation == Mutation::DiskLies {
            ground.disk.set_mood(Mood::Lying);
        }
        let mut stage = Stage {
            ground,
            people,
            gateway: None,
            start_at: 0,
            able_since: 0,
            power_back_at: None,
            clock_struck: None,
        };
        stage.run(schedule);
        let Stage { ground, .. } = stage;
        Outcome {
            violations: ground.reference.violations,
            tally: ground.reference.tally,
            checkpoints: ground.hazards.checkpoints,
            struck: ground.hazards.struck,
            took_ms: ground.now,
            story: ground.story.unwrap_or_default(),
        }
    }
}

struct Stage<'t, 'l> {
    ground: Ground<'t, 'l>,
    people: People,
    gateway: Option<Gateway>,
    start_at: u64,
    /// Since then the gateway could do what it wanted.
    able_since: u64,
    power_back_at: Option<u64>,
    /// When the wall clock was last made another between two runs.
    clock_struck: Option<u64>,
}

impl Stage<'_, '_> {
    fn run(&mut self, schedule: &Schedule) {
        let mut left = schedule.happenings.iter().peekable();
        while self.ground.now < schedule.length_ms && self.ground.reference.violations.is_empty() {
            while let Some(timed) = left.next_if(|timed| timed.at_ms <= self.ground.now) {
                self.happen(&timed.what);
            }
            self.tick();
        }
        self.judge_time();
        self.heal(schedule);
        let (earliest, end) = (self.ground.now + SHORTEST_REST, self.ground.now + LONGEST_REST);
        while self.ground.reference.violations.is_empty()
            && (self.ground.now < earliest || !self.is_at_rest())
        {
            if self.ground.now >= end {
                let tell = |(zone_group, machine): (&ZoneGroup, &seimon_core::migration::Machine)| {
                    let settled = if machine.is_settled() { "settled" } else { "not settled" };
                    format!("{zone_group} {:?}, home {}, {settled}", machine.state(), machine.home())
                };
                let states: Vec<String> = self.gateway.iter().flat_map(Gateway::machines).map(tell).collect();
                self.ground.reference.complain(end, "does not come to rest", states.join("; "));
                return;
            }
            self.resume();
            if self.clock_struck.is_some_and(|at| at + CLOCK_MENDED <= self.ground.now) {
                self.put_clock_right(schedule);
            }
            self.tick();
        }
        self.judge_rest();
    }

    /// Nobody hesitates for ever.
    fn resume(&mut self) {
        let machines = self.gateway.iter().flat_map(Gateway::machines);
        let paused: Vec<ZoneGroup> = machines
            .filter(|(_, m)| m.state().is_paused())
            .map(|(zone_group, _)| zone_group.clone())
            .collect();
        for zone_group in paused {
            self.command(zone_group.zone.as_str(), zone_group.group.as_str(), Command::Resume);
        }
    }

    fn tick(&mut self) {
        let now = self.ground.now + TICK;
        self.ground.now = now;
        self.ground.kernel.now = now;
        self.ground.world.advance(now);
        self.ground.vouch();
        if self.ground.hazards.disk_full_until != 0 && self.ground.hazards.disk_full_until <= now {
            self.ground.hazards.disk_full_until = 0;
            self.set_mood(Mood::Well);
            self.able_since = now;
        }
        if self.power_back_at.is_some_and(|at| at <= now) {
            self.power_back_at = None;
            self.ground.clocks.booted = now;
            self.ground.clocks.boots += 1;
            self.ground.clocks.untrusted_until = self.ground.clocks.untrusted_until.max(now + 5_000);
            let decades = 20 * 365 * 86_400_000;
            let off_by = self.ground.dice.of(&[0, decades, -decades]).copied();
            self.ground.clocks.off_by = off_by.unwrap_or_default();
            self.start_at = now + 1_000;
        }
        if now.is_multiple_of(500) {
            self.ground.confess();
        }
        if self.ground.kernel.refusals > 0 {
            // It refuses when it is asked, which may be much later than it was made to.
            self.ground.reference.hindered(now);
        }
        match &mut self.gateway {
            Some(gateway) => {
                if let Err(stop) = gateway.turn(&mut self.ground) {
                    self.stop(stop);
                }
            }
            None if self.power_back_at.is_none() && self.start_at <= now => self.start(),
            None => {}
        }
        self.people.turn(&mut self.ground, self.gateway.as_mut());
        if now.is_multiple_of(1_000) {
            self.ground.look();
            let able = match &self.gateway {
                Some(gateway) => Able::Since(gateway.started.max(self.able_since)),
                None => Able::No,
            };
            let able = if self.ground.hazards.disk_full_until == 0 && self.ground.kernel.refusals == 0 {
                able
            } else {
                Able::No
            };
            self.ground.reference.must_act(now, able);
        }
    }

    fn start(&mut self) {
        match Gateway::start(&mut self.ground) {
            Ok(gateway) => self.gateway = Some(gateway),
            Err(NotStarted::Stopped(stop)) => self.stop(stop),
            Err(NotStarted::DiskRefuses | NotStarted::KernelRefuses) => {
                self.start_at = self.ground.now + 1_000;
            }
        }
    }

    fn stop(&mut self, stop: Stop) {
        self.gateway = None;
        self.ground.tell(|| format!("--- {stop:?}"));
        let now = self.ground.now;
        self.judge_time();
        match stop {
            // A write that was cut short by the death of its process stays as it is.
            Stop::Killed => {
                self.ground.disk.process_died();
                self.ground.reference.crashed(now, false);
                self.aftermath();
                self.start_at = now + RESTART;
            }
            Stop::PowerCut => {
                let mut dice = self.ground.dice.split();
                self.ground.disk.power_comes_back(&mut dice);
                self.ground.kernel.reboot();
                self.ground.shown = u64::MAX;
                self.ground.reference.crashed(now, true);
                self.power_back_at = Some(now + dice.between(1_000, 20_000));
                self.ground.hazards.kill_after = None;
            }
        }
    }

    fn judge_time(&mut self) {
        let written = time_on(self.ground.disk.survivors());
        self.ground.reference.keeps_time(self.ground.now, written);
    }

    /// What is otherwise when the agent is started again.
    fn aftermath(&mut self) {
        let (later, earlier) = (84 * 3_600_000, 400 * 86_400_000);
        if matches!(self.ground.hazards.aftermath, Some(Fault::ClockAhead | Fault::ClockBack)) {
            self.clock_struck = Some(self.ground.now);
        }
        let clocks = &mut self.ground.clocks;
        match self.ground.hazards.aftermath.take() {
            Some(Fault::Older) => rewrite(&self.ground.disk, Writer::Older),
            Some(Fault::Newer) => rewrite(&self.ground.disk, Writer::Newer),
            Some(Fault::ClockAhead) => clocks.wall_ms = clocks.wall_ms.saturating_add(later),
            Some(Fault::ClockBack) => clocks.wall_ms = clocks.wall_ms.saturating_sub(earlier),
            Some(Fault::Kill | Fault::PowerCut | Fault::DiskFull) | None => {}
        }
    }

    fn set_mood(&self, mood: Mood) {
        if self.ground.mutation != Mutation::DiskLies {
            self.ground.disk.set_mood(mood);
        }
    }

    fn happen(&mut self, what: &Happening) {
        let now = self.ground.now;
        self.ground.tell(|| format!("--- {what:?}"));
        self.ground.world.happen(what);
        self.ground.confess();
        match what {
            Happening::Start { zone, group, to } => {
                let to = to.as_deref().and_then(|to| PathId::new(to).ok());
                self.command(zone, group, Command::Start { to });
            }
            Happening::Pause { zone, group } => self.command(zone, group, Command::Pause),
            Happening::Resume { zone, group } => self.command(zone, group, Command::Resume),
            Happening::RollBack { zone, group } => self.command(zone, group, Command::Rollback),
            Happening::Kill { acts } => self.ground.hazards.kill_after = Some(*acts),
            Happening::PowerCut { bytes: 0 } => self.stop(Stop::PowerCut),
            Happening::PowerCut { bytes } => self.ground.disk.light_fuse(*bytes),
            Happening::DiskFull { for_ms } => {
                self.set_mood(Mood::Full);
                self.ground.reference.hindered(now + for_ms);
                self.ground.hazards.disk_full_until = now + for_ms;
            }
            Happening::KernelRefuses { changes } => {
                self.ground.kernel.refusals += changes;
                self.ground.reference.expect_moves(2);
                self.able_since = now + 10_000;
            }
            Happening::Flush => {
                self.ground.kernel.flush();
                self.ground.reference.lost_state(now);
                self.ground.reference.expect_moves(2);
            }
            Happening::ClockJumps { by_ms } => {
                self.ground.clocks.wall_ms = self.ground.clocks.wall_ms.saturating_add(*by_ms);
                self.ground.vouch();
            }
            Happening::ClockUntrusted { for_ms } => {
                self.ground.clocks.untrusted_until = now + for_ms;
            }
            Happening::Upgrade { journal } => {
                self.ground.hazards.aftermath = Some(match journal {
                    Writer::Older => Fault::Older,
                    Writer::Newer => Fault::Newer,
                });
                // A box that is off or dark is not upgraded.
                if self.power_back_at.is_none() && !self.ground.disk.is_dark() {
                    self.stop(Stop::Killed);
                } else {
                    self.ground.hazards.aftermath = None;
                }
            }
            Happening::Rush { for_ms } => self.people.rush_until = now + for_ms,
            // Up to two moves, there and back, for what lasts; a line that flaps is held down longer each time.
            Happening::LineFlaps { .. } => self.ground.reference.expect_moves(16),
            Happening::LineLoses { .. } => self.ground.reference.expect_moves(12),
            Happening::LineDies { .. }
            | Happening::IllOnPath { .. }
            | Happening::IllEverywhere { .. }
            | Happening::EgressChanges { .. }
            | Happening::ResolverLies { .. } => self.ground.reference.expect_moves(4),
        }
    }

    fn command(&mut self, zone: &str, group: &str, command: Command) {
        let (Ok(zone_id), Ok(group_id)) = (ZoneId::new(zone), GroupId::new(group)) else { return };
        let Some(gateway) = &mut self.gateway else { return };
        let zone_group = ZoneGroup { zone: zone_id, group: group_id };
        let asked = match &command {
            Command::Start { to } => {
                let last = || self.ground.town.plan.route(&zone_group.zone, &zone_group.group)?.paths.last();
                to.clone().or_else(|| last().cloned())
            }
            Command::Pause | Command::Resume | Command::Rollback => None,
        };
        let back = command == Command::Rollback;
        // Before: the gateway acts at once, and what it does is then judged with this in mind.
        if back {
            self.ground.reference.asked_back(zone, group);
        }
        match gateway.command(&zone_group, command, &mut self.ground) {
            Ok(true) => {
                if let Some(to) = asked {
                    self.ground.reference.asked(zone, group, to.as_str());
                }
            }
            Ok(false) => {}
            // Whether it was agreed to before the end, nobody was told; it may go on after.
            Err(stop) => {
                if let Some(to) = asked {
                    self.ground.reference.asked(zone, group, to.as_str());
                }
                self.stop(stop);
            }
        }
    }

    fn heal(&mut self, schedule: &Schedule) {
        let now = self.ground.now;
        self.ground.tell(|| "--- all is well again".to_owned());
        self.ground.world.heal();
        self.ground.kernel.refusals = 0;
        self.ground.hazards.disk_full_until = 0;
        self.ground.hazards.kill_after = None;
        self.set_mood(Mood::Well);
        self.able_since = now;
        self.people.rush_until = 0;
        self.ground.clocks.untrusted_until = 0;
        self.put_clock_right(schedule);
        if self.ground.disk.is_dark() {
            self.stop(Stop::PowerCut);
        }
        self.ground.disk.remove_fuse();
        for route in self.ground.town.plan.routes() {
            let (zone, group) = (route.zone.as_str().to_owned(), route.group.as_str().to_owned());
            self.command(&zone, &group, Command::Resume);
        }
    }

    /// A canary waits for the next window: two years later, on a Saturday evening, later than any clock has jumped. (A time that
    /// somebody once vouched for is not gone back behind.)
    fn put_clock_right(&mut self, schedule: &Schedule) {
        let before = self.ground.clocks.wall_ms;
        self.clock_struck = None;
        let mut wall_ms = OPEN.max(schedule.wall_ms) + IN_TWO_YEARS;
        wall_ms -= (wall_ms - OPEN) % WEEK;
        while wall_ms < before {
            wall_ms += WEEK;
        }
        self.ground.clocks.wall_ms = wall_ms;
        self.ground.vouch();
    }

    fn is_at_rest(&self) -> bool {
        let Some(gateway) = &self.gateway else { return false };
        gateway.machines().all(|(_, machine)| {
            let State::Steady { path } = machine.state() else { return false };
            path == machine.home() && machine.is_settled()
        })
    }

    fn judge_rest(&mut self) {
        if !self.ground.reference.violations.is_empty() {
            return;
        }
        self.ground.look();
        let now = self.ground.now;
        let Some(gateway) = &self.gateway else { return };
        if !gateway.is_in_order(&mut self.ground) {
            self.ground.reference.complain(now, "at rest, and the kernel is not as planned", String::new());
        }
        for (zone_group, _) in gateway.machines() {
            let durable = self.ground.durable(zone_group);
            let (zone, group) = (zone_group.zone.as_str(), zone_group.group.as_str());
            self.ground.reference.rests(now, zone, group, &durable);
        }
    }
}
