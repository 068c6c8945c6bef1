//! Making the kernel agree, telling people about it, and writing down what was seen to be in force.

use std::time::Duration;

use crate::agent::Agent;
use crate::clock::Reading;
use crate::network::Convergence;
use crate::plans::LoadedPlan;
use crate::store::StoredPlan;

/// Looking at the kernel although nobody said that anything changed.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
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
