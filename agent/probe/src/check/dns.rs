//! Does the path's name server know the name? Plain DNS over UDP, over TCP where an answer is cut short.

use std::io;
use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, Instant, timeout_at};

use crate::echo::nonce;
use crate::source::{Source, in_words};

const PORT: u16 = 53;
/// How long one server is waited for before the next is asked.
const PATIENCE: Duration = Duration::from_millis(1_000);
/// Times that each server is asked.
const ROUNDS: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DnsError {
    #[error("`{0}` is not a name")]
    NotAName(String),
    #[error("there is no name server to ask")]
    NoServer,
    #[error("{0} does not exist")]
    NoSuchName(String),
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("{server}: {why}")]
    Server { server: IpAddr, why: String },
}

/// What one server said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Addresses,
    NoData,
    NoSuchName,
    Failed(ResponseCode),
    Truncated,
}

/// Passes when a server gives an address of either family; the family of `connect` is asked for first. The first clear
/// answer counts, servers that fail or keep silent are passed over.
pub(super) async fn resolve(
    source: &Source,
    servers: &[IpAddr],
    name: &str,
    connect: SocketAddr,
    deadline: Instant,
) -> Result<(), DnsError> {
    resolve_at(source, servers, PORT, name, connect, deadline).await
}

async fn resolve_at(
    source: &Source,
    servers: &[IpAddr],
    port: u16,
    name: &str,
    connect: SocketAddr,
    deadline: Instant,
) -> Result<(), DnsError> {
    let mut qname = Name::from_ascii(name).map_err(|_| DnsError::NotAName(name.to_owned()))?;
    qname.set_fqdn(true);
    let families =
        if connect.is_ipv4() { [RecordType::A, RecordType::AAAA] } else { [RecordType::AAAA, RecordType::A] };
    let mut last = DnsError::NoServer;
    for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
        if Instant::now() >= deadline {
            break;
        }
        match ask_server(source, SocketAddr::new(*server, port), &qname, families, deadline).await {
            Ok(Said::Addresses) => return Ok(()),
            Ok(Said::NoData) => return Err(DnsError::NoAddress(name.to_owned())),
            Ok(Said::NoSuchName) => return Err(DnsError::NoSuchName(name.to_owned())),
            Ok(Said::Failed(code)) => last = DnsError::Server { server: *server, why: code.to_string() },
            Ok(Said::Truncated) => {
                last = DnsError::Server { server: *server, why: "answers cut short".to_owned() };
            }
            Err(error) => {
                let why = if error.kind() == io::ErrorKind::TimedOut {
                    "no answer".to_owned()
                } else {
                    in_words(&error)
                };
                last = DnsError::Server { server: *server, why };
            }
        }
    }
    Err(last)
}

async fn ask_server(
    source: &Source,
    server: SocketAddr,
    name: &Name,
    families: [RecordType; 2],
    deadline: Instant,
) -> io::Result<Said> {
    let mut said = Said::NoData;
    for family in families {
        let patience = deadline.min(Instant::now() + PATIENCE);
        said = timeout_at(patience, ask(source, server, name, family)).await.unwrap_or_else(timed_out)?;
        if said != Said::NoData {
            break;
        }
    }
    Ok(said)
}

fn timed_out<T>(_: tokio::time::error::Elapsed) -> io::Result<T> {
    Err(io::ErrorKind::TimedOut.into())
}

async fn ask(source: &Source, server: SocketAddr, name: &Name, family: RecordType) -> io::Result<Said> {
    let id = u16::from_ne_bytes([nonce()?.to_ne_bytes()[0], nonce()?.to_ne_bytes()[0]]);
    let question = Query::query(name.clone(), family);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(question.clone());
    let packet = message.to_vec().map_err(io::Error::other)?;
    let socket = source.udp(server).await?;
    socket.send(&packet).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match understand(&buffer[..length], id, &question) {
            Some(Said::Truncated) => return ask_by_tcp(source, server, &packet, id, &question).await,
            Some(said) => return Ok(said),
            // Nonsense, or somebody else's: the real answer may still come.
            None => {}
        }
    }
}

async fn ask_by_tcp(
    source: &Source,
    server: SocketAddr,
    packet: &[u8],
    id: u16,
    question: &Query,
) -> io::Result<Said> {
    let mut stream = source.tcp(server).await?;
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), packet].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    understand(&answer, id, question).ok_or_else(|| io::Error::other("an answer that makes no sense"))
}

/// `None`: not an answer to this question.
fn understand(packet: &[u8], id: u16, question: &Query) -> Option<Said> {
    let message = Message::from_vec(packet).ok()?;
    let ours = message.metadata.id == id
        && message.metadata.message_type == MessageType::Response
        && message.queries == [question.clone()];
    if !ours {
        return None;
    }
    let found = message.answers.iter().any(|record| record.record_type() == question.query_type());
    let code = message.metadata.response_code;
    Some(if code == ResponseCode::NXDomain {
        Said::NoSuchName
    } else if code != ResponseCode::NoError {
        Said::Failed(code)
    } else if found {
        Said::Addresses
    } else if message.metadata.truncation {
        Said::Truncated
    } else {
        Said::NoData
    })
}
