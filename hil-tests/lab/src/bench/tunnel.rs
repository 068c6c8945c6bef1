//! What a byte costs in a tunnel in user space: ours against wireguard-go, each at both ends of a line of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seimon_board::InterfaceName;
use seimon_core::network_plan::{Address, Change, ChangeSet, Dataplane as _, Link, LinkKind, Peer, Tunnel};
use seimon_dataplane::{Linux, PrivateKey};
use seimon_plan::WireguardKey;
use tempfile::TempDir;

use super::pairs::{Pairs, Sample, run_pairs};
use super::{Bench, Watch};
use crate::netns::{feed, run};
use crate::nodes::{Node, enter};
use crate::result::{Check, Goal};

type Say<'a> = &'a mut dyn FnMut(&str);

const NAME: &str = "wg_userspace_cpu_vs_wireguard_go";
const GO: &str = "wireguard-go";
const PORT: u16 = 51820;
const MTU: u16 = 1420;
/// A round: a third of a second or so.
const BYTES: usize = 24 << 20;
const CHUNK: usize = 128 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// Processor time a byte of one TCP stream, both ends' processes together.
pub(super) fn tunnel(bench: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let goal = Goal::AtMost(1.0);
    let there = Command::new(GO).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if there.is_err() {
        let check = Check::number(NAME, None, "ratio", goal);
        return Ok(vec![
            check.with_note("skipped: wireguard-go is not installed (Debian package wireguard-go)"),
        ]);
    }
    let ours = Line::raise("o", &Kind::Ours(&bench.bin_dir.join("seimon-tunnel")))?;
    let theirs = Line::raise("g", &Kind::Go)?;
    say("   24 MiB by TCP, in processor time of the tunnel's two ends");
    let check = run_pairs(NAME, Pairs::default(), goal, || ours.sample(), || theirs.sample())?;
    let words = |line: &Line| Ok::<_, anyhow::Error>(line.sample()?.value);
    let note =
        format!("processor time a GB: ours {:.2} s, wireguard-go {:.2} s", words(&ours)?, words(&theirs)?);
    Ok(vec![check.with_note(note)])
}

enum Kind<'a> {
    /// The program.
    Ours(&'a Path),
    Go,
}

/// Two ends and the line between them.
struct Line {
    ends: [End; 2],
    _keys: TempDir,
}

/// Fields are dropped in this order.
struct End {
    process: Process,
    inside: Ipv4Addr,
    node: Node,
}

enum Process {
    /// Its process ends with the data plane that began it.
    Ours {
        _linux: Box<Linux>,
        pid: u32,
    },
    Go(Child),
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Self::Go(child) = self {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

impl Process {
    fn pid(&self) -> u32 {
        match self {
            Self::Ours { _linux: _, pid } => *pid,
            Self::Go(child) => child.id(),
        }
    }

    /// Of all its threads, since they began.
    fn time(&self) -> Result<Duration> {
        let mut nanoseconds = 0_u64;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            nanoseconds += text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        }
        ensure!(nanoseconds > 0, "the kernel does not tell processor time of threads (schedstat)");
        Ok(Duration::from_nanos(nanoseconds))
    }
}

fn inside<T: Send>(node: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let work = || {
            enter(node)?;
            work()
        };
        scope.spawn(work).join().map_err(|_| anyhow::anyhow!("a thread at {node} panicked"))?
    })
}

impl Line {
    fn raise(name: &str, kind: &Kind<'_>) -> Result<Self> {
        let keys = tempfile::Builder::new().prefix("seimon-bench-").tempdir()?;
        let names = [format!("{name}a"), format!("{name}b")];
        let nodes = [Node::raise(&names[0])?, Node::raise(&names[1])?];
        let link = format!("link add line netns {} type veth peer name line netns {}\n", names[0], names[1]);
        feed("ip", &["-batch", "-"], &link)?;
        let files = [keys.path().join("a"), keys.path().join("b")];
        let mut publics = Vec::new();
        for file in &files {
            publics.push(PrivateKey::load_or_make(file)?.0.public());
        }
        let mut ends = Vec::new();
        for (number, node) in nodes.into_iter().enumerate() {
            let host = u8::try_from(number + 1)?;
            node.ip(&format!("addr add 192.0.2.{host}/30 dev line\nlink set line up\n"))?;
            let inner = Ipv4Addr::new(10, 60, 1, host);
            let far = Far {
                public: publics[1 - number],
                endpoint: SocketAddr::from(([192, 0, 2, 3 - host], PORT)),
                inner: Ipv4Addr::new(10, 60, 1, 3 - host),
            };
            let interface = format!("wg-{}", names[number]);
            let process = match kind {
                Kind::Ours(program) => ours(&node, program, &interface, inner, &files[number], &far)?,
                Kind::Go => go(&node, &interface, inner, &files[number], &far)?,
            };
            node.ip(&format!("route replace 10.60.1.0/30 dev {interface}\n"))?;
            ends.push(End { process, inside: inner, node });
        }
        let ends: [End; 2] = ends.try_into().map_err(|_| anyhow::anyhow!("a line has two ends"))?;
        Ok(Self { ends, _keys: keys })
    }

