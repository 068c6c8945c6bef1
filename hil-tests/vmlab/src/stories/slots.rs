//! Which slot starts, on a machine.

use anyhow::Result;
use seimon_boot::policy::TRIES;
use seimon_boot::{Digest, Reason, Slot, Status, partition};

use super::{BOTH, Numbers, PATIENCE, Quick, Stage, Story, check, fell};
use crate::disk::Content;
use crate::image::Recipe;

pub const STORIES: &[Story] = &[
    Story { name: "good-boots", firmware: BOTH, quick: Quick::Yes, tell: good_boots },
    Story { name: "damaged-falls-to-the-other", firmware: BOTH, quick: Quick::Yes, tell: damaged },
    Story { name: "never-confirmed-gives-way", firmware: BOTH, quick: Quick::No, tell: never_confirmed },
    Story { name: "kernel-comes-back", firmware: BOTH, quick: Quick::No, tell: comes_back },
    Story { name: "kernel-hangs", firmware: BOTH, quick: Quick::No, tell: hangs },
    Story { name: "both-copies-torn", firmware: BOTH, quick: Quick::Yes, tell: torn },
    Story { name: "second-disk-alike", firmware: BOTH, quick: Quick::No, tell: second_disk },
    Story { name: "silent-starts-verify-all", firmware: BOTH, quick: Quick::No, tell: silent },
];

/// Command line, initramfs and slot as the manifest says; a confirmed slot loses no try.
fn good_boots(stage: &Stage<'_>) -> Result<Numbers> {
    let payload = &stage.programs.payload;
    let recipe = Recipe::new("1.0.0", payload, "off");
    let image = recipe.signed(&stage.programs.key)?;
    let disk = stage.disk(Some((&image, Status::Confirmed)), None)?;
    let before = disk.state()?;
    let mut up_ms = 0;
    stage.on(&disk, |vm| {
        vm.expect("payload: command line `console=ttyAMA0 payload=off seimon.slot=a`", PATIENCE)?;
        vm.expect(&format!("{} bytes {}", recipe.initramfs.len(), Digest::of(&recipe.initramfs)), PATIENCE)?;
        vm.expect("payload: up", PATIENCE)?;
        up_ms = vm.age().as_millis() as u64;
        vm.off(PATIENCE)
    })?;
    let (before, after) = (before, disk.state()?);
    check(
        before.zip(after).is_some_and(|(before, after)| {
            after.a.status == Status::Confirmed
                && after.a.starts == 1
                && after.sequence == before.sequence + 1
        }),
        || {
            format!(
                "a start of a confirmed slot is counted once, and nothing else: {before:?} became {after:?}"
            )
        },
    )?;
    let name = match stage.firmware {
        crate::vm::Firmware::Edk2 | crate::vm::Firmware::Edk2Secure => "edk2_power_on_to_payload_ms",
        crate::vm::Firmware::UBoot => "u_boot_power_on_to_payload_ms",
    };
    Ok(vec![(name, up_ms)])
}

fn damaged(stage: &Stage<'_>) -> Result<Numbers> {
    let good = stage.image("1.0.0", "off")?;
    let bad = stage.image("2.0.0", "off")?;
    let disk = stage.disk(Some((&bad, Status::Trial)), Some((&good, Status::Confirmed)))?;
    disk.flip(Slot::A, bad.manifest.kernel.offset + 1000, 3)?;
    stage.on(&disk, |vm| {
        vm.expect("slot A: refused: the kernel is damaged", PATIENCE)?;
        vm.expect("seimon.slot=b", PATIENCE)?;
        vm.off(PATIENCE)
    })?;
    let state = disk.state()?;
    check(
        state.is_some_and(|state| {
            state.a.status == Status::Bad
                && state.b.status == Status::Confirmed
                && state.preferred == Slot::B
                && state.last_fall.is_some_and(|fall| {
                    (fall.slot, fall.reason, fall.version.as_str())
                        == (Slot::A, Reason::CorruptKernel, "2.0.0")
                })
        }),
        || format!("the fall is kept for the agent: {state:?}"),
    )?;
    Ok(vec![])
}

fn never_confirmed(stage: &Stage<'_>) -> Result<Numbers> {
    let old = stage.image("1.0.0", "off")?;
    let new = stage.image("2.0.0", "reset")?;
    let disk = stage.disk(Some((&new, Status::Trial)), Some((&old, Status::Confirmed)))?;
    stage.on(&disk, |vm| {
        for _ in 0..TRIES {
            vm.expect("payload=reset seimon.slot=a", PATIENCE)?;
        }
        let next = vm.first_of(&["payload=reset seimon.slot=a", "payload=off seimon.slot=b"], PATIENCE)?;
        check(next == 1, || "a trial was started a fourth time".into())?;
        vm.off(PATIENCE)
    })?;
    fell(&disk, Slot::A, Reason::NeverConfirmed)?;
    Ok(vec![])
}

