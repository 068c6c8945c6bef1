//! The simulation in small (`cargo xtask sim` plays all of it), and the proof that it can fail.

use seimon_sim::ground::Mutation;
use seimon_sim::play::Player;
use seimon_sim::runs;
use seimon_sim::schedule::Schedule;
use seimon_sim::shrink::shrink;
use seimon_sim::town::{Town, TownKind};

#[test]
fn schedules_that_failed_once_do_not_fail_again() {
    let (towns, _) = Town::all();
    let kept = runs::kept(&runs::kept_folder()).unwrap();
    let failed = runs::replay(&towns, &kept);
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn random_futures_violate_nothing_and_are_eventful() {
    let (towns, _) = Town::all();
    let many = runs::many(&towns, 1_000_000, 200, Mutation::None, 3);
    assert!(many.failures.is_empty(), "{:#?}", many.failures);
    let tally = &many.tally;
    assert!(tally.moves > 100 && tally.moves_asked_for > 50, "{tally:?}");
    assert!(tally.kills > 30 && tally.power_cuts > 10, "{tally:?}");
    assert!(tally.requests > 10_000 && tally.splits_by_failure > 10, "{tally:?}");
    assert!(tally.splits_by_deadline > 5, "{tally:?}");
}

#[test]
fn the_same_seed_gives_the_same_future() {
    let town = Town::build(TownKind::TwoLines).unwrap();
    for seed in 0..10 {
        let schedule = Schedule::roll(&town, seed);
        let play = || {
            let outcome = Player::new(&town).play(&schedule, Mutation::None, None);
            (outcome.tally, outcome.checkpoints, outcome.took_ms)
        };
        assert_eq!(play(), play(), "{seed}");
    }
}

/// What each thing made wrong makes wrong.
fn signs(mutation: Mutation) -> &'static [&'static str] {
    const UNWRITTEN: &str = "an act without a checkpoint";
    const SPLIT: &str = "a session was split over two addresses";
    const REASON: &str = "moved without a reason";
    const NOTHING_WRONG: &str = "moved though nothing was ever wrong";
    const FLAPPING: &str = "flapping";
    const DEAD: &str = "stays on a dead path";
    const BETWEEN: &str = "a packet between zones without a permit";
    const RESTLESS: &str = "does not come to rest";
    const UNLIKE: &str = "rests otherwise than written";
    match mutation {
        Mutation::None => &[],
        Mutation::EgressVeto => &["moved to where the services do not know us", REASON],
        Mutation::WindowVeto => &["began outside the window"],
        Mutation::Rollback | Mutation::Liveness => &[DEAD],
        Mutation::Checkpoint => &[UNWRITTEN, "ended flows without a checkpoint", UNLIKE],
        Mutation::BlameService => &[REASON, NOTHING_WRONG, FLAPPING],
        Mutation::ActsFirst | Mutation::DiskLies => &[UNWRITTEN, UNLIKE],
        Mutation::Affinity => &[SPLIT],
        Mutation::Between => &[BETWEEN],
        Mutation::Zones => &[BETWEEN, "a packet left without a permit"],
        Mutation::Forgets => &[UNWRITTEN, UNLIKE, SPLIT],
        // Who takes one lost echo for a dead line throws people off it at once: log-ins are lost for nothing. And who takes
        // one answer for a living line goes to a dead one.
        Mutation::Hasty => &[REASON, NOTHING_WRONG, FLAPPING, SPLIT, "left a path for a dead one"],
        // Without a table nothing passes, checks and echoes neither: no path is ever well again.
        Mutation::Reobserve => &["at rest, and the kernel is not as planned", RESTLESS],
        Mutation::WildClock => &["wrote down a time that nobody vouched for"],
        // It never starts again, and whoever was on a path that dies stays there.
        Mutation::Strict => &[RESTLESS, UNWRITTEN, DEAD],
    }
}

/// Each thing made wrong is found out, by what it makes wrong.
#[test]
fn whatever_is_made_wrong_is_found_out() {
    let (towns, _) = Town::all();
    let mut not_found = Vec::new();
    for mutation in Mutation::ALL {
        let many = runs::many(&towns, 1, 800, mutation, 2);
        let found: Vec<&str> = many
            .failures
            .iter()
            .flat_map(|failure| &failure.violations)
            .map(|violation| violation.what.as_str())
            .collect();
        if !found.iter().any(|found| signs(mutation).contains(found)) {
            let found: Vec<String> = found.into_iter().map(str::to_owned).collect();
            not_found.push((mutation, many.schedules, found));
        }
    }
    assert!(not_found.is_empty(), "{not_found:#?}");
}

/// The kept proofs (`cargo xtask sim prove` writes them anew): each still shows what it was kept for.
#[test]
fn each_kept_proof_still_shows_what_was_made_wrong() {
    let (towns, _) = Town::all();
    let kept = runs::kept(&runs::kept_folder()).unwrap();
    let mut shown = 0;
    for mutation in Mutation::ALL {
        let name = runs::proof_name(mutation);
        let Some((_, schedule)) = kept.iter().find(|(file, _)| *file == name) else { continue };
        shown += 1;
        let town = towns.iter().find(|town| town.kind == schedule.town).unwrap();
        let found = Player::new(town).play(schedule, mutation, None).violations;
        let first = found.first().map(|violation| violation.what.as_str());
        assert!(first.is_some_and(|first| signs(mutation).contains(&first)), "{name}: {found:#?}");
    }
    assert!(shown > 0, "no proof is kept");
}

#[test]
fn a_failing_schedule_is_made_small_and_still_fails_the_same_way() {
    let town = Town::build(TownKind::TwoLines).unwrap();
    let towns = [town];
    let many = runs::many(&towns, 1, 1_000, Mutation::Rollback, 1);
    let failure = many.failures.first().expect("a failure");
    let mut player = Player::new(&towns[0]);
    let small = shrink(&mut player, &failure.schedule, Mutation::Rollback);
    assert!(small.happenings.len() <= failure.schedule.happenings.len());
    assert!(small.happenings.len() <= 3, "{small:#?}");
    let again = player.play(&small, Mutation::Rollback, None).violations;
    assert_eq!(again[0].what, failure.violations[0].what);
}
