//! A world for one machine: time, a disk that may refuse, a kernel that may refuse, and the promises that are checked at
//! every single action.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use seimon_board::Instant;
use seimon_core::health::{
    EgressVerdict, FlowCount, Liveness, PathFacts, ServiceFacts, ServiceVerdict, Stage,
};
use seimon_core::migration::{
    Action, BootId, Checkpoint, ClockTrust, Command, Config, DiskRoom, Event, Machine, Mechanisms, Notice,
    Passed, Saved, State, StateName, Switch, Veto, View, WindowState, ZoneGroup,
};
use seimon_plan::{GroupId, PathId, PlanDuration, ServiceId, Thresholds, Times, ZoneId};

pub(crate) fn path(id: &str) -> PathId {
    PathId::new(id).expect("an identifier")
}

pub(crate) fn service() -> ServiceId {
    ServiceId::new("saas").expect("an identifier")
}

pub(crate) fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// The demo's times: qualify 5 s, soak 8 s, drain 30 s, hold-down 10 s.
pub(crate) fn config(paths: &[&str]) -> Config {
    let plan = |s| PlanDuration(secs(s));
    Config {
        zone_group: ZoneGroup {
            zone: ZoneId::new("affairs").expect("an identifier"),
            group: GroupId::new("affairs").expect("an identifier"),
        },
        paths: paths.iter().map(|id| path(id)).collect(),
        emergency: Vec::new(),
        checked: BTreeSet::from([service()]),
        canary: None,
        times: Times { qualify: plan(5), soak: plan(8), drain: plan(30), hold_down: plan(10) },
        thresholds: Thresholds::default(),
        mechanisms: Mechanisms::default(),
    }
}

pub(crate) fn facts(verdict: ServiceVerdict) -> ServiceFacts {
    ServiceFacts {
        verdict,
        failing: (verdict == ServiceVerdict::Ill).then(|| (Stage::HttpStatus, "500".to_owned())),
        median: Some(Duration::from_millis(20)),
        ..ServiceFacts::default()
    }
}

pub(crate) fn good_path() -> PathFacts {
    PathFacts {
        liveness: Liveness::Up,
        ailment: None,
        loss: Some(0.0),
        round_trip: Some(Duration::from_millis(5)),
        egress: EgressVerdict::Registered,
        shared: false,
        services: BTreeMap::from([(service(), facts(ServiceVerdict::Well))]),
        clients: Some(0),
        flows: FlowCount::default(),
        usual_flows: None,
        bypassed: None,
    }
}

pub(crate) fn stranger() -> EgressVerdict {
    EgressVerdict::NotRegistered(BTreeSet::from([IpAddr::from([192, 0, 2, 99])]))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Works {
    Yes,
    No,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) machine: Machine,
    pub(crate) view: View,
    pub(crate) now: Instant,
    pub(crate) disk: Works,
    pub(crate) kernel_works: Works,
    /// The last checkpoint that was acknowledged, as text.
    pub(crate) durable: Option<String>,
    /// Which path new flows take.
    pub(crate) kernel: PathId,
    /// Which path those of the canary's clients take.
    pub(crate) trial: Option<PathId>,
    pub(crate) moves: Vec<(Instant, PathId)>,
    pub(crate) log: Vec<(Instant, Notice)>,
    pub(crate) kernel_actions: Vec<Action>,
}

impl World {
    pub(crate) fn new(paths: &[&str]) -> Self {
        Self::with(config(paths))
    }

    /// Two paths, and a canary of 20 s.
    pub(crate) fn with_canary() -> Self {
        Self::with(Config { canary: Some(secs(20)), ..config(&["closed", "direct"]) })
    }

    /// Two paths, and one mechanism switched off.
    pub(crate) fn without(mechanism: fn(&mut Mechanisms) -> &mut Switch) -> Self {
        let mut config = config(&["closed", "direct"]);
        *mechanism(&mut config.mechanisms) = Switch::Off;
        Self::with(config)
    }

    pub(crate) fn with(config: Config) -> Self {
        let now = Instant::from_millis(1_000_000);
        let view = View {
            disk: DiskRoom::Enough,
            window: WindowState::Open,
            clock: ClockTrust::Trusted,
            paths: config.paths.iter().chain(&config.emergency).map(|id| (id.clone(), good_path())).collect(),
            boot: BootId("boot-1".into()),
            wall_ms: 1_800_000_000_000,
        };
        let machine = Machine::new(config.clone(), &view, now).expect("a route");
        let kernel = config.paths[0].clone();
        let mut world = Self {
            config,
            machine,
            view,
            now,
            disk: Works::Yes,
            kernel_works: Works::Yes,
            durable: None,
            kernel,
            trial: None,
            moves: Vec::new(),
            log: Vec::new(),
            kernel_actions: Vec::new(),
        };
        world.settle();
        world
    }

