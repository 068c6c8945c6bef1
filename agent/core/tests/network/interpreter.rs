//! A reader of our own rulesets: parses every statement that segmentation writes (and fails at any other), and says what
//! becomes of one packet: prerouting → routing → forward or input. The kernel in small, for models to be compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use seimon_board::{InterfaceName, MacAddress};
use seimon_core::network_plan::{
    ChainKind, Family, Hook, Key, KeyPart, Mark, NetworkPlan, RouteKind, RuleAction, Ruleset, Value, Verdict,
};

#[path = "interpreter/statement.rs"]
mod statement;

pub(crate) use statement::{Field, Nat, Statement, Test, parse};

/// One packet, and what the kernel keeps about its flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) iif: String,
    pub(crate) mac: MacAddress,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// IANA protocol number; of ICMP only echo requests.
    pub(crate) protocol: u8,
    /// 0 for protocols without ports.
    pub(crate) source_port: u16,
    pub(crate) port: u16,
    /// `new`, `established`, `related`, `invalid` or `untracked`.
    pub(crate) state: &'static str,
    pub(crate) ct_mark: u32,
    pub(crate) mark: u32,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Out by the interface, as this packet.
    Forwarded {
        oif: String,
        packet: Packet,
    },
    /// To the gateway itself.
    Delivered(Packet),
    /// Answered with a reset or an ICMP error.
    Refused,
    Dropped,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Accept,
    Drop,
    Reject,
}

/// A network plan, its rules read.
pub(crate) struct Machine<'a> {
    net: &'a NetworkPlan,
    chains: BTreeMap<&'a str, Vec<Vec<Statement>>>,
    /// What dynamic sets have learnt.
    pub(crate) learnt: BTreeMap<String, BTreeSet<Key>>,
    local: BTreeSet<IpAddr>,
}

impl<'a> Machine<'a> {
    /// `Err` names a statement that this reader does not know.
    pub(crate) fn read(net: &'a NetworkPlan) -> Result<Self, String> {
        let mut chains = BTreeMap::new();
        for (name, chain) in &net.ruleset.chains {
            let rules: Result<Vec<_>, String> = chain
                .rules
                .iter()
                .map(|rule| parse(&rule.text).map_err(|word| format!("{name}: {}: {word}", rule.text)))
                .collect();
            chains.insert(name.as_str(), rules?);
        }
        let local = net.addresses.iter().map(|address| address.address.addr()).collect();
        Ok(Self { net, chains, learnt: BTreeMap::new(), local })
    }

