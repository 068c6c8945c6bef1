//! The whole (state, input) table: for each state and each input, the state directly after and the actions emitted,
//! before anything is acknowledged. Expected: `table.txt`, to be read and approved by people.

use std::fmt::Write as _;

use seimon_core::health::{Ailment, EgressVerdict, Liveness, ServiceVerdict};
use seimon_core::migration::{Action, ClockTrust, Command, Event, Passed, StateName, WindowState};

use crate::world::*;

/// A world in the state, with the number of what it waits for.
type Make = fn() -> (World, u64);
type Input = fn(&mut World, u64);

fn steady() -> (World, u64) {
    (World::new(&["closed", "direct"]), 0)
}

fn steady_after_move() -> (World, u64) {
    let (mut world, _) = soaking();
    world.sleep(secs(8));
    assert!(world.steady_on("direct"));
    (world, 0)
}

fn steady_away() -> (World, u64) {
    let (mut world, _) = steady_after_move();
    world.path("direct").liveness = Liveness::Down;
    world.look();
    assert!(world.steady_on("closed"));
    (world, 0)
}

fn qualifying() -> (World, u64) {
    let (mut world, _) = steady();
    world.start().expect("no veto");
    (world, 0)
}

fn paused() -> (World, u64) {
    let (mut world, _) = qualifying();
    world.command(Command::Pause).expect("pausable");
    (world, 0)
}

/// The number of the acknowledgement that is waited for, after performing everything up to it.
pub(crate) fn until_waiting(world: &mut World, for_change: bool) -> u64 {
    while let Some(action) = world.machine.poll_action() {
        match action {
            Action::SetCurrent { id, .. } if for_change => return id,
            Action::WriteCheckpoint { id, .. } if !for_change => return id,
            Action::WriteCheckpoint { id, .. } => {
                world.machine.handle_event(Event::CheckpointDurable { id }, &world.view, world.now);
            }
            Action::SetCurrent { .. }
            | Action::Drain { .. }
            | Action::ForceDrain { .. }
            | Action::AffinityDelete { .. }
            | Action::KillFlows { .. }
            | Action::Probe { .. }
            | Action::Emit(_) => {}
        }
    }
    panic!("waits for nothing");
}

fn cutting_over() -> World {
    let (mut world, _) = qualifying();
    world.now = world.now + secs(5);
    for _ in 0..5 {
        let event = Event::Check { path: path("direct"), service: service(), passed: Passed::Yes };
        world.machine.handle_event(event, &world.view, world.now);
    }
    assert_eq!(world.name(), StateName::CuttingOver);
    world
}

fn cutting_over_unwritten() -> (World, u64) {
    let mut world = cutting_over();
    let id = until_waiting(&mut world, false);
    (world, id)
}

fn cutting_over_asked() -> (World, u64) {
    let mut world = cutting_over();
    let id = until_waiting(&mut world, true);
    (world, id)
}

fn canary_unwritten() -> (World, u64) {
    let mut world = World::with_canary();
    world.start().expect("no veto");
    world.now = world.now + secs(5);
    for _ in 0..5 {
        check(&mut world, Passed::Yes);
    }
    assert_eq!(world.name(), StateName::Canary);
    let id = until_waiting(&mut world, false);
    (world, id)
}

fn canary_asked() -> (World, u64) {
    let (mut world, id) = canary_unwritten();
    world.machine.handle_event(Event::CheckpointDurable { id }, &world.view, world.now);
    let id = until_waiting(&mut world, true);
    (world, id)
}

fn canary() -> (World, u64) {
    let mut world = World::with_canary();
    world.move_to_canary();
    (world, 0)
}

fn canary_served() -> (World, u64) {
    let (mut world, _) = canary();
    world.path("direct").clients = Some(2);
    world.look();
    (world, 0)
}

fn canary_paused() -> (World, u64) {
    let (mut world, _) = canary_served();
    world.command(Command::Pause).expect("pausable");
    (world, 0)
}

fn soaking() -> (World, u64) {
    let (mut world, _) = steady();
    world.move_to_soaking();
    (world, 0)
}

fn soaking_with_clients() -> (World, u64) {
    let (mut world, _) = steady();
    world.path("closed").clients = Some(4);
    world.move_to_soaking();
    (world, 0)
}

fn soaking_paused() -> (World, u64) {
    let (mut world, _) = soaking();
    world.command(Command::Pause).expect("pausable");
    (world, 0)
}

