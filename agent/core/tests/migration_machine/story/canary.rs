//! A few clients first.

use seimon_core::health::{Ailment, Liveness, ServiceVerdict};
use seimon_core::migration::{
    Action, Cause, Command, Manner, Notice, Saved, State, StateName, Veto, WindowState,
};

use crate::world::*;

/// In Canary, with two of its clients on the new path.
fn trying() -> World {
    let mut world = World::with_canary();
    world.path("closed").clients = Some(100);
    world.move_to_canary();
    world.path("direct").clients = Some(2);
    world.look();
    world
}

#[test]
fn a_few_try_the_new_path_before_everybody_moves() {
    let mut world = trying();
    assert_eq!((&world.kernel, &world.trial), (&path("closed"), &Some(path("direct"))));
    world.sleep(secs(19));
    assert_eq!(world.name(), StateName::Canary);
    world.sleep(secs(2));
    assert_eq!(world.name(), StateName::Soaking);
    assert_eq!((&world.kernel, &world.trial), (&path("direct"), &None));
    let well = |n: &Notice| matches!(n, Notice::State { cause: Cause::CanaryWell { clients: 2, .. }, .. });
    assert!(world.log.iter().any(|(_, n)| well(n)));
    world.path("closed").clients = Some(0);
    world.sleep(secs(10));
    assert!(world.steady_on("direct"));
    assert_eq!(world.kernel_actions_named("KillFlows") + world.kernel_actions_named("ForceDrain"), 0);
}

#[test]
fn a_canary_that_nobody_is_in_proves_nothing() {
    let mut world = World::with_canary();
    world.move_to_canary();
    world.sleep(secs(3_600));
    assert_eq!(world.name(), StateName::Canary);
    world.path("direct").clients = Some(1);
    world.look();
    assert_eq!(world.name(), StateName::Soaking);
}

#[test]
fn one_who_tried_and_went_home_counts() {
    let mut world = trying();
    world.path("direct").clients = Some(0);
    world.sleep(secs(20));
    assert_eq!(world.name(), StateName::Soaking);
}

#[test]
fn a_new_path_that_dies_under_a_canary_lets_the_few_go_at_once_and_nobody_else_notices() {
    let mut world = trying();
    world.path("direct").liveness = Liveness::Down;
    world.look();
    assert!(world.steady_on("closed"));
    assert_eq!(world.trial, None);
    assert!(world.moves.is_empty(), "everybody else stayed");
    assert_eq!(world.kernel_actions_named("KillFlows"), 1);
    world.path("direct").liveness = Liveness::Up;
    assert!(matches!(world.vetoed()[..], [Veto::HeldDown { .. }]));
}

#[test]
fn a_brown_out_halts_a_canary_softly_and_an_ill_service_at_once() {
    let mut world = trying();
    world.path("direct").ailment = Some(Ailment::Lossy { permille: 180 });
    world.look();
    assert_eq!(world.name(), StateName::RollingBack);
    assert_eq!(world.trial, None, "nobody begins there any more");
    world.path("direct").clients = Some(0);
    world.look();
    assert!(world.steady_on("closed"));
    assert_eq!(world.kernel_actions_named("KillFlows"), 0);

    let mut world = trying();
    world.saas("direct", ServiceVerdict::Ill);
    world.look();
    assert!(world.steady_on("closed"));
}

#[test]
fn the_old_path_dying_under_a_canary_takes_everybody_to_the_new_one() {
    let mut world = trying();
    world.path("closed").liveness = Liveness::Down;
    world.look();
    assert!(world.steady_on("direct"));
    assert_eq!(world.trial, None);
}

#[test]
fn hours_and_freezes_delay_the_end_of_a_canary_and_do_not_end_it() {
    for window in
        [WindowState::Closed { next: None }, WindowState::Frozen { reason: "exams".into(), until: None }]
    {
        let mut world = trying();
        world.view.window = window;
        world.sleep(secs(3_600));
        world.look();
        assert_eq!(world.name(), StateName::Canary);
        assert!(!world.machine.vetoes(None, &world.view, world.now).is_empty(), "it says what it waits for");
        world.view.window = WindowState::Open;
        world.look();
        assert_eq!(world.name(), StateName::Soaking);
    }
}