    fn ruleset(&self) -> &'a Ruleset {
        &self.net.ruleset
    }

    /// The whole way of one packet.
    pub(crate) fn send(&mut self, mut packet: Packet) -> Fate {
        for chain in self.hooked(Hook::Prerouting) {
            match self.base(&chain, &mut packet, "") {
                End::Accept => {}
                End::Drop => return Fate::Dropped,
                End::Reject => return Fate::Refused,
            }
        }
        if self.local.contains(&packet.destination) {
            for chain in self.hooked(Hook::Input) {
                if self.base(&chain, &mut packet, "") != End::Accept {
                    return Fate::Dropped;
                }
            }
            return Fate::Delivered(packet);
        }
        let oif = match self.route(&packet) {
            Ok(oif) => oif,
            Err(fate) => return fate,
        };
        for chain in self.hooked(Hook::Forward) {
            match self.base(&chain, &mut packet, &oif) {
                End::Accept => {}
                End::Drop => return Fate::Dropped,
                End::Reject => return Fate::Refused,
            }
        }
        Fate::Forwarded { oif, packet }
    }

    /// Base chains on the hook, in order of priority.
    fn hooked(&self, at: Hook) -> Vec<String> {
        let mut chains: Vec<(i32, &String)> = self
            .ruleset()
            .chains
            .iter()
            .filter_map(|(name, chain)| match &chain.kind {
                ChainKind::Base { hook, priority, .. } if *hook == at => Some((*priority, name)),
                ChainKind::Base { .. } | ChainKind::Ingress { .. } | ChainKind::Regular => None,
            })
            .collect();
        chains.sort();
        chains.into_iter().map(|(_, name)| name.clone()).collect()
    }

    fn base(&mut self, name: &str, packet: &mut Packet, oif: &str) -> End {
        let ChainKind::Base { chain_type, drop_by_default, .. } = &self.ruleset().chains[name].kind else {
            panic!("{name} is no base chain");
        };
        // Translation is decided once a flow.
        if chain_type == "nat" && packet.state != "new" {
            return End::Accept;
        }
        let policy = if *drop_by_default { End::Drop } else { End::Accept };
        self.walk(name, packet, oif).unwrap_or(policy)
    }

    fn walk(&mut self, name: &str, packet: &mut Packet, oif: &str) -> Option<End> {
        let rules = self.chains.get(name).unwrap_or_else(|| panic!("no chain {name}")).clone();
        for rule in rules {
            for statement in rule {
                match self.step(&statement, packet, oif) {
                    Step::Next => {}
                    Step::NextRule => break,
                    Step::End(end) => return Some(end),
                    Step::Return => return None,
                    Step::Goto(chain) => return self.walk(&chain, packet, oif),
                    Step::Jump(chain) => {
                        if let Some(end) = self.walk(&chain, packet, oif) {
                            return Some(end);
                        }
                        break;
                    }
                }
            }
        }
        None
    }

    fn step(&mut self, statement: &Statement, packet: &mut Packet, oif: &str) -> Step {
        match statement {
            Statement::Match(field, test) => match self.holds(*field, test, packet, oif) {
                Some(true) => Step::Next,
                Some(false) | None => Step::NextRule,
            },
            Statement::InSet(fields, set) => {
                let found = self.key(fields, packet, oif).is_some_and(|key| self.set_has(set, &key));
                if found { Step::Next } else { Step::NextRule }
            }
            Statement::Vmap(fields, map) => match self
                .key(fields, packet, oif)
                .and_then(|key| self.look_up(map, &key))
            {
                Some(Value::Verdict(verdict)) => verdict_step(&verdict),
                Some(Value::Mark(_) | Value::Ipv4(_) | Value::Ipv6(_)) => panic!("{map} holds no verdicts"),
                None => Step::NextRule,
            },
            Statement::States(verdicts) => {
                let found = verdicts.iter().find(|(state, _)| state == packet.state);
                found.map_or(Step::NextRule, |(_, verdict)| verdict_step(verdict))
            }
            Statement::Verdict(verdict) => verdict_step(verdict),
            Statement::Reject => Step::End(End::Reject),
            Statement::SetCtMark { keep, put } => {
                if packet.state != "untracked" {
                    packet.ct_mark = packet.ct_mark & keep | put;
                }
                Step::Next
            }
            Statement::SetMark { keep, put } => {
                packet.mark = packet.mark & keep | put;
                Step::Next
            }
            Statement::Update(set, fields) => match self.key(fields, packet, oif) {
                Some(key) => {
                    self.learnt.entry(set.clone()).or_default().insert(key);
                    Step::Next
                }
                None => Step::NextRule,
            },
            Statement::Nat(Nat::ToDestination { fields, map }) => {
                let real = self.key(fields, packet, oif).and_then(|key| self.look_up(map, &key));
                match real {
                    Some(Value::Ipv4(real)) => packet.destination = real.into(),
                    Some(Value::Ipv6(real)) => packet.destination = real.into(),
                    Some(Value::Mark(_) | Value::Verdict(_)) => panic!("{map} holds no addresses"),
                    None => return Step::NextRule,
                }
                Step::End(End::Accept)
            }
            // What leaves is told by where it leaves, not by its source.
            Statement::Nat(Nat::Source) => Step::End(End::Accept),
            Statement::Indifferent => Step::Next,
        }
    }

    /// `None`: the packet has no such field, so the rule does not hold.
    fn holds(&self, field: Field, test: &Test, packet: &Packet, oif: &str) -> Option<bool> {
        let one = |word: &str| -> bool {
            match field {
                Field::State => packet.state == word,
                Field::Broadcast => word != "host",
                Field::Fib => {
                    let local = self.local.contains(&packet.destination);
                    let kind = if local {
                        "local"
                    } else if packet.destination.is_multicast() {
                        "multicast"
                    } else {
                        "unicast"
                    };
                    word == kind
                }
                Field::Syn => packet.state == "new",
                Field::NfProto => (word == "ipv4") == packet.source.is_ipv4(),
                Field::EchoRequest(_) => word == "echo-request",
                Field::SourcePort(_) => word.parse() == Ok(packet.source_port),
                Field::CtMark(_)
                | Field::Mark(_)
                | Field::Iif
                | Field::Oif
                | Field::Source(_)
                | Field::Destination(_)
                | Field::Ether
                | Field::Protocol
                | Field::Port(_) => {
                    let part = self.part(field, packet, oif);
                    part.is_some_and(|part| literal(&part, word))
                }
            }
        };
        if !present(field, packet) {
            return None;
        }
        if field == Field::Broadcast {
            // Every packet of this model is meant for the gateway.
            return Some(matches!(test, Test::Is(_)));
        }
        Some(match test {
            Test::Is(words) => words.iter().any(|word| one(word)),
            Test::IsNot(words) => !words.iter().any(|word| one(word)),
        })
    }

    fn key(&self, fields: &[Field], packet: &Packet, oif: &str) -> Option<Key> {
        fields.iter().map(|field| self.part(*field, packet, oif)).collect::<Option<Vec<_>>>().map(Key)
    }

    fn part(&self, field: Field, packet: &Packet, oif: &str) -> Option<KeyPart> {
        let name = |name: &str| InterfaceName::new(name).ok().map(KeyPart::Ifname);
        let address = |address: IpAddr| match address {
            IpAddr::V4(address) => KeyPart::Ipv4(address),
            IpAddr::V6(address) => KeyPart::Ipv6(address),
        };
        if !present(field, packet) {
            return None;
        }
        match field {
            Field::CtMark(mask) => Some(KeyPart::Mark(Mark(packet.ct_mark & mask))),
            Field::Mark(mask) => Some(KeyPart::Mark(Mark(packet.mark & mask))),
            Field::Iif => name(&packet.iif),
            Field::Oif => name(oif),
            Field::Source(_) => Some(address(packet.source)),
            Field::Destination(_) => Some(address(packet.destination)),
            Field::Ether => Some(KeyPart::Ether(packet.mac)),
            Field::Protocol => Some(KeyPart::Proto(packet.protocol)),
            Field::Port(_) => Some(KeyPart::Port(packet.port)),
            Field::State
            | Field::Broadcast
            | Field::Fib
            | Field::Syn
            | Field::NfProto
            | Field::EchoRequest(_)
            | Field::SourcePort(_) => panic!("{field:?} in a key"),
        }
    }

    fn set_has(&self, name: &str, key: &Key) -> bool {
        let set = self.ruleset().sets.get(name).unwrap_or_else(|| panic!("no set {name}"));
        if set.dynamic.is_some() {
            return self.learnt.get(name).is_some_and(|learnt| learnt.contains(key));
        }
        if set.interval {
            set.elements.iter().any(|element| covers(element, key))
        } else {
            set.elements.contains(key)
        }
    }

    fn look_up(&self, name: &str, key: &Key) -> Option<Value> {
        let map = self.ruleset().maps.get(name).unwrap_or_else(|| panic!("no map {name}"));
        if !map.interval {
            return map.elements.get(key).cloned();
        }
        let mut found = map.elements.iter().filter(|(element, _)| covers(element, key));
        let value = found.next().map(|(_, value)| value.clone());
        assert!(found.next().is_none(), "two elements of {name} cover {key:?}");
        value
    }

    /// The interface by which it leaves.
    fn route(&self, packet: &Packet) -> Result<String, Fate> {
        let family = if packet.destination.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        let mut rules: Vec<_> = self.net.rules.iter().filter(|rule| rule.family == family).collect();
        rules.sort_by_key(|rule| rule.priority);
        for rule in rules {
            let matches = &rule.matches;
            let hit = matches.iif.as_ref().is_none_or(|iif| iif.as_str() == packet.iif)
                && matches
                    .udp_source_port
                    .is_none_or(|port| packet.protocol == 17 && packet.source_port == port)
                && matches.from.is_none_or(|from| from.contains(&packet.source))
                && matches.fwmark.is_none_or(|(value, mask)| packet.mark & mask == value);
            if !hit {
                continue;
            }
            match rule.action {
                RuleAction::Prohibit => return Err(Fate::Refused),
                RuleAction::Blackhole => return Err(Fate::Dropped),
                RuleAction::Table(table) => {
                    let routes = self.net.routes.iter().filter(|route| {
                        route.table == table && route.destination.contains(&packet.destination)
                    });
                    match routes.max_by_key(|route| route.destination.prefix_len()).map(|route| &route.kind) {
                        Some(RouteKind::Prohibit) => return Err(Fate::Refused),
                        Some(RouteKind::Onlink { interface, .. } | RouteKind::Via { interface, .. }) => {
                            return Ok(interface.to_string());
                        }
                        None => {}
                    }
                }
            }
        }
        Err(Fate::Refused)
    }
}

