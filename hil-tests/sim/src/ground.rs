//! Everything that outlives a run of the agent: the world, the kernel, the disk, the clocks, and what lies in wait.

use std::collections::BTreeMap;

use seimon_board::Instant;
use seimon_core::health::FlowCount;
use seimon_core::migration::ZoneGroup;
use seimon_core::network_plan::NetworkPlan;
use seimon_plan::{GroupId, PathId, ZoneId};

use crate::border;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::gateway::{current_on, trial_on};
use crate::kernel::{Ask, Kernel, Memory, Way};
use crate::reference::{Reference, Wrong};
use crate::town::{Choices, ELSEWHERE, Town};
use crate::world::World;

/// The run of the agent is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Killed,
    PowerCut,
}

/// Parts of the gateway made wrong on purpose, to see that it is found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutation {
    #[default]
    None,
    /// Mechanisms of the migration, switched off.
    EgressVeto,
    WindowVeto,
    Rollback,
    Checkpoint,
    BlameService,
    /// The kernel is told before the disk.
    ActsFirst,
    /// The disk says that it has synced and has not.
    DiskLies,
    /// Clients do not keep their path.
    Affinity,
    /// Everything may leave by every path.
    Between,
    /// Zones reach each other.
    Zones,
    /// What was written down is not read.
    Forgets,
    /// Paths never count as down.
    Liveness,
    /// A path that lost one echo is dead, and one that answered one lives.
    Hasty,
    /// The table is not looked at again.
    Reobserve,
    /// The time is written down whether anybody vouches for it or not.
    WildClock,
    /// Records that another version wrote keep the agent from starting.
    Strict,
}

impl Mutation {
    /// All but [`Self::None`].
    pub const ALL: [Self; 16] = [
        Self::EgressVeto,
        Self::WindowVeto,
        Self::Rollback,
        Self::Checkpoint,
        Self::BlameService,
        Self::ActsFirst,
        Self::DiskLies,
        Self::Affinity,
        Self::Between,
        Self::Zones,
        Self::Forgets,
        Self::Liveness,
        Self::Hasty,
        Self::Reobserve,
        Self::WildClock,
        Self::Strict,
    ];
}

/// When something strikes, counted in checkpoints that the machines ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambush {
    pub checkpoint: u32,
    pub fault: Fault,
    pub moment: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Kill,
    PowerCut,
    DiskFull,
    /// Killed, and the journal is one that another version wrote.
    Older,
    Newer,
    /// Killed, and the wall clock is another by the time of the next start: three days and a half later, a year earlier.
    ClockAhead,
    ClockBack,
}

impl Fault {
    pub const ALL: [Self; 3] = [Self::Kill, Self::PowerCut, Self::DiskFull];
    pub const UPGRADES: [Self; 2] = [Self::Older, Self::Newer];
    pub const CLOCKS: [Self; 2] = [Self::ClockAhead, Self::ClockBack];

