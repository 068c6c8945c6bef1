use super::*;
use crate::names::Off;

fn bind_of(
    words: &[FromResolver],
    zone_id: &str,
    path_id: &str,
) -> Option<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
    words.iter().rev().find_map(|word| match word {
        FromResolver::Bind { zone: z, path: p, name, ipv4, ipv6, .. }
            if *z == zone(zone_id) && *p == path(path_id) && name == SAAS =>
        {
            Some((*ipv4, *ipv6))
        }
        FromResolver::Bind { .. }
        | FromResolver::Hello { .. }
        | FromResolver::Stats(_)
        | FromResolver::Wpad { .. } => None,
    })
}

fn ip4(text: &str) -> Option<Ipv4Addr> {
    Some(text.parse().unwrap())
}

fn ip6(text: &str) -> Option<Ipv6Addr> {
    Some(text.parse().unwrap())
}

#[test]
fn an_inside_address_leaves_only_when_the_current_path_is_in_force() {
    let mut world = World::new();
    let query = world.query("affairs", SAAS, RecordType::A);
    assert!(world.answers.is_empty());
    world.serve(servers);
    let later = world.query("affairs", SAAS, RecordType::A);
    assert!(world.answers.is_empty(), "answered when the agent was told, not when it had done it");
    // All but the current path of this zone.
    let tokens: Vec<(u64, bool)> = world
        .binds
        .drain(..)
        .filter_map(|word| match word {
            FromResolver::Bind { token, zone: z, path: p, .. } => {
                Some((token, z == zone("affairs") && p == path("closed")))
            }
            FromResolver::Hello { .. } | FromResolver::Stats(_) | FromResolver::Wpad { .. } => None,
        })
        .collect();
    assert_eq!(tokens.len(), 4);
    for (token, _) in tokens.iter().filter(|(_, decisive)| !decisive) {
        world.names.handle_agent(ToResolver::InForce { token: *token }, world.now);
    }
    world.collect();
    assert!(world.answers.is_empty(), "answered though the current path is not in force");
    for (token, _) in tokens.iter().filter(|(_, decisive)| *decisive) {
        world.names.handle_agent(ToResolver::InForce { token: *token }, world.now);
    }
    world.collect();
    let answer = world.answer(query);
    assert_eq!(addresses(&answer), [IpAddr::V4(INSIDE4)]);
    assert_eq!(answer.answers[0].ttl, 60);
    assert_eq!(addresses(&world.answer(later)), [IpAddr::V4(INSIDE4)]);
}

#[test]
fn every_path_of_a_service_is_bound_without_anyone_asking() {
    let mut world = World::new();
    assert_eq!(world.serve(servers), 3, "A over closed, A and AAAA over direct, once for both zones");
    let words = world.agree();
    for zone in ["affairs", "learning"] {
        assert_eq!(bind_of(&words, zone, "closed"), Some((ip4("10.50.0.1"), None)));
        assert_eq!(bind_of(&words, zone, "direct"), Some((ip4("203.0.113.10"), ip6("2001:db8::10"))));
    }
}

#[test]
fn questions_leave_from_the_paths_own_addresses_to_its_own_servers() {
    let mut world = World::new();
    for ask in world.asks.drain(..) {
        let closed = ask.servers == ["10.0.0.53".parse::<IpAddr>().unwrap()];
        let last = if closed { 1 } else { 2 };
        assert_eq!(ask.source.unwrap().0, Ipv4Addr::new(10, 255, 0, last));
    }
}

#[test]
fn the_current_paths_word_on_ipv6_decides_about_aaaa() {
    let mut world = World::settled();
    assert!(is_no_data(&world.ask("affairs", SAAS, RecordType::AAAA)));
    world.change(|config| {
        config.zones.get_mut(&zone("affairs")).unwrap().services.get_mut(SAAS).unwrap().current =
            Some(path("direct"));
    });
    assert_eq!(addresses(&world.ask("affairs", SAAS, RecordType::AAAA)), [IpAddr::V6(INSIDE6)]);
    assert!(is_no_data(&world.ask("learning", SAAS, RecordType::AAAA)), "the other zone has not moved");
}

