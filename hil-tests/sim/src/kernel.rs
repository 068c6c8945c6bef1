//! The kernel: the dataplane's fake takes the changes, the interpreter reads what it then holds, packet by packet.

#[path = "../../../agent/core/tests/network/interpreter.rs"]
mod interpreter;

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher};
use std::net::IpAddr;

use seimon_board::{InterfaceName, MacAddress};
use seimon_core::network_plan::{
    AffinityEntry, ApplyError, Chain, ChainKind, Change, ChangeSet, Dataplane, Flow, Hook, Key, KeyPart, Map,
    Mark, NetworkPlan, Observed, PathIndex, Rule, Ruleset, Set, Value, Verdict, ZoneGroupIndex, bridge_name,
};
use seimon_dataplane::{Container, Fake, Table};
use seimon_plan::ZoneId;
use std::time::Duration;

use crate::town::Town;

/// A client's first packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    pub zone: ZoneId,
    /// Last byte of the client's address.
    pub host: u8,
    pub to: IpAddr,
    pub protocol: u8,
    pub port: u16,
    /// Where this client is logged in.
    pub kept: Vec<(PathIndex, ZoneGroupIndex)>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Out by a line, as a flow of this path, to this address; and what the kernel learnt.
    Out {
        path: u8,
        interface: String,
        to: IpAddr,
        learnt: Vec<(PathIndex, ZoneGroupIndex)>,
    },
    /// Into a zone, by its bridge.
    Zone {
        interface: String,
    },
    Gateway,
    No,
}

/// Answers that stay the same while the tables do; kept across schedules of a town.
pub type Memory = BTreeMap<u64, BTreeMap<Ask, Way>>;

#[derive(Debug)]
pub struct Kernel<'t> {
    town: &'t Town,
    fake: Fake,
    pub now: u64,
    /// So many changes are refused.
    pub refusals: u32,
    /// Somebody else has been at it, and nobody has looked since.
    pub touched: bool,
    affinity: BTreeMap<(PathIndex, ZoneGroupIndex, MacAddress), u64>,
    /// Of rules and routes, and of everything.
    frame: Option<u64>,
    digest: Option<u64>,
    pub changes: u64,
}

/// FNV-1a.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn fnv() -> Fnv {
    Fnv(0xcbf2_9ce4_8422_2325)
}

/// The client that questions are asked for; which one does not matter to any table.
const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

fn fresh(town: &Town) -> Fake {
    Fake::new(town.plan.board().ports.values().map(|port| port.interface.clone()))
}

impl<'t> Kernel<'t> {
    /// Just booted.
    pub fn new(town: &'t Town) -> Self {
        Self {
            town,
            fake: fresh(town),
            now: 0,
            refusals: 0,
            touched: false,
            affinity: BTreeMap::new(),
            frame: None,
            digest: None,
            changes: 0,
        }
    }

    /// A copy in the state of `other`, sharing nothing with it.
    pub fn like(other: &Self) -> Self {
        let fake = Fake::default();
        let state = other.fake.with(|kernel| kernel.clone());
        fake.with(|kernel| *kernel = state);
        Self {
            fake,
            affinity: other.affinity.clone(),
            frame: other.frame,
            digest: other.digest,
            changes: 0,
            now: 0,
            refusals: 0,
            touched: false,
            town: other.town,
        }
    }

    /// The power was off.
    pub fn reboot(&mut self) {
        self.fake = fresh(self.town);
        self.affinity.clear();
        self.refusals = 0;
        self.touched = false;
        (self.frame, self.digest) = (None, None);
    }

    /// `nft flush ruleset` by somebody else.
    pub fn flush(&mut self) {
        self.fake.with(|kernel| kernel.table = None);
        self.affinity.clear();
        self.touched = true;
        (self.frame, self.digest) = (None, None);
    }

    pub fn has_table(&self) -> bool {
        self.fake.with(|kernel| kernel.table.is_some())
    }