#[test]
fn the_last_look_before_a_canary_finds_a_new_address() {
    let mut world = World::with_canary();
    world.start().expect("no veto");
    for _ in 0..5 {
        world.checks(seimon_core::migration::Passed::Yes);
    }
    world.now = world.now + secs(5);
    world.machine.handle_timeout(&world.view, world.now);
    assert_eq!(world.name(), StateName::Canary);
    world.path("direct").egress = stranger();
    world.settle();
    assert!(world.steady_on("closed"));
    assert_eq!((&world.trial, world.kernel_actions_named("KillFlows")), (&None, 0));
}

#[test]
fn a_person_ends_a_canary_and_the_few_finish_where_they_are() {
    let mut world = trying();
    world.command(Command::Rollback).expect("possible");
    assert_eq!(world.name(), StateName::RollingBack);
    let State::RollingBack { leaving, to, .. } = world.machine.state() else { panic!() };
    assert_eq!((leaving, to), (&path("direct"), &path("closed")));
    world.path("direct").clients = Some(0);
    world.look();
    assert!(world.steady_on("closed"));
}

#[test]
fn a_canary_survives_a_kill_and_a_power_cut_and_is_the_same() {
    for boot in ["boot-1", "boot-2"] {
        let mut world = trying();
        world.sleep(secs(5));
        world.crash(boot);
        // Nothing is known yet of any path.
        let known = std::mem::take(&mut world.view.paths);
        world.settle();
        assert_eq!(world.name(), StateName::Canary, "{boot}");
        assert_eq!(world.trial, Some(path("direct")), "{boot}");
        world.view.paths = known;
        world.sleep(secs(21));
        assert_eq!(world.name(), StateName::Soaking, "{boot}");
    }
}

#[test]
fn a_plan_without_a_canary_examines_again() {
    let mut world = trying();
    let plain = config(&["closed", "direct"]);
    world.machine =
        world.machine.clone().reconfigure(plain.clone(), &world.view, world.now).expect("a route");
    world.config = plain;
    world.settle();
    assert_eq!((world.name(), &world.trial), (StateName::Qualifying, &None));
}

#[test]
fn a_disk_that_refuses_keeps_a_canary_from_beginning() {
    let mut world = World::with_canary();
    world.start().expect("no veto");
    world.disk = Works::No;
    world.qualify();
    assert_eq!((&world.trial, world.moves.len()), (&None, 0));
    assert_eq!(*world.machine.state(), State::Steady { path: path("closed") });
}

#[test]
fn a_kernel_that_refuses_the_end_of_a_canary_takes_the_few_back() {
    let mut world = trying();
    world.kernel_works = Works::No;
    world.sleep(secs(20));
    world.kernel_works = Works::Yes;
    world.sleep(secs(60));
    assert!(world.steady_on("closed"), "{:?}", world.machine.state());
    assert_eq!(world.trial, None);
}

#[test]
fn the_few_of_a_canary_whose_end_the_kernel_refuses_may_finish() {
    let mut world = trying();
    world.kernel_actions.clear();
    world.kernel_works = Works::No;
    world.sleep(secs(20));
    world.kernel_works = Works::Yes;
    world.sleep(secs(10));
    let softly = matches!(world.machine.state(), State::RollingBack { manner: Manner::Soft { .. }, .. });
    assert!(softly, "{:?}", world.machine.state());
    let ended = |a: &Action| matches!(a, Action::KillFlows { .. } | Action::AffinityDelete { .. });
    assert!(!world.kernel_actions.iter().any(ended), "{:?}", world.kernel_actions);
    world.path("direct").clients = Some(0);
    world.look();
    assert!(world.steady_on("closed"), "{:?}", world.machine.state());
}

#[test]
fn a_canary_is_on_disk_with_what_it_has_seen() {
    let mut world = trying();
    world.sleep(secs(5));
    world.command(Command::Pause).expect("pausable");
    let saved = world.on_disk().expect("written").state;
    assert!(matches!(saved, Saved::Canary { paused: true, tried: 2, .. }), "{saved:?}");
    world.sleep(secs(3_600));
    assert_eq!(world.name(), StateName::Canary);
    world.command(Command::Resume).expect("resumable");
    world.sleep(secs(16));
    assert_eq!(world.name(), StateName::Soaking);
}
