//! The agent: pure cores, the kernel, the children and the journal, wired to one loop.
//!
//! Everything happens on one thread. [`Agent::turn`] does what is due now; [`run`] waits for the next reason to turn.

mod beginning;
mod converging;
mod gate;

pub(crate) use self::beginning::{alone, health_config, register, restore_machines};
pub(crate) use self::gate::{close_unless_continuing, lockdown};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use jiff::civil::Date;
use seimon_board::{Board, Instant, InterfaceName};
use seimon_core::health::Health;
use seimon_core::migration::{BootId, DiskRoom, Machine, ZoneGroup};
use seimon_core::network_plan::Generation;
use seimon_dataplane::Linux;
use seimon_ipc::control::Bilingual;
use seimon_ipc::resolver::{ResolverConfig, ResolverStats};
use seimon_plan::{PathId, ServiceId, ValidSitePlan};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::beginning::trials_of;
use crate::acceptance::AcceptanceTest;
use crate::census::Census;
use crate::children::{Program, Supervised, beside};
use crate::cli;
use crate::clock::{self, Clock, Reading};
use crate::control;
use crate::events::{Events, Happening};
use crate::folders;
use crate::line_use::LineUseCount;
use crate::lookups::{Found, Lookups};
use crate::metering::Metering;
use crate::network::Network;
use crate::page::StatusPage;
use crate::panel::Panel;
use crate::plans::{self, LoadedPlan};
use crate::probing::Probing;
use crate::proxy::ProxyWatch;
use crate::sabotage::Sabotage;
use crate::store::Store;

/// Counting flows and affinity, judging windows, feeding the watchdog.
const HOUSEKEEPING: Duration = Duration::from_millis(500);
/// The same while nothing moves. (Flows are counted less often still: see [`Census::is_due`].)
const HOUSEKEEPING_AT_REST: Duration = Duration::from_secs(2);
/// Foreign changes come in bursts; this long after the first, one look.
const SETTLE: Duration = Duration::from_millis(2);
/// Taken at a time, so that most events cost no write.
const EVENT_NUMBERS: u64 = 10_000;
const CLOCK_FLOOR_EVERY: Duration = Duration::from_secs(3600);

/// How far the probe has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeState {
    Off,
    Greeted,
    Ready,
}