    pub(crate) fn name(&self) -> StateName {
        self.machine.state().name()
    }

    pub(crate) fn path(&mut self, id: &str) -> &mut PathFacts {
        self.view.paths.get_mut(&path(id)).expect("a path of the world")
    }

    pub(crate) fn saas(&mut self, on: &str, verdict: ServiceVerdict) {
        self.path(on).services.insert(service(), facts(verdict));
    }

    /// What is known of the service over a path.
    pub(crate) fn known(&mut self, on: &str) -> &mut ServiceFacts {
        self.path(on).services.get_mut(&service()).expect("a service of the world")
    }

    pub(crate) fn command(&mut self, command: Command) -> Result<(), Vec<Veto>> {
        let outcome = self.machine.handle_command(command, &self.view, self.now);
        self.settle();
        outcome
    }

    pub(crate) fn start(&mut self) -> Result<(), Vec<Veto>> {
        self.command(Command::Start { to: None })
    }

    /// What a start is refused with.
    pub(crate) fn vetoed(&mut self) -> Vec<Veto> {
        self.start().expect_err("a veto")
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.machine.handle_event(event, &self.view, self.now);
        self.settle();
    }

    pub(crate) fn look(&mut self) {
        self.event(Event::FactsChanged);
    }

    /// One good check over every path.
    pub(crate) fn checks(&mut self, passed: Passed) {
        for id in self.config.paths.clone() {
            self.event(Event::Check { path: id, service: service(), passed });
        }
    }

    pub(crate) fn sleep(&mut self, span: Duration) {
        let end = self.now + span;
        let mut before = None;
        while let Some(due) = self.machine.poll_timeout().map(|(at, _)| at).filter(|&at| at <= end) {
            assert!(
                Some(due) != before && due > self.now || before.is_none(),
                "a timeout that does not advance"
            );
            before = Some(due);
            self.now = self.now.max(due);
            self.timeout();
        }
        self.now = end;
    }

    pub(crate) fn timeout(&mut self) {
        self.machine.handle_timeout(&self.view, self.now);
        assert!(
            self.machine.poll_timeout().is_none_or(|(at, _)| at > self.now),
            "the driver would spin in {:?}",
            self.machine.state()
        );
        self.settle();
    }

