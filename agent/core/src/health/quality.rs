//! Whether a path that carries packets carries them well: brown-outs.
//!
//! ```text
//!  echoes ──▶ the last 50 s ──▶ many lost, in many places, or very many lost ──▶ Lossy
//!  round trips ──▶ the last minute, beside the path's own usual one ───────────▶ Slow
//!  full-size echoes ──▶ most of the last ones lost, small ones answered ────────▶ LargeStall
//! ```
//! Loss that comes in bursts says little about the next packet, so *places* (runs of losses) are counted beside packets:
//! 5 % loss, independent or in bursts, is never an ailment; 20 % is one within a minute. An ailment ends only when the
//! path has been clearly better for a while, so that it does not come and go at the border.

use std::collections::VecDeque;
use std::time::Duration;

use seimon_board::Instant;
use serde::{Deserialize, Serialize};

/// How a path that carries packets is ill. Append only: part of checkpoints (as a cause).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ailment")]
pub enum Ailment {
    /// Liveness packets lost, per thousand.
    Lossy { permille: u32 },
    /// Round trips in milliseconds: lately, and usually on this path.
    Slow { millis: u32, usual_millis: u32 },
    /// Packets of full size are lost though small ones are answered: long answers stall.
    LargeStall,
}

/// Results that loss is judged over. At the default pace 250 in number.
const WINDOW: Duration = Duration::from_secs(50);
/// Fewer say nothing.
const ENOUGH: u32 = 100;
/// More are not kept, however fast they come.
const MOST: usize = 4096;

/// Shares of the window, per thousand.
#[derive(Clone, Copy, Debug)]
struct Limits {
    lost: u32,
    /// Runs of losses.
    places: u32,
    /// Lost, in however few places.
    very_many: u32,
}

/// 5 % independent loss has 48 ‰ of places and hardly ever 135 ‰ lost in 250; in bursts it has fewer places yet. 20 % has 160 ‰
/// of places.
const ILL: Limits = Limits { lost: 135, places: 85, very_many: 400 };
/// Well again below all of these.
const WELL: Limits = Limits { lost: 70, places: 60, very_many: 70 };

const ROUND_TRIPS: usize = 16;
/// Of the last [`ROUND_TRIPS`], above the limit.
const SLOW_COUNT: usize = 12;
/// Times the usual round trip, and at least so much more, is slow.
const SLOW_RATIO: u32 = 3;
const SLOW_SLACK: Duration = Duration::from_millis(250);
/// Weight of a new round trip in the usual one: of a shorter one, a longer one, and one that is slow. What is slow is usual
/// after hours.
const USUAL_WEIGHTS: [f64; 3] = [1.0 / 32.0, 1.0 / 256.0, 1.0 / 4096.0];

/// Full-size echoes: so many of the last so many lost.
const LARGE_LOST: usize = 8;
const LARGE_OF: usize = 10;
/// In a row, to be well again.
const LARGE_WELL: usize = 5;

/// State of one path. Fed with the same results as its liveness.
#[derive(Clone, Debug, Default)]
pub struct PathQuality {
    results: VecDeque<(Instant, bool)>,
    lost: u32,
    places: u32,
    is_lossy: bool,
    round_trips: VecDeque<Duration>,
    usual: Option<Duration>,
    is_slow: bool,
    large: VecDeque<bool>,
    is_stalling: bool,
}

impl PathQuality {
    pub fn handle_answer(&mut self, round_trip: Option<Duration>, now: Instant) {
        if let Some(round_trip) = round_trip {
            self.time(round_trip);
        }
        self.record(false, now);
    }

    pub fn handle_lost(&mut self, now: Instant) {
        self.record(true, now);
    }

    /// How an echo that fills the path's packets ended. Counts only where small ones pass.
    pub fn handle_large(&mut self, answered: bool) {
        self.large.push_back(answered);
        if self.large.len() > LARGE_OF {
            self.large.pop_front();
        }
        let lost = self.large.iter().filter(|&&answered| !answered).count();
        let in_row = self.large.iter().rev().take_while(|&&answered| answered).count();
        self.is_stalling = if self.is_stalling { in_row < LARGE_WELL } else { lost >= LARGE_LOST };
    }

