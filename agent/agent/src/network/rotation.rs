//! Another key for a tunnel, without loss: the hub learns the next key beside the present one, then the gateway takes it
//! into use. A hub that does not answer to it gets the present one again.
//!
//! ```text
//!  KEY ──rotate──▶ KEY, KEY.next ──switch──▶ KEY (new), KEY.before ─ handshake ─▶ KEY (new)
//!                        ▲                        │ none in 15 s
//!                        └────────────────────────┘
//! ```
//! Nothing is lost meanwhile: the session under the key before carries on until the hub answers to the new one.
//! KEY is there at every moment; with KEY.before beside it, a start goes on judging.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use seimon_board::{Instant, InterfaceName};
use seimon_core::network_plan::{Change, ChangeSet, Dataplane as _, tunnel_name};
use seimon_dataplane::PrivateKey;
use seimon_plan::{PathId, WireguardKey};

use super::Network;

/// A handshake is tried every five seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rotated {
    /// The hub answers to the new key.
    Done(PathId),
    /// It does not; the key before is in use again.
    Back(PathId),
}

#[derive(Clone, Debug)]
pub(super) struct Rotation {
    path: PathId,
    interface: InterfaceName,
    file: PathBuf,
    since: Instant,
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

impl Network {
    fn key_file(&self, path: &PathId) -> Result<(InterfaceName, PathBuf)> {
        let interface = tunnel_name(path)?;
        let tunnel = self.compiled.tunnels.get(&interface);
        let tunnel = tunnel.with_context(|| format!("path {path} is no tunnel of the plan"))?;
        let file = self.tunnels.folder.join(&tunnel.private_key_file);
        Ok((interface, file))
    }

    /// Makes the next key where there is none; its public half is to be registered at the hub.
    pub(crate) fn next_key(&self, path: &PathId) -> Result<WireguardKey> {
        let (_, file) = self.key_file(path)?;
        Ok(PrivateKey::load_or_make(&beside(&file, ".next"))?.0.public())
    }

    /// Takes the next key into use with the next [`Self::converge`].
    pub(crate) fn switch_key(&mut self, path: &PathId, now: Instant) -> Result<()> {
        let (interface, file) = self.key_file(path)?;
        ensure!(self.rotation.is_none(), "another key is being tried: wait for {} s", PATIENCE.as_secs());
        let next = beside(&file, ".next");
        ensure!(
            next.exists(),
            "there is no next key for path {path}: make one first, and register it at the hub"
        );
        let next_key = PrivateKey::load(&next)?;
        PrivateKey::load(&file)?.save(&beside(&file, ".before"))?;
        next_key.save(&file)?;
        std::fs::remove_file(&next).with_context(|| next.display().to_string())?;
        if self.sabotage.off("make-before-break") {
            self.dataplane.apply(&ChangeSet { changes: vec![Change::LinkRemove(interface.clone())] })?;
        }
        self.rotation = Some(Rotation { path: path.clone(), interface, file, since: now });
        Ok(())
    }

    /// A key that was being tried when the agent ended.
    pub(super) fn resume_rotation(&mut self, now: Instant) {
        if self.rotation.is_some() {
            return;
        }
        let paths: Vec<PathId> = self.plan.paths.keys().cloned().collect();
        for path in paths {
            let Ok((interface, file)) = self.key_file(&path) else { continue };
            if beside(&file, ".before").exists() {
                self.rotation = Some(Rotation { path, interface, file, since: now });
                return;
            }
        }
    }

    /// Whether a key is being tried, and so is to be looked at soon again.
    pub(crate) fn is_rotating(&self) -> bool {
        self.rotation.is_some()
    }

    /// Whether the hub answers to a new key; the key before is put back where it does not.
    pub(crate) fn judge_rotation(&mut self, now: Instant) -> Result<Option<Rotated>> {
        let Some(rotation) = self.rotation.clone() else { return Ok(None) };
        let Rotation { path, interface, file, since } = rotation;
        let before = beside(&file, ".before");
        let observed = self.dataplane.observe(&[])?;
        let tried = now.since(since);
        let answers = observed.tunnels.get(&interface).is_some_and(|tunnel| {
            tunnel.peers.values().any(|peer| peer.handshake.is_some_and(|age| age <= tried))
        });
        if answers {
            std::fs::remove_file(&before).with_context(|| before.display().to_string())?;
            self.rotation = None;
            return Ok(Some(Rotated::Done(path)));
        }
        if tried < PATIENCE {
            return Ok(None);
        }
        let key_before = PrivateKey::load(&before)?;
        PrivateKey::load(&file)?.save(&beside(&file, ".next"))?;
        key_before.save(&file)?;
        std::fs::remove_file(&before).with_context(|| before.display().to_string())?;
        self.rotation = None;
        Ok(Some(Rotated::Back(path)))
    }
}
