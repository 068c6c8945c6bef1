//! Going back when users would suffer, and when a person wishes it.

use seimon_core::health::{Ailment, FlowCount, Liveness, ServiceVerdict, Stage};
use seimon_core::migration::{Cause, Command, Notice, StateName, Veto};

use crate::world::*;

#[test]
fn silent_death_in_the_soak_returns_at_once_rules_first_kill_second() {
    let mut world = World::new(&["closed", "direct"]);
    world.path("closed").clients = Some(10);
    world.move_to_soaking();
    let before = world.kernel_actions.len();
    world.path("direct").clients = Some(7);
    world.path("direct").liveness = Liveness::Down;
    let died = world.now;
    world.look();
    assert!(world.steady_on("closed"));
    assert_eq!(world.moves.last(), Some(&(died, path("closed"))), "without waiting");
    let names: Vec<String> = world.kernel_actions[before..]
        .iter()
        .map(|a| format!("{a:?}").split([' ', '{']).next().expect("a name").to_owned())
        .collect();
    assert_eq!(names, ["SetCurrent", "AffinityDelete", "KillFlows"]);
    assert!(world.log.iter().any(|(_, n)| matches!(n, Notice::State { cause: Cause::PathDown { .. }, .. })));
}

#[test]
fn a_service_ill_on_the_new_path_only_returns_with_everybody() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.path("direct").clients = Some(5);
    world.saas("direct", ServiceVerdict::Ill);
    world.look();
    assert!(world.steady_on("closed"), "there is nothing to finish where the service does not answer");
    assert_eq!(world.kernel_actions_named("AffinityDelete"), 1);
}

#[test]
fn an_address_that_is_no_longer_registered_returns_softly() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.path("direct").clients = Some(5);
    world.path("direct").egress = stranger();
    world.look();
    assert_eq!(world.name(), StateName::RollingBack);
    assert_eq!(world.kernel, path("closed"), "new clients are back at once");
    world.sleep(secs(10));
    assert_eq!(world.name(), StateName::RollingBack, "five may still finish their work");
    world.path("direct").clients = Some(0);
    world.look();
    assert!(world.steady_on("closed"));
    assert_eq!(world.kernel_actions_named("KillFlows"), 0);
}

#[test]
fn clients_who_do_not_finish_are_moved_at_the_deadline_of_the_roll_back() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.path("direct").clients = Some(5);
    world.path("direct").egress = stranger();
    world.look();
    world.sleep(secs(30));
    assert!(world.steady_on("closed"));
    assert_eq!(world.machine.forced_by_deadline(), 5);
}

#[test]
fn a_service_ill_on_both_paths_is_blamed_and_nothing_moves() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    let moves = world.moves.len();
    world.saas("closed", ServiceVerdict::Ill);
    world.saas("direct", ServiceVerdict::Ill);
    world.sleep(secs(60));
    world.look();
    assert_eq!(world.name(), StateName::Soaking, "the soak is extended");
    assert_eq!(world.moves.len(), moves);
    let blamed = world.log.iter().filter(|(_, n)| matches!(n, Notice::ServiceBlamed { .. })).count();
    assert_eq!(blamed, 1, "said once");
    world.saas("closed", ServiceVerdict::Well);
    world.saas("direct", ServiceVerdict::Well);
    world.look();
    assert!(world.steady_on("direct"));
}

#[test]
fn a_service_that_recovers_over_one_path_first_blames_nobody() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    let moves = world.moves.len();
    for id in ["closed", "direct"] {
        world.saas(id, ServiceVerdict::Ill);
        world.known(id).last_bad = Some(world.now);
    }
    world.look();
    world.sleep(secs(10));
    world.saas("closed", ServiceVerdict::Well);
    world.known("closed").good_since = Some(world.now);
    world.look();
    assert_eq!(world.moves.len(), moves, "direct was last asked when closed was ill, too");
    world.sleep(secs(4));
    world.known("direct").last_bad = Some(world.now);
    world.look();
    assert_eq!(world.moves.len(), moves, "that check may have begun before");
    world.sleep(secs(2));
    world.known("direct").failing = None;
    world.known("direct").last_bad = Some(world.now);
    world.look();
    assert_eq!(world.moves.len(), moves, "one good check: on its way to being well");
    let still = Some((Stage::HttpStatus, "500".to_owned()));
    (world.known("direct").failing, world.known("direct").last_bad) = (still, Some(world.now));
    world.look();
    assert!(world.steady_on("closed"), "ill over direct only, and long enough to know");
}

