//! ```text
//!  a ── 192.0.2.2 ──┐                                          ┌─ wan1 198.51.100.20 ─┐
//!                   ├── net (router, 203.0.113.7) ─────────────┤                      hub
//!  b ── 192.0.2.6 ──┘                                          └─ lan1 10.50.255.2 ───┴── town 10.50.255.1
//!  a: 10.60.1.2, 10.20.1.5    b: 10.60.1.3, 10.21.1.5               10.50.0.53, 10.50.0.80, 10.50.9.9
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use seimon_board::InterfaceName;
use seimon_core::network_plan::{Address, Change, ChangeSet, Dataplane as _, Link, LinkKind, Peer, Tunnel};
use seimon_dataplane::{Linux, PrivateKey};
use seimon_ipc::control::{Command as Ask, Event, Follow, Request, Response, VERSION};
use seimon_ipc::hub::{HubAsk, HubStatus, SchoolEnd};
use seimon_plan::WireguardKey;

const INSIDE: &str = "SEIMON_TEST_INSIDE";
const AGENT: &str = env!("CARGO_BIN_EXE_seimon-agent");
pub(crate) const TOWN: &str = "10.50.0.80:8080";
pub(crate) const INTERNET: &str = "203.0.113.7:8080";
/// A test that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(100);

/// Runs the test in namespaces of its own, in a process of its own; its name is the closure's.
pub(crate) fn in_world<F: FnOnce(&mut World) -> Result<()>>(body: F) -> Result<()> {
    let full = std::any::type_name::<F>();
    let name = full
        .split_once("::")
        .map(|(_, rest)| rest.trim_end_matches("::{{closure}}"))
        .context("a test is in a module")?;
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        return body(&mut World::raise()?);
    }
    let tunnel = tunnel_program();
    ensure!(tunnel.exists(), "seimon-tunnel is not built: run `cargo build` for the whole workspace first");
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
    let patience = PATIENCE.as_secs().to_string();
    let output = Command::new("timeout")
        .args(["--signal=KILL", patience.as_str(), "unshare"])
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

fn tunnel_program() -> PathBuf {
    Path::new(AGENT).with_file_name("seimon-tunnel")
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
            let file = File::open(format!("/run/netns/{node}")).with_context(|| node.to_owned())?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        scope.spawn(work).join().map_err(|_| anyhow::anyhow!("a thread at {node} panicked"))?
    })
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

/// A school's end of the tunnel: the gateway's own data plane, told by hand.
#[derive(Debug)]
pub(crate) struct School {
    pub(crate) node: &'static str,
    linux: Linux,
    name: InterfaceName,
    tunnel: Tunnel,
    key_file: PathBuf,
    pub(crate) key: WireguardKey,
}

impl School {
    fn raise(node: &'static str, hub: WireguardKey, addresses: &[&str]) -> Result<Self> {
        let key_file = PathBuf::from(format!("/run/keys/{node}"));
        let key = PrivateKey::load_or_make(&key_file)?.0.public();
        let name = InterfaceName::new("wg-closed")?;
        let allowed: BTreeSet<_> = ["0.0.0.0/0"].iter().filter_map(|net| net.parse().ok()).collect();
        let endpoint = Some("198.51.100.20:51820".parse()?);
        let peer = Peer { endpoint, allowed, keepalive: Some(25) };
        let tunnel = Tunnel {
            private_key_file: key_file.clone(),
            own: None,
            listen_port: 51820,
            mark: 0,
            peers: BTreeMap::from([(hub, peer)]),
        };
        let linux = inside(node, || {
            let mut linux = Linux::open()?;
            linux.carry_tunnels_with(&tunnel_program());
            let link = Link { name: name.clone(), kind: LinkKind::Tunnel, mtu: Some(1420) };
            let mut changes = vec![Change::LinkUp(link)];
            for address in addresses {
                let address = Address { interface: name.clone(), address: address.parse()? };
                changes.push(Change::AddressAdd(address));
            }
            changes.push(Change::TunnelSet { interface: name.clone(), tunnel: tunnel.clone() });
            linux.apply(&ChangeSet { changes })?;
            Ok(linux)
        })?;
        let routes = ["10.50.0.0/16", "10.60.0.0/16", "10.20.0.0/16", "10.21.0.0/16", "203.0.113.0/24"];
        let own = addresses[0].split('/').next().unwrap_or_default();
        for net in routes {
            sh(node, &format!("ip route replace {net} dev wg-closed src {own}"))?;
        }
        Ok(Self { node, linux, name, tunnel, key_file, key })
    }

