//! ```text
//!  affairs ──lan1── gw ──wan2── net ──eth1── hub ── lo: 10.50.0.53 (town hall), 203.0.113.7
//!  10.20.1.100      192.0.2.2   (router)     198.51.100.20, .21
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use seimon_board::{Board, InterfaceName};
use seimon_core::network_plan::{
    Address, Allocation, Change, ChangeSet, Dataplane as _, Generation, Link, LinkKind, NetworkPlan,
    Observed, PathChoice, Peer, PeerState, Tunnel, compile, diff, verify,
};
use seimon_dataplane::{Linux, PrivateKey};
use seimon_plan::{ValidSitePlan, WireguardKey};

const INSIDE: &str = "SEIMON_TEST_INSIDE";
const PLAN: &str = include_str!("../../../../provisioning/plan/examples/one-line-town.toml");
pub(crate) const SERVER: &str = "10.50.0.53:8080";
const PROGRAM: &str = env!("CARGO_BIN_EXE_seimon-tunnel");

/// Runs the test in namespaces of its own, in a process of its own.
pub(crate) fn in_namespaces<F: FnOnce() -> Result<()>>(body: F) -> Result<()> {
    let full = std::any::type_name::<F>();
    let name = full
        .split_once("::")
        .map(|(_, rest)| rest.trim_end_matches("::{{closure}}"))
        .context("a test is in a module")?;
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        return body();
    }
    let flags = ["-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc"];
    let tried = Command::new("unshare")
        .args(flags)
        .args(["sh", "-ec", "nft list ruleset; mount -t tmpfs t /run; ip tuntap add dev try mode tun"])
        .stdin(Stdio::null())
        .output();
    if !tried.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: private namespaces with nft, ip and TUN are not to be had here");
        return Ok(());
    }
    let output = Command::new("unshare")
        .args(flags)
        .arg(std::env::current_exe()?)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()?;
    let words =
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{words}");
    ensure!(output.status.success(), "it failed inside its namespaces: {words}");
    ensure!(words.contains("1 passed"), "no test is called {name}");
    Ok(())
}

