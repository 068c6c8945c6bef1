//! What surrounds the resolver: clients, servers, the agent.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use seimon_ipc::frame::{self, LineBuffer};
use seimon_ipc::resolver::{
    Family6, FromResolver, LISTENERS_ENV, Listener, NamedService, PathUp, PathView, ResolverConfig,
    SOCKET_FD, ToResolver, Transport, ZoneView,
};
use seimon_plan::{PathId, ZoneId};

pub(crate) const SAAS: &str = "saas.example";
pub(crate) const INSIDE4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub(crate) const INSIDE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 1);
pub(crate) const CLOSED: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 53);
pub(crate) const DIRECT: Ipv4Addr = Ipv4Addr::new(127, 2, 0, 53);

/// Longest that anything here may take; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn path(id: &str) -> PathId {
    PathId::new(id).expect("an identifier")
}

pub(crate) fn zone(id: &str) -> ZoneId {
    ZoneId::new(id).expect("an identifier")
}

/// One zone, open over the direct path, its service on the closed one.
pub(crate) fn config() -> ResolverConfig {
    let view = |server: Ipv4Addr, source, ipv6| PathView {
        servers: vec![server.into()],
        source4: source,
        source6: Ipv6Addr::LOCALHOST,
        ipv6,
        up: PathUp::Up,
    };
    let service = NamedService {
        inside4: INSIDE4,
        inside6: INSIDE6,
        current: Some(path("closed")),
        paths: vec![path("closed"), path("direct")],
    };
    let zone_view = ZoneView {
        services: BTreeMap::from([(SAAS.to_owned(), service)]),
        forwards: Vec::new(),
        others: Some(path("direct")),
        own: BTreeMap::new(),
    };
    ResolverConfig {
        paths: BTreeMap::from([
            (path("closed"), view(CLOSED, Ipv4Addr::new(127, 1, 0, 1), Family6::Withheld)),
            (path("direct"), view(DIRECT, Ipv4Addr::new(127, 2, 0, 1), Family6::Carried)),
        ]),
        zones: BTreeMap::from([(zone("affairs"), zone_view)]),
    }
}

pub(crate) struct Resolver {
    pub(crate) child: Child,
    agent: UnixStream,
    lines: LineBuffer,
    pub(crate) udp: SocketAddr,
    pub(crate) tcp: SocketAddr,
}

impl Resolver {
    /// Starts the program, and waits for its first word.
    pub(crate) fn start() -> Self {
        Self::start_without("")
    }

    /// Started with mechanisms switched off, where the build knows how.
    pub(crate) fn start_without(mechanisms: &str) -> Self {
        let (agent, theirs) = UnixStream::pair().expect("a socket pair");
        agent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a TCP socket");
        let (udp_at, tcp_at) = (udp.local_addr().expect("an address"), tcp.local_addr().expect("an address"));
        let listener = |fd, protocol, address| Listener { fd, zone: zone("affairs"), protocol, address };
        let listeners = [listener(4, Transport::Udp, udp_at), listener(5, Transport::Tcp, tcp_at)];
        let mut command = Command::new(env!("CARGO_BIN_EXE_seimon-resolver"));
        command
            .env("SEIMON_WITHOUT", mechanisms)
            .env(LISTENERS_ENV, serde_json::to_string(&listeners).expect("JSON"))
            .fd_mappings(vec![
                FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: SOCKET_FD },
                FdMapping { parent_fd: OwnedFd::from(udp), child_fd: 4 },
                FdMapping { parent_fd: OwnedFd::from(tcp), child_fd: 5 },
            ])
            .expect("three numbers");
        let child = command.spawn().expect("the resolver starts");
        // The command holds our copies of its sockets.
        drop(command);
        let mut resolver = Self { child, agent, lines: LineBuffer::default(), udp: udp_at, tcp: tcp_at };
        assert!(matches!(resolver.hear(), FromResolver::Hello { version: 1 }));
        resolver
    }

    pub(crate) fn tell(&mut self, message: &ToResolver) {
        self.agent.write_all(&frame::encode(message).expect("a line")).expect("the resolver listens");
    }

    pub(crate) fn configure(&mut self, config: ResolverConfig) {
        self.tell(&ToResolver::Configure(config));
    }

    /// The next word but for statistics.
    pub(crate) fn hear(&mut self) -> FromResolver {
        let mut bytes = [0; 4096];
        loop {
            if let Some(line) = self.lines.next_line().expect("a line") {
                let word: FromResolver = frame::decode(&line).expect("a word");
                if !matches!(word, FromResolver::Stats(_)) {
                    return word;
                }
                continue;
            }
            let length = self.agent.read(&mut bytes).expect("the resolver speaks in time");
            assert!(length > 0, "the resolver ended");
            self.lines.push(&bytes[..length]);
        }
    }

    /// Hears binds until every path given has one; gives back (token, real addresses).
    pub(crate) fn hear_binds(&mut self, paths: &[&str]) -> BTreeMap<String, Bind> {
        let mut binds = BTreeMap::new();
        while paths.iter().any(|path| !binds.contains_key(*path)) {
            if let FromResolver::Bind { token, path, ipv4, ipv6, .. } = self.hear() {
                binds.insert(path.as_str().to_owned(), Bind { token, ipv4, ipv6 });
            }
        }
        binds
    }

    /// Configured, and everything in force.
    pub(crate) fn settle(&mut self) {
        self.configure(config());
        for bind in self.hear_binds(&["closed", "direct"]).into_values() {
            self.tell(&ToResolver::InForce { token: bind.token });
        }
    }

    pub(crate) fn client(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(self.udp).expect("a peer");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    }

    pub(crate) fn ask(&self, text: &str, kind: RecordType) -> Message {
        let client = self.client();
        client.send(&query(7, text, kind)).expect("sent");
        receive(&client)
    }

    /// The program's memory, in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a status");
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
            .expect("VmRSS")
    }

    pub(crate) fn status(&self) -> BTreeMap<String, String> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a status");
        status
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect()
    }

    /// Ends the agent's side, and waits for the program to follow.
    pub(crate) fn hang_up(mut self) -> std::process::ExitStatus {
        self.agent.shutdown(std::net::Shutdown::Both).expect("a socket");
        let mut child = std::mem::replace(&mut self.child, Command::new("true").spawn().expect("true"));
        child.wait().expect("a child")
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) token: u64,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

