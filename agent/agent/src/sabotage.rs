//! Mechanisms that a test may switch off, to show that it would notice. Without the feature `sabotage` there is no way to
//! name one, and everything is on.

use std::collections::BTreeSet;

use anyhow::Result;
use seimon_core::migration::{Mechanisms, Switch};
use seimon_core::network_plan::{NetworkPlan, RuleAction};

use crate::cli;

/// Every name that `--without` takes.
#[cfg(feature = "sabotage")]
const NAMES: &[&str] = &[
    "aaaa-withhold",
    "affinity",
    "alone",
    "answer-check",
    "baseline-veto",
    "blame-service",
    "brown-out",
    "canary",
    "checkpoint",
    "clock-floor",
    "disk-veto",
    "egress-veto",
    "emergency",
    "families-apart",
    "hold-down",
    "inside-address",
    "keep-when-blocked",
    "liveness",
    "make-before-break",
    "pac",
    "pac-affinity",
    "patience",
    "prohibit",
    "proxy-veto",
    "rate-cap",
    "reobserve",
    "reserve",
    "reset",
    "roaming",
    "rollback",
    "selective-kill",
    "sync",
    "window-veto",
];

#[derive(Clone, Debug, Default)]
pub(crate) struct Sabotage {
    off: BTreeSet<String>,
}

impl Sabotage {
    #[cfg(feature = "sabotage")]
    pub(crate) fn from_args(args: &cli::Run) -> Result<Self> {
        for name in &args.without {
            anyhow::ensure!(
                NAMES.contains(&name.as_str()),
                "--without {name}: there is no such mechanism; there are: {}",
                NAMES.join(", ")
            );
        }
        Ok(Self { off: args.without.iter().cloned().collect() })
    }

    #[cfg(not(feature = "sabotage"))]
    #[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
    pub(crate) fn from_args(_: &cli::Run) -> Result<Self> {
        Ok(Self::default())
    }

    pub(crate) fn off(&self, name: &str) -> bool {
        self.off.contains(name)
    }

    pub(crate) fn mechanisms(&self) -> Mechanisms {
        let switch = |name| if self.off(name) { Switch::Off } else { Switch::On };
        Mechanisms {
            egress_veto: switch("egress-veto"),
            window_veto: switch("window-veto"),
            baseline_veto: switch("baseline-veto"),
            rollback: switch("rollback"),
            checkpoint: switch("checkpoint"),
            blame_service: switch("blame-service"),
            brown_out: switch("brown-out"),
            canary: switch("canary"),
            hold_down: switch("hold-down"),
            keep_when_blocked: switch("keep-when-blocked"),
            proxy_veto: switch("proxy-veto"),
            emergency: switch("emergency"),
            disk_veto: switch("disk-veto"),
        }
    }

    /// The journal, whole or without what is switched off.
    #[cfg(feature = "sabotage")]
    pub(crate) fn open_journal(
        &self,
        folder: &std::path::Path,
        machine: &str,
    ) -> Result<seimon_journal::Opened, seimon_journal::OpenError> {
        let without = seimon_journal::Without {
            sync: self.off("sync"),
            lock: self.off("alone"),
            reserve: self.off("reserve"),
        };
        seimon_journal::Journal::open_without(folder, machine, without)
    }

    #[cfg(not(feature = "sabotage"))]
    pub(crate) fn open_journal(
        &self,
        folder: &std::path::Path,
        machine: &str,
    ) -> Result<seimon_journal::Opened, seimon_journal::OpenError> {
        seimon_journal::Journal::open_or_salvage(folder, machine)
    }

    /// For the resolver's environment.
    pub(crate) fn names(&self) -> String {
        self.off.iter().cloned().collect::<Vec<_>>().join(",")
    }

    /// Takes out of a network plan what is switched off.
    pub(crate) fn maim(&self, plan: &mut NetworkPlan) {
        if self.off("affinity") {
            for chain in plan.ruleset.chains.values_mut() {
                chain.rules.retain(|rule| !rule.text.contains("update @aff_"));
            }
        }
        if self.off("rate-cap") {
            for chain in plan.ruleset.chains.values_mut() {
                chain.rules.retain(|rule| !rule.text.contains("limit rate over"));
            }
        }
        if self.off("prohibit") {
            plan.rules.retain(|rule| rule.action != RuleAction::Prohibit);
        }
    }
}
