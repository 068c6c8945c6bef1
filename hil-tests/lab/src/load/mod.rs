//! Clients and what they measure.

mod browser;
mod clients;
mod datagrams;
mod pac;
mod recorder;
mod shift;
pub mod spec;
mod stub;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use browser::{Browser, Target};
use clients::Client;
use recorder::Recorder;
use shift::Shift;
use spec::{Kind, LoadSpec, SERVICES};

use crate::capture::{bucket_of, lock};
use crate::servers::site::{Entry, Log};
use crate::servers::tls::Authority;
use crate::wire::Random;
use crate::world::Bucket;
use crate::world::town::Device;

/// How long operations in progress may take to end when a load is stopped.
const FAREWELL: Duration = Duration::from_secs(2);

/// A load that runs or ran.
#[derive(Debug)]
pub(crate) struct Load {
    spec: Arc<LoadSpec>,
    recorder: Arc<Recorder>,
    stop: watch::Sender<bool>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
    handle: Handle,
}

impl Load {
    /// Starts the clients on their zone's node.
    pub(crate) fn start(
        spec: LoadSpec,
        devices: &[Device],
        handle: &Handle,
        authority: &Authority,
        start: Instant,
        seed: u64,
    ) -> Result<Self> {
        let target = target(&spec)?;
        if devices.is_empty() {
            bail!("zone `{}` has no devices", spec.zone);
        }
        let spec = Arc::new(spec);
        let recorder = Arc::new(Recorder::new(start));
        let (stop, stopped) = watch::channel(false);
        let mut random = Random::new(seed ^ spec.id.bytes().fold(7, |sum, b| sum * 31 + u64::from(b)));
        let mut tasks = Vec::new();
        for number in 0..spec.count {
            // Transfers take the zone's last devices: a device that is never quiet would keep the others' groups.
            let index = number as usize % devices.len();
            let index = match spec.kind {
                Kind::Download | Kind::Upload => devices.len() - 1 - index,
                Kind::Session | Kind::Request | Kind::Udp | Kind::Connect | Kind::Dns | Kind::Ping => index,
            };
            let device = devices[index].clone();
            let client = Client {
                number,
                spec: Arc::clone(&spec),
                shift: Shift::new(&spec, index, start),
                target: target.clone(),
                browser: Browser {
                    device,
                    family: spec.family,
                    dial: spec.dial,
                    via: spec.via,
                    pac: pac::PacFile::default(),
                    stub: stub::Stub::default(),
                    tls: authority.client()?,
                    answered: BTreeSet::new(),
                },
                recorder: Arc::clone(&recorder),
                stop: stopped.clone(),
                random: Random::new(random.next()),
            };
            tasks.push(handle.spawn(client.run()));
        }
        Ok(Self { spec, recorder, stop, tasks: std::sync::Mutex::new(tasks), handle: handle.clone() })
    }

    /// Ends it: nothing new begins, what is in progress may end, the rest is dropped uncounted.
    pub(crate) fn stop(&self) {
        let _ = self.stop.send(true);
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        self.handle.spawn(async move {
            let deadline = tokio::time::Instant::now() + FAREWELL;
            for mut task in tasks {
                if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                    task.abort();
                }
            }
            drop(done);
        });
        let _ = is_done.recv_timeout(FAREWELL * 2);
    }

    /// A metric of this load, by the clients or by the servers' log.
    pub(crate) fn metric(&self, name: &str, log: &Log, from: Duration, to: Duration) -> Option<f64> {
        let count = |entry: Entry, path: Option<&str>| {
            let mut number = 0u64;
            log.each(&self.spec.id, |line| {
                let within = (from..to).contains(&line.at);
                number += u64::from(within && line.entry == entry && path.is_none_or(|p| p == line.path));
            });
            Some(number as f64)
        };
        match name {
            "two_addresses" => count(Entry::TwoAddresses, None),
            "on.closed" => count(self.path_entry(), Some("closed")),
            "on.vpn" => count(self.path_entry(), Some("vpn")),
            "on.direct" => count(self.path_entry(), Some("direct")),
            "on.lte" => count(self.path_entry(), Some("lte")),
            "on.other" => count(self.path_entry(), Some("other")),
            _ => self.recorder.metric(name, from, to),
        }
    }

    /// What counts as "an operation on a path".
    fn path_entry(&self) -> Entry {
        if self.spec.kind == Kind::Session { Entry::Began } else { Entry::Served }
    }

    pub(crate) fn series(&self, log: &Log) -> Vec<Bucket> {
        let mut series: Vec<Bucket> = self
            .recorder
            .slices()
            .into_iter()
            .map(|s| Bucket {
                ok: s.ok,
                errors: s.errors,
                lost: s.lost,
                p95_ms: s.p95_ms,
                by_path: BTreeMap::new(),
            })
            .collect();
        log.each(&self.spec.id, |line| {
            if line.entry != self.path_entry() {
                return;
            }
            let index = bucket_of(line.at);
            if series.len() <= index {
                series.resize_with(index + 1, Bucket::default);
            }
            *series[index].by_path.entry(line.path.to_owned()).or_default() += 1;
        });
        series
    }
}

/// Whom the load talks to.
fn target(spec: &LoadSpec) -> Result<Target> {
    let default = match spec.kind {
        Kind::Session => "affairs",
        Kind::Udp => "drill",
        Kind::Download | Kind::Upload => "learning",
        Kind::Request | Kind::Connect | Kind::Dns | Kind::Ping => "www",
    };
    let port = if spec.kind == Kind::Udp { 7000 } else { 443 };
    let text =
        match (&spec.target, &spec.service) {
            (Some(_), Some(_)) => bail!("load `{}`: give service or target, not both", spec.id),
            (Some(target), None) => target.as_str(),
            (None, service) => {
                let name = service.as_deref().unwrap_or(default);
                let names = || SERVICES.iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
                SERVICES.iter().find(|s| s.name == name).map(|s| s.target).ok_or_else(|| {
                    anyhow!("load `{}`: no service `{name}`; there are {}", spec.id, names())
                })?
            }
        };
    if spec.kind == Kind::Session && spec.service.as_deref().unwrap_or("affairs") != "affairs" {
        bail!("load `{}`: only the service affairs has sessions", spec.id);
    }
    Target::parse(text, port)
        .ok_or_else(|| anyhow!("load `{}`: `{text}` is neither a name nor an address", spec.id))
}
