use super::*;
use crate::names::How;

#[test]
fn other_names_are_refused_where_there_is_a_list() {
    let mut world = World::settled();
    for text in ["www.example", "example", "sub.saas.example", "xsaas.example"] {
        let answer = world.ask("affairs", text, RecordType::A);
        assert_eq!(
            (answer.metadata.response_code, ede(&answer)),
            (ResponseCode::Refused, Some(15)),
            "{text}"
        );
    }
    assert!(world.asks.is_empty());
    assert_eq!(
        world.ask("nowhere", "www.example", RecordType::A).metadata.response_code,
        ResponseCode::Refused
    );
}

#[test]
fn before_the_agents_first_word_everything_fails_for_now() {
    let mut world = World::unconfigured();
    let answer = world.ask("affairs", SAAS, RecordType::A);
    assert_eq!((answer.metadata.response_code, ede(&answer)), (ResponseCode::ServFail, Some(14)));
}

#[test]
fn an_open_zones_names_are_asked_once_for_all_who_wait_and_then_remembered() {
    let mut world = World::settled();
    let first = world.query("learning", "www.example", RecordType::A);
    let second = world.query("learning", "WWW.example", RecordType::A);
    assert_eq!(world.asks.len(), 1);
    assert_eq!((world.asks[0].how, &world.asks[0].servers), (How::Own, &vec!["192.0.2.53".parse().unwrap()]));
    world.serve(servers);
    assert_eq!(
        addresses(&world.answer(first)),
        addresses(&world.ask("learning", "www.example", RecordType::A))
    );
    let answer = world.answer(second);
    assert_eq!(answer.queries[0].name.to_ascii(), "WWW.example.", "the client's own case");
    assert_eq!(answer.answers[0].name.to_ascii(), "WWW.example.");
    world.pass(seconds(59));
    assert_eq!(world.ask("learning", "www.example", RecordType::A).answers[0].ttl, 1);
    world.pass(seconds(1));
    world.asks.clear();
    world.query("learning", "www.example", RecordType::A);
    assert_eq!(world.asks.len(), 1, "its time is over");
}

#[test]
fn no_is_remembered_as_long_as_the_zone_says() {
    let mut world = World::settled();
    for (text, code) in [("gone.example", ResponseCode::NXDomain), ("empty.example", ResponseCode::NoError)] {
        let query = world.query("learning", text, RecordType::A);
        world.serve(|_, question| {
            let mut message = reply(question);
            message.metadata.response_code = code;
            message.add_authority(soa("example", 300, 20));
            Ok(message)
        });
        let answer = world.answer(query);
        assert_eq!((answer.metadata.response_code, answer.authorities[0].ttl), (code, 20), "{text}");
        world.pass(seconds(19));
        world.asks.clear();
        assert_eq!(world.ask("learning", text, RecordType::A).metadata.response_code, code);
        assert!(world.asks.is_empty());
        world.pass(seconds(1));
        world.asks.clear();
        world.query("learning", text, RecordType::A);
        assert_eq!(world.asks.len(), 1, "{text}");
        world.serve(servers);
    }
}

#[test]
fn aaaa_is_withheld_from_open_zones_too() {
    let mut world = World::unconfigured();
    world.change(|config| {
        config.zones.get_mut(&zone("learning")).unwrap().others = Some(path("closed"));
    });
    world.asks.clear();
    assert!(is_no_data(&world.ask("learning", "www.example", RecordType::AAAA)));
    assert!(world.asks.is_empty());
}

#[test]
fn hints_of_ipv6_go_where_aaaa_may_go() {
    use hickory_proto::rr::rdata::svcb::{IpHint, SvcParamKey, SvcParamValue};
    use hickory_proto::rr::rdata::{HTTPS, SVCB};
    for (over, kept) in [("closed", 1), ("direct", 2)] {
        let mut world = World::unconfigured();
        world.change(|config| {
            config.zones.get_mut(&zone("learning")).unwrap().others = Some(path(over));
        });
        world.asks.clear();
        let query = world.query("learning", "www.example", RecordType::HTTPS);
        world.serve(|_, question| {
            let mut message = reply(question);
            let hints = vec![
                (
                    SvcParamKey::Ipv4Hint,
                    SvcParamValue::Ipv4Hint(IpHint(vec![Ipv4Addr::new(192, 0, 2, 1).into()])),
                ),
                (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(vec![Ipv6Addr::LOCALHOST.into()]))),
            ];
            let service = HTTPS(SVCB::new(1, Name::root(), hints));
            message.add_answer(Record::from_rdata(name("www.example"), 60, RData::HTTPS(service)));
            Ok(message)
        });
        let answer = world.answer(query);
        let RData::HTTPS(service) = &answer.answers[0].data else { panic!("{over}") };
        assert_eq!(service.svc_params.len(), kept, "{over}");
    }
}