pub(crate) fn query(id: u16, text: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{text}.")).expect("a name"), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message.to_vec().expect("a message")
}

pub(crate) fn receive(client: &UdpSocket) -> Message {
    let mut bytes = [0; 65_535];
    let length = client.recv(&mut bytes).expect("an answer in time");
    Message::from_vec(&bytes[..length]).expect("a message")
}

pub(crate) fn read_tcp(stream: &mut TcpStream) -> Message {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer in time");
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).expect("a whole answer");
    Message::from_vec(&bytes).expect("a message")
}

pub(crate) fn addresses(message: &Message) -> Vec<IpAddr> {
    message.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

pub(crate) fn reply(question: &Message) -> Message {
    let mut message = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    message.add_queries(question.queries.clone());
    message
}

pub(crate) fn with_address(question: &Message, ttl: u32, address: &str) -> Message {
    let mut message = reply(question);
    let data = match address.parse().expect("an address") {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    };
    message.add_answer(Record::from_rdata(question.queries[0].name.clone(), ttl, data));
    message
}

/// What a server does with a question that came over UDP (`true`) or TCP: datagrams to send, in order.
type Behaviour = dyn FnMut(&Message, bool, SocketAddr) -> Vec<Vec<u8>> + Send;

/// A name server on port 53 of a loopback address, on threads that live as long as the process.
#[derive(Clone)]
pub(crate) struct Server {
    behaviour: Arc<Mutex<Box<Behaviour>>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn start(
        address: Ipv4Addr,
        behaviour: impl FnMut(&Message, bool, SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let server = Self { behaviour: Arc::new(Mutex::new(Box::new(behaviour))), asked: Arc::default() };
        let udp = UdpSocket::bind((address, 53)).expect("port 53");
        let tcp = TcpListener::bind((address, 53)).expect("port 53");
        let over_udp = server.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok((length, client)) = udp.recv_from(&mut bytes) {
                let Ok(question) = Message::from_vec(&bytes[..length]) else { continue };
                for datagram in over_udp.answer(&question, true, client) {
                    udp.send_to(&datagram, client).expect("sent");
                }
            }
        });
        let over_tcp = server.clone();
        std::thread::spawn(move || {
            while let Ok((mut stream, client)) = tcp.accept() {
                let question = read_tcp(&mut stream);
                for message in over_tcp.answer(&question, false, client) {
                    let length = u16::try_from(message.len()).expect("a message");
                    stream.write_all(&length.to_be_bytes()).expect("sent");
                    stream.write_all(&message).expect("sent");
                }
            }
        });
        server
    }

    /// Answers A and AAAA with these, other types with nothing.
    pub(crate) fn plain(address: Ipv4Addr, ttl: u32, ipv4: &'static str, ipv6: &'static str) -> Self {
        Self::start(address, move |question, _, _| {
            let kind = question.queries[0].query_type;
            let message = if kind == RecordType::A {
                with_address(question, ttl, ipv4)
            } else if kind == RecordType::AAAA {
                with_address(question, ttl, ipv6)
            } else {
                reply(question)
            };
            vec![message.to_vec().expect("a message")]
        })
    }

    fn answer(&self, question: &Message, udp: bool, client: SocketAddr) -> Vec<Vec<u8>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        (self.behaviour.lock().expect("no panic in a server"))(question, udp, client)
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn become_silent(&self) {
        *self.behaviour.lock().expect("no panic in a server") = Box::new(|_, _, _| Vec::new());
    }
}
