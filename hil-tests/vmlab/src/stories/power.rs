//! The power goes at any instant, again and again, on the same disk.

use std::time::Duration;

use anyhow::Result;
use seimon_boot::policy::TRIES;
use seimon_boot::{BootState, Slot, Status};

use super::{BOTH, Numbers, PATIENCE, Quick, Stage, Story, check};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::vm::Vm;

pub const STORIES: &[Story] =
    &[Story { name: "power-cuts", firmware: BOTH, quick: Quick::No, tell: power_cuts }];

/// Each round: a start that must succeed whatever the cut before left, a restart, and a cut at a random instant of it, most
/// of them while the guardian works.
fn power_cuts(stage: &Stage<'_>) -> Result<Numbers> {
    let confirmed = stage.image("1.0.0", "reset")?;
    let trial = stage.image("2.0.0", "reset")?;
    let disk = stage.disk(Some((&confirmed, Status::Confirmed)), Some((&trial, Status::Trial)))?;
    let mut dice = Dice::new(stage.firmware as u64 + 1);
    let mut unbootable = 0;
    for cut in 0..stage.cuts {
        // Now and then the trial is what is started.
        if cut % 4 == 3 {
            disk.change_state(|state| {
                state.b = trial.slot_state(Status::Trial);
                state.preferred = Slot::B;
            })?;
        }
        let before = disk.state()?;
        let setup = stage.setup(&disk);
        let mut vm = Vm::start(&setup)?;
        let up = vm.expect("payload: up", PATIENCE).is_ok();
        if up {
            until_some_instant(&mut vm, &mut dice);
        }
        vm.cut_power();
        if !up {
            unbootable += 1;
            vm.keep_log()?;
            std::fs::rename(stage.file("serial.log"), stage.file(&format!("unbootable-{cut}.log")))?;
        }
        let starts = vm.said().matches("seimon: boot guardian").count();
        believable(&disk, before, starts)?;
    }
    check(unbootable == 0, || format!("{unbootable} of {} starts after a cut did not succeed", stage.cuts))?;
    Ok(vec![("power_cuts", stage.cuts), ("unbootable", unbootable)])
}

fn until_some_instant(vm: &mut Vm, dice: &mut Dice) {
    let wait =
        |most: u64, dice: &mut Dice| std::thread::sleep(Duration::from_micros(dice.below(most * 1000)));
    if dice.below(5) == 0 {
        // Anywhere in the firmware's start.
        wait(4_000, dice);
    } else if vm.expect("seimon: boot guardian", PATIENCE).is_ok() {
        wait(400, dice);
    }
}

/// Whatever happened, the state is whole, a confirmed slot has lost nothing, and a trial has lost a try for each start at
/// most.
fn believable(disk: &Disk, before: Option<BootState>, starts: usize) -> Result<()> {
    let after = disk.state()?;
    let fine = before.zip(after).is_some_and(|(before, after)| {
        let lost = usize::from(before.b.tries_left.saturating_sub(after.b.tries_left));
        after.a.status == Status::Confirmed
            && after.sequence >= before.sequence
            && after.b.tries_left <= TRIES
            && (after.b.status == Status::Bad || lost <= starts)
            && (after.b.status != Status::Bad
                || before.b.status == Status::Bad
                || lost == usize::from(before.b.tries_left))
    });
    check(fine, || format!("after {starts} starts and a cut, {before:?} became {after:?}"))
}
