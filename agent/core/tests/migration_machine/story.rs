//! Moves as they go well and wrong, one story each.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::world::*;
use seimon_core::health::{EgressVerdict, FlowCount, Liveness, ServiceVerdict};
use seimon_core::migration::{
    Action, BlockReason, Cause, ClockTrust, Command, Event, Machine, Notice, Passed, RestoreError, Saved,
    State, StateName, Switch, Veto, WindowState,
};

fn vetoed(world: &mut World) -> Vec<Veto> {
    world.start().expect_err("a veto")
}

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
fn all_vetoes_are_named_at_once() {
    let mut world = World::new(&["closed", "direct"]);
    world.view.window = WindowState::Frozen { reason: "定期試験".into(), until: None };
    world.view.clock = ClockTrust::NotTrusted;
    world.path("direct").liveness = Liveness::Down;
    world.path("direct").egress = stranger();
    world.path("direct").loss = Some(0.5);
    world.saas("direct", ServiceVerdict::Ill);
    world.path("direct").services.get_mut(&service()).expect("there").median = Some(Duration::from_secs(2));
    let vetoes = vetoed(&mut world);
    let kinds: BTreeSet<String> =
        vetoes.iter().map(|v| format!("{v:?}").split(' ').next().expect("a name").to_owned()).collect();
    let expected = [
        "CandidateDown",
        "ClockNotTrusted",
        "EgressNotRegistered",
        "Frozen",
        "Lossier",
        "ServiceIll",
        "Slower",
    ];
    assert_eq!(kinds, expected.map(str::to_owned).into(), "{vetoes:?}");
}

#[test]
fn each_veto_alone_stops_the_start_and_switched_off_it_does_not() {
    type Spoil = fn(&mut World);
    type Case = (Spoil, Option<Spoil>);
    let cases: [Case; 7] = [
        (
            |w| w.view.window = WindowState::Closed { next: None },
            Some(|w| w.config.mechanisms.window_veto = Switch::Off),
        ),
        (|w| w.view.clock = ClockTrust::NotTrusted, Some(|w| w.config.mechanisms.window_veto = Switch::Off)),
        (|w| w.path("direct").egress = stranger(), Some(|w| w.config.mechanisms.egress_veto = Switch::Off)),
        (
            |w| w.path("direct").egress = EgressVerdict::Unknown,
            Some(|w| w.config.mechanisms.egress_veto = Switch::Off),
        ),
        (|w| w.path("direct").loss = Some(0.2), Some(|w| w.config.mechanisms.baseline_veto = Switch::Off)),
        (|w| w.path("direct").liveness = Liveness::Unknown, None),
        (|w| w.saas("direct", ServiceVerdict::Ill), None),
    ];
    for (n, (spoil, switch_off)) in cases.into_iter().enumerate() {
        let mut world = World::new(&["closed", "direct"]);
        spoil(&mut world);
        assert_eq!(vetoed(&mut world).len(), 1, "case {n}");
        assert!(world.steady_on("closed"));
        if let Some(switch_off) = switch_off {
            switch_off(&mut world);
            let mut off = World::with(world.config.clone());
            spoil(&mut off);
            assert_eq!(off.start(), Ok(()), "case {n}");
        }
    }
}

#[test]
fn a_little_slower_is_not_a_veto_but_twice_and_a_tenth_of_a_second_is() {
    let mut world = World::new(&["closed", "direct"]);
    let mut set = |ms| {
        world.path("direct").services.get_mut(&service()).expect("there").median =
            Some(Duration::from_millis(ms));
        world.machine.vetoes(None, &world.view, world.now)
    };
    assert_eq!(set(119), []);
    assert!(matches!(set(121)[..], [Veto::Slower { .. }]));
}

