//! What a packet costs a hub as schools grow, and what a school costs in memory.
//!
//! ```text
//!   school ── wg-closed ══ wg-hub ── hub ── town (counted, dropped)
//! ```
//! Two hubs, with few schools and with many; the same one of them sends through each. Where WireGuard is in user space, the
//! hub's whole work for a packet (UDP in, decryption, whose it is, the table, routing, out to the town) is done in the process
//! that carries its tunnel: its processor time over the packets that arrived is the cost, on a busy machine as well.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jiff::civil::Date;
use seimon_board::{Board, InterfaceName};
use seimon_core::hub::{Roster, Today, compile};
use seimon_core::network_plan::{
    Address, Change, ChangeSet, Dataplane, Generation, Link, LinkKind, Peer, Tunnel, diff, verify,
};
use seimon_dataplane::{Linux, PrivateKey};
use seimon_plan::{Role, WireguardKey, parse_hub, role_of};

use super::Bench;
use super::lived::Say;
use super::pairs::{Pairs, Sample, run_pairs};
use super::steal::Stolen;
use crate::nodes::{Node, enter};
use crate::result::{Check, Goal};

const FEW: usize = 10;
const MANY: usize = 1_000;
const MORE: usize = 2_000;
/// Packets of one round.
const ROUND: usize = 4_000;
const PAYLOAD: [u8; 64] = [7; 64];
const TOWN: &str = "10.50.0.80:7000";
const PATIENCE: Duration = Duration::from_secs(10);

/// A hub with so many schools, one of which is there.
struct Rig {
    school: Node,
    town: Node,
    /// They keep the tunnels.
    _hub: (Node, Linux),
    _end: Linux,
    carrier: u32,
    sender: UdpSocket,
    _keys: tempfile::TempDir,
}

/// The hub plan of so many schools; the first one's key is given, the others are nobody's.
fn plan_text(schools: usize, first: WireguardKey, key_file: &Path) -> String {
    let mut text = format!(
        "version = 1\nrole = \"hub\"\n[hub]\nid = \"bench\"\nname = \"bench\"\nboard = \"lab-namespace\"\n\
         timezone = \"Asia/Tokyo\"\n[lines.internet]\nport = \"WAN1\"\nipv4 = \"198.51.100.20/24\"\n\
         gateway4 = \"198.51.100.1\"\n[lines.townhall]\nport = \"LAN1\"\nipv4 = \"10.50.255.2/30\"\n\
         gateway4 = \"10.50.255.1\"\n[tunnel]\nline = \"internet\"\nprivate_key_file = \"{}\"\n\
         ipv4 = \"10.60.0.1/16\"\n[town]\nline = \"townhall\"\nprefixes = [\"10.50.0.0/16\"]\nnat4 = \"routed\"\n\
         [egress]\nline = \"internet\"\nipv4 = [\"198.51.100.10\", \"198.51.100.11\"]\n",
        key_file.display()
    );
    for n in 0..schools {
        let key = match n {
            0 => first,
            _ => PrivateKey::generate().public(),
        };
        let (third, fourth) = (1 + n / 250, 2 + n % 250);
        let _ = write!(
            text,
            "[schools.s{n}]\nname = \"s{n}\"\nipv4 = \"10.60.{third}.{fourth}\"\nprefixes = [\"10.{}.{}.0/24\"]\n\
             keys = [{{ public_key = \"{key}\" }}]\n",
            100 + n / 250,
            n % 250
        );
    }
    text
}

fn inside<T: Send>(node: &Node, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(node.name())?;
            work()
        });
        thread.join().map_err(|_| anyhow::anyhow!("a thread of node {} died", node.name()))?
    })
}

/// Processes that carry a hub's tunnel, of whatever rig.
fn carriers() -> Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        // One that has just ended has nothing to say.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        if words.first().is_some_and(|word| word.ends_with(b"seimon-tunnel"))
            && words.get(1) == Some(&&b"wg-hub"[..])
        {
            found.insert(pid);
        }
    }
    Ok(found)
}

