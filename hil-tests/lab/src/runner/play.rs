//! One scenario from beginning to end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use seimon_ipc::control::{self, Response, Status};

use super::administrator::{command, permitted_by};
use super::choice::Choice;
use super::control::{Follower, ask_within};
use super::metrics::{Measure, evaluate};
use super::plan_text::{board_file, plan_text};
use super::record::{Happened, LoadTrack, Record, first_entered, group_of};
use super::screen::{Screen, Snapshot};
use crate::result::{Check, Goal, Results};
use crate::scenario::{EventSpec, Moment, Scenario};
use crate::vocabulary::COMMANDS;
use crate::world::events::{OF_THE_CLOCK, OF_THE_DISK};
use crate::world::gateway::{GatewayConfig, MachineConfig, Trust};
use crate::world::{Happening, LoadHandle, Undo, World};

/// How long the agent may take until its control socket answers.
const READY: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(10);
/// Between two looks at the agent's status for the screen.
const LOOK: Duration = Duration::from_millis(1000);

/// What a run needs besides the scenario.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of `seimon-agent` and its fellows.
    pub bin_dir: PathBuf,
    /// Mechanisms switched off.
    pub without: Vec<String>,
    /// `lab` or `demo`: goes into the result.
    pub run: &'static str,
    /// Where to keep the agent's log; beside it, a machine's console.
    pub log: Option<PathBuf>,
    pub gateway: Choice,
}

/// A finished run.
#[derive(Debug)]
pub struct Played {
    pub results: Results,
    pub record: Record,
    /// The end of the agent's log.
    pub log: String,
}

/// Plays a scenario in the private world that this process is in.
///
/// # Errors
/// The town or the gateway could not be raised, or the plan is not to be had. What goes wrong later is in the record.
pub fn play(scenario: &Scenario, options: &Options, screen: &mut dyn Screen) -> Result<Played> {
    play_with(scenario, options, screen, &|_, _| Vec::new())
}

/// As [`play`]; `judge` adds checks of its own to the scenario's.
///
/// # Errors
/// As [`play`].
pub fn play_with(
    scenario: &Scenario,
    options: &Options,
    screen: &mut dyn Screen,
    judge: &dyn Fn(&Record, Measure<'_>) -> Vec<Check>,
) -> Result<Played> {
    if let Some(why) = options.gateway.unsuited(scenario, &options.without)? {
        bail!("{why}");
    }
    let plan = plan_text(&scenario.plan.file, &scenario.file, &[&scenario.plan.set])?;
    screen.note(Duration::ZERO, "raising the town");
    let world = World::raise(&scenario.topology, scenario.seed).context("the town could not be raised")?;
    if let Some(flows) = permitted_by(&plan) {
        world.permit(flows);
    }
    raise(&world, plan, options)?;
    let gateway = world.gateway()?;
    let happens = |names: &[&str]| scenario.events.iter().any(|event| names.contains(&event.what.as_str()));
    if happens(OF_THE_DISK) {
        gateway.use_own_disk()?;
    }
    if happens(OF_THE_CLOCK) {
        gateway.use_own_clock()?;
    }
    screen.note(Duration::ZERO, "starting the gateway");
    if let Err(error) = world.start_gateway(READY) {
        let log = gateway.log();
        let end: Vec<&str> = log.lines().rev().take(20).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        return Err(
            error.context(format!("the gateway did not get ready; its log ends:\n{}", end.join("\n")))
        );
    }
    let mut run = Run::begin(&world, scenario)?;
    while run.now() < scenario.duration {
        run.step(screen)?;
        std::thread::sleep(TICK);
    }
    run.finish(screen);
    let record = run.record();
    let measure = |name: &str, from, to| world.metric(name, from, to);
    let mut checks = judge(&record, &measure);
    checks.extend(evaluate(&scenario.expectations, &record, &measure));
    let log = gateway.log();
    if let Some(file) = &options.log {
        std::fs::write(file, &log).with_context(|| format!("{}", file.display()))?;
    }
    let mut results = Results::new(options.run, &scenario.name, scenario.seed, checks);
    results.gateway = Some(options.gateway.to_string());
    for failed in record.happened.iter().filter(|h| h.failed.is_some()) {
        let check = Check::number(format!("event.{}", failed.id), None, "0 or 1", Goal::Equal(1.0));
        results.checks.push(check.with_note(failed.failed.clone().unwrap_or_default()));
    }
    Ok(Played { results, record, log })
}

/// Gives the town its gateway, which is not started yet.
///
/// # Errors
/// A machine cannot be wired up or switched on.
pub fn raise(world: &World, plan: String, options: &Options) -> Result<()> {
    let clock_trusted = Trust::Trusted;
    match &options.gateway {
        Choice::Namespace => world.use_agent(GatewayConfig {
            agent: options.bin_dir.join("seimon-agent"),
            plan,
            board: board_file(),
            without: options.without.clone(),
            clock_trusted,
        }),
        Choice::Machine(how) => {
            let console = options.log.as_ref().map(|log| log.with_file_name("console.log"));
            let config = MachineConfig { how: how.as_ref().clone(), plan, clock_trusted, console };
            world.use_machine(config, &options.bin_dir.join("seimon-tunnel"))
        }
    }
}

struct Run<'a> {
    world: &'a World,
    scenario: &'a Scenario,
    start: Duration,
    follower: Follower,
    loads: BTreeMap<&'a str, Load>,
    /// By index into the scenario's events.
    happened: BTreeMap<usize, Happened>,
    undos: Vec<(Duration, usize, Undo)>,
    looked: Duration,
    status: Option<Status>,
    noted: usize,
}

