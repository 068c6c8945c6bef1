//! Private namespaces for one test, and a school with its two lines in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use seimon_core::network_plan::{
    Allocation, Change, ChangeSet, Dataplane as _, Generation, NetworkPlan, PathChoice, compile,
    current_element, diff, real_elements, verify,
};
use seimon_dataplane::Linux;
use seimon_plan::{GroupId, PathId, ValidSitePlan, ZoneId};

use crate::probing::{Mailbox, serve};

const INSIDE: &str = "SEIMON_TEST_INSIDE";

/// Where the affairs service is on each line, and what anybody may want on the internet.
pub(crate) const REAL_CLOSED: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 80);
pub(crate) const REAL_DIRECT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
pub(crate) const REAL_DIRECT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x80);
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
pub(crate) const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x99);
pub(crate) const HUB: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 53);

/// Ports on which every node answers, the gateway too.
pub(crate) const TCP: [u16; 7] = [22, 53, 80, 443, 445, 631, 9100];
pub(crate) const UDP: [u16; 5] = [53, 123, 161, 7000, 7007];

const CARRIER: &str =
    "10.10.0.2/30 10.50.0.53/32 10.50.0.80/32 203.0.113.7/32 203.0.113.80/32 203.0.113.99/32";
const INTERNET: &str = "192.0.2.1/30 203.0.113.7/32 203.0.113.80/32 203.0.113.99/32 10.50.0.53/32 \
    2001:db8:2::1/64 2001:db8:113::7/128 2001:db8:113::80/128 2001:db8:113::99/128";

/// Runs the test in namespaces of its own, in a process of its own. Its name is taken from the type: call this with a
/// closure directly in the test function.
pub(crate) fn in_namespaces<F: FnOnce() -> Result<()>>(body: F) -> Result<()> {
    let full = std::any::type_name::<F>();
    let name = full
        .split_once("::")
        .map(|(_, rest)| rest.trim_end_matches("::{{closure}}"))
        .context("a test is in a module")?;
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        return body();
    }
    let mut flags = vec!["-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc"];
    if !rustix::process::geteuid().is_root() {
        flags.insert(0, "-Ur");
    }
    let tried = Command::new("unshare")
        .args(&flags)
        .args(["sh", "-ec", "nft list ruleset; ip -V >/dev/null; mount -t tmpfs t /run"])
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            eprintln!("skipped: private namespaces with nft and ip are not to be had here: {}", why.trim());
            return Ok(());
        }
        Err(error) => {
            eprintln!("skipped: unshare: {error}");
            return Ok(());
        }
    }
    let output = Command::new("unshare")
        .args(&flags)
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

/// The school, its gateway under the plan, everybody's servers. This thread is in the gateway's namespace.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: ValidSitePlan,
    pub(crate) net: NetworkPlan,
    pub(crate) linux: Linux,
    pub(crate) mail: BTreeMap<String, Mailbox>,
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

/// The hardware address of an interface. (`/sys` shows the namespace in which it was mounted.)
pub(crate) fn mac_of(node: &str, interface: &str) -> Result<String> {
    let link = sh(node, &format!("ip -o link show dev {interface}"))?;
    let mut words = link.split_whitespace().skip_while(|word| *word != "link/ether").skip(1);
    Ok(words.next().context("a hardware address")?.to_owned())
}

fn enter(node: &str) -> Result<()> {
    let file = File::open(format!("/run/netns/{node}")).with_context(|| node.to_owned())?;
    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
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

/// One thread a node; the first error, after all have ended.
pub(crate) fn at_once<T: Send, N: AsRef<str> + Sync>(
    nodes: &[N],
    work: impl Fn(&str) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let work = &work;
        let all: Vec<_> = nodes
            .iter()
            .map(|node| {
                scope.spawn(move || {
                    enter(node.as_ref())?;
                    work(node.as_ref())
                })
            })
            .collect();
        all.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?).collect()
    })
}

pub(crate) fn zone(id: &str) -> ZoneId {
    ZoneId::new(id).expect("a zone's name")
}

