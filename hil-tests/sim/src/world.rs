//! The world outside the gateway: lines, services, name servers, what the outside sees of us. It knows the truth; the
//! gateway learns of it only by asking.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use seimon_core::health::{CheckOutcome, Stage};
use seimon_plan::{LineId, PathId, ServiceId};

use crate::dice::Dice;
use crate::schedule::{Happening, Lie};
use crate::town::Town;

/// Loss that people would not notice, in thousandths: no reason to go, and none to stay.
pub const NEGLIGIBLE: u64 = 30;

/// An address that no service has registered.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

/// Something that is wrong for a while.
#[derive(Clone, Debug)]
struct Effect {
    until: u64,
    what: Wrong,
}

#[derive(Clone, Debug)]
enum Wrong {
    Dead { line: LineId },
    Flapping { line: LineId, since: u64, every: u64 },
    Lossy { line: LineId, permille: u64, bursts: bool },
    IllOn { path: PathId, service: ServiceId },
    Ill { service: ServiceId },
    Egress { path: PathId },
    Lying { path: PathId, lie: Lie },
}

/// What is wrong with a path, as the one who knows everything says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    pub dead: bool,
    /// More than negligibly.
    pub lossy: bool,
    /// Services that do not work over it.
    pub ill: Vec<ServiceId>,
    pub unregistered: bool,
    pub lied_to: bool,
}

impl Truth {
    pub fn is_faultless(&self) -> bool {
        *self == Self::default()
    }
}

/// Gilbert and Elliott's channel: mostly good, in bursts bad.
#[derive(Clone, Copy, Debug, Default)]
struct Burst {
    bad: bool,
    until: u64,
}

#[derive(Debug)]
pub struct World<'t> {
    pub town: &'t Town,
    pub now: u64,
    effects: Vec<Effect>,
    bursts: BTreeMap<LineId, Burst>,
    dice: Dice,
}

impl<'t> World<'t> {
    pub fn new(town: &'t Town, dice: Dice) -> Self {
        Self { town, now: 0, effects: Vec::new(), bursts: BTreeMap::new(), dice }
    }

    /// What is over is over.
    pub fn advance(&mut self, now: u64) {
        self.now = now;
        self.effects.retain(|effect| effect.until > now);
    }

    pub fn heal(&mut self) {
        self.effects.clear();
    }

    /// Takes what happens outside the gateway; other things are not for the world.
    pub fn happen(&mut self, what: &Happening) {
        let now = self.now;
        let line = |name: &str| LineId::new(name).ok().filter(|id| self.town.plan.lines.contains_key(id));
        let path = |name: &str| PathId::new(name).ok().filter(|id| self.town.plan.paths.contains_key(id));
        let wrong = match what {
            Happening::LineDies { line: name, for_ms } => {
                line(name).map(|line| (Wrong::Dead { line }, *for_ms))
            }
            Happening::LineFlaps { line: name, every_ms, for_ms } => line(name)
                .map(|line| (Wrong::Flapping { line, since: now, every: (*every_ms).max(1) }, *for_ms)),
            Happening::LineLoses { line: name, permille, bursts, for_ms } => {
                line(name).map(|line| (Wrong::Lossy { line, permille: *permille, bursts: *bursts }, *for_ms))
            }
            Happening::IllOnPath { path: name, service, for_ms } => {
                let service = ServiceId::new(service.as_str()).ok();
                path(name).zip(service).map(|(path, service)| (Wrong::IllOn { path, service }, *for_ms))
            }
            Happening::IllEverywhere { service, for_ms } => {
                ServiceId::new(service.as_str()).ok().map(|service| (Wrong::Ill { service }, *for_ms))
            }
            Happening::EgressChanges { path: name, for_ms } => {
                path(name).map(|path| (Wrong::Egress { path }, *for_ms))
            }
            Happening::ResolverLies { path: name, lie, for_ms } => {
                path(name).map(|path| (Wrong::Lying { path, lie: *lie }, *for_ms))
            }
            Happening::Start { .. }
            | Happening::Pause { .. }
            | Happening::Resume { .. }
            | Happening::RollBack { .. }
            | Happening::Kill { .. }
            | Happening::PowerCut { .. }
            | Happening::DiskFull { .. }
            | Happening::KernelRefuses { .. }
            | Happening::Flush
            | Happening::ClockJumps { .. }
            | Happening::ClockUntrusted { .. }
            | Happening::Upgrade { .. }
            | Happening::Rush { .. } => None,
        };
        if let Some((what, for_ms)) = wrong {
            self.effects.push(Effect { until: now + for_ms.max(1), what });
        }
    }

