//! The decisions, driven by hand: a clock that stands until told, servers and an agent that answer when told.

mod hygiene;
mod named;
mod others;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use seimon_board::Instant;
use seimon_ipc::resolver::{
    Family6, Forward, FromResolver, NamedService, OwnName, PathUp, PathView, ResolverConfig, ToResolver,
    Transport, ZoneView,
};
use seimon_plan::{PathId, ZoneId};

use super::{Action, Ask, Limits, NoAnswer, Resolver, Without};

const SAAS: &str = "saas.example";
const INSIDE4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const INSIDE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 1);

fn path(id: &str) -> PathId {
    PathId::new(id).unwrap()
}

fn zone(id: &str) -> ZoneId {
    ZoneId::new(id).unwrap()
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).unwrap()
}

/// Closed line without IPv6, direct line with it; an allow-listed zone, and an open one with an AD domain.
fn config() -> ResolverConfig {
    let view = |server: &str, last: u8, ipv6| PathView {
        servers: vec![server.parse().unwrap()],
        source4: Ipv4Addr::new(10, 255, 0, last),
        source6: Ipv6Addr::new(0xfd00, 0xff, 0, 0, 0, 0, 0, last.into()),
        ipv6,
        up: PathUp::Up,
    };
    let service = NamedService {
        inside4: INSIDE4,
        inside6: INSIDE6,
        current: Some(path("closed")),
        paths: vec![path("closed"), path("direct")],
    };
    let services = BTreeMap::from([(SAAS.to_owned(), service)]);
    let forwards = vec![
        Forward {
            domain: "ad.school.local".into(),
            servers: vec!["192.168.1.10".parse().unwrap()],
            path: None,
        },
        Forward {
            domain: "1.168.192.in-addr.arpa".into(),
            servers: vec!["192.168.1.11".parse().unwrap()],
            path: None,
        },
        Forward {
            domain: "school.local".into(),
            servers: vec!["10.0.9.9".parse().unwrap()],
            path: Some(path("closed")),
        },
    ];
    ResolverConfig {
        paths: BTreeMap::from([
            (path("closed"), view("10.0.0.53", 1, Family6::Withheld)),
            (path("direct"), view("192.0.2.53", 2, Family6::Carried)),
        ]),
        zones: BTreeMap::from([
            (zone("affairs"), ZoneView { services: services.clone(), ..ZoneView::default() }),
            (
                zone("learning"),
                ZoneView { services, forwards, others: Some(path("direct")), ..ZoneView::default() },
            ),
        ]),
    }
}

struct World {
    names: Resolver,
    now: Instant,
    answers: BTreeMap<u64, Vec<u8>>,
    asks: VecDeque<Ask>,
    binds: VecDeque<FromResolver>,
}

impl World {
    fn unconfigured() -> Self {
        Self::with(Limits::default(), Without::default())
    }

    fn with(limits: Limits, without: Without) -> Self {
        let names = Resolver::new(limits, without);
        let (answers, asks, binds) = (BTreeMap::new(), VecDeque::new(), VecDeque::new());
        Self { names, now: Instant::from_millis(1_000_000), answers, asks, binds }
    }

    fn new() -> Self {
        let mut world = Self::unconfigured();
        world.configure(config());
        world
    }

    /// The named service looked up on both paths, and bound.
    fn settled() -> Self {
        let mut world = Self::new();
        world.serve(servers);
        world.agree();
        world
    }

    fn configure(&mut self, config: ResolverConfig) {
        self.names.handle_agent(ToResolver::Configure(config), self.now);
        self.collect();
    }

    fn change(&mut self, change: impl FnOnce(&mut ResolverConfig)) {
        let mut new = config();
        change(&mut new);
        self.configure(new);
    }

