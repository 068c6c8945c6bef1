//! A fuzzer for every compiler: takes known inputs apart and puts them together wrongly. It does not see what the code
//! makes of them, as `cargo fuzz` does, and so it finds less; it needs nothing.

use std::time::{Duration, Instant};

use seimon_sim::dice::Dice;

use crate::Target;

const LONGEST: usize = 64 * 1024;

/// Numbers that are often handled wrongly.
const ODD: [&[u8]; 8] =
    [b"0", b"-1", b"18446744073709551615", b"1e400", b"\xff\xff\xff\xff", b"\x00", b"\xc0\x0c", b"\n"];

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Inputs that were tried.
    pub inputs: u64,
    /// The first that did harm, made as small as it can be.
    pub found: Option<Vec<u8>>,
}

/// An input that takes longer does harm, too.
const SLOW: Duration = Duration::from_secs(5);

/// Runs the target on its seeds and on what can be made of them, for so long or until something is found.
pub fn fuzz(target: Target, seed: u64, time: Duration) -> Outcome {
    let seeds = (target.seeds)();
    let mut dice = Dice::new(seed);
    let start = Instant::now();
    let mut inputs = 0;
    let mut first = seeds.iter().cloned();
    loop {
        let input = match first.next() {
            Some(seed) => seed,
            None if start.elapsed() >= time => return Outcome { inputs, found: None },
            None => mutated(&seeds, &mut dice),
        };
        inputs += 1;
        if does_harm(target, &input) {
            return Outcome { inputs, found: Some(shrunk(target, input)) };
        }
    }
}

fn does_harm(target: Target, input: &[u8]) -> bool {
    let begun = Instant::now();
    std::panic::catch_unwind(|| (target.run)(input)).is_err() || begun.elapsed() > SLOW
}

/// Without every part that it does harm without.
fn shrunk(target: Target, mut input: Vec<u8>) -> Vec<u8> {
    // The first panic has been told; what follows is the same again and again.
    let tells = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut size = input.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < input.len() {
            let mut smaller = input.clone();
            smaller.drain(at..(at + size).min(input.len()));
            if does_harm(target, &smaller) {
                input = smaller;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    std::panic::set_hook(tells);
    input
}

/// Some input, changed in a few places.
pub fn mutated(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = dice.of(seeds).cloned().unwrap_or_default();
    for _ in 0..dice.between(1, 6) {
        change(&mut bytes, seeds, dice);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn place(bytes: &[u8], dice: &mut Dice) -> usize {
    usize::try_from(dice.between(0, bytes.len() as u64)).unwrap_or(0)
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], dice: &mut Dice) {
    let at = place(bytes, dice);
    let end = (at + usize::try_from(dice.between(1, 16)).unwrap_or(1)).min(bytes.len());
    match dice.roll(9) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.roll(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = (dice.next() & 0xff) as u8;
            }
        }
        2 => bytes.truncate(at),
        3 => {
            bytes.drain(at..end);
        }
        4 => {
            let again = bytes[at..end].to_vec();
            for _ in 0..dice.between(1, 40) {
                bytes.splice(at..at, again.iter().copied());
            }
        }
        5 => {
            let odd = dice.of(&ODD).copied().unwrap_or_default();
            bytes.splice(at..end, odd.iter().copied());
        }
        6 => {
            // The rest of another.
            let other = dice.of(seeds).cloned().unwrap_or_default();
            let from = place(&other, dice);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        7 => {
            // A word of another, in the place of one of ours: what TOML and JSON are made of.
            let other = dice.of(seeds).cloned().unwrap_or_default();
            if let (Some(ours), Some(theirs)) = (word(bytes, at), word(&other, place(&other, dice))) {
                bytes.splice(ours, other[theirs].iter().copied());
            }
        }
        _ => {
            if let Some(ours) = word(bytes, at) {
                bytes.drain(ours);
            }
        }
    }
}

/// The word around this place.
fn word(bytes: &[u8], at: usize) -> Option<std::ops::Range<usize>> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-');
    let start = bytes.get(..at)?.iter().rposition(|byte| !is_word(byte)).map_or(0, |before| before + 1);
    let end = bytes[at..].iter().position(|byte| !is_word(byte)).map_or(bytes.len(), |after| at + after);
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_of_seeds_differs_from_them_and_is_the_same_again_for_the_same_dice() {
        let seeds = vec![b"{\"version\": 1, \"state\": \"steady\"}".to_vec(), b"other words".to_vec()];
        let made = |seed| {
            let mut dice = Dice::new(seed);
            (0..200).map(|_| mutated(&seeds, &mut dice)).collect::<Vec<_>>()
        };
        assert_eq!(made(1), made(1));
        let new = made(1).iter().filter(|made| !seeds.contains(made)).count();
        assert!(new > 150, "{new}");
    }
}
