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

/// Each thing made wrong is found out, by what it makes wrong.
#[test]
fn whatever_is_made_wrong_is_found_out() {
    let (towns, _) = Town::all();
    let mut not_found = Vec::new();
    for (mutation, signs) in [
        (Mutation::EgressVeto, &["moved to where the services do not know us", "moved without a reason"][..]),
        (Mutation::WindowVeto, &["began outside the window"]),
        (Mutation::Rollback, &["stays on a dead path"]),
        (Mutation::Checkpoint, &["an act without a checkpoint", "ended flows without a checkpoint"]),
        (
            Mutation::BlameService,
            &["moved without a reason", "moved though nothing was ever wrong", "flapping"],
        ),
        (Mutation::ActsFirst, &["an act without a checkpoint"]),
        (Mutation::DiskLies, &["an act without a checkpoint"]),
        (Mutation::Affinity, &["a session was split over two addresses"]),
        (Mutation::Between, &["a packet between zones without a permit"]),
        (Mutation::Zones, &["a packet between zones without a permit", "a packet left without a permit"]),
        (
            Mutation::Forgets,
            &[
                "an act without a checkpoint",
                "rests otherwise than written",
                "a session was split over two addresses",
            ],
        ),
        (Mutation::Liveness, &["stays on a dead path"]),
        (Mutation::Hasty, &["moved without a reason", "moved though nothing was ever wrong", "flapping"]),
        (Mutation::Reobserve, &["at rest, and the kernel is not as planned"]),
    ] {
        let many = runs::many(&towns, 1, 800, mutation, 2);
        let found: Vec<&str> = many
            .failures
            .iter()
            .flat_map(|failure| &failure.violations)
            .map(|violation| violation.what.as_str())
            .collect();
        if !found.iter().any(|found| signs.contains(found)) {
            not_found.push((
                mutation,
                many.schedules,
                found.into_iter().map(str::to_owned).collect::<Vec<_>>(),
            ));
        }
    }
    assert!(not_found.is_empty(), "{not_found:#?}");
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
