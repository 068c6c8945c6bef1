//! What each request does, and what becomes of an image on trial.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use seimon_board::Instant;
use seimon_boot::image::Here;
use seimon_boot::policy::Reason;
use seimon_boot::state::Request as BootRequest;
use seimon_boot::{Anchors, BootState, Digest, Slot, Status};
use seimon_ipc::control::Bilingual;
use seimon_update::trial::{Decision, Picture, Timing, Trial};
use seimon_update::wire::{
    Command, FallFacts, ImageFacts, Reset, Response, SlotFacts, UpdateStatus, VERSION,
};
use serde::{Deserialize, Serialize};

use crate::disk::{DiskError, SlotDisk, SlotPaths, StateDisk};
use crate::durable;
use crate::looking::{Eyes, seen};
use crate::source::Source;
use crate::stage::{self, StageError, Target};

const TRIAL: &str = "trial.json";

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) state: StateDisk,
    pub(crate) slots: SlotPaths,
    pub(crate) anchors: Anchors,
    pub(crate) running: Option<Slot>,
    /// Durable: the baseline, how far an image was written.
    pub(crate) folder: PathBuf,
    /// Touched when the box is to restart; systemd watches it.
    pub(crate) restart: PathBuf,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) eyes: Eyes,
    /// Where `/proc` and `/sys` are.
    pub(crate) root: PathBuf,
    pub(crate) timing: Timing,
}

/// How users were before the restart into an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Baseline {
    slot: Slot,
    digest: Digest,
    before: Picture,
}

#[derive(Debug)]
pub(crate) struct Engine {
    config: Config,
    /// Held by whoever changes slots or the boot state.
    busy: Mutex<()>,
    /// A request is being carried out: others are told so. The trial's short looks are waited for instead.
    working: AtomicBool,
    shown: Mutex<Shown>,
    trial: Mutex<Option<Trial>>,
}

/// What `status` shows besides the boot state.
#[derive(Debug, Default)]
struct Shown {
    writing: Option<(u64, u64)>,
    trial: Option<Bilingual>,
    restarting: bool,
    /// The running slot was left; the restart is still to be asked for.
    leaving: bool,
}

/// Ends with the request, however that ends.
struct Working<'a>(&'a AtomicBool);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(ja: impl Into<String>, en: impl Into<String>) -> Response {
    Response::Refused { reason: Bilingual { ja: ja.into(), en: en.into() } }
}

fn done(ja: impl Into<String>, en: impl Into<String>) -> Response {
    Response::Done { message: Bilingual { ja: ja.into(), en: en.into() } }
}

fn failed(error: &dyn std::error::Error) -> Response {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        text = format!("{text}: {error}");
        below = error.source();
    }
    refused(format!("できませんでした：{text}"), text)
}

