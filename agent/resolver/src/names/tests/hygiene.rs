use super::*;
use crate::names::upstream::{self, Received};
use hickory_proto::rr::DNSClass;
use proptest::prelude::*;

fn response_code(bytes: &[u8]) -> u8 {
    bytes[3] & 0x0f
}

#[test]
fn what_is_no_question_is_refused_with_the_clients_id() {
    let good = query(SAAS, RecordType::A).to_vec().unwrap();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let mut world = World::settled();
    for (what, bytes, code) in [
        ("update", with(&|b| b[2] = 0x28), 4),
        ("unknown operation", with(&|b| b[2] = 0x38), 4),
        ("no question", with(&|b| b[5] = 0), 1),
        ("two questions", with(&|b| b[5] = 2), 1),
        ("65535 questions", with(&|b| b[4..6].fill(0xff)), 1),
        ("cut in the question", good[..15].to_vec(), 1),
        ("a name that points at itself", with(&|b| b[12..14].copy_from_slice(&[0xc0, 12])), 1),
        ("a record that is not there", with(&|b| b[7] = 1), 1),
        (
            "two EDNS records",
            with(&|b| {
                b[11] = 2;
                let opt = b[b.len() - 11..].to_vec();
                b.extend(opt);
            }),
            1,
        ),
    ] {
        let number = world.send("affairs", Transport::Udp, &bytes).unwrap_or_else(|| panic!("{what}"));
        let answer = world.answers.remove(&number).unwrap();
        assert_eq!(answer[..2], good[..2], "{what}");
        assert_eq!((answer[2] & 0x80, response_code(&answer)), (0x80, code), "{what}");
    }
    for silent in [&good[..11], &with(&|b| b[2] |= 0x80), &[]] {
        assert_eq!(world.send("affairs", Transport::Udp, silent), None);
    }
    assert!(world.names.stats().malformed >= 12);
}

#[test]
fn classes_and_edns_versions_that_we_do_not_speak_are_told_so() {
    let mut world = World::settled();
    let mut chaos = query("version.bind", RecordType::TXT);
    chaos.queries[0].query_class = DNSClass::CH;
    let number = world.send("learning", Transport::Udp, &chaos.to_vec().unwrap()).unwrap();
    assert_eq!(world.answer(number).metadata.response_code, ResponseCode::Refused);
    let mut newer = query(SAAS, RecordType::A);
    newer.edns.as_mut().unwrap().set_version(1);
    let number = world.send("affairs", Transport::Udp, &newer.to_vec().unwrap()).unwrap();
    let answer = world.answer(number);
    // Version 1 and its extended code 16 are read back as such.
    assert_eq!(answer.edns.as_ref().unwrap().rcode_high(), 1);
    assert_eq!(answer.edns.as_ref().unwrap().version(), 0);
}

#[test]
fn an_answer_repeats_the_question_and_says_what_we_are() {
    let mut world = World::settled();
    let mut asked = query("SaaS.exAMPLE", RecordType::A);
    asked.edns.as_mut().unwrap().set_dnssec_ok(true);
    let number = world.send("affairs", Transport::Udp, &asked.to_vec().unwrap()).unwrap();
    let answer = world.answer(number);
    assert_eq!(answer.metadata.id, 4711);
    assert_eq!(answer.queries[0].name.to_ascii(), "SaaS.exAMPLE.");
    assert_eq!(answer.answers[0].name.to_ascii(), "SaaS.exAMPLE.");
    assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
    assert!(!answer.metadata.authoritative && !answer.metadata.authentic_data);
    let edns = answer.edns.unwrap();
    assert!(edns.flags().dnssec_ok);
    assert_eq!(edns.max_payload(), 1232);
    asked.edns = None;
    let number = world.send("affairs", Transport::Udp, &asked.to_vec().unwrap()).unwrap();
    assert_eq!(world.answer(number).edns, None, "OPT only for those who sent one");
}

