//! 5 % of packets lost for a hundred hours, with the plan's default thresholds and times, on every path at once: nobody is
//! to be moved for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use seimon_board::Instant;
use seimon_core::health::{CheckOutcome, FlowCount, Health, HealthConfig, Stage};
use seimon_core::migration::{
    Action, BootId, Checkpoint, ClockTrust, Config, DiskRoom, Event, Machine, Mechanisms, Passed, View,
    WindowState,
};
use seimon_plan::{PathId, Thresholds, Times};

use crate::dice::Dice;
use crate::pulse::Pulse;
use crate::town::Town;

/// How packets are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    Independent {
        share: f64,
    },
    /// Gilbert and Elliott: a good and a bad state, each left after a time that is exponentially distributed.
    Bursts {
        share: f64,
        mean_ms: f64,
        lost_in_bad: f64,
        lost_in_good: f64,
    },
}

impl Loss {
    pub const FIVE_PERCENT: Self = Self::Independent { share: 0.05 };
    /// As a full queue drops them: bursts of 50 ms on average, in which nine of ten are lost.
    pub const FIVE_PERCENT_IN_BURSTS: Self =
        Self::Bursts { share: 0.05, mean_ms: 50.0, lost_in_bad: 0.9, lost_in_good: 0.002 };
}

/// One path's way out and back.
#[derive(Clone, Debug)]
pub struct Channel {
    loss: Loss,
    bad: bool,
    until: f64,
    dice: Dice,
}

impl Channel {
    pub const fn new(loss: Loss, dice: Dice) -> Self {
        Self { loss, bad: true, until: 0.0, dice }
    }

    /// Whether a packet at this time, in milliseconds and not before the one asked for last, is lost.
    pub fn loses(&mut self, at: f64) -> bool {
        match self.loss {
            Loss::Independent { share } => self.dice.chance(share),
            Loss::Bursts { share, mean_ms, lost_in_bad, lost_in_good } => {
                let bad_share = ((share - lost_in_good) / (lost_in_bad - lost_in_good)).clamp(0.0, 1.0);
                while self.until <= at {
                    self.bad = !self.bad;
                    let mean =
                        if self.bad { mean_ms } else { mean_ms * (1.0 - bad_share) / bad_share.max(1e-6) };
                    let uniform = (self.dice.next() >> 11) as f64 / (1_u64 << 53) as f64;
                    self.until += -mean * (1.0 - uniform).ln();
                }
                self.dice.chance(if self.bad { lost_in_bad } else { lost_in_good })
            }
        }
    }

    /// A whole check: what is lost is sent again.
    fn check(&mut self, at: f64, timeout: Duration) -> CheckOutcome {
        let mut took = 0.0;
        for round in 0..4 {
            let mut wait = if round == 0 { 1_000.0 } else { 300.0 };
            while self.loses(at + took) {
                took += wait;
                wait *= 2.0;
                if took >= timeout.as_secs_f64() * 1000.0 {
                    return CheckOutcome::Failed { stage: Stage::Tcp, detail: "simulated".into() };
                }
            }
            took += 5.0;
        }
        CheckOutcome::Good { took: Duration::from_micros((took * 1000.0) as u64) }
    }
}

/// What became of one zone's group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Times that new flows were sent another way.
    pub moves: u64,
    pub echoes: u64,
    pub lost: u64,
    pub checks: u64,
    pub failed_checks: u64,
    /// Users' new flows, and those that had no answer in time.
    pub flows: u64,
    pub unanswered: u64,
}

/// New flows of users in a second, as in a school at work.
const FLOWS_A_SECOND: u64 = 10;
/// Between two counts of them, milliseconds.
const HOUSEKEEPING: u64 = 2_000;
/// Since its first packet: when a client tries again, until the flow counts as unanswered.
const TRIES: [f64; 3] = [0.0, 1_000.0, 3_000.0];

