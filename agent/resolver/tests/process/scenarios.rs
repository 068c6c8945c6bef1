use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use seimon_ipc::resolver::{Family6, ToResolver};

use crate::in_namespace;
use crate::world::{
    CLOSED, DIRECT, INSIDE4, INSIDE6, Resolver, SAAS, Server, addresses, config, path, query, read_tcp,
    receive, reply, with_address, zone,
};

fn two_servers() -> (Server, Server) {
    (
        Server::plain(CLOSED, 60, "10.50.0.1", "2001:db8::bad"),
        Server::plain(DIRECT, 60, "203.0.113.10", "2001:db8::10"),
    )
}

#[test]
fn an_answer_does_not_leave_before_it_is_in_force() {
    if !in_namespace("scenarios::an_answer_does_not_leave_before_it_is_in_force") {
        return;
    }
    let _servers = two_servers();
    let mut resolver = Resolver::start();
    resolver.configure(config());
    let client = resolver.client();
    client.send(&query(1, SAAS, RecordType::A)).unwrap();
    let binds = resolver.hear_binds(&["closed", "direct"]);
    assert_eq!(binds["closed"].ipv4, Some("10.50.0.1".parse().unwrap()));
    assert_eq!((binds["closed"].ipv6, binds["direct"].ipv6), (None, Some("2001:db8::10".parse().unwrap())));
    assert_eq!(binds["direct"].ipv4, Some("203.0.113.10".parse().unwrap()));
    resolver.tell(&ToResolver::InForce { token: binds["direct"].token });
    let later = resolver.client();
    later.send(&query(2, SAAS, RecordType::A)).unwrap();
    // A later question that is answered proves that the earlier one is being held back, not slow.
    assert_eq!(resolver.ask(SAAS, RecordType::HTTPS).metadata.response_code, ResponseCode::NoError);
    for client in [&client, &later] {
        client.set_nonblocking(true).unwrap();
        assert!(client.recv(&mut [0; 512]).is_err(), "answered before it was in force");
        client.set_nonblocking(false).unwrap();
    }
    resolver.tell(&ToResolver::InForce { token: binds["closed"].token });
    assert_eq!(addresses(&receive(&client)), [IpAddr::V4(INSIDE4)]);
    assert_eq!(addresses(&receive(&later)), [IpAddr::V4(INSIDE4)]);
    assert!(addresses(&resolver.ask(SAAS, RecordType::AAAA)).is_empty(), "no IPv6 on the closed line");
    // Moved: the same address at once, and IPv6 as well.
    let mut moved = config();
    moved.zones.get_mut(&zone("affairs")).unwrap().services.get_mut(SAAS).unwrap().current =
        Some(path("direct"));
    resolver.configure(moved);
    let patience = Instant::now() + Duration::from_secs(5);
    while addresses(&resolver.ask(SAAS, RecordType::AAAA)) != [IpAddr::V6(INSIDE6)] {
        assert!(Instant::now() < patience, "the move was not heard");
    }
    assert_eq!(addresses(&resolver.ask(SAAS, RecordType::A)), [IpAddr::V4(INSIDE4)]);
}

#[test]
fn each_path_is_asked_from_its_own_source_address() {
    if !in_namespace("scenarios::each_path_is_asked_from_its_own_source_address") {
        return;
    }
    let sources = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    for address in [CLOSED, DIRECT] {
        let sources = sources.clone();
        Server::start(address, move |question, _, client| {
            sources.lock().unwrap().push((address, client));
            vec![with_address(question, 60, "192.0.2.9").to_vec().unwrap()]
        });
    }
    let mut resolver = Resolver::start();
    let mut config = config();
    config.paths.get_mut(&path("direct")).unwrap().ipv6 = Family6::Withheld;
    resolver.configure(config);
    resolver.hear_binds(&["closed", "direct"]);
    for number in 0..20 {
        resolver.ask(&format!("{number}.example"), RecordType::A);
    }
    let sources = sources.lock().unwrap();
    let mut ports = std::collections::BTreeSet::new();
    for (server, client) in sources.iter() {
        let [_, path, ..] = server.octets();
        assert_eq!(client.ip(), IpAddr::from([127, path, 0, 1]));
        ports.insert(client.port());
    }
    assert!(ports.len() >= 18, "ports repeat: {ports:?}");
}

