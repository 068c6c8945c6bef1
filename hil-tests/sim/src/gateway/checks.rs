//! The probe: echoes sent all the time, and checks when health asks for them. It dies with the agent.

use seimon_core::health::{CheckOutcome, CheckTarget, EchoFamily, Health};

use super::network::Network;
use crate::ground::Ground;
use crate::pulse::Pulse;

#[derive(Debug)]
pub(super) struct Probe {
    pulses: Vec<Pulse>,
    checks: Vec<(u64, CheckTarget, CheckOutcome)>,
    /// Being started: nothing is sent before.
    ready_at: u64,
}

impl Probe {
    pub(super) const fn new(ground: &Ground<'_, '_>) -> Self {
        Self { pulses: Vec::new(), checks: Vec::new(), ready_at: ground.now + 300 }
    }

    /// Checks that have ended.
    pub(super) fn listen(&mut self, ground: &Ground<'_, '_>) -> Vec<(CheckTarget, CheckOutcome)> {
        if self.checks.iter().all(|(at, ..)| *at > ground.now) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.checks);
        let (done, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|(at, ..)| *at <= ground.now);
        self.checks = later;
        done.into_iter().map(|(_, target, outcome)| (target, outcome)).collect()
    }

    pub(super) fn send(&mut self, ground: &mut Ground<'_, '_>, health: &mut Health, network: &Network) {
        if ground.now < self.ready_at {
            return;
        }
        if self.pulses.is_empty() {
            let orders = health.echo_orders().into_iter();
            self.pulses = orders.map(|order| Pulse::new(order, ground.now)).collect();
        }
        let mono = ground.clocks.mono(ground.now);
        for pulse in &mut self.pulses {
            if pulse.poll_timeout() > ground.now {
                continue;
            }
            let path = pulse.order.path.clone();
            // Probe hosts go through the same table as people: none, no echo.
            let seen = match pulse.order.family {
                EchoFamily::V4 => ground.world.egress(&path),
                EchoFamily::V6 => ground.town.egress6(&path),
            };
            let open = ground.kernel.has_table();
            let world = &mut ground.world;
            pulse.turn(ground.now, mono, health, &mut || seen.filter(|_| open && world.passes(&path)));
        }
        if health.poll_timeout().is_some_and(|at| at <= mono) {
            health.handle_timeout(mono);
        }
        while let Some(target) = health.poll_check() {
            let service = ground.town.plan.services.get(&target.service);
            let name = service.and_then(|service| service.names.first());
            let at = name.and_then(|name| network.real_of(&target.zone, name, &target.path));
            let at = at.filter(|_| ground.kernel.has_table());
            let (took, outcome) = ground.world.check(&target.path, &target.service, at);
            let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            self.checks.push((ground.now.saturating_add(took), target, outcome));
        }
    }
}
