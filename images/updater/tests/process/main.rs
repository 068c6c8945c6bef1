//! The real updater, with files for partitions: staging from a file and over https, broken off, killed and refused; the
//! trial; what the boot guardian would then do.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests: what fails shows its line")]

mod https;
mod world;

use std::time::Duration;

use seimon_boot::{Slot, Status};
use seimon_update::wire::{Command, Reset, Response};
use world::{Image, World, message};

fn stage(source: &str) -> Command {
    Command::Stage { source: source.to_owned() }
}

/// Version 2.0.0 is staged and applied in slot B, and the guardian has started it.
fn put_on_trial(world: &World) {
    let source = world.file("new.simg", &Image::new("2.0.0", 2).bytes);
    let mut updater = world.start(Slot::A);
    message(&updater.ask(&stage(&source)));
    message(&updater.ask(&Command::Apply {}));
    drop(updater);
    assert_eq!(world.guardian(), Slot::B);
}

#[test]
fn an_image_is_staged_and_applied_and_confirmed_when_users_are_as_well_as_before() {
    let world = World::new();
    let image = Image::new("2.0.0", 2);
    let source = world.file("new.simg", &image.bytes);
    let mut updater = world.start(Slot::A);
    let Response::Image(facts) = updater.ask(&Command::Check { source: source.clone() }) else {
        panic!("another answer")
    };
    assert_eq!((facts.version.as_str(), facts.epoch), ("2.0.0", 2));
    let refusal = message(&updater.ask(&Command::Apply {}));
    assert!(refusal.contains("nothing to try"), "{refusal}");
    let said = message(&updater.ask(&stage(&source)));
    assert!(said.contains("written and verified"), "{said}");
    assert!(world.slot(Slot::B).starts_with(&image.bytes), "what lies in the slot is the image");
    assert_eq!(world.state().preferred, Slot::A, "staged is not applied");
    let said = message(&updater.ask(&stage(&source)));
    assert!(said.contains("already"), "{said}");
    message(&updater.ask(&Command::Apply {}));
    assert!(world.restart_is_wanted());
    drop(updater);

    assert_eq!(world.guardian(), Slot::B);
    let mut updater = world.start(Slot::B);
    let refusal = message(&updater.ask(&stage(&source)));
    assert!(refusal.contains("not confirmed yet"), "the way back is not overwritten: {refusal}");
    world.wait("confirmed", |state| state.b.status == Status::Confirmed);
    assert_eq!(world.state().epoch, 2);
    drop(updater);
    assert_eq!(world.guardian(), Slot::B);

    let older = world.file("old.simg", &Image::new("1.5.0", 1).bytes);
    let mut updater = world.start(Slot::B);
    let refusal = message(&updater.ask(&stage(&older)));
    assert!(refusal.contains("security epoch 1"), "{refusal}");
    assert!(world.slot(Slot::A).starts_with(&world.first.bytes), "nothing was written");
}

#[test]
fn an_image_with_which_the_agent_is_silent_is_left_and_the_reason_is_kept() {
    let world = World::new();
    // There is a plan, and nobody who keeps to it.
    world.file("plan.toml", b"");
    put_on_trial(&world);
    let updater = world.start(Slot::B);
    world.wait("left", |state| state.b.status == Status::Bad);
    assert!(world.restart_is_wanted());
    drop(updater);
    assert_eq!(world.guardian(), Slot::A);
    let mut updater = world.start(Slot::A);
    let Response::Status(status) = updater.ask(&Command::Status {}) else { panic!("another answer") };
    let fall = status.last_fall.expect("it fell");
    assert_eq!(
        (fall.slot.as_str(), fall.version.as_str(), fall.reason.as_str()),
        ("b", "2.0.0", "users-suffered")
    );
    assert!(!fall.sentence.ja.is_empty() && fall.sentence.en.contains("worse off"));
    assert_eq!(world.state().epoch, 1, "an image that was never confirmed raises nothing");
}

#[test]
fn a_fetch_that_breaks_off_goes_on_where_it_was() {
    let world = World::new();
    let image = Image::with_root("2.0.0", 2, 20 << 20);
    // The line is cut twice, 9 MB after each beginning.
    let server = https::Server::start(image.bytes.clone(), &world, &[9 << 20, 9 << 20]);
    let mut updater = world.start(Slot::A);
    let (mut steps, mut last) = (0, 0);
    let answer = updater.ask_watching(&stage(&server.url), |done, total| {
        assert!(done >= last && total == image.bytes.len() as u64);
        (steps, last) = (steps + 1, done);
    });
    assert!(message(&answer).contains("written and verified"), "{answer:?}");
    assert!(steps >= 3, "progress is told: {steps}");
    assert!(world.slot(Slot::B).starts_with(&image.bytes));
    let begun = server.ranges();
    assert_eq!(begun[0], 0, "the head first");
    assert!(begun[2..].iter().all(|from| *from >= 8 << 20), "not from the beginning again: {begun:?}");
}

