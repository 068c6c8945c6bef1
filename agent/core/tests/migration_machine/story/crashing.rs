//! A disk or a kernel that refuses, kills, power cuts, and what is read afterwards.

use seimon_core::health::Liveness;
use seimon_core::migration::{
    Action, DiskRoom, Event, Machine, Notice, Passed, RestoreError, Saved, State, StateName, Veto,
};

use crate::world::*;

#[test]
fn a_full_disk_stops_a_move_before_anything_is_changed() {
    let mut world = World::new(&["closed", "direct"]);
    world.disk = Works::No;
    world.start().ok();
    assert_eq!(*world.machine.state(), State::Steady { path: path("closed") });
    let told = world.log.iter().any(|(_, n)| {
        matches!(n, Notice::Vetoed { vetoes } if matches!(vetoes[..], [Veto::CheckpointNotWritten { .. }]))
    });
    assert!(told);
    assert!(world.moves.is_empty());
    world.disk = Works::Yes;
    world.sleep(secs(20));
    assert!(world.machine.is_settled());
}

#[test]
fn a_disk_that_refuses_in_the_soak_delays_the_return_but_does_not_lose_it() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.disk = Works::No;
    world.path("direct").liveness = Liveness::Down;
    world.look();
    world.sleep(secs(5));
    assert_eq!(world.kernel, path("direct"), "nothing is done that is not written down");
    world.disk = Works::Yes;
    world.sleep(secs(9));
    assert!(world.steady_on("closed"));
}

#[test]
fn a_disk_that_is_full_in_the_soak_stops_nothing_that_leads_back() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.view.disk = DiskRoom::Short;
    world.path("direct").liveness = Liveness::Down;
    world.look();
    world.sleep(secs(1));
    assert!(world.steady_on("closed"), "{:?}", world.machine.state());
}

#[test]
fn a_change_that_the_kernel_refuses_takes_the_move_back_and_is_tried_again() {
    let mut world = World::new(&["closed", "direct"]);
    world.kernel_works = Works::No;
    world.start().expect("no veto");
    world.qualify();
    assert_eq!(world.name(), StateName::RollingBack);
    world.kernel_works = Works::Yes;
    world.sleep(secs(1));
    assert!(world.steady_on("closed"));
    assert!(matches!(world.vetoed()[..], [Veto::HeldDown { .. }]));
}

#[test]
fn with_checkpoints_switched_off_a_kill_forgets_the_move() {
    let mut world = World::without(|m| &mut m.checkpoint);
    world.move_to_soaking();
    assert_eq!(world.durable, None);
    world.crash("boot-1");
    world.settle();
    assert_eq!(world.kernel, path("closed"));
}

#[test]
fn deadlines_survive_a_kill_and_a_power_cut() {
    for (boot, left) in [("boot-1", 3), ("boot-2", 8)] {
        let mut world = World::new(&["closed", "direct"]);
        world.move_to_soaking();
        world.now = world.now + secs(5);
        world.crash(boot);
        world.settle();
        let State::Soaking { soak, .. } = world.machine.state() else {
            panic!("{:?}", world.machine.state())
        };
        assert_eq!(soak.left(world.now), secs(left), "{boot}");
    }
}

#[test]
fn a_long_soak_that_loses_power_every_hour_still_ends() {
    let mut config = config(&["closed", "direct"]);
    config.times.soak = seimon_plan::PlanDuration(secs(8 * 3_600));
    let mut world = World::with(config);
    world.move_to_soaking();
    for hour in 0..10 {
        world.sleep(secs(3_600));
        world.crash(&format!("boot-{hour}-again"));
        world.settle();
    }
    assert!(world.steady_on("direct"));
}