#[test]
fn in_an_outage_the_last_answer_is_given_for_a_short_time() {
    let mut world = World::settled();
    let query = world.query("learning", "www.example", RecordType::A);
    world.serve(servers);
    world.answer(query);
    world.pass(seconds(600));
    world.asks.clear();
    // Slow: the stale answer after 1.8 s.
    let query = world.query("learning", "www.example", RecordType::A);
    world.pass(Duration::from_millis(1_799));
    assert!(!world.answers.contains_key(&query));
    world.pass(Duration::from_millis(1));
    let answer = world.answer(query);
    assert_eq!((addresses(&answer).len(), answer.answers[0].ttl, ede(&answer)), (1, 30, Some(3)));
    // Failed: at once, and the next without asking.
    world.serve(|_, _| Err(NoAnswer::TimedOut));
    assert_eq!(ede(&world.ask("learning", "www.example", RecordType::A)), Some(3));
    assert!(world.asks.is_empty());
    // Down: at once.
    world.pass(seconds(60));
    world.asks.clear();
    world.change(|config| config.paths.get_mut(&path("direct")).unwrap().up = PathUp::Down);
    assert_eq!(ede(&world.ask("learning", "www.example", RecordType::A)), Some(3));
    let answer = world.ask("learning", "new.example", RecordType::A);
    assert_eq!((answer.metadata.response_code, ede(&answer)), (ResponseCode::ServFail, Some(23)));
    assert_eq!(world.names.stats().stale, 3);
}

#[test]
fn what_a_server_says_of_other_names_is_not_believed() {
    let mut world = World::settled();
    let query = world.query("learning", "www.example", RecordType::A);
    world.serve(|_, question| {
        let mut message = reply(question);
        message.add_answer(a("www.example", 60, "203.0.113.1"));
        message.add_answer(a("bank.example", 60, "203.0.113.66"));
        message.add_authority(a("bank.example", 60, "203.0.113.66"));
        message.add_additional(a("bank.example", 60, "203.0.113.66"));
        Ok(message)
    });
    let answer = world.answer(query);
    assert_eq!(addresses(&answer), ["203.0.113.1".parse::<IpAddr>().unwrap()]);
    assert!(answer.authorities.is_empty() && answer.additionals.is_empty());
    world.query("learning", "bank.example", RecordType::A);
    assert_eq!(world.asks.len(), 1, "nothing was learnt about it");
    // An SOA from beside the name does not decide how long "no" holds.
    let query = world.query("learning", "no.example", RecordType::A);
    world.asks.pop_front();
    world.serve(|_, question| {
        let mut message = reply(question);
        message.add_authority(soa("elsewhere", 900, 900));
        Ok(message)
    });
    assert!(world.answer(query).authorities.is_empty());
    world.pass(seconds(5));
    world.asks.clear();
    world.query("learning", "no.example", RecordType::A);
    assert_eq!(world.asks.len(), 1);
}

#[test]
fn aliases_in_circles_or_into_nothing_are_failures() {
    for answers in [
        vec![alias("www.example", 60, "b.example"), alias("b.example", 60, "www.example")],
        vec![alias("www.example", 60, "www.example")],
        vec![alias("www.example", 60, "b.example")],
        (0..40)
            .map(|n| {
                alias(
                    &if n == 0 { "www.example".into() } else { format!("n{n}.example") },
                    60,
                    &format!("n{}.example", n + 1),
                )
            })
            .collect(),
    ] {
        let mut world = World::settled();
        let query = world.query("learning", "www.example", RecordType::A);
        world.serve(|_, question| {
            let mut message = reply(question);
            message.answers = answers.clone();
            Ok(message)
        });
        assert_eq!(world.answer(query).metadata.response_code, ResponseCode::ServFail);
    }
}

#[test]
fn a_forwards_bytes_pass_but_for_the_id() {
    let mut world = World::settled();
    for (text, server) in [
        ("ad.school.local", "192.168.1.10"),
        ("_ldap._tcp.dc._msdcs.AD.school.local", "192.168.1.10"),
        ("10.1.168.192.in-addr.arpa", "192.168.1.11"),
        ("printer.school.local", "10.0.9.9"),
    ] {
        let bytes = query(text, RecordType::SRV).to_vec().unwrap();
        let number = world.send("learning", Transport::Udp, &bytes).unwrap();
        let ask = world.asks.pop_front().unwrap();
        assert_eq!(
            (ask.how, &ask.servers),
            (How::Raw(Transport::Udp), &vec![server.parse().unwrap()]),
            "{text}"
        );
        assert_eq!(ask.message[2..], bytes[2..]);
        assert_eq!(ask.source.is_some(), text == "printer.school.local");
        // Not even well-formed behind the question: theirs to mean.
        let mut answer = bytes.clone();
        answer[0..2].copy_from_slice(&[0xab, 0xcd]);
        answer[2] |= 0x80;
        answer.extend_from_slice(&[1, 2, 3]);
        world.names.handle_upstream(ask.job, Ok(answer.clone()), world.now);
        world.collect();
        let received = world.answers.remove(&number).unwrap();
        assert_eq!(received[0..2], bytes[0..2], "the client's id");
        assert_eq!(received[2..], answer[2..]);
    }
}

