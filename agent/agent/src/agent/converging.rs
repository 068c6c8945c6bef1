//! Making the kernel agree, telling people about it, and writing down what was seen to be in force.

use std::time::Duration;

use seimon_core::health::Liveness;

use crate::agent::Agent;
use crate::clock::Reading;
use crate::lookups::Found;
use crate::network::{Convergence, Rotated};
use crate::plans::LoadedPlan;
use crate::store::StoredPlan;

/// Looking at the kernel although nobody said that anything changed.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// While a tunnel cannot be had: somebody may be putting its key right.
const TUNNEL_AGAIN: Duration = Duration::from_secs(5);
/// After a converge that failed.
const RETRY: Duration = Duration::from_secs(1);

impl Agent {
    pub(crate) fn converge(&mut self, now: Reading) {
        let repairs = self.network.repairs();
        match self.network.converge(now.mono) {
            Ok(outcome) => {
                let look_again =
                    if self.sabotage.off("reobserve") { Duration::from_secs(86_400) } else { LOOK_AGAIN };
                self.converge_at = Some(now.mono + look_again);
                self.tell_of_missing_lines(now);
                self.tell_of_tunnels(now);
                if !self.unusable.is_empty() {
                    self.converge_at = Some(now.mono + TUNNEL_AGAIN);
                }
                if self.trouble.take().is_some() && self.announced {
                    self.note(
                        "dataplane",
                        "通信の規則は再び計画どおりです。".to_owned(),
                        "the network is as the plan says again".to_owned(),
                        now,
                    );
                }
                if self.network.repairs() > repairs {
                    self.note(
                        "dataplane",
                        "通信の規則が外部から変えられていたため、元に戻しました。".to_owned(),
                        "the rules had been changed by somebody else and were put right".to_owned(),
                        now,
                    );
                }
                if outcome == Convergence::Changed {
                    self.remember_plan();
                }
                if !self.announced {
                    self.announce(now);
                }
            }
            Err(error) => {
                self.converge_at = Some(now.mono + RETRY);
                let text = format!("{error:#}");
                // Tried every second; said once.
                if self.trouble.as_ref() != Some(&text) {
                    self.note(
                        "dataplane",
                        format!("通信の規則を設定できません。自動でやり直します（{text}）"),
                        format!("the network could not be set up, trying again: {text}"),
                        now,
                    );
                    self.trouble = Some(text);
                }
            }
        }
    }

    fn tell_of_missing_lines(&mut self, now: Reading) {
        if self.missing == self.network.missing() {
            return;
        }
        self.missing = self.network.missing().to_vec();
        let names: Vec<String> = self.missing.iter().map(ToString::to_string).collect();
        if names.is_empty() {
            self.note(
                "dataplane",
                "回線の差込口がすべて見つかりました。".to_owned(),
                "every line's interface is there".to_owned(),
                now,
            );
        } else {
            let names = names.join(", ");
            self.note(
                "dataplane",
                format!("回線の差込口 {names} が見つかりません。機器の故障か、名前の変更です。ほかの回線は使えます。"),
                format!(
                    "interface {names} does not exist; the other lines go on. Check the board file, and whether the \
                     kernel renamed it"
                ),
                now,
            );
        }
    }

    fn tell_of_tunnels(&mut self, now: Reading) {
        for (name, public) in self.network.take_made_keys() {
            self.note(
                "agent",
                format!("トンネル {name} の鍵を作りました。センター側に登録する公開鍵は {public} です。"),
                format!("a key was made for tunnel {name}: register its public half at the hub: {public}"),
                now,
            );
        }
        if self.unusable == *self.network.unusable_tunnels() {
            return;
        }
        self.unusable.clone_from(self.network.unusable_tunnels());
        let reasons: Vec<String> = self.unusable.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        let reasons = reasons.join("; ");
        if reasons.is_empty() {
            self.note(
                "dataplane",
                "すべてのトンネルを使えます。".to_owned(),
                "every tunnel can be had again".to_owned(),
                now,
            );
        } else {
            self.note(
                "dataplane",
                format!("トンネルを使えません。ほかの経路は使えます（{reasons}）"),
                format!("a tunnel cannot be had; the other paths go on: {reasons}"),
                now,
            );
        }
    }

    fn judge_rotation(&mut self, now: Reading) {
        match self.network.judge_rotation(now.mono) {
            Ok(None) => {}
            Ok(Some(Rotated::Done(path))) => self.note(
                "agent",
                format!("経路 {path} の新しい鍵で接続できました。センター側の古い鍵を消してください。"),
                format!(
                    "the hub answers to the new key of path {path}: take the one before out of the hub's plan"
                ),
                now,
            ),
            Ok(Some(Rotated::Back(path))) => {
                self.converge_at = Some(now.mono);
                self.note(
                    "agent",
                    format!("経路 {path} の新しい鍵にセンターが応答しないため、前の鍵に戻しました。公開鍵の登録を確かめてください。"),
                    format!(
                        "the hub does not answer to the new key of path {path}: the one before is in use again. Is it \
                         registered?"
                    ),
                    now,
                );
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the new key"),
        }
    }

    /// Far ends with names are looked up; some seconds later [`Self::hear_of_far_end`].
    pub(crate) fn look_for_far_ends(&mut self, now: Reading) {
        self.judge_rotation(now);
        let Self { network, health, .. } = self;
        match network.tend_tunnels(|path| health.liveness(path) == Liveness::Down, now.mono) {
            Ok(wanted) => {
                for wanted in wanted {
                    let servers = self.network.plan().endpoint_resolvers(&wanted.path).to_vec();
                    self.lookups.begin(wanted, &servers);
                }
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "tunnels"),
        }
    }

    pub(crate) fn hear_of_far_end(&mut self, found: Found) {
        let outcome =
            found.addresses.and_then(|found_at| self.network.found_far_end(&found.wanted, &found_at));
        if let Err(error) = outcome {
            tracing::warn!(tunnel = %found.wanted.interface, error = format!("{error:#}"), "the far end");
        }
    }

    /// The plan is in force for the first time: children may start, the service manager may go on.
    fn announce(&mut self, now: Reading) {
        self.announced = true;
        self.remember_plan();
        self.note(
            "agent",
            "動き始めました。通信の規則は計画どおりです。".to_owned(),
            "started; the network is as the plan says".to_owned(),
            now,
        );
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::debug!(%error, "no service manager");
        }
    }

    /// The verified generation is what a restart begins with.
    pub(crate) fn remember_plan(&mut self) {
        if let Err(error) = self.store.save_plan(self.to_remember(&self.loaded)) {
            let now = self.clock.now();
            let text = format!("{error:#}");
            self.note(
                "agent",
                format!("計画を保存できません。保存場所の空きを確かめてください（{text}）"),
                format!("the plan could not be written to disk: {text}"),
                now,
            );
        }
    }

    /// A plan as the generation that the network has now.
    pub(crate) fn to_remember(&self, loaded: &LoadedPlan) -> StoredPlan {
        StoredPlan {
            toml: loaded.toml.clone(),
            file: loaded.file.clone(),
            folder: loaded.folder.clone(),
            generation: self.network.generation(),
            command_line_digest: self.command_line_digest,
        }
    }
}
