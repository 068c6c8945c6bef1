//! nft takes what is rendered, and a transaction between two plans leads to the table that the second would have made.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use seimon_core::network_plan::{
    Allocation, Generation, NetworkPlan, PathChoice, TableState, compile, lockdown, nft_diff, render,
    render_replacement,
};
use seimon_plan::{ValidSitePlan, parse};
use toml::Value;

use crate::common;
use crate::nft::{SKIPPED, blocks, transactions};

#[test]
fn nft_takes_the_two_line_town_twice_and_its_lockdown() {
    let town = common::compiled(&common::town());
    let text = render_replacement(&town.ruleset);
    let closed = TableState { flowtable: Some(BTreeSet::new()), ..TableState::default() };
    match transactions(&[&text, &text, &lockdown(&closed)]) {
        Some(result) => {
            let listing = result.unwrap_or_else(|error| panic!("{error}\n{text}"));
            let between = &blocks(&listing)["chain between"];
            assert_eq!(*between, ["type filter hook forward priority filter; policy drop;"]);
        }
        None => println!("{SKIPPED}"),
    }
}

/// Ways in which the town's plan may be otherwise.
#[derive(Clone, Debug)]
struct Variation {
    permits: Vec<bool>,
    idle: u8,
    wide: bool,
    prefix: Option<u8>,
    hub: bool,
    swap: bool,
    single: bool,
    choices: Vec<u8>,
}

fn variation() -> impl Strategy<Value = Variation> {
    (
        prop::collection::vec(prop::bool::weighted(0.8), 6),
        1u8..3,
        any::<bool>(),
        prop::option::of(0u8..3),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(0u8..3, 3),
    )
        .prop_map(|(permits, idle, wide, prefix, hub, swap, single, choices)| Variation {
            permits,
            idle,
            wide,
            prefix,
            hub,
            swap,
            single,
            choices,
        })
}

fn vary(how: &Variation) -> Option<ValidSitePlan> {
    let mut plan: toml::Table = common::plan_text().parse().unwrap();
    let mut keep = how.permits.iter();
    plan["permits"].as_array_mut().unwrap().retain(|_| *keep.next().unwrap_or(&true));
    let services = plan["services"].as_table_mut().unwrap();
    services["affairs"]
        .as_table_mut()
        .unwrap()
        .insert("session_idle".into(), format!("{}min", how.idle).into());
    if how.wide {
        services["drill"]["ports"] = vec![Value::from("udp/7000-7999"), "tcp/80-90".into()].into();
    }
    if let Some(n) = how.prefix {
        let prefixes = vec![Value::from(format!("198.51.{n}.0/24")), "2001:db8:77::/48".into()];
        services["drill"].as_table_mut().unwrap().insert("prefixes".into(), prefixes.into());
    }
    if !how.hub {
        plan.remove("hub");
    }
    let routes = plan["migration"]["routes"].as_array_mut().unwrap();
    if how.swap {
        routes[0]["paths"].as_array_mut().unwrap().reverse();
    }
    if how.single {
        routes[1]["paths"].as_array_mut().unwrap().truncate(1);
    }
    parse(&plan.to_string(), "varied.toml", &common::board()).ok()
}

fn choose(
    plan: &ValidSitePlan,
    how: &Variation,
) -> BTreeMap<(seimon_plan::ZoneId, seimon_plan::GroupId), PathChoice> {
    plan.routes()
        .iter()
        .zip(&how.choices)
        .map(|(route, n)| {
            let choice = match route.paths.get(usize::from(*n)) {
                Some(path) => PathChoice::On(path.clone()),
                None => PathChoice::Blocked("no living path".into()),
            };
            ((route.zone.clone(), route.group.clone()), choice)
        })
        .collect()
}

fn network(plan: &ValidSitePlan, how: &Variation, parent: &Allocation) -> NetworkPlan {
    let allocation = parent.extend(plan).unwrap();
    compile(plan, &allocation, &choose(plan, how), None, Generation(1)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_difference_leads_from_one_table_to_the_other(a in variation(), b in variation()) {
        let (Some(first), Some(second)) = (vary(&a), vary(&b)) else { return Ok(()) };
        let first = network(&first, &a, &Allocation::default());
        let second = network(&second, &b, &first.allocation);
        let difference = nft_diff(&first.ruleset, &second.ruleset);
        prop_assert_eq!(difference.is_none(), first.ruleset == second.ruleset);
        let Some(difference) = difference else { return Ok(()) };
        let (before, after) = (render(&first.ruleset), render(&second.ruleset));
        let Some(moved) = transactions(&[&before, &difference]) else {
            println!("{SKIPPED}");
            return Ok(());
        };
        let moved = moved.map_err(|error| TestCaseError::fail(format!("{error}\n{difference}")))?;
        let fresh = transactions(&[&after]).unwrap().map_err(TestCaseError::fail)?;
        prop_assert_eq!(blocks(&moved), blocks(&fresh), "{}", difference);
    }
}