fn comes_back(stage: &Stage<'_>) -> Result<Numbers> {
    let old = stage.image("1.0.0", "off")?;
    let new = stage.image("2.0.0", "return")?;
    let disk = stage.disk(Some((&new, Status::Trial)), Some((&old, Status::Confirmed)))?;
    stage.on(&disk, |vm| {
        vm.expect("slot A: not started: its kernel gave up", PATIENCE)?;
        vm.expect("seimon.slot=b", PATIENCE)?;
        // The initramfs of the one that came back is not given to the next.
        let theirs = Recipe::new("1.0.0", &[], "off").initramfs;
        vm.expect(&Digest::of(&theirs).to_string(), PATIENCE)?;
        vm.off(PATIENCE)
    })?;
    fell(&disk, Slot::A, Reason::NotStarted)?;
    Ok(vec![])
}

/// The firmware's watchdog starts over what never leaves it.
fn hangs(stage: &Stage<'_>) -> Result<Numbers> {
    let image = stage.image("2.0.0", "hang")?;
    let disk = stage.disk(Some((&image, Status::Trial)), None)?;
    stage.on(&disk, |vm| {
        vm.expect("payload: up", PATIENCE)?;
        vm.expect("seimon: boot guardian", PATIENCE)?;
        vm.expect("payload: up", PATIENCE)
    })?;
    let state = disk.state()?;
    check(state.is_some_and(|state| state.a.tries_left == TRIES - 2), || {
        format!("two starts are two tries: {state:?}")
    })?;
    Ok(vec![])
}

fn torn(stage: &Stage<'_>) -> Result<Numbers> {
    let programs = stage.programs;
    let a = Recipe { epoch: 2, ..Recipe::new("1.0.0", &programs.payload, "off") }.signed(&programs.key)?;
    let b = Recipe { epoch: 3, ..Recipe::new("2.0.0", &programs.payload, "off") }.signed(&programs.key)?;
    let disk = stage.disk(Some((&a, Status::Confirmed)), Some((&b, Status::Confirmed)))?;
    disk.tear_both_copies()?;
    stage.on(&disk, |vm| {
        vm.expect("boot state: both copies are damaged", PATIENCE)?;
        vm.expect("seimon.slot=b", PATIENCE)?;
        vm.off(PATIENCE)
    })?;
    let state = disk.state()?;
    check(
        state.is_some_and(|state| {
            (state.epoch, state.b.status, state.b.tries_left) == (3, Status::Trial, TRIES - 1)
                && state.last_fall.is_some_and(|fall| fall.reason == Reason::StateLost)
        }),
        || format!("nothing older than the newest epoch found, and on trial again: {state:?}"),
    )?;
    Ok(vec![])
}

/// A bit for bit copy with another image in it: never started from, never written to.
fn second_disk(stage: &Stage<'_>) -> Result<Numbers> {
    let programs = stage.programs;
    let ours = stage.image("1.0.0", "off")?;
    let theirs = stage.image("9.9.9", "off")?;
    let content = |image| Content::new(&programs.guardian, Some((image, Status::Trial)), None);
    let own = content(&ours).write_to(&stage.file("own"))?;
    let other = content(&theirs).write_to(&stage.file("other"))?;
    let before = other.read(partition::BOOT_STATE, 0, 1024 * 1024)?;
    let mut setup = stage.setup(&own);
    setup.disks.push(&other);
    stage.watched(&setup, |vm| {
        vm.expect("starting version 1.0.0", PATIENCE)?;
        vm.off(PATIENCE)
    })?;
    let tries = own.state()?.map(|state| state.a.tries_left);
    check(tries == Some(TRIES - 1), || format!("our disk counts: {tries:?}"))?;
    let after = other.read(partition::BOOT_STATE, 0, 1024 * 1024)?;
    check(before == after, || "the other disk was written to".into())?;
    Ok(vec![])
}

/// After two starts without a word, damage in the root file system is found before a third.
fn silent(stage: &Stage<'_>) -> Result<Numbers> {
    let a = stage.image("2.0.0", "reset")?;
    let b = stage.image("1.0.0", "off")?;
    let disk = stage.disk(Some((&a, Status::Confirmed)), Some((&b, Status::Confirmed)))?;
    disk.flip(Slot::A, a.manifest.root.part.offset + 5000, 0)?;
    stage.on(&disk, |vm| {
        for _ in 0..2 {
            vm.expect("payload=reset seimon.slot=a", PATIENCE)?;
        }
        vm.expect("slot A: refused: the root file system is damaged", PATIENCE)?;
        vm.expect("seimon.slot=b", PATIENCE)?;
        vm.off(PATIENCE)
    })?;
    Ok(vec![])
}
