//! What happens when, as data: made from a seed, written to a file, read again, made smaller.

use seimon_plan::{PathId, ServiceId, ValidSitePlan};
use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::town::{Town, TownKind};
use crate::versions::Writer;

/// One future of one town.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Of everything that the happenings do not say: losses, users, what a power cut leaves.
    pub seed: u64,
    pub town: TownKind,
    /// After this everything is well again, and the school is to come to rest.
    pub length_ms: u64,
    /// Wall clock at the beginning, milliseconds since 1970.
    pub wall_ms: i64,
    pub happenings: Vec<Timed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    pub at_ms: u64,
    #[serde(flatten)]
    pub what: Happening,
}

/// Names are the plan's. What names nothing does nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Happening {
    /// Silent in both directions.
    LineDies {
        line: String,
        for_ms: u64,
    },
    /// Dead and alive by turns.
    LineFlaps {
        line: String,
        every_ms: u64,
        for_ms: u64,
    },
    /// Packets lost, in thousandths; alone or in bursts.
    LineLoses {
        line: String,
        permille: u64,
        bursts: bool,
        for_ms: u64,
    },
    /// The service does not work over one path.
    IllOnPath {
        path: String,
        service: String,
        for_ms: u64,
    },
    /// ...over any.
    IllEverywhere {
        service: String,
        for_ms: u64,
    },
    /// The outside sees an address that nobody has registered.
    EgressChanges {
        path: String,
        for_ms: u64,
    },
    ResolverLies {
        path: String,
        lie: Lie,
        for_ms: u64,
    },
    Start {
        zone: String,
        group: String,
        to: Option<String>,
    },
    Pause {
        zone: String,
        group: String,
    },
    Resume {
        zone: String,
        group: String,
    },
    RollBack {
        zone: String,
        group: String,
    },
    /// `kill -9`, so many acts from now.
    Kill {
        acts: u32,
    },
    /// The power goes, so many bytes written from now, or at once where nothing is written.
    PowerCut {
        bytes: u64,
    },
    DiskFull {
        for_ms: u64,
    },
    /// The kernel refuses so many changes.
    KernelRefuses {
        changes: u32,
    },
    /// Somebody runs `nft flush ruleset`.
    Flush,
    /// The wall clock jumps.
    ClockJumps {
        by_ms: i64,
    },
    /// Nobody vouches for the clock.
    ClockUntrusted {
        for_ms: u64,
    },
    /// The agent is stopped where it is and another version started, which finds a journal as it would have written it.
    Upgrade {
        journal: Writer,
    },
    /// Many more people log in.
    Rush {
        for_ms: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// No such name.
    Nothing,
    /// Somebody else's server.
    Elsewhere,
    /// A machine in another zone of the school.
    Inside,
}

/// Saturday 20:00 in Japan, weeks before any freeze.
pub const OPEN: i64 = 1_800_097_200_000;

fn words<T: AsRef<str>>(all: impl IntoIterator<Item = T>) -> Vec<String> {
    all.into_iter().map(|word| word.as_ref().to_owned()).collect()
}

struct Cast {
    lines: Vec<String>,
    paths: Vec<String>,
    services: Vec<String>,
    routes: Vec<(String, String, Vec<String>)>,
}

impl Cast {
    fn of(plan: &ValidSitePlan) -> Self {
        let checked = plan.services.iter().filter(|(_, service)| service.health.is_some());
        Self {
            lines: words(plan.lines.keys().map(|line| line.as_str())),
            paths: words(plan.paths.keys().map(PathId::as_str)),
            services: words(checked.map(|(id, _): (&ServiceId, _)| id.as_str())),
            routes: plan
                .routes()
                .iter()
                .map(|route| {
                    let paths = words(route.paths.iter().map(PathId::as_str));
                    (route.zone.as_str().to_owned(), route.group.as_str().to_owned(), paths)
                })
                .collect(),
        }
    }
}