#[test]
fn what_does_not_fit_is_cut_and_marked_and_fits_over_tcp() {
    let mut world = World::settled();
    let many = |_: &Ask, question: &Message| {
        let mut message = reply(question);
        for n in 0..100 {
            message.add_answer(a("many.example", 60, &format!("203.0.113.{n}")));
        }
        Ok(message)
    };
    for (payload, transport, whole) in [
        (None, Transport::Udp, false),
        (Some(100), Transport::Udp, false),
        (Some(1_232), Transport::Udp, false),
        (Some(65_535), Transport::Udp, false),
        (Some(1_232), Transport::Tcp, true),
        (None, Transport::Tcp, true),
    ] {
        let mut asked = query("many.example", RecordType::A);
        match payload {
            None => asked.edns = None,
            Some(payload) => _ = asked.edns.as_mut().unwrap().set_max_payload(payload),
        }
        let number = world.send("learning", transport, &asked.to_vec().unwrap()).unwrap();
        world.serve(many);
        let bytes = world.answers.remove(&number).unwrap();
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!(answer.metadata.truncation, !whole, "{payload:?}");
        assert_eq!(answer.answers.len(), if whole { 100 } else { 0 }, "{payload:?}");
        assert!(
            transport == Transport::Tcp
                || bytes.len() <= usize::from(payload.unwrap_or(512).clamp(512, 1_232))
        );
    }
}

#[test]
fn only_the_answer_to_our_question_is_looked_at() {
    let mut sent = upstream::query(&name("www.example"), RecordType::A, upstream::Flags::default());
    let mut flip = 0_u8;
    upstream::disguise(&mut sent, 0x1234, || {
        flip = flip.wrapping_add(1);
        flip
    });
    assert_eq!(&sent[12..25], b"\x03WwW\x07eXaMpLe\0");
    let question = Message::from_vec(&sent).unwrap();
    let good = {
        let mut message = reply(&question);
        message.add_answer(a("www.example", 60, "203.0.113.1"));
        message.to_vec().unwrap()
    };
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    for (what, bytes, received) in [
        ("good", good.clone(), Received::Answer),
        ("another id", with(&|b| b[0] ^= 1), Received::Ignore),
        ("a query", with(&|b| b[2] &= 0x7f), Received::Ignore),
        ("another operation", with(&|b| b[2] |= 0x20), Received::Ignore),
        ("another name", with(&|b| b[13] = b'x'), Received::Ignore),
        ("another type", with(&|b| b[26] = 28), Received::Ignore),
        ("no question", with(&|b| b[5] = 0), Received::Ignore),
        ("short", good[..20].to_vec(), Received::Ignore),
        ("nothing", vec![], Received::Ignore),
        ("another case", with(&|b| b[13] ^= 0x20), Received::CaseLost),
        ("truncated", with(&|b| b[2] |= 2), Received::Truncated),
        ("a failure", with(&|b| b[3] |= 2), Received::Ill),
        ("refused", with(&|b| b[3] |= 5), Received::Ill),
        ("not understood", with(&|b| b[3] |= 1), Received::Plainer),
        (
            "not understood, header only",
            vec![0x12, 0x34, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0],
            Received::Plainer,
        ),
        ("the same, another id", vec![0x12, 0x35, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0], Received::Ignore),
        ("no such name", with(&|b| b[3] |= 3), Received::Answer),
        ("cut", good[..good.len() - 3].to_vec(), Received::Ill),
    ] {
        assert_eq!(upstream::judge(&sent, &bytes), received, "{what}");
    }
}

#[test]
fn signatures_come_only_to_those_who_ask_for_them() {
    let signature = |owner: &str| {
        let rdata = hickory_proto::rr::rdata::NULL::with(vec![0, 1, 8, 2, 0, 0, 0, 60]);
        Record::from_rdata(name(owner), 60, RData::Unknown { code: RecordType::RRSIG, rdata })
    };
    for wanted in [false, true] {
        let mut world = World::settled();
        let mut asked = query("www.example", RecordType::A);
        asked.edns.as_mut().unwrap().set_dnssec_ok(wanted);
        let number = world.send("learning", Transport::Udp, &asked.to_vec().unwrap()).unwrap();
        let forwarded = Message::from_vec(&world.asks[0].message).unwrap();
        assert_eq!(forwarded.edns.unwrap().flags().dnssec_ok, wanted);
        world.serve(|_, question| {
            let mut message = reply(question);
            message.add_answer(a("www.example", 60, "203.0.113.1"));
            message.add_answer(signature("www.example"));
            Ok(message)
        });
        assert_eq!(world.answer(number).answers.len(), if wanted { 2 } else { 1 });
    }
}