#[test]
fn a_path_outside_the_route_and_the_path_in_use_are_refused() {
    let mut world = World::new(&["closed", "direct"]);
    let to = |id| Command::Start { to: Some(path(id)) };
    assert!(matches!(world.command(to("vpn")).expect_err("veto")[..], [Veto::PathNotInRoute { .. }]));
    assert!(matches!(world.command(to("closed")).expect_err("veto")[..], [Veto::AlreadyThere { .. }]));
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
fn without_blaming_the_service_the_same_illness_moves_users_for_nothing() {
    let mut config = config(&["closed", "direct"]);
    config.mechanisms.blame_service = Switch::Off;
    let mut world = World::with(config);
    world.move_to_soaking();
    world.saas("direct", ServiceVerdict::Ill);
    world.path("closed").services.get_mut(&service()).expect("there").verdict = ServiceVerdict::Unknown;
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
fn after_a_failed_move_the_next_try_waits_longer_each_time() {
    let mut world = World::new(&["closed", "direct"]);
    let mut holds = Vec::new();
    for _ in 0..3 {
        world.move_to_soaking();
        world.path("direct").liveness = Liveness::Down;
        world.look();
        world.path("direct").liveness = Liveness::Up;
        let vetoes = vetoed(&mut world);
        let [Veto::HeldDown { left, .. }] = vetoes[..] else { panic!("{vetoes:?}") };
        holds.push(left.as_secs());
        world.sleep(left);
    }
    assert_eq!(holds, [10, 20, 40]);
}

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
fn a_change_that_the_kernel_refuses_takes_the_move_back_and_is_tried_again() {
    let mut world = World::new(&["closed", "direct"]);
    world.kernel_works = Works::No;
    world.start().expect("no veto");
    world.qualify();
    assert_eq!(world.name(), StateName::RollingBack);
    world.kernel_works = Works::Yes;
    world.sleep(secs(1));
    assert!(world.steady_on("closed"));
    assert!(matches!(vetoed(&mut world)[..], [Veto::HeldDown { .. }]));
}

#[test]
fn with_rollback_switched_off_nobody_is_rescued() {
    let mut config = config(&["closed", "direct"]);
    config.mechanisms.rollback = Switch::Off;
    let mut world = World::with(config);
    world.move_to_soaking();
    world.path("direct").liveness = Liveness::Down;
    world.look();
    world.sleep(secs(60));
    assert_eq!(world.kernel, path("direct"));
}

#[test]
fn with_checkpoints_switched_off_a_kill_forgets_the_move() {
    let mut config = config(&["closed", "direct"]);
    config.mechanisms.checkpoint = Switch::Off;
    let mut world = World::with(config);
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

#[test]
fn every_veto_has_sentences_in_both_languages() {
    let p = || path("direct");
    let ms = Duration::from_millis;
    let vetoes = [
        Veto::WindowClosed { next: Some("2027-01-09 18:00".into()) },
        Veto::WindowClosed { next: None },
        Veto::Frozen { reason: "定期試験".into(), until: Some("2027-02-05".into()) },
        Veto::ClockNotTrusted,
        Veto::EgressNotRegistered { path: p(), addresses: BTreeSet::from([[192, 0, 2, 9].into()]) },
        Veto::EgressNotMeasured { path: p() },
        Veto::Slower { path: p(), service: service(), took: ms(500), current: ms(20), allowed: ms(120) },
        Veto::Lossier { path: p(), lost: 105, allowed: 20 },
        Veto::CandidateDown { path: p() },
        Veto::CandidateUnknown { path: p() },
        Veto::ServiceIll { path: p(), service: service(), stage: None },
        Veto::NotQualified { path: p(), service: service(), good: 2, needed: 5 },
        Veto::PathNotInRoute { path: p(), route: vec![path("closed")] },
        Veto::HeldDown { path: p(), left: secs(5) },
        Veto::AlreadyThere { path: p() },
        Veto::Busy { state: StateName::Soaking },
        Veto::NothingToDo { state: StateName::Steady },
        Veto::NoWayBack { path: p() },
        Veto::CheckpointNotWritten { reason: "no space".into() },
    ];
    let mut seen = BTreeSet::new();
    for veto in vetoes {
        let sentence = veto.sentence();
        let japanese = sentence.ja.chars().any(|c| ('\u{3040}'..='\u{30ff}').contains(&c));
        assert!(japanese && sentence.ja.ends_with('。'), "{}", sentence.ja);
        assert!(sentence.en.is_ascii() || sentence.en.contains('定'), "{}", sentence.en);
        assert!(sentence.en.ends_with('.'), "{}", sentence.en);
        assert!(seen.insert(sentence.en), "two vetoes read the same");
        let json = serde_json::to_string(&veto).expect("serialisable");
        assert_eq!(serde_json::from_str::<Veto>(&json).expect("readable"), veto);
    }
}