#[test]
fn a_forward_ends_at_the_border_of_a_label() {
    let mut world = World::settled();
    world.query("learning", "bad.school.local.example", RecordType::A);
    world.query("learning", "myschool.local", RecordType::A);
    world.query("learning", r"x\.school.local", RecordType::A);
    assert_eq!(world.asks.len(), 3);
    assert!(world.asks.iter().all(|ask| ask.how == How::Own));
    let answer = world.ask("affairs", "ad.school.local", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "another zone's forward");
}

#[test]
fn a_forwards_answer_that_is_too_long_is_cut_and_marked() {
    let mut world = World::settled();
    let number = world.query("learning", "ad.school.local", RecordType::A);
    let ask = world.asks.pop_front().unwrap();
    let mut answer = ask.message.clone();
    answer[2] |= 0x80;
    answer.resize(3_000, 0);
    world.names.handle_upstream(ask.job, Ok(answer), world.now);
    world.collect();
    let answer = world.answer(number);
    assert!(answer.metadata.truncation && answer.answers.is_empty());
    // And one that does not come is a failure.
    let number = world.query("learning", "ad.school.local", RecordType::A);
    world.serve(|_, _| Err(NoAnswer::TimedOut));
    assert_eq!(world.answer(number).metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn other_servers_on_a_path_are_not_spoken_for_by_the_old_ones() {
    let mut world = World::settled();
    let query = world.query("learning", "www.example", RecordType::A);
    world.serve(servers);
    world.answer(query);
    world.change(|config| {
        config.paths.get_mut(&path("direct")).unwrap().servers = vec!["192.0.2.99".parse().unwrap()];
    });
    world.asks.clear();
    world.query("learning", "www.example", RecordType::A);
    assert_eq!(world.asks[0].servers, ["192.0.2.99".parse::<IpAddr>().unwrap()]);
}

#[test]
fn waiting_is_bounded_for_each_client_and_for_all() {
    let mut world = World::with(
        Limits { waiting: 6, waiting_per_client: 4, asking: 2, ..Limits::default() },
        Without::default(),
    );
    world.configure(config());
    world.asks.clear();
    let send = |world: &mut World, client: u8, number: u32| {
        let bytes = query(&format!("{number}.example"), RecordType::A).to_vec().unwrap();
        let client = IpAddr::from([10, 0, 0, client]);
        let query = world.names.handle_query(&zone("learning"), client, Transport::Udp, &bytes, world.now);
        world.collect();
        query
    };
    let first: Vec<_> = (0..5).map(|number| send(&mut world, 1, number)).collect();
    assert_eq!(first.iter().flatten().count(), 4, "one client");
    let second: Vec<_> = (10..14).filter_map(|number| send(&mut world, 2, number)).collect();
    let failed = second.iter().filter(|query| world.answers.contains_key(query)).count();
    assert_eq!(failed, 2, "all clients");
    // Everyone is answered in the end, and there is room again.
    world.pass(seconds(5));
    assert!(first.iter().flatten().chain(&second).all(|query| world.answers.contains_key(query)));
    assert!(send(&mut world, 1, 20).is_some());
}

#[test]
fn an_alias_to_a_named_service_leads_to_its_inside_address() {
    let led = |_: &Ask, question: &Message| {
        let mut message = reply(question);
        message.add_answer(alias("portal.example", 300, "step.example"));
        message.add_answer(alias("step.example", 20, "SAAS.example"));
        message.add_answer(alias("saas.example", 20, "edge.cdn.example"));
        message.add_answer(a("edge.cdn.example", 20, "203.0.113.10"));
        Ok(message)
    };
    let mut world = World::settled();
    let query = world.query("learning", "Portal.example", RecordType::A);
    world.serve(led);
    let answer = world.answer(query);
    let owners: Vec<String> = answer.answers.iter().map(|record| record.name.to_ascii()).collect();
    assert_eq!(owners, ["Portal.example.", "step.example.", "saas.example."]);
    assert_eq!(addresses(&answer), [IpAddr::V4(INSIDE4)]);
    // Its own path does not carry IPv6, whatever the zone's other names may have.
    let query = world.query("learning", "portal.example", RecordType::AAAA);
    world.serve(led);
    assert_eq!(addresses(&world.answer(query)), Vec::<IpAddr>::new());

    // Not before it is in force, and never without an end.
    let mut world = World::new();
    world.asks.clear();
    let query = world.query("learning", "portal.example", RecordType::A);
    world.serve(led);
    assert!(!world.answers.contains_key(&query));
    world.pass(seconds(5));
    assert_eq!(world.answer(query).metadata.response_code, ResponseCode::ServFail);
    world.pass(seconds(60));
    world.asks.clear();
    let query = world.query("learning", "portal.example", RecordType::A);
    world.pass(seconds(5));
    assert_eq!(
        world.answer(query).metadata.response_code,
        ResponseCode::ServFail,
        "the stale alias leads there too"
    );
}