fn rolling_back_hard() -> (World, u64) {
    let (mut world, _) = soaking();
    world.path("direct").liveness = Liveness::Down;
    world.machine.handle_event(Event::FactsChanged, &world.view, world.now);
    assert_eq!(world.name(), StateName::RollingBack);
    let id = until_waiting(&mut world, true);
    (world, id)
}

fn rolling_back_soft() -> (World, u64) {
    let (mut world, _) = soaking();
    world.path("direct").clients = Some(4);
    world.path("direct").egress = stranger();
    world.look();
    assert_eq!(world.name(), StateName::RollingBack);
    (world, 0)
}

fn blocked() -> (World, u64) {
    let (mut world, _) = steady();
    for id in ["closed", "direct"] {
        world.path(id).liveness = Liveness::Down;
    }
    world.look();
    assert_eq!(world.name(), StateName::Blocked);
    (world, 0)
}

const STATES: [(&str, Make); 18] = [
    ("Steady(closed), never moved", steady),
    ("Steady(direct), moved", steady_after_move),
    ("Steady(closed), fled from dead home direct", steady_away),
    ("Qualifying", qualifying),
    ("Qualifying, paused", paused),
    ("Canary, not written down", canary_unwritten),
    ("Canary, kernel asked", canary_asked),
    ("Canary, nobody on direct", canary),
    ("Canary, 2 clients on direct", canary_served),
    ("Canary, paused", canary_paused),
    ("CuttingOver, not written down", cutting_over_unwritten),
    ("CuttingOver, kernel asked", cutting_over_asked),
    ("Soaking, nobody on closed", soaking),
    ("Soaking, 4 clients on closed", soaking_with_clients),
    ("Soaking, paused", soaking_paused),
    ("RollingBack from dead direct, kernel asked", rolling_back_hard),
    ("RollingBack from direct, 4 clients on it", rolling_back_soft),
    ("Blocked on closed, both dead", blocked),
];

fn facts(world: &mut World) {
    world.machine.handle_event(Event::FactsChanged, &world.view, world.now);
}

fn command(world: &mut World, command: Command) {
    world.machine.handle_command(command, &world.view, world.now).ok();
}

pub(crate) fn later(world: &mut World, seconds: u64) {
    world.now = world.now + secs(seconds);
    world.machine.handle_timeout(&world.view, world.now);
}

fn check(world: &mut World, passed: Passed) {
    let event = Event::Check { path: path("direct"), service: service(), passed };
    world.machine.handle_event(event, &world.view, world.now);
}

fn liveness(world: &mut World, closed: Liveness, direct: Liveness) {
    world.path("closed").liveness = closed;
    world.path("direct").liveness = direct;
    facts(world);
}

