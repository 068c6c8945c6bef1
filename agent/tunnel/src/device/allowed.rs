//! Whose packets are whose: destinations by the longest prefix.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Key;

/// Prefixes of peers. Several may have the same one; packets go to one of them, its owner.
#[derive(Debug, Default)]
pub(super) struct AllowedIps {
    /// By length, the longest last; of either family.
    by_length: [BTreeMap<u8, HashMap<IpNet, Holders>>; 2],
}

#[derive(Debug)]
struct Holders {
    owner: Key,
    all: BTreeSet<Key>,
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

impl AllowedIps {
    pub(super) fn insert(&mut self, net: IpNet, key: Key) {
        let net = net.trunc();
        let nets = self.by_length[family(net.addr())].entry(net.prefix_len()).or_default();
        let holders = nets.entry(net).or_insert_with(|| Holders { owner: key, all: BTreeSet::new() });
        holders.all.insert(key);
    }

    pub(super) fn take_out(&mut self, net: IpNet, key: &Key) {
        let net = net.trunc();
        let lengths = &mut self.by_length[family(net.addr())];
        let Some(nets) = lengths.get_mut(&net.prefix_len()) else { return };
        if let Some(holders) = nets.get_mut(&net) {
            holders.all.remove(key);
            match holders.all.first() {
                None => {
                    nets.remove(&net);
                }
                Some(other) if holders.owner == *key => holders.owner = *other,
                Some(_) => {}
            }
        }
        if nets.is_empty() {
            lengths.remove(&net.prefix_len());
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        let mine: Vec<IpNet> = self
            .by_length
            .iter()
            .flat_map(BTreeMap::values)
            .flatten()
            .filter(|(_, holders)| holders.all.contains(key))
            .map(|(net, _)| *net)
            .collect();
        for net in mine {
            self.take_out(net, key);
        }
    }

    /// From now on packets for these prefixes go to this one of those who have them.
    pub(super) fn claim(&mut self, key: Key, nets: &BTreeSet<IpNet>) {
        for net in nets {
            let lengths = &mut self.by_length[family(net.addr())];
            let holders = lengths.get_mut(&net.prefix_len()).and_then(|nets| nets.get_mut(&net.trunc()));
            if let Some(holders) = holders.filter(|holders| holders.all.contains(&key)) {
                holders.owner = key;
            }
        }
    }

    pub(super) fn owner(&self, address: IpAddr) -> Option<Key> {
        self.by_length[family(address)].iter().rev().find_map(|(length, nets)| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            nets.get(&net).map(|holders| holders.owner)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Key = [1; 32];
    const NEW: Key = [2; 32];

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_says_whose_a_destination_is() {
        let mut allowed = AllowedIps::default();
        allowed.insert(net("0.0.0.0/0"), OLD);
        allowed.insert(net("10.60.1.2/32"), NEW);
        allowed.insert(net("fd00::/8"), NEW);
        assert_eq!(allowed.owner(at("10.60.1.2")), Some(NEW));
        assert_eq!(allowed.owner(at("10.60.1.3")), Some(OLD));
        assert_eq!(allowed.owner(at("fd53::1")), Some(NEW));
        assert_eq!(allowed.owner(at("2001:db8::1")), None);
    }

    #[test]
    fn of_two_with_the_same_prefix_the_first_has_it_until_the_other_claims_it_or_it_goes() {
        let mut allowed = AllowedIps::default();
        for key in [OLD, NEW] {
            allowed.insert(net("10.60.1.2/32"), key);
        }
        assert_eq!(allowed.owner(at("10.60.1.2")), Some(OLD));
        allowed.claim(NEW, &BTreeSet::from([net("10.60.1.2/32"), net("10.0.0.0/8")]));
        assert_eq!(allowed.owner(at("10.60.1.2")), Some(NEW));
        assert_eq!(allowed.owner(at("10.60.1.3")), None, "nobody gets by a claim what is not allowed");
        allowed.remove(&NEW);
        assert_eq!(allowed.owner(at("10.60.1.2")), Some(OLD));
        allowed.remove(&OLD);
        assert_eq!(allowed.owner(at("10.60.1.2")), None);
    }
}