#[test]
fn killed_while_writing_it_starts_nothing_half_written_and_goes_on() {
    let world = World::new();
    let image = Image::with_root("2.0.0", 2, 30 << 20);
    let source = world.file("new.simg", &image.bytes);
    let mut kills = 0;
    for round in 0..40 {
        let mut updater = world.start(Slot::A);
        updater.send(&stage(&source));
        std::thread::sleep(Duration::from_millis(3 * round));
        updater.kill();
        kills += 1;
        let state = world.state();
        assert_eq!(state.preferred, Slot::A);
        let whole = world.slot(Slot::B).starts_with(&image.bytes);
        assert!(whole || state.b.status != Status::Trial, "round {round}: half an image is called staged");
        assert_eq!(world.guardian_would_start(), Slot::A);
    }
    let mut updater = world.start(Slot::A);
    message(&updater.ask(&stage(&source)));
    assert!(world.slot(Slot::B).starts_with(&image.bytes));
    assert_eq!(kills, 40);
}

#[test]
fn what_is_no_good_image_is_refused_before_anything_is_written() {
    let world = World::new();
    let good = Image::new("2.0.0", 2);
    let mut updater = world.start(Slot::A);
    let before = world.slot(Slot::B);
    let mut tried = 0;
    let mut refuse = |name: &str, bytes: &[u8], expected: &str| {
        let source = world.file(name, bytes);
        let answer = updater.ask(&stage(&source));
        assert!(matches!(answer, Response::Refused { .. }), "{name}: {answer:?}");
        let text = message(&answer);
        assert!(text.contains(expected), "{name}: {text}");
        tried += 1;
    };
    refuse("empty", &[], "no image");
    refuse("noise", &vec![0xa5; 10 << 20], "no image");
    refuse("cut-head", &good.bytes[..40_000], "no image");
    refuse("stranger", &Image::signed_by(9, "2.0.0", 2).bytes, "nobody this box believes");
    refuse("other-board", &Image::for_board("2.0.0", "other,board").bytes, "other boards");
    refuse("large", &Image::claiming("2.0.0", 1 << 40).bytes, "larger than the slot");
    let mut flipped = good.bytes.clone();
    flipped[200] ^= 4;
    refuse("flipped", &flipped, "signature");
    assert_eq!(tried, 7);
    assert_eq!(world.slot(Slot::B), before, "not a byte was written");
}

#[test]
fn an_image_whose_parts_are_not_what_was_signed_never_gets_a_head() {
    let world = World::new();
    let good = Image::new("2.0.0", 2);
    let mut updater = world.start(Slot::A);
    for part in 0..3 {
        let mut bytes = good.bytes.clone();
        bytes[good.parts[part] + 100] ^= 1;
        let source = world.file(&format!("bad{part}"), &bytes);
        let text = message(&updater.ask(&stage(&source)));
        assert!(text.contains("does not read back"), "{text}");
        assert_eq!(world.state().b.status, Status::Empty);
        assert!(world.slot(Slot::B)[..8] != good.bytes[..8]);
    }
    let short = world.file("short", &good.bytes[..good.bytes.len() - 10]);
    let text = message(&updater.ask(&stage(&short)));
    assert!(text.contains("broke off after"), "{text}");
    assert_eq!(world.guardian_would_start(), Slot::A);
}

#[test]
fn an_unplugged_cable_neither_confirms_nor_leaves_an_image() {
    let world = World::new();
    world.cable("1");
    put_on_trial(&world);
    world.cable("0");
    let mut updater = world.start(Slot::B);
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(world.state().b.status, Status::Trial);
    let Response::Status(status) = updater.ask(&Command::Status {}) else { panic!("another answer") };
    assert!(status.sentence.en.contains("WAN1 is unplugged"), "{:?}", status.sentence);
    world.cable("1");
    world.wait("confirmed", |state| state.b.status == Status::Confirmed);
}

#[test]
fn going_back_by_hand_needs_something_to_go_back_to() {
    let world = World::new();
    let mut updater = world.start(Slot::A);
    let text = message(&updater.ask(&Command::Rollback {}));
    assert!(text.contains("nothing to go back to"), "{text}");
    assert!(!world.restart_is_wanted());
    message(&updater.ask(&Command::Reset { what: Reset::Factory }));
    assert!(world.restart_is_wanted());
    assert_eq!(world.state().request, seimon_boot::state::Request::FactoryReset);
    let text = message(&updater.ask(&Command::Apply {}));
    assert!(text.contains("about to restart"), "{text}");
}

#[test]
fn a_restart_that_cannot_be_asked_for_is_told_and_not_promised() {
    let world = World::new();
    let mut updater = world.start(Slot::A);
    // Whoever would write the file finds a folder.
    std::fs::create_dir(world.path("run/restart")).unwrap();
    let text = message(&updater.ask(&Command::Reset { what: Reset::Factory }));
    assert!(text.contains("the request for a restart") && text.contains("cannot be written"), "{text}");
    let text = message(&updater.ask(&Command::Rollback {}));
    assert!(text.contains("nothing to go back to"), "it goes on answering: {text}");
}

#[test]
fn a_box_that_left_its_image_asks_for_the_restart_until_it_can() {
    let world = World::new();
    world.file("plan.toml", b"");
    put_on_trial(&world);
    std::fs::create_dir(world.path("run/restart")).unwrap();
    let _updater = world.start(Slot::B);
    world.wait("left", |state| state.b.status == Status::Bad);
    std::fs::remove_dir(world.path("run/restart")).unwrap();
    world.wait("asked to restart", |_| world.restart_is_wanted());
}
