//! An emergency line in the network and before the probe: whose it is, how much it carries, what it costs to watch.

use std::collections::BTreeSet;
use std::time::Duration;

use seimon_board::Instant;
use seimon_core::health::{EchoSize, Health, HealthConfig};
use seimon_core::network_plan::{Allocation, Generation};
use seimon_core::network_plan::{NetworkPlan, PathChoice, Value, Verdict, compile, render_replacement};
use seimon_plan::{GroupId, Metered, PathId, ValidSitePlan, ZoneId};

use crate::common;
use crate::nft::{SKIPPED, transactions};

const MODEM: &str = "
[lines.lte]
port = \"USB1\"
ipv4 = \"192.0.2.130/30\"
gateway4 = \"192.0.2.129\"
role = \"emergency\"
metered = { up_kbit = 1000, down_kbit = 4000 }
[paths.lte]
line = \"lte\"
kind = \"plain\"
ipv6 = \"none\"
resolvers = [\"203.0.113.53\"]
[paths.lte-hub]
line = \"lte\"
kind = \"wireguard\"
ipv6 = \"none\"
resolvers = [\"10.50.0.53\"]
[paths.lte-hub.wireguard]
endpoint = \"198.51.100.20:51820\"
public_key = \"HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=\"
private_key_file = \"lte.key\"
ipv4 = \"10.60.2.2/30\"
mtu = 1380
";

fn town() -> ValidSitePlan {
    let affairs = "group = \"affairs\"\npaths = [\"closed\", \"direct\"]";
    let text = common::plan_text();
    assert!(text.contains(affairs));
    common::valid(&(text.replace(affairs, &format!("{affairs}\nemergency = [\"lte\", \"lte-hub\"]")) + MODEM))
}

fn path(id: &str) -> PathId {
    PathId::new(id).unwrap()
}

fn capped(net: &NetworkPlan) -> Vec<(String, Vec<String>)> {
    let chains = net.ruleset.chains.iter().filter(|(name, _)| name.starts_with("cap_"));
    chains
        .map(|(name, chain)| (name.clone(), chain.rules.iter().map(|rule| rule.text.clone()).collect()))
        .collect()
}

#[test]
fn only_who_names_the_modem_may_be_on_it_and_no_more_than_its_share_each_way() {
    let net = common::compiled(&town());
    let (affairs, lte) = (net.allocation.zone_groups.iter(), &net.allocation.paths);
    let affairs = affairs.clone().find(|((zone, _), _)| zone.as_str() == "affairs").unwrap().1.0;
    let indices = [lte[&path("lte")].0, lte[&path("lte-hub")].0];
    let caps = capped(&net);
    let mut names: Vec<String> = indices.iter().map(|index| format!("cap_{affairs}_{index}")).collect();
    names.sort();
    assert_eq!(caps.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
    for (_, rules) in &caps {
        assert_eq!(
            rules[..],
            [
                "ct direction original limit rate over 125000 bytes/second burst 31250 bytes drop",
                "ct direction reply limit rate over 500000 bytes/second burst 125000 bytes drop",
            ]
        );
    }
    let map = &net.ruleset.maps["capped"];
    assert_eq!(map.elements.len(), 2);
    assert!(map.elements.values().all(|value| matches!(value, Value::Verdict(Verdict::Jump(_)))));
    let first = &net.ruleset.chains["between"].rules[0].text;
    assert!(first.contains("vmap @capped"), "before anything is accepted: {first}");
    let used: BTreeSet<&str> = net
        .allocation
        .probes
        .keys()
        .filter(|(_, of)| of.as_str().starts_with("lte"))
        .map(|(zone, _)| zone.as_str())
        .collect();
    assert_eq!(used, BTreeSet::from(["affairs"]), "nobody else is let through there, nor watches it");
}

#[test]
fn a_plan_without_an_emergency_line_has_nothing_of_it() {
    let net = common::compiled(&common::town());
    assert!(capped(&net).is_empty() && !net.ruleset.maps.contains_key("capped"));
}

#[test]
fn a_group_may_be_aimed_at_its_modem_and_another_may_not() {
    let plan = town();
    let allocation = Allocation::default().extend(&plan).unwrap();
    for (zone, group, fits) in [("affairs", "affairs", true), ("learning", "learning", false)] {
        let mut choice = common::first_choice(&plan);
        let key = (ZoneId::new(zone).unwrap(), GroupId::new(group).unwrap());
        choice.insert(key, PathChoice::On(path("lte")));
        assert_eq!(compile(&plan, &allocation, &choice, None, Generation(1)).is_ok(), fits, "{zone}/{group}");
    }
}

#[test]
fn nft_takes_the_town_with_a_modem() {
    let text = render_replacement(&common::compiled(&town()).ruleset);
    match transactions(&[&text, &text]) {
        Some(result) => {
            result.unwrap_or_else(|error| panic!("{error}\n{text}"));
        }
        None => println!("{SKIPPED}"),
    }
}

/// Bytes a day that the echoes of a path cost, answers included.
fn cost(health: &Health, plan: &ValidSitePlan, id: &str) -> u64 {
    let orders = health.echo_orders();
    let of_path: Vec<_> = orders.iter().filter(|order| order.path == path(id)).collect();
    let [order] = of_path[..] else { panic!("{of_path:?}") };
    assert_eq!(order.size, EchoSize::Small, "no long packets over a line that is paid for by volume");
    assert_eq!(order.silence, None, "nor bursts of short ones");
    Metered::watching_costs(order.every, plan.paths[&path(id)].wireguard.as_ref())
}

#[test]
fn an_idle_modem_costs_no_more_a_day_than_the_plan_allows_and_is_watched_closely_when_it_is_needed() {
    let plan = town();
    let config = HealthConfig::from_plan(&plan, 1);
    assert!(
        config.targets.iter().all(|target| !plan.is_emergency(&target.path)),
        "no service is checked there"
    );
    let mut health = Health::new(config, Instant::ZERO);
    for id in ["lte", "lte-hub"] {
        let cost = cost(&health, &plan, id);
        assert!(cost <= 2_000_000, "{id}: {cost} bytes a day");
    }
    assert!(!health.set_needed(BTreeSet::new()), "nothing has changed");
    assert!(health.set_needed(BTreeSet::from([path("lte")])));
    let every = |health: &Health, id: &str| {
        health.echo_orders().into_iter().find(|order| order.path == path(id)).unwrap().every
    };
    assert!(every(&health, "lte") <= Duration::from_millis(500));
    assert!(every(&health, "lte-hub") > Duration::from_secs(5));
    assert!(health.set_needed(BTreeSet::new()));
    assert!(cost(&health, &plan, "lte") <= 2_000_000);
}
