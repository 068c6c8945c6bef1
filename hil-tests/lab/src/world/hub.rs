//! The far end of the school's tunnels: `seimon-tunnel` in the node `hub`, configured as the gateway's own is.
//!
//! The hub knows the public half of the school's key before the agent starts, where the lab makes it beside the agent's state;
//! else the agent makes it and tells. The hub's own key is made at run time too, and takes the place of the example key in the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use seimon_board::InterfaceName;
use seimon_core::network_plan::{
    Address, Change, ChangeSet, Dataplane as _, Link, LinkKind, Peer, PeerState, Tunnel,
};
use seimon_dataplane::{Linux, PrivateKey};
use seimon_plan::WireguardKey;
use tempfile::TempDir;

use super::town::{HUB, HUB_MOVED};
use crate::capture::lock;
use crate::nodes::{Node, enter};

/// The key that stands in shipped plans for the hub's: 32 bytes of zero.
const EXAMPLE_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const INTERFACE: &str = "wg-hub";
const PORT: u16 = 51820;
const MTU: u16 = 1420;
const INSIDE: &str = "10.60.1.1/30";
/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(3);

/// The school's end of a tunnel, as a plan says it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SchoolEnd {
    /// In the agent's state directory.
    key_file: String,
    address: Ipv4Addr,
    /// Sources behind it that are kept (`nat4 = "routed"`).
    is_routed: bool,
}

/// The hub's side of the school's tunnel.
#[derive(Debug)]
pub struct Hub {
    node: Arc<Node>,
    keys: TempDir,
    public: WireguardKey,
    school: SchoolEnd,
    end: Mutex<Option<End>>,
}

/// The process and what it is to be configured with.
#[derive(Debug)]
struct End {
    linux: Linux,
    tunnel: Tunnel,
}

/// Runs `work` on a thread in the node's namespace; sockets and processes made there stay there.
fn inside<T: Send>(node: &Node, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let work = || {
            enter(node.name())?;
            work()
        };
        scope.spawn(work).join().map_err(|_| anyhow::anyhow!("a thread at {} panicked", node.name()))?
    })
}

impl Hub {
    /// None: the plan has no tunnel.
    pub(super) fn for_plan(node: &Arc<Node>, plan: &str) -> Result<Option<Self>> {
        let Some(school) = school_end(plan)? else { return Ok(None) };
        let keys = tempfile::Builder::new().prefix("seimon-lab-hub-").tempdir()?;
        let (key, _) = PrivateKey::load_or_make(&keys.path().join("key"))?;
        Ok(Some(Self { node: Arc::clone(node), keys, public: key.public(), school, end: Mutex::default() }))
    }

    /// The plan's text with this hub's public key where the example's stood.
    pub(crate) fn fill_in(&self, plan: &str) -> String {
        plan.replace(EXAMPLE_KEY, &self.public.to_string())
    }

    /// Begins to answer; to the school's key if it is known already (else: [`Self::learn`]).
    pub(super) fn begin(&self, program: &Path, school: Option<WireguardKey>) -> Result<()> {
        let peer = self.peer()?;
        let tunnel = Tunnel {
            private_key_file: self.keys.path().join("key"),
            own: None,
            listen_port: PORT,
            mark: 0,
            peers: school.into_iter().map(|key| (key, peer.clone())).collect(),
        };
        let program = PathBuf::from(program);
        let end = inside(&self.node, || {
            let mut linux = Linux::open()?;
            linux.carry_tunnels_with(&program);
            Ok(End { linux, tunnel })
        })?;
        *lock(&self.end) = Some(end);
        self.raise()
    }

    /// Where the school's private key is in the agent's state.
    pub(super) fn school_key_file(&self) -> &str {
        &self.school.key_file
    }

    pub(super) fn knows_the_school(&self) -> bool {
        lock(&self.end).as_ref().is_some_and(|end| !end.tunnel.peers.is_empty())
    }

    /// What the hub lets the school be.
    fn peer(&self) -> Result<Peer> {
        let mut allowed = BTreeSet::from([format!("{}/32", self.school.address).parse()?]);
        if self.school.is_routed {
            allowed.insert("10.20.0.0/16".parse()?);
        }
        Ok(Peer { endpoint: None, allowed, keepalive: None })
    }

    /// Makes interface and process, if they are not there, and routes to the school.
    pub(crate) fn raise(&self) -> Result<()> {
        let name = InterfaceName::new(INTERFACE)?;
        self.with_end(|end| {
            let link = Link { name: name.clone(), kind: LinkKind::Tunnel, mtu: Some(MTU) };
            let address = Address { interface: name.clone(), address: INSIDE.parse()? };
            let set = Change::TunnelSet { interface: name.clone(), tunnel: end.tunnel.clone() };
            let changes = vec![Change::LinkUp(link), Change::AddressAdd(address), set];
            Ok(end.linux.apply(&ChangeSet { changes })?)
        })?;
        let routes = if self.school.is_routed { "route replace 10.20.0.0/16 dev wg-hub\n" } else { "" };
        self.node.ip(&format!("route replace 10.60.1.0/30 dev wg-hub\n{routes}"))
    }