#[test]
fn an_outage_is_bridged_with_what_was_known() {
    if !in_namespace("scenarios::an_outage_is_bridged_with_what_was_known") {
        return;
    }
    let closed = Server::plain(CLOSED, 1, "10.50.0.1", "2001:db8::bad");
    let direct = Server::plain(DIRECT, 1, "203.0.113.10", "2001:db8::10");
    let mut resolver = Resolver::start();
    resolver.settle();
    assert_eq!(addresses(&resolver.ask("www.example", RecordType::A)).len(), 1);
    closed.become_silent();
    direct.become_silent();
    let fresh = Instant::now();
    let mut answer = resolver.ask("www.example", RecordType::A);
    while answer.answers[0].ttl != 30 {
        assert!(fresh.elapsed() < Duration::from_secs(8), "never stale");
        answer = resolver.ask("www.example", RecordType::A);
    }
    assert_eq!(addresses(&answer), ["203.0.113.10".parse::<IpAddr>().unwrap()]);
    // The service's refresh fails as well; it stays.
    assert_eq!(addresses(&resolver.ask(SAAS, RecordType::A)), [IpAddr::V4(INSIDE4)]);
    let begun = Instant::now();
    let answer = resolver.ask("never-heard-of.example", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(begun.elapsed() < Duration::from_secs(5), "failure in time: {:?}", begun.elapsed());
}

#[test]
fn forged_answers_are_waited_past_and_odd_servers_are_got_along_with() {
    if !in_namespace("scenarios::forged_answers_are_waited_past_and_odd_servers_are_got_along_with") {
        return;
    }
    let _closed = Server::plain(CLOSED, 60, "10.50.0.1", "2001:db8::bad");
    let _direct = Server::start(DIRECT, |question, udp, _| {
        let good = with_address(question, 60, "203.0.113.10").to_vec().unwrap();
        let forged = |change: &dyn Fn(&mut hickory_proto::op::Message)| {
            let mut message = with_address(question, 60, "203.0.113.66");
            change(&mut message);
            message.to_vec().unwrap()
        };
        let other_id = forged(&|message| message.metadata.id ^= 1);
        let other_name =
            forged(&|message| message.queries[0].name = Name::from_ascii("bank.example.").unwrap());
        let no_case = forged(&|message| {
            message.queries[0].name = message.queries[0].name.to_lowercase();
        });
        if question.edns.is_some() && question.queries[0].name.to_lowercase().to_ascii().starts_with("old") {
            // What servers from before EDNS say: the header, and nothing else.
            let [high, low] = question.metadata.id.to_be_bytes();
            return vec![vec![high, low, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]];
        }
        let loses_case = question.queries[0].name.to_lowercase().to_ascii().starts_with("lower");
        match (udp, loses_case) {
            (true, false) => vec![other_id, other_name, b"noise".to_vec(), good],
            // A long name: that all its letters keep their case by chance is out of the question.
            (true, true) => vec![no_case],
            (false, _) => vec![good],
        }
    });
    let mut resolver = Resolver::start();
    resolver.configure(config());
    let real = ["203.0.113.10".parse::<IpAddr>().unwrap()];
    assert_eq!(addresses(&resolver.ask("www.example", RecordType::A)), real);
    let long = "lowerlowerlowerlowerlowerlowerlowerlower.example";
    assert_eq!(addresses(&resolver.ask(long, RecordType::A)), real);
    assert_eq!(addresses(&resolver.ask("old.example", RecordType::A)), real);
}

#[test]
fn long_answers_come_over_tcp_on_both_sides() {
    if !in_namespace("scenarios::long_answers_come_over_tcp_on_both_sides") {
        return;
    }
    let _closed = Server::plain(CLOSED, 60, "10.50.0.1", "2001:db8::bad");
    let _direct = Server::start(DIRECT, |question, udp, _| {
        let mut message = reply(question);
        if udp {
            message.metadata.truncation = true;
        } else {
            for number in 0..200 {
                let one = with_address(question, 60, &format!("203.0.113.{number}"));
                message.add_answers(one.answers);
            }
        }
        vec![message.to_vec().unwrap()]
    });
    let mut resolver = Resolver::start();
    resolver.configure(config());
    let answer = resolver.ask("many.example", RecordType::A);
    assert!(answer.metadata.truncation && answer.answers.is_empty());
    // Several queries in one go, answered as they come.
    let mut stream = TcpStream::connect(resolver.tcp).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut bytes = Vec::new();
    for id in 1..=5 {
        let query = query(id, "many.example", RecordType::A);
        bytes.extend(u16::try_from(query.len()).unwrap().to_be_bytes());
        bytes.extend(query);
    }
    let (head, tail) = bytes.split_at(30);
    stream.write_all(head).unwrap();
    stream.write_all(tail).unwrap();
    let ids: std::collections::BTreeSet<u16> = (0..5)
        .map(|_| {
            let answer = read_tcp(&mut stream);
            assert_eq!(answer.answers.len(), 200);
            answer.metadata.id
        })
        .collect();
    assert_eq!(ids, (1..=5).collect());
}

#[test]
fn the_process_holds_no_privilege_and_ends_with_the_agent() {
    if !in_namespace("scenarios::the_process_holds_no_privilege_and_ends_with_the_agent") {
        return;
    }
    let mut resolver = Resolver::start();
    // Words that it will never read do not make it linger.
    resolver.configure(config());
    let status = resolver.status();
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status[set].trim_start_matches('0'), "", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["Threads"], "1");
    assert!(resolver.hang_up().success());
}