enum Load {
    Running(LoadHandle),
    Over,
}

impl<'a> Run<'a> {
    fn begin(world: &'a World, scenario: &'a Scenario) -> Result<Self> {
        let begun = std::time::Instant::now();
        let offset = world.now();
        // The follower's thread must not borrow the world; both clocks are monotonic.
        let follower = Follower::start(world.gateway()?.control_socket(), move || offset + begun.elapsed())?;
        Ok(Self {
            world,
            scenario,
            start: world.now(),
            follower,
            loads: BTreeMap::new(),
            happened: BTreeMap::new(),
            undos: Vec::new(),
            looked: Duration::ZERO,
            status: None,
            noted: 0,
        })
    }

    fn now(&self) -> Duration {
        self.world.now().saturating_sub(self.start)
    }

    fn told(&self) -> Vec<(Duration, control::Event)> {
        // What was said before the start belongs to no moment of the scenario.
        self.follower
            .heard()
            .into_iter()
            .filter(|(at, _)| *at >= self.start)
            .map(|(at, event)| (at - self.start, event))
            .collect()
    }

    fn step(&mut self, screen: &mut dyn Screen) -> Result<()> {
        self.tend_loads()?;
        let told = self.told();
        self.report_told(&told, screen);
        let now = self.now();
        let mut due: Vec<(Duration, usize, Undo)> = Vec::new();
        self.undos.retain(|(at, index, undo)| {
            let is_due = *at <= now;
            if is_due {
                due.push((*at, *index, undo.clone()));
            }
            !is_due
        });
        for (_, index, undo) in due {
            self.take_back(index, undo, screen);
        }
        for (index, event) in self.scenario.events.iter().enumerate() {
            let Some(at) = self.due(index, event, &told) else { continue };
            if at <= self.now() && !self.happened.contains_key(&index) {
                self.perform(index, event, screen);
            }
        }
        if now.saturating_sub(self.looked) >= LOOK {
            self.looked = now;
            self.look(screen);
        }
        Ok(())
    }

    /// When the event is due, as far as is known by now.
    fn due(&self, index: usize, event: &EventSpec, told: &[(Duration, control::Event)]) -> Option<Duration> {
        match &event.when {
            Moment::At(at) => Some(*at),
            Moment::AfterEvent { id, plus } => {
                self.happened.values().find(|h| h.id == *id).map(|h| h.at + *plus)
            }
            Moment::AfterState { group, state, plus } => {
                // Only after the event before it in the file: a sequence reads as it is written.
                let since = match index.checked_sub(1) {
                    Some(before) => self.happened.get(&before)?.at,
                    None => Duration::ZERO,
                };
                first_entered(told, group, state, since).map(|at| at + *plus)
            }
        }
    }

    fn tend_loads(&mut self) -> Result<()> {
        let now = self.now();
        for spec in &self.scenario.loads {
            let begins = spec.from.unwrap_or_default();
            let ends = spec.to.unwrap_or(self.scenario.duration);
            match self.loads.get(spec.id.as_str()) {
                None if now >= begins => {
                    let handle = self
                        .world
                        .start_load(spec.clone())
                        .with_context(|| format!("load `{}` could not be started", spec.id))?;
                    self.loads.insert(&spec.id, Load::Running(handle));
                }
                Some(Load::Running(handle)) if now >= ends => {
                    self.world.stop_load(handle);
                    self.loads.insert(&spec.id, Load::Over);
                }
                None | Some(Load::Running(_) | Load::Over) => {}
            }
        }
        Ok(())
    }