    /// Clients, probe hosts apart, that keep the path.
    pub fn clients(&self, zone_group: ZoneGroupIndex, path: PathIndex) -> u32 {
        let probes = &self.town.allocation.probes;
        let held = self.affinity.iter().filter(|&(&(p, zg, mac), &until)| {
            (p, zg) == (path, zone_group)
                && until > self.now
                && !probes.values().any(|probe| probe.mac == mac)
        });
        u32::try_from(held.count()).unwrap_or(u32::MAX)
    }

    fn kept(&self, client: MacAddress) -> Vec<(PathIndex, ZoneGroupIndex)> {
        let held = self.affinity.iter().filter(|&(&(_, _, mac), &until)| mac == client && until > self.now);
        held.map(|(&(path, zone_group, _), _)| (path, zone_group)).collect()
    }

    /// A client's new flow. What the kernel learns of it, it keeps.
    pub fn begin(
        &mut self,
        memory: &mut Memory,
        zone: &ZoneId,
        (client, host): (MacAddress, u8),
        to: (IpAddr, u8, u16),
    ) -> Way {
        let kept = self.kept(client);
        let ask = Ask { zone: zone.clone(), host, to: to.0, protocol: to.1, port: to.2, kept };
        let way = self.answer(memory, &ask);
        if let Way::Out { learnt, .. } = &way {
            for &(path, zone_group) in learnt {
                let until = self.now + crate::town::IDLE_MS;
                self.affinity.insert((path, zone_group, client), until);
            }
        }
        way
    }

    /// What would become of the packet; nothing is learnt.
    pub fn answer(&mut self, memory: &mut Memory, ask: &Ask) -> Way {
        let digest = self.digest();
        if let Some(way) = memory.get(&digest).and_then(|known| known.get(ask)) {
            return way.clone();
        }
        self.learn(memory, &[ask]);
        memory.get(&digest).and_then(|known| known.get(ask)).cloned().unwrap_or(Way::No)
    }

    /// Like [`Self::answer`] for many at once: the table is read only once.
    pub fn learn(&mut self, memory: &mut Memory, asks: &[&Ask]) {
        let digest = self.digest();
        let known = memory.entry(digest).or_default();
        let unknown: Vec<&&Ask> = asks.iter().filter(|ask| !known.contains_key(**ask)).collect();
        if unknown.is_empty() {
            return;
        }
        let net = self.read();
        let mut machine = match interpreter::Machine::read(&net) {
            Ok(machine) => machine,
            Err(word) => panic!("the table says what the interpreter does not know: {word}"),
        };
        for ask in unknown {
            machine.learnt.clear();
            let way = self.interpret(&mut machine, ask).unwrap_or(Way::No);
            known.insert((*ask).clone(), way);
        }
    }

    /// The path of new flows as the map has it, for when no packet can show it: a name may have no address there.
    pub fn current(&self, zone_group: ZoneGroupIndex) -> Option<u8> {
        self.choice("current", "use", zone_group)
    }

    /// ...and of new flows of the few who try first: everybody's where nobody does.
    pub fn current_of_the_few(&self, zone_group: ZoneGroupIndex) -> Option<u8> {
        self.choice("canary", "pick", zone_group).or_else(|| self.current(zone_group))
    }

    fn choice(&self, map: &str, chains: &str, zone_group: ZoneGroupIndex) -> Option<u8> {
        let key = Key(vec![KeyPart::Mark(zone_group.mark())]);
        let Some(Some(Value::Verdict(Verdict::Goto(chain)))) = self.fake.lookup(map, &key) else {
            return None;
        };
        chain.strip_prefix(&format!("{chains}_{}_", zone_group.0))?.parse().ok()
    }