/// So long at rest on `home`, all paths losing packets.
pub fn watch(town: &Town, home: &PathId, loss: Loss, hours: u64, seed: u64) -> Option<Watched> {
    let route = town.plan.routes().iter().find(|route| route.group.as_str() == "affairs")?;
    let mut plan = (*town.plan).clone();
    plan.migration.thresholds = Thresholds::default();
    plan.migration.times = Times::default();
    let config = Config::from_plan(&plan, route, Mechanisms::default());
    let zone_group = config.zone_group.clone();
    let mut dice = Dice::new(seed);
    let mut channels: BTreeMap<PathId, Channel> =
        plan.paths.keys().map(|path| (path.clone(), Channel::new(loss, dice.split()))).collect();
    let mut now = 5_000_u64;
    // One for each try: time does not go back on a channel, and a burst does not last from one try to the next.
    let mut users = TRIES.map(|after| (after, Channel::new(loss, dice.split())));
    let mono = Instant::from_millis;
    let health_config = HealthConfig::from_plan(&plan, seed);
    let timeout = health_config.thresholds.check_timeout.0;
    let mut health = Health::new(health_config, mono(now));
    let mut pulses: Vec<Pulse> =
        health.echo_orders().into_iter().map(|order| Pulse::new(order, now)).collect();
    let view = |health: &Health, now: u64| View {
        disk: DiskRoom::Enough,
        window: WindowState::Open,
        clock: ClockTrust::Trusted,
        paths: route
            .paths
            .iter()
            .map(|path| {
                let facts = health.facts(&zone_group.zone, &zone_group.group, path, Some(0), mono(now));
                (path.clone(), facts)
            })
            .collect(),
        boot: BootId("boot-1".into()),
        wall_ms: 0,
    };
    let rest = format!(
        r#"{{"version":1,"zone_group":{{"zone":"{}","group":"{}"}},"home":"{home}","previous":null,
        "state":{{"state":"steady","path":"{home}"}},"holds":[],"boot":"boot-0","at":0,"wall_ms":0}}"#,
        zone_group.zone, zone_group.group
    );
    let checkpoint: Checkpoint = serde_json::from_str(&rest).ok()?;
    let mut machine = Machine::restore(config, &checkpoint, &view(&health, now), mono(now)).ok()?;
    let mut watched = Watched::default();
    let mut checks: Vec<(u64, seimon_core::health::CheckTarget, CheckOutcome)> = Vec::new();
    let mut house_at = now;
    let mut current = home.clone();
    let end = now + hours * 3_600_000;
    while now < end {
        let next = pulses
            .iter()
            .map(Pulse::poll_timeout)
            .chain(checks.iter().map(|(at, ..)| *at))
            .chain(health.poll_timeout().map(|at| at.as_micros().div_ceil(1_000)))
            .chain([house_at])
            .min()?;
        now = next.max(now + 1);
        for pulse in &mut pulses {
            if pulse.poll_timeout() > now {
                continue;
            }
            let path = pulse.order.path.clone();
            let seen = match pulse.order.family {
                seimon_core::health::EchoFamily::V4 => town.egress(&path),
                seimon_core::health::EchoFamily::V6 => town.egress6(&path),
            };
            let channel = channels.get_mut(&path)?;
            let mut ask = || -> Option<IpAddr> {
                watched.echoes += 1;
                let lost = channel.loses(now as f64);
                watched.lost += u64::from(lost);
                seen.filter(|_| !lost)
            };
            pulse.turn(now, mono(now), &mut health, &mut ask);
        }
        if health.poll_timeout().is_some_and(|at| at <= mono(now)) {
            health.handle_timeout(mono(now));
        }
        while let Some(target) = health.poll_check() {
            let outcome = channels.get_mut(&target.path)?.check(now as f64, timeout);
            let took = match &outcome {
                CheckOutcome::Good { took } => *took,
                CheckOutcome::Failed { .. } => timeout,
            };
            checks.push((now + u64::try_from(took.as_millis()).unwrap_or(0), target, outcome));
        }
        let mut news = false;
        while let Some(at) = checks.iter().position(|(at, ..)| *at <= now) {
            let (_, target, outcome) = checks.swap_remove(at);
            watched.checks += 1;
            let passed = match &outcome {
                CheckOutcome::Good { .. } => Passed::Yes,
                CheckOutcome::Failed { .. } => Passed::No,
            };
            watched.failed_checks += u64::from(passed == Passed::No);
            health.handle_check(&target, outcome, mono(now));
            if target.zone == zone_group.zone && target.group == zone_group.group {
                let event = Event::Check { path: target.path, service: target.service, passed };
                machine.handle_event(event, &view(&health, now), mono(now));
            }
        }
        while health.poll_event().is_some() {
            news = true;
        }
        if news || house_at <= now {
            if house_at <= now {
                house_at = now + HOUSEKEEPING;
                let mut count = FlowCount::default();
                for n in 0..FLOWS_A_SECOND * HOUSEKEEPING / 1_000 {
                    let begun = (now + n * 1_000 / FLOWS_A_SECOND) as f64;
                    count.total += 1;
                    let mut tries = users.iter_mut();
                    count.answered += u64::from(tries.any(|(after, way)| !way.loses(begun + *after)));
                }
                watched.flows += count.total;
                watched.unanswered += count.total - count.answered;
                health.handle_flows(&zone_group.zone, &zone_group.group, &current, count, mono(now));
            }
            machine.handle_event(Event::FactsChanged, &view(&health, now), mono(now));
        }
        if machine.poll_timeout().is_some_and(|(at, _)| at <= mono(now)) {
            machine.handle_timeout(&view(&health, now), mono(now));
        }
        while let Some(action) = machine.poll_action() {
            let event = if let Action::WriteCheckpoint { id, .. } = action {
                Some(Event::CheckpointDurable { id })
            } else if let Action::SetCurrent { id, path, .. } = action {
                watched.moves += u64::from(path != current);
                current = path;
                Some(Event::ChangeInForce { id })
            } else {
                None
            };
            if let Some(event) = event {
                machine.handle_event(event, &view(&health, now), mono(now));
            }
        }
    }
    Some(watched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_lose_as_much_as_they_say_and_bursts_come_together() {
        for loss in [Loss::FIVE_PERCENT, Loss::FIVE_PERCENT_IN_BURSTS] {
            let mut channel = Channel::new(loss, Dice::new(3));
            let lost: Vec<bool> = (0..1_000_000).map(|n| channel.loses(f64::from(n) * 10.0)).collect();
            let share = lost.iter().filter(|&&lost| lost).count() as f64 / lost.len() as f64;
            assert!((0.045..0.055).contains(&share), "{loss:?}: {share}");
            let pairs = lost.windows(2).filter(|pair| pair[0] && pair[1]).count() as f64;
            let again = pairs / (share * lost.len() as f64);
            assert_eq!(again > 0.5, loss != Loss::FIVE_PERCENT, "{loss:?}: {again}");
        }
    }
}