    fn line_of(&self, path: &PathId) -> Option<&'t LineId> {
        self.town.plan.paths.get(path).map(|path| &path.line)
    }

    pub fn is_dead(&self, path: &PathId) -> bool {
        let Some(of) = self.line_of(path) else { return true };
        self.effects.iter().any(|effect| match &effect.what {
            Wrong::Dead { line } => line == of,
            Wrong::Flapping { line, since, every } => {
                line == of && ((self.now - since) / every).is_multiple_of(2)
            }
            Wrong::Lossy { .. }
            | Wrong::IllOn { .. }
            | Wrong::Ill { .. }
            | Wrong::Egress { .. }
            | Wrong::Lying { .. } => false,
        })
    }

    fn loss(&self, of: &LineId) -> Option<(u64, bool)> {
        self.effects
            .iter()
            .filter_map(|effect| match &effect.what {
                Wrong::Lossy { line, permille, bursts } if line == of => Some((*permille, *bursts)),
                Wrong::Lossy { .. }
                | Wrong::Dead { .. }
                | Wrong::Flapping { .. }
                | Wrong::IllOn { .. }
                | Wrong::Ill { .. }
                | Wrong::Egress { .. }
                | Wrong::Lying { .. } => None,
            })
            .max()
    }

    fn is_ill(&self, on: &PathId, what: &ServiceId) -> bool {
        self.effects.iter().any(|effect| match &effect.what {
            Wrong::IllOn { path, service } => path == on && service == what,
            Wrong::Ill { service } => service == what,
            Wrong::Dead { .. }
            | Wrong::Flapping { .. }
            | Wrong::Lossy { .. }
            | Wrong::Egress { .. }
            | Wrong::Lying { .. } => false,
        })
    }

    fn lie(&self, on: &PathId) -> Option<Lie> {
        self.effects.iter().find_map(|effect| match &effect.what {
            Wrong::Lying { path, lie } if path == on => Some(*lie),
            Wrong::Lying { .. }
            | Wrong::Dead { .. }
            | Wrong::Flapping { .. }
            | Wrong::Lossy { .. }
            | Wrong::IllOn { .. }
            | Wrong::Ill { .. }
            | Wrong::Egress { .. } => None,
        })
    }

    fn has_strange_egress(&self, on: &PathId) -> bool {
        self.effects.iter().any(|effect| matches!(&effect.what, Wrong::Egress { path } if path == on))
    }

    pub fn truth(&self, path: &PathId) -> Truth {
        let services = self.town.plan.services.keys();
        let flapping = self.effects.iter().any(|effect| match &effect.what {
            Wrong::Flapping { line, .. } => Some(line) == self.line_of(path),
            Wrong::Dead { .. }
            | Wrong::Lossy { .. }
            | Wrong::IllOn { .. }
            | Wrong::Ill { .. }
            | Wrong::Egress { .. }
            | Wrong::Lying { .. } => false,
        });
        Truth {
            dead: self.is_dead(path),
            lossy: flapping
                || self
                    .line_of(path)
                    .and_then(|line| self.loss(line))
                    // Bursts are short outages, however rare.
                    .is_some_and(|(permille, bursts)| bursts || permille > NEGLIGIBLE),
            ill: services.filter(|service| self.is_ill(path, service)).cloned().collect(),
            unregistered: self.has_strange_egress(path),
            lied_to: self.lie(path).is_some(),
        }
    }

    /// Whether one packet and its answer come through.
    pub fn passes(&mut self, path: &PathId) -> bool {
        if self.is_dead(path) {
            return false;
        }
        let Some(line) = self.line_of(path) else { return false };
        let Some((permille, bursts)) = self.loss(line) else { return true };
        let share = permille as f64 / 1000.0;
        if !bursts {
            return !self.dice.chance(share);
        }
        let burst = self.bursts.entry(line.clone()).or_default();
        while burst.until <= self.now {
            burst.bad = !burst.bad;
            // Bad for 0.4 s on average, and good for as long as makes the share right.
            let mean = if burst.bad { 400.0 } else { 400.0 * (1.0 - share) / share.max(0.001) };
            let span = -mean * (1.0 - self.dice.roll(1_000_000) as f64 / 1_000_001.0).ln();
            burst.until = burst.until.max(self.now) + (span as u64).max(1);
        }
        !burst.bad
    }

    /// The source that the outside sees on the path.
    pub fn egress(&self, path: &PathId) -> Option<IpAddr> {
        if self.has_strange_egress(path) { Some(STRANGER.into()) } else { self.town.egress(path) }
    }

    /// What the path's resolvers say: `None` nothing at all, `Some(None)` no such name.
    pub fn resolve(&mut self, name: &str, path: &PathId) -> Option<Option<Ipv4Addr>> {
        // It is asked several times within seconds: what is only lossy answers in the end, unless nearly all is lost.
        let line = self.line_of(path)?;
        let hopeless = self.loss(line).is_some_and(|(permille, _)| permille > 500);
        if self.is_dead(path) || (hopeless && !self.passes(path)) {
            return None;
        }
        Some(match self.lie(path) {
            Some(Lie::Nothing) => None,
            Some(Lie::Elsewhere) => Some(Ipv4Addr::new(203, 0, 113, 250)),
            Some(Lie::Inside) => {
                let printers = self.town.plan.zones.values().next_back();
                printers.map(|zone| Ipv4Addr::from(u32::from(zone.ipv4.network()) | 100))
            }
            None => self.town.real_address(name, path),
        })
    }

    /// What one request to the service's address over the path comes to, and how long it takes. `at`: where the gateway
    /// sent it.
    pub fn ask(&mut self, path: &PathId, service: &ServiceId, at: IpAddr) -> (Duration, Result<(), Stage>) {
        let timeout = self.town.plan.migration.thresholds.check_timeout.0;
        let mut took = Duration::ZERO;
        // A handshake of TCP, two of TLS, request and answer; what is lost is sent again.
        for round in 0..4 {
            let mut wait = Duration::from_millis(if round == 0 { 1_000 } else { 300 });
            while !self.passes(path) {
                took += wait;
                wait *= 2;
                if took >= timeout {
                    return (timeout, Err(Stage::Tcp));
                }
            }
            took += Duration::from_millis(5 + self.dice.roll(3));
        }
        let Some(spec) = self.town.plan.services.get(service) else { return (took, Err(Stage::Dns)) };
        let known = |name: &String| self.town.real_address(name, path).map(IpAddr::V4) == Some(at);
        if !spec.names.iter().any(known) {
            return (took, Err(Stage::Tls));
        }
        let accepted = spec.registered_egress.is_empty()
            || self.egress(path).is_some_and(|seen| spec.registered_egress.contains(&seen));
        if !accepted || self.is_ill(path, service) {
            return (took, Err(Stage::HttpStatus));
        }
        (took, Ok(()))
    }

    /// One whole check of the service over the path, from the probe host.
    pub fn check(
        &mut self,
        path: &PathId,
        service: &ServiceId,
        at: Option<IpAddr>,
    ) -> (Duration, CheckOutcome) {
        let failed = |stage| CheckOutcome::Failed { stage, detail: "simulated".into() };
        let Some(at) = at else { return (Duration::from_millis(10), failed(Stage::Dns)) };
        match self.ask(path, service, at) {
            (took, Ok(())) => (took, CheckOutcome::Good { took }),
            (took, Err(stage)) => (took, failed(stage)),
        }
    }
}
