//! What the clients of each kind of load do, over and over.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::browser::{Browser, Failure, Host, Reply, Target, failure, limited};
use super::recorder::{Count, Recorder};
use super::shift::{Shift, spread};
use super::spec::{Kind, LoadSpec};
use crate::servers::http::{Reader, hex, pacing, pattern, pattern_checksum};
use crate::wire::Random;

/// One client of a load.
pub(super) struct Client {
    pub(super) number: u32,
    pub(super) spec: Arc<LoadSpec>,
    /// None: never rests (sessions have hours of their own).
    pub(super) shift: Option<Shift>,
    pub(super) target: Target,
    pub(super) browser: Browser,
    pub(super) recorder: Arc<Recorder>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) random: Random,
}

/// The load is to end.
pub(super) struct Stopped;

impl Client {
    pub(super) async fn run(mut self) {
        let every = self.every();
        let offset = every.min(Duration::from_secs(5)).mul_f64(self.random.unit());
        if self.rest(offset).await.is_ok() {
            self.recorder.wants(self.number);
            let _: Result<std::convert::Infallible, Stopped> = match self.spec.kind {
                Kind::Session => self.sessions().await,
                Kind::Request | Kind::Connect | Kind::Dns => self.repeat().await,
                Kind::Download | Kind::Upload => self.transfers().await,
                Kind::Udp => self.flows().await,
                Kind::Ping => self.pings().await,
            };
            self.recorder.rests(self.number);
        }
    }

    fn every(&self) -> Duration {
        self.spec.every.unwrap_or(Duration::from_millis(200)).max(Duration::from_millis(1))
    }

    pub(super) fn timeout(&self, default: u64) -> Duration {
        self.spec.timeout.unwrap_or(Duration::from_secs(default))
    }