    /// Takes another key into use, as `seimonctl wireguard switch` does at a school.
    pub(crate) fn switch_to(&mut self, key: &PrivateKey) -> Result<()> {
        key.save(&self.key_file)?;
        self.key = key.public();
        let change = Change::TunnelSet { interface: self.name.clone(), tunnel: self.tunnel.clone() };
        inside(self.node, || Ok(self.linux.apply(&ChangeSet { changes: vec![change] })?))
    }
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) a: School,
    pub(crate) b: School,
    pub(crate) agent: Agent,
}

/// Everything of the hub's plan but the schools.
const PLAN: &str = r#"version = 1
role = "hub"
[hub]
id = "sakura-hub"
name = "さくら市センター"
board = "lab-namespace"
timezone = "Asia/Tokyo"
[lines.internet]
port = "WAN1"
ipv4 = "198.51.100.20/24"
gateway4 = "198.51.100.1"
[lines.townhall]
port = "LAN1"
ipv4 = "10.50.255.2/30"
gateway4 = "10.50.255.1"
[tunnel]
line = "internet"
private_key_file = "/run/keys/hub"
ipv4 = "10.60.0.1/16"
[town]
line = "townhall"
prefixes = ["10.50.0.0/16"]
nat4 = "routed"
[dns]
servers = ["10.50.0.53"]
[egress]
line = "internet"
ipv4 = ["198.51.100.10", "198.51.100.11"]
[control]
line = "townhall"
from = ["10.50.9.0/24"]
ports = ["tcp/22"]
[schools]
"#;

/// A school's table in the plan.
pub(crate) fn school(id: &str, ipv4: &str, keys: &[WireguardKey], more: &str) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("{{ public_key = \"{key}\" }}")).collect();
    format!("[schools.{id}]\nname = \"{id}\"\nipv4 = \"{ipv4}\"\nkeys = [{}]\n{more}\n", keys.join(", "))
}

pub(crate) fn plan(schools: &[String]) -> String {
    format!("{PLAN}{}", schools.concat())
}

impl World {
    fn raise() -> Result<Self> {
        mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).context("tmpfs on /run")?;
        fs::create_dir("/run/netns")?;
        fs::create_dir("/run/keys")?;
        for node in ["hub", "net", "town", "a", "b"] {
            let made = Command::new("ip").args(["netns", "add", node]).status()?;
            ensure!(made.success(), "ip netns add {node}");
            sh(node, "ip link set lo up")?;
        }
        sh(
            "hub",
            "ip link add wan1 type veth peer name hub netns net
                   ip link add lan1 type veth peer name eth0 netns town",
        )?;
        sh(
            "net",
            "ip link add to-a type veth peer name eth0 netns a; ip link add to-b type veth peer name eth0 netns b
                   ip address add 198.51.100.1/24 dev hub; ip address add 192.0.2.1/30 dev to-a
                   ip address add 192.0.2.5/30 dev to-b; ip address add 203.0.113.7/32 dev lo
                   for i in hub to-a to-b; do ip link set $i up; done
                   echo 1 > /proc/sys/net/ipv4/ip_forward",
        )?;
        sh(
            "town",
            "ip link set eth0 up; ip address add 10.50.255.1/30 dev eth0
                    for i in 10.50.0.53 10.50.0.80 10.50.9.9; do ip address add $i/32 dev lo; done
                    ip route add default via 10.50.255.2",
        )?;
        for (node, own, gateway) in [("a", "192.0.2.2/30", "192.0.2.1"), ("b", "192.0.2.6/30", "192.0.2.5")] {
            sh(
                node,
                &format!(
                    "ip link set eth0 up; ip address add {own} dev eth0
                               ip route add 198.51.100.0/24 via {gateway}"
                ),
            )?;
        }
        let hub = PrivateKey::load_or_make(Path::new("/run/keys/hub"))?.0.public();
        let a = School::raise("a", hub, &["10.60.1.2/32", "10.20.1.5/32"])?;
        let b = School::raise("b", hub, &["10.60.1.3/32", "10.21.1.5/32"])?;
        let plan = plan(&[of_a(&a), of_b(&b)]);
        for (node, address) in
            [("town", TOWN), ("net", INTERNET), ("a", "0.0.0.0:8080"), ("b", "0.0.0.0:8080")]
        {
            serve(node, address)?;
        }
        fs::write("/run/clock-trusted", "")?;
        let agent = Agent::start(&plan)?;
        Ok(Self { a, b, agent })
    }
}

pub(crate) fn of_a(a: &School) -> String {
    school("a", "10.60.1.2", &[a.key], "prefixes = [\"10.20.0.0/16\"]\negress = \"198.51.100.10\"")
}

pub(crate) fn of_b(b: &School) -> String {
    school("b", "10.60.1.3", &[b.key], "prefixes = [\"10.21.1.0/24\"]\negress = \"198.51.100.11\"")
}