    fn collect(&mut self) {
        while let Some(action) = self.names.poll_action() {
            match action {
                Action::Answer { query, message } => {
                    assert!(self.answers.insert(query, message).is_none(), "answered twice");
                }
                Action::Ask(ask) => self.asks.push_back(ask),
                Action::Tell(word) => self.binds.push_back(word),
            }
        }
    }

    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.names.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.names.handle_timeout(self.now);
            self.collect();
        }
        self.now = end;
    }

    fn send(&mut self, zone_id: &str, transport: Transport, bytes: &[u8]) -> Option<u64> {
        let client = "10.1.0.77".parse().unwrap();
        let query = self.names.handle_query(&zone(zone_id), client, transport, bytes, self.now);
        self.collect();
        query
    }

    fn query(&mut self, zone: &str, text: &str, kind: RecordType) -> u64 {
        self.send(zone, Transport::Udp, &query(text, kind).to_vec().unwrap()).expect("an answer is coming")
    }

    /// The answer that must be there by now.
    fn answer(&mut self, query: u64) -> Message {
        Message::from_vec(&self.answers.remove(&query).expect("not answered")).unwrap()
    }

    fn ask(&mut self, zone: &str, text: &str, kind: RecordType) -> Message {
        let query = self.query(zone, text, kind);
        self.answer(query)
    }

    /// Answers all that is asked, until nothing more is.
    fn serve(&mut self, answer: impl Fn(&Ask, &Message) -> Result<Message, NoAnswer>) -> usize {
        let mut served = 0;
        while let Some(ask) = self.asks.pop_front() {
            let question = Message::from_vec(&ask.message).unwrap();
            let outcome = answer(&ask, &question).map(|answer| answer.to_vec().unwrap());
            self.names.handle_upstream(ask.job, outcome, self.now);
            self.collect();
            served += 1;
        }
        served
    }

    /// The agent brings everything in force.
    fn agree(&mut self) -> Vec<FromResolver> {
        let words: Vec<FromResolver> = self.binds.drain(..).collect();
        for word in &words {
            if let FromResolver::Bind { token, .. } = word {
                self.names.handle_agent(ToResolver::InForce { token: *token }, self.now);
            }
        }
        self.collect();
        words
    }
}

#[test]
fn the_gateways_own_names_are_answered_where_it_has_them_and_who_looks_for_a_pac_file_is_told_once() {
    let mut world = World::new();
    let own = OwnName { ipv4: Ipv4Addr::new(10, 20, 2, 1), ipv6: None };
    world.change(|config| {
        let view = config.zones.get_mut(&zone("learning")).unwrap();
        view.own = ["wpad", "wpad.school.local"].map(|name| (name.to_owned(), own.clone())).into();
    });
    world.asks.clear();
    for text in ["wpad", "WPAD.school.local"] {
        let answer = world.ask("learning", text, RecordType::A);
        assert_eq!(answer.answers[0].data.ip_addr(), Some(own.ipv4.into()), "{text}");
        assert!(world.ask("learning", text, RecordType::AAAA).answers.is_empty());
    }
    assert!(world.asks.is_empty(), "nobody else is asked");
    let refused = world.ask("affairs", "wpad", RecordType::A);
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
    let told =
        |world: &World| world.binds.iter().filter(|word| matches!(word, FromResolver::Wpad { .. })).count();
    assert_eq!(told(&world), 1, "the same client each time");
    world.pass(Duration::from_secs(601));
    world.ask("affairs", "wpad", RecordType::A);
    assert_eq!(told(&world), 2);
}

fn query(text: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message
}

fn reply(question: &Message) -> Message {
    let mut message = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    message.add_queries(question.queries.clone());
    message
}

fn a(owner: &str, ttl: u32, address: &str) -> Record {
    match address.parse().unwrap() {
        IpAddr::V4(address) => Record::from_rdata(name(owner), ttl, RData::A(address.into())),
        IpAddr::V6(address) => Record::from_rdata(name(owner), ttl, RData::AAAA(address.into())),
    }
}

fn alias(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

fn soa(owner: &str, ttl: u32, minimum: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::SOA(SOA::new(name("ns"), name("post"), 1, 1, 1, 1, minimum)))
}

/// Private addresses over the closed line, public ones over the direct line.
fn servers(ask: &Ask, question: &Message) -> Result<Message, NoAnswer> {
    let mut message = reply(question);
    let asked = question.queries[0].name.to_ascii();
    let asked = asked.trim_end_matches('.');
    let closed = ask.servers.contains(&"10.0.0.53".parse().unwrap());
    match (closed, question.queries[0].query_type) {
        (true, RecordType::A) => {
            message.add_answer(a(asked, 60, "10.50.0.1"));
        }
        (false, RecordType::A) => {
            message.add_answer(a(asked, 60, "203.0.113.10"));
        }
        (false, RecordType::AAAA) => {
            message.add_answer(a(asked, 60, "2001:db8::10"));
        }
        (true, RecordType::AAAA) => panic!("AAAA asked over a path without IPv6"),
        (_, _) => {
            message.add_authority(soa("example", 60, 60));
        }
    }
    Ok(message)
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    message.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

/// The extended DNS error in an answer.
fn ede(message: &Message) -> Option<u16> {
    use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
    let option = message.edns.as_ref()?.option(EdnsCode::from(15))?;
    let EdnsOption::Unknown(15, data) = option else { return None };
    Some(u16::from_be_bytes(*data.first_chunk()?))
}

fn is_no_data(message: &Message) -> bool {
    message.metadata.response_code == ResponseCode::NoError
        && message.answers.is_empty()
        && message.authorities.iter().any(|record| record.record_type() == RecordType::SOA)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