impl Schedule {
    /// The future that belongs to this seed.
    pub fn roll(town: &Town, seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5e1_3070);
        let cast = Cast::of(&town.plan);
        let length_ms = dice.between(40, 200) * 1_000;
        let wall_ms = OPEN
            + match dice.roll(10) {
                // Ten hours after opening it closes: some begin just before, some on a Wednesday, some in the freeze.
                0 => 10 * 3_600_000 - i64::try_from(dice.roll(length_ms)).unwrap_or(0),
                1 => 4 * 86_400_000,
                2 => 56 * 86_400_000,
                _ => 0,
            };
        let mut happenings = Vec::new();
        // Mostly a move is under way when things go wrong.
        for (zone, group, paths) in &cast.routes {
            if dice.roll(10) < 7 {
                let to = if dice.one_in(3) { dice.of(paths).cloned() } else { None };
                let at_ms = dice.between(8_000, 25_000);
                happenings.push(Timed {
                    at_ms,
                    what: Happening::Start { zone: zone.clone(), group: group.clone(), to },
                });
            }
        }
        let count = dice.between(0, 12);
        for _ in 0..count {
            let at_ms = dice.between(2_000, length_ms);
            if let Some(what) = happen(&cast, &mut dice, length_ms - at_ms) {
                happenings.push(Timed { at_ms, what });
            }
        }
        happenings.sort_by_key(|timed| timed.at_ms);
        Self { seed, town: town.kind, length_ms, wall_ms, happenings }
    }
}

fn happen(cast: &Cast, dice: &mut Dice, rest: u64) -> Option<Happening> {
    let for_ms = match dice.roll(3) {
        0 => dice.between(200, 3_000),
        1 => dice.between(3_000, 30_000),
        _ => dice.between(30_000, 120_000),
    }
    .min(rest.max(1));
    let line = dice.of(&cast.lines)?.clone();
    let path = dice.of(&cast.paths)?.clone();
    let service = dice.of(&cast.services)?.clone();
    let (zone, group, paths) = dice.of(&cast.routes)?.clone();
    Some(match dice.roll(28) {
        0..=2 => Happening::LineDies { line, for_ms },
        3 => Happening::LineFlaps { line, every_ms: dice.between(500, 20_000), for_ms },
        4 | 5 => {
            Happening::LineLoses { line, permille: dice.between(5, 700), bursts: dice.one_in(2), for_ms }
        }
        6 | 7 => Happening::IllOnPath { path, service, for_ms },
        8 => Happening::IllEverywhere { service, for_ms },
        9 | 10 => Happening::EgressChanges { path, for_ms },
        11 => {
            let lie = *dice.of(&[Lie::Nothing, Lie::Elsewhere, Lie::Inside])?;
            Happening::ResolverLies { path, lie, for_ms }
        }
        12..=14 => {
            let to = if dice.one_in(2) { dice.of(&paths).cloned() } else { None };
            Happening::Start { zone, group, to }
        }
        15 => Happening::Pause { zone, group },
        16 => Happening::Resume { zone, group },
        17 => Happening::RollBack { zone, group },
        18 | 19 => Happening::Kill { acts: u32::try_from(dice.roll(12)).unwrap_or(0) },
        20 => Happening::PowerCut { bytes: dice.roll(1_200) },
        21 => Happening::DiskFull { for_ms: for_ms.min(20_000) },
        22 => Happening::KernelRefuses { changes: u32::try_from(dice.between(1, 3)).unwrap_or(1) },
        23 => Happening::Flush,
        24 => {
            let by = *dice.of(&[3_600_000_i64, 86_400_000, 12 * 3_600_000, 40 * 86_400_000, 90_000])?;
            if dice.one_in(4) {
                Happening::ClockUntrusted { for_ms }
            } else {
                Happening::ClockJumps { by_ms: if dice.one_in(2) { by } else { -by } }
            }
        }
        25 | 26 => Happening::Upgrade { journal: if dice.one_in(2) { Writer::Older } else { Writer::Newer } },
        _ => Happening::Rush { for_ms },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_read_as_it_was_written() {
        let town = Town::build(TownKind::TwoLines).unwrap();
        for seed in 0..200 {
            let schedule = Schedule::roll(&town, seed);
            let text = serde_json::to_string(&schedule).unwrap();
            assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
            assert_eq!(Schedule::roll(&town, seed), schedule);
        }
    }

    #[test]
    fn most_begin_while_a_window_is_open() {
        let open: jiff::Timestamp = jiff::Timestamp::from_millisecond(OPEN).unwrap();
        let local = open.to_zoned(jiff::tz::TimeZone::get("Asia/Tokyo").unwrap());
        assert_eq!(local.strftime("%a %H:%M").to_string(), "Sat 20:00");
        let town = Town::build(TownKind::TwoLines).unwrap();
        let state = seimon_plan::window_state(&town.plan, open);
        assert!(matches!(state, seimon_plan::WindowState::Open { .. }), "{state:?}");
    }
}
