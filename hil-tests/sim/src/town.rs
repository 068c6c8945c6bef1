//! The towns that are simulated: real plans, with short times so that much happens in little virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, anyhow};
use seimon_board::Board;
use seimon_core::network_plan::{Allocation, Generation, NetworkPlan, PathChoice, compile};
use seimon_plan::{GroupId, PathId, PathKind, ValidSitePlan, ZoneId, parse, with_overrides};
use serde::{Deserialize, Serialize};

const BOARD: &str = r#"id = "lab-namespace"
description = "As the lab's, with a third uplink"
[ports]
WAN1 = { interface = "wan1", role = "wan" }
WAN2 = { interface = "wan2", role = "wan" }
WAN3 = { interface = "wan3", role = "wan" }
LAN1 = { interface = "lan1", role = "lan" }
LAN2 = { interface = "lan2", role = "lan" }
LAN3 = { interface = "lan3", role = "lan" }
LAN4 = { interface = "lan4", role = "lan" }
"#;

const TWO_LINES: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../provisioning/plan/examples/two-line-town.toml"));
const ONE_LINE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../provisioning/plan/examples/one-line-town.toml"));

/// As short as the plan's rules allow and the mechanisms need.
const TIMES: &str = r#"
"migration.times" = { qualify = "10s", soak = "10s", drain = "40s", hold_down = "10s" }
"migration.thresholds" = { check_interval = "10s", check_interval_moving = "1s" }
"migration.windows" = [{ days = ["sat", "sun"], from = "18:00", to = "06:00" }]
"migration.freezes" = [{ first = "2027-03-01", last = "2027-03-31", reason = "marks" }]
"#;

const THIRD_LINE: &str = r#"
"lines.second" = { port = "WAN3", ipv4 = "10.11.0.1/30", gateway4 = "10.11.0.2" }
"paths.vpn" = { line = "second", kind = "plain", ipv6 = "none", nat4 = "routed", resolvers = ["10.50.0.53"] }
"#;

/// A few clients of one zone try first.
const CANARY: &str = r#"
"migration.routes[0].canary" = { rooms = ["office"], time = "10s" }
"migration.rooms.office" = { zone = "affairs", prefixes = ["10.20.1.64/27"] }
"#;
/// Last byte of the addresses of those who are in the room, and of everybody else.
pub const IN_THE_ROOM: u8 = 70;
pub const ELSEWHERE: u8 = 100;

/// Drain deadline and idle time of log-ins in [`Town`]s, milliseconds.
pub const DRAIN_MS: u64 = 40_000;
pub const IDLE_MS: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TownKind {
    TwoLines,
    ThreeLines,
    /// As the first, with a canary.
    Canary,
    /// The closed path is a tunnel over the line of the direct one.
    OneLine,
}

impl TownKind {
    pub const ALL: [Self; 4] = [Self::TwoLines, Self::ThreeLines, Self::Canary, Self::OneLine];
}

/// A plan, and what of it stays the same in every schedule.
#[derive(Debug)]
pub struct Town {
    pub kind: TownKind,
    pub plan: ValidSitePlan,
    pub allocation: Allocation,
    /// Every group on its first path.
    pub first: NetworkPlan,
}

pub type Choices = BTreeMap<(ZoneId, GroupId), PathChoice>;

impl Town {
    /// Fails where this version cannot carry the town's paths.
    pub fn build(kind: TownKind) -> Result<Self> {
        let text = match kind {
            TownKind::TwoLines | TownKind::ThreeLines | TownKind::Canary => TWO_LINES,
            TownKind::OneLine => ONE_LINE,
        };
        let mut set: BTreeMap<String, toml::Value> = toml::from_str(TIMES).context("times")?;
        let services: Vec<String> = toml::from_str::<toml::Table>(text)
            .context("example")?
            .get("services")
            .and_then(toml::Value::as_table)
            .map(|services| services.keys().cloned().collect())
            .unwrap_or_default();
        for service in services {
            set.insert(
                format!("services.{service}.session_idle"),
                toml::Value::String(format!("{}s", IDLE_MS / 1000)),
            );
        }
        if kind == TownKind::ThreeLines {
            set.extend(toml::from_str::<BTreeMap<String, toml::Value>>(THIRD_LINE).context("third line")?);
            for route in 0..3 {
                let paths = ["closed", "vpn", "direct"].map(|p| toml::Value::String(p.into())).to_vec();
                set.insert(format!("migration.routes[{route}].paths"), toml::Value::Array(paths));
            }
        }
        if kind == TownKind::Canary {
            set.extend(toml::from_str::<BTreeMap<String, toml::Value>>(CANARY).context("canary")?);
        }
        let text = with_overrides(text, &set).context("overrides")?;
        let board = Board::parse(BOARD, "board.toml").map_err(|error| anyhow!("{error}"))?;
        let plan = parse(&text, "town.toml", &board).map_err(|errors| anyhow!("{errors}"))?;
        let allocation = Allocation::default().extend(&plan).context("numbers")?;
        let choices = first_choices(&plan);
        let first = compile(&plan, &allocation, &choices, None, Generation(1)).context("a network")?;
        Ok(Self { kind, plan, allocation, first })
    }

