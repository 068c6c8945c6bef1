//! What a gateway takes for a frame, in processor time: the ratio that a busy machine does not blur.

use anyhow::{Context, Result};

use super::gate::Gate;
use super::generator::Round;
use super::pairs::{Pairs, Sample, run_pairs};
use super::stats::median;
use crate::result::{Check, Goal};

/// Frames that can be sent through a gateway, or only up to its door. For [`super::generator::Mode::Together`].
pub(super) trait Rounds {
    fn gate(&self) -> &Gate;
    fn round(&self) -> Result<Round>;
    /// The same frames, counted and dropped where they reach the gateway.
    fn to_the_door(&self) -> Result<Round>;
}

/// Odd, so that the median is one of them.
const DOOR_ROUNDS: usize = 9;

/// Frames that `ours` forwards in a second of processor time, against `theirs`.
pub(super) fn compare(name: &str, goal: Goal, ours: &impl Rounds, theirs: &impl Rounds) -> Result<Check> {
    let door = door(theirs)?;
    let of = |rounds: Round| {
        let sample = rounds.sample();
        Sample { value: 1.0 / (1.0 / sample.value - 1.0 / door), ..sample }
    };
    let check =
        run_pairs(name, Pairs::default(), goal, || Ok(of(ours.round()?)), || Ok(of(theirs.round()?)))?;
    let nanos = |value: f64| 1e9 / value;
    let note = format!(
        "processor time a frame: ours {:.0} ns, limit {:.0} ns; to the door and no further {:.0} ns, not counted",
        nanos(of(ours.round()?).value),
        nanos(of(theirs.round()?).value),
        nanos(door)
    );
    Ok(check.with_note(note))
}

/// Frames a second of processor time that reach the gateway's door.
fn door(rounds: &impl Rounds) -> Result<f64> {
    let gateway = rounds.gate().gateway();
    let chains: String = ["lan2", "wan2"]
        .iter()
        .map(|name| {
            format!("chain {name} {{\ntype filter hook ingress device \"{name}\" priority 0\ndrop\n}}\n")
        })
        .collect();
    gateway.nft(&format!("table netdev door {{\n{chains}}}\n"))?;
    let rates = (0..DOOR_ROUNDS).map(|_| Ok(rounds.to_the_door()?.rate)).collect::<Result<Vec<f64>>>();
    gateway.nft("delete table netdev door\n")?;
    median(&rates?).context("nothing reached the gateway's door")
}
