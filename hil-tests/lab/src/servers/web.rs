//! The sites' connections: TLS, requests, sessions, transfers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::http::{self, Head, Reader, parameter, respond};
use super::site::{Cookie, Entry, Illness, Site};
use crate::capture::lock;

/// Longest silence of a client.
const IDLE: Duration = Duration::from_secs(60);

/// What all sites share: the content of transfers.
#[derive(Debug)]
pub(crate) struct Content {
    block: Vec<u8>,
    checksums: Mutex<HashMap<u64, String>>,
}

impl Content {
    pub(crate) fn new() -> Self {
        Self { block: http::pattern(), checksums: Mutex::new(HashMap::new()) }
    }

    fn checksum(&self, bytes: u64) -> String {
        lock(&self.checksums)
            .entry(bytes)
            .or_insert_with(|| http::pattern_checksum(&self.block, bytes))
            .clone()
    }
}

/// Serves sites at `address`; the first site whose host name the client asks for answers.
pub(crate) async fn serve(
    address: SocketAddr,
    sites: Vec<(&'static str, Arc<Site>)>,
    good: Arc<ServerConfig>,
    bad: Arc<ServerConfig>,
    content: Arc<Content>,
) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let (sites, content) = (sites.clone(), Arc::clone(&content));
            let (good, bad) = (Arc::clone(&good), Arc::clone(&bad));
            tokio::spawn(async move {
                // A client that breaks off is no event of the server's.
                let _ = connection(stream, peer, &sites, good, bad, &content).await;
            });
        }
    });
    Ok(())
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    sites: &[(&'static str, Arc<Site>)],
    good: Arc<ServerConfig>,
    bad: Arc<ServerConfig>,
    content: &Content,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let source = peer.ip().to_canonical();
    // Before TLS the host is unknown: an illness of any site at this address that shows there shows to all.
    let early = sites.iter().find_map(|(_, site)| site.illness(source));
    let config = match early {
        Some(Illness::NoAnswer) => {
            tokio::time::sleep(IDLE).await;
            return Ok(());
        }
        Some(Illness::BadCertificate) => bad,
        Some(Illness::Error | Illness::WrongBody | Illness::Stall) | None => good,
    };
    let accept = TlsAcceptor::from(config).accept(stream);
    let mut stream = tokio::time::timeout(IDLE, accept).await??;
    let host = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
    let Some((_, site)) = sites.iter().find(|(name, _)| *name == host) else { return Ok(()) };
    let mut reader = Reader::default();
    while let Some(head) = tokio::time::timeout(IDLE, reader.head(&mut stream)).await?? {
        answer(&mut stream, &mut reader, &head, site, peer, content).await?;
        if head.header("connection") == Some("close") {
            break;
        }
    }
    stream.shutdown().await
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    reader: &mut Reader,
    head: &Head,
    site: &Site,
    peer: SocketAddr,
    content: &Content,
) -> std::io::Result<()> {
    let source = peer.ip().to_canonical();
    let load = head.header("x-load").unwrap_or_default();
    let log = |entry| {
        if !load.is_empty() {
            site.log.add(load, entry, source);
        }
    };
    let Some((method, target)) = head.request() else {
        return respond(stream, "400 Bad Request", "", "what?").await;
    };
    if !site.admits(source) {
        log(Entry::Refused);
        return respond(stream, "403 Forbidden", "", "this address is not registered").await;
    }
    let illness = site.illness(source);
    match illness {
        Some(Illness::Error) => return respond(stream, "500 Internal Server Error", "", "ill").await,
        Some(Illness::WrongBody) => return respond(stream, "200 OK", "", "maintenance").await,
        Some(Illness::NoAnswer) => {
            tokio::time::sleep(IDLE).await;
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        Some(Illness::Stall | Illness::BadCertificate) | None => {}
    }
    let cookie =
        head.header("cookie").and_then(|c| c.strip_prefix("sid=")).and_then(|id| id.parse::<u64>().ok());
    let path = target.split('?').next().unwrap_or_default();
    match (method, path) {
        (_, "/health") => respond(stream, "200 OK", "", "healthy").await,
        ("GET", "/login") => {
            log(Entry::Served);
            respond(stream, "302 Found", "location: https://affairs.school.example/start?ticket=1\r\n", "")
                .await
        }
        ("GET", "/start") => {
            let id = site.log_in(source);
            log(Entry::Began);
            respond(stream, "200 OK", &format!("set-cookie: sid={id}\r\n"), "welcome").await
        }
        ("GET", "/logout") => {
            if let Some(id) = cookie {
                site.log_out(id);
            }
            respond(stream, "200 OK", "", "bye").await
        }
        ("GET", "/work") => match cookie.map_or(Cookie::Unknown, |id| site.check(id, source)) {
            Cookie::Good => {
                log(Entry::Served);
                respond(stream, "200 OK", "", "work").await
            }
            Cookie::Unknown => respond(stream, "401 Unauthorized", "", "log in again").await,
            Cookie::TwoAddresses => {
                log(Entry::TwoAddresses);
                respond(stream, "401 Unauthorized", "x-reason: two-addresses\r\n", "log in again").await
            }
        },
        ("GET", "/download") => {
            log(Entry::Served);
            let number = |key| parameter(target, key).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            download(stream, number("bytes"), number("pace"), illness == Some(Illness::Stall), content).await
        }
        ("POST", "/upload") => {
            log(Entry::Served);
            upload(stream, reader, head.content_length()).await
        }
        _ => {
            log(Entry::Served);
            respond(stream, "200 OK", "", site.name).await
        }
    }
}

async fn download<S: AsyncWrite + Unpin>(
    stream: &mut S,
    bytes: u64,
    pace: u64,
    stalls: bool,
    content: &Content,
) -> std::io::Result<()> {
    let checksum = content.checksum(bytes);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\nx-sha256: {checksum}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let (begun, mut sent) = (Instant::now(), 0);
    while sent < bytes {
        if stalls && bytes > 65_536 && sent >= bytes / 2 {
            tokio::time::sleep(IDLE).await;
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        let at = (sent % content.block.len() as u64) as usize;
        let end = content.block.len().min(at + 16_384).min(at + (bytes - sent) as usize);
        stream.write_all(&content.block[at..end]).await?;
        sent += (end - at) as u64;
        if let Some(wait) = http::pacing(pace, sent, begun.elapsed()) {
            stream.flush().await?;
            tokio::time::sleep(wait).await;
        }
    }
    stream.flush().await
}

async fn upload<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    reader: &mut Reader,
    bytes: u64,
) -> std::io::Result<()> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut room = vec![0; 16_384];
    let mut left = bytes;
    while left > 0 {
        let limit = room.len().min(left as usize);
        let count = tokio::time::timeout(IDLE, reader.body(stream, &mut room[..limit])).await??;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        context.update(&room[..count]);
        left -= count as u64;
    }
    respond(stream, "200 OK", "", &http::hex(context.finish().as_ref())).await
}

/// Plain HTTP of the town hall and anything that only has to answer a connection.
pub(crate) async fn serve_plain(address: SocketAddr, body: &'static str) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            tokio::spawn(async move {
                let mut reader = Reader::default();
                while let Ok(Ok(Some(_))) = tokio::time::timeout(IDLE, reader.head(&mut stream)).await {
                    if respond(&mut stream, "200 OK", "", body).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(())
}