#[test]
fn a_family_that_the_real_name_lacks_is_answered_with_no_data() {
    let only = |kept: RecordType| {
        move |ask: &Ask, question: &Message| {
            let mut message = servers(ask, question)?;
            if question.queries[0].query_type != kept {
                message.answers.clear();
                message.add_authority(soa("example", 60, 60));
            }
            Ok(message)
        }
    };
    for (kept, present) in [(RecordType::A, RecordType::A), (RecordType::AAAA, RecordType::AAAA)] {
        let mut world = World::unconfigured();
        world.change(|config| {
            for zone in config.zones.values_mut() {
                zone.services.get_mut(SAAS).unwrap().current = Some(path("direct"));
            }
        });
        world.serve(only(kept));
        world.agree();
        for kind in [RecordType::A, RecordType::AAAA] {
            let answer = world.ask("affairs", SAAS, kind);
            assert_eq!(addresses(&answer).len(), usize::from(kind == present), "{kept} {kind}");
            assert_eq!(is_no_data(&answer), kind != present, "{kept} {kind}");
        }
    }
}

#[test]
fn hints_around_the_inside_address_are_not_given_and_other_types_pass() {
    let mut world = World::settled();
    for kind in [RecordType::HTTPS, RecordType::SVCB] {
        assert!(is_no_data(&world.ask("affairs", SAAS, kind)), "{kind}");
    }
    assert!(world.asks.is_empty());
    let query = world.query("affairs", SAAS, RecordType::MX);
    assert_eq!(world.asks[0].servers, ["10.0.0.53".parse::<IpAddr>().unwrap()], "over the current path");
    world.serve(servers);
    assert!(is_no_data(&world.answer(query)));
}

#[test]
fn any_is_answered_small_and_transfers_are_refused() {
    let mut world = World::settled();
    for zone in ["affairs", "learning"] {
        let answer = world.ask(zone, SAAS, RecordType::ANY);
        assert_eq!(answer.answers.len(), 1);
        assert_eq!(answer.answers[0].record_type(), RecordType::HINFO);
        let answer = world.ask(zone, SAAS, RecordType::AXFR);
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    }
    assert!(world.asks.is_empty());
}

#[test]
fn a_blocked_service_fails_in_a_way_that_clients_do_not_keep() {
    let mut world = World::settled();
    world.change(|config| {
        config.zones.get_mut(&zone("affairs")).unwrap().services.get_mut(SAAS).unwrap().current = None;
    });
    let answer = world.ask("affairs", SAAS, RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(ede(&answer), Some(22));
}

#[test]
fn an_address_is_kept_while_named_and_exchanged_when_not() {
    let mut world = World::settled();
    let with = |list: &'static [&'static str]| {
        move |_: &Ask, question: &Message| {
            let mut message = reply(question);
            if question.queries[0].query_type == RecordType::A {
                for address in list {
                    message.add_answer(a(SAAS, 60, address));
                }
            } else {
                message.add_authority(soa("example", 60, 60));
            }
            Ok(message)
        }
    };
    world.pass(seconds(60));
    assert!(world.serve(with(&["10.50.0.2", "10.50.0.1", "203.0.113.10"])) > 0);
    let words: Vec<_> = world.agree();
    assert_eq!(bind_of(&words, "affairs", "closed"), None, "nothing new for the agent");
    world.pass(seconds(60));
    world.serve(with(&["10.50.0.2", "203.0.113.10"]));
    let query = world.query("affairs", SAAS, RecordType::A);
    assert_eq!(
        addresses(&world.answer(query)),
        [IpAddr::V4(INSIDE4)],
        "the old address is in force until the new is"
    );
    let words = world.agree();
    assert_eq!(bind_of(&words, "affairs", "closed"), Some((ip4("10.50.0.2"), None)));
}

#[test]
fn an_outage_changes_nothing_that_is_in_force() {
    for failure in [NoAnswer::TimedOut, NoAnswer::Unreachable, NoAnswer::Ill] {
        let mut world = World::settled();
        for _ in 0..20 {
            world.pass(seconds(60));
            world.serve(|_, _| Err(failure));
        }
        assert!(world.binds.is_empty(), "an outage was told as a change of address");
        assert_eq!(addresses(&world.ask("affairs", SAAS, RecordType::A)), [IpAddr::V4(INSIDE4)]);
        // And it is asked again when the servers are back.
        world.pass(seconds(120));
        assert!(!world.asks.is_empty());
    }
}

