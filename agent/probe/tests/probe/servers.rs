//! A name server and web servers that behave as badly as they are told to.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;

/// An authority made for one test.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    pub(crate) fn acceptor(&self, name: &str) -> Result<TlsAcceptor> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &self.issuer)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?,
            )?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// What a web server does with a connection.
#[derive(Clone)]
pub(crate) enum Web {
    /// Over TLS, after reading the request: this, then a proper end.
    Says(&'static str),
    /// The same, but then it keeps the connection and is silent.
    SaysAndStalls(&'static str),
    /// A byte now and then, for ever.
    Drips,
    /// More and more body.
    Endless,
    /// Handshake, then reset.
    Resets,
    /// TCP, then nothing.
    Silent,
    /// TCP, then something that is not TLS.
    NotTls,
    /// TCP, then closed.
    Closes,
}

/// Serves until the runtime ends.
pub(crate) async fn web(acceptor: TlsAcceptor, behaviour: Web) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, acceptor.clone(), behaviour.clone()));
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream, acceptor: TlsAcceptor, behaviour: Web) -> std::io::Result<()> {
    match behaviour {
        Web::Silent => std::future::pending().await,
        Web::Closes => return Ok(()),
        Web::NotTls => return stream.write_all(b"220 mail.example ESMTP\r\n").await,
        Web::Says(_) | Web::SaysAndStalls(_) | Web::Drips | Web::Endless | Web::Resets => {}
    }
    let mut stream = acceptor.accept(stream).await?;
    let mut request = vec![0; 4096];
    let _ = stream.read(&mut request).await?;
    match behaviour {
        Web::Says(text) => {
            stream.write_all(text.as_bytes()).await?;
            stream.shutdown().await
        }
        Web::SaysAndStalls(text) => {
            stream.write_all(text.as_bytes()).await?;
            stream.flush().await?;
            std::future::pending().await
        }
        Web::Drips => loop {
            stream.write_all(b"H").await?;
            stream.flush().await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        },
        Web::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 4096]).await?;
            }
        }
        Web::Resets => stream.get_ref().0.set_zero_linger(),
        Web::Silent | Web::NotTls | Web::Closes => Ok(()),
    }
}

/// A name server on port 53 of 127.0.0.1; the name's first label says how it behaves.
pub(crate) async fn names() -> Result<()> {
    let address = (Ipv4Addr::LOCALHOST, 53);
    let udp = UdpSocket::bind(address).await?;
    let tcp = TcpListener::bind(address).await?;
    tokio::spawn(async move {
        let mut packet = vec![0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut packet).await {
            for answer in answers(&packet[..length], false) {
                let _ = udp.send_to(&answer, from).await;
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let Ok(length) = stream.read_u16().await else { continue };
            let mut packet = vec![0; usize::from(length)];
            let _ = stream.read_exact(&mut packet).await;
            for answer in answers(&packet, true) {
                let length = u16::try_from(answer.len()).unwrap_or(0).to_be_bytes();
                let _ = stream.write_all(&[&length, answer.as_slice()].concat()).await;
            }
        }
    });
    Ok(())
}

fn answers(packet: &[u8], by_tcp: bool) -> Vec<Vec<u8>> {
    let Ok(query) = Message::from_vec(packet) else { return Vec::new() };
    let Some(question) = query.queries.first().cloned() else { return Vec::new() };
    let name = question.name().to_ascii();
    let behaviour = name.split('.').next().unwrap_or_default();
    let mut message = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    message.add_query(question.clone());
    let mut give = |family| {
        if question.query_type() == family {
            let data = if family == RecordType::A {
                RData::A(A::new(127, 0, 0, 1))
            } else {
                RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 1))
            };
            message.add_answer(Record::from_rdata(question.name().clone(), 60, data));
        }
    };
    match behaviour {
        "nodata" => {}
        "v6only" => give(RecordType::AAAA),
        "nx" => message.metadata.response_code = ResponseCode::NXDomain,
        "servfail" => message.metadata.response_code = ResponseCode::ServFail,
        "silent" => return Vec::new(),
        "cut" if !by_tcp => message.metadata.truncation = true,
        _ => give(RecordType::A),
    }
    let right = message.to_vec().unwrap_or_default();
    let mut wrong_id = message.clone();
    wrong_id.metadata.id = wrong_id.metadata.id.wrapping_add(1);
    wrong_id.metadata.response_code = ResponseCode::NXDomain;
    // Compression pointing at itself, an empty packet, lengths that lie.
    let nonsense = vec![
        Vec::new(),
        vec![0xff; 600],
        [&right[..12], &[0xc0, 0x0c, 0, 1, 0, 1]].concat(),
        right[..right.len() / 2].to_vec(),
        wrong_id.to_vec().unwrap_or_default(),
        packet.to_vec(),
    ];
    match behaviour {
        "garbage" => nonsense,
        "noisy" => nonsense.into_iter().chain([right]).collect(),
        _ => vec![right],
    }
}
