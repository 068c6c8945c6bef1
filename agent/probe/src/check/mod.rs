//! One check of a service over a path: DNS, TCP, TLS (verified), HTTP status, body. Each check does all of it anew.

mod dns;
mod http;
mod tls;

use std::fmt;
use std::future::Future;

use seimon_ipc::probe::{CheckJob, CheckOutcome, Stage};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Duration, Instant, timeout_at};

use crate::source::{Source, in_words};
pub use tls::Trust;

/// Longest reason that is reported, in characters: it may quote what a server said.
const LONGEST_REASON: usize = 200;

struct Failure {
    stage: Stage,
    reason: String,
}

impl Failure {
    fn new(stage: Stage, reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        let reason =
            reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_REASON).collect();
        Self { stage, reason }
    }
}

/// Runs the check and says within `limit` how it went, and at which stage it failed.
pub async fn check(source: &Source, job: &CheckJob, trust: &Trust, limit: Duration) -> CheckOutcome {
    let started = Instant::now();
    match stages(source, job, trust, started + limit).await {
        Ok(()) => {
            CheckOutcome::Good { total_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX) }
        }
        Err(Failure { stage, reason }) => CheckOutcome::Failed { stage, reason },
    }
}

async fn stages(source: &Source, job: &CheckJob, trust: &Trust, deadline: Instant) -> Result<(), Failure> {
    let request = http::request(&job.name, job.connect.port(), &job.http_path)
        .map_err(|error| Failure::new(Stage::Http, error))?;
    dns::resolve(source, &job.resolvers, &job.name, job.connect, deadline)
        .await
        .map_err(|error| Failure::new(Stage::Dns, error))?;
    let stream = before(Stage::Tcp, deadline, source.tcp(job.connect)).await?;
    let connector =
        trust.connector(job.ca_pem.as_deref()).map_err(|error| Failure::new(Stage::Tls, error))?;
    let name = tls::server_name(&job.name).map_err(|error| Failure::new(Stage::Tls, error))?;
    let mut stream = before(Stage::Tls, deadline, connector.connect(name, stream)).await?;
    let answer = converse(&mut stream, &request, deadline).await?;
    if answer.status != job.status {
        return Err(Failure::new(Stage::Http, format!("status {}, not {}", answer.status, job.status)));
    }
    if !contains(&answer.body, job.body.as_bytes()) {
        let part = if answer.whole { "the body" } else { "the first 64 KiB of the body" };
        return Err(Failure::new(Stage::Body, format!("{part} has no `{}` in it", job.body)));
    }
    Ok(())
}

/// Whether `server` answers for `name`, asked from the host as its users ask.
pub(crate) async fn name(
    source: &Source,
    server: std::net::IpAddr,
    name: &str,
    limit: Duration,
) -> CheckOutcome {
    let started = Instant::now();
    let family = std::net::SocketAddr::new(server, 443);
    match dns::resolve(source, &[server], name, family, started + limit).await {
        Ok(()) => CheckOutcome::Good { total_us: micros(started.elapsed()) },
        Err(error) => {
            let Failure { stage, reason } = Failure::new(Stage::Dns, error);
            CheckOutcome::Failed { stage, reason }
        }
    }
}

/// Bytes of the body that came within `most` from the body's first, and the time that they took. What comes is thrown away.
pub(crate) async fn load(
    source: &Source,
    job: &CheckJob,
    trust: &Trust,
    limit: Duration,
    most: Duration,
) -> Result<(u64, Duration), CheckOutcome> {
    let failed = |Failure { stage, reason }| CheckOutcome::Failed { stage, reason };
    loaded(source, job, trust, Instant::now() + limit, most).await.map_err(failed)
}

async fn loaded(
    source: &Source,
    job: &CheckJob,
    trust: &Trust,
    deadline: Instant,
    most: Duration,
) -> Result<(u64, Duration), Failure> {
    let request = http::request(&job.name, job.connect.port(), &job.http_path)
        .map_err(|error| Failure::new(Stage::Http, error))?;
    let stream = before(Stage::Tcp, deadline, source.tcp(job.connect)).await?;
    let connector =
        trust.connector(job.ca_pem.as_deref()).map_err(|error| Failure::new(Stage::Tls, error))?;
    let name = tls::server_name(&job.name).map_err(|error| Failure::new(Stage::Tls, error))?;
    let mut stream = before(Stage::Tls, deadline, connector.connect(name, stream)).await?;
    before(Stage::Http, deadline, async {
        stream.write_all(&request).await?;
        stream.flush().await
    })
    .await?;
    let mut chunk = vec![0; 64 << 10];
    // The head and the beginning of the body: from here on it is the line that is measured.
    let first = before(Stage::Http, deadline, stream.read(&mut chunk)).await?;
    if !chunk[..first].starts_with(b"HTTP/1.1 200") {
        return Err(Failure::new(Stage::Http, "there is no such file"));
    }
    let (begun, mut bytes) = (Instant::now(), 0u64);
    let end = (begun + most).min(deadline);
    while let Ok(Ok(length)) = timeout_at(end, stream.read(&mut chunk)).await
        && length > 0
    {
        bytes += length as u64;
    }
    Ok((bytes, begun.elapsed()))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

async fn before<T>(
    stage: Stage,
    deadline: Instant,
    act: impl Future<Output = std::io::Result<T>>,
) -> Result<T, Failure> {
    match timeout_at(deadline, act).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::new(stage, in_words(&error))),
        Err(_) => Err(Failure::new(stage, "no answer in time")),
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &[u8],
    deadline: Instant,
) -> Result<http::Answer, Failure> {
    before(Stage::Http, deadline, async {
        stream.write_all(request).await?;
        stream.flush().await
    })
    .await?;
    let mut reading = http::Reading::default();
    let mut chunk = [0; 4096];
    loop {
        let stage = if reading.head_is_read() { Stage::Body } else { Stage::Http };
        let length = match timeout_at(deadline, stream.read(&mut chunk)).await {
            Ok(Ok(length)) => length,
            // Many servers hang up without TLS's good-bye. What ends only by hanging up is judged by its text.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => 0,
            Ok(Err(error)) => return Err(Failure::new(stage, in_words(&error))),
            Err(_) => return Err(Failure::new(stage, "the answer did not end in time")),
        };
        let step = if length == 0 { reading.end().map(Some) } else { reading.push(&chunk[..length]) };
        if let Some(answer) = step.map_err(|error| Failure::new(stage, error))? {
            return Ok(answer);
        }
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// The service's port as part of `Host`, where it is not the usual one.
fn authority(name: &str, port: u16) -> String {
    if port == 443 { name.to_owned() } else { format!("{name}:{port}") }
}
