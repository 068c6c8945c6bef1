//! Health as a whole, against a simulated echo service and simulated services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use seimon_board::Instant;
use seimon_core::health::{
    CheckOutcome, CheckTarget, EchoFamily, EchoOrder, EchoOutcome, EgressVerdict, Families, Health,
    HealthConfig, Liveness, ServiceVerdict, Stage,
};
use seimon_plan::{GroupId, PathId, ServiceId, Thresholds, ZoneId};

fn path() -> PathId {
    PathId::new("direct").expect("an identifier")
}

fn target() -> CheckTarget {
    CheckTarget {
        zone: ZoneId::new("affairs").expect("an identifier"),
        group: GroupId::new("affairs").expect("an identifier"),
        service: ServiceId::new("saas").expect("an identifier"),
        path: path(),
    }
}

fn egress() -> [IpAddr; 2] {
    ["192.0.2.2", "2001:db8:2::2"].map(|a| a.parse().expect("an address"))
}

#[derive(Clone, Copy, PartialEq)]
enum Line {
    Alive,
    Silent,
}

struct Net {
    health: Health,
    now: Instant,
    line: Line,
    checks: u32,
    service: fn() -> CheckOutcome,
    /// Echoes on their way, by when their end is known.
    echoes: Vec<(Instant, PathId, EchoFamily, EchoOutcome)>,
}

const TICK: Duration = Duration::from_millis(10);

impl Net {
    fn new() -> Self {
        let config = HealthConfig {
            thresholds: Thresholds::default(),
            paths: BTreeMap::from([(path(), Families::Both)]),
            targets: BTreeSet::from([target()]),
            registered: BTreeMap::from([(target().group, vec![BTreeSet::from(egress())])]),
            egress_keep: Duration::from_secs(30),
            max_checks: 8,
            seed: 7,
        };
        let now = Instant::from_millis(5_000);
        let service = || CheckOutcome::Good { took: Duration::from_millis(20) };
        Self {
            health: Health::new(config, now),
            now,
            line: Line::Alive,
            checks: 0,
            service,
            echoes: Vec::new(),
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now = self.now + TICK;
            self.health.handle_timeout(self.now);
            while let Some(target) = self.health.poll_check() {
                self.checks += 1;
                let outcome = match self.line {
                    Line::Alive => (self.service)(),
                    Line::Silent => CheckOutcome::Failed { stage: Stage::Tcp, detail: "timed out".into() },
                };
                self.health.handle_check(&target, outcome, self.now);
            }
            self.echo();
        }
    }

    /// What the probe does: an answer is there at once, a loss is known when its time is over.
    fn echo(&mut self) {
        for EchoOrder { path, family, every, timeout } in self.health.echo_orders() {
            if u128::from(self.now.as_micros()).is_multiple_of(every.as_micros()) {
                let answer = (self.line == Line::Alive).then(|| EchoOutcome::Answered {
                    round_trip: Some(Duration::from_millis(5)),
                    seen: egress()[usize::from(family == EchoFamily::V6)],
                });
                let known = if answer.is_some() { self.now } else { self.now + timeout };
                self.echoes.push((known, path, family, answer.unwrap_or(EchoOutcome::Lost)));
            }
        }
        let (known, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.echoes).into_iter().partition(|(known, ..)| *known <= self.now);
        self.echoes = later;
        for (_, path, family, outcome) in known {
            self.health.handle_echo(&path, family, outcome, self.now);
        }
    }

    fn facts(&self) -> seimon_core::health::PathFacts {
        self.health.facts(&target().zone, &target().group, &path(), Some(0), self.now)
    }
}

#[test]
fn within_seconds_of_the_start_everything_is_known() {
    let mut net = Net::new();
    net.run(Duration::from_secs(4));
    let facts = net.facts();
    assert_eq!(facts.liveness, Liveness::Up);
    assert_eq!(facts.egress, EgressVerdict::Registered);
    assert_eq!(facts.service(&target().service), ServiceVerdict::Well);
    // One check is no baseline; three are.
    assert_eq!(facts.latency(), None);
    net.run(Duration::from_secs(150));
    assert_eq!(net.facts().latency(), Some(Duration::from_millis(20)));
}

#[test]
fn silence_is_death_within_a_second_and_a_half_and_recovery_leaves_no_stain() {
    let mut net = Net::new();
    net.run(Duration::from_secs(60));
    net.line = Line::Silent;
    net.run(Duration::from_millis(1_600));
    assert_eq!(net.facts().liveness, Liveness::Down);
    net.run(Duration::from_secs(20));
    net.line = Line::Alive;
    net.run(Duration::from_secs(6));
    let facts = net.facts();
    assert_eq!(facts.liveness, Liveness::Up);
    assert!(facts.loss.is_none_or(|loss| loss == 0.0), "{:?}", facts.loss);
    assert_eq!(
        facts.service(&target().service),
        ServiceVerdict::Well,
        "a dead line says nothing about a service"
    );
    assert_eq!(facts.egress, EgressVerdict::Registered);
}

#[test]
fn an_ill_service_is_found_soon_and_then_not_asked_more_often_than_a_healthy_one() {
    let mut net = Net::new();
    net.run(Duration::from_secs(120));
    net.service = || CheckOutcome::Failed { stage: Stage::Body, detail: "maintenance".into() };
    net.run(Duration::from_secs(45 * 5 / 4 + 6));
    assert_eq!(net.facts().service(&target().service), ServiceVerdict::Ill);
    net.checks = 0;
    net.run(Duration::from_secs(450));
    assert!((8..=14).contains(&net.checks), "{}", net.checks);
}