    fn perform(&mut self, index: usize, event: &EventSpec, screen: &mut dyn Screen) {
        let at = self.now();
        let text = format!("{} {}", event.what, event.target.as_deref().unwrap_or(""));
        screen.note(at, &format!("▶ {}", text.trim_end()));
        let mut happened = Happened {
            id: event.id.clone(),
            what: event.what.clone(),
            target: event.target.clone(),
            at,
            until: None,
            command: None,
            failed: None,
        };
        let outcome = if COMMANDS.iter().any(|command| command.name == event.what) {
            command(self.world, self.scenario, event).map(|(code, said)| {
                if code != 0 {
                    for line in said.lines().filter(|l| !l.trim().is_empty()).take(6) {
                        screen.note(at, &format!("  {line}"));
                    }
                }
                happened.command = Some((code, said));
            })
        } else {
            let happening = Happening {
                what: event.what.clone(),
                target: event.target.clone(),
                keys: event.keys.clone(),
            };
            self.world.perform(&happening).map(|undo| {
                if let Some(lasts) = event.lasts {
                    self.undos.push((at + lasts, index, undo));
                }
            })
        };
        if let Err(error) = outcome {
            screen.note(at, &format!("  could not be done: {error:#}"));
            happened.failed = Some(format!("{error:#}"));
        }
        self.happened.insert(index, happened);
    }

    fn take_back(&mut self, index: usize, undo: Undo, screen: &mut dyn Screen) {
        let at = self.now();
        let outcome = self.world.undo(undo);
        if let Some(happened) = self.happened.get_mut(&index) {
            screen.note(at, &format!("◀ {} is over", happened.what));
            happened.until = Some(at);
            if let Err(error) = outcome {
                happened.failed = Some(format!("{error:#}"));
            }
        }
    }

    fn report_told(&mut self, told: &[(Duration, control::Event)], screen: &mut dyn Screen) {
        for (at, event) in told.iter().skip(self.noted) {
            if event.kind == "check" {
                continue;
            }
            let what = match (group_of(event), &event.to) {
                (Some(group), Some(to)) => format!("{group} → {to}"),
                (Some(group), None) => format!("{group} {}", event.kind),
                (None, to) => format!(
                    "{} {} {}",
                    event.kind,
                    event.path.as_ref().map(ToString::to_string).unwrap_or_default(),
                    to.clone().unwrap_or_default()
                ),
            };
            screen.note(*at, &format!("{}: {}", what.trim_end(), event.reason.en));
        }
        self.noted = told.len();
    }

    fn look(&mut self, screen: &mut dyn Screen) {
        let status = self.world.gateway().ok().and_then(|gateway| {
            ask_within(&gateway.control_socket(), control::Command::Status, gateway.patience()).ok()
        });
        self.status = match status {
            Some(Response::Status(status)) => Some(*status),
            _ => None,
        };
        let now = self.world.now();
        let second = Duration::from_secs(1);
        let loads: Vec<(String, f64, f64)> = self
            .scenario
            .loads
            .iter()
            .filter(|l| self.loads.contains_key(l.id.as_str()))
            .map(|load| {
                let read = |metric: &str, from| {
                    self.world.metric(&format!("{}.{metric}", load.id), from, now).unwrap_or(0.0)
                };
                (load.id.clone(), read("ok", now.saturating_sub(second)), read("errors", self.start))
            })
            .collect();
        let groups = self.status.as_ref().map(|s| s.groups.as_slice()).unwrap_or_default();
        screen.picture(&Snapshot { at: self.now(), of: self.scenario.duration, groups, loads: &loads });
    }

    fn finish(&mut self, screen: &mut dyn Screen) {
        self.look(screen);
        for load in self.loads.values() {
            if let Load::Running(handle) = load {
                self.world.stop_load(handle);
            }
        }
        let told = self.told();
        self.report_told(&told, screen);
    }

    fn record(&self) -> Record {
        let skip = usize::try_from(self.start.as_millis() / 100).unwrap_or(0);
        let loads = self
            .scenario
            .loads
            .iter()
            .map(|load| LoadTrack {
                id: load.id.clone(),
                zone: load.zone.clone(),
                kind: format!("{:?}", load.kind).to_lowercase(),
                buckets: self.world.series(&load.id).into_iter().skip(skip).collect(),
            })
            .collect();
        let mut happened: Vec<Happened> = self.happened.values().cloned().collect();
        happened.sort_by_key(|h| h.at);
        Record {
            start: self.start,
            end: self.scenario.duration,
            happened,
            told: self.told(),
            loads,
            status: self.status.clone(),
            usage: self.world.gateway().map(|g| g.usage()).unwrap_or_default(),
        }
    }
}
