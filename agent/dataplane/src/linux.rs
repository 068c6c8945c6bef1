//! The kernel of the network namespace in which it was opened.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path};
use std::time::Duration;

use rustix::io::Errno;
use seimon_board::{InterfaceName, MacAddress};
use seimon_core::network_plan::{
    AffinityEntry, ApplyError, Change, ChangeSet, Dataplane, Element, Flow, Key, KeyPart, LinkKind, Observed,
    PathIndex, Sysctl, TableState, TunnelState,
};

use crate::conntrack::Conntrack;
use crate::listing::Listing;
use crate::nf::{Elements, NfTables, Put};
use crate::ours::Ours;
use crate::rt::Router;
use crate::tunnel::Tunnels;
use crate::watch::Watch;
use crate::{failure, listing, nft};

const SYSCTLS: &str = "/proc/sys";
const FLOWTABLE_TRIAL: &str = "table inet seimon_trial {
    flowtable fast { hook ingress priority 0; counter; }
    chain between { type filter hook forward priority 0; policy accept; ct state established flow add @fast; }
}
delete table inet seimon_trial
";

/// The Linux implementation. Every call blocks until the kernel has answered, at most some seconds.
///
/// Its sockets belong to the network namespace of the thread that opened it; `nft` and `/proc/sys` are those of the
/// calling thread: use it only from threads of that namespace.
#[derive(Debug)]
pub struct Linux {
    router: Router,
    tables: NfTables,
    conntrack: Conntrack,
    ours: Ours,
    tunnels: Tunnels,
}

/// The set that holds who keeps using the path.
pub(crate) fn affinity_set(path: PathIndex) -> String {
    format!("aff_{}", path.0)
}

pub(crate) fn affinity_element(entry: &AffinityEntry) -> Element {
    Element {
        container: affinity_set(entry.path),
        key: Key(vec![KeyPart::Mark(entry.zone_group.mark()), KeyPart::Ether(entry.client)]),
        value: None,
    }
}

pub(crate) fn affinity_entry(
    path: PathIndex,
    key: &Key,
    remaining: Option<Duration>,
) -> Option<AffinityEntry> {
    let [KeyPart::Mark(mark), KeyPart::Ether(client)] = key.0.as_slice() else { return None };
    let remaining = remaining.unwrap_or_default();
    Some(AffinityEntry { path, zone_group: mark.zone_group()?, client: *client, remaining })
}

impl Linux {
    /// Opens sockets into the network namespace of this thread. Needs CAP_NET_ADMIN for changes, not for opening.
    pub fn open() -> Result<Self, ApplyError> {
        let refused = |source| ApplyError::Kernel { doing: "open netlink sockets".into(), source };
        let (router, tables) = (Router::open().map_err(refused)?, NfTables::open().map_err(refused)?);
        let conntrack = Conntrack::open().map_err(refused)?;
        let ours = Ours::default();
        ours.add_port(router.port());
        ours.add_port(tables.port());
        Ok(Self { router, tables, conntrack, ours, tunnels: Tunnels::default() })
    }

    /// Names the program (`seimon-tunnel`) that carries tunnels where the kernel has no WireGuard. Its processes, and their
    /// interfaces, end with this `Linux`.
    pub fn carry_tunnels_with(&mut self, program: &Path) {
        self.tunnels.set_program(program);
    }

    /// Whether the kernel has flowtables, and rules that use them. Asked by a transaction that is thrown away.
    pub fn has_flowtables(&self) -> Result<bool, ApplyError> {
        nft::takes(FLOWTABLE_TRIAL, &self.ours)
    }

    /// A subscription to changes by others than this `Linux`.
    pub fn watch(&self) -> Result<Watch, ApplyError> {
        let refused = |source| ApplyError::Kernel { doing: "subscribe to changes".into(), source };
        Watch::open(self.ours.clone()).map_err(refused)
    }

