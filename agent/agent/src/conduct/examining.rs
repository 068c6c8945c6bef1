//! What is to be examined goes to the probe; what it has found out goes to health, and news of that to everybody.

use std::time::Duration;

use seimon_core::health::{Ailment, CheckOutcome, EchoSize, HealthEvent, Liveness, Stage};
use seimon_core::migration::{Event, ZoneGroup};
use seimon_core::status;

use crate::agent::{Agent, ProbeState, gateway_paths};
use crate::clock::Reading;
use crate::events::Happening;
use crate::network::Network;
use crate::plans::LoadedPlan;
use crate::probing::{Finished, Ground};
use crate::requests::bilingual;

impl Agent {
    /// Probes what is due, and judges what has come back.
    pub(crate) fn examine(&mut self, now: Reading) {
        // While there is no probe nothing is sent, and silence would say nothing.
        if self.probe_state == ProbeState::Ready {
            match self.probing.expire(now.mono) {
                Ok(()) => self.send_checks(now),
                Err(silent) => self.lose_probe(&silent.into(), now),
            }
        }
        let mut news = false;
        while let Some(event) = self.health.poll_event() {
            news = true;
            self.report_health(event, now);
        }
        if news {
            self.choose_gateway_path(now);
            self.inform_all(now);
        }
    }

    fn send_checks(&mut self, now: Reading) {
        self.health.handle_timeout(now.mono);
        while let Some(target) = self.health.poll_check() {
            let ground = ground(&self.network, &self.loaded);
            if let Some(job) = self.probing.check(target, ground, now.mono) {
                self.probe.send(&job);
            }
        }
    }

    pub(super) fn take(&mut self, finished: Finished, now: Reading) {
        match finished {
            Finished::Echo { path, family, size: EchoSize::Small, outcome } => {
                self.health.handle_echo(&path, family, outcome, now.mono);
            }
            Finished::Echo { path, family: _, size: EchoSize::Full(_), outcome } => {
                self.health.handle_large(&path, outcome, now.mono);
            }
            Finished::Check { target, outcome } => {
                let outcome = if self.sabotage.off("answer-check") { any_answer(outcome) } else { outcome };
                let passed = match outcome {
                    CheckOutcome::Good { .. } => seimon_core::migration::Passed::Yes,
                    CheckOutcome::Failed { .. } => seimon_core::migration::Passed::No,
                };
                self.health.handle_check(&target, outcome, now.mono);
                let zone_group = ZoneGroup { zone: target.zone.clone(), group: target.group.clone() };
                let event = Event::Check { path: target.path, service: target.service, passed };
                self.inform(&zone_group, event, now);
            }
        }
    }

    fn report_health(&mut self, event: HealthEvent, now: Reading) {
        let reason = bilingual(status::health_event(&event));
        let happening = match event {
            HealthEvent::Path { path, verdict } => Happening {
                kind: "path",
                path: Some(path),
                to: Some(format!("{verdict:?}").to_lowercase()),
                reason,
                ..Happening::default()
            },
            HealthEvent::Service { target, verdict } => Happening {
                kind: "check",
                zone: Some(target.zone),
                group: Some(target.group),
                path: Some(target.path),
                to: Some(format!("{verdict:?}").to_lowercase()),
                reason,
                ..Happening::default()
            },
            HealthEvent::Ailment { path, ailment } => Happening {
                kind: "path",
                path: Some(path),
                to: Some(ailment_word(ailment).to_owned()),
                reason,
                ..Happening::default()
            },
            HealthEvent::Ipv6 { path, verdict } => {
                self.resolver_outdated = true;
                Happening {
                    kind: "path",
                    path: Some(path),
                    to: Some(format!("ipv6-{verdict:?}").to_lowercase()),
                    reason,
                    ..Happening::default()
                }
            }
            HealthEvent::Unregistered { path, group, address } => Happening {
                kind: "egress",
                group: Some(group),
                path: Some(path),
                to: Some(address.to_string()),
                reason,
                ..Happening::default()
            },
            HealthEvent::Egress { path, address } => Happening {
                kind: "egress",
                path: Some(path),
                to: Some(address.to_string()),
                reason,
                ..Happening::default()
            },
        };
        self.events.record(happening, now);
    }

    /// The gateway's own traffic goes by the first of its paths that is not dead.
    fn choose_gateway_path(&mut self, now: Reading) {
        let plan = self.network.plan().clone();
        let living = gateway_paths(&plan).find(|path| self.health.liveness(path) != Liveness::Down);
        if let Some(path) = living.or(gateway_paths(&plan).next())
            && let Err(error) = self.network.set_gateway_path(path)
        {
            let text = format!("{error:#}");
            self.note("dataplane", text.clone(), text, now);
        }
    }
}

/// As those judge who take any answer for a good one: whose certificate it has and what it says is not looked at.
fn any_answer(outcome: CheckOutcome) -> CheckOutcome {
    match outcome {
        CheckOutcome::Failed { stage: Stage::Tls | Stage::HttpStatus | Stage::Body, .. } => {
            CheckOutcome::Good { took: Duration::from_millis(20) }
        }
        other @ (CheckOutcome::Good { .. } | CheckOutcome::Failed { .. }) => other,
    }
}

/// As in events and scenarios.
fn ailment_word(ailment: Option<Ailment>) -> &'static str {
    match ailment {
        Some(Ailment::Lossy { .. }) => "lossy",
        Some(Ailment::Slow { .. }) => "slow",
        Some(Ailment::LargeStall) => "large-stall",
        None => "well",
    }
}

pub(super) fn ground<'a>(network: &'a Network, loaded: &'a LoadedPlan) -> Ground<'a> {
    Ground { plan: network.plan(), allocation: network.allocation(), authorities: &loaded.authorities }
}
