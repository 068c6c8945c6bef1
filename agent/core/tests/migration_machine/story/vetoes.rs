//! What stands against a move, and how it is said.

use std::collections::BTreeSet;
use std::time::Duration;

use seimon_core::health::{Ailment, EgressVerdict, Liveness, ServiceVerdict};
use seimon_core::migration::{ClockTrust, Command, DiskRoom, StateName, Switch, Veto, WindowState};

use crate::world::*;

#[test]
fn all_vetoes_are_named_at_once() {
    let mut world = World::new(&["closed", "direct"]);
    world.view.window = WindowState::Frozen { reason: "定期試験".into(), until: None };
    world.view.clock = ClockTrust::NotTrusted;
    world.view.disk = DiskRoom::Short;
    world.path("direct").liveness = Liveness::Down;
    world.path("direct").egress = stranger();
    world.path("direct").loss = Some(0.5);
    world.saas("direct", ServiceVerdict::Ill);
    world.known("direct").median = Some(Duration::from_secs(2));
    let vetoes = world.vetoed();
    let kinds: BTreeSet<String> =
        vetoes.iter().map(|v| format!("{v:?}").split(' ').next().expect("a name").to_owned()).collect();
    let expected = [
        "CandidateDown",
        "ClockNotTrusted",
        "DiskFull",
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
    let cases: [Case; 10] = [
        (|w| w.view.disk = DiskRoom::Short, Some(|w| w.config.mechanisms.disk_veto = Switch::Off)),
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
        (
            |w| w.path("direct").ailment = Some(Ailment::LargeStall),
            Some(|w| w.config.mechanisms.brown_out = Switch::Off),
        ),
        (|w| w.path("direct").shared = true, Some(|w| w.config.mechanisms.egress_veto = Switch::Off)),
    ];
    for (n, (spoil, switch_off)) in cases.into_iter().enumerate() {
        let mut world = World::new(&["closed", "direct"]);
        spoil(&mut world);
        assert_eq!(world.vetoed().len(), 1, "case {n}");
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
        world.known("direct").median = Some(Duration::from_millis(ms));
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
fn after_a_failed_move_the_next_try_waits_longer_each_time() {
    let mut world = World::new(&["closed", "direct"]);
    let mut holds = Vec::new();
    for _ in 0..3 {
        world.move_to_soaking();
        world.path("direct").liveness = Liveness::Down;
        world.look();
        world.path("direct").liveness = Liveness::Up;
        let vetoes = world.vetoed();
        let [Veto::HeldDown { left, .. }] = vetoes[..] else { panic!("{vetoes:?}") };
        holds.push(left.as_secs());
        world.sleep(left);
    }
    assert_eq!(holds, [10, 20, 40]);
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
        Veto::DiskFull,
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

#[test]
fn nothing_moves_past_a_proxy_that_people_use_and_a_move_under_way_is_given_up() {
    let used = Some(seimon_core::proxy::ProxyUse { clients: 12, flows: 340 });
    let in_the_way = |vetoes: &[Veto]| {
        vetoes.iter().any(|veto| matches!(veto, Veto::ProxyInTheWay { clients: 12, flows: 340, .. }))
    };
    let mut world = World::new(&["closed", "direct"]);
    world.path("direct").bypassed = used;
    let vetoes = world.vetoed();
    assert!(in_the_way(&vetoes), "{vetoes:?}");
    let words = vetoes[0].sentence();
    assert!(
        words.en.contains("12 clients, 340 flows in the last hour") && words.ja.contains("12 台"),
        "{words}"
    );
    world.path("direct").bypassed = None;
    world.start().expect("no veto");
    world.path("direct").bypassed = used;
    world.look();
    assert!(world.steady_on("closed"), "{:?}", world.machine.state());

    let mut careless = World::without(|mechanisms| &mut mechanisms.proxy_veto);
    careless.path("direct").bypassed = used;
    careless.start().expect("no veto");
}
