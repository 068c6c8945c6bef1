//! Tunnels that the kernel carries. (Those in user space: `agent/tunnel/tests`.)
//!
//! ```text
//!  gw ──eth0── net ──eth1── hub       inside: gw 10.60.1.2, hub 10.60.1.1
//!  192.0.2.2   (router)     198.51.100.20, .21
//! ```
//! The gateway has no route to the hub but by the mark of outer packets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};
use seimon_board::InterfaceName;
use seimon_core::network_plan::{
    Address, Change, ChangeSet, Dataplane as _, Link, LinkKind, Peer, Tunnel, TunnelState,
};
use seimon_dataplane::{Linux, PrivateKey};
use seimon_plan::WireguardKey;

use crate::world::{in_namespaces, inside, sh};

const MARK: u32 = 7;

fn has_wireguard() -> Result<bool> {
    let tried = std::process::Command::new("unshare")
        .args(["-n", "ip", "link", "add", "try0", "type", "wireguard"])
        .output()?;
    if !tried.status.success() {
        eprintln!("skipped: this kernel has no WireGuard");
    }
    Ok(tried.status.success())
}

/// One end, told by hand.
struct End {
    node: &'static str,
    linux: Linux,
    name: InterfaceName,
    tunnel: Tunnel,
}

fn key(file: &str) -> Result<WireguardKey> {
    Ok(PrivateKey::load_or_make(&PathBuf::from(file))?.0.public())
}

impl End {
    fn raise(node: &'static str, address: &str, mark: u32, far: WireguardKey, peer: Peer) -> Result<Self> {
        let name = InterfaceName::new("wg-closed")?;
        let tunnel = Tunnel {
            private_key_file: format!("/run/keys/{node}").into(),
            own: Some(key(&format!("/run/keys/{node}"))?),
            listen_port: 51820,
            mark,
            peers: BTreeMap::from([(far, peer)]),
        };
        let linux = inside(node, || {
            let mut linux = Linux::open()?;
            let link = Link { name: name.clone(), kind: LinkKind::Tunnel, mtu: Some(1420) };
            let address = Address { interface: name.clone(), address: address.parse()? };
            linux.apply(&ChangeSet { changes: vec![Change::LinkUp(link), Change::AddressAdd(address)] })?;
            Ok(linux)
        })?;
        let mut end = Self { node, linux, name, tunnel };
        end.configure()?;
        sh(node, "ip route add 10.60.1.0/24 dev wg-closed")?;
        Ok(end)
    }

    fn apply(&mut self, change: Change) -> Result<()> {
        inside(self.node, || Ok(self.linux.apply(&ChangeSet { changes: vec![change] })?))
    }

    fn configure(&mut self) -> Result<()> {
        self.apply(Change::TunnelSet { interface: self.name.clone(), tunnel: self.tunnel.clone() })
    }

    fn state(&mut self) -> Result<TunnelState> {
        let seen = inside(self.node, || Ok(self.linux.observe(&[])?))?;
        seen.tunnels.get(&self.name).cloned().context("nobody answers for the tunnel")
    }
}

fn raise() -> Result<(End, End)> {
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).context("tmpfs on /run")?;
    std::fs::create_dir("/run/netns")?;
    std::fs::create_dir("/run/keys")?;
    for node in ["gw", "net", "hub"] {
        let made = std::process::Command::new("ip").args(["netns", "add", node]).status()?;
        ensure!(made.success(), "ip netns add {node}");
        sh(node, "ip link set lo up")?;
    }
    sh("net", "ip link add eth0 type veth peer name eth0 netns gw; ip link add eth1 type veth peer name eth0 netns hub
        ip address add 192.0.2.1/30 dev eth0; ip link set eth0 up
        ip address add 198.51.100.1/24 dev eth1; ip link set eth1 up; echo 1 > /proc/sys/net/ipv4/ip_forward")?;
    sh("hub", "ip address add 198.51.100.20/24 dev eth0; ip address add 198.51.100.21/24 dev eth0; ip link set eth0 up
        ip route add default via 198.51.100.1")?;
    sh("gw", &format!("ip address add 192.0.2.2/30 dev eth0; ip link set eth0 up
        ip rule add fwmark {MARK:#x}/0xff lookup 77; ip route add default via 192.0.2.1 table 77
        nft 'table inet w {{ counter marked {{ }}; counter other {{ }}; chain o {{ type filter hook output priority 0;
            udp dport 51820 meta mark & 0xff == {MARK} counter name marked accept; udp dport 51820 counter name other; }}; }}'"))?;
    let (gw_key, hub_key) = (key("/run/keys/gw")?, key("/run/keys/hub")?);
    let nets = |all: &[&str]| all.iter().filter_map(|net| net.parse().ok()).collect();
    let school = Peer { endpoint: None, allowed: nets(&["10.60.1.2/32"]), keepalive: None };
    let hub = End::raise("hub", "10.60.1.1/32", 0, gw_key, school)?;
    let far = Peer {
        endpoint: Some("198.51.100.20:51820".parse()?),
        allowed: nets(&["0.0.0.0/0", "::/0"]),
        keepalive: Some(25),
    };
    let gw = End::raise("gw", "10.60.1.2/32", MARK, hub_key, far)?;
    Ok((gw, hub))
}

