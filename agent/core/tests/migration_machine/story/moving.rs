//! A move that goes on: qualifying, the cut-over, the soak, the drain, and a person's pause.

use seimon_core::health::Liveness;
use seimon_core::migration::{Command, Notice, Passed, Saved, StateName, Veto, WindowState};

use crate::world::*;

#[test]
fn a_healthy_move_ends_on_the_new_path_after_soak_and_drain() {
    let mut world = World::new(&["closed", "direct"]);
    world.path("closed").clients = Some(100);
    world.move_to_soaking();
    assert_eq!(world.kernel, path("direct"));
    world.sleep(secs(20));
    assert_eq!(world.name(), StateName::Soaking, "clients are still on the old path");
    world.path("closed").clients = Some(0);
    world.look();
    assert!(world.steady_on("direct"));
    assert_eq!(world.machine.home(), &path("direct"));
    assert_eq!(world.machine.forced_by_deadline(), 0);
    assert_eq!(world.kernel_actions_named("KillFlows") + world.kernel_actions_named("ForceDrain"), 0);
    assert_eq!(world.on_disk().map(|c| c.state), Some(Saved::Steady { path: path("direct") }));
}

#[test]
fn a_drained_group_still_soaks_for_its_whole_time() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.sleep(secs(7));
    assert_eq!(world.name(), StateName::Soaking);
    world.sleep(secs(1));
    assert!(world.steady_on("direct"));
}

#[test]
fn clients_left_at_the_drain_deadline_are_moved_and_counted() {
    let mut world = World::new(&["closed", "direct"]);
    world.path("closed").clients = Some(3);
    world.move_to_soaking();
    world.sleep(secs(31));
    assert!(world.steady_on("direct"));
    assert_eq!(world.machine.forced_by_deadline(), 3);
    assert!(world.log.iter().any(|(_, n)| *n == Notice::Forced { path: path("closed"), clients: 3 }));
    assert_eq!(world.kernel_actions_named("ForceDrain"), 1);
}

#[test]
fn no_cut_over_before_enough_checks_in_a_row_succeeded() {
    let mut world = World::new(&["closed", "direct"]);
    world.start().expect("no veto");
    for _ in 0..4 {
        world.checks(Passed::Yes);
    }
    world.checks(Passed::No);
    for _ in 0..4 {
        world.checks(Passed::Yes);
    }
    world.sleep(secs(6));
    assert_eq!(world.name(), StateName::Qualifying);
    world.checks(Passed::Yes);
    assert_eq!(world.name(), StateName::Soaking);
}

#[test]
fn a_candidate_that_never_qualifies_is_given_up() {
    let mut world = World::new(&["closed", "direct"]);
    world.start().expect("no veto");
    world.sleep(world.config.qualify_limit());
    assert!(world.steady_on("closed"));
    let given_up = world.log.iter().any(|(_, notice)| {
        matches!(notice, Notice::Vetoed { vetoes } if matches!(vetoes[..], [Veto::NotQualified { good: 0, .. }]))
    });
    assert!(given_up, "{:?}", world.log);
    assert!(world.moves.is_empty());
}

#[test]
fn a_window_that_closes_while_qualifying_stops_the_move_but_not_one_that_soaks() {
    let mut world = World::new(&["closed", "direct"]);
    world.start().expect("no veto");
    world.view.window = WindowState::Closed { next: None };
    world.look();
    assert!(world.steady_on("closed"));

    world.view.window = WindowState::Open;
    world.move_to_soaking();
    world.view.window = WindowState::Closed { next: None };
    world.sleep(secs(10));
    assert!(world.steady_on("direct"));
}

#[test]
fn the_last_look_is_after_the_checkpoint_and_before_the_change() {
    let mut world = World::new(&["closed", "direct"]);
    world.start().expect("no veto");
    for _ in 0..5 {
        world.checks(Passed::Yes);
    }
    world.now = world.now + secs(5);
    world.machine.handle_timeout(&world.view, world.now);
    assert_eq!(world.name(), StateName::CuttingOver);
    // Between the write and its acknowledgement the candidate gets an address that nobody knows.
    world.path("direct").egress = stranger();
    world.settle();
    assert!(world.steady_on("closed"));
    assert!(world.moves.is_empty());
}

#[test]
fn the_old_path_dying_in_the_soak_lets_its_clients_go_at_once() {
    let mut world = World::new(&["closed", "direct"]);
    world.path("closed").clients = Some(9);
    world.move_to_soaking();
    world.path("closed").liveness = Liveness::Down;
    world.look();
    assert_eq!(world.kernel_actions_named("KillFlows"), 1);
    assert_eq!(world.machine.forced_by_deadline(), 0);
    world.sleep(secs(8));
    assert!(world.steady_on("direct"));
}

#[test]
fn pause_stops_the_clocks_and_resume_goes_on() {
    let mut world = World::new(&["closed", "direct"]);
    world.start().expect("no veto");
    world.command(Command::Pause).expect("pausable");
    world.qualify();
    world.sleep(secs(3_600));
    assert_eq!(world.name(), StateName::Qualifying);
    world.command(Command::Resume).expect("resumable");
    world.sleep(secs(6));
    assert_eq!(world.name(), StateName::Soaking);
    world.command(Command::Pause).expect("pausable");
    world.sleep(secs(3_600));
    assert_eq!(world.name(), StateName::Soaking);
    world.path("direct").liveness = Liveness::Down;
    world.look();
    assert!(world.steady_on("closed"), "a paused move still goes back when it must");
}

#[test]
fn a_plan_that_takes_the_candidate_away_ends_the_move_at_rest() {
    let mut world = World::new(&["closed", "direct", "vpn"]);
    world.command(Command::Start { to: Some(path("vpn")) }).expect("no veto");
    let smaller = config(&["closed", "direct"]);
    world.machine =
        world.machine.clone().reconfigure(smaller.clone(), &world.view, world.now).expect("a route");
    world.config = smaller;
    world.settle();
    assert!(world.steady_on("closed"));
}
