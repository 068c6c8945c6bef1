//! The checks that all other tests lean on can fail; and what was written once stays readable.

use seimon_core::migration::{Checkpoint, Machine, State, StateName, Switch, WindowState};

use crate::world::*;

#[test]
#[should_panic(expected = "nothing on disk")]
fn a_machine_that_does_not_write_first_is_noticed() {
    let mut world = World::without(|m| &mut m.checkpoint);
    world.config.mechanisms.checkpoint = Switch::On;
    world.move_to_soaking();
}

#[test]
#[should_panic(expected = "cut over outside the window")]
fn a_machine_that_ignores_the_window_is_noticed() {
    let mut world = World::without(|m| &mut m.window_veto);
    world.view.window = WindowState::Closed { next: None };
    world.move_to_soaking();
}

#[test]
#[should_panic(expected = "cut over unregistered")]
fn a_machine_that_ignores_the_egress_is_noticed() {
    let mut world = World::without(|m| &mut m.egress_veto);
    world.path("direct").egress = stranger();
    world.move_to_soaking();
}

/// Never change these: such text is on gateways' disks.
#[test]
fn checkpoints_of_version_1_stay_readable() {
    let states = [
        (r#"{"state":"steady","path":"direct"}"#, StateName::Steady),
        (
            r#"{"state":"qualifying","from":"closed","to":"direct","left_ms":4000,"paused":true}"#,
            StateName::Qualifying,
        ),
        (r#"{"state":"cutting_over","from":"closed","to":"direct"}"#, StateName::Qualifying),
        (
            r#"{"state":"soaking","from":"closed","to":"direct","soak_left_ms":1,"drain_left_ms":2,"drained":"underway","paused":false}"#,
            StateName::Soaking,
        ),
        (
            r#"{"state":"soaking","from":"closed","to":"direct","soak_left_ms":1,"drain_left_ms":2,"drained":{"forced":{"clients":3}}}"#,
            StateName::Soaking,
        ),
        (
            r#"{"state":"rolling_back","leaving":"direct","to":"closed","cause":{"kind":"path_down","path":"direct"},"drain_left_ms":null}"#,
            StateName::RollingBack,
        ),
        (
            r#"{"state":"rolling_back","leaving":"direct","to":"closed","cause":{"kind":"service_ill","path":"direct","service":"saas","stage":"http_status"},"drain_left_ms":9}"#,
            StateName::RollingBack,
        ),
        (r#"{"state":"blocked","path":"closed","reason":{"kind":"no_living_path"}}"#, StateName::Blocked),
        (
            r#"{"state":"blocked","path":"closed","reason":{"kind":"not_registered","living":["direct"]}}"#,
            StateName::Blocked,
        ),
        (
            r#"{"state":"canary","from":"closed","to":"direct","left_ms":4000,"paused":false,"tried":2}"#,
            StateName::Canary,
        ),
        (
            r#"{"state":"rolling_back","leaving":"direct","to":"closed","cause":{"kind":"brown_out","path":"direct","ailment":{"ailment":"lossy","permille":190}}}"#,
            StateName::RollingBack,
        ),
    ];
    let world = World::with_canary();
    for (state, expected) in states {
        let text = format!(
            r#"{{"version":1,"zone_group":{{"zone":"affairs","group":"affairs"}},"home":"closed","previous":null,
            "state":{state},"holds":[{{"path":"direct","left_ms":5,"failures":2}}],"boot":"boot-0","at":77,"wall_ms":1800000000000}}"#
        );
        let checkpoint: Checkpoint = serde_json::from_str(&text).expect("readable");
        let machine =
            Machine::restore(world.config.clone(), &checkpoint, &world.view, world.now).expect("believable");
        assert_eq!(machine.state().name(), expected, "{state}");
        // Written again, it says the same.
        let again = serde_json::to_string(&checkpoint).expect("serialisable");
        assert_eq!(serde_json::from_str::<Checkpoint>(&again).expect("readable"), checkpoint);
    }
}

#[test]
fn a_paused_move_stays_paused_over_a_restart() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.command(seimon_core::migration::Command::Pause).expect("pausable");
    world.sleep(secs(100));
    world.crash("boot-2");
    world.settle();
    assert!(world.machine.state().is_paused());
    let State::Soaking { soak, .. } = world.machine.state() else { panic!("{:?}", world.machine.state()) };
    assert_eq!(soak.left(world.now), secs(8));
}