/// How long until the hub answers through the tunnel.
fn answers() -> Result<Duration> {
    let begun = Instant::now();
    while sh("gw", "ping -c 1 -W 1 10.60.1.1").is_err() {
        ensure!(begun.elapsed() < Duration::from_secs(20), "the hub does not answer");
    }
    Ok(begun.elapsed())
}

fn packets(counter: &str) -> Result<u64> {
    let listing = sh("gw", &format!("nft list counter inet w {counter}"))?;
    let words: Vec<&str> = listing.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "packets").context("a counter")?;
    Ok(words[at + 1].parse()?)
}

#[test]
fn the_kernels_tunnel_carries_by_its_lines_mark_and_reads_back_as_written() -> Result<()> {
    if !has_wireguard()? {
        return Ok(());
    }
    in_namespaces(|| {
        let (mut gw, mut hub) = raise()?;
        answers()?;
        ensure!(packets("marked")? > 0 && packets("other")? == 0, "{} unmarked", packets("other")?);
        for end in [&mut gw, &mut hub] {
            let seen = end.state()?;
            ensure!(end.tunnel.is_met_by(&seen), "{}: {seen:?}", end.node);
            ensure!(seen.mark == Some(end.tunnel.mark), "{seen:?}");
            let peer = seen.peers.values().next().context("a peer")?;
            ensure!(peer.handshake.is_some_and(|age| age < Duration::from_secs(60)), "{peer:?}");
            ensure!(peer.sent > 0 && peer.received > 0, "{peer:?}");
        }
        // Again, and nothing is interrupted: counters of a peer that is made anew begin at 0.
        let before = gw.state()?;
        gw.configure()?;
        let after = gw.state()?;
        let of = |state: &TunnelState| state.peers.values().next().map(|peer| peer.received);
        ensure!(of(&after) >= of(&before) && of(&after) > Some(0), "{before:?} {after:?}");
        gw.apply(Change::LinkRemove(gw.name.clone()))?;
        ensure!(gw.state().is_err(), "it is gone");
        Ok(())
    })
}

#[test]
fn the_kernels_tunnel_takes_another_key_and_follows_the_far_end() -> Result<()> {
    if !has_wireguard()? {
        return Ok(());
    }
    in_namespaces(|| {
        let (mut gw, mut hub) = raise()?;
        answers()?;
        // The hub learns the new key; what the school may be moves with it, as the kernel gives an address to one peer only.
        let new = PrivateKey::generate();
        let peer = hub.tunnel.peers.values().next().cloned().context("a peer")?;
        hub.tunnel.peers = BTreeMap::from([(new.public(), peer)]);
        new.save(&gw.tunnel.private_key_file)?;
        gw.tunnel.own = Some(new.public());
        hub.configure()?;
        gw.configure()?;
        let took = answers()?;
        ensure!(took < Duration::from_secs(10), "{took:?}");
        let at_hub = hub.state()?;
        ensure!(at_hub.peers.get(&new.public()).is_some_and(|peer| peer.handshake.is_some()), "{at_hub:?}");
        // The hub moves within its network: the session goes on from there.
        let far = *gw.tunnel.peers.keys().next().context("a peer")?;
        let before = gw.state()?.peers[&far].handshake.context("a handshake")?;
        sh(
            "hub",
            "ip address del 198.51.100.20/24 dev eth0; ip address add 198.51.100.21/24 dev eth0 2>/dev/null || true; ip route replace default via 198.51.100.1",
        )?;
        let endpoint = "198.51.100.21:51820".parse()?;
        gw.apply(Change::TunnelEndpoint { interface: gw.name.clone(), peer: far, endpoint })?;
        let took = answers()?;
        ensure!(took < Duration::from_secs(5), "{took:?}");
        let seen = gw.state()?.peers[&far].clone();
        ensure!(seen.endpoint == Some(endpoint), "{seen:?}");
        ensure!(seen.handshake.is_some_and(|age| age >= before), "the same session: {seen:?}");
        ensure!(packets("other")? == 0);
        Ok(())
    })
}

#[test]
fn a_hub_that_was_started_again_is_heard_soon_after_it_is_asked_for_a_handshake() -> Result<()> {
    if !has_wireguard()? {
        return Ok(());
    }
    in_namespaces(|| {
        let (mut gw, mut hub) = raise()?;
        answers()?;
        // It knows nothing of the session any more.
        hub.apply(Change::LinkRemove(hub.name.clone()))?;
        let (school, peer) = hub.tunnel.peers.pop_first().context("a peer")?;
        drop(hub);
        let _hub = End::raise("hub", "10.60.1.1/32", 0, school, peer)?;
        let far = *gw.tunnel.peers.keys().next().context("a peer")?;
        let endpoint = "198.51.100.20:51820".parse()?;
        gw.apply(Change::TunnelEndpoint { interface: gw.name.clone(), peer: far, endpoint })?;
        let took = answers()?;
        ensure!(took < Duration::from_secs(8), "WireGuard's own patience is 15 s, this took {took:?}");
        Ok(())
    })
}