    /// Carries out all actions, checking the promises at each.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1_000 {
            let Some(action) = self.step() else { return };
            if let Some(event) = action {
                self.machine.handle_event(event, &self.view, self.now);
            }
        }
        panic!("the machine never comes to rest: {:?}", self.machine.state());
    }

    /// One action; the acknowledgement it calls for. `None`: there was none.
    pub(crate) fn step(&mut self) -> Option<Option<Event>> {
        let action = self.machine.poll_action()?;
        self.check_promises(&action);
        if action.touches_kernel() {
            self.kernel_actions.push(action.clone());
        }
        Some(match action {
            Action::WriteCheckpoint { id, checkpoint } => Some(match self.disk {
                Works::Yes => {
                    self.durable = Some(serde_json::to_string(&checkpoint).expect("serialisable"));
                    Event::CheckpointDurable { id }
                }
                Works::No => Event::CheckpointFailed { id, reason: "no space left on device".into() },
            }),
            Action::SetCurrent { id, path, trial, .. } => Some(match self.kernel_works {
                Works::Yes => {
                    if self.kernel != path {
                        self.moves.push((self.now, path.clone()));
                    }
                    self.kernel = path;
                    self.trial = trial;
                    Event::ChangeInForce { id }
                }
                Works::No => Event::ChangeFailed { id, reason: "EBUSY".into() },
            }),
            Action::ForceDrain { path, .. } | Action::AffinityDelete { path, .. } => {
                if let Some(facts) = self.view.paths.get_mut(&path) {
                    facts.clients = Some(0);
                }
                None
            }
            Action::Emit(notice) => {
                self.log.push((self.now, notice));
                None
            }
            Action::KillFlows { .. } | Action::Drain { .. } | Action::Probe { .. } => None,
        })
    }

    fn check_promises(&self, action: &Action) {
        let durable = self.on_disk();
        let context = || format!("{action:?}\nin {:?}\ndurable {durable:?}", self.machine.state());
        if action.touches_kernel() && self.config.mechanisms.checkpoint == Switch::On {
            let durable = durable.as_ref().unwrap_or_else(|| panic!("nothing on disk: {}", context()));
            let current = durable.state.current();
            match action {
                Action::SetCurrent { path, trial, .. } => {
                    assert_eq!(path, current, "not written first: {}", context());
                    let written = match &durable.state {
                        Saved::Canary { to, .. } => Some(to),
                        Saved::Steady { .. }
                        | Saved::Qualifying { .. }
                        | Saved::CuttingOver { .. }
                        | Saved::Soaking { .. }
                        | Saved::RollingBack { .. }
                        | Saved::Blocked { .. } => None,
                    };
                    assert_eq!(trial.as_ref(), written, "a trial not written first: {}", context());
                }
                Action::ForceDrain { path, .. }
                | Action::AffinityDelete { path, .. }
                | Action::KillFlows { path, .. } => {
                    assert_ne!(path, current, "ends flows on the path in use: {}", context());
                    assert_ne!(*path, self.kernel, "kill before rules: {}", context());
                    assert_ne!(Some(path), self.trial.as_ref(), "kill before rules: {}", context());
                }
                Action::WriteCheckpoint { .. }
                | Action::Drain { .. }
                | Action::Probe { .. }
                | Action::Emit(_) => {}
            }
        }
        if let Action::SetCurrent { path, trial, .. } = action {
            assert!(self.config.offers(path), "outside the route: {}", context());
            if self.config.is_emergency(path) && self.kernel != *path {
                let lives = |path| self.view.paths[path].liveness != Liveness::Down;
                let living = self.config.paths.iter().any(lives);
                assert!(!living, "an emergency line while another lives: {}", context());
            }
            let begins = trial.is_some() && *trial != self.trial;
            let path = trial.as_ref().unwrap_or(path);
            if self.name() == StateName::CuttingOver || begins {
                assert_eq!(self.view.window, WindowState::Open, "cut over outside the window: {}", context());
                assert_eq!(self.view.clock, ClockTrust::Trusted, "cut over by a bad clock: {}", context());
                let facts = &self.view.paths[path];
                assert_eq!(facts.egress, EgressVerdict::Registered, "cut over unregistered: {}", context());
                assert_eq!(facts.liveness, Liveness::Up, "cut over to a dead path: {}", context());
            }
        }
    }

    pub(crate) fn on_disk(&self) -> Option<Checkpoint> {
        self.durable.as_ref().map(|text| serde_json::from_str(text).expect("what was written can be read"))
    }

    /// `kill -9` and a restart, in the same boot or another. The kernel keeps what it has; the agent then compiles its
    /// plan with the restored machine's path.
    pub(crate) fn crash(&mut self, boot: &str) {
        self.view.boot = BootId(boot.into());
        self.machine = match self.on_disk() {
            Some(checkpoint) => {
                Machine::restore(self.config.clone(), &checkpoint, &self.view, self.now).expect("restorable")
            }
            None => Machine::new(self.config.clone(), &self.view, self.now).expect("a route"),
        };
    }

    /// Starts and cuts over; in Soaking when this returns.
    pub(crate) fn move_to_soaking(&mut self) {
        self.start().expect("no veto");
        self.qualify();
        assert_eq!(self.name(), StateName::Soaking);
    }

    /// Starts; in Canary when this returns.
    pub(crate) fn move_to_canary(&mut self) {
        self.start().expect("no veto");
        self.qualify();
        assert_eq!(self.name(), StateName::Canary);
    }

    /// Time to qualify, and good checks at the end of it.
    pub(crate) fn qualify(&mut self) {
        self.sleep(self.config.times.qualify.0);
        for _ in 0..self.config.thresholds.qualify_checks {
            self.checks(Passed::Yes);
        }
    }

    pub(crate) fn steady_on(&self, id: &str) -> bool {
        *self.machine.state() == State::Steady { path: path(id) } && self.kernel == path(id)
    }

    pub(crate) fn kernel_actions_named(&self, name: &str) -> usize {
        self.kernel_actions.iter().filter(|action| format!("{action:?}").starts_with(name)).count()
    }
}