pub(crate) fn sh(node: &str, script: &str) -> Result<String> {
    let output = Command::new("nsenter")
        .args([&format!("--net=/run/netns/{node}"), "--", "sh", "-ec", script])
        .stdin(Stdio::null())
        .output()
        .with_context(|| script.to_owned())?;
    if !output.status.success() {
        bail!("at {node}: {script}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `work` on a thread in a node's network namespace; sockets made there stay there.
pub(crate) fn inside<T: Send>(node: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let work = || {
            enter(node)?;
            work()
        };
        scope.spawn(work).join().map_err(|_| anyhow::anyhow!("a thread at {node} panicked"))?
    })
}

pub(crate) fn enter(node: &str) -> Result<()> {
    let file = File::open(format!("/run/netns/{node}")).with_context(|| node.to_owned())?;
    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Until it holds, or for so long.
pub(crate) fn until<T>(seconds: u64, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(begun.elapsed() < Duration::from_secs(seconds), "{what}: not in {seconds} s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The hub: the same data plane, told by hand.
#[derive(Debug)]
pub(crate) struct Hub {
    linux: Linux,
    pub(crate) tunnel: Tunnel,
    name: InterfaceName,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) net: NetworkPlan,
    pub(crate) linux: Linux,
    pub(crate) hub: Hub,
    pub(crate) school_key: PathBuf,
}

fn key(file: &Path) -> Result<WireguardKey> {
    Ok(PrivateKey::load_or_make(file)?.0.public())
}

/// What a hub lets the school's end be.
pub(crate) fn school() -> Peer {
    let nets = ["10.60.1.2/32", "10.20.0.0/16"];
    let allowed: BTreeSet<_> = nets.iter().filter_map(|net| net.parse().ok()).collect();
    Peer { endpoint: None, allowed, keepalive: None }
}

impl Hub {
    fn raise(key_file: &Path, school_key: WireguardKey) -> Result<Self> {
        let name = InterfaceName::new("wg-hub")?;
        let tunnel = Tunnel {
            private_key_file: key_file.to_owned(),
            own: None,
            listen_port: 51820,
            mark: 0,
            peers: BTreeMap::from([(school_key, school())]),
        };
        let mut hub = inside("hub", || {
            let mut linux = Linux::open()?;
            linux.carry_tunnels_with(Path::new(PROGRAM));
            let link = Link { name: name.clone(), kind: LinkKind::Tunnel, mtu: Some(1420) };
            let address = Address { interface: name.clone(), address: "10.60.1.1/30".parse()? };
            linux.apply(&ChangeSet { changes: vec![Change::LinkUp(link), Change::AddressAdd(address)] })?;
            Ok(Self { linux, tunnel, name })
        })?;
        hub.configure()?;
        sh("hub", "ip route add 10.60.1.0/30 dev wg-hub; ip route add 10.20.0.0/16 dev wg-hub")?;
        Ok(hub)
    }

    pub(crate) fn configure(&mut self) -> Result<()> {
        let change = Change::TunnelSet { interface: self.name.clone(), tunnel: self.tunnel.clone() };
        inside("hub", || Ok(self.linux.apply(&ChangeSet { changes: vec![change] })?))
    }

    pub(crate) fn peer(&mut self, key: &WireguardKey) -> Result<PeerState> {
        let seen = inside("hub", || Ok(self.linux.observe(&[])?))?;
        let tunnel = seen.tunnels.get(&self.name).context("the hub's tunnel")?;
        tunnel.peers.get(key).cloned().context("the school at the hub")
    }
}

impl World {
    pub(crate) fn raise() -> Result<Self> {
        Self::raise_with(|_| {})
    }

    /// `change` may change the plan's text.
    pub(crate) fn raise_with(change: impl FnOnce(&mut String)) -> Result<Self> {
        mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).context("tmpfs on /run")?;
        std::fs::create_dir("/run/netns")?;
        std::fs::create_dir("/run/keys")?;
        for node in ["gw", "net", "hub", "affairs"] {
            let made = Command::new("ip").args(["netns", "add", node]).status()?;
            ensure!(made.success(), "ip netns add {node}");
            sh(
                node,
                "ip link set lo up; for f in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 > $f; done",
            )?;
        }
        sh(
            "gw",
            "ip link add wan2 type veth peer name eth0 netns net
                  ip link add lan1 type veth peer name eth0 netns affairs
                  for n in 2 3; do ip link add lan$n type veth peer name x$n; done
                  ip link add wan1 type veth peer name x1",
        )?;
        sh(
            "net",
            "ip link add eth1 type veth peer name eth0 netns hub
                   ip address add 192.0.2.1/30 dev eth0; ip link set eth0 up
                   ip address add 198.51.100.1/24 dev eth1; ip link set eth1 up
                   echo 1 > /proc/sys/net/ipv4/ip_forward",
        )?;
        sh(
            "hub",
            "ip address add 198.51.100.20/24 dev eth0; ip link set eth0 up
                   ip address add 10.50.0.53/32 dev lo; ip address add 203.0.113.7/32 dev lo
                   ip route add default via 198.51.100.1
                   echo 1 > /proc/sys/net/ipv4/ip_forward",
        )?;
        sh(
            "affairs",
            "ip address add 10.20.1.100/24 dev eth0; ip link set eth0 up
                       ip route add default via 10.20.1.1",
        )?;
        let (hub_key, school_key) = (PathBuf::from("/run/keys/hub"), PathBuf::from("/run/keys/school"));
        let mut text =
            PLAN.replace("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", &key(&hub_key)?.to_string());
        text = text.replace("\"wireguard.key\"", "\"/run/keys/school\"");
        change(&mut text);
        let plan = seimon_plan::parse(&text, "plan.toml", &board()?)?;
        let mut net = compiled(&plan)?;
        let hub = Hub::raise(&hub_key, key(&school_key)?)?;
        enter("gw")?;
        let mut linux = Linux::open()?;
        linux.carry_tunnels_with(Path::new(PROGRAM));
        if !linux.has_flowtables()? {
            net.ruleset = net.ruleset.without_flowtable();
        }
        let mut world = Self { net, linux, hub, school_key };
        world.converge()?;
        Ok(world)
    }

    pub(crate) fn observe(&mut self) -> Result<Observed> {
        let sysctls: Vec<String> = self.net.sysctls.iter().map(|sysctl| sysctl.path.clone()).collect();
        Ok(self.linux.observe(&sysctls)?)
    }

    /// Makes the kernel agree with the plan; tells what had to be changed.
    pub(crate) fn converge(&mut self) -> Result<Vec<Change>> {
        let changes = diff(&self.observe()?, None, &self.net);
        self.linux.apply(&changes)?;
        let left = verify(&self.observe()?, &self.net);
        ensure!(left.is_empty(), "{left:?}");
        Ok(changes.changes)
    }

    pub(crate) fn name(&self) -> InterfaceName {
        self.net.tunnels.keys().next().cloned().unwrap_or_else(|| unreachable!("the plan has a tunnel"))
    }

    /// The hub, as the school's end sees it.
    pub(crate) fn peer(&mut self) -> Result<PeerState> {
        let (seen, name) = (self.observe()?, self.name());
        let tunnel = seen.tunnels.get(&name).context("nobody answers for the tunnel")?;
        tunnel.peers.values().next().cloned().context("the tunnel has no peer")
    }

    /// The school gets another key.
    pub(crate) fn another_key(&self) -> Result<WireguardKey> {
        let key = PrivateKey::generate();
        key.save(&self.school_key)?;
        Ok(key.public())
    }

    /// Configures the school's end with whatever its key is now.
    pub(crate) fn reconfigure(&mut self) -> Result<()> {
        let name = self.name();
        let tunnel = self.net.tunnels[&name].clone();
        let changes = vec![Change::TunnelSet { interface: name, tunnel }];
        Ok(self.linux.apply(&ChangeSet { changes })?)
    }

    pub(crate) fn process(&self) -> Result<u32> {
        let name = self.name();
        for entry in std::fs::read_dir("/proc")? {
            let entry = entry?;
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            if words.first() == Some(&PROGRAM.as_bytes()) && words.get(1) == Some(&name.as_str().as_bytes()) {
                return Ok(pid);
            }
        }
        bail!("no process carries {name}")
    }
}

pub(crate) fn endpoint(text: &str) -> Result<SocketAddr> {
    Ok(text.parse()?)
}

pub(crate) fn open_to_all(file: &Path) -> Result<()> {
    Ok(std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644))?)
}

fn board() -> Result<Board> {
    Board::shipped("lab-namespace").context("a shipped board")
}

/// Every group on the first path of its route: the tunnel.
fn compiled(plan: &ValidSitePlan) -> Result<NetworkPlan> {
    let allocation = Allocation::default().extend(plan)?;
    let on = |route: &seimon_plan::MigrationRoute| PathChoice::On(route.paths[0].clone());
    let choice = plan.routes().iter().map(|r| ((r.zone.clone(), r.group.clone()), on(r))).collect();
    Ok(compile(plan, &allocation, &choice, None, Generation(1))?)
}