#[test]
fn failure_with_nothing_known_is_failure_and_not_absence() {
    let mut world = World::new();
    let query = world.query("affairs", SAAS, RecordType::A);
    world.serve(|_, _| Err(NoAnswer::TimedOut));
    assert!(world.binds.is_empty());
    let answer = world.answer(query);
    assert_eq!((answer.metadata.response_code, ede(&answer)), (ResponseCode::ServFail, Some(22)));
    // Not asked again for every query; and healed by itself.
    let answer = world.ask("affairs", SAAS, RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(world.asks.is_empty());
    world.pass(seconds(5));
    assert!(world.serve(servers) > 0);
    world.agree();
    assert_eq!(addresses(&world.ask("affairs", SAAS, RecordType::A)), [IpAddr::V4(INSIDE4)]);
}

#[test]
fn a_path_that_is_down_is_not_waited_for() {
    let mut world = World::unconfigured();
    let down = |config: &mut ResolverConfig| config.paths.get_mut(&path("closed")).unwrap().up = PathUp::Down;
    world.change(down);
    let answer = world.ask("affairs", SAAS, RecordType::A);
    assert_eq!((answer.metadata.response_code, ede(&answer)), (ResponseCode::ServFail, Some(23)));
    // Up again: looked up at once.
    world.asks.clear();
    world.configure(config());
    assert!(world.asks.iter().any(|ask| ask.servers == ["10.0.0.53".parse::<IpAddr>().unwrap()]));
    // Down again with the addresses in force: they still are.
    world.serve(servers);
    world.agree();
    world.change(down);
    assert_eq!(addresses(&world.ask("affairs", SAAS, RecordType::A)), [IpAddr::V4(INSIDE4)]);
}

#[test]
fn a_name_that_is_said_not_to_exist_is_told_to_the_agent() {
    let mut world = World::settled();
    world.pass(seconds(60));
    world.serve(|_, question| {
        let mut message = reply(question);
        message.metadata.response_code = ResponseCode::NXDomain;
        message.add_authority(soa("example", 60, 60));
        Ok(message)
    });
    let words = world.agree();
    assert_eq!(bind_of(&words, "affairs", "closed"), Some((None, None)));
    assert!(is_no_data(&world.ask("affairs", SAAS, RecordType::A)));
}

#[test]
fn one_silent_family_does_not_keep_the_other_waiting() {
    let mut world = World::unconfigured();
    world.change(|config| {
        config.zones.get_mut(&zone("affairs")).unwrap().services.get_mut(SAAS).unwrap().current =
            Some(path("direct"));
    });
    let query = world.query("affairs", SAAS, RecordType::A);
    let (silent, heard): (VecDeque<Ask>, VecDeque<Ask>) = std::mem::take(&mut world.asks)
        .into_iter()
        .partition(|ask| Message::from_vec(&ask.message).unwrap().queries[0].query_type == RecordType::AAAA);
    world.asks = heard;
    world.serve(servers);
    world.agree();
    assert!(!world.answers.contains_key(&query));
    world.pass(Duration::from_millis(500));
    world.agree();
    assert_eq!(addresses(&world.answer(query)), [IpAddr::V4(INSIDE4)]);
    let aaaa = world.query("affairs", SAAS, RecordType::AAAA);
    assert!(!world.answers.contains_key(&aaaa), "not known is not absent");
    world.asks = silent;
    world.serve(|_, _| Err(NoAnswer::TimedOut));
    assert_eq!(world.answer(aaaa).metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn what_the_agent_cannot_do_is_answered_with_failure_and_tried_again() {
    let mut world = World::new();
    let query = world.query("affairs", SAAS, RecordType::A);
    world.serve(servers);
    let refuse = |world: &mut World| {
        for word in std::mem::take(&mut world.binds) {
            if let FromResolver::Bind { token, .. } = word {
                let reason = "no room".to_owned();
                world.names.handle_agent(ToResolver::NotInForce { token, reason }, world.now);
            }
        }
        world.collect();
    };
    refuse(&mut world);
    assert_eq!(world.answer(query).metadata.response_code, ResponseCode::ServFail);
    assert_eq!(world.ask("affairs", SAAS, RecordType::A).metadata.response_code, ResponseCode::ServFail);
    world.pass(seconds(1));
    assert_eq!(world.binds.len(), 4, "tried again after a moment");
    world.agree();
    assert_eq!(addresses(&world.ask("affairs", SAAS, RecordType::A)), [IpAddr::V4(INSIDE4)]);
}

#[test]
fn a_late_word_on_an_overtaken_bind_brings_nothing_in_force() {
    let mut world = World::new();
    let query = world.query("affairs", SAAS, RecordType::A);
    world.serve(servers);
    let overtaken = std::mem::take(&mut world.binds);
    world.pass(seconds(3));
    world.change(|config| {
        for zone in config.zones.values_mut() {
            zone.services.get_mut(SAAS).unwrap().inside4 = Ipv4Addr::new(198, 18, 0, 99);
        }
    });
    for word in overtaken {
        if let FromResolver::Bind { token, .. } = word {
            world.names.handle_agent(ToResolver::InForce { token }, world.now);
        }
    }
    world.collect();
    assert!(!world.answers.contains_key(&query), "the new inside address has nothing in force");
    world.agree();
    assert_eq!(addresses(&world.answer(query)), ["198.18.0.99".parse::<IpAddr>().unwrap()]);
}

#[test]
fn an_agent_that_says_nothing_costs_a_failure_and_no_more() {
    let mut world = World::new();
    let query = world.query("affairs", SAAS, RecordType::A);
    world.serve(servers);
    world.pass(seconds(5));
    assert_eq!(world.answer(query).metadata.response_code, ResponseCode::ServFail);
    world.agree();
    assert_eq!(addresses(&world.ask("affairs", SAAS, RecordType::A)), [IpAddr::V4(INSIDE4)]);
}

#[test]
fn nonsense_addresses_are_no_answer() {
    for bad in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "198.18.0.1"] {
        let mut world = World::new();
        world.serve(|ask, question| {
            let mut message = servers(ask, question)?;
            message.answers.retain(|record| record.record_type() != RecordType::A);
            if question.queries[0].query_type == RecordType::A {
                message.add_answer(a(SAAS, 60, bad));
            }
            Ok(message)
        });
        let words = world.agree();
        assert_eq!(bind_of(&words, "affairs", "closed"), None, "{bad}");
    }
}

#[test]
fn aliases_are_followed_within_the_answer() {
    let mut world = World::new();
    world.serve(|_, question| {
        let mut message = reply(question);
        message.add_answer(alias(SAAS, 30, "edge.cdn.example"));
        if question.queries[0].query_type == RecordType::A {
            message.add_answer(a("edge.cdn.example", 60, "203.0.113.77"));
            message.add_answer(a("evil.example", 60, "203.0.113.66"));
        } else {
            message.add_authority(soa("cdn.example", 60, 60));
        }
        Ok(message)
    });
    let words = world.agree();
    assert_eq!(bind_of(&words, "affairs", "direct"), Some((ip4("203.0.113.77"), None)));
    // The alias's 30 s count.
    world.pass(seconds(29));
    assert!(world.asks.is_empty());
    world.pass(seconds(1));
    assert!(!world.asks.is_empty());
}

#[test]
fn a_path_that_stops_carrying_ipv6_loses_its_ipv6_address() {
    let mut world = World::settled();
    world.change(|config| config.paths.get_mut(&path("direct")).unwrap().ipv6 = Family6::Withheld);
    world.serve(|_, question| {
        assert_eq!(question.queries[0].query_type, RecordType::A);
        let mut message = reply(question);
        message.add_answer(a(SAAS, 60, "203.0.113.10"));
        Ok(message)
    });
    assert_eq!(bind_of(&world.agree(), "affairs", "direct"), Some((ip4("203.0.113.10"), None)));
}

#[test]
fn without_its_mechanisms_the_resolver_shows_it() {
    let mut world =
        World::with(Limits::default(), Without { inside_address: Off::Yes, aaaa_withhold: Off::Yes });
    world.configure(config());
    world.serve(|_, question| {
        let mut message = reply(question);
        let real = if question.queries[0].query_type == RecordType::A { "10.50.0.1" } else { "2001:db8::5" };
        message.add_answer(a(SAAS, 60, real));
        Ok(message)
    });
    world.agree();
    assert_eq!(
        addresses(&world.ask("affairs", SAAS, RecordType::A)),
        ["10.50.0.1".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(
        addresses(&world.ask("affairs", SAAS, RecordType::AAAA)),
        ["2001:db8::5".parse::<IpAddr>().unwrap()]
    );
}