impl Rig {
    fn raise(name: &str, schools: usize, program: &Path) -> Result<Self> {
        let keys = tempfile::tempdir()?;
        let hub = Node::raise(&format!("{name}-hub"))?;
        let school = Node::raise(&format!("{name}-sch"))?;
        let town = Node::raise(&format!("{name}-twn"))?;
        hub.ip(&format!(
            "link add wan1 type veth peer name e0 netns {}\nlink add lan1 type veth peer name e0 netns {}",
            school.name(),
            town.name()
        ))?;
        school.ip("link set e0 up\naddress add 198.51.100.1/24 dev e0")?;
        town.ip("link set e0 up\naddress add 10.50.255.1/30 dev e0\naddress add 10.50.0.80/32 dev lo")?;
        // What arrives is counted, and goes no further.
        town.nft(
            "table netdev sink {\nchain in {\ntype filter hook ingress device \"e0\" priority 0\nudp dport 7000 counter drop\n}\n}\n",
        )?;
        let (hub_key, school_key) = (keys.path().join("hub"), keys.path().join("school"));
        let key = PrivateKey::load_or_make(&school_key)?.0.public();
        let own = PrivateKey::load_or_make(&hub_key)?.0.public();
        let before = carriers()?;
        let linux = Self::raise_hub(&hub, &plan_text(schools, key, &hub_key), program)?;
        let carrier = carriers()?.difference(&before).next().copied();
        let carrier =
            carrier.context("WireGuard is in this kernel: its time is nobody's, this cannot be measured")?;
        let end = Self::raise_school(&school, own, school_key, program)?;
        let sender = inside(&school, || Ok(UdpSocket::bind("10.60.1.2:0")?))?;
        sender.connect(TOWN)?;
        Ok(Self { school, town, _hub: (hub, linux), _end: end, carrier, sender, _keys: keys })
    }

    fn raise_hub(node: &Node, text: &str, program: &Path) -> Result<Linux> {
        ensure!(role_of(text) == Role::Hub);
        let board = Board::shipped("lab-namespace").context("the lab's board is not shipped")?;
        let plan = parse_hub(text.as_bytes(), "bench.toml", &board)
            .map_err(|errors| anyhow::anyhow!("the bench's plan is not valid: {errors}"))?;
        let today = Today { date: Date::constant(2026, 4, 1), trusted: true };
        let wanted = compile(&plan, &Roster::default(), today, None, Generation(1))?;
        inside(node, || {
            let mut linux = Linux::open()?;
            linux.carry_tunnels_with(program);
            let keys: Vec<String> = wanted.sysctls.iter().map(|sysctl| sysctl.path.clone()).collect();
            let observed = linux.observe(&keys)?;
            linux.apply(&diff(&observed, None, &wanted))?;
            let left = verify(&linux.observe(&keys)?, &wanted);
            ensure!(left.is_empty(), "the hub is not as planned: {left:?}");
            Ok(linux)
        })
    }

    fn raise_school(node: &Node, hub: WireguardKey, key: PathBuf, program: &Path) -> Result<Linux> {
        let name = InterfaceName::new("wg-closed")?;
        let allowed = ["0.0.0.0/0"].iter().filter_map(|net| net.parse().ok()).collect();
        let peer = Peer { endpoint: Some("198.51.100.20:51820".parse()?), allowed, keepalive: Some(25) };
        let tunnel = Tunnel {
            private_key_file: key,
            own: None,
            listen_port: 51820,
            mark: 0,
            peers: [(hub, peer)].into(),
        };
        let linux = inside(node, || {
            let mut linux = Linux::open()?;
            linux.carry_tunnels_with(program);
            let link = Link { name: name.clone(), kind: LinkKind::Tunnel, mtu: Some(1420) };
            let address = Address { interface: name.clone(), address: "10.60.1.2/32".parse()? };
            let changes = vec![
                Change::LinkUp(link),
                Change::AddressAdd(address),
                Change::TunnelSet { interface: name, tunnel },
            ];
            linux.apply(&ChangeSet { changes })?;
            Ok(linux)
        })?;
        node.ip("route add 10.50.0.0/16 dev wg-closed")?;
        Ok(linux)
    }