    /// Every town that this version can carry, and why the others are left out.
    pub fn all() -> (Vec<Self>, Vec<String>) {
        let (mut towns, mut left_out) = (Vec::new(), Vec::new());
        for kind in TownKind::ALL {
            match Self::build(kind) {
                Ok(town) => towns.push(town),
                Err(error) => left_out.push(format!("{kind:?}: {error:#}")),
            }
        }
        (towns, left_out)
    }

    pub fn compile(&self, choices: &Choices, generation: Generation) -> Result<NetworkPlan> {
        Ok(compile(&self.plan, &self.allocation, choices, None, generation)?)
    }

    /// The last byte of the client's address: the first of each group's clients sits in the room, where there is one.
    pub fn host(&self, zone: &ZoneId, number: usize) -> u8 {
        let room = self.plan.migration.rooms.values().any(|room| room.zone == *zone);
        if room && number == 0 { IN_THE_ROOM } else { ELSEWHERE }
    }

    /// The address that the outside sees on the path when nothing is wrong: the line's own where it is translated to
    /// that, else the town hall's.
    pub fn egress(&self, path: &PathId) -> Option<IpAddr> {
        let plan = self.plan.paths.get(path)?;
        let line = self.plan.lines.get(&plan.line)?;
        let own = plan.kind == PathKind::Plain && plan.nat4 == seimon_plan::Nat4::Masquerade;
        if own {
            line.ipv4.map(|net| net.addr().into())
        } else {
            Some(Ipv4Addr::new(198, 51, 100, 10).into())
        }
    }

    pub fn egress6(&self, path: &PathId) -> Option<IpAddr> {
        let plan = self.plan.paths.get(path)?;
        if plan.ipv6 == seimon_plan::PathIpv6::None {
            return None;
        }
        Some(self.plan.lines.get(&plan.line)?.ipv6?.addr().into())
    }

    /// Where the name really is, when the path's resolvers tell the truth: each path has its own answer.
    pub fn real_address(&self, name: &str, path: &PathId) -> Option<Ipv4Addr> {
        let names: BTreeSet<&String> = self.plan.services.values().flat_map(|s| &s.names).collect();
        let at = u8::try_from(names.into_iter().position(|n| n == name)?).ok()?;
        let via = u8::try_from(self.plan.paths.keys().position(|p| p == path)?).ok()?;
        let private = self.plan.paths.get(path)?.nat4 == seimon_plan::Nat4::Routed;
        Some(if private { Ipv4Addr::new(10, 50, via, 10 + at) } else { Ipv4Addr::new(203, 0, 113, 10 + at) })
    }
}

fn first_choices(plan: &ValidSitePlan) -> Choices {
    let first = |paths: &[PathId]| {
        paths.first().map_or(PathChoice::Blocked("no path".into()), |path| PathChoice::On(path.clone()))
    };
    plan.routes().iter().map(|r| ((r.zone.clone(), r.group.clone()), first(&r.paths))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_towns_of_plain_paths_can_be_built_and_the_others_say_why_not() {
        let (towns, left_out) = Town::all();
        let kinds: Vec<TownKind> = towns.iter().map(|town| town.kind).collect();
        let plain = [TownKind::TwoLines, TownKind::ThreeLines, TownKind::Canary];
        assert!(plain.iter().all(|kind| kinds.contains(kind)), "{left_out:?}");
        assert_eq!(kinds.len() + left_out.len(), TownKind::ALL.len());
        for town in &towns {
            assert_eq!(town.plan.migration.times.drain.0.as_millis(), u128::from(DRAIN_MS));
            for route in town.plan.routes() {
                assert!(route.paths.iter().all(|path| town.egress(path).is_some()));
            }
        }
    }
}