#[test]
fn nonsense_from_clients_leaves_it_running() {
    if !in_namespace("scenarios::nonsense_from_clients_leaves_it_running") {
        return;
    }
    let _servers = two_servers();
    let mut resolver = Resolver::start();
    resolver.settle();
    let client = resolver.client();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    for length in 0..300_usize {
        let bytes: Vec<u8> = (0..length).map(|_| random()).collect();
        client.send(&bytes).unwrap();
    }
    for _ in 0..20 {
        let mut stream = TcpStream::connect(resolver.tcp).unwrap();
        let bytes: Vec<u8> = (0..500).map(|_| random()).collect();
        // It may hang up in the middle.
        let _ = stream.write_all(&bytes);
    }
    let patience = Instant::now() + Duration::from_secs(5);
    while addresses(&resolver.ask(SAAS, RecordType::A)) != [IpAddr::V4(INSIDE4)] {
        assert!(Instant::now() < patience);
    }
    assert!(resolver.child.try_wait().unwrap().is_none());
}

/// Prints what the build at hand reaches; the bound on memory is for release.
#[test]
fn ten_thousand_names_fit() {
    if !in_namespace("scenarios::ten_thousand_names_fit") {
        return;
    }
    let _closed = Server::plain(CLOSED, 60, "10.50.0.1", "2001:db8::bad");
    let direct = Server::plain(DIRECT, 3600, "203.0.113.10", "2001:db8::10");
    let mut resolver = Resolver::start();
    resolver.settle();
    let idle = resolver.rss_kib();
    let client = resolver.client();
    let mut answered: BTreeMap<usize, usize> = BTreeMap::new();
    for round in 0..2 {
        let begun = Instant::now();
        for batch in 0..200_u16 {
            for number in 0..50_u16 {
                let text = format!("host-{}.a-rather-usual-domain.example", batch * 50 + number);
                client.send(&query(number, &text, RecordType::A)).unwrap();
            }
            for _ in 0..50 {
                *answered.entry(round).or_default() += addresses(&receive(&client)).len();
            }
        }
        eprintln!("round {round}: {:.0} queries/s", 10_000.0 / begun.elapsed().as_secs_f64());
    }
    let full = resolver.rss_kib();
    eprintln!("memory: {idle} KiB idle, {full} KiB with 10,000 names");
    assert_eq!(answered, BTreeMap::from([(0, 10_000), (1, 10_000)]));
    assert!(direct.asked() < 10_100, "the second round came from the cache: {}", direct.asked());
    if !cfg!(debug_assertions) {
        assert!(full < 24 * 1024, "{full} KiB");
    }
}

#[test]
fn mechanisms_can_be_switched_off_only_in_builds_for_tests() {
    if !in_namespace("scenarios::mechanisms_can_be_switched_off_only_in_builds_for_tests") {
        return;
    }
    let _servers = two_servers();
    let mut resolver = Resolver::start_without("affinity,inside-address,aaaa-withhold");
    resolver.settle();
    let real: [IpAddr; 2] = ["10.50.0.1".parse().unwrap(), "2001:db8::bad".parse().unwrap()];
    let off = cfg!(feature = "sabotage");
    let answer = resolver.ask(SAAS, RecordType::A);
    assert_eq!(addresses(&answer), [if off { real[0] } else { IpAddr::V4(INSIDE4) }]);
    let answer = resolver.ask(SAAS, RecordType::AAAA);
    assert_eq!(addresses(&answer), if off { vec![real[1]] } else { vec![] });
}
