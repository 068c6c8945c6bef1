//! The town: namespaces, wires, servers, clients, the gateway, and what can be measured from outside.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use seimon_lab::{load::spec::*, netns, world::{self, *}};
//! use std::time::Duration;
//!
//! netns::enter_or_reexec()?;                      // first thing in main; everything below is in a private world
//! let mut town = params::Topology::new("two-line-town")?;
//! town.set("lines.internet.mtu", &toml::Value::Integer(1454))?;
//! let world = World::raise(&town, 1)?;            // < 3 s
//! world.use_static_gateway()?;                    // or: world.use_agent(GatewayConfig { … })? and world.gateway()
//! let teachers = world.start_load(LoadSpec { count: 100, ..LoadSpec::new("teachers", "affairs", Kind::Session) })?;
//! let undo = world.perform(&Happening::new("line.blackhole", Some("internet")))?;
//! std::thread::sleep(Duration::from_secs(2));
//! world.undo(undo)?;
//! world.stop_load(&teachers);
//! let logouts = world.metric("teachers.logouts", Duration::ZERO, world.now());
//! # Ok(()) }
//! ```
//!
//! Times are since [`World::raise`] returned ([`World::now`]); the runner keeps its own offset of the scenario's start.

pub mod events;
pub mod gateway;
pub mod params;
pub(crate) mod town;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use crate::load::spec::{LoadSpec, MetricInfo};
use gateway::{Gateway, GatewayConfig};

/// A raised town. Dropping it stops its threads and removes its namespaces.
#[derive(Debug)]
pub struct World {}

/// One thing that happens: `do`, `target` and the event's own keys. See [`events::EVENTS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    pub what: String,
    pub target: Option<String>,
    pub keys: BTreeMap<String, toml::Value>,
}

impl Happening {
    pub fn new(what: &str, target: Option<&str>) -> Self {
        Self { what: what.to_owned(), target: target.map(str::to_owned), keys: BTreeMap::new() }
    }

    /// With one more key.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        self.keys.insert(key.to_owned(), value.into());
        self
    }
}

/// How to take a happening back. Empty for those that cannot be.
#[derive(Clone, Debug, Default)]
pub struct Undo {}

/// A running or ended load.
#[derive(Clone, Debug)]
pub struct LoadHandle {
    pub id: String,
}

/// 100 ms of one load, for timelines.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    pub ok: u64,
    pub errors: u64,
    pub lost: u64,
    /// 95th percentile of what ended well in this bucket; None: nothing did.
    pub p95_ms: Option<f64>,
    /// Operations (sessions: log-ins) by the path whose egress the server saw.
    pub by_path: BTreeMap<String, u64>,
}

impl World {
    /// Raises the town. `seed` decides what is random on the wires.
    pub fn raise(_topology: &params::Topology, _seed: u64) -> Result<Self> {
        anyhow::bail!("not yet")
    }
    /// Time since the town stood.
    pub fn now(&self) -> Duration {
        Duration::ZERO
    }
    /// Makes `gw` a plain router by a fixed script, without any agent: closed path for everything from `affairs`, direct
    /// for `learning`, a simple DNS forwarder. For tests of the lab itself.
    pub fn use_static_gateway(&self) -> Result<()> {
        anyhow::bail!("not yet")
    }
    /// Prepares the gateway's directories for the agent; start it by [`Gateway::start`].
    pub fn use_agent(&self, _config: GatewayConfig) -> Result<()> {
        anyhow::bail!("not yet")
    }
    /// The agent's life; an error before [`Self::use_agent`].
    pub fn gateway(&self) -> Result<&Gateway> {
        anyhow::bail!("not yet")
    }
    /// Starts a load at once.
    pub fn start_load(&self, _spec: LoadSpec) -> Result<LoadHandle> {
        anyhow::bail!("not yet")
    }
    /// Stops a load in an orderly way: operations in progress may end (at most 2 s), nothing new is counted as error.
    pub fn stop_load(&self, _load: &LoadHandle) {}
    /// Makes something happen now.
    pub fn perform(&self, _happening: &Happening) -> Result<Undo> {
        anyhow::bail!("not yet")
    }
    /// Takes a happening back (`for` is over).
    pub fn undo(&self, _undo: Undo) -> Result<()> {
        anyhow::bail!("not yet")
    }
    /// The value of a metric over `[from, to)`: of a load (`teachers.ok`), a capture point (`wan.internet.tx.packets`,
    /// `leak.affairs.learning`, …; see [`Self::metrics`]). None: no such metric, or nothing measured (latencies).
    pub fn metric(&self, _name: &str, _from: Duration, _to: Duration) -> Option<f64> {
        None
    }
    /// Every capture metric of this town; those of loads are [`crate::load::spec::LOAD_METRICS`].
    pub fn metrics(&self) -> Vec<MetricInfo> {
        Vec::new()
    }
    /// The load's time series, one bucket each 100 ms from the town's start.
    pub fn series(&self, _load: &str) -> Vec<Bucket> {
        Vec::new()
    }
    /// A command that will run inside a node's namespace (for `lab shell`, benches, looking around).
    pub fn command(&self, _node: &str, program: &str) -> Result<std::process::Command> {
        Ok(std::process::Command::new(program))
    }
    /// Names of all nodes.
    pub fn nodes(&self) -> Vec<String> {
        Vec::new()
    }
    /// Begins writing everything at a point (`wan.internet`, `wan.carrier`) to a pcap file.
    pub fn pcap(&self, _point: &str, _file: &std::path::Path) -> Result<()> {
        anyhow::bail!("not yet")
    }
}