#[test]
fn killed_after_any_action_it_continues_or_returns() {
    // The actions of a whole move, then of a roll-back; the kill comes after the n-th.
    for kill_after in 0..60 {
        for boot in ["boot-1", "boot-2"] {
            for dies in [false, true] {
                let mut world = World::new(&["closed", "direct"]);
                let mut left = kill_after;
                world.start().expect("no veto");
                for round in 0..40 {
                    world.now = world.now + secs(1);
                    world.machine.handle_timeout(&world.view, world.now);
                    if round < 8 {
                        let event =
                            Event::Check { path: path("direct"), service: service(), passed: Passed::Yes };
                        world.machine.handle_event(event, &world.view, world.now);
                    }
                    if dies && round == 9 {
                        world.path("direct").liveness = Liveness::Down;
                    }
                    world.machine.handle_event(Event::FactsChanged, &world.view, world.now);
                    while let Some(event) = world.step() {
                        left -= 1;
                        if left == 0 {
                            world.crash(boot);
                            continue;
                        }
                        if let Some(event) = event {
                            world.machine.handle_event(event, &world.view, world.now);
                        }
                    }
                }
                for _ in 0..5 {
                    world.qualify();
                    world.sleep(secs(60));
                }
                let expected = if dies { "closed" } else { "direct" };
                // Killed before the start was written down, the move was never asked for.
                let fine = world.steady_on(expected) || (kill_after < 6 && world.steady_on("closed"));
                assert!(fine, "kill after {kill_after}, {boot}, dies {dies}: {:?}", world.machine.state());
                assert!(world.machine.is_settled());
            }
        }
    }
}

#[test]
fn impossible_checkpoints_are_refused_and_lead_to_the_last_steady_path() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.sleep(secs(10));
    let good = world.on_disk().expect("written");
    type Case = (fn(&mut seimon_core::migration::Checkpoint), fn(&RestoreError) -> bool);
    let cases: [Case; 5] = [
        (|c| c.version = 2, |e| matches!(e, RestoreError::Version { found: 2, .. })),
        (
            |c| c.state = Saved::CuttingOver { from: path("closed"), to: path("vpn") },
            |e| *e == RestoreError::PathNotInRoute(path("vpn")),
        ),
        (
            |c| c.state = Saved::CuttingOver { from: path("closed"), to: path("closed") },
            |e| *e == RestoreError::SamePath(path("closed")),
        ),
        (
            |c| {
                c.state = Saved::Qualifying {
                    from: path("closed"),
                    to: path("direct"),
                    left_ms: u64::MAX,
                    paused: false,
                }
            },
            |e| *e == RestoreError::TooLong(u64::MAX),
        ),
        (
            |c| c.zone_group.zone = seimon_plan::ZoneId::new("learning").expect("an identifier"),
            |e| matches!(e, RestoreError::OtherZoneGroup { .. }),
        ),
    ];
    for (n, (spoil, expected)) in cases.into_iter().enumerate() {
        let mut bad = good.clone();
        spoil(&mut bad);
        let (machine, error) =
            Machine::restore_or_rest(world.config.clone(), &bad, &world.view, world.now).expect("a route");
        let error = error.expect("refused");
        assert!(expected(&error), "case {n}: {error}");
        let rest = if n == 4 { "closed" } else { "direct" };
        assert_eq!(*machine.state(), State::Steady { path: path(rest) }, "case {n}");
    }
}

#[test]
fn a_late_answer_to_the_machine_before_a_new_plan_is_not_taken_for_ours() {
    let mut world = World::new(&["closed", "direct"]);
    world.start().expect("no veto");
    world.machine =
        world.machine.clone().reconfigure(world.config.clone(), &world.view, world.now).expect("a route");
    let ids: Vec<u64> = std::iter::from_fn(|| world.machine.poll_action())
        .filter_map(|action| if let Action::WriteCheckpoint { id, .. } = action { Some(id) } else { None })
        .collect();
    for id in 0..ids[0] {
        world.machine.handle_event(Event::CheckpointDurable { id }, &world.view, world.now);
    }
    assert!(!std::iter::from_fn(|| world.machine.poll_action()).any(|action| action.touches_kernel()));
}
