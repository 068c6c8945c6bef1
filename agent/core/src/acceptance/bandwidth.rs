//! The ministry's recommended bandwidth for a school's size. The numbers are data: `recommended-bandwidth.csv`.

const TABLE: &str = include_str!("recommended-bandwidth.csv");

fn rows() -> impl Iterator<Item = (u32, u32)> {
    TABLE.lines().filter_map(|line| {
        let (pupils, mbps) = line.split_once(',')?;
        Some((pupils.parse().ok()?, mbps.parse().ok()?))
    })
}

/// Mbit/s: the table's next row upwards; beyond its end in proportion to the last row.
pub fn recommended_mbps(pupils: u32) -> Option<u32> {
    let next = rows().find(|(size, _)| *size >= pupils).map(|(_, mbps)| mbps);
    let beyond = || {
        let (size, mbps) = rows().last()?;
        u32::try_from((u64::from(pupils) * u64::from(mbps)).div_ceil(u64::from(size))).ok()
    };
    next.or_else(beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_school_between_two_sizes_is_measured_by_the_larger() {
        for (pupils, mbps) in [(1, 108), (60, 108), (61, 216), (320, 525), (1400, 834), (2800, 1668)] {
            assert_eq!(recommended_mbps(pupils), Some(mbps), "{pupils} pupils");
        }
        assert_eq!(rows().count(), 8);
    }
}
