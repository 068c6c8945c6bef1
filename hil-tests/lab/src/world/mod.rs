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
//! Times are those of [`World::now`]; the runner keeps its own offset of the scenario's start.

mod clock;
pub mod events;
pub mod gateway;
mod happen;
pub mod hub;
pub mod params;
mod power;
pub(crate) mod town;
#[path = "../../../sim/src/versions.rs"]
pub mod versions;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::capture::{POINT_FIELDS, PermittedFlow, Point, lock};
use crate::load::Load;
use crate::load::spec::{LoadSpec, MetricInfo};
use crate::servers::Servers;
use crate::servers::site::Site;
use crate::wire::Wire;
use gateway::{Gateway, GatewayConfig, Machine, MachineConfig, Processes};
pub use happen::Undo;
use hub::Hub;
use town::{STATIC_GATEWAY, Town};

/// A raised town. Dropping it stops its threads and removes its namespaces.
#[derive(Debug)]
pub struct World {
    start: Instant,
    seed: u64,
    loads: Mutex<BTreeMap<String, Load>>,
    gateway: OnceLock<Box<dyn Gateway>>,
    /// After the gateway: its process must not be taken for one of the gateway's.
    hub: OnceLock<Hub>,
    servers: Servers,
    town: Town,
}

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
    /// Raises the town. `seed` decides what is random on the wires and among the clients. One town at a time in a
    /// private world (see [`crate::netns::enter_or_reexec`]); a second one after the first was dropped.
    pub fn raise(topology: &params::Topology, seed: u64) -> Result<Self> {
        let start = Instant::now();
        let town = town::raise(topology, seed, start)?;
        let servers = Servers::raise(&town, topology, start)?;
        Ok(Self {
            start,
            seed,
            loads: Mutex::default(),
            gateway: OnceLock::new(),
            hub: OnceLock::new(),
            servers,
            town,
        })
    }

    /// Time on the clock of all series and metrics; it began when the raising did.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Makes `gw` a plain router by a fixed script, without any agent: closed path for everything from `affairs`, direct
    /// for `learning`, DNS passed on to the path's server. For tests of the lab itself, and the benches' bare ruleset.
    pub fn use_static_gateway(&self) -> Result<()> {
        let gw = self.town.node("gw")?;
        gw.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ])?;
        gw.ip(STATIC_GATEWAY.0)?;
        gw.nft(STATIC_GATEWAY.1)
    }

    /// Prepares the gateway's directories for the agent; start it by [`Self::start_gateway`]. Where the plan has a tunnel, the hub
    /// begins, and its key takes the place of the example's.
    pub fn use_agent(&self, mut config: GatewayConfig) -> Result<()> {
        let node = Arc::clone(self.town.node("gw")?);
        let hub = Hub::for_plan(self.town.node("hub")?, &config.plan)?;
        if let Some(hub) = &hub {
            config.plan = hub.fill_in(&config.plan);
        }
        let program = config.agent.with_file_name("seimon-tunnel");
        let gateway = Processes::new(node, config, &self.servers.authority.pem())?;
        self.settle(Box::new(gateway), hub, &program)
    }

    /// Joins a machine to the gateway's ports and switches it on; start its agent by [`Self::start_gateway`]. `tunnel` is the
    /// hub's program.
    pub fn use_machine(&self, mut config: MachineConfig, tunnel: &Path) -> Result<()> {
        let node = Arc::clone(self.town.node("gw")?);
        let hub = Hub::for_plan(self.town.node("hub")?, &config.plan)?;
        if let Some(hub) = &hub {
            config.plan = hub.fill_in(&config.plan);
        }
        if config.how.has_trunk() {
            for zone in self.town.devices.keys() {
                town::plain_frames(self.town.node(zone)?, "port")?;
            }
        }
        let gateway = Machine::new(node, config, &self.servers.authority.pem())?;
        self.settle(Box::new(gateway), hub, tunnel)
    }

    fn settle(&self, gateway: Box<dyn Gateway>, hub: Option<Hub>, tunnel: &Path) -> Result<()> {
        if let Some(hub) = hub {
            let school = gateway.school_key(hub.school_key_file())?;
            hub.begin(tunnel, school).context("the hub could not be raised")?;
            let _only_one = self.hub.set(hub);
        }
        self.gateway.set(gateway).map_err(|_| anyhow!("this town has its agent already"))
    }

    /// Starts the gateway's agent, and lets the hub know its key if that was not known before.
    pub fn start_gateway(&self, ready: Duration) -> Result<()> {
        let gateway = self.gateway()?;
        gateway.start(ready)?;
        if let Some(hub) = self.hub.get()
            && !hub.knows_the_school()
        {
            let key = gateway.school_key(hub.school_key_file())?;
            hub.learn(key.context("the agent does not tell the public key of its tunnel")?)?;
        }
        Ok(())
    }

    /// The far end of the plan's tunnel; an error where the plan has none.
    pub fn hub(&self) -> Result<&Hub> {
        self.hub
            .get()
            .ok_or_else(|| anyhow!("the plan of this town's gateway has no tunnel, so there is no hub"))
    }

    /// A plan's text as this town's gateway is to have it.
    pub(crate) fn fill_in(&self, plan: &str) -> String {
        self.hub.get().map_or_else(|| plan.to_owned(), |hub| hub.fill_in(plan))
    }

    /// From now on these flows between zones are no leaks, and no others.
    pub(crate) fn permit(&self, flows: Vec<PermittedFlow>) {
        *lock(&self.town.permitted) = flows;
    }

    pub(crate) fn permitted(&self) -> Vec<PermittedFlow> {
        lock(&self.town.permitted).clone()
    }

    /// The agent's life; an error before [`Self::use_agent`].
    pub fn gateway(&self) -> Result<&dyn Gateway> {
        self.gateway.get().map(AsRef::as_ref).ok_or_else(|| anyhow!("this town's gateway runs no agent"))
    }

    /// Starts a load at once.
    pub fn start_load(&self, spec: LoadSpec) -> Result<LoadHandle> {
        let id = spec.id.clone();
        let mut loads = lock(&self.loads);
        if loads.contains_key(&id) {
            bail!("there is a load `{id}` already");
        }
        let names = || self.town.devices.keys().copied().collect::<Vec<_>>().join(", ");
        let devices = self
            .town
            .devices
            .get(spec.zone.as_str())
            .ok_or_else(|| anyhow!("no zone `{}`; there are {}", spec.zone, names()))?;
        let node = self.town.node(&spec.zone)?;
        let load = Load::start(spec, devices, node.handle(), &self.servers.authority, self.start, self.seed)?;
        loads.insert(id.clone(), load);
        Ok(LoadHandle { id })
    }

    /// Stops a load in an orderly way: operations in progress may end (at most 2 s), what is then unfinished is counted
    /// neither as good nor as error.
    pub fn stop_load(&self, load: &LoadHandle) {
        if let Some(load) = lock(&self.loads).get(&load.id) {
            load.stop();
        }
    }

    /// The value of a metric over `[from, to)`: of a load (`teachers.ok`), a capture point (`wan.internet.tx.packets`,
    /// `leak.affairs.learning`, …; see [`Self::metrics`]). None: no such metric, or nothing measured (latencies).
    pub fn metric(&self, name: &str, from: Duration, to: Duration) -> Option<f64> {
        let words: Vec<&str> = name.split('.').collect();
        let of = |point: &Point, field: &str| point.sum(from, to).field(field);
        let number = match words[..] {
            ["wan", line, "tx"] => of(self.town.wires.get(line)?.up(), "packets")?,
            ["wan", line, "rx"] => of(self.town.wires.get(line)?.down(), "packets")?,
            ["wan", line, "tx", field] => of(self.town.wires.get(line)?.up(), field)?,
            ["wan", line, "rx", field] => of(self.town.wires.get(line)?.down(), field)?,
            ["wan", line, "forwarded"] => of(self.town.wires.get(line)?.up(), "forwarded")?,
            ["wan", line, "inside"] => {
                let wire = self.town.wires.get(line)?;
                of(wire.up(), "inside")? + of(wire.down(), "inside")?
            }
            ["wan", line, "ipv6"] => of(self.town.wires.get(line)?.up(), "ipv6")?,
            ["wan", line, "lost"] => {
                let wire = self.town.wires.get(line)?;
                of(wire.up(), "lost")? + of(wire.down(), "lost")?
            }
            ["zone", zone, "tx"] => of(&self.town.taps.get(zone)?.tx, "packets")?,
            ["zone", zone, "rx"] => of(&self.town.taps.get(zone)?.rx, "packets")?,
            ["zone", zone, "tx", field] => of(&self.town.taps.get(zone)?.tx, field)?,
            ["zone", zone, "rx", field] => of(&self.town.taps.get(zone)?.rx, field)?,
            ["leak", from_zone, to_zone] => {
                let leaks = &self.town.taps.get(to_zone)?.leaks;
                of(&leaks.iter().find(|(zone, _)| *zone == from_zone)?.1, "leaked")?
            }
            [load, ..] => {
                let metric = name.strip_prefix(load)?.strip_prefix('.')?;
                return lock(&self.loads).get(load)?.metric(metric, &self.servers.log, from, to);
            }
            [] => return None,
        };
        Some(number as f64)
    }

    /// Every capture metric of this town; those of loads are [`crate::load::spec::LOAD_METRICS`].
    pub fn metrics(&self) -> Vec<MetricInfo> {
        capture_metrics()
    }

    /// The load's time series, one bucket each 100 ms, the first at time 0 of [`Self::now`].
    pub fn series(&self, load: &str) -> Vec<Bucket> {
        lock(&self.loads).get(load).map(|load| load.series(&self.servers.log)).unwrap_or_default()
    }

    /// A command that will run inside a node's namespace (for `lab shell`, benches, looking around).
    pub fn command(&self, node: &str, program: &str) -> Result<Command> {
        Ok(self.town.node(node)?.command(program))
    }

    /// Names of all nodes.
    pub fn nodes(&self) -> Vec<String> {
        self.town.nodes.keys().map(|name| (*name).to_owned()).collect()
    }

    /// The line between `gw` and its peer: `carrier` or `internet`.
    pub fn wire(&self, line: &str) -> Result<&Wire> {
        self.town.wires.get(line).with_context(|| {
            let lines = self.town.wires.keys().copied().collect::<Vec<_>>().join(", ");
            format!("this town has no line `{line}`; it has {lines}")
        })
    }

    /// Begins writing everything at a point (`wan.internet`, `wan.carrier`) to a pcap file.
    pub fn pcap(&self, point: &str, file: &Path) -> Result<()> {
        let line = point.strip_prefix("wan.").unwrap_or(point);
        self.wire(line)?.pcap(file)
    }

    /// The lab CA's certificate (PEM), which all servers' certificates come from.
    pub fn ca_pem(&self) -> String {
        self.servers.authority.pem()
    }

    fn site(&self, name: &str) -> Result<&Site> {
        self.servers.sites.get(name).map(AsRef::as_ref).with_context(|| format!("no site `{name}`"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for load in lock(&self.loads).values() {
            load.stop();
        }
    }
}

/// Every capture metric, for the vocabulary: `<…>` stands for a line or a zone.
pub fn capture_metrics() -> Vec<MetricInfo> {
    let mut all = Vec::new();
    let mut add = |name: String, unit, meaning| {
        all.push(MetricInfo { name: Box::leak(name.into_boxed_str()), unit, meaning })
    };
    for line in ["carrier", "internet", "lte"] {
        for way in ["tx", "rx"] {
            for (field, unit, meaning) in POINT_FIELDS {
                add(format!("wan.{line}.{way}.{field}"), unit, meaning);
            }
        }
        add(format!("wan.{line}.tx"), "count", "frames from the gateway to the line");
        add(format!("wan.{line}.rx"), "count", "frames from the line to the gateway");
        add(format!("wan.{line}.inside"), "count", "packets on the line, either way, with an inside address");
        add(format!("wan.{line}.ipv6"), "count", "IPv6 packets that the gateway sent to the line");
        add(format!("wan.{line}.lost"), "count", "packets that the line lost, either way");
        add(format!("wan.{line}.forwarded"), "count", "packets of clients that the gateway sent to the line");
    }
    let zones = town::zones();
    for zone in &zones {
        let zone = zone.name;
        add(format!("zone.{zone}.rx"), "count", "IP packets from the gateway into the zone");
        add(format!("zone.{zone}.tx"), "count", "IP packets from the zone to the gateway");
    }
    for from in &zones {
        for to in zones.iter().filter(|z| z.name != from.name) {
            let meaning = "packets from the first zone seen in the second without a permit";
            add(format!("leak.{}.{}", from.name, to.name), "count", meaning);
        }
    }
    all
}
