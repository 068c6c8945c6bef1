//! Random worlds: everything fails at any time, and the promises of `World::check_promises` hold at every action. When
//! the world is well again the group comes to rest on a living path.

use std::collections::BTreeMap;
use std::time::Duration;

use seimon_core::health::{Ailment, EgressVerdict, Liveness, ServiceVerdict};
use seimon_core::migration::{ClockTrust, Command, Config, Event, Passed, State, StateName, WindowState};

use crate::world::*;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % below
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.roll(choices.len() as u64)).expect("small")].clone()
    }
}

const IDS: [&str; 3] = ["closed", "vpn", "direct"];

/// Something happens in the world. Healthy values are likelier, so that moves come far.
fn happen(world: &mut World, dice: &mut Dice) {
    let id = dice.of(&IDS);
    match dice.roll(15) {
        0 => {
            world.path(id).liveness =
                dice.of(&[Liveness::Up, Liveness::Up, Liveness::Down, Liveness::Unknown])
        }
        1 => {
            world.path(id).egress = dice.of(&[
                EgressVerdict::Registered,
                EgressVerdict::Registered,
                EgressVerdict::Unknown,
                stranger(),
            ]);
        }
        2 => {
            let verdict = dice.of(&[ServiceVerdict::Well, ServiceVerdict::Well, ServiceVerdict::Ill]);
            world.saas(id, verdict);
        }
        3 => {
            world.view.window = dice.of(&[
                WindowState::Open,
                WindowState::Open,
                WindowState::Closed { next: None },
                WindowState::Frozen { reason: "x".into(), until: None },
            ]);
        }
        4 => world.view.clock = dice.of(&[ClockTrust::Trusted, ClockTrust::Trusted, ClockTrust::NotTrusted]),
        5 => world.path(id).clients = dice.of(&[Some(0), Some(3), None]),
        6 => world.disk = dice.of(&[Works::Yes, Works::Yes, Works::Yes, Works::No]),
        7 => world.kernel_works = dice.of(&[Works::Yes, Works::Yes, Works::Yes, Works::No]),
        14 => {
            world.path(id).ailment =
                dice.of(&[None, None, Some(Ailment::LargeStall), Some(Ailment::Lossy { permille: 200 })]);
        }
        8 | 9 => {
            let to = dice.of(&[None, Some(path("closed")), Some(path("vpn")), Some(path("direct"))]);
            world.machine.handle_command(Command::Start { to }, &world.view, world.now).ok();
        }
        10 => {
            let command = dice.of(&[Command::Pause, Command::Resume, Command::Resume, Command::Rollback]);
            world.machine.handle_command(command, &world.view, world.now).ok();
        }
        _ => {
            for id in world.config.paths.clone() {
                let event = Event::Check { path: id, service: service(), passed: Passed::Yes };
                world.machine.handle_event(event, &world.view, world.now);
            }
        }
    }
}

/// Carries out actions; at each, the power may go.
fn act(world: &mut World, dice: &mut Dice, boots: &mut u32, visited: &mut BTreeMap<StateName, u32>) {
    while let Some(event) = world.step() {
        *visited.entry(world.name()).or_default() += 1;
        if dice.one_in(40) {
            *boots += dice.roll(2) as u32;
            world.crash(&format!("boot-{boots}"));
            continue;
        }
        if let Some(event) = event {
            world.machine.handle_event(event, &world.view, world.now);
        }
    }
}

fn heal(world: &mut World) {
    world.view.window = WindowState::Open;
    world.view.clock = ClockTrust::Trusted;
    world.disk = Works::Yes;
    world.kernel_works = Works::Yes;
    for id in IDS {
        *world.path(id) = good_path();
    }
}

#[test]
fn in_any_world_the_promises_hold_and_a_healthy_world_ends_in_rest() {
    let mut visited = BTreeMap::new();
    for seed in 0..1_500 {
        let mut world = World::new(&IDS);
        if seed % 2 == 0 {
            let config = Config { canary: Some(Duration::from_secs(3)), ..world.config };
            world = World::with(config);
        }
        let mut dice = Dice(seed);
        let mut boots = 1;
        for _ in 0..150 {
            world.now = world.now + Duration::from_millis(dice.roll(1_500));
            if world.machine.poll_timeout().is_some_and(|(at, _)| at <= world.now) {
                world.machine.handle_timeout(&world.view, world.now);
                let next = world.machine.poll_timeout();
                assert!(
                    next.is_none_or(|(at, _)| at > world.now),
                    "seed {seed}: the driver would spin: {next:?}"
                );
            }
            happen(&mut world, &mut dice);
            world.machine.handle_event(Event::FactsChanged, &world.view, world.now);
            act(&mut world, &mut dice, &mut boots, &mut visited);
        }
        heal(&mut world);
        world.command(Command::Resume).ok();
        world.look();
        for _ in 0..6 {
            world.qualify();
            if let Some(trial) = world.trial.clone() {
                // Somebody of the canary comes to work.
                world.path(trial.as_str()).clients = Some(1);
                world.look();
                world.path(trial.as_str()).clients = Some(0);
            }
            world.sleep(Duration::from_secs(1_000));
            world.look();
        }
        let State::Steady { path } = world.machine.state() else {
            panic!("seed {seed}: not at rest: {:?}", world.machine.state())
        };
        assert_eq!(path, world.machine.home(), "seed {seed}: not at home");
        assert_eq!(*path, world.kernel, "seed {seed}: the kernel does something else");
        assert!(world.machine.is_settled(), "seed {seed}");
        assert_eq!(world.on_disk().map(|c| c.state.current().clone()), Some(path.clone()), "seed {seed}");
    }
    for name in StateName::ALL {
        assert!(visited.get(&name).is_some_and(|&n| n > 200), "{name} is hardly visited: {visited:?}");
    }
}

#[test]
fn a_path_that_flaps_for_a_day_moves_people_a_bounded_number_of_times() {
    let mut world = World::new(&["closed", "direct"]);
    world.move_to_soaking();
    world.sleep(secs(10));
    assert!(world.steady_on("direct"));
    let before = world.moves.len();
    for _ in 0..(24 * 3_600 / 30) {
        for liveness in [Liveness::Down, Liveness::Up] {
            world.path("direct").liveness = liveness;
            world.look();
            world.sleep(secs(15));
        }
    }
    // Hold-down 10 s, doubled to 640 s: two moves each time, 24 h / 640 s = 135 times at the most, and the seven before.
    let moves = world.moves.len() - before;
    assert!(moves <= 2 * 142, "{moves} moves");
    assert!(moves >= 10, "{moves}: the test lost its object");
}

/// Found by the simulator: news that came in at the instant of the next try made it be forgotten for ever.
#[test]
fn a_checkpoint_that_was_refused_is_written_though_news_comes_when_it_is_due() {
    let mut world = World::new(&["closed", "direct"]);
    world.disk = Works::No;
    world.path("closed").liveness = Liveness::Down;
    world.look();
    assert_eq!(world.name(), StateName::RollingBack);
    world.disk = Works::Yes;
    world.now = world.machine.poll_timeout().expect("another try").0;
    world.look();
    assert!(world.steady_on("direct"), "{:?}", world.machine.state());
    assert!(world.machine.is_settled());
}
