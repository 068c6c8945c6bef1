//! A schedule that fails, made as small as it can be while it still fails in the same way.

use crate::ground::Mutation;
use crate::play::Player;
use crate::schedule::Schedule;

/// Takes out happenings, then time, as long as what is first complained of stays the same.
pub fn shrink(player: &mut Player<'_>, schedule: &Schedule, mutation: Mutation) -> Schedule {
    let mut complaint = |schedule: &Schedule| {
        player.play(schedule, mutation, None).violations.first().map(|violation| violation.what.clone())
    };
    let Some(what) = complaint(schedule) else { return schedule.clone() };
    let mut best = schedule.clone();
    let mut size = best.happenings.len().max(1);
    while size > 0 {
        let mut at = 0;
        while at < best.happenings.len() {
            let mut smaller = best.clone();
            let end = (at + size).min(smaller.happenings.len());
            smaller.happenings.drain(at..end);
            if complaint(&smaller).as_ref() == Some(&what) {
                best = smaller;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    while best.length_ms > 10_000 {
        let shorter = Schedule { length_ms: best.length_ms / 2, ..best.clone() };
        if complaint(&shorter).as_ref() != Some(&what) {
            break;
        }
        best = shorter;
    }
    best
}