    /// Whether something may be half done when it strikes.
    pub const fn may_strike(self, moment: Moment) -> bool {
        match self {
            Self::Kill | Self::PowerCut => true,
            Self::DiskFull => matches!(moment, Moment::Before),
            Self::Older | Self::Newer | Self::ClockAhead | Self::ClockBack => {
                !matches!(moment, Moment::During)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Nothing is written.
    Before,
    /// A part is.
    During,
    /// It is on disk, and nobody has been told.
    After,
    /// The next act that touches the kernel is done, and nobody has been told.
    Acted,
}

impl Moment {
    pub const ALL: [Self; 4] = [Self::Before, Self::During, Self::After, Self::Acted];
}

/// How often a checkpoint was asked for, and for what.
#[derive(Clone, Debug, Default)]
pub struct Hazards {
    /// The agent is killed after so many further acts.
    pub kill_after: Option<u32>,
    pub ambush: Option<Ambush>,
    pub checkpoints: Vec<String>,
    pub armed: bool,
    pub struck: bool,
    /// What is to happen between the death of this run of the agent and the next one.
    pub aftermath: Option<Fault>,
    pub disk_full_until: u64,
}

/// Clocks: the true time is milliseconds since the schedule began.
#[derive(Clone, Debug)]
pub struct Clocks {
    pub wall_ms: i64,
    pub booted: u64,
    pub boots: u32,
    pub untrusted_until: u64,
    /// How wrong the wall clock is until then: a box without a battery, not yet told the time.
    pub off_by: i64,
}

impl Clocks {
    pub fn mono(&self, now: u64) -> Instant {
        Instant::from_millis(5_000 + now.saturating_sub(self.booted))
    }

    pub fn wall(&self, now: u64) -> i64 {
        let off_by = if now < self.untrusted_until { self.off_by } else { 0 };
        self.wall_ms.saturating_add(i64::try_from(now).unwrap_or(i64::MAX)).saturating_add(off_by)
    }
}

/// What is the same in all schedules of a town, worked out once.
#[derive(Debug, Default)]
pub struct Lore {
    pub memory: Memory,
    pub compiled: BTreeMap<Choices, NetworkPlan>,
    /// What was found wrong with a table, by its digest.
    pub judged: BTreeMap<u64, Vec<(String, String)>>,
}

#[derive(Debug)]
pub struct Ground<'t, 'l> {
    pub town: &'t Town,
    pub world: World<'t>,
    pub kernel: Kernel<'t>,
    pub disk: Disk,
    pub clocks: Clocks,
    pub hazards: Hazards,
    pub reference: Reference,
    pub lore: &'l mut Lore,
    pub mutation: Mutation,
    pub dice: Dice,
    /// Users' new flows since the gateway last counted.
    pub flows: BTreeMap<(ZoneId, GroupId, PathId), FlowCount>,
    pub now: u64,
    /// Changes of the kernel that the reference has been shown.
    pub shown: u64,
    /// What the gateway said, for people; `None`: nobody is listening.
    pub story: Option<Vec<String>>,
}

impl Ground<'_, '_> {
    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>8.1} s  {}", self.now as f64 / 1_000.0, what()));
        }
    }

    /// One more act: perhaps the last.
    pub fn act(&mut self) -> Result<(), Stop> {
        if self.disk.is_dark() {
            return Err(Stop::PowerCut);
        }
        if let Some(left) = &mut self.hazards.kill_after {
            if *left == 0 {
                self.hazards.kill_after = None;
                return Err(Stop::Killed);
            }
            *left -= 1;
        }
        Ok(())
    }

    /// Whether something lies in wait here; disarms it.
    pub fn strike(&mut self, moment: Moment) -> Result<(), Stop> {
        let here = self.hazards.armed && self.hazards.ambush.is_some_and(|ambush| ambush.moment == moment);
        let Some(ambush) = self.hazards.ambush.filter(|_| here) else { return Ok(()) };
        self.hazards.armed = false;
        self.hazards.struck = true;
        match ambush.fault {
            Fault::Kill => Err(Stop::Killed),
            Fault::PowerCut => Err(Stop::PowerCut),
            Fault::DiskFull => Ok(()),
            Fault::Older | Fault::Newer | Fault::ClockAhead | Fault::ClockBack => {
                self.hazards.aftermath = Some(ambush.fault);
                Err(Stop::Killed)
            }
        }
    }
}

impl Ground<'_, '_> {
    /// The paths of new flows that would do after a power cut at this instant.
    pub fn durable(&self, zone_group: &ZoneGroup) -> Vec<String> {
        current_on(self.disk.survivors(), zone_group.zone.as_str(), zone_group.group.as_str())
    }

