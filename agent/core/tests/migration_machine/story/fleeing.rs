//! Paths that fail outside of a move, and nowhere to go.

use seimon_core::health::{EgressVerdict, Liveness};
use seimon_core::migration::{BlockReason, State, StateName};

use crate::world::*;

#[test]
fn a_dead_path_in_steady_is_fled_and_home_is_taken_again_after_its_hold_down() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.sleep(secs(10));
    assert!(world.steady_on("direct"));
    world.path("direct").liveness = Liveness::Down;
    world.look();
    assert!(world.steady_on("closed"));
    world.path("direct").liveness = Liveness::Up;
    world.look();
    assert!(world.steady_on("closed"), "held down");
    world.path("closed").clients = Some(4);
    world.sleep(secs(11));
    assert_eq!(world.kernel, path("direct"), "home by itself");
    world.path("closed").clients = Some(0);
    world.look();
    assert!(world.steady_on("direct"));
}

#[test]
fn a_bad_path_is_never_left_for_nothing_better() {
    let mut world = World::new(&["closed", "direct"]);
    world.path("direct").egress = stranger();
    world.path("closed").liveness = Liveness::Down;
    world.look();
    assert_eq!(
        *world.machine.state(),
        State::Blocked {
            path: path("closed"),
            reason: BlockReason::NotRegistered { living: vec![path("direct")] }
        }
    );
    assert!(world.moves.is_empty(), "traffic stays aimed where it was");
    world.path("direct").egress = EgressVerdict::Registered;
    world.look();
    assert!(world.steady_on("direct"), "recovers by itself");
    assert_eq!(world.machine.home(), &path("closed"));
}

#[test]
fn a_blocked_group_recovers_when_its_own_path_lives_again() {
    let mut world = World::new(&["closed", "direct"]);
    for id in ["closed", "direct"] {
        world.path(id).liveness = Liveness::Down;
    }
    world.look();
    assert_eq!(world.name(), StateName::Blocked);
    world.path("closed").liveness = Liveness::Up;
    world.look();
    assert!(world.steady_on("closed"));
    assert!(world.moves.is_empty());
}

#[test]
fn with_both_paths_dead_in_the_soak_it_waits_and_then_goes_home() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.path("closed").liveness = Liveness::Down;
    world.path("direct").liveness = Liveness::Down;
    world.look();
    assert_eq!(world.name(), StateName::Blocked);
    world.path("closed").liveness = Liveness::Up;
    world.look();
    assert!(world.steady_on("closed"));
}