impl Engine {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            busy: Mutex::new(()),
            working: AtomicBool::new(false),
            shown: Mutex::default(),
            trial: Mutex::new(None),
        }
    }

    /// Takes up the trial where this start is one. Called once, before the first [`Engine::tend`].
    pub(crate) fn begin(&self) -> Result<(), DiskError> {
        let state = self.config.state.read()?;
        let Some(slot) = self.config.running else {
            tracing::warn!(
                "the kernel's command line has no seimon.slot: nothing can be confirmed or staged"
            );
            return Ok(());
        };
        let image = *state.slot(slot);
        tracing::info!(slot = %slot, status = ?image.status, version = image.version.as_str(), starts = image.starts, "running");
        if image.status == Status::Trial {
            let kept: Option<Baseline> = durable::read(&self.config.folder.join(TRIAL));
            let before = match kept.filter(|kept| kept.slot == slot && kept.digest == image.digest) {
                Some(kept) => kept.before,
                // Flashed, or started because the other fell: there is nothing to compare with but the policy itself.
                None => Picture::default(),
            };
            *lock(&self.trial) = Some(Trial::new(before, self.config.timing));
        }
        if let Some(fall) = state.last_fall {
            tracing::warn!(slot = %fall.slot, version = fall.version.as_str(), reason = %fall.reason, "a slot was left before");
        }
        Ok(())
    }

    /// Looks how users are, and confirms or leaves an image on trial. Called every few seconds.
    pub(crate) fn tend(&self, now: Instant) -> Result<(), DiskError> {
        let Some(slot) = self.config.running else { return Ok(()) };
        let Ok(_busy) = self.busy.try_lock() else { return Ok(()) };
        let state = self.config.state.read()?;
        let image = state.slot(slot);
        let mut trial = lock(&self.trial);
        match image.status {
            Status::Trial => {}
            // A row of starts ends when the box has been well for as long as a trial takes.
            Status::Confirmed if image.starts > 0 => {}
            // It was left just now, and the restart could not be asked for. (A bad slot that the guardian started all the same,
            // because nothing else was left, runs on.)
            Status::Bad if lock(&self.shown).leaving => return self.restart(),
            Status::Confirmed | Status::Empty | Status::Bad => return Ok(()),
        }
        let watched = trial.get_or_insert_with(|| Trial::new(Picture::default(), self.config.timing));
        let decision = watched.handle(&self.config.eyes.picture(), now);
        match (image.status, decision) {
            (Status::Trial, Decision::Wait(why)) => lock(&self.shown).trial = Some(why),
            (Status::Trial, Decision::Confirm) => self.confirm(slot)?,
            (Status::Trial, Decision::GoBack(why)) => {
                tracing::error!(why = why.en, "users are worse off, going back");
                lock(&self.shown).trial = Some(why);
                self.go_back(slot, Reason::UsersSuffered)?;
            }
            (_, Decision::Confirm) => {
                self.config.state.change(|state| state.healthy(slot))?;
            }
            (_, Decision::Wait(_) | Decision::GoBack(_)) => {}
        }
        Ok(())
    }

    fn confirm(&self, slot: Slot) -> Result<(), DiskError> {
        let (state, confirmed) = self.config.state.change(|state| state.confirm(slot))?;
        if confirmed {
            tracing::info!(slot = %slot, version = state.slot(slot).version.as_str(), epoch = state.epoch, "confirmed");
            lock(&self.shown).trial = None;
            if let Err(error) = durable::remove(&self.config.folder.join(TRIAL)) {
                tracing::warn!(%error, "the baseline stays, it is of no use any more");
            }
        }
        Ok(())
    }

    fn go_back(&self, slot: Slot, reason: Reason) -> Result<(), DiskError> {
        self.config.state.change(|state| state.fall(slot, reason))?;
        lock(&self.shown).leaving = true;
        self.restart()
    }

    fn restart(&self) -> Result<(), DiskError> {
        std::fs::write(&self.config.restart, b"").map_err(|source| DiskError::Io {
            what: "the request for a restart",
            path: self.config.restart.clone(),
            done: "written",
            source,
        })?;
        let mut shown = lock(&self.shown);
        (shown.leaving, shown.restarting) = (false, true);
        Ok(())
    }

    /// Carries out a request. `report` gets bytes done and in all while an image is written.
    pub(crate) fn answer(&self, command: &Command, report: &mut dyn FnMut(u64, u64)) -> Response {
        // A look waits for nobody.
        if matches!(command, Command::Status {}) {
            return self.carry_out(command, report);
        }
        if self.working.swap(true, Ordering::AcqRel) {
            return refused(
                "ほかの更新作業の途中です。`seimonctl update status` で進み具合を見られます。",
                "another update is under way: see `seimonctl update status`",
            );
        }
        let _working = Working(&self.working);
        let _busy = lock(&self.busy);
        if lock(&self.shown).restarting {
            return refused("再起動を待っています。", "the box is about to restart");
        }
        self.carry_out(command, report)
    }

    fn carry_out(&self, command: &Command, report: &mut dyn FnMut(u64, u64)) -> Response {
        let outcome = match command {
            Command::Status {} => self
                .config
                .state
                .read()
                .map_err(StageError::from)
                .map(|state| Response::Status(Box::new(self.status(&state)))),
            Command::Check { source } => self.check(source),
            Command::Stage { source } => {
                let outcome = self.stage(source, report);
                lock(&self.shown).writing = None;
                outcome
            }
            Command::Apply {} => self.apply().map_err(StageError::from),
            Command::Confirm {} => self.confirm_by_hand().map_err(StageError::from),
            Command::Rollback {} => self.roll_back().map_err(StageError::from),
            Command::Reset { what } => self.reset(*what).map_err(StageError::from),
        };
        outcome.unwrap_or_else(|error| failed(&error))
    }

    fn here<'a>(&'a self, seen: &'a seimon_boot::board::Seen, epoch: u32, slot_length: u64) -> Here<'a> {
        Here { anchors: &self.config.anchors, seen, epoch, slot_length }
    }

    fn check(&self, source: &str) -> Result<Response, StageError> {
        let state = self.config.state.read()?;
        let slot = self.config.running.map_or(Slot::A, Slot::other);
        let disk = SlotDisk::open(self.config.slots.of(slot))?;
        let seen = seen(&self.config.root);
        let source = Source::new(source, self.config.ca.as_deref())?;
        let (signed, _) = stage::read_head(&source, self.here(&seen, state.epoch, disk.length))?;
        let manifest = signed.manifest();
        let holds = |slot: &Slot| {
            let held = state.slot(*slot);
            held.digest == signed.digest() && matches!(held.status, Status::Trial | Status::Confirmed)
        };
        Ok(Response::Image(Box::new(ImageFacts {
            version: manifest.version.clone(),
            epoch: manifest.epoch,
            boards: manifest.boards.iter().map(|board| board.id.clone()).collect(),
            length: manifest.length(),
            digest: signed.digest().to_string(),
            present_in: Slot::BOTH.iter().find(|slot| holds(slot)).map(|slot| slot.letter().to_string()),
        })))
    }

    fn stage(&self, source: &str, report: &mut dyn FnMut(u64, u64)) -> Result<Response, StageError> {
        let Some(running) = self.config.running else { return Ok(unknown_slot()) };
        let state = self.config.state.read()?;
        if state.slot(running).status != Status::Confirmed {
            return Ok(refused(
                "今動いているイメージがまだ確認されていません。確認されるまで、戻り先のイメージは書き換えません。",
                "the running image is not confirmed yet: until it is, the one to go back to is not overwritten",
            ));
        }
        let slot = running.other();
        let disk = SlotDisk::open(self.config.slots.of(slot))?;
        let seen = seen(&self.config.root);
        let source = Source::new(source, self.config.ca.as_deref())?;
        let (signed, head) = stage::read_head(&source, self.here(&seen, state.epoch, disk.length))?;
        let version = &signed.manifest().version;
        let already = state.slot(slot);
        if already.digest == signed.digest() && already.status == Status::Trial && already.tries_left > 0 {
            return Ok(done(
                format!("このイメージ（{version}）はスロット {slot} に書き込み済みです。"),
                format!("this image ({version}) is in slot {slot} already"),
            ));
        }
        let target = Target { slot, disk: &disk, state: &self.config.state, folder: &self.config.folder };
        stage::write(&source, &signed, &head, &target, |done, total| {
            lock(&self.shown).writing = Some((done, total));
            report(done, total);
        })?;
        tracing::info!(slot = %slot, version, "staged");
        Ok(done(
            format!(
                "イメージ {version} をスロット {slot} に書き込み、確かめました。`seimonctl update apply` で試します。"
            ),
            format!(
                "image {version} is in slot {slot}, written and verified; `seimonctl update apply` tries it"
            ),
        ))
    }

    fn apply(&self) -> Result<Response, DiskError> {
        let Some(running) = self.config.running else { return Ok(unknown_slot()) };
        let slot = running.other();
        let state = self.config.state.read()?;
        if state.slot(running).status != Status::Confirmed {
            return Ok(refused(
                "今動いているイメージがまだ確認されていません。",
                "the running image is not confirmed yet",
            ));
        }
        let staged = *state.slot(slot);
        if staged.status != Status::Trial || staged.tries_left == 0 {
            return Ok(refused(
                format!(
                    "スロット {slot} に試すイメージがありません。先に `seimonctl update stage` を実行してください。"
                ),
                format!("there is nothing to try in slot {slot}: run `seimonctl update stage` first"),
            ));
        }
        let baseline = Baseline { slot, digest: staged.digest, before: self.config.eyes.picture() };
        let kept = self.config.folder.join(TRIAL);
        if let Err(error) = durable::write(&kept, &baseline) {
            return Ok(failed(&error));
        }
        let (_, applied) = self.config.state.change(|state| state.apply(slot))?;
        if !applied {
            return Ok(refused("試すイメージがなくなりました。", "what was staged is there no more"));
        }
        self.restart()?;
        let version = staged.version.as_str().to_owned();
        Ok(done(
            format!(
                "再起動して {version} を試します。利用者の通信が更新前と同じく良好なら自動で確定し、悪くなれば自動で戻ります。"
            ),
            format!(
                "restarting into {version}: kept by itself if users are as well as before, left by itself if they are not"
            ),
        ))
    }

    fn confirm_by_hand(&self) -> Result<Response, DiskError> {
        let Some(running) = self.config.running else { return Ok(unknown_slot()) };
        self.confirm(running)?;
        let state = self.config.state.read()?;
        let version = state.slot(running).version.as_str().to_owned();
        Ok(if state.slot(running).status == Status::Confirmed {
            done(format!("{version} を確定しました。"), format!("{version} is confirmed"))
        } else {
            refused(format!("{version} は確定できません。"), format!("{version} cannot be confirmed"))
        })
    }

    fn roll_back(&self) -> Result<Response, DiskError> {
        let Some(running) = self.config.running else { return Ok(unknown_slot()) };
        let state = self.config.state.read()?;
        let other = state.slot(running.other());
        if other.status != Status::Confirmed || other.epoch < state.epoch {
            return Ok(refused(
                format!("戻れるイメージがスロット {} にありません。", running.other()),
                format!("slot {} holds nothing to go back to", running.other()),
            ));
        }
        let version = other.version.as_str().to_owned();
        self.go_back(running, Reason::Requested)?;
        Ok(done(format!("再起動して {version} に戻ります。"), format!("restarting into {version}")))
    }

    fn reset(&self, what: Reset) -> Result<Response, DiskError> {
        let request = match what {
            Reset::Factory => BootRequest::FactoryReset,
            Reset::Wipe => BootRequest::Wipe,
        };
        self.config.state.change(|state| state.request = request)?;
        self.restart()?;
        Ok(match what {
            Reset::Factory => done(
                "再起動して、学校の設定を消します。機器の識別情報は残ります。",
                "restarting: the school's settings are forgotten, the box's identity stays",
            ),
            Reset::Wipe => done(
                "再起動して、識別情報を含むすべてを消します。",
                "restarting: everything is forgotten, identity included",
            ),
        })
    }

    fn status(&self, state: &BootState) -> UpdateStatus {
        let shown = lock(&self.shown);
        let facts = |slot: Slot| {
            let held = state.slot(slot);
            let status = match held.status {
                Status::Empty => "empty",
                Status::Trial => "trial",
                Status::Confirmed => "confirmed",
                Status::Bad => "bad",
            };
            let facts = SlotFacts {
                status: status.to_owned(),
                version: held.version.as_str().to_owned(),
                epoch: held.epoch,
                tries_left: held.tries_left,
                starts: held.starts,
            };
            (slot.letter().to_string(), facts)
        };
        UpdateStatus {
            version: VERSION,
            running: self.config.running.map(|slot| slot.letter().to_string()),
            next: state.preferred.letter().to_string(),
            slots: Slot::BOTH.into_iter().map(facts).collect(),
            epoch: state.epoch,
            last_fall: state.last_fall.map(|fall| FallFacts {
                slot: fall.slot.letter().to_string(),
                version: fall.version.as_str().to_owned(),
                reason: serde_json::to_value(fall.reason)
                    .ok()
                    .and_then(|value| value.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                sentence: Bilingual {
                    ja: fall.reason.sentence_ja().to_owned(),
                    en: fall.reason.sentence().to_owned(),
                },
            }),
            sentence: self.sentence(state, &shown),
            writing: shown.writing,
        }
    }

    fn sentence(&self, state: &BootState, shown: &Shown) -> Bilingual {
        let say = |ja: &str, en: &str| Bilingual { ja: ja.to_owned(), en: en.to_owned() };
        if shown.restarting {
            return say("再起動を待っています。", "The box is about to restart.");
        }
        if shown.writing.is_some() {
            return say(
                "新しいイメージを書き込んでいます。通信はそのまま使えます。",
                "A new image is being written; the network works as before.",
            );
        }
        let Some(running) = self.config.running else {
            return say(
                "起動プログラムから情報がありません。",
                "The boot guardian did not say which slot runs.",
            );
        };
        match (state.slot(running).status, state.slot(running.other()).status) {
            (Status::Trial, _) => shown
                .trial
                .clone()
                .unwrap_or_else(|| say("新しいイメージを試しています。", "The new image is on trial.")),
            (_, Status::Trial) => say(
                "新しいイメージの準備ができました。`seimonctl update apply` で試します。",
                "A new image is ready; `seimonctl update apply` tries it.",
            ),
            (Status::Confirmed, _) => say("確定したイメージで動いています。", "Running a confirmed image."),
            (Status::Empty | Status::Bad, _) => say(
                "今動いているイメージは次の起動では使われません。",
                "What runs now is not what the next start takes.",
            ),
        }
    }
}

fn unknown_slot() -> Response {
    refused(
        "どのスロットで動いているか分かりません（起動プログラムを通さない起動です）。",
        "it is not known which slot runs: the box was not started by the boot guardian",
    )
}
