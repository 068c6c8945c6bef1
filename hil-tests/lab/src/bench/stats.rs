//! Medians and bootstrap intervals.

/// None: there is nothing to take it of.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

const DRAWS: usize = 4000;

/// The median of the ratios and its 95 % bootstrap interval. `seed` makes it repeatable.
pub fn ratio_interval(ratios: &[f64], seed: u64) -> Option<(f64, [f64; 2])> {
    let middle = median(ratios)?;
    let mut random = SplitMix(seed);
    let mut medians: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            let draw: Vec<f64> = (0..ratios.len()).map(|_| ratios[random.below(ratios.len())]).collect();
            median(&draw)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians[((medians.len() - 1) as f64 * share).round() as usize];
    Some((middle, [at(0.025), at(0.975)]))
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough to draw samples with.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_interval_holds_the_median_and_grows_with_the_noise() {
        let calm: Vec<f64> = (0..15).map(|i| 1.0 + f64::from(i % 3) * 0.001).collect();
        let wild: Vec<f64> = (0..15).map(|i| 1.0 + f64::from(i % 5) * 0.1).collect();
        let (calm_median, [calm_low, calm_high]) = ratio_interval(&calm, 1).unwrap();
        let (_, [wild_low, wild_high]) = ratio_interval(&wild, 1).unwrap();
        assert!(calm_low <= calm_median && calm_median <= calm_high);
        assert!(wild_high - wild_low > calm_high - calm_low);
    }
}