enum Step {
    Next,
    NextRule,
    End(End),
    Return,
    Goto(String),
    Jump(String),
}

fn verdict_step(verdict: &Verdict) -> Step {
    match verdict {
        Verdict::Accept => Step::End(End::Accept),
        Verdict::Drop => Step::End(End::Drop),
        Verdict::Return => Step::Return,
        Verdict::Goto(chain) => Step::Goto(chain.clone()),
        Verdict::Jump(chain) => Step::Jump(chain.clone()),
    }
}

/// Whether the packet has such a field; nft adds these conditions by itself.
fn present(field: Field, packet: &Packet) -> bool {
    let four = packet.source.is_ipv4();
    match field {
        Field::CtMark(_) => packet.state != "untracked",
        Field::Source(family) | Field::Destination(family) => (family == Family::Ipv4) == four,
        Field::Port(Some(protocol)) | Field::SourcePort(protocol) => packet.protocol == protocol,
        Field::EchoRequest(protocol) => packet.protocol == protocol && (protocol == 1) == four,
        Field::Syn => packet.protocol == 6,
        Field::Mark(_)
        | Field::Iif
        | Field::Oif
        | Field::Ether
        | Field::Protocol
        | Field::Port(None)
        | Field::State
        | Field::Broadcast
        | Field::Fib
        | Field::NfProto => true,
    }
}

