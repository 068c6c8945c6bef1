//! An emergency line: for while every ordinary path is known to be dead, for nobody to move to, and left again by itself. The
//! whole (state, input) table as in `table.rs`, expected in `emergency.txt`; then stories.

use std::fmt::Write as _;

use seimon_core::health::{EgressVerdict, Liveness, ServiceVerdict};
use seimon_core::migration::{
    BlockReason, Cause, Command, Config, Event, Machine, Notice, Passed, State, StateName, Switch, Veto,
};

use crate::table::{describe, later, until_waiting};
use crate::world::*;

fn world() -> World {
    World::with(Config { emergency: vec![path("lte")], ..config(&["closed", "direct"]) })
}

fn set(world: &mut World, closed: Liveness, direct: Liveness, lte: Liveness) {
    for (id, liveness) in [("closed", closed), ("direct", direct), ("lte", lte)] {
        world.path(id).liveness = liveness;
    }
}

const UP: Liveness = Liveness::Up;
const DOWN: Liveness = Liveness::Down;
const UNKNOWN: Liveness = Liveness::Unknown;

fn on_lte() -> World {
    let mut world = world();
    set(&mut world, DOWN, DOWN, UP);
    world.look();
    assert!(world.steady_on("lte"), "{:?}", world.machine.state());
    world
}

fn going_to_lte() -> World {
    let mut world = world();
    set(&mut world, DOWN, DOWN, UP);
    world.machine.handle_event(Event::FactsChanged, &world.view, world.now);
    until_waiting(&mut world, true);
    world
}

fn leaving_lte() -> World {
    let mut world = on_lte();
    world.path("lte").clients = Some(2);
    set(&mut world, UP, DOWN, UP);
    world.sleep(secs(10));
    world.look();
    assert_eq!((world.name(), world.machine.current()), (StateName::RollingBack, &path("closed")));
    world
}

fn blocked() -> World {
    let mut world = world();
    set(&mut world, DOWN, DOWN, DOWN);
    world.look();
    assert_eq!(world.name(), StateName::Blocked);
    world
}

fn blocked_on_lte() -> World {
    let mut world = on_lte();
    set(&mut world, DOWN, DOWN, DOWN);
    world.look();
    assert_eq!((world.name(), world.machine.current()), (StateName::Blocked, &path("lte")));
    world
}

fn qualifying() -> World {
    let mut world = world();
    world.start().expect("no veto");
    world
}

fn soaking() -> World {
    let mut world = world();
    world.move_to_soaking();
    world
}

type Raise = fn() -> World;
type Hand = fn(&mut World);

const STATES: &[(&str, Raise)] = &[
    ("Steady(closed), all live", world),
    ("Qualifying, all live", qualifying),
    ("Soaking, all live", soaking),
    ("RollingBack to lte, kernel asked", going_to_lte),
    ("Steady(lte), both others dead", on_lte),
    ("RollingBack from lte to closed, 2 clients on lte", leaving_lte),
    ("Blocked on closed, all dead", blocked),
    ("Blocked on lte, all dead", blocked_on_lte),
];

fn look(world: &mut World) {
    world.machine.handle_event(Event::FactsChanged, &world.view, world.now);
}

fn see(world: &mut World, closed: Liveness, direct: Liveness, lte: Liveness) {
    set(world, closed, direct, lte);
    look(world);
}

fn command(world: &mut World, command: Command) {
    world.machine.handle_command(command, &world.view, world.now).ok();
}

const INPUTS: &[(&str, Hand)] = &[
    ("start", |w| command(w, Command::Start { to: None })),
    ("start to lte", |w| command(w, Command::Start { to: Some(path("lte")) })),
    ("rollback", |w| command(w, Command::Rollback)),
    ("all live", |w| see(w, UP, UP, UP)),
    ("closed lives, the others are dead", |w| see(w, UP, DOWN, DOWN)),
    ("direct lives, the others are dead", |w| see(w, DOWN, UP, DOWN)),
    ("closed lives, and lte", |w| see(w, UP, DOWN, UP)),
    ("direct lives, and lte", |w| see(w, DOWN, UP, UP)),
    ("only lte lives", |w| see(w, DOWN, DOWN, UP)),
    ("lte lives, direct not known", |w| see(w, DOWN, UNKNOWN, UP)),
    ("lte not known, the others are dead", |w| see(w, DOWN, DOWN, UNKNOWN)),
    ("all dead", |w| see(w, DOWN, DOWN, DOWN)),
    ("only lte lives, a stranger there", |w| {
        w.path("lte").egress = stranger();
        see(w, DOWN, DOWN, UP);
    }),
    ("only lte lives, not measured", |w| {
        w.path("lte").egress = EgressVerdict::Unknown;
        see(w, DOWN, DOWN, UP);
    }),
    ("lte lives; direct does, a stranger there", |w| {
        w.path("direct").egress = stranger();
        see(w, DOWN, UP, UP);
    }),
    ("all live, 11 s later", |w| {
        set(w, UP, UP, UP);
        later(w, 11);
    }),
    ("direct lives and lte, 11 s later", |w| {
        set(w, DOWN, UP, UP);
        later(w, 11);
    }),
    ("all live, service ill over closed, 11 s later", |w| {
        set(w, UP, UP, UP);
        w.saas("closed", ServiceVerdict::Ill);
        later(w, 11);
    }),
    ("all live, nothing known of the service, 11 s later", |w| {
        set(w, UP, UP, UP);
        for id in ["closed", "direct"] {
            w.saas(id, ServiceVerdict::Unknown);
        }
        later(w, 11);
    }),
    ("check passed over direct", |w| {
        let event = Event::Check { path: path("direct"), service: service(), passed: Passed::Yes };
        w.machine.handle_event(event, &w.view, w.now);
    }),
    ("nobody is on lte any more", |w| {
        w.path("lte").clients = Some(0);
        look(w);
    }),
    ("31 s later", |w| later(w, 31)),
];