    /// The path was dead: what was before says nothing about now. What is usual stays.
    pub fn forget(&mut self) {
        *self = Self { usual: self.usual, ..Self::default() };
    }

    /// The worst first.
    pub fn ailment(&self) -> Option<Ailment> {
        if self.is_stalling {
            Some(Ailment::LargeStall)
        } else if self.is_lossy {
            Some(Ailment::Lossy { permille: self.share(self.lost) })
        } else if self.is_slow {
            let millis = |d: Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
            let usual_millis = millis(self.usual.unwrap_or_default());
            Some(Ailment::Slow { millis: millis(self.median()), usual_millis })
        } else {
            None
        }
    }

    fn record(&mut self, lost: bool, now: Instant) {
        if lost && !self.results.back().is_some_and(|&(_, lost)| lost) {
            self.places += 1;
        }
        self.lost += u32::from(lost);
        self.results.push_back((now, lost));
        while self.results.len() > MOST || self.results.front().is_some_and(|&(at, _)| now.since(at) > WINDOW)
        {
            let Some((_, lost)) = self.results.pop_front() else { break };
            self.lost -= u32::from(lost);
            // A run that is cut by the window's edge counts until its last packet is out.
            if lost && !self.results.front().is_some_and(|&(_, lost)| lost) {
                self.places -= 1;
            }
        }
        self.is_lossy = self.judge_loss();
    }

    fn judge_loss(&self) -> bool {
        if self.results.len() < ENOUGH as usize {
            return self.is_lossy;
        }
        let limits = if self.is_lossy { WELL } else { ILL };
        let (lost, places) = (self.share(self.lost), self.share(self.places));
        (lost >= limits.lost && places >= limits.places) || lost >= limits.very_many
    }

    fn share(&self, count: u32) -> u32 {
        let of = u32::try_from(self.results.len()).unwrap_or(u32::MAX).max(1);
        count.saturating_mul(1000) / of
    }

    fn time(&mut self, round_trip: Duration) {
        self.round_trips.push_back(round_trip);
        if self.round_trips.len() > ROUND_TRIPS {
            self.round_trips.pop_front();
        }
        let usual = *self.usual.get_or_insert(round_trip);
        let limit = (usual * SLOW_RATIO).max(usual + SLOW_SLACK);
        let above = self.round_trips.iter().filter(|&&one| one > limit).count();
        self.is_slow = if self.is_slow { above > ROUND_TRIPS - SLOW_COUNT } else { above >= SLOW_COUNT };
        let [shorter, longer, slow] = USUAL_WEIGHTS;
        let weight = match round_trip {
            one if one > limit => slow,
            one if one > usual => longer,
            _ => shorter,
        };
        let weighed = round_trip.min(limit).as_secs_f64() * weight + usual.as_secs_f64() * (1.0 - weight);
        self.usual = Some(Duration::try_from_secs_f64(weighed).unwrap_or(usual));
    }