#[test]
fn a_service_that_fails_over_one_path_first_blames_nobody_before_the_other_was_asked_again() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    let moves = world.moves.len();
    let asked_before = world.now;
    world.sleep(secs(30));
    (world.known("closed").good_since, world.known("closed").last_good) =
        (Some(asked_before), Some(asked_before));
    world.saas("direct", ServiceVerdict::Ill);
    (world.known("direct").bad_since, world.known("direct").last_bad) = (Some(world.now), Some(world.now));
    world.look();
    assert_eq!(world.moves.len(), moves, "closed was last asked before the service failed over direct");
    world.sleep(secs(2));
    world.known("closed").last_good = Some(world.now);
    world.look();
    assert!(world.steady_on("closed"), "well over closed since direct failed");
}

#[test]
fn without_blaming_the_service_the_same_illness_moves_users_for_nothing() {
    let mut world = World::without(|m| &mut m.blame_service);
    world.move_to_soaking();
    world.saas("direct", ServiceVerdict::Ill);
    world.known("closed").verdict = ServiceVerdict::Unknown;
    world.look();
    assert_eq!(world.kernel, path("closed"));
}

#[test]
fn users_whose_new_flows_go_unanswered_are_taken_back() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.path("closed").flows = FlowCount { answered: 98, total: 100 };
    world.path("direct").flows = FlowCount { answered: 30, total: 49 };
    world.look();
    assert_eq!(world.name(), StateName::Soaking, "too few to judge");
    world.path("direct").flows = FlowCount { answered: 31, total: 51 };
    world.look();
    assert_eq!(world.kernel, path("closed"));
}

#[test]
fn rollback_works_from_every_state_that_has_something_to_roll_back() {
    let mut world = World::new(&["closed", "direct"]);
    assert!(world.command(Command::Rollback).is_err(), "nothing was moved");
    world.start().expect("no veto");
    world.command(Command::Rollback).expect("from qualifying");
    assert!(world.steady_on("closed"));
    world.move_to_soaking();
    world.command(Command::Rollback).expect("from soaking");
    assert!(world.steady_on("closed"));
    assert_eq!(
        world.machine.vetoes(None, &world.view, world.now),
        [],
        "nobody is punished for a person's wish"
    );
    world.move_to_soaking();
    world.sleep(secs(10));
    assert!(world.steady_on("direct"));
    world.path("closed").liveness = Liveness::Down;
    assert!(matches!(world.command(Command::Rollback).expect_err("dead")[..], [Veto::NoWayBack { .. }]));
    world.path("closed").liveness = Liveness::Up;
    world.command(Command::Rollback).expect("after the commit");
    assert!(world.steady_on("closed"));
    assert_eq!(world.machine.home(), &path("closed"));
}

#[test]
fn with_rollback_switched_off_nobody_is_rescued() {
    let mut world = World::without(|m| &mut m.rollback);
    world.move_to_soaking();
    world.path("direct").liveness = Liveness::Down;
    world.look();
    world.sleep(secs(60));
    assert_eq!(world.kernel, path("direct"));
}

