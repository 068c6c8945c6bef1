//! The agent as a hub: the far end of the schools' tunnels. The same journal, sockets, kernel and supervision of the tunnel's
//! process as at a school; nothing moves here, so there are no probes and no machines.

mod metrics;
mod network;
mod requests;
mod whereabouts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use seimon_board::{Board, Instant};
use seimon_core::network_plan::Generation;
use seimon_dataplane::Linux;
use seimon_ipc::control::Bilingual;
use seimon_plan::ValidHubPlan;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::network::HubNetwork;
use crate::agent::{alone, close_unless_continuing, lockdown, register};
use crate::children::beside;
use crate::cli;
use crate::clock::{self, Clock, Reading};
use crate::control;
use crate::events::{Events, Happening};
use crate::folders;
use crate::network::Convergence;
use crate::plans;
use crate::sabotage::Sabotage;
use crate::store::{Store, StoredPlan};

/// Looking at the kernel although nobody said that anything changed.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// After a converge that failed; and while the tunnel cannot be had.
const RETRY: Duration = Duration::from_secs(1);
/// Foreign changes come in bursts; this long after the first, one look.
const SETTLE: Duration = Duration::from_millis(2);
/// Who was heard, the watchdog, the clock.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// While a school may change its key: its packets are lost until the hub has seen it.
const CHANGING: Duration = Duration::from_millis(250);
/// Taken at a time, so that most events cost no write.
const EVENT_NUMBERS: u64 = 10_000;
const CLOCK_FLOOR_EVERY: Duration = Duration::from_secs(3600);

/// A hub plan with its text.
#[derive(Clone, Debug)]
struct Loaded {
    plan: ValidHubPlan,
    toml: String,
    file: String,
    folder: PathBuf,
}

fn load(bytes: &[u8], file: &str, folder: &Path, board: &Board) -> Result<Loaded> {
    let plan = seimon_plan::parse_hub(bytes, file, board)?;
    let toml = String::from_utf8_lossy(bytes).into_owned();
    Ok(Loaded { plan, toml, file: file.to_owned(), folder: folder.to_owned() })
}