#[test]
fn the_whole_table_with_an_emergency_line_is_as_approved() {
    let mut actual = String::new();
    for (state, make) in STATES {
        let _ = writeln!(actual, "{state} = {}", describe(&mut make()));
        for (input, give) in INPUTS {
            let mut world = make();
            let before = describe(&mut world);
            give(&mut world);
            let after = describe(&mut world);
            let after = if after == before { "-".to_owned() } else { after };
            let _ = writeln!(actual, "    {input:52} {after}");
            assert!(
                world.machine.poll_timeout().is_none_or(|(at, _)| at > world.now),
                "{state}, {input}: the driver would spin"
            );
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/migration_machine/emergency.txt");
        std::fs::write(file, &actual).expect("emergency.txt is written");
        return;
    }
    let expected = include_str!("emergency.txt");
    for (n, (line, wanted)) in actual.lines().zip(expected.lines()).enumerate() {
        assert_eq!(line, wanted, "line {} of\n{actual}", n + 1);
    }
    assert_eq!(actual.lines().count(), expected.lines().count(), "\n{actual}");
}

#[test]
fn while_everything_else_is_dead_the_modem_carries_and_is_left_when_a_line_has_been_well_for_the_hold_down() {
    let mut world = on_lte();
    let resort = |n: &Notice| matches!(n, Notice::State { cause: Cause::LastResort { .. }, .. });
    assert!(world.log.iter().any(|(_, n)| resort(n)), "{:?}", world.log);
    set(&mut world, UP, DOWN, UP);
    world.look();
    assert!(world.steady_on("lte"), "closed has just failed: not back at once");
    world.sleep(secs(11));
    world.look();
    assert!(world.steady_on("closed"), "{:?}", world.machine.state());
    assert_eq!(world.machine.home(), &path("closed"), "a modem is nobody's home");
}

#[test]
fn who_flaps_is_waited_for_longer_each_time() {
    let mut world = on_lte();
    let mut waited = Vec::new();
    for _ in 0..4 {
        set(&mut world, UP, DOWN, UP);
        let mut seconds = 0;
        while !world.steady_on("closed") {
            world.sleep(secs(1));
            world.look();
            seconds += 1;
            assert!(seconds < 1_000, "never back");
        }
        waited.push(seconds);
        set(&mut world, DOWN, DOWN, UP);
        world.look();
        assert!(world.steady_on("lte"));
    }
    assert!(waited.windows(2).all(|pair| pair[1] > pair[0]), "{waited:?}");
}

#[test]
fn whoever_is_at_work_over_the_modem_may_finish_there() {
    let mut world = leaving_lte();
    assert_eq!(world.kernel, path("closed"), "new log-ins go the ordinary way");
    world.sleep(secs(5));
    assert_eq!(world.name(), StateName::RollingBack);
    world.path("lte").clients = Some(0);
    world.look();
    assert!(world.steady_on("closed"));
}

#[test]
fn a_modem_is_never_moved_to_nor_from() {
    let mut calm = world();
    let vetoes = calm.command(Command::Start { to: Some(path("lte")) }).expect_err("a veto");
    assert!(vetoes.iter().any(|veto| matches!(veto, Veto::PathNotInRoute { .. })), "{vetoes:?}");
    let mut world = on_lte();
    world.path("direct").liveness = UP;
    let vetoes = world.vetoed();
    assert!(vetoes.iter().any(|veto| matches!(veto, Veto::OnEmergencyLine { .. })), "{vetoes:?}");
}

#[test]
fn a_stranger_on_the_modem_helps_nobody() {
    let mut world = world();
    world.path("lte").egress = stranger();
    set(&mut world, DOWN, DOWN, UP);
    world.look();
    let blocked = State::Blocked { path: path("closed"), reason: BlockReason::NoLivingPath };
    assert_eq!(*world.machine.state(), blocked);
}

#[test]
fn an_agent_that_starts_anew_goes_on_over_the_modem_and_one_whose_plan_has_none_any_more_goes_home() {
    for boot in ["boot-1", "boot-2"] {
        let mut world = on_lte();
        world.crash(boot);
        world.settle();
        assert!(world.steady_on("lte"), "{boot}: {:?}", world.machine.state());
    }
    let world = on_lte();
    let checkpoint = world.on_disk().expect("written");
    let without = config(&["closed", "direct"]);
    let (machine, error) =
        Machine::restore_or_rest(without, &checkpoint, &world.view, world.now).expect("a route");
    assert!(error.is_some());
    assert_eq!(*machine.state(), State::Steady { path: path("closed") });
}

#[test]
fn without_the_mechanism_the_group_is_blocked() {
    let mut config = Config { emergency: vec![path("lte")], ..config(&["closed", "direct"]) };
    config.mechanisms.emergency = Switch::Off;
    let mut world = World::with(config);
    set(&mut world, DOWN, DOWN, UP);
    world.look();
    assert_eq!(world.name(), StateName::Blocked);
}
