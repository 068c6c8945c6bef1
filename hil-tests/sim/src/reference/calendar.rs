//! When a move may begin in the simulated towns: Saturdays and Sundays from 18:00 to 06:00 of the day after, not in
//! March 2027; in Japan, where there is no summer time.

const DAY: i64 = 24 * 60;
/// 2027-03-01 and 2027-04-01, 00:00 in Japan.
const FROZEN: std::ops::Range<i64> = 1_803_826_800_000..1_803_826_800_000 + 31 * DAY * 60_000;

/// At this wall time, milliseconds since 1970.
pub fn is_open(wall_ms: i64) -> bool {
    if FROZEN.contains(&wall_ms) {
        return false;
    }
    let minutes = wall_ms.div_euclid(60_000) + 9 * 60;
    let (day, minute) = (minutes.div_euclid(DAY), minutes.rem_euclid(DAY));
    // The first of January 1970 was a Thursday; Sunday is 0.
    let weekday = (day + 4).rem_euclid(7);
    let evening = matches!(weekday, 6 | 0) && minute >= 18 * 60;
    let morning_after = matches!(weekday, 0 | 1) && minute < 6 * 60;
    evening || morning_after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weekend_nights_are_open_and_march_is_not() {
        let saturday_20 = crate::schedule::OPEN;
        let hour = 3_600_000;
        for (hours, open) in
            [(0, true), (-2, true), (-3, false), (9, true), (10, false), (22, true), (34, false)]
        {
            assert_eq!(is_open(saturday_20 + hours * hour), open, "{hours}");
        }
        assert!(!is_open(saturday_20 + 4 * 24 * hour), "a Wednesday");
        assert!(!is_open(saturday_20 + 56 * 24 * hour), "a Saturday in March");
        assert!(is_open(saturday_20 + 77 * 24 * hour), "a Saturday in April");
    }
}
