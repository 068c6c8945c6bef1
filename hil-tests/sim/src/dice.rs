//! Chance that can be repeated.

/// SplitMix64: the same seed gives the same world, on every machine and in every release.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// From 0 to `below`, which it never is. 0 for 0.
    pub const fn roll(&mut self, below: u64) -> u64 {
        let next = self.next();
        if below == 0 { 0 } else { next % below }
    }

    /// Both ends included.
    pub const fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.roll(most.saturating_sub(least) + 1)
    }

    pub const fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }

    /// True with this probability (0 to 1).
    pub fn chance(&mut self, probability: f64) -> bool {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64 + f64::EPSILON < probability
    }

    /// One of them; `None` of none.
    pub fn of<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let at = usize::try_from(self.roll(choices.len() as u64)).ok()?;
        choices.get(at)
    }

    /// A stream of its own, so that what one part rolls does not shift what another does.
    pub const fn split(&mut self) -> Self {
        Self::new(self.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_rolls_the_same_and_chances_come_true() {
        let rolls = |seed| {
            let mut dice = Dice::new(seed);
            (0..5).map(|_| dice.roll(100)).collect::<Vec<_>>()
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        let mut dice = Dice::new(1);
        let hits = (0..100_000).filter(|_| dice.chance(0.05)).count();
        assert!((4_700..5_300).contains(&hits), "{hits}");
    }
}