    /// Waits, or learns that the load is to end.
    pub(super) async fn rest(&mut self, time: Duration) -> Result<(), Stopped> {
        if *self.stop.borrow() {
            return Err(Stopped);
        }
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            _ = self.stop.changed() => Err(Stopped),
        }
    }

    /// Whether it is this client's time to be quiet.
    pub(super) fn is_quiet(&self) -> bool {
        self.shift.is_some_and(|shift| shift.quiet(Instant::now()).is_some())
    }

    /// Is quiet for as long as its hours say.
    pub(super) async fn keep_quiet(&mut self) -> Result<(), Stopped> {
        while let Some(time) = self.shift.and_then(|shift| shift.quiet(Instant::now())) {
            self.recorder.rests(self.number);
            self.rest(time).await?;
        }
        self.recorder.wants(self.number);
        Ok(())
    }

    /// Waits for the beginning of the next turn, counted from when the last was due; late turns are not made up for.
    async fn turn(&mut self, due: &mut Instant) -> Result<(), Stopped> {
        let now = Instant::now();
        *due = (*due + self.every()).max(now);
        self.rest(due.saturating_duration_since(now)).await
    }

    /// Counts a failure.
    pub(super) fn failed(&self, error: &io::Error) {
        self.recorder.add(Count::Errors, 1);
        self.cause(error);
    }

    fn cause(&self, error: &io::Error) {
        match failure(error) {
            Failure::Reset => self.recorder.add(Count::Resets, 1),
            Failure::Timeout => self.recorder.add(Count::Timeouts, 1),
            Failure::Other => {}
        }
    }

    /// GET as a browser does it: a connection error is tried again at once, one time.
    async fn get(&mut self, target: &Target, path: &str, cookie: Option<&str>) -> Option<(Reply, Duration)> {
        let limit = self.timeout(5);
        self.recorder.add(Count::Started, 1);
        let load = self.spec.id.clone();
        let (mut result, mut took) = limited(limit, self.browser.get(target, path, &load, cookie)).await;
        if let Err(error) = &result
            && failure(error) == Failure::Reset
        {
            self.cause(error);
            self.recorder.add(Count::Retries, 1);
            (result, took) = limited(limit, self.browser.get(target, path, &load, cookie)).await;
        }
        match result {
            Ok(reply) => Some((reply, took)),
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    async fn sessions(&mut self) -> Result<std::convert::Infallible, Stopped> {
        let idp = Target { host: Host::Name("login.school.example".into()), port: 443 };
        let saas = self.target.clone();
        let life = self.spec.life.unwrap_or(Duration::from_secs(20));
        let pause = self.spec.pause.unwrap_or(Duration::from_secs(6));
        // A load finds people in the middle of their work or their pause, spread evenly: it is steady from the start.
        let found = (life + pause).mul_f64(spread(self.number));
        let mut this_life = life.saturating_sub(found);
        if this_life.is_zero() {
            self.recorder.rests(self.number);
            self.rest((life + pause).saturating_sub(found)).await?;
            self.recorder.wants(self.number);
            this_life = life;
        }
        let mut due = Instant::now();
        loop {
            let Some(cookie) = self.log_in(&idp, &saas).await else {
                self.turn(&mut due).await?;
                continue;
            };
            let end = Instant::now() + this_life;
            this_life = life.mul_f64(0.8 + 0.4 * self.random.unit());
            let mut alive = true;
            while alive && Instant::now() < end {
                self.turn(&mut due).await?;
                if let Some((reply, took)) = self.get(&saas, "/work", Some(&cookie)).await {
                    match reply.status {
                        200 => self.recorder.ok(self.number, took),
                        401 => {
                            self.recorder.add(Count::Logouts, 1);
                            self.recorder.add(Count::Errors, 1);
                            alive = false;
                        }
                        status => self.unwelcome(status),
                    }
                }
            }
            if alive {
                if let Some((reply, took)) = self.get(&saas, "/logout", Some(&cookie)).await {
                    match reply.status {
                        200 => self.recorder.ok(self.number, took),
                        status => self.unwelcome(status),
                    }
                }
                self.recorder.rests(self.number);
                let stagger = 0.9 + 0.2 * self.random.unit();
                self.rest(pause.mul_f64(stagger)).await?;
                self.recorder.wants(self.number);
                due = Instant::now();
            }
        }
    }

    fn unwelcome(&self, status: u16) {
        self.recorder.add(Count::Errors, 1);
        if status == 403 {
            self.recorder.add(Count::Refused, 1);
        }
    }

    /// The cookie of a new session.
    async fn log_in(&mut self, idp: &Target, saas: &Target) -> Option<String> {
        let (reply, took) = self.get(idp, "/login", None).await?;
        let path = reply
            .head
            .header("location")
            .and_then(|url| url.split_once(".example"))
            .map(|(_, path)| path.to_owned());
        let (302, Some(path)) = (reply.status, path) else {
            self.unwelcome(reply.status);
            return None;
        };
        self.recorder.ok(self.number, took);
        let (reply, took) = self.get(saas, &path, None).await?;
        let cookie = reply.head.header("set-cookie").map(str::to_owned);
        let (200, Some(cookie)) = (reply.status, cookie) else {
            self.unwelcome(reply.status);
            return None;
        };
        self.recorder.ok(self.number, took);
        self.recorder.add(Count::Sessions, 1);
        Some(cookie)
    }

    async fn repeat(&mut self) -> Result<std::convert::Infallible, Stopped> {
        let target = self.target.clone();
        let mut due = Instant::now();
        loop {
            if self.is_quiet() {
                self.keep_quiet().await?;
                due = Instant::now();
            }
            match self.spec.kind {
                Kind::Connect => self.connect_once(&target).await,
                Kind::Dns => self.ask_once(&target.name()).await,
                Kind::Request | Kind::Session | Kind::Download | Kind::Upload | Kind::Udp | Kind::Ping => {
                    if let Some((reply, took)) = self.get(&target, "/", None).await {
                        match reply.status {
                            200 => self.recorder.ok(self.number, took),
                            status => self.unwelcome(status),
                        }
                    }
                }
            }
            self.turn(&mut due).await?;
        }
    }

    async fn connect_once(&mut self, target: &Target) {
        self.recorder.add(Count::Started, 1);
        let (result, took) = limited(self.timeout(5), self.browser.connect(target)).await;
        match result {
            Ok(mut stream) => {
                self.recorder.ok(self.number, took);
                let _ = stream.shutdown().await;
            }
            Err(error) => self.failed(&error),
        }
    }

    async fn ask_once(&mut self, host: &str) {
        self.recorder.add(Count::Started, 1);
        let (limit, family) = (self.timeout(2), self.browser.family);
        let device = self.browser.device.clone();
        let (result, took) = limited(limit, self.browser.stub.ask(&device, host, family, 1)).await;
        match result {
            Ok((addresses, _)) if !addresses.is_empty() => self.recorder.ok(self.number, took),
            Ok(_) => self.recorder.add(Count::Errors, 1),
            Err(error) => {
                if failure(&error) == Failure::Timeout {
                    self.recorder.add(Count::Lost, 1);
                }
                self.failed(&error);
            }
        }
    }

    async fn transfers(&mut self) -> Result<std::convert::Infallible, Stopped> {
        let block = pattern();
        let bytes = self.spec.bytes.unwrap_or(10_000_000);
        let checksum = pattern_checksum(&block, bytes);
        let mut due = Instant::now();
        loop {
            self.recorder.add(Count::Started, 1);
            let begun = Instant::now();
            let mut stop = self.stop.clone();
            let transfer = async {
                if self.spec.kind == Kind::Download {
                    self.download(bytes).await
                } else {
                    self.upload(bytes, &block).await
                }
            };
            let result = tokio::select! {
                result = transfer => result,
                _ = stop.changed() => return Err(Stopped),
            };
            match result {
                Ok(seen) if seen == checksum => self.recorder.ok(self.number, begun.elapsed()),
                Ok(_) => {
                    self.recorder.add(Count::ChecksumErrors, 1);
                    self.recorder.add(Count::Errors, 1);
                }
                Err(error) => self.failed(&error),
            }
            if let Some(pause) = self.spec.pause.filter(|pause| !pause.is_zero()) {
                self.recorder.rests(self.number);
                self.rest(pause).await?;
                self.recorder.wants(self.number);
                due = Instant::now();
            } else {
                self.turn(&mut due).await?;
            }
        }
    }

    /// Returns the checksum of what came.
    async fn download(&mut self, bytes: u64) -> io::Result<String> {
        let limit = self.timeout(10);
        let (target, load) = (self.target.clone(), self.spec.id.clone());
        let mut stream = limited(limit, self.browser.dial(&target)).await.0?;
        let pace = self.spec.pace.unwrap_or(0);
        let host = target.name();
        let request = format!(
            "GET /download?bytes={bytes}&pace={pace} HTTP/1.1\r\nhost: {host}\r\nx-load: {load}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut reader = Reader::default();
        let head = limited(limit, reader.head(&mut stream)).await.0?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if head.status() != Some(200) {
            return Err(io::Error::other(head.first));
        }
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let mut left = head.content_length();
        let mut room = vec![0; 16_384];
        while left > 0 {
            let wanted = room.len().min(left as usize);
            let count = limited(limit, reader.body(&mut stream, &mut room[..wanted])).await.0?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            context.update(&room[..count]);
            left -= count as u64;
            self.recorder.progress(self.number, count as u64);
        }
        let _ = stream.shutdown().await;
        Ok(hex(context.finish().as_ref()))
    }

    /// Returns the checksum that the server saw.
    async fn upload(&mut self, bytes: u64, block: &[u8]) -> io::Result<String> {
        let limit = self.timeout(10);
        let (target, load) = (self.target.clone(), self.spec.id.clone());
        let mut stream = limited(limit, self.browser.dial(&target)).await.0?;
        let host = target.name();
        let request = format!(
            "POST /upload HTTP/1.1\r\nhost: {host}\r\nx-load: {load}\r\ncontent-length: {bytes}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let (begun, pace, mut sent) = (Instant::now(), self.spec.pace.unwrap_or(0), 0u64);
        while sent < bytes {
            let at = (sent % block.len() as u64) as usize;
            let end = block.len().min(at + 16_384).min(at + (bytes - sent) as usize);
            limited(limit, stream.write_all(&block[at..end])).await.0?;
            sent += (end - at) as u64;
            self.recorder.progress(self.number, (end - at) as u64);
            if let Some(wait) = pacing(pace, sent, begun.elapsed()) {
                stream.flush().await?;
                tokio::time::sleep(wait).await;
            }
        }
        stream.flush().await?;
        let mut reader = Reader::default();
        let head = limited(limit, reader.head(&mut stream)).await.0?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut body = vec![0; usize::try_from(head.content_length()).unwrap_or(0).min(4096)];
        let mut at = 0;
        while at < body.len() {
            let count = limited(limit, reader.body(&mut stream, &mut body[at..])).await.0?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += count;
        }
        let _ = stream.shutdown().await;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}
