//! Which of the hub's egress addresses a school is seen under.
//!
//! By the highest of a number that school and address make together: schools that come or go change nobody's address,
//! and an address that is added takes over its share of schools and touches no other.

use std::net::{Ipv4Addr, Ipv6Addr};

use seimon_plan::{HubPlan, HubSchool, SiteId};

/// The school's IPv4 egress address: the plan's, or the one that is dealt to it. `None`: the hub has none.
pub fn egress4(plan: &HubPlan, id: &SiteId, school: &HubSchool) -> Option<Ipv4Addr> {
    school.egress.or_else(|| {
        let pool = &plan.egress.as_ref()?.ipv4;
        pool.iter().copied().max_by_key(|address| weight(id, &address.octets()))
    })
}

/// The same for IPv6.
pub fn egress6(plan: &HubPlan, id: &SiteId) -> Option<Ipv6Addr> {
    let pool = &plan.egress.as_ref()?.ipv6;
    pool.iter().copied().max_by_key(|address| weight(id, &address.octets()))
}

/// FNV-1a, and then mixed: near addresses are to be far apart.
fn weight(id: &SiteId, address: &[u8]) -> u64 {
    let bytes = id.as_str().bytes().chain([0]).chain(address.iter().copied());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn dealt(schools: u32, pool: &[u8]) -> BTreeMap<String, u8> {
        let best = |id: &SiteId| {
            pool.iter().copied().max_by_key(|last| weight(id, &[198, 51, 100, *last])).unwrap_or_default()
        };
        (0..schools)
            .map(|n| format!("school-{n}"))
            .map(|id| (id.clone(), best(&SiteId::new(id).unwrap())))
            .collect()
    }

    #[test]
    fn schools_that_come_change_nobodys_address_and_an_address_that_comes_takes_its_share_only() {
        let few = dealt(500, &[10, 11, 12, 13]);
        let more = dealt(1000, &[10, 11, 12, 13]);
        assert!(few.iter().all(|(id, address)| more[id] == *address));
        for last in [10, 11, 12, 13] {
            let count = more.values().filter(|address| **address == last).count();
            assert!((180..=320).contains(&count), "{last}: {count} of 1000");
        }
        let wider = dealt(1000, &[10, 11, 12, 13, 14]);
        let moved: Vec<_> = wider.iter().filter(|(id, address)| more[*id] != **address).collect();
        assert!(moved.iter().all(|(_, address)| **address == 14), "nobody moves to an old address");
        assert!((120..=280).contains(&moved.len()), "{} of 1000", moved.len());
    }
}