#[derive(Debug)]
struct Hub {
    board: Board,
    clock: Clock,
    store: Store,
    loaded: Loaded,
    command_line_digest: u64,
    network: HubNetwork,
    events: Events,
    converge_at: Instant,
    look_at: Instant,
    floor_at: Instant,
    announced: bool,
    /// What keeps the kernel from being as planned, as people were told.
    trouble: Option<String>,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(args: cli::Run) -> Result<()> {
    std::fs::create_dir_all(&args.runtime_dir).with_context(|| format!("{}", args.runtime_dir.display()))?;
    let _alone = alone(&args.runtime_dir)?;
    close_unless_continuing(&mut Linux::open()?)?;
    let put_right = folders::state(&args.state_dir)?;
    let mut hub = Hub::new(&args, put_right)?;
    let socket = control::listen(&args.runtime_dir.join("control.sock"))?;
    let (requests, mut incoming) = mpsc::channel(16);
    tokio::task::spawn_local(control::serve(socket, requests, hub.events.feed()));
    let socket = control::listen(&args.runtime_dir.join("metrics.sock"))?;
    let (metrics_requests, mut metrics) = mpsc::channel(4);
    tokio::task::spawn_local(control::serve_metrics(socket, metrics_requests));
    let mut watch = register(hub.network.watch()?)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let now = hub.clock.now();
        hub.turn(now);
        let wait = hub.converge_at.min(hub.look_at).since(clock::monotonic());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            ready = watch.readable_mut() => {
                let mut ready = ready.context("the kernel's notifications")?;
                let news = ready.get_inner_mut().events();
                ready.clear_ready();
                if !news.is_empty() {
                    tracing::debug!(?news, "somebody changed the network");
                    hub.converge_at = hub.converge_at.min(clock::monotonic() + SETTLE);
                }
            }
            Some(request) = incoming.recv() => {
                let response = hub.answer(request.command);
                // A peer that has hung up does not want the answer any more.
                let _hung_up = request.answer.send(response);
            }
            Some(answer) = metrics.recv() => {
                let _hung_up = answer.send(hub.metrics());
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    hub.stop()
}

impl Hub {
    fn new(args: &cli::Run, put_right: Option<Bilingual>) -> Result<Self> {
        let (store, notes) = Store::open(&args.state_dir, &clock::machine_id(), &Sabotage::from_args(args)?)?;
        let clock = Clock::new(Some(&args.clock_trust_file), store.clock_floor());
        let now = clock.now();
        let board = plans::load_board(&args.board)?;
        let read = |bytes: &[u8], file: &str, folder: &Path| load(bytes, file, folder, &board);
        let chosen = plans::choose(args, store.plan(), read)?;
        let mut events = Events::new(store.event_numbers());
        let of_plan = chosen.notes.into_iter().map(|note| Bilingual { ja: note.clone(), en: note });
        for reason in put_right.into_iter().chain(notes).chain(of_plan) {
            events.record(Happening { kind: "agent", reason, ..Happening::default() }, now);
        }
        let loaded = chosen.loaded;
        let before = store.plan().map_or(0, |plan| plan.generation.0);
        let generation = Generation((before + u64::from(chosen.is_new)).max(1));
        let mut dataplane = Linux::open()?;
        let own = std::env::current_exe().context("own path")?;
        dataplane.carry_tunnels_with(&beside(&own, "seimon-tunnel"));
        let network = HubNetwork::new(dataplane, loaded.plan.clone(), generation, &args.state_dir, now)?;
        Ok(Self {
            board,
            clock,
            store,
            loaded,
            command_line_digest: chosen.command_line_digest,
            network,
            events,
            converge_at: now.mono,
            look_at: now.mono,
            floor_at: now.mono,
            announced: false,
            trouble: None,
        })
    }

    /// Does everything that is due.
    fn turn(&mut self, now: Reading) {
        if self.look_at <= now.mono {
            self.look(now);
        }
        if self.converge_at <= now.mono {
            self.converge(now);
        }
    }

    /// Who was heard; whether a school has changed its key.
    fn look(&mut self, now: Reading) {
        self.clock.look();
        let pause = if self.network.is_anyone_changing() { CHANGING } else { HOUSEKEEPING };
        self.look_at = now.mono + pause;
        match self.network.look(now) {
            Ok(true) => self.converge_at = now.mono,
            Ok(false) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the tunnel"),
        }
        if self.network.new_day(now) {
            self.converge_at = now.mono;
        }
        if self.floor_at <= now.mono && now.trusted {
            self.floor_at = now.mono + CLOCK_FLOOR_EVERY;
            self.clock.raise_floor(now.wall);
            if let Err(error) = self.store.save_clock_floor(now.wall) {
                tracing::warn!(error = format!("{error:#}"), "the time was not written down");
            }
        }
        self.number_events();
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
            tracing::trace!(%error, "no service manager");
        }
    }

    fn converge(&mut self, now: Reading) {
        let repairs = self.network.repairs();
        let outcome = self.network.converge(now);
        if let Some(key) = self.network.take_made_key() {
            self.note(
                "agent",
                format!("ハブの鍵を作りました。学校の計画に書く公開鍵は {key} です。"),
                format!("the hub's key was made; schools' plans name its public half: {key}"),
                now,
            );
        }
        match outcome {
            Ok(convergence) => {
                let again = if self.network.trouble().is_some() { RETRY } else { LOOK_AGAIN };
                self.converge_at = now.mono + again;
                if self.network.repairs() > repairs {
                    self.note(
                        "dataplane",
                        "通信の規則が外部から変えられていたため、元に戻しました。".to_owned(),
                        "the rules had been changed by somebody else and were put right".to_owned(),
                        now,
                    );
                }
                if convergence == Convergence::Changed || !self.announced {
                    self.remember_plan(now);
                }
                if !self.announced {
                    self.announce(now);
                }
            }
            Err(_) => self.converge_at = now.mono + RETRY,
        }
        for school in self.network.take_moved() {
            self.note(
                "tunnel",
                format!("学校 {school} が別の鍵に切り替えました。古い鍵は、計画から消してください。"),
                format!("school {school} uses another of its keys now: take the one before out of the plan"),
                now,
            );
        }
        self.tell_of_trouble(now);
    }

    /// Said once, however often it is tried.
    fn tell_of_trouble(&mut self, now: Reading) {
        let trouble = self.network.trouble();
        if self.trouble == trouble {
            return;
        }
        match &trouble {
            Some(text) => self.note(
                "dataplane",
                format!("ハブを計画どおりに設定できません。自動でやり直します（{text}）"),
                format!("the hub could not be set up as the plan says, trying again: {text}"),
                now,
            ),
            None => self.note(
                "dataplane",
                "ハブは再び計画どおりです。".to_owned(),
                "the hub is as the plan says again".to_owned(),
                now,
            ),
        }
        self.trouble = trouble;
    }

    fn announce(&mut self, now: Reading) {
        self.announced = true;
        self.number_events();
        self.note(
            "agent",
            "ハブとして動き始めました。".to_owned(),
            "started as a hub; the network is as the plan says".to_owned(),
            now,
        );
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::debug!(%error, "no service manager");
        }
    }

    fn remember_plan(&mut self, now: Reading) {
        if let Err(error) = self.store.save_plan(self.to_remember(&self.loaded)) {
            let text = format!("{error:#}");
            self.note(
                "agent",
                format!("計画を保存できません。保存場所の空きを確かめてください（{text}）"),
                format!("the plan could not be written to disk: {text}"),
                now,
            );
        }
    }

    fn to_remember(&self, loaded: &Loaded) -> StoredPlan {
        StoredPlan {
            toml: loaded.toml.clone(),
            file: loaded.file.clone(),
            folder: loaded.folder.clone(),
            generation: self.network.generation(),
            command_line_digest: self.command_line_digest,
        }
    }

    /// Numbers are not used again after a restart.
    fn number_events(&mut self) {
        if self.events.next() + EVENT_NUMBERS / 2 > self.store.event_numbers()
            && let Err(error) = self.store.take_event_numbers(self.events.next() + EVENT_NUMBERS)
        {
            tracing::debug!(error = format!("{error:#}"), "the events' numbers were not written down");
        }
    }

    fn note(&mut self, kind: &'static str, ja: String, en: String, now: Reading) {
        self.events.record(Happening { kind, reason: Bilingual { ja, en }, ..Happening::default() }, now);
    }

    /// SIGTERM: nothing is forwarded any more; everything else stays for the next start.
    fn stop(mut self) -> Result<()> {
        let now = self.clock.now();
        self.note(
            "agent",
            "停止します。通信は閉じます。".to_owned(),
            "stopping; forwarding is closed".to_owned(),
            now,
        );
        lockdown(self.network.dataplane())
    }
}
