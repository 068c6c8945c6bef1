//! `--resolve NAME`: the addresses of a tunnel's far end, asked for over the tunnel's line.
//!
//! The agent opens the sockets, one a server, connected and marked for the line, and hands them over from descriptor 3
//! on; it reads one address a line. Answers are taken apart here, where there is nothing to be won.

use std::error::Error;
use std::io::{self, Write as _};
use std::net::UdpSocket;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use crate::confine;

const FIRST_FD: RawFd = 3;
const MOST_SERVERS: RawFd = 8;
/// For one server to answer.
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST: usize = 4096;

/// Says what it finds of either kind; an error only where nothing is found.
pub(crate) fn run(name: &str) -> Result<(), Box<dyn Error>> {
    let servers: Vec<UdpSocket> = (FIRST_FD..FIRST_FD + MOST_SERVERS)
        .map_while(|number| crate::inherited(number).ok())
        .map(UdpSocket::from)
        .collect();
    confine::confine()?;
    let mut name = Name::from_ascii(name)?;
    name.set_fqdn(true);
    let mut last: Box<dyn Error> = "no server".into();
    for server in &servers {
        let mut found = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            match ask(server, &name, kind) {
                Ok(addresses) => found.extend(addresses),
                Err(error) => last = error,
            }
        }
        if !found.is_empty() {
            let mut out = io::stdout().lock();
            for address in found {
                writeln!(out, "{address}")?;
            }
            return Ok(());
        }
    }
    Err(last)
}

fn ask(server: &UdpSocket, name: &Name, kind: RecordType) -> Result<Vec<std::net::IpAddr>, Box<dyn Error>> {
    let id = u16::from_ne_bytes(random()?);
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    server.send(&question.to_vec()?)?;
    let until = Instant::now() + PATIENCE;
    let mut buffer = [0; LONGEST];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("no answer".into());
        }
        server.set_read_timeout(Some(left))?;
        let length = match server.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        // Whatever is not the answer to our question is somebody else's, or a forgery: waited on for.
        let Ok(answer) = Message::from_vec(&buffer[..length]) else { continue };
        let asked = answer.queries.first();
        let ours = answer.metadata.id == id
            && answer.metadata.message_type == MessageType::Response
            && asked.is_some_and(|query| query.name() == name && query.query_type() == kind);
        if !ours {
            continue;
        }
        return addresses(&answer);
    }
}

fn addresses(answer: &Message) -> Result<Vec<std::net::IpAddr>, Box<dyn Error>> {
    if answer.metadata.response_code != ResponseCode::NoError {
        return Err(format!("the server says {}", answer.metadata.response_code).into());
    }
    let found: Vec<_> = answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    if found.is_empty() { Err("the name has no such address".into()) } else { Ok(found) }
}

fn random() -> io::Result<[u8; 2]> {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}
