//! The resolver: the real core, on servers of the simulated paths. It dies with the agent.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use seimon_core::health::Liveness;
use seimon_core::migration::ZoneGroup;
use seimon_ipc::resolver::{
    Family6, FromResolver, NamedService, PathUp, PathView, ResolverConfig, ToResolver, Transport, ZoneView,
};
use seimon_plan::{GroupId, INTERNET_GROUP, PathId, PathIpv6, ZoneId};
use seimon_resolver::names::{Action, Limits, NoAnswer, Resolver, Without};

use super::network::Network;
use crate::ground::Ground;

/// Seconds that servers let their answers be kept.
const TTL: u8 = 20;
const TIMEOUT: u64 = 3_000;
const A: u16 = 1;

#[derive(Debug)]
pub(super) struct Names {
    resolver: Resolver,
    situation: Option<Situation>,
    /// Questions to servers, by when their end is known.
    under_way: Vec<(u64, u64, Result<Vec<u8>, NoAnswer>)>,
    /// Answers to clients, by query.
    pub(super) answers: BTreeMap<u64, Vec<u8>>,
    ready_at: u64,
}

/// New flows' path of every group, and which paths live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Situation {
    pub(super) current: BTreeMap<ZoneGroup, PathId>,
    pub(super) liveness: BTreeMap<PathId, Liveness>,
}

impl Names {
    pub(super) fn new(ground: &Ground<'_, '_>) -> Self {
        Self {
            resolver: Resolver::new(Limits::default(), Without::default()),
            situation: None,
            under_way: Vec::new(),
            answers: BTreeMap::new(),
            ready_at: ground.now + 300,
        }
    }

    pub(super) fn tell(&mut self, situation: Situation, ground: &Ground<'_, '_>) {
        if self.situation.as_ref() != Some(&situation) {
            let now = ground.clocks.mono(ground.now);
            let config = configuration(&situation, ground);
            self.resolver.handle_agent(ToResolver::Configure(config), now);
            self.situation = Some(situation);
        }
    }

    pub(super) fn turn(&mut self, ground: &mut Ground<'_, '_>, network: &mut Network) {
        if ground.now < self.ready_at {
            return;
        }
        let now = ground.clocks.mono(ground.now);
        while let Some(at) = self.under_way.iter().position(|(at, ..)| *at <= ground.now) {
            let (_, job, outcome) = self.under_way.swap_remove(at);
            self.resolver.handle_upstream(job, outcome, now);
        }
        if self.resolver.poll_timeout().is_some_and(|at| at <= now) {
            self.resolver.handle_timeout(now);
        }
        while let Some(action) = self.resolver.poll_action() {
            match action {
                Action::Answer { query, message } => {
                    self.answers.insert(query, message);
                }
                Action::Ask(ask) => {
                    let source = ask.source.map(|(four, _)| four);
                    let sources = &ground.town.allocation.path_sources;
                    let path = sources.iter().find(|(_, (four, _))| Some(*four) == source);
                    let (took, outcome) = match path {
                        Some((path, _)) => serve(&ask.message, path, ground),
                        None => (0, Err(NoAnswer::Unreachable)),
                    };
                    self.under_way.push((ground.now + took, ask.job, outcome));
                }
                Action::Tell(FromResolver::Bind { token, zone, name, path, ipv4, ipv6: _ }) => {
                    let message = if network.bind(&zone, &name, &path, ipv4, ground) {
                        ToResolver::InForce { token }
                    } else {
                        ToResolver::NotInForce { token, reason: "simulated".into() }
                    };
                    self.resolver.handle_agent(message, now);
                }
                Action::Tell(
                    FromResolver::Hello { .. } | FromResolver::Stats(_) | FromResolver::Wpad { .. },
                ) => {}
            }
        }
    }