#[test]
fn a_brown_out_in_the_soak_returns_and_lets_people_finish_but_not_where_long_answers_stall() {
    for (ailment, finishes) in [
        (Ailment::Lossy { permille: 200 }, true),
        (Ailment::Slow { millis: 900, usual_millis: 20 }, true),
        (Ailment::LargeStall, false),
    ] {
        let mut world = World::new(&["closed", "direct"]);
        world.move_to_soaking();
        world.path("direct").clients = Some(5);
        world.path("direct").ailment = Some(ailment);
        world.look();
        assert_eq!(world.kernel, path("closed"), "{ailment:?}");
        assert_eq!(world.name() == StateName::RollingBack, finishes, "{ailment:?}");
        assert_eq!(world.kernel_actions_named("KillFlows"), usize::from(!finishes), "{ailment:?}");
    }
}

#[test]
fn a_brown_out_on_both_paths_or_on_the_first_moves_nobody() {
    let mut world = World::new(&["closed", "direct"]);
    world.path("closed").ailment = Some(Ailment::Lossy { permille: 300 });
    world.look();
    assert!(world.steady_on("closed"), "forward is a move, and a move is asked for");
    world.path("closed").ailment = None;
    world.move_to_soaking();
    for id in ["closed", "direct"] {
        world.path(id).ailment = Some(Ailment::Lossy { permille: 300 });
    }
    world.look();
    assert_eq!(world.name(), StateName::Soaking);
}

#[test]
fn without_looking_at_brown_outs_people_stay_in_one() {
    let mut world = World::without(|m| &mut m.brown_out);
    world.move_to_soaking();
    world.path("direct").ailment = Some(Ailment::LargeStall);
    world.look();
    assert_eq!(world.kernel, path("direct"));
}

#[test]
fn a_path_in_a_brown_out_is_fled_to_only_where_there_is_no_better() {
    let mut world = World::new(&["closed", "vpn", "direct"]);
    world.path("vpn").ailment = Some(Ailment::Lossy { permille: 300 });
    world.path("closed").liveness = Liveness::Down;
    world.look();
    assert!(world.steady_on("direct"));
    let mut world = World::new(&["closed", "vpn"]);
    world.path("vpn").ailment = Some(Ailment::Lossy { permille: 300 });
    world.path("closed").liveness = Liveness::Down;
    world.look();
    assert!(world.steady_on("vpn"));
}

#[test]
fn users_whose_flows_fell_below_what_is_usual_return_if_all_works_over_the_other_path() {
    let moved = || {
        let mut world = World::new(&["closed", "direct"]);
        world.move_to_soaking();
        world.sleep(secs(10));
        assert!(world.steady_on("direct"));
        world.path("direct").usual_flows = Some(0.97);
        world.path("direct").flows = FlowCount { answered: 40, total: 100 };
        world
    };
    let mut world = moved();
    world.saas("closed", ServiceVerdict::Unknown);
    world.look();
    assert!(world.steady_on("direct"), "whether it works elsewhere is not known");
    let mut world = moved();
    world.look();
    assert_eq!(world.kernel, path("closed"));
    let fell = |n: &Notice| {
        matches!(n, Notice::State { cause: Cause::FlowsFell { percent: 40, before_percent: 97, .. }, .. })
    };
    assert!(world.log.iter().any(|(_, n)| fell(n)));
}

#[test]
fn a_provider_that_renumbers_just_after_the_cut_over_takes_everybody_back() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.path("direct").egress = stranger();
    world.look();
    assert_eq!(world.kernel, path("closed"));
    assert!(
        world
            .log
            .iter()
            .any(|(_, n)| { matches!(n, Notice::State { cause: Cause::EgressUnregistered { .. }, .. }) })
    );
}

#[test]
fn whoever_is_turned_away_where_the_address_is_unknown_does_not_wait_for_the_deadline() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.path("direct").egress = stranger();
    world.path("direct").clients = Some(5);
    world.look();
    world.sleep(secs(2));
    assert_eq!(world.name(), StateName::RollingBack, "those who are still served may finish");
    world.saas("direct", ServiceVerdict::Ill);
    world.look();
    assert!(world.steady_on("closed"), "{:?}", world.machine.state());
    assert!(world.kernel_actions_named("AffinityDelete") > 0, "{:?}", world.kernel_actions);
}