#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) board: Board,
    pub(crate) panel: Panel,
    pub(crate) executable: PathBuf,
    pub(crate) sabotage: Sabotage,
    pub(crate) clock: Clock,
    pub(crate) boot: BootId,
    pub(crate) store: Store,
    pub(crate) loaded: LoadedPlan,
    pub(crate) command_line_digest: u64,
    pub(crate) network: Network,
    pub(crate) health: Health,
    pub(crate) machines: BTreeMap<ZoneGroup, Machine>,
    pub(crate) census: Census,
    pub(crate) line_use: LineUseCount,
    pub(crate) metering: Metering,
    pub(crate) proxy: ProxyWatch,
    pub(crate) acceptance: AcceptanceTest,
    pub(crate) page: StatusPage,
    pub(crate) probing: Probing,
    pub(crate) probe: Supervised,
    pub(crate) probe_state: ProbeState,
    pub(crate) resolver: Supervised,
    pub(crate) resolver_program: Option<Program>,
    pub(crate) resolver_config: Option<ResolverConfig>,
    /// Something happened that its configuration may depend on.
    pub(crate) resolver_outdated: bool,
    pub(crate) resolver_stats: ResolverStats,
    pub(crate) events: Events,
    pub(crate) converge_at: Option<Instant>,
    pub(crate) housekeeping_at: Instant,
    pub(crate) clock_floor_at: Instant,
    pub(crate) day: Option<Date>,
    /// As last looked at.
    pub(crate) disk: DiskRoom,
    pub(crate) announced: bool,
    /// What keeps the kernel from being as planned, as people were told.
    pub(crate) trouble: Option<String>,
    /// Uplinks that do not exist, as last told.
    pub(crate) missing: Vec<InterfaceName>,
    /// Tunnels that cannot be had, as last told.
    pub(crate) unusable: BTreeMap<InterfaceName, String>,
    pub(crate) lookups: Lookups,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(args: cli::Run) -> Result<()> {
    std::fs::create_dir_all(&args.runtime_dir).with_context(|| format!("{}", args.runtime_dir.display()))?;
    // Before anything is touched that another agent may be using.
    let _alone =
        if Sabotage::from_args(&args)?.off("alone") { None } else { Some(alone(&args.runtime_dir)?) };
    close_unless_continuing(&mut Linux::open()?)?;
    let put_right = folders::state(&args.state_dir)?;
    let (mut agent, mut far_ends) = Agent::new(&args, put_right)?;
    let control_socket = control::listen(&args.runtime_dir.join("control.sock"))?;
    let (requests, mut incoming) = mpsc::channel(16);
    let (metrics_requests, mut metrics) = mpsc::channel(4);
    tokio::task::spawn_local(control::serve(control_socket, requests, agent.events.feed()));
    let metrics_socket = control::listen(&args.runtime_dir.join("metrics.sock"))?;
    tokio::task::spawn_local(control::serve_metrics(metrics_socket, metrics_requests));
    let mut watch = register(agent.network.dataplane().watch()?)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let now = agent.clock.now();
        agent.turn(now);
        let wait = agent.next_turn().map_or(HOUSEKEEPING, |at| at.since(clock::monotonic()));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = agent.resolver.ready() => {}
            () = agent.probe.ready() => {}
            () = agent.page.server.ready() => {}
            ready = watch.readable_mut() => {
                let mut ready = ready.context("the kernel's notifications")?;
                let news = ready.get_inner_mut().events();
                ready.clear_ready();
                agent.hear(&news);
            }
            Some(request) = incoming.recv() => {
                let response = agent.answer(request.command);
                // A peer that has hung up does not want the answer any more.
                let _hung_up = request.answer.send(response);
            }
            Some(found) = far_ends.recv() => agent.hear_of_far_end(found),
            Some(answer) = metrics.recv() => {
                let _hung_up = answer.send(agent.metrics());
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    agent.stop()
}

impl Agent {
    fn new(args: &cli::Run, put_right: Option<Bilingual>) -> Result<(Self, mpsc::Receiver<Found>)> {
        let sabotage = Sabotage::from_args(args)?;
        let (store, notes) = Store::open(&args.state_dir, &clock::machine_id(), &sabotage)?;
        let floor = store.clock_floor().filter(|_| !sabotage.off("clock-floor"));
        let clock = Clock::new(Some(&args.clock_trust_file), floor);
        let now = clock.now();
        let board = plans::load_board(&args.board)?;
        let load =
            |bytes: &[u8], file: &str, folder: &std::path::Path| plans::load(bytes, file, folder, &board);
        let chosen = plans::choose(args, store.plan(), load)?;
        let boot = BootId(clock::boot_id());
        let mut events = Events::new(store.event_numbers());
        let of_plan = chosen.notes.into_iter().map(|note| Bilingual { ja: note.clone(), en: note });
        for reason in put_right.into_iter().chain(notes).chain(of_plan) {
            events.record(Happening { kind: "agent", reason, ..Happening::default() }, now);
        }
        let loaded = chosen.loaded;
        let generation =
            Generation(store.plan().map_or(0, |plan| plan.generation.0) + u64::from(chosen.is_new));
        let mechanisms = sabotage.mechanisms();
        let (machines, choices, restored) =
            restore_machines(&loaded.plan, mechanisms, |zg| store.checkpoint(zg).cloned(), &boot, now);
        for happening in restored {
            events.record(happening, now);
        }
        let allocation = store.allocation();
        let mut network = Network::new(
            Linux::open()?,
            loaded.plan.clone(),
            &allocation,
            choices,
            Generation(generation.0.max(1)),
            now.calendar,
            sabotage.clone(),
        )?;
        network.keep_keys_in(&args.state_dir);
        network.set_trials(trials_of(&machines));
        network.adopt()?;
        let health = Health::new(health_config(&loaded.plan, &sabotage), now.mono);
        let executable = std::env::current_exe().context("own path")?;
        let tunnel = beside(&executable, "seimon-tunnel");
        network.dataplane().carry_tunnels_with(&tunnel);
        let (lookups, far_ends) = Lookups::new(&tunnel);
        let line_use = LineUseCount::of(store.line_days());
        let metering = Metering::of(store.meter());
        let mut agent = Self {
            panel: Panel::of(&board),
            board,
            executable,
            sabotage,
            clock,
            boot,
            store,
            command_line_digest: chosen.command_line_digest,
            network,
            health,
            machines,
            census: Census::default(),
            line_use,
            metering,
            proxy: ProxyWatch::default(),
            acceptance: AcceptanceTest::new(args.state_dir.clone()),
            page: StatusPage::new(),
            probing: Probing::default(),
            probe: Supervised::new("seimon-probe"),
            probe_state: ProbeState::Off,
            resolver: Supervised::new("seimon-resolver"),
            resolver_program: None,
            resolver_config: None,
            resolver_outdated: true,
            resolver_stats: ResolverStats::default(),
            events,
            converge_at: Some(now.mono),
            housekeeping_at: now.mono,
            clock_floor_at: now.mono,
            day: None,
            disk: DiskRoom::default(),
            announced: false,
            trouble: None,
            missing: Vec::new(),
            unusable: BTreeMap::new(),
            lookups,
            loaded,
        };
        // Numbers are on disk before the kernel hears of them.
        agent.store.save_allocation(agent.network.allocation())?;
        // Left over from a run before this one; their far ends are gone or going.
        agent.network.remove_probe_links()?;
        Ok((agent, far_ends))
    }

    /// Does everything that is due.
    fn turn(&mut self, now: Reading) {
        self.listen_to_children(now);
        if self.converge_at.is_some_and(|at| at <= now.mono) {
            self.converge(now);
        }
        if !self.announced {
            self.number_events();
        }
        if self.announced {
            self.tend_children(now);
            self.examine(now);
            if self.housekeeping_at <= now.mono {
                let pause = if self.is_at_rest() { HOUSEKEEPING_AT_REST } else { HOUSEKEEPING };
                self.housekeeping_at = now.mono + pause;
                self.keep_house(now);
            }
            self.drive_machines(now);
            self.drive_acceptance(now);
            self.show_page(now);
            self.show_pacs(now);
            if self.resolver_outdated {
                self.resolver_outdated = false;
                self.tell_resolver(now);
            }
            self.flush_children(now);
        }
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        self.machines.values().all(|machine| !machine.state().is_moving()) && !self.network.is_rotating()
    }

    fn next_turn(&self) -> Option<Instant> {
        if !self.announced {
            return self.converge_at;
        }
        let machines = self.machines.values().filter_map(Machine::poll_timeout).map(|(at, _)| at).min();
        let examine = if self.probe_state == ProbeState::Ready { self.health.poll_timeout() } else { None };
        [
            self.converge_at,
            Some(self.housekeeping_at),
            machines,
            examine,
            self.probing.poll_timeout(),
            self.probe.start_due(),
            self.resolver.start_due(),
            self.page.server.start_due(),
            self.acceptance.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Somebody changed something in the kernel.
    fn hear(&mut self, news: &[seimon_dataplane::Event]) {
        if news.is_empty() || self.sabotage.off("reobserve") {
            return;
        }
        tracing::debug!(?news, "somebody changed the network");
        let soon = clock::monotonic() + SETTLE;
        self.converge_at = Some(self.converge_at.map_or(soon, |at| at.min(soon)));
    }

    /// Numbers are not used again after a restart.
    pub(crate) fn number_events(&mut self) {
        if self.events.next() + EVENT_NUMBERS / 2 > self.store.event_numbers() {
            let taken = self.events.next() + EVENT_NUMBERS;
            if let Err(error) = self.store.take_event_numbers(taken) {
                tracing::debug!(error = format!("{error:#}"), "the events' numbers were not written down");
            }
        }
    }

    pub(crate) fn note(&mut self, kind: &'static str, ja: String, en: String, now: Reading) {
        self.events.record(Happening { kind, reason: Bilingual { ja, en }, ..Happening::default() }, now);
    }

    pub(crate) fn resolver_executable(&self) -> PathBuf {
        beside(&self.executable, "seimon-resolver")
    }

    pub(crate) fn probe_executable(&self) -> PathBuf {
        beside(&self.executable, "seimon-probe")
    }

    /// SIGTERM: nothing is forwarded any more; affinity, conntrack and addresses stay for the next start.
    fn stop(mut self) -> Result<()> {
        let now = self.clock.now();
        self.write_line_use(now);
        self.meter_lines(crate::metering::Write::Everything, now);
        self.note(
            "agent",
            "停止します。通信は閉じます。".to_owned(),
            "stopping; forwarding is closed".to_owned(),
            now,
        );
        lockdown(self.network.dataplane())
    }
}

/// PEM text of the authorities that services' health checks trust, by service.
pub(crate) type Authorities = BTreeMap<ServiceId, String>;

/// Paths that the gateway's own traffic may use, best first.
pub(crate) fn gateway_paths(plan: &ValidSitePlan) -> impl Iterator<Item = &PathId> {
    plan.gateway.paths.iter()
}

/// The date at the site.
pub(crate) fn today(plan: &ValidSitePlan, wall: Timestamp) -> Date {
    wall.to_zoned(plan.time_zone().clone()).date()
}

pub(crate) const fn clock_floor_every() -> Duration {
    CLOCK_FLOOR_EVERY
}