    /// A client asks for the name's address; the answer comes with a later turn.
    pub(super) fn ask(
        &mut self,
        zone: &ZoneId,
        client: IpAddr,
        name: &str,
        ground: &Ground<'_, '_>,
    ) -> Option<u64> {
        if ground.now < self.ready_at {
            return None;
        }
        let now = ground.clocks.mono(ground.now);
        self.resolver.handle_query(zone, client, Transport::Udp, &question(name), now)
    }
}

/// What the path's servers say, and after how long.
fn serve(message: &[u8], path: &PathId, ground: &mut Ground<'_, '_>) -> (u64, Result<Vec<u8>, NoAnswer>) {
    let Some((name, kind, end)) = parse(message) else { return (10, Err(NoAnswer::Ill)) };
    // The gateway's own questions pass the same table.
    let reached = ground.kernel.has_table();
    let said = if reached { ground.world.resolve(&name, path) } else { None };
    match said {
        None => (TIMEOUT, Err(NoAnswer::TimedOut)),
        Some(real) => (20, Ok(answer(&message[..end], real.filter(|_| kind == A)))),
    }
}

/// The first question: its name, its type, and where it ends.
fn parse(message: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = 12;
    let mut labels: Vec<String> = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(std::str::from_utf8(message.get(at..at + length)?).ok()?.to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?);
    Some((labels.join("."), kind, at + 4))
}

/// `question`: header and question of what was asked.
fn answer(question: &[u8], real: Option<Ipv4Addr>) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
    if let Some(real) = real {
        message[7] = 1;
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, TTL, 0, 4]);
        message.extend(real.octets());
    }
    message
}

fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap_or(0));
        message.extend_from_slice(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// The one address of an answer, if there is one.
pub(super) fn address_in(message: &[u8]) -> Option<Ipv4Addr> {
    let (_, _, end) = parse(message)?;
    let answers = u16::from_be_bytes(message.get(6..8)?.try_into().ok()?);
    // The question's name again as a pointer, type, class, time, length.
    let data = message.get(end + 12..end + 16)?;
    let four: [u8; 4] = data.try_into().ok()?;
    (answers > 0 && message.get(end + 2..end + 4)? == [0, 1]).then(|| Ipv4Addr::from(four))
}

fn configuration(situation: &Situation, ground: &Ground<'_, '_>) -> ResolverConfig {
    let town = ground.town;
    let paths = town.plan.paths.iter().filter_map(|(id, path)| {
        let &(source4, source6) = town.allocation.path_sources.get(id)?;
        let ipv6 = match path.ipv6 {
            PathIpv6::None => Family6::Withheld,
            PathIpv6::Native | PathIpv6::Nat66 | PathIpv6::Nptv6 => Family6::Carried,
        };
        let up = match situation.liveness.get(id) {
            Some(Liveness::Down) => PathUp::Down,
            Some(Liveness::Up | Liveness::Unknown) | None => PathUp::Up,
        };
        Some((id.clone(), PathView { servers: path.resolvers.clone(), source4, source6, ipv6, up }))
    });
    let current = |zone: &ZoneId, group: &GroupId| {
        situation.current.get(&ZoneGroup { zone: zone.clone(), group: group.clone() }).cloned()
    };
    let mut zones: BTreeMap<ZoneId, ZoneView> = BTreeMap::new();
    for zone in town.plan.zones.keys() {
        let others = GroupId::new(INTERNET_GROUP).ok().and_then(|internet| current(zone, &internet));
        zones.insert(zone.clone(), ZoneView { others, ..ZoneView::default() });
    }
    for ((zone, name), &(inside4, inside6)) in &town.allocation.inside {
        let service = town.plan.services.values().find(|service| service.names.contains(name));
        let Some(route) = service.and_then(|service| town.plan.route(zone, &service.group)) else { continue };
        let view = NamedService {
            inside4,
            inside6,
            current: current(zone, &route.group),
            paths: route.paths.clone(),
        };
        if let Some(zone) = zones.get_mut(zone) {
            zone.services.insert(name.to_ascii_lowercase(), view);
        }
    }
    ResolverConfig { paths: paths.collect(), zones }
}
