//! Health as a whole, against a simulated echo service and simulated services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use seimon_board::Instant;
use seimon_core::health::{
    Ailment, CheckOutcome, CheckTarget, EchoFamily, EchoOrder, EchoOutcome, EchoSize, EgressVerdict,
    Families, Health, HealthConfig, HealthEvent, Liveness, LivenessConfig, ServiceVerdict, Stage,
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
    echoes: Vec<(Instant, PathId, EchoFamily, EchoSize, EchoOutcome)>,
    /// The echo service answers these.
    answers: fn(EchoFamily, EchoSize) -> bool,
}

const TICK: Duration = Duration::from_millis(10);

impl Net {
    fn new() -> Self {
        let config = HealthConfig {
            thresholds: Thresholds::default(),
            paths: BTreeMap::from([(path(), Families::Both)]),
            sizes: BTreeMap::from([(path(), 1454)]),
            targets: BTreeSet::from([target()]),
            registered: BTreeMap::from([(target().group, vec![BTreeSet::from(egress())])]),
            egress_keep: Duration::from_secs(30),
            metered: BTreeMap::new(),
            shared: BTreeSet::new(),
            checks_per_interval: 7,
            max_checks: 8,
            more_in_row: LivenessConfig::MORE_IN_ROW,
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
            answers: |_, _| true,
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
        for EchoOrder { path, family, every, timeout, size, silence: _ } in self.health.echo_orders() {
            if u128::from(self.now.as_micros()).is_multiple_of(every.as_micros()) {
                let passes = self.line == Line::Alive && (self.answers)(family, size);
                let answer = passes.then(|| EchoOutcome::Answered {
                    round_trip: Some(Duration::from_millis(5)),
                    seen: egress()[usize::from(family == EchoFamily::V6)],
                });
                let known = if answer.is_some() { self.now } else { self.now + timeout };
                self.echoes.push((known, path, family, size, answer.unwrap_or(EchoOutcome::Lost)));
            }
        }
        let (known, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.echoes).into_iter().partition(|(known, ..)| *known <= self.now);
        self.echoes = later;
        for (_, path, family, size, outcome) in known {
            match size {
                EchoSize::Small => self.health.handle_echo(&path, family, outcome, self.now),
                EchoSize::Full(_) => self.health.handle_large(&path, outcome, self.now),
            }
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
fn silence_is_death_within_two_seconds_even_without_quick_echoes_and_recovery_leaves_no_stain() {
    let mut net = Net::new();
    net.run(Duration::from_secs(60));
    net.line = Line::Silent;
    net.run(Duration::from_millis(2_010));
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

#[test]
fn a_silence_that_is_told_at_once_is_death_at_once() {
    let mut net = Net::new();
    net.run(Duration::from_secs(60));
    for _ in 0..20 {
        net.health.handle_echo(&path(), EchoFamily::V4, EchoOutcome::Lost, net.now);
    }
    assert_eq!(net.facts().liveness, Liveness::Down);
}

#[test]
fn ipv6_that_breaks_alone_is_told_and_neither_kills_the_path_nor_bars_it() {
    let mut net = Net::new();
    net.run(Duration::from_secs(60));
    assert_eq!(net.health.ipv6(&path()), Liveness::Up);
    net.answers = |family, _| family == EchoFamily::V4;
    net.run(Duration::from_secs(60));
    assert_eq!(net.health.ipv6(&path()), Liveness::Down);
    let facts = net.facts();
    assert_eq!((facts.liveness, facts.ailment), (Liveness::Up, None));
    assert_eq!(facts.egress, EgressVerdict::Registered, "what is not used need not be measured");
    let told = std::iter::from_fn(|| net.health.poll_event());
    assert!(told.into_iter().any(|e| matches!(e, HealthEvent::Ipv6 { verdict: Liveness::Down, .. })));
    net.answers = |_, _| true;
    net.run(Duration::from_secs(60));
    assert_eq!(net.health.ipv6(&path()), Liveness::Up);
}

#[test]
fn packets_of_full_size_that_vanish_are_found_within_a_minute() {
    let mut net = Net::new();
    net.run(Duration::from_secs(60));
    net.answers = |_, size| size == EchoSize::Small;
    net.run(Duration::from_secs(60));
    let facts = net.facts();
    assert_eq!((facts.liveness, facts.ailment), (Liveness::Up, Some(Ailment::LargeStall)));
    net.answers = |_, _| true;
    net.run(Duration::from_secs(60));
    assert_eq!(net.facts().ailment, None);
}

#[test]
fn an_echo_service_that_never_answers_full_size_says_nothing_about_a_path() {
    let mut net = Net::new();
    net.answers = |_, size| size == EchoSize::Small;
    net.run(Duration::from_secs(600));
    assert_eq!(net.facts().ailment, None);
}

/// A probe as the orders describe it, on a line that loses packets: after two echoes without an answer it sends more of
/// them quickly, and tells a silence when all of the last second's were lost. Time in milliseconds.
struct LossyLine {
    path: PathId,
    health: Health,
    lost: Box<dyn FnMut(u64) -> bool>,
    unanswered: u32,
}

impl LossyLine {
    fn new(lost: impl FnMut(u64) -> bool + 'static) -> Self {
        Self { path: path(), health: Net::new().health, lost: Box::new(lost), unanswered: 0 }
    }

    fn end(&mut self, at: u64, outcome: EchoOutcome) {
        self.health.handle_echo(&self.path, EchoFamily::V4, outcome, Instant::from_millis(at));
    }

    /// One regular echo, and what it leads to. True: something was held against the path.
    fn step(&mut self, at: u64) -> bool {
        let answered = || EchoOutcome::Answered { round_trip: None, seen: egress()[0] };
        if !(self.lost)(at) {
            for _ in 0..std::mem::take(&mut self.unanswered) {
                self.end(at, EchoOutcome::Lost);
            }
            self.end(at, answered());
        } else {
            self.unanswered += 1;
            let quick = (0..10).map(|n| at + 20 * n).skip(1).filter(|_| self.unanswered >= 2);
            let broken = quick.into_iter().find(|&at| !(self.lost)(at));
            if let Some(at) = broken {
                for _ in 0..std::mem::take(&mut self.unanswered) {
                    self.end(at, EchoOutcome::Lost);
                }
                self.end(at, answered());
            } else if self.unanswered >= 5 {
                for _ in 0..30 {
                    self.end(at, EchoOutcome::Lost);
                }
                self.unanswered = 0;
            }
        }
        self.health.liveness(&self.path) == Liveness::Down || self.health.ailment(&self.path).is_some()
    }

    /// Times within 100 hours at which something was held against the path.
    fn false_alarms(&mut self) -> usize {
        (0..1_800_000_u64).filter(|n| self.step(10_000 + n * 200)).count()
    }
}

/// SplitMix64, between 0 and 1.
fn dice(mut state: u64) -> impl FnMut() -> f64 {
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) as f64 / u64::MAX as f64
    }
}

#[test]
fn a_hundred_hours_of_five_per_cent_loss_are_held_against_no_path() {
    let mut roll = dice(1);
    assert_eq!(LossyLine::new(move |_| roll() < 0.05).false_alarms(), 0, "each packet by itself");
    // Gilbert and Elliott: times in which everything is lost, 50 ms on average and sometimes over half a second.
    let mut roll = dice(2);
    let (mut bad, mut until) = (false, 0.0);
    let bursts = move |at: u64| {
        while until < at as f64 {
            bad = !bad;
            until += -roll().ln() * if bad { 50.0 } else { 950.0 };
        }
        bad
    };
    assert_eq!(LossyLine::new(bursts).false_alarms(), 0, "in bursts");
}

#[test]
fn a_line_that_dies_under_five_per_cent_loss_is_found_dead_all_the_same() {
    let mut roll = dice(3);
    let mut line = LossyLine::new(move |at| at >= 60_000 || roll() < 0.05);
    let found = (50..).map(|n| n * 200).find(|&at| line.step(at)).expect("found");
    assert!((60_000..=61_200).contains(&found), "{found}");
}