    fn interpret(&self, machine: &mut interpreter::Machine<'_>, ask: &Ask) -> Option<Way> {
        let spec = self.town.plan.zones.get(&ask.zone)?;
        let source: IpAddr = match ask.to {
            IpAddr::V4(_) => {
                std::net::Ipv4Addr::from(u32::from(spec.ipv4.network()) | u32::from(ask.host)).into()
            }
            IpAddr::V6(_) => std::net::Ipv6Addr::from(u128::from(spec.ipv6?.network()) | 0x100).into(),
        };
        for (path, zone_group) in &ask.kept {
            let key = Key(vec![KeyPart::Mark(zone_group.mark()), KeyPart::Ether(CLIENT)]);
            machine.learnt.entry(format!("aff_{}", path.0)).or_default().insert(key);
        }
        let bare = [6, 17].contains(&ask.protocol);
        let sent = interpreter::Packet {
            iif: bridge_name(&ask.zone).ok()?.to_string(),
            mac: CLIENT,
            source,
            destination: ask.to,
            protocol: ask.protocol,
            source_port: if bare { 40_000 } else { 0 },
            port: if bare { ask.port } else { 0 },
            state: "new",
            ct_mark: 0,
            mark: 0,
        };
        Some(match machine.send(sent) {
            interpreter::Fate::Refused | interpreter::Fate::Dropped => Way::No,
            interpreter::Fate::Delivered(_) => Way::Gateway,
            interpreter::Fate::Forwarded { oif, packet } => {
                let bridges = self.town.plan.zones.keys().filter_map(|zone| bridge_name(zone).ok());
                if bridges.into_iter().any(|bridge| bridge.as_str() == oif) {
                    Way::Zone { interface: oif }
                } else {
                    let mark = Mark(packet.ct_mark);
                    // What was there before is refreshed only for this flow's own path and group.
                    let own = mark.path().zip(mark.zone_group());
                    let all = machine.learnt.iter().flat_map(|(set, keys)| learnt_of(set, keys));
                    let learnt = all.filter(|way| own == Some(*way) || !ask.kept.contains(way)).collect();
                    let path = mark.path().map_or(0, |path| path.0);
                    Way::Out { path, interface: oif, to: packet.destination, learnt }
                }
            }
        })
    }

    /// Equal for tables, rules and routes that are equal.
    pub fn digest(&mut self) -> u64 {
        if let Some(digest) = self.digest {
            return digest;
        }
        let (frame, digest) = self.fake.with(|kernel| {
            let frame = self.frame.unwrap_or_else(|| {
                let mut hasher = fnv();
                for (name, rules) in kernel.table.iter().flat_map(|table| &table.rules) {
                    (name, rules).hash(&mut hasher);
                }
                let rest = (&kernel.routes, &kernel.rules, &kernel.addresses, &kernel.interfaces);
                format!("{rest:?}").hash(&mut hasher);
                hasher.finish()
            });
            let mut hasher = fnv();
            frame.hash(&mut hasher);
            for (name, container) in kernel.table.iter().flat_map(|table| &table.containers) {
                (name, &container.elements).hash(&mut hasher);
            }
            (frame, hasher.finish())
        });
        (self.frame, self.digest) = (Some(frame), Some(digest));
        digest
    }

    /// What the kernel holds, in the words of a plan.
    fn read(&self) -> NetworkPlan {
        self.fake.with(|kernel| NetworkPlan {
            links: kernel.links.values().cloned().collect(),
            addresses: kernel.addresses.iter().cloned().collect(),
            routes: kernel.routes.iter().cloned().collect(),
            rules: kernel.rules.iter().cloned().collect(),
            ruleset: kernel.table.as_ref().map(ruleset).unwrap_or_default(),
            ..self.town.first.clone()
        })
    }
}

fn learnt_of<'a>(set: &'a str, keys: impl IntoIterator<Item = &'a Key>) -> Vec<(PathIndex, ZoneGroupIndex)> {
    let Some(path) = set.strip_prefix("aff_").and_then(|n| n.parse().ok()).map(PathIndex) else {
        return Vec::new();
    };
    let zone_groups = keys.into_iter().filter_map(|key| match key.0.first() {
        Some(KeyPart::Mark(mark)) => mark.zone_group(),
        Some(_) | None => None,
    });
    zone_groups.map(|zone_group| (path, zone_group)).collect()
}

