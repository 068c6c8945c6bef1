//! WireGuard interfaces: what one is to be configured with, and what is seen of it.
//!
//! A private key is never here, only where it lies. Endpoints are never compared: the far end may roam, and WireGuard
//! follows it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use seimon_plan::WireguardKey;
use serde::{Deserialize, Serialize};

/// What a WireGuard interface is to be configured with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    pub private_key_file: PathBuf,
    /// The public half of the key in that file, once somebody has looked; `None`: not compared.
    pub own: Option<WireguardKey>,
    pub listen_port: u16,
    /// The packet mark of outer packets, where WireGuard is in the kernel. (In user space they are known by their port.)
    pub mark: u32,
    pub peers: BTreeMap<WireguardKey, Peer>,
}

/// A far end, as intended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Where to begin; `None`: not known yet, or the far end begins.
    pub endpoint: Option<SocketAddr>,
    /// Sources that it may use inside the tunnel, and destinations that go to it.
    pub allowed: BTreeSet<IpNet>,
    /// In seconds; `None`: off.
    pub keepalive: Option<u16>,
}

/// A WireGuard interface as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelState {
    pub own: Option<WireguardKey>,
    pub listen_port: u16,
    /// `None`: in user space, where nothing is marked.
    pub mark: Option<u32>,
    pub peers: BTreeMap<WireguardKey, PeerState>,
}

/// A far end as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerState {
    pub endpoint: Option<SocketAddr>,
    pub allowed: BTreeSet<IpNet>,
    pub keepalive: Option<u16>,
    /// Time since the last handshake. Its age says nothing about health: without traffic there is none.
    pub handshake: Option<Duration>,
    /// Bytes inside the tunnel.
    pub received: u64,
    pub sent: u64,
}

impl Peer {
    pub fn is_met_by(&self, seen: &PeerState) -> bool {
        self.allowed == seen.allowed && self.keepalive == seen.keepalive
    }
}

impl Tunnel {
    /// Whether the interface is configured so, endpoints aside.
    pub fn is_met_by(&self, seen: &TunnelState) -> bool {
        let Self { private_key_file: _, own, listen_port, mark, peers } = self;
        own.is_none_or(|own| seen.own == Some(own))
            && seen.own.is_some()
            && *listen_port == seen.listen_port
            && seen.mark.is_none_or(|seen| seen == *mark)
            && peers.len() == seen.peers.len()
            && peers.iter().all(|(key, peer)| seen.peers.get(key).is_some_and(|seen| peer.is_met_by(seen)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: WireguardKey = WireguardKey([7; 32]);

    fn both() -> (Tunnel, TunnelState) {
        let allowed = BTreeSet::from(["0.0.0.0/0".parse().unwrap()]);
        let peer = Peer { endpoint: None, allowed: allowed.clone(), keepalive: Some(25) };
        let tunnel = Tunnel {
            private_key_file: "k".into(),
            own: Some(WireguardKey([1; 32])),
            listen_port: 51820,
            mark: 2,
            peers: BTreeMap::from([(HUB, peer)]),
        };
        let roamed = Some("192.0.2.77:9".parse().unwrap());
        let seen = PeerState { endpoint: roamed, allowed, keepalive: Some(25), ..PeerState::default() };
        let state = TunnelState {
            own: tunnel.own,
            listen_port: 51820,
            mark: None,
            peers: BTreeMap::from([(HUB, seen)]),
        };
        (tunnel, state)
    }

    #[test]
    fn a_far_end_that_roamed_is_as_planned_and_anything_else_that_differs_is_not() {
        let (tunnel, state) = both();
        assert!(tunnel.is_met_by(&state));
        let cases: [fn(&mut TunnelState); 7] = [
            |seen| seen.own = Some(WireguardKey([2; 32])),
            |seen| seen.own = None,
            |seen| seen.listen_port = 1,
            |seen| seen.mark = Some(3),
            |seen| seen.peers.clear(),
            |seen| seen.peers.values_mut().for_each(|peer| peer.allowed.clear()),
            |seen| seen.peers.values_mut().for_each(|peer| peer.keepalive = None),
        ];
        for (number, change) in cases.iter().enumerate() {
            let mut seen = state.clone();
            change(&mut seen);
            assert!(!tunnel.is_met_by(&seen), "case {number}");
        }
    }
}