pub(crate) fn path(id: &str) -> PathId {
    PathId::new(id).expect("a path's name")
}

/// The zone's node.
pub(crate) fn host4(plan: &ValidSitePlan, id: &ZoneId) -> Ipv4Addr {
    let [a, b, c, _] = plan.zones[id].ipv4.addr().octets();
    Ipv4Addr::new(a, b, c, 100)
}

pub(crate) fn host6(plan: &ValidSitePlan, id: &ZoneId) -> Option<Ipv6Addr> {
    let mut segments = plan.zones[id].ipv6?.addr().segments();
    segments[7] = 0x100;
    Some(segments.into())
}

impl World {
    pub(crate) fn raise(plan: ValidSitePlan) -> Result<Self> {
        mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).context("tmpfs on /run")?;
        std::fs::create_dir("/run/netns")?;
        let zones: Vec<&ZoneId> = plan.zones.keys().collect();
        let mut links = String::new();
        let trunk = plan.zones.values().find_map(|zone| zone.trunks.first()).map(|port| port.to_lowercase());
        let nodes: Vec<String> = ["gw", "carrier", "internet"]
            .into_iter()
            .chain(trunk.is_some().then_some("switch"))
            .chain(zones.iter().map(|id| id.as_str()))
            .map(str::to_owned)
            .collect();
        let mut cables = vec![("wan1".to_owned(), "carrier"), ("wan2".to_owned(), "internet")];
        let mut spare = Vec::new();
        let mut switched = String::new();
        for (id, written) in &plan.zones {
            match (written.ports.first(), written.vlan) {
                (Some(port), _) => cables.push((port.to_lowercase(), id.as_str())),
                // Behind a switch that tells zones apart by VLAN tags.
                (None, vlan) => {
                    let vlan = vlan.context("a zone without a port has a VLAN")?;
                    switched += &format!(
                        "ip link add link eth0 name v{vlan} type vlan id {vlan}; ip link set v{vlan} netns {id} name eth0; "
                    );
                }
            }
            // What is to be plugged in at further ports is the test's.
            for port in written.ports.iter().skip(1).map(|port| port.to_lowercase()) {
                spare.push(format!("link add {port} netns gw type veth peer name {port}x netns {id}\n"));
            }
        }
        for node in &nodes {
            links += &format!("netns add {node}\n");
        }
        batch(None, &std::mem::take(&mut links))?;
        at_once(&nodes, |_| {
            // Addresses are usable from the first moment, also those of links that are still to be made.
            for whose in ["all", "default"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{whose}/accept_dad"), "0")?;
            }
            Ok(())
        })?;
        for (port, node) in &cables {
            links += &format!("link add {port} netns gw type veth peer name eth0 netns {node}\n");
        }
        if let Some(port) = &trunk {
            links += &format!("link add {port} netns gw type veth peer name eth0 netns switch\n");
        }
        links.extend(spare);
        batch(None, &links)?;
        if trunk.is_some() {
            sh("switch", &format!("ip link set eth0 up; {switched}"))?;
        }
        let mut own: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        for node in &nodes {
            let addresses = match node.as_str() {
                "gw" | "switch" => String::new(),
                "carrier" => CARRIER.to_owned(),
                "internet" => INTERNET.to_owned(),
                id => {
                    let six = host6(&plan, &zone(id)).map(|six| format!(" {six}/64")).unwrap_or_default();
                    format!("{}/24{six}", host4(&plan, &zone(id)))
                }
            };
            let mut lines = String::from("link set lo up\n");
            for address in addresses.split_whitespace() {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                lines += &format!("address add {address} dev eth0{nodad}\n");
                let (address, _) = address.split_once('/').context("a prefix length")?;
                own.entry(node).or_default().push(address.parse()?);
            }
            if node != "gw" {
                lines += "link set eth0 up\n";
            }
            lines += &match node.as_str() {
                "gw" | "switch" => String::new(),
                "carrier" => "route add default via 10.10.0.1\n".into(),
                "internet" => {
                    "link set eth0 mtu 1454\nroute add default via 192.0.2.2\nroute add default via 2001:db8:2::2\n".into()
                }
                id => {
                    let written = &plan.zones[&zone(id)];
                    let six = written.ipv6.map(|net| format!("route add default via {}\n", net.addr()));
                    format!("route add default via {}\n{}", written.ipv4.addr(), six.unwrap_or_default())
                }
            };
            batch(Some(node), &lines)?;
        }
        at_once(&nodes, |node| {
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")?;
            // Refusals are counted here one by one.
            std::fs::write("/proc/sys/net/ipv4/icmp_ratemask", "0")?;
            std::fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0")?;
            std::fs::write("/proc/sys/net/ipv6/icmp/ratemask", "\n")?;
            if node != "gw" {
                sh(node, &format!("nft '{WITNESS}'"))?;
            }
            Ok(())
        })?;
        let mut mail = BTreeMap::new();
        for node in &nodes {
            let addresses = own.remove(node.as_str()).unwrap_or_else(|| vec![Ipv6Addr::UNSPECIFIED.into()]);
            mail.insert(node.clone(), serve(node, &addresses, &TCP, &UDP)?);
        }
        enter("gw")?;
        let mut net = compiled(&plan, 0)?;
        let linux = Linux::open()?;
        if !linux.has_flowtables()? {
            net.ruleset = net.ruleset.without_flowtable();
        }
        let mut world = Self { plan, net, linux, mail };
        world.converge()?;
        world.learn_names()?;
        world.wait_for_neighbour_discovery()?;
        Ok(world)
    }

    /// Makes the kernel agree with the plan.
    pub(crate) fn converge(&mut self) -> Result<()> {
        let sysctls: Vec<String> = self.net.sysctls.iter().map(|sysctl| sysctl.path.clone()).collect();
        let changes = diff(&self.linux.observe(&sysctls)?, None, &self.net);
        self.linux.apply(&changes)?;
        let left = verify(&self.linux.observe(&sysctls)?, &self.net);
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    }

    /// A bridge asks for its neighbours only when it has its link-local address: up to a second after it is up.
    fn wait_for_neighbour_discovery(&self) -> Result<()> {
        let begun = std::time::Instant::now();
        loop {
            let there = sh("gw", "ip -6 -o address show scope link")?;
            if self.plan.zones.keys().all(|id| there.contains(&format!(" z-{id} "))) {
                return Ok(());
            }
            ensure!(begun.elapsed().as_secs() < 5, "no link-local address: {there}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Every permitted name gets its real addresses, as the resolver would have it.
    fn learn_names(&mut self) -> Result<()> {
        let mut add = Vec::new();
        for (zone, name) in self.net.allocation.inside.keys() {
            add.extend(real_elements(
                &self.net.allocation,
                zone,
                name,
                &path("closed"),
                Some(REAL_CLOSED),
                None,
            ));
            // One name is known on one line only.
            if name != "login.school.example" {
                let six = Some(REAL_DIRECT6);
                add.extend(real_elements(
                    &self.net.allocation,
                    zone,
                    name,
                    &path("direct"),
                    Some(REAL_DIRECT),
                    six,
                ));
            }
        }
        self.apply(Change::Elements { remove: Vec::new(), add })
    }

    pub(crate) fn apply(&mut self, change: Change) -> Result<()> {
        Ok(self.linux.apply(&ChangeSet { changes: vec![change] })?)
    }

    /// One element: where new flows of the group in the zone go.
    pub(crate) fn choose(&mut self, zone_id: &str, group: &str, choice: &PathChoice) -> Result<()> {
        let group = GroupId::new(group)?;
        let element = current_element(&self.net.allocation, &zone(zone_id), &group, choice);
        let element = element.context("the element")?;
        self.apply(Change::Elements { remove: vec![element.clone()], add: vec![element] })
    }

    /// The address that the resolver gives the zone for the name.
    pub(crate) fn inside4(&self, zone_id: &str, name: &str) -> Result<Ipv4Addr> {
        self.inside(zone_id, name).map(|(four, _)| four)
    }

    pub(crate) fn inside6(&self, zone_id: &str, name: &str) -> Result<Ipv6Addr> {
        self.inside(zone_id, name).map(|(_, six)| six)
    }

    fn inside(&self, zone_id: &str, name: &str) -> Result<(Ipv4Addr, Ipv6Addr)> {
        let key = (zone(zone_id), name.to_owned());
        self.net.allocation.inside.get(&key).copied().with_context(|| format!("{zone_id} {name}"))
    }

    /// Source and destination of everything that has arrived at the node.
    pub(crate) fn arrived(&self, node: &str) -> Result<BTreeSet<(IpAddr, IpAddr)>> {
        let mut pairs = BTreeSet::new();
        for set in ["seen4", "seen6"] {
            let listing = sh(node, &format!("nft list set inet witness {set}"))?;
            let elements = listing.split_once("elements = {").map_or("", |(_, rest)| rest);
            for element in elements.split(',') {
                let mut parts = element.split_whitespace().filter(|word| *word != "." && *word != "}");
                if let (Some(from), Some(to)) = (parts.next(), parts.next()) {
                    pairs.insert((from.parse().context(from.to_owned())?, to.parse()?));
                }
            }
        }
        Ok(pairs)
    }

    /// What must hold on the lines whatever a test has done: no inside address, no zone's source where it is translated.
    pub(crate) fn nothing_has_leaked(&self) -> Result<()> {
        let inside = [ipnet::IpNet::V4(self.plan.inside.ipv4), ipnet::IpNet::V6(self.plan.inside.ipv6)];
        let zones: Vec<ipnet::IpNet> = self
            .plan
            .zones
            .values()
            .flat_map(|zone| [Some(ipnet::IpNet::V4(zone.ipv4)), zone.ipv6.map(ipnet::IpNet::V6)])
            .flatten()
            .map(|net| net.trunc())
            .collect();
        for line in ["carrier", "internet"] {
            let arrived = self.arrived(line)?;
            ensure!(!arrived.is_empty(), "{line} has seen nothing at all: does its witness work?");
            for (from, to) in arrived {
                ensure!(
                    !inside.iter().any(|net| net.contains(&from) || net.contains(&to)),
                    "an inside address on {line}: {from} → {to}"
                );
                ensure!(
                    !zones.iter().any(|net| net.contains(&to)),
                    "back to a zone on {line}: {from} → {to}"
                );
                let routed = line == "carrier" && from.is_ipv4();
                ensure!(
                    routed || !zones.iter().any(|net| net.contains(&from)),
                    "a zone's source on {line}: {from} → {to}"
                );
            }
        }
        Ok(())
    }
}

/// Notes who sent what to whom, but not the talk of neighbours.
const WITNESS: &str = "table inet witness {
    set seen4 { type ipv4_addr . ipv4_addr; flags dynamic; size 65535; }
    set seen6 { type ipv6_addr . ipv6_addr; flags dynamic; size 65535; }
    chain arriving { type filter hook prerouting priority -300;
        iifname \"eth0\" meta nfproto ipv4 add @seen4 { ip saddr . ip daddr };
        iifname \"eth0\" icmpv6 type { 130-137, 143 } return;
        iifname \"eth0\" meta nfproto ipv6 add @seen6 { ip6 saddr . ip6 daddr };
    }
}";

fn batch(node: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(node) = node {
        command.args(["-n", node]);
    }
    std::fs::write("/run/batch", lines)?;
    let output = command.args(["-batch", "/run/batch"]).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{lines}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Every group on its route's path number `which`, or the last.
pub(crate) fn compiled(plan: &ValidSitePlan, which: usize) -> Result<NetworkPlan> {
    let on = |paths: &[PathId]| PathChoice::On(paths[which.min(paths.len() - 1)].clone());
    let routes = plan.routes().iter();
    let choice: BTreeMap<(ZoneId, GroupId), _> =
        routes.map(|route| ((route.zone.clone(), route.group.clone()), on(&route.paths))).collect();
    let allocation = Allocation::default().extend(plan)?;
    Ok(compile(plan, &allocation, &choice, None, Generation(1))?)
}