fn literal(part: &KeyPart, word: &str) -> bool {
    let number = |word: &str| match word.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    };
    let within = |address: IpAddr| match word.parse::<IpNet>() {
        Ok(net) => net.contains(&address),
        Err(_) => word.parse() == Ok(address),
    };
    match part {
        KeyPart::Mark(mark) => number(word) == Some(mark.0),
        KeyPart::Ifname(name) => word.trim_matches('"') == name.as_str(),
        KeyPart::Ipv4(address) => within((*address).into()),
        KeyPart::Ipv6(address) => within((*address).into()),
        KeyPart::Proto(protocol) => match word {
            "tcp" => *protocol == 6,
            "udp" => *protocol == 17,
            "ipv6-icmp" => *protocol == 58,
            _ => number(word) == Some(u32::from(*protocol)),
        },
        KeyPart::Port(port) => number(word) == Some(u32::from(*port)),
        KeyPart::Ether(_) | KeyPart::Ipv4Prefix(_) | KeyPart::Ipv6Prefix(_) | KeyPart::PortRange(..) => {
            panic!("{part:?} is not compared with words")
        }
    }
}

/// Whether an interval element covers a packet's key.
fn covers(element: &Key, key: &Key) -> bool {
    element.0.len() == key.0.len()
        && element.0.iter().zip(&key.0).all(|(element, part)| match (element, part) {
            (KeyPart::Ipv4Prefix(net), KeyPart::Ipv4(address)) => net.contains(address),
            (KeyPart::Ipv6Prefix(net), KeyPart::Ipv6(address)) => net.contains(address),
            (KeyPart::PortRange(first, last), KeyPart::Port(port)) => (first..=last).contains(&port),
            (element, part) => element == part,
        })
}
