//! Many schedules, on all processors; the crash matrix; the lossy hundred hours. And what failed before, first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use seimon_plan::PathId;

use crate::crash::{self, Kind, Matrix};
use crate::ground::Mutation;
use crate::loss::{self, Loss, Watched};
use crate::play::Player;
use crate::reference::{Tally, Violation};
use crate::schedule::Schedule;
use crate::shrink::shrink;
use crate::town::{Town, TownKind};

/// Schedules that failed once.
pub fn kept_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kept")
}

#[derive(Debug)]
pub struct Failure {
    pub schedule: Schedule,
    pub violations: Vec<Violation>,
}

#[derive(Debug, Default)]
pub struct Many {
    pub schedules: u64,
    pub tally: Tally,
    pub failures: Vec<Failure>,
    /// Virtual time.
    pub hours: f64,
}

fn add(sum: &mut Tally, one: &Tally) {
    let Tally {
        moves,
        moves_asked_for,
        sessions,
        requests,
        splits_by_failure,
        splits_by_deadline,
        splits_by_loss_of_state,
        kills,
        power_cuts,
        questions,
    } = one;
    sum.moves += moves;
    sum.moves_asked_for += moves_asked_for;
    sum.sessions += sessions;
    sum.requests += requests;
    sum.splits_by_failure += splits_by_failure;
    sum.splits_by_deadline += splits_by_deadline;
    sum.splits_by_loss_of_state += splits_by_loss_of_state;
    sum.kills += kills;
    sum.power_cuts += power_cuts;
    sum.questions += questions;
}

/// Every file in the folder, by name.
pub fn kept(folder: &Path) -> Result<Vec<(String, Schedule)>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read_to_string(&path)?;
            let schedule = serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
            all.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), schedule);
        }
    }
    Ok(all.into_iter().collect())
}

/// What the mutation's shortest known proof is called among the kept.
pub fn proof_name(mutation: Mutation) -> String {
    let mut name = "shows".to_owned();
    for letter in format!("{mutation:?}").chars() {
        if letter.is_ascii_uppercase() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name + ".json"
}

/// A small schedule which shows that the mutation does harm; with a sound gateway nothing happens in it.
pub fn prove(towns: &[Town], mutation: Mutation, folder: &Path) -> Result<Option<PathBuf>> {
    let found = many(towns, 1, 2_000, mutation, 1).failures.into_iter().next();
    let Some(failure) = found else { return Ok(None) };
    let town = towns.iter().find(|town| town.kind == failure.schedule.town).context("a town")?;
    let small = shrink(&mut Player::new(town), &failure.schedule, mutation);
    write(&small, folder.join(proof_name(mutation))).map(Some)
}

fn write(schedule: &Schedule, file: PathBuf) -> Result<PathBuf> {
    std::fs::write(&file, serde_json::to_string_pretty(schedule)? + "\n")
        .with_context(|| format!("{}", file.display()))?;
    Ok(file)
}

/// Plays `count` schedules from `first` on, spread over the towns. Stops early once `enough` have failed.
pub fn many(towns: &[Town], first: u64, count: u64, mutation: Mutation, enough: usize) -> Many {
    let next = AtomicU64::new(0);
    let sum = Mutex::new(Many::default());
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                let mut players: Vec<(&Town, Player<'_>)> =
                    towns.iter().map(|town| (town, Player::new(town))).collect();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count || players.is_empty() {
                        return;
                    }
                    let seed = first + number;
                    let at = usize::try_from(seed % players.len() as u64).unwrap_or(0);
                    let Some((town, player)) = players.get_mut(at) else { return };
                    let schedule = Schedule::roll(town, seed);
                    let outcome = player.play(&schedule, mutation, None);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.schedules += 1;
                    sum.hours += outcome.took_ms as f64 / 3_600_000.0;
                    add(&mut sum.tally, &outcome.tally);
                    if !outcome.violations.is_empty() {
                        sum.failures.push(Failure { schedule, violations: outcome.violations });
                    }
                    if sum.failures.len() >= enough {
                        next.store(count, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.failures.sort_by_key(|failure| failure.schedule.seed);
    sum
}

/// Plays what was kept.
pub fn replay(towns: &[Town], schedules: &[(String, Schedule)]) -> Vec<(String, Vec<Violation>)> {
    let mut players: BTreeMap<TownKind, Player<'_>> =
        towns.iter().map(|town| (town.kind, Player::new(town))).collect();
    let mut failed = Vec::new();
    for (name, schedule) in schedules {
        let Some(player) = players.get_mut(&schedule.town) else { continue };
        let violations = player.play(schedule, Mutation::None, None).violations;
        if !violations.is_empty() {
            failed.push((name.clone(), violations));
        }
    }
    failed
}

/// Makes a failure small and writes it where it will be played first from now on.
pub fn keep(town: &Town, failure: &Failure, folder: &Path) -> Result<PathBuf> {
    let small = shrink(&mut Player::new(town), &failure.schedule, Mutation::None);
    std::fs::create_dir_all(folder)?;
    let town = serde_json::to_value(small.town)?;
    let name = format!("{}-{}.json", town.as_str().unwrap_or("town"), small.seed);
    write(&small, folder.join(name))
}

/// The matrix of the towns with two lines; its stories are shared among the processors.
pub fn crashes(towns: &[Town], kind: Kind, mutation: Mutation) -> Matrix {
    let sum = Mutex::new(Matrix::default());
    for town in towns.iter().filter(|town| [TownKind::TwoLines, TownKind::Canary].contains(&town.kind)) {
        let stories = crash::stories(town.kind);
        let next = AtomicUsize::new(0);
        let processors = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..processors.min(stories.len()) {
                scope.spawn(|| {
                    let mut player = Player::new(town);
                    while let Some(story) = stories.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let matrix = crash::run(&mut player, story, kind.faults(), mutation);
                        sum.lock().unwrap_or_else(PoisonError::into_inner).add(matrix);
                    }
                });
            }
        });
    }
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Both kinds of loss, resting on both paths: (name, what was seen).
pub fn losses(town: &Town, hours: u64, seed: u64) -> Vec<(String, Watched)> {
    let mut all = Vec::new();
    let cases = [("independent", Loss::FIVE_PERCENT), ("bursts", Loss::FIVE_PERCENT_IN_BURSTS)];
    thread::scope(|scope| {
        let mut running = Vec::new();
        for (name, loss) in cases {
            for home in ["closed", "direct"] {
                let Ok(home) = PathId::new(home) else { continue };
                running.push((
                    format!("{name} loss, home {home}"),
                    scope.spawn(move || loss::watch(town, &home, loss, hours, seed)),
                ));
            }
        }
        for (name, thread) in running {
            if let Ok(Some(watched)) = thread.join() {
                all.push((name, watched));
            }
        }
    });
    all
}