    /// True when every one of the elements is in its map with that value (or in its set). Asks for each alone: some
    /// microseconds, where an observation takes as long as there are elements. Not for prefixes and ranges.
    pub fn in_force(&mut self, elements: &[Element]) -> Result<bool, ApplyError> {
        for element in elements {
            let holds = self.tables.holds(element);
            if !holds.map_err(|error| failure(format!("look into {}", element.container), error))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How our tunnels are, without looking at anything else.
    pub fn tunnels(&mut self) -> Result<BTreeMap<InterfaceName, TunnelState>, ApplyError> {
        let links = self.router.links()?;
        Ok(self.tunnels.states(&links))
    }

    /// Moves an interface, as a probe host's far end, into the network namespace that the descriptor refers to
    /// (`/proc/PID/ns/net`, or a file below `/run/netns`). It loses its addresses and arrives down.
    pub fn move_link(&mut self, link: &InterfaceName, namespace: BorrowedFd<'_>) -> Result<(), ApplyError> {
        self.router.move_link(link, namespace)
    }

    /// As [`Self::move_link`], into the namespace of a process.
    pub fn move_link_to_process(&mut self, link: &InterfaceName, pid: u32) -> Result<(), ApplyError> {
        let file = std::fs::File::open(format!("/proc/{pid}/ns/net"));
        let doing = || format!("open the network namespace of process {pid}");
        let file = file.map_err(|source| ApplyError::Kernel { doing: doing(), source })?;
        self.move_link(link, file.as_fd())
    }

    /// Carries out one change.
    pub fn apply_one(&mut self, change: &Change) -> Result<(), ApplyError> {
        match change {
            Change::Nft { script } => nft::run_script(script, &self.ours),
            Change::Elements { remove, add } => {
                let add: Vec<_> = add.iter().map(|element| Put { element, lifetime: None }).collect();
                self.change_elements(remove, &add)
            }
            Change::Affinity { add, remove } => self.change_affinity(add, remove),
            Change::Kill(which) => match self.conntrack.kill(which) {
                Ok(0) => Ok(()),
                Ok(flows) => Err(ApplyError::Offloaded { flows }),
                Err(error) => Err(failure("delete flows", error)),
            },
            Change::LinkUp(link) => {
                if link.kind == LinkKind::Tunnel {
                    self.tunnels.make(&mut self.router, &link.name)?;
                }
                self.router.link_up(link)
            }
            Change::LinkRemove(name) => {
                self.tunnels.forget(name);
                self.router.remove_link(name)
            }
            Change::TunnelSet { interface, tunnel } => self.tunnels.configure(interface, tunnel),
            Change::TunnelEndpoint { interface, peer, endpoint } => {
                self.tunnels.set_endpoint(interface, *peer, *endpoint)
            }
            Change::AddressAdd(address) => self.router.add_address(address),
            Change::AddressRemove(address) => self.router.remove_address(address),
            Change::RouteReplace(route) => self.router.replace_route(route),
            Change::RouteRemove(route) => self.router.remove_route(route),
            Change::RuleAdd(rule) => self.router.add_rule(rule),
            Change::RuleRemove(rule) => self.router.remove_rule(rule),
            Change::SysctlSet(sysctl) => set_sysctl(sysctl),
        }
    }

    fn change_elements(&mut self, remove: &[Element], add: &[Put<'_>]) -> Result<(), ApplyError> {
        self.ours.add_this_thread();
        self.tables.change(remove, add).map_err(|error| {
            let named = add.iter().map(|put| put.element).chain(remove);
            let names: BTreeSet<_> = named.map(|element| element.container.as_str()).collect();
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            failure(format!("change elements of {names}"), error)
        })
    }

    fn change_affinity(&mut self, add: &[AffinityEntry], remove: &[AffinityEntry]) -> Result<(), ApplyError> {
        let added: Vec<Element> = add.iter().map(affinity_element).collect();
        // Putting in what is there would leave its old time-out: each is taken out first, in the same transaction.
        let taken: Vec<Element> = remove.iter().chain(add).map(affinity_element).collect();
        let puts: Vec<_> = added
            .iter()
            .zip(add)
            .map(|(element, entry)| Put { element, lifetime: Some(entry.remaining) })
            .collect();
        self.change_elements(&taken, &puts)
    }

    fn table(&mut self) -> Result<Option<TableState>, ApplyError> {
        let Some(listing) = listing::read(&nft::list(&self.ours)?)? else { return Ok(None) };
        let Listing { chains, flowtable } = listing;
        let unlisted = |error| failure("list sets and maps", error);
        let containers = self.tables.containers().map_err(unlisted)?;
        let mut elements = BTreeMap::new();
        for container in containers.iter().filter(|container| !container.is_dynamic()) {
            let found = self.tables.elements(container).map_err(unlisted)?;
            let found: Elements = found.into_iter().map(|(key, value, _)| (key, value)).collect();
            elements.insert(container.name.clone(), found);
        }
        let containers = containers.iter().map(|c| (c.name.clone(), c.fingerprint())).collect();
        Ok(Some(TableState { chains, containers, elements, flowtable }))
    }
}

impl Dataplane for Linux {
    fn observe(&mut self, sysctls: &[String]) -> Result<Observed, ApplyError> {
        let links = self.router.links()?;
        Ok(Observed {
            interfaces: links.iter().map(|link| (link.name.clone(), link.up)).collect(),
            links: links.ours(&self.router.carried()?),
            tunnels: self.tunnels.states(&links),
            addresses: self.router.addresses(&links)?.into_iter().collect(),
            routes: self.router.routes(&links)?.into_iter().collect(),
            rules: self.router.rules()?.into_iter().collect(),
            sysctls: sysctls.iter().filter_map(|path| Some((path.clone(), sysctl(path)?))).collect(),
            table: self.table()?,
        })
    }

    fn apply(&mut self, changes: &ChangeSet) -> Result<(), ApplyError> {
        changes.changes.iter().try_for_each(|change| self.apply_one(change))
    }

    fn flows(&mut self) -> Result<Vec<Flow>, ApplyError> {
        self.conntrack.flows().map_err(|error| failure("list flows", error))
    }

    fn affinity(&mut self, paths: &[PathIndex]) -> Result<Vec<AffinityEntry>, ApplyError> {
        let unlisted = |error| failure("list affinity", error);
        let containers = self.tables.containers().map_err(unlisted)?;
        let mut entries = Vec::new();
        for path in paths {
            let name = affinity_set(*path);
            let Some(container) = containers.iter().find(|container| container.name == name) else {
                continue;
            };
            let found = self.tables.elements(container).map_err(unlisted)?;
            entries.extend(found.iter().filter_map(|(key, _, left)| affinity_entry(*path, key, *left)));
        }
        entries.sort();
        Ok(entries)
    }

    fn heard_at(
        &mut self,
        bridge: &InterfaceName,
    ) -> Result<BTreeMap<MacAddress, InterfaceName>, ApplyError> {
        self.router.heard_at(bridge)
    }

    fn neighbours(&mut self, interface: &InterfaceName) -> Result<BTreeMap<IpAddr, MacAddress>, ApplyError> {
        self.router.neighbours(interface)
    }
}

/// A path below `/proc/sys`, and nothing else. An interface name in it may contain dots, not slashes.
fn sysctl_file(path: &str) -> Option<std::path::PathBuf> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !path.is_empty()).then(|| Path::new(SYSCTLS).join(path))
}

/// The value with blanks around it trimmed; `None` where the kernel has no such setting (or interface).
fn sysctl(path: &str) -> Option<String> {
    let value = std::fs::read_to_string(sysctl_file(path)?).ok()?;
    Some(value.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn set_sysctl(wanted: &Sysctl) -> Result<(), ApplyError> {
    let Sysctl { path, value } = wanted;
    let doing = || format!("set {path} to {value}");
    let file = sysctl_file(path)
        .ok_or_else(|| ApplyError::Kernel { doing: doing(), source: io::ErrorKind::InvalidInput.into() })?;
    if sysctl(path).as_deref() == Some(value) {
        return Ok(());
    }
    std::fs::write(file, value).map_err(|source| match Errno::from_io_error(&source) {
        Some(Errno::PERM | Errno::ACCESS | Errno::ROFS) => ApplyError::NotPermitted { doing: doing() },
        Some(_) | None => ApplyError::Kernel { doing: doing(), source },
    })
}