    /// Seconds of processor time a GB.
    fn sample(&self) -> Result<Sample> {
        let [from, to] = &self.ends;
        let at = SocketAddr::from((to.inside, 5001));
        let listener = inside(to.node.name(), || Ok(TcpListener::bind(at)?))?;
        let mut sender = inside(from.node.name(), || Ok(TcpStream::connect_timeout(&at, PATIENCE)?))?;
        let (mut receiver, _) = listener.accept()?;
        receiver.set_read_timeout(Some(PATIENCE))?;
        sender.set_write_timeout(Some(PATIENCE))?;
        let time = || Ok::<_, anyhow::Error>(from.process.time()? + to.process.time()?);
        let (watch, begun) = (Watch::begin(), time()?);
        let sending = std::thread::spawn(move || -> std::io::Result<()> {
            let chunk = vec![0x5a; CHUNK];
            let mut left = BYTES;
            while left > 0 {
                let count = left.min(CHUNK);
                sender.write_all(&chunk[..count])?;
                left -= count;
            }
            sender.shutdown(Shutdown::Write)
        });
        let mut room = vec![0; CHUNK];
        let mut received = 0;
        loop {
            match receiver.read(&mut room)? {
                0 => break,
                count => received += count,
            }
        }
        sending.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        let (took, stolen) = (time()?.saturating_sub(begun), watch.end());
        ensure!(received == BYTES, "{received} of {BYTES} bytes came through");
        Ok(Sample { value: took.as_secs_f64() / (BYTES as f64 / 1e9), stolen })
    }
}

struct Far {
    public: WireguardKey,
    endpoint: SocketAddr,
    inner: Ipv4Addr,
}

fn ours(
    node: &Node,
    program: &Path,
    interface: &str,
    inner: Ipv4Addr,
    key: &Path,
    far: &Far,
) -> Result<Process> {
    let name = InterfaceName::new(interface)?;
    let peer = Peer {
        endpoint: Some(far.endpoint),
        allowed: BTreeSet::from([format!("{}/32", far.inner).parse()?]),
        keepalive: None,
    };
    let tunnel = Tunnel {
        private_key_file: key.to_owned(),
        own: None,
        listen_port: PORT,
        mark: 0,
        peers: BTreeMap::from([(far.public, peer)]),
    };
    let linux = inside(node.name(), || {
        let mut linux = Linux::open()?;
        linux.carry_tunnels_with(program);
        let link = Link { name: name.clone(), kind: LinkKind::Tunnel, mtu: Some(MTU) };
        let address = Address { interface: name.clone(), address: format!("{inner}/30").parse()? };
        let set = Change::TunnelSet { interface: name.clone(), tunnel: tunnel.clone() };
        linux.apply(&ChangeSet { changes: vec![Change::LinkUp(link), Change::AddressAdd(address), set] })?;
        Ok(linux)
    })?;
    let mut found = crate::world::gateway::tunnels().filter(|(_, end)| end == interface);
    let (pid, _) =
        found.next().context("our tunnel's process is not to be found: has the kernel WireGuard?")?;
    Ok(Process::Ours { _linux: Box::new(linux), pid })
}

fn go(node: &Node, interface: &str, inner: Ipv4Addr, key: &Path, far: &Far) -> Result<Process> {
    std::fs::create_dir_all("/run/wireguard")?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", node.name())).args([GO, "-f", interface]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process::Go(command.spawn().context("wireguard-go")?);
    let socket = format!("/run/wireguard/{interface}.sock");
    let begun = Instant::now();
    let mut stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) if begun.elapsed() > PATIENCE => return Err(error).context("wireguard-go's socket"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let hex = |key: &WireguardKey| key.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let private: WireguardKey = std::fs::read_to_string(key)?.trim().parse()?;
    let Far { public, endpoint, inner: far } = far;
    let (private, public) = (hex(&private), hex(public));
    write!(
        stream,
        "set=1\nprivate_key={private}\nlisten_port={PORT}\npublic_key={public}\nendpoint={endpoint}\nallowed_ip={far}/32\n\n"
    )?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0; 64];
    let count = stream.read(&mut answer)?;
    ensure!(answer[..count].starts_with(b"errno=0"), "wireguard-go refused its configuration");
    run("ip", &["-n", node.name(), "addr", "add", &format!("{inner}/30"), "dev", interface])?;
    run("ip", &["-n", node.name(), "link", "set", interface, "mtu", &MTU.to_string(), "up"])?;
    Ok(process)
}