    /// Shows the reference what the kernel would now do, if it may do something else than before.
    pub fn look(&mut self) {
        if self.shown == self.kernel.changes {
            return;
        }
        self.shown = self.kernel.changes;
        let wall_ms = self.clocks.wall(self.now);
        let may_begin = self.clocks.untrusted_until <= self.now && crate::reference::is_open(wall_ms);
        for (zone_group, (to, protocol, port)) in border::newcomers(self.town) {
            let (zone, group) = (zone_group.zone.clone(), zone_group.group.clone());
            let ask = Ask { zone: zone.clone(), host: ELSEWHERE, to, protocol, port, kept: Vec::new() };
            let number = self.town.allocation.zone_groups.get(&(zone.clone(), group.clone())).copied();
            let index = match self.kernel.answer(&mut self.lore.memory, &ask) {
                Way::Out { path, .. } => Some(path),
                Way::No | Way::Gateway | Way::Zone { .. } => {
                    number.and_then(|number| self.kernel.current(number))
                }
            };
            let Some(path) = index.and_then(|index| border::path_of(self.town, index)) else { continue };
            let disk = self.disk.clone();
            let durable = || current_on(disk.survivors(), zone.as_str(), group.as_str());
            let who = (zone.as_str(), group.as_str());
            self.reference.aims(self.now, who, path.as_str(), durable, may_begin);
            let ask = Ask { host: self.town.host(&zone, 0), ..ask };
            let index = match self.kernel.answer(&mut self.lore.memory, &ask) {
                Way::Out { path, .. } => Some(path),
                Way::No | Way::Gateway | Way::Zone { .. } => {
                    number.and_then(|number| self.kernel.current_of_the_few(number))
                }
            };
            let Some(path) = index.and_then(|index| border::path_of(self.town, index)) else { continue };
            let disk = self.disk.clone();
            let durable = || trial_on(disk.survivors(), zone.as_str(), group.as_str());
            self.reference.tries(self.now, who, path.as_str(), durable, may_begin);
        }
        self.patrol();
    }

    /// Sends every kind of packet, if the table is one that was never asked before.
    fn patrol(&mut self) {
        let digest = self.kernel.digest();
        if let Some(known) = self.lore.judged.get(&digest) {
            for (what, detail) in known.clone() {
                self.reference.complain(self.now, &what, detail);
            }
            return;
        }
        let mut found = Vec::new();
        let questions = border::questions(self.town);
        let asks: Vec<&Ask> = questions.iter().map(|(ask, _)| ask).collect();
        self.kernel.learn(&mut self.lore.memory, &asks);
        for (ask, target) in questions {
            self.reference.tally.questions += 1;
            let way = self.kernel.answer(&mut self.lore.memory, &ask);
            if let Err(what) = border::judge(self.town, self.reference.rules(), &ask, &target, &way) {
                found.push((what.to_owned(), format!("{ask:?} {target:?}: {way:?}")));
            }
        }
        for (what, detail) in &found {
            self.reference.complain(self.now, what, detail.clone());
        }
        self.lore.judged.insert(digest, found);
    }

    /// What the wall clock says where somebody vouches for it.
    pub fn vouch(&mut self) {
        if self.clocks.untrusted_until <= self.now {
            self.reference.vouched(self.clocks.wall(self.now));
        }
    }

    /// Tells the reference the truth.
    pub fn confess(&mut self) {
        let wrongs = self.town.plan.paths.keys().map(|path| {
            let truth = self.world.truth(path);
            let wrong = Wrong {
                dead: truth.dead,
                lossy: truth.lossy,
                ill: truth.ill.iter().map(|service| service.as_str().to_owned()).collect(),
                strange: truth.unregistered,
                lied_to: truth.lied_to,
            };
            (path.as_str().to_owned(), wrong)
        });
        let wrongs = wrongs.collect();
        self.reference.watch(self.now, &wrongs);
    }

    pub fn forgets(&mut self, zone_group: &ZoneGroup, path: &PathId) {
        let durable = self.durable(zone_group);
        let who = (zone_group.zone.as_str(), zone_group.group.as_str());
        self.reference.forgets(self.now, who, path.as_str(), &durable);
    }
}