/// Tells each connection which address it comes from, then echoes; the same for datagrams.
fn serve(node: &str, address: &str) -> Result<()> {
    let (listener, socket) = inside(node, || Ok((TcpListener::bind(address)?, UdpSocket::bind(address)?)))?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let Ok(peer) = stream.peer_addr() else { return };
                let _closed = stream.write_all(format!("{}\n", peer.ip()).as_bytes());
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let _lost = socket.send_to(&buffer[..length], peer);
        }
    });
    Ok(())
}

/// A connection, and the address that the server saw.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    pub(crate) seen_as: String,
}

/// From an address of the node (its port is free).
pub(crate) fn connect(node: &str, from: &str, to: &str, patience: Duration) -> Result<Connection> {
    let (from, to): (SocketAddr, SocketAddr) = (format!("{from}:0").parse()?, to.parse()?);
    let mut stream = inside(node, || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&to.into(), patience)?;
        Ok(TcpStream::from(socket))
    })?;
    stream.set_read_timeout(Some(patience))?;
    let mut seen_as = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        seen_as.push(byte[0]);
    }
    Ok(Connection { stream, seen_as: String::from_utf8(seen_as)? })
}

impl Connection {
    /// So many bytes there and back, checked; how long it took.
    pub(crate) fn exchange(&mut self, bytes: usize, patience: Duration) -> Result<Duration> {
        let begun = Instant::now();
        self.stream.set_read_timeout(Some(patience))?;
        let data: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
        let (mut reader, sent) = (self.stream.try_clone()?, data.clone());
        let answer = std::thread::spawn(move || -> Result<()> {
            let mut answer = vec![0; sent.len()];
            reader.read_exact(&mut answer)?;
            ensure!(answer == sent, "other bytes came back");
            Ok(())
        });
        self.stream.write_all(&data)?;
        answer.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?.context("the answer")?;
        Ok(begun.elapsed())
    }
}

/// A datagram and its answer.
pub(crate) fn ask(node: &str, from: &str, to: &str, patience: Duration) -> Result<Vec<u8>> {
    let socket = inside(node, || Ok(UdpSocket::bind(format!("{from}:0"))?))?;
    socket.set_read_timeout(Some(patience))?;
    socket.send_to(b"question", to)?;
    let mut buffer = [0; 64];
    let (length, _) = socket.recv_from(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

/// The hub's agent.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
}

impl Agent {
    /// Starts with the plan and waits until it is in force.
    pub(crate) fn start(plan: &str) -> Result<Self> {
        fs::write("/run/plan.toml", plan)?;
        let mut agent = Self::spawn()?;
        agent.wait_ready()?;
        Ok(agent)
    }

    pub(crate) fn spawn() -> Result<Self> {
        let log = File::options().create(true).append(true).open("/run/agent.log")?;
        let board = concat!(env!("CARGO_MANIFEST_DIR"), "/../../board/boards/lab-namespace.toml");
        let child = Command::new("nsenter")
            .args(["--net=/run/netns/hub", "--", AGENT, "run", "--plan", "/run/plan.toml", "--board", board])
            .args(["--state-dir", "/run/state", "--runtime-dir", "/run/hub"])
            .args(["--clock-trust-file", "/run/clock-trusted"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { child })
    }

    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        until(20, "the hub is ready", || {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended: {status}");
            }
            Ok(self.status().ok().filter(|status| status.dataplane.verified).map(drop))
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn ended(&mut self) -> Result<std::process::ExitStatus> {
        until(10, "the agent ends", || Ok(self.child.try_wait()?))
    }

    pub(crate) fn ask(&self, request: Ask) -> Result<Response> {
        let mut stream = UnixStream::connect("/run/hub/control.sock")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(&seimon_ipc::frame::encode(&Request { version: VERSION, request })?)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| line.clone())
    }

    pub(crate) fn status(&self) -> Result<HubStatus> {
        let answer = self.ask(Ask::Hub { ask: HubAsk::Status })?;
        let Response::Hub(status) = answer else { bail!("not a hub's status: {answer:?}") };
        Ok(*status)
    }

    pub(crate) fn school(&self, id: &str) -> Result<SchoolEnd> {
        let found = self.status()?.schools.into_iter().find(|end| end.school.as_str() == id);
        found.with_context(|| format!("school {id}"))
    }

    pub(crate) fn apply(&self, plan: &str) -> Result<()> {
        let answer = self.ask(Ask::Apply { plan: plan.to_owned(), file: "new.toml".to_owned() })?;
        ensure!(matches!(answer, Response::Done { .. }), "not applied: {answer:?}");
        Ok(())
    }

    pub(crate) fn events(&self) -> Result<Vec<Event>> {
        let answer = self.ask(Ask::Events { follow: Follow::No, since: 0 })?;
        let Response::Events { events } = answer else { bail!("not events: {answer:?}") };
        Ok(events)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        eprintln!("--- the agent's log ---\n{}", fs::read_to_string("/run/agent.log").unwrap_or_default());
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