    /// Packets that have arrived in the town.
    fn arrived(&self) -> Result<u64> {
        let net = format!("--net=/run/netns/{}", self.town.name());
        let text = crate::netns::feed("nsenter", &[&net, "nft", "list", "table", "netdev", "sink"], "")?;
        let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).and_then(|count| count.parse().ok()).context("no counter in the town")
    }

    /// Processor time of the carrier for a packet, in nanoseconds.
    fn cost(&self) -> Result<Sample> {
        let (begun, before) = (self.arrived()?, processor_nanos(self.carrier)?);
        let mut passed = 0;
        let until = Instant::now() + PATIENCE;
        // Few at a time: what does not fit into a queue would be lost, at a price that is not a packet's.
        for sent in 1..=ROUND {
            self.sender.send(&PAYLOAD)?;
            if sent % 50 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        while passed < ROUND as u64 * 95 / 100 {
            std::thread::sleep(Duration::from_millis(5));
            passed = self.arrived()? - begun;
            ensure!(Instant::now() < until, "only {passed} of {ROUND} packets arrived");
        }
        let nanos = processor_nanos(self.carrier)? - before;
        // Other programs, and stolen time, are no part of it.
        Ok(Sample { value: nanos as f64 / passed as f64, stolen: Stolen::default() })
    }

    /// Memory of the carrier, in KiB.
    fn resident(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.carrier))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.split_whitespace().next().context("VmRSS")?.parse()?)
    }

    fn shakes_hands(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.arrived()? == 0 {
            ensure!(Instant::now() < until, "no packet passes the hub of node {}", self.school.name());
            self.sender.send(&PAYLOAD)?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// Sum over the threads, from /proc/PID/task/TID/schedstat.
fn processor_nanos(pid: u32) -> Result<u64> {
    let mut nanos = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += text.split_whitespace().next().context("schedstat")?.parse::<u64>()?;
    }
    if nanos == 0 {
        bail!("this kernel does not tell processor time");
    }
    Ok(nanos)
}

/// The cost of a packet with many schools over that with few; a school's memory when there are many over that when there are
/// few.
pub(super) fn hub(bench: &Bench<'_>, say: Say<'_>) -> Result<Vec<Check>> {
    let program = bench.bin_dir.join("seimon-tunnel");
    say(&format!("   a hub of {FEW} schools, one of {MANY}, one of {MORE}"));
    let few = Rig::raise("hubfew", FEW, &program)?;
    let many = Rig::raise("hubmany", MANY, &program)?;
    few.shakes_hands()?;
    many.shakes_hands()?;
    let growth =
        run_pairs("hub_peers_growth", Pairs::default(), Goal::AtMost(1.1), || many.cost(), || few.cost())?;
    let microseconds = |sample: Sample| sample.value / 1000.0;
    let note = format!(
        "processor time a packet: {:.1} µs with {MANY} schools, {:.1} µs with {FEW}",
        microseconds(many.cost()?),
        microseconds(few.cost()?)
    );
    let growth = match growth.note.clone() {
        Some(before) => growth.with_note(format!("{note}; {before}")),
        None => growth.with_note(note),
    };
    let (small, middle) = (few.resident()?, many.resident()?);
    drop((few, many));
    let large = Rig::raise("hubmore", MORE, &program)?.resident()?;
    let early = (middle - small) / (MANY - FEW) as f64;
    let late = (large - middle) / (MORE - MANY) as f64;
    let memory = Check::number("hub_peer_memory_growth", Some(late / early), "ratio", Goal::AtMost(1.1))
        .with_note(format!(
            "resident memory a school: {:.1} KiB up to {MANY}, {:.1} KiB from there to {MORE}",
            early, late
        ));
    Ok(vec![growth, memory])
}