    fn with_end<T: Send>(&self, work: impl FnOnce(&mut End) -> Result<T> + Send) -> Result<T> {
        let mut end = lock(&self.end);
        let end = end.as_mut().context("the hub has not begun")?;
        inside(&self.node, || work(end))
    }

    /// Another key of the school's, beside those that it has already.
    pub(crate) fn learn(&self, key: WireguardKey) -> Result<()> {
        let (name, peer) = (InterfaceName::new(INTERFACE)?, self.peer()?);
        self.with_end(|end| {
            end.tunnel.peers.insert(key, peer);
            let change = Change::TunnelSet { interface: name, tunnel: end.tunnel.clone() };
            Ok(end.linux.apply(&ChangeSet { changes: vec![change] })?)
        })
    }

    /// The school as the hub sees it, by key.
    pub fn peers(&self) -> Result<BTreeMap<WireguardKey, PeerState>> {
        let seen = self.with_end(|end| Ok(end.linux.observe(&[])?))?;
        let name = InterfaceName::new(INTERFACE)?;
        Ok(seen.tunnels.get(&name).map(|tunnel| tunnel.peers.clone()).unwrap_or_default())
    }

    /// kill -9 of the process: sessions are lost, the interface goes. Returns when it is gone.
    pub(crate) fn kill(&self) -> Result<()> {
        let found = || super::gateway::tunnels().find(|(_, interface)| interface == INTERFACE);
        let (pid, _) = found().context("the hub's tunnel does not run")?;
        kill_process(i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process")?, Signal::KILL)?;
        let begun = Instant::now();
        while found().is_some() {
            ensure!(begun.elapsed() < DEATH, "the hub's tunnel does not die");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Nothing that comes to the hub's port from outside is heard any more, and nobody is told; or it is again.
    pub(crate) fn set_silent(&self, silent: bool) -> Result<()> {
        let rule = if silent { "udp dport 51820 drop" } else { "" };
        self.node.nft(&format!(
            "table inet silence\ndelete table inet silence\n\
             table inet silence {{\nchain entry {{\ntype filter hook prerouting priority raw;\n{rule}\n}}\n}}\n"
        ))
    }

    /// The hub's address becomes another.
    pub(crate) fn move_away(&self) -> Result<()> {
        self.node.ip(&format!(
            "addr add {HUB_MOVED}/32 dev lo\nroute replace default via 198.19.0.1 src {HUB_MOVED}\n\
             addr del {HUB}/32 dev lo\n"
        ))
    }
}

/// The one end that the hub can be the other of.
fn school_end(plan: &str) -> Result<Option<SchoolEnd>> {
    let plan: toml::Table = plan.parse().context("the plan is not TOML")?;
    let none = toml::Table::new();
    let paths = plan.get("paths").and_then(toml::Value::as_table).unwrap_or(&none);
    let mut ends = Vec::new();
    for (id, path) in paths {
        let Some(tunnel) = path.get("wireguard") else { continue };
        let text = |key: &str| tunnel.get(key).and_then(toml::Value::as_str);
        let address = text("ipv4").and_then(|net| net.split_once('/')?.0.parse().ok());
        let (Some(key_file), Some(address)) = (text("private_key_file"), address) else {
            bail!("path `{id}` says no private_key_file or no ipv4: the lab's hub cannot be its other end");
        };
        let is_routed = path.get("nat4").and_then(toml::Value::as_str) == Some("routed");
        ends.push(SchoolEnd { key_file: key_file.to_owned(), address, is_routed });
    }
    ensure!(ends.len() <= 1, "the lab's hub is the far end of one tunnel, and the plan has {}", ends.len());
    Ok(ends.pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_school_end_is_read_from_the_plan() {
        let plan = "[paths.vpn]\nnat4 = \"masquerade\"\n[paths.vpn.wireguard]\nprivate_key_file = \"k\"\nipv4 = \"10.60.1.2/30\"\n";
        let end = SchoolEnd { key_file: "k".into(), address: Ipv4Addr::new(10, 60, 1, 2), is_routed: false };
        assert_eq!(school_end(plan).unwrap(), Some(end));
        assert_eq!(school_end("[paths.direct]\nkind = \"plain\"\n").unwrap(), None);
        assert!(school_end(&format!("{plan}{}", plan.replace("vpn", "other"))).is_err(), "two tunnels");
    }
}
