//! `explain` says what the kernel does.

use seimon_core::network_plan::PathChoice;
use seimon_core::network_plan::{Allocation, Generation, canary_element, compile, real_elements};
use seimon_core::segmentation::{Explanation, Outcome, Question, Target, explain, zone_of};
use seimon_plan::{PathId, Protocol, ZoneId};

use crate::common;

fn asked(from: ZoneId, to: Target, port: Option<u16>) -> Question {
    Question { from, address: None, client: None, plugged: None, to, protocol: Protocol::Tcp, port }
}

fn ask(from: &str, to: &str, port: Option<u16>) -> Explanation {
    let plan = common::town();
    let mut net = common::compiled(&plan);
    let zone = ZoneId::new("affairs").unwrap();
    let closed = PathId::new("closed").unwrap();
    let real = real_elements(
        &net.allocation,
        &zone,
        "affairs.school.example",
        &closed,
        Some([10, 50, 0, 80].into()),
        None,
    );
    for element in real {
        net.ruleset
            .maps
            .get_mut(&element.container)
            .unwrap()
            .elements
            .insert(element.key, element.value.unwrap());
    }
    let to = to.parse().map_or_else(|_| Target::Name(to.to_owned()), Target::Address);
    let from = ZoneId::new(from).unwrap();
    explain(&plan, &net, &[], &asked(from, to, port))
}

#[test]
fn a_permitted_name_is_explained_with_permit_path_and_addresses() {
    let answer = ask("affairs", "affairs.school.example", None);
    assert_eq!(answer.outcome, Outcome::Leaves);
    assert!(answer.rule.contains("校務支援システムの利用"), "{}", answer.rule);
    // Its last day in both languages: the rule is one text.
    assert!(answer.rule.contains(" まで / until 20"), "{}", answer.rule);
    assert_eq!(answer.path.unwrap().as_str(), "closed");
    assert_eq!(answer.inside.len(), 2);
    assert_eq!(answer.real, ["10.50.0.80".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn the_table_of_zones_and_destinations_holds() {
    for (from, to, port, outcome) in [
        ("affairs", "affairs.school.example", Some(80), Outcome::Refused),
        ("affairs", "www.example.org", None, Outcome::Refused),
        ("affairs", "8.8.8.8", None, Outcome::Refused),
        ("affairs", "10.50.3.4", Some(8080), Outcome::Leaves),
        ("affairs", "10.20.3.10", Some(9100), Outcome::Local),
        ("affairs", "10.20.3.10", Some(443), Outcome::Refused),
        ("affairs", "10.20.3.1", Some(9100), Outcome::Refused),
        ("affairs", "10.20.2.10", None, Outcome::Refused),
        ("learning", "www.example.org", None, Outcome::Leaves),
        ("learning", "8.8.8.8", None, Outcome::Leaves),
        ("learning", "2001:db8:50::80", None, Outcome::Refused),
        ("learning", "10.50.3.4", None, Outcome::Refused),
        ("learning", "10.20.1.10", None, Outcome::Refused),
        ("learning", "192.0.2.1", None, Outcome::Refused),
        ("printers", "8.8.8.8", None, Outcome::Refused),
        ("printers", "10.20.1.10", None, Outcome::Refused),
    ] {
        assert_eq!(ask(from, to, port).outcome, outcome, "{from} → {to} {port:?}");
    }
}

#[test]
fn a_blocked_group_says_so() {
    let plan = common::town();
    let allocation = Allocation::default().extend(&plan).unwrap();
    let mut choice = common::first_choice(&plan);
    choice.values_mut().for_each(|c| *c = PathChoice::Blocked("both lines are down".into()));
    let net = compile(&plan, &allocation, &choice, None, Generation(1)).unwrap();
    let from = zone_of(&plan, "10.20.1.10".parse().unwrap()).unwrap();
    let to = Target::Name("affairs.school.example".into());
    let answer = explain(&plan, &net, &[], &asked(from, to, None));
    assert_eq!((answer.outcome, answer.path), (Outcome::Refused, None));
    assert!(answer.why.iter().any(|sentence| sentence.en.contains("blocked")));
}

/// A canary of rooms, a port and a share under way; who asks is `client`.
fn in_a_canary(client: impl FnOnce(Question) -> Question) -> Explanation {
    let text = common::plan_text();
    let text = text.replace(
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]",
        "group = \"affairs\"\npaths = [\"closed\", \"direct\"]\n\
         canary = { rooms = [\"office\"], ports = [\"LAN1\"], share = 25, time = \"1h\" }",
    );
    let text = text.replacen("ports = [\"LAN1\"]\nipv4", "ports = [\"LAN1\", \"LAN4\"]\nipv4", 1);
    let room = "[migration.rooms.office]\nzone = \"affairs\"\nprefixes = [\"10.20.1.64/27\"]\n";
    let plan = common::valid(&text.replacen("[migration.times]", &format!("{room}[migration.times]"), 1));
    let mut net = common::compiled(&plan);
    let (zone, group) = (ZoneId::new("affairs").unwrap(), seimon_plan::GroupId::new("affairs").unwrap());
    let direct = PathId::new("direct").unwrap();
    let element = canary_element(&net.allocation, &zone, &group, &direct).unwrap();
    net.ruleset.maps.get_mut("canary").unwrap().elements.insert(element.key, element.value.unwrap());
    let to = Target::Name("affairs.school.example".into());
    explain(&plan, &net, &[], &client(asked(zone, to, None)))
}

#[test]
fn a_canarys_client_is_told_that_it_tries_the_new_path_and_others_that_they_do_not() {
    // Shares of these with the group's number as seed: see `segmentation::canary`.
    let mac = |last| Some(seimon_board::MacAddress([2, 0x20, 1, 0, 0, last]));
    let at_port = |port: &str| Some(port.to_owned());
    let room = in_a_canary(|q| Question { address: "10.20.1.70".parse().ok(), ..q });
    let port = in_a_canary(|q| Question { plugged: at_port("LAN1"), ..q });
    for told in [room, port] {
        assert_eq!(told.path.as_ref().map(PathId::as_str), Some("direct"), "{told:?}");
        assert!(told.why.iter().any(|why| why.en.contains("one of the few")), "{told:?}");
    }
    let shares: Vec<Explanation> = (0..40)
        .map(|last| in_a_canary(|q| Question { client: mac(last), plugged: at_port("LAN4"), ..q }))
        .collect();
    let tried = shares.iter().filter(|told| told.path.as_ref().is_some_and(|p| p.as_str() == "direct"));
    assert!((4..=16).contains(&tried.count()), "about a quarter of forty");
    assert!(shares.iter().all(|told| {
        told.why.iter().any(|why| why.en.contains("a few clients try") || why.en.contains("one of the few"))
    }));
    let unknown = in_a_canary(|q| q);
    assert_eq!(unknown.path.as_ref().map(PathId::as_str), Some("closed"));
    assert!(unknown.why.iter().any(|why| why.en.contains("has heard from it")), "{unknown:?}");
}
