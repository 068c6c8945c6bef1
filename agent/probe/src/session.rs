//! From the first word to the last: the order of acts, and the loop that serves watches and checks.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seimon_ipc::frame::{self, FrameError, LineBuffer};
use seimon_ipc::probe::{
    CheckJob, CheckOutcome, EchoOutcome, EchoWatch, FromProbe, Host, Stage, ToProbe, TrialJob, TrialOutcome,
    VERSION,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::alarm::Alarm;
use crate::check::{Trust, check};
use crate::confine::{ConfineError, Files, confine};
use crate::echo::echo;
use crate::host::{self, HostError};
use crate::pulse::{Measure, Pulses};
use crate::source::{Source, Sources, sources};
use crate::trial::attempt;

/// Checks under way at once.
pub const MOST_CHECKS: usize = 64;
/// Whatever a job says.
const LONGEST: Duration = Duration::from_secs(60);
/// The agent reads its socket all the time; if it has not for so long, it is not well.
const STALLED: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("the agent's socket failed")]
    Socket(#[source] io::Error),
    #[error("the agent said something that is not understood")]
    Frame(#[source] FrameError),
    #[error("the agent asked for work before saying which hosts there are")]
    NotConfigured,
    #[error("the agent does not read what it asked for")]
    Stalled,
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Confine(#[from] ConfineError),
    #[error("the timer failed")]
    Timer(#[source] io::Error),
    #[error("a job broke down")]
    Job(#[source] tokio::task::JoinError),
}

/// Why the probe stopped without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The agent has hung up.
    AgentGone,
    /// Other hosts were asked for. The probe can no longer change its network: a new one must be started.
    OtherHostsWanted,
}

/// The whole life of a probe. Must be called while the process has one thread.
pub fn run(mut socket: UnixStream) -> Result<End, ProbeError> {
    host::unshare()?;
    say(&mut socket, &FromProbe::Hello { version: VERSION, pid: std::process::id() })?;
    let mut lines = LineBuffer::default();
    let Some(first) = hear(&mut socket, &mut lines)? else { return Ok(End::AgentGone) };
    let ToProbe::Configure { hosts } = first else { return Err(ProbeError::NotConfigured) };
    let trust = Trust::load();
    // One thread: what it gives up, the whole process has given up.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ProbeError::Socket)?;
    let ready = host::configure(&hosts).map_err(ProbeError::from).and_then(|()| Ok(confine()?));
    if let Err(error) = &ready {
        say(&mut socket, &FromProbe::Configured { error: Some(with_causes(error)) })?;
    }
    if ready? == Files::Open {
        // Only the journal can be told; the service is the same.
        let _ = writeln!(
            io::stderr().lock(),
            "seimon-probe: this kernel has no Landlock: files stay open to the probe"
        );
    }
    say(&mut socket, &FromProbe::Configured { error: None })?;
    runtime.block_on(async {
        socket.set_nonblocking(true).map_err(ProbeError::Socket)?;
        let socket = tokio::net::UnixStream::from_std(socket).map_err(ProbeError::Socket)?;
        serve(socket, lines, hosts, trust).await
    })
}

fn with_causes(error: &ProbeError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn say(socket: &mut UnixStream, message: &FromProbe) -> Result<(), ProbeError> {
    let line = frame::encode(message).map_err(ProbeError::Frame)?;
    socket.write_all(&line).map_err(ProbeError::Socket)
}

fn hear(socket: &mut UnixStream, lines: &mut LineBuffer) -> Result<Option<ToProbe>, ProbeError> {
    let mut chunk = [0; 4096];
    loop {
        if let Some(line) = lines.next_line().map_err(ProbeError::Frame)? {
            return frame::decode(&line).map(Some).map_err(ProbeError::Frame);
        }
        match socket.read(&mut chunk).map_err(ProbeError::Socket)? {
            0 => return Ok(None),
            length => lines.push(&chunk[..length]),
        }
    }
}

/// Sends echoes and does checks until the agent hangs up or wants other hosts. The hosts' addresses and interfaces must
/// be in place; `lines` holds what has been read already.
///
/// Cancel-safe at every wait: `read` takes nothing from the socket, `join_next` nothing from the set, and the alarm rings
/// nobody, unless it wins.
pub async fn serve(
    socket: tokio::net::UnixStream,
    mut lines: LineBuffer,
    hosts: Vec<Host>,
    trust: Trust,
) -> Result<End, ProbeError> {
    let (mut reader, mut writer) = socket.into_split();
    let mut jobs =
        Jobs { sources: sources(&hosts), trust: Arc::new(trust), running: JoinSet::new(), checks: 0 };
    let mut pulses = Pulses::new(Vec::new(), &jobs.sources, Instant::now());
    let mut alarm = Alarm::new().map_err(ProbeError::Timer)?;
    let mut chunk = vec![0; 16 << 10];
    loop {
        while let Some(line) = lines.next_line().map_err(ProbeError::Frame)? {
            match frame::decode(&line).map_err(ProbeError::Frame)? {
                ToProbe::Watch { echoes } => pulses = jobs.watch(echoes),
                ToProbe::Check(job) => jobs.check(job),
                ToProbe::Trial(job) => jobs.attempt(job),
                ToProbe::Configure { hosts: wanted } if wanted == hosts => {
                    tell(&mut writer, &FromProbe::Configured { error: None }).await?;
                }
                ToProbe::Configure { .. } => return Ok(End::OtherHostsWanted),
            }
        }
        for measure in pulses.handle_timeout(Instant::now()) {
            jobs.measure(measure);
        }
        let results = pulses.poll_results(Instant::now());
        if !results.is_empty() {
            tell(&mut writer, &FromProbe::Watched { results }).await?;
        }
        alarm.set(pulses.poll_timeout()).map_err(ProbeError::Timer)?;
        tokio::select! {
            read = reader.read(&mut chunk) => match read.map_err(ProbeError::Socket)? {
                0 => return Ok(End::AgentGone),
                length => lines.push(&chunk[..length]),
            },
            Some(done) = jobs.running.join_next() => match done.map_err(ProbeError::Job)? {
                Done::Check(job, outcome) => {
                    jobs.checks -= 1;
                    tell(&mut writer, &FromProbe::Checked { job, outcome }).await?;
                }
                Done::Trial(job, outcome) => tell(&mut writer, &FromProbe::Tried { job, outcome }).await?,
                Done::Echo(watch, outcome) => pulses.handle_measured(watch, outcome, Instant::now()),
            },
            rings = alarm.rings() => rings.map_err(ProbeError::Timer)?,
        }
    }
}

async fn tell(writer: &mut tokio::net::unix::OwnedWriteHalf, message: &FromProbe) -> Result<(), ProbeError> {
    let line = frame::encode(message).map_err(ProbeError::Frame)?;
    match tokio::time::timeout(STALLED, writer.write_all(&line)).await {
        Ok(written) => written.map_err(ProbeError::Socket),
        Err(_) => Err(ProbeError::Stalled),
    }
}

struct Jobs {
    sources: Sources,
    trust: Arc<Trust>,
    running: JoinSet<Done>,
    checks: usize,
}

enum Done {
    Check(u64, CheckOutcome),
    Trial(u64, TrialOutcome),
    Echo(u64, EchoOutcome),
}

impl Jobs {
    /// In place of all watches before.
    fn watch(&self, echoes: Vec<EchoWatch>) -> Pulses {
        Pulses::new(echoes, &self.sources, Instant::now())
    }

    fn measure(&mut self, Measure { watch, source, target, length, timeout }: Measure) {
        self.running.spawn(async move {
            Done::Echo(watch, echo(&source, target, length, timeout.min(LONGEST)).await)
        });
    }

    fn check(&mut self, job: CheckJob) {
        let source = self.source(&job.zone, &job.path);
        let busy = self.checks >= MOST_CHECKS;
        self.checks += 1;
        let trust = self.trust.clone();
        let failed = |reason: &str| CheckOutcome::Failed { stage: Stage::Dns, reason: reason.to_owned() };
        self.running.spawn(async move {
            let outcome = match source {
                _ if busy => failed("the probe has too much to do"),
                None => failed("the probe has no such host"),
                Some(source) => check(&source, &job, &trust, limit(job.timeout_ms)).await,
            };
            Done::Check(job.job, outcome)
        });
    }

    fn attempt(&mut self, job: TrialJob) {
        let source = self.source(&job.zone, &job.path);
        let trust = self.trust.clone();
        self.running.spawn(async move {
            let outcome = match source {
                None => TrialOutcome::NotTried { reason: "the probe has no such host".to_owned() },
                Some(source) => attempt(&source, &job.trial, &trust, limit(job.timeout_ms)).await,
            };
            Done::Trial(job.job, outcome)
        });
    }

    fn source(&self, zone: &seimon_plan::ZoneId, path: &seimon_plan::PathId) -> Option<Source> {
        self.sources.get(&(zone.clone(), path.clone())).cloned()
    }
}

fn limit(timeout_ms: u64) -> Duration {
    Duration::from_millis(timeout_ms).min(LONGEST)
}