const INPUTS: [(&str, Input); 34] = [
    ("start", |w, _| command(w, Command::Start { to: None })),
    ("start to closed", |w, _| command(w, Command::Start { to: Some(path("closed")) })),
    ("pause", |w, _| command(w, Command::Pause)),
    ("resume", |w, _| command(w, Command::Resume)),
    ("rollback", |w, _| command(w, Command::Rollback)),
    ("checkpoint durable", |w, id| w.machine.handle_event(Event::CheckpointDurable { id }, &w.view, w.now)),
    ("checkpoint failed", |w, id| {
        w.machine.handle_event(Event::CheckpointFailed { id, reason: "full".into() }, &w.view, w.now);
    }),
    ("change in force", |w, id| w.machine.handle_event(Event::ChangeInForce { id }, &w.view, w.now)),
    ("change failed", |w, id| {
        w.machine.handle_event(Event::ChangeFailed { id, reason: "EBUSY".into() }, &w.view, w.now);
    }),
    ("acknowledgements of unknown number", |w, _| {
        for event in [
            Event::CheckpointDurable { id: 9_999 },
            Event::ChangeInForce { id: 9_999 },
            Event::ChangeFailed { id: 9_999, reason: "late".into() },
            Event::CheckpointFailed { id: 9_999, reason: "late".into() },
        ] {
            w.machine.handle_event(event, &w.view, w.now);
        }
    }),
    ("check passed", |w, _| check(w, Passed::Yes)),
    ("check failed", |w, _| check(w, Passed::No)),
    ("both paths live", |w, _| liveness(w, Liveness::Up, Liveness::Up)),
    ("closed dead, direct lives", |w, _| liveness(w, Liveness::Down, Liveness::Up)),
    ("direct dead, closed lives", |w, _| liveness(w, Liveness::Up, Liveness::Down)),
    ("both dead", |w, _| liveness(w, Liveness::Down, Liveness::Down)),
    ("nothing known of either", |w, _| liveness(w, Liveness::Unknown, Liveness::Unknown)),
    ("window closes", |w, _| {
        w.view.window = WindowState::Closed { next: None };
        facts(w);
    }),
    ("freeze begins", |w, _| {
        w.view.window = WindowState::Frozen { reason: "exams".into(), until: None };
        facts(w);
    }),
    ("clock loses trust", |w, _| {
        w.view.clock = ClockTrust::NotTrusted;
        facts(w);
    }),
    ("direct seen as a stranger", |w, _| {
        w.path("direct").egress = stranger();
        facts(w);
    }),
    ("direct's address not measured", |w, _| {
        w.path("direct").egress = EgressVerdict::Unknown;
        facts(w);
    }),
    ("service ill over direct", |w, _| {
        w.saas("direct", ServiceVerdict::Ill);
        facts(w);
    }),
    ("service ill over closed", |w, _| {
        w.saas("closed", ServiceVerdict::Ill);
        facts(w);
    }),
    ("service ill over both", |w, _| {
        w.saas("closed", ServiceVerdict::Ill);
        w.saas("direct", ServiceVerdict::Ill);
        facts(w);
    }),
    ("direct loses packets", |w, _| {
        w.path("direct").loss = Some(0.3);
        facts(w);
    }),
    ("direct in a brown-out", |w, _| {
        w.path("direct").ailment = Some(Ailment::Lossy { permille: 200 });
        facts(w);
    }),
    ("long answers stall on direct", |w, _| {
        w.path("direct").ailment = Some(Ailment::LargeStall);
        facts(w);
    }),
    ("both in a brown-out", |w, _| {
        for id in ["closed", "direct"] {
            w.path(id).ailment = Some(Ailment::Lossy { permille: 200 });
        }
        facts(w);
    }),
    ("strangers share direct's address", |w, _| {
        w.path("direct").shared = true;
        facts(w);
    }),
    ("everybody leaves both paths", |w, _| {
        for id in ["closed", "direct"] {
            w.path(id).clients = Some(0);
        }
        facts(w);
    }),
    ("9 s later", |w, _| later(w, 9)),
    ("31 s later", |w, _| later(w, 31)),
    ("an hour later", |w, _| later(w, 3_600)),
];

pub(crate) fn describe(world: &mut World) -> String {
    let mut row = format!("{:?}", world.name());
    let _ = write!(row, "({})", world.machine.current());
    while let Some(action) = world.machine.poll_action() {
        let text = match action {
            Action::WriteCheckpoint { .. } => "write".to_owned(),
            Action::SetCurrent { path, trial: None, .. } => format!("set {path}"),
            Action::SetCurrent { path, trial: Some(trial), .. } => format!("set {path}, a few {trial}"),
            Action::Drain { path, .. } => format!("drain {path}"),
            Action::ForceDrain { path, .. } => format!("force {path}"),
            Action::AffinityDelete { path, .. } => format!("forget {path}"),
            Action::KillFlows { path, .. } => format!("kill {path}"),
            Action::Probe { .. } | Action::Emit(_) => continue,
        };
        let _ = write!(row, ", {text}");
    }
    row
}

#[test]
fn the_whole_table_is_as_approved() {
    let mut actual = String::new();
    for (state, make) in STATES {
        let (mut world, _) = make();
        let _ = writeln!(actual, "{state} = {}", describe(&mut world));
        for (input, give) in INPUTS {
            let (mut world, id) = make();
            let before = describe(&mut world);
            give(&mut world, id);
            let after = describe(&mut world);
            let after = if after == before { "-".to_owned() } else { after };
            let _ = writeln!(actual, "    {input:36} {after}");
            assert!(
                world.machine.poll_timeout().is_none_or(|(at, _)| at > world.now),
                "{state}, {input}: the driver would spin"
            );
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/migration_machine/table.txt");
        std::fs::write(file, &actual).expect("table.txt is written");
        return;
    }
    let expected = include_str!("table.txt");
    for (n, (line, wanted)) in actual.lines().zip(expected.lines()).enumerate() {
        assert_eq!(line, wanted, "line {} of\n{actual}", n + 1);
    }
    assert_eq!(actual.lines().count(), expected.lines().count(), "\n{actual}");
}
