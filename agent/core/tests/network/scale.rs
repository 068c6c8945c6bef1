//! Plans of many permits.

use seimon_board::InterfaceName;
use seimon_core::bench_support::{bare, linear, permit_count, plan_text};
use seimon_core::network_plan::render;

use crate::common;
use crate::nft::{SKIPPED, transactions};

#[test]
fn the_rules_that_a_first_packet_meets_do_not_grow_with_the_permits() {
    let rules = |permits: usize| {
        let net = common::compiled(&common::valid(&plan_text(permits)));
        assert_eq!(permit_count(&net.ruleset), 2 * permits);
        net.ruleset.chains.values().map(|chain| chain.rules.len()).sum::<usize>()
    };
    assert_eq!(rules(10), rules(1000));
}

#[test]
fn nft_takes_the_rulesets_that_ours_is_compared_with() {
    let mut ruleset = common::compiled(&common::valid(&plan_text(50))).ruleset;
    let real = ruleset.maps.get_mut("real4").unwrap();
    let key = seimon_core::network_plan::Key(vec![
        seimon_core::network_plan::KeyPart::Mark(seimon_core::network_plan::Mark(1)),
        seimon_core::network_plan::KeyPart::Ipv4([100, 127, 0, 1].into()),
    ]);
    real.elements.insert(key, seimon_core::network_plan::Value::Ipv4([192, 0, 2, 80].into()));
    let walked = linear(&ruleset);
    let of = |r: &seimon_core::network_plan::Ruleset| r.chains.values().map(|c| c.rules.len()).sum::<usize>();
    assert!(of(&walked) > of(&ruleset) + 90, "{} {}", of(&walked), of(&ruleset));
    let name = |n: &str| InterfaceName::new(n).unwrap();
    let least = bare(
        &name("lan1"),
        &[name("wan1"), name("wan2")],
        &[([100, 127, 0, 1].into(), [192, 0, 2, 80].into())],
    );
    match transactions(&[&render(&walked), &least]) {
        Some(result) => assert!(result.unwrap().contains("dnat ip to 192.0.2.80")),
        None => println!("{SKIPPED}"),
    }
}