#[test]
fn a_plain_query_is_the_same_without_edns() {
    let mut bytes = upstream::query(&name("www.example"), RecordType::A, upstream::Flags::default());
    let whole = Message::from_vec(&bytes).unwrap();
    upstream::plain(&mut bytes);
    let plain = Message::from_vec(&bytes).unwrap();
    assert!(whole.edns.is_some() && plain.edns.is_none());
    assert_eq!(plain.queries, whole.queries);
}

/// Bytes that look like a message to a varying depth.
fn nearly_messages() -> impl Strategy<Value = Vec<u8>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..600);
    let seeds = prop_oneof![
        Just(query(SAAS, RecordType::A)),
        Just(query("www.example", RecordType::ANY)),
        Just(query("x.ad.school.local", RecordType::SRV)),
        Just(query("www.example", RecordType::AAAA)),
    ];
    let flips = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let bent =
        (seeds, flips, any::<Option<prop::sample::Index>>(), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(seed, flips, cut, tail)| {
                let mut bytes = seed.to_vec().unwrap();
                for (at, value) in flips {
                    let at = at.index(bytes.len());
                    bytes[at] = value;
                }
                if let Some(cut) = cut {
                    bytes.truncate(cut.index(bytes.len()));
                }
                bytes.extend(tail);
                bytes
            });
    prop_oneof![noise, bent.clone(), bent]
}

#[test]
fn an_empty_datagram_from_a_forward_zones_server_is_a_failure_and_no_answer() {
    let mut world = World::settled();
    let bytes = query("x.ad.school.local", RecordType::SRV).to_vec().unwrap();
    let number = world.send("learning", Transport::Udp, &bytes).expect("a question");
    let ask = world.asks.pop_front().expect("asked of the forward zone's server");
    world.names.handle_upstream(ask.job, Ok(Vec::new()), world.now);
    world.collect();
    let answer = Message::from_vec(&world.answers.remove(&number).expect("answered")).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_from_clients_or_servers_do_harm(
        messages in proptest::collection::vec((nearly_messages(), any::<bool>()), 1..6),
        answers in proptest::collection::vec(nearly_messages(), 1..6),
    ) {
        let mut world = World::settled();
        for (bytes, tcp) in &messages {
            let transport = if *tcp { Transport::Tcp } else { Transport::Udp };
            let number = world.send("learning", transport, bytes);
            for answer in &answers {
                if let Some(ask) = world.asks.pop_front() {
                    let mut answer = answer.clone();
                    // Half of them with the right question.
                    if answer.len() % 2 == 0 && answer.len() > ask.message.len() {
                        answer[..ask.message.len()].copy_from_slice(&ask.message);
                        answer[2] |= 0x80;
                    }
                    let _ = upstream::judge(&ask.message, &answer);
                    let _ = upstream::judge_raw(&ask.message, &answer);
                    world.names.handle_upstream(ask.job, Ok(answer), world.now);
                    world.collect();
                }
            }
            world.pass(seconds(5));
            if let Some(number) = number {
                let answer = world.answers.remove(&number).expect("every number is answered");
                prop_assert!(!answer.is_empty());
                if !*tcp {
                    prop_assert!(answer.len() <= 1_232, "{} bytes", answer.len());
                    let Ok(asked) = Message::from_vec(bytes) else { prop_assert!(answer.len() <= 512); continue };
                    let limit = asked.edns.map_or(512, |edns| edns.max_payload().clamp(512, 1_232));
                    prop_assert!(answer.len() <= usize::from(limit));
                }
            }
        }
        // The service in force is still answered, with its inside address and nothing else.
        let answer = world.ask("affairs", SAAS, RecordType::A);
        prop_assert_eq!(addresses(&answer), vec![IpAddr::V4(INSIDE4)]);
    }
}
