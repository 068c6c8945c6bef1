//! The crash matrix: every checkpoint that the machines ask for in a handful of stories, times everything that can strike
//! there. The points are enumerated by the machines: a story is played once, and each checkpoint it writes is a point.

use crate::ground::{Ambush, Fault, Moment, Mutation};
use crate::play::{Outcome, Player};
use crate::reference::Violation;
use crate::schedule::{Happening, OPEN, Schedule, Timed};
use crate::town::TownKind;

/// Which faults strike at each checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Kill, power cut, disk full.
    Crashes,
    /// The next run is of another version.
    Upgrades,
    /// The next run has another wall clock.
    Clocks,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Crashes, Self::Upgrades, Self::Clocks];

    pub const fn faults(self) -> &'static [Fault] {
        match self {
            Self::Crashes => &Fault::ALL,
            Self::Upgrades => &Fault::UPGRADES,
            Self::Clocks => &Fault::CLOCKS,
        }
    }

    /// Before the dot in the names of its checks.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crashes => "crash",
            Self::Upgrades => "upgrade",
            Self::Clocks => "clock",
        }
    }
}

/// One cell of the matrix in which something went wrong.
#[derive(Clone, Debug)]
pub struct Wrong {
    pub story: &'static str,
    pub checkpoint: String,
    pub ambush: Ambush,
    pub violations: Vec<Violation>,
}

#[derive(Clone, Debug, Default)]
pub struct Matrix {
    /// Checkpoints × faults.
    pub points: u64,
    /// ...× moments: runs in which it struck.
    pub runs: u64,
    pub wrong: Vec<Wrong>,
    /// Cells that were to strike and did not.
    pub missed: u64,
}

fn at(seconds: u64, what: Happening) -> Timed {
    Timed { at_ms: seconds * 1_000, what }
}

fn start(seconds: u64) -> Timed {
    at(seconds, Happening::Start { zone: "affairs".into(), group: "affairs".into(), to: None })
}

fn dies(seconds: u64, line: &str, for_s: u64) -> Timed {
    at(seconds, Happening::LineDies { line: line.into(), for_ms: for_s * 1_000 })
}

/// Stories that between them go through every state and every way out of it.
pub fn stories(town: TownKind) -> Vec<(&'static str, Schedule)> {
    let (zone, group) = (|| "affairs".to_owned(), || "affairs".to_owned());
    let story = |name, seconds: u64, happenings: Vec<Timed>| {
        let schedule = Schedule { seed: 1, town, length_ms: seconds * 1_000, wall_ms: OPEN, happenings };
        (name, schedule)
    };
    let take_back = |seconds| at(seconds, Happening::RollBack { zone: zone(), group: group() });
    if town == TownKind::Canary {
        return vec![
            story("a canary that ends in a move", 120, vec![start(10)]),
            story("the new line dies in the canary", 90, vec![start(10), dies(26, "internet", 20)]),
            story("the old line dies in the canary", 90, vec![start(10), dies(26, "carrier", 20)]),
            story("a canary is taken back", 90, vec![start(10), take_back(27)]),
            story(
                "the service is ill in the canary",
                90,
                vec![
                    start(10),
                    at(
                        25,
                        Happening::IllOnPath {
                            path: "direct".into(),
                            service: "affairs".into(),
                            for_ms: 30_000,
                        },
                    ),
                ],
            ),
        ];
    }
    vec![
        story("a move that is committed", 100, vec![start(10)]),
        story("the new line dies while soaking", 90, vec![start(10), dies(28, "internet", 20)]),
        story("the new line dies while qualifying", 60, vec![start(10), dies(14, "internet", 20)]),
        story("the old line dies while people drain", 90, vec![start(10), dies(28, "carrier", 20)]),
        story(
            "the service is ill on the new path",
            120,
            vec![
                start(10),
                at(
                    27,
                    Happening::IllOnPath { path: "direct".into(), service: "affairs".into(), for_ms: 30_000 },
                ),
            ],
        ),
        story(
            "the address is not registered any more",
            120,
            vec![start(10), at(28, Happening::EgressChanges { path: "direct".into(), for_ms: 20_000 })],
        ),
        story("both lines die", 90, vec![start(10), dies(30, "internet", 20), dies(31, "carrier", 10)]),
        story("home dies and comes back", 60, vec![dies(10, "carrier", 20)]),
        story(
            "somebody hesitates",
            140,
            vec![
                start(10),
                at(12, Happening::Pause { zone: zone(), group: group() }),
                at(16, Happening::Resume { zone: zone(), group: group() }),
                at(32, Happening::Pause { zone: zone(), group: group() }),
                at(40, Happening::Resume { zone: zone(), group: group() }),
                at(44, Happening::RollBack { zone: zone(), group: group() }),
            ],
        ),
        story(
            "a committed move is taken back",
            200,
            vec![start(10), at(90, Happening::RollBack { zone: zone(), group: group() })],
        ),
        story(
            "the kernel refuses the change",
            90,
            vec![start(10), at(16, Happening::KernelRefuses { changes: 2 })],
        ),
    ]
}

impl Matrix {
    pub fn add(&mut self, other: Self) {
        let Self { points, runs, wrong, missed } = other;
        self.points += points;
        self.runs += runs;
        self.wrong.extend(wrong);
        self.missed += missed;
    }
}

/// One story's rows.
pub fn run(
    player: &mut Player<'_>,
    (story, schedule): &(&'static str, Schedule),
    faults: &[Fault],
    mutation: Mutation,
) -> Matrix {
    let mut matrix = Matrix::default();
    let Outcome { checkpoints, violations, .. } = player.play(schedule, mutation, None);
    if !violations.is_empty() {
        let ambush = Ambush { checkpoint: u32::MAX, fault: Fault::Kill, moment: Moment::Before };
        matrix.wrong.push(Wrong { story, checkpoint: "nothing struck".into(), ambush, violations });
    }
    for (number, checkpoint) in (0..).zip(&checkpoints) {
        for &fault in faults {
            matrix.points += 1;
            for moment in Moment::ALL.into_iter().filter(|moment| fault.may_strike(*moment)) {
                let ambush = Ambush { checkpoint: number, fault, moment };
                let Outcome { struck, violations, .. } = player.play(schedule, mutation, Some(ambush));
                // Not every checkpoint is followed by an act.
                if struck {
                    matrix.runs += 1;
                } else if moment != Moment::Acted {
                    matrix.missed += 1;
                }
                if !violations.is_empty() {
                    matrix.wrong.push(Wrong { story, checkpoint: checkpoint.clone(), ambush, violations });
                }
            }
        }
    }
    matrix
}