fn ruleset(table: &Table) -> Ruleset {
    let mut ruleset = Ruleset::default();
    for (name, rules) in &table.rules {
        let plain = |rule: &String| {
            let text = rule.rsplit_once(" comment \"").map_or(rule.as_str(), |(text, _)| text);
            Rule { text: text.to_owned(), because: String::new() }
        };
        let kind = table.bases.get(name).and_then(|base| base_of(base)).unwrap_or(ChainKind::Regular);
        ruleset.chains.insert(name.clone(), Chain { kind, rules: rules.iter().map(plain).collect() });
    }
    for (name, container) in &table.containers {
        let Container { key, value, interval, dynamic, size, elements, .. } = container;
        match value {
            Some(value) => {
                let elements = elements.iter().filter_map(|(k, v)| Some((k.clone(), v.clone()?))).collect();
                let map =
                    Map { key: key.clone(), value: *value, interval: *interval, runtime: false, elements };
                ruleset.maps.insert(name.clone(), map);
            }
            None => {
                let set = Set {
                    key: key.clone(),
                    interval: *interval,
                    dynamic: dynamic.then_some(*size),
                    elements: elements.keys().cloned().collect(),
                };
                ruleset.sets.insert(name.clone(), set);
            }
        }
    }
    ruleset
}

/// `filter prerouting -150 accept`
fn base_of(text: &str) -> Option<ChainKind> {
    let [chain_type, hook, priority, policy] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    Some(ChainKind::Base {
        chain_type: chain_type.to_owned(),
        hook: hooks.into_iter().find(|known| known.nft_name() == hook)?,
        priority: priority.parse().ok()?,
        drop_by_default: policy == "drop",
    })
}

impl Dataplane for Kernel<'_> {
    fn observe(&mut self, sysctls: &[String]) -> Result<Observed, ApplyError> {
        self.touched = false;
        self.fake.observe(sysctls)
    }

    fn apply(&mut self, changes: &ChangeSet) -> Result<(), ApplyError> {
        for change in &changes.changes {
            if self.refusals > 0 {
                self.refusals -= 1;
                let source = std::io::ErrorKind::ResourceBusy.into();
                return Err(ApplyError::Kernel { doing: "do as it was told".into(), source });
            }
            self.changes += 1;
            if let Change::Affinity { add, remove } = change {
                for entry in remove {
                    self.affinity.remove(&(entry.path, entry.zone_group, entry.client));
                }
                for entry in add {
                    let until = self.now + u64::try_from(entry.remaining.as_millis()).unwrap_or(0);
                    self.affinity.insert((entry.path, entry.zone_group, entry.client), until);
                }
                continue;
            }
            self.fake.apply(&ChangeSet { changes: vec![change.clone()] })?;
            self.digest = None;
            if !matches!(change, Change::Elements { .. }) {
                self.frame = None;
            }
            if matches!(change, Change::Nft { script } if script.contains("delete table")) {
                self.affinity.clear();
            }
        }
        // It would grow for ever.
        self.fake.with(|kernel| kernel.log.clear());
        Ok(())
    }

    fn flows(&mut self) -> Result<Vec<Flow>, ApplyError> {
        self.fake.flows()
    }

    fn affinity(&mut self, paths: &[PathIndex]) -> Result<Vec<AffinityEntry>, ApplyError> {
        let now = self.now;
        let held = self.affinity.iter().filter(|&(&(path, ..), &until)| until > now && paths.contains(&path));
        Ok(held
            .map(|(&(path, zone_group, client), &until)| AffinityEntry {
                path,
                zone_group,
                client,
                remaining: Duration::from_millis(until - now),
            })
            .collect())
    }

    fn neighbours(&mut self, interface: &InterfaceName) -> Result<BTreeMap<IpAddr, MacAddress>, ApplyError> {
        self.fake.neighbours(interface)
    }
}