    fn median(&self) -> Duration {
        let mut sorted: Vec<Duration> = self.round_trips.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(200);

    /// SplitMix64.
    struct Dice(u64);

    impl Dice {
        fn below_one(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut x = self.0;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (x ^ (x >> 31)) as f64 / u64::MAX as f64
        }
    }

    /// Until an ailment is found, at most so many echoes.
    fn until_ill(mut is_lost: impl FnMut(u32) -> bool, most: u32) -> Option<Duration> {
        let mut quality = PathQuality::default();
        let mut now = Instant::ZERO;
        for echo in 0..most {
            now = now + INTERVAL;
            if is_lost(echo) {
                quality.handle_lost(now);
            } else {
                quality.handle_answer(None, now);
            }
            if quality.ailment().is_some() {
                return Some(now.since(Instant::ZERO));
            }
        }
        None
    }

    #[test]
    fn a_fifth_of_all_packets_lost_after_a_good_time_is_found_within_a_minute() {
        let mut late = 0;
        for seed in 0..200 {
            let mut dice = Dice(seed);
            let begins = 500;
            let found = until_ill(|echo| echo >= begins && dice.below_one() < 0.2, begins + 1_000);
            let took = found.map(|at| at.saturating_sub(INTERVAL * begins));
            assert!(took.is_some_and(|took| took <= Duration::from_secs(75)), "seed {seed}: {took:?}");
            late += u32::from(took > Some(Duration::from_secs(60)));
        }
        assert!(late <= 1, "{late} of 200");
    }

    #[test]
    fn every_other_packet_lost_is_found_within_half_a_minute() {
        let found = until_ill(|echo| echo >= 500 && echo % 2 == 0, 2_000);
        assert!(found.is_some_and(|at| at <= INTERVAL * 500 + Duration::from_secs(30)), "{found:?}");
    }

    #[test]
    fn five_per_cent_lost_is_never_an_ailment_independent_or_in_bursts() {
        // 100 hours each.
        let hours_100 = 1_800_000;
        for seed in 0..2 {
            let mut dice = Dice(seed);
            assert_eq!(until_ill(|_| dice.below_one() < 0.05, hours_100), None, "independent, seed {seed}");
            for mean_burst in [1.5, 2.0, 3.0] {
                let mut dice = Dice(seed + 100);
                let (leave, mut bad) = (1.0 / mean_burst, false);
                let enter = leave * 0.05 / 0.95;
                let found = until_ill(
                    |_| {
                        let dice = dice.below_one();
                        bad = if bad { dice >= leave } else { dice < enter };
                        bad
                    },
                    hours_100,
                );
                assert_eq!(found, None, "bursts of {mean_burst}, seed {seed}");
            }
        }
    }

    #[test]
    fn loss_at_the_border_does_not_come_and_go() {
        let (mut quality, mut now, mut changes) = (PathQuality::default(), Instant::ZERO, 0);
        let mut dice = Dice(7);
        for _ in 0..90_000 {
            let before = quality.ailment().is_some();
            now = now + INTERVAL;
            if dice.below_one() < 0.14 {
                quality.handle_lost(now);
            } else {
                quality.handle_answer(None, now);
            }
            changes += u32::from(before != quality.ailment().is_some());
        }
        assert!(changes <= 3, "{changes} changes in five hours");
    }

    #[test]
    fn the_window_forgets_and_counts_what_it_holds() {
        let (mut quality, mut now) = (PathQuality::default(), Instant::ZERO);
        for echo in 0..5_000_u32 {
            now = now + INTERVAL;
            if echo % 7 < 2 {
                quality.handle_lost(now)
            } else {
                quality.handle_answer(None, now)
            }
            let lost = quality.results.iter().filter(|r| r.1).count();
            let mut last = false;
            let places = quality.results.iter().filter(|r| !std::mem::replace(&mut last, r.1) && r.1).count();
            assert_eq!((quality.lost as usize, quality.places as usize), (lost, places), "after {echo}");
        }
    }

    #[test]
    fn a_path_that_is_much_slower_than_usual_is_slow_and_one_that_always_was_is_not() {
        let (mut quality, now) = (PathQuality::default(), Instant::ZERO);
        let ms = Duration::from_millis;
        for _ in 0..100 {
            quality.handle_answer(Some(ms(600)), now);
        }
        assert_eq!(quality.ailment(), None, "a satellite");
        let mut quality = PathQuality::default();
        for _ in 0..100 {
            quality.handle_answer(Some(ms(10)), now);
        }
        let found = (0..20).find(|_| {
            quality.handle_answer(Some(ms(500)), now);
            quality.ailment().is_some()
        });
        // One in three seconds is measured.
        assert!(found.is_some_and(|n| n * 3 <= 60), "{found:?}");
        assert!(matches!(quality.ailment(), Some(Ailment::Slow { usual_millis: 10..=15, .. })));
        for _ in 0..16 {
            quality.handle_answer(Some(ms(12)), now);
        }
        assert_eq!(quality.ailment(), None, "well again");
    }

    #[test]
    fn full_size_packets_that_do_not_pass_are_found_and_one_in_five_lost_is_not_that() {
        let mut quality = PathQuality::default();
        for n in 0..1_000 {
            quality.handle_large(n % 5 != 0);
            assert_eq!(quality.ailment(), None);
        }
        for _ in 0..10 {
            quality.handle_large(false);
        }
        assert_eq!(quality.ailment(), Some(Ailment::LargeStall));
        quality.handle_large(true);
        assert_eq!(quality.ailment(), Some(Ailment::LargeStall), "one does not heal it");
        for _ in 0..5 {
            quality.handle_large(true);
        }
        assert_eq!(quality.ailment(), None);
    }
}
