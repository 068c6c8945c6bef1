//! WireGuard interfaces: the kernel's own where it has them, else a TUN interface with a process (`seimon-tunnel`) behind
//! it.
//!
//! ```text
//!             link_up                       configure, states
//!  kernel     RTM_NEWLINK kind wireguard    generic netlink (wireguard-control)
//!  user space TUN, its descriptor and one   the process's end of the socket pair, in WireGuard's own words
//!             end of a socket pair handed
//!             to the process
//! ```
//! The TUN interface is not made to last: with the process it vanishes, its addresses and routes with it, and a path
//! without a route leads nowhere.

mod kernel;
mod key;
mod uapi;
mod userspace;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use seimon_board::InterfaceName;
use seimon_core::network_plan::{ApplyError, Link, LinkKind, Peer, Tunnel, TunnelState};
use seimon_plan::WireguardKey;

pub use key::{Made, PrivateKey};

use crate::rt::{Links, Router};
use userspace::UserSpace;

/// What of a tunnel is to be changed.
#[derive(Debug, Default)]
struct Update<'a> {
    private_key: Option<&'a PrivateKey>,
    listen_port: Option<u16>,
    mark: Option<u32>,
    /// These first.
    remove: Vec<WireguardKey>,
    put: Vec<(WireguardKey, &'a Peer)>,
}

impl<'a> Update<'a> {
    /// Exactly what differs. Whoever stays is changed in place: its session goes on.
    fn between(seen: &TunnelState, wanted: &'a Tunnel, key: &'a PrivateKey) -> Self {
        let unmet = |peer: &WireguardKey, intended: &Peer| {
            seen.peers.get(peer).is_none_or(|seen| !intended.is_met_by(seen))
        };
        let put: Vec<_> = wanted
            .peers
            .iter()
            .filter(|(key, peer)| unmet(key, peer))
            .map(|(key, peer)| (*key, peer))
            .collect();
        let remove = seen.peers.keys().filter(|key| !wanted.peers.contains_key(*key)).copied().collect();
        Self {
            private_key: (seen.own != Some(key.public())).then_some(key),
            listen_port: (seen.listen_port != wanted.listen_port).then_some(wanted.listen_port),
            mark: (seen.mark != Some(wanted.mark)).then_some(wanted.mark),
            remove,
            put,
        }
    }
}

/// All tunnels of this process.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    program: Option<PathBuf>,
    running: BTreeMap<InterfaceName, UserSpace>,
}

impl Tunnels {
    /// The program that carries tunnels where the kernel cannot.
    pub(crate) fn set_program(&mut self, program: &Path) {
        self.program = Some(program.to_owned());
    }

    /// Makes the interface if nobody answers for it; it is not configured, and not up, yet.
    pub(crate) fn make(&mut self, router: &mut Router, name: &InterfaceName) -> Result<(), ApplyError> {
        let links = router.links()?;
        let alive = self.running.get_mut(name).is_some_and(UserSpace::is_alive);
        if let Some(link) = links.by_name(name) {
            if !link.is_ours() {
                let doing = format!("make {name}: an interface of that name, and not of ours, is there");
                return Err(ApplyError::Kernel { doing, source: Errno::EXIST.into() });
            }
            if alive || link.is_wireguard() {
                return Ok(());
            }
            router.remove_link(name)?;
        }
        // Its interface is gone, or it is.
        self.running.remove(name);
        if router.make_wireguard(name)? {
            return Ok(());
        }
        let program = self.program.as_deref().ok_or_else(|| ApplyError::Tunnel {
            interface: name.clone(),
            why: "the kernel has no WireGuard, and no program for user space was named".to_owned(),
        })?;
        let process = UserSpace::start(program, name)?;
        router.take_over(name)?;
        self.running.insert(name.clone(), process);
        Ok(())
    }

    /// Everything that differs, and nothing else.
    pub(crate) fn configure(&mut self, name: &InterfaceName, wanted: &Tunnel) -> Result<(), ApplyError> {
        let key = PrivateKey::load(&wanted.private_key_file)
            .map_err(|error| ApplyError::Tunnel { interface: name.clone(), why: error.to_string() })?;
        match self.running.get_mut(name) {
            Some(process) => {
                let seen = process.state()?;
                process.update(&Update { mark: None, ..Update::between(&seen, wanted, &key) })
            }
            None => kernel::update(name, &Update::between(&kernel::state(name)?, wanted, &key)),
        }
    }

    pub(crate) fn set_endpoint(
        &mut self,
        name: &InterfaceName,
        peer: WireguardKey,
        endpoint: SocketAddr,
    ) -> Result<(), ApplyError> {
        match self.running.get_mut(name) {
            Some(process) => process.set_endpoint(peer, endpoint),
            None => kernel::set_endpoint(name, peer, endpoint),
        }
    }

    /// Ends the process, if there is one; its interface goes with it.
    pub(crate) fn forget(&mut self, name: &InterfaceName) {
        self.running.remove(name);
    }

    /// Of every tunnel among the links that somebody answers for.
    pub(crate) fn states(&mut self, links: &Links) -> BTreeMap<InterfaceName, TunnelState> {
        let mut states = BTreeMap::new();
        for Link { name, kind, .. } in links.ours(&BTreeMap::new()) {
            if kind != LinkKind::Tunnel {
                continue;
            }
            let is_wireguard = links.by_name(&name).is_some_and(|link| link.is_wireguard());
            let state = match self.running.get_mut(&name) {
                Some(process) => process.state(),
                None if is_wireguard => kernel::state(&name),
                None => continue,
            };
            // Nobody answers: it will be made anew.
            if let Ok(state) = state {
                states.insert(name, state);
            }
        }
        states
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use seimon_core::network_plan::PeerState;

    use super::*;

    fn school(n: u8) -> (WireguardKey, Peer) {
        let allowed = BTreeSet::from([format!("10.60.{n}.0/24").parse().unwrap()]);
        (WireguardKey([n; 32]), Peer { endpoint: None, allowed, keepalive: Some(25) })
    }

    fn seen(peer: &Peer) -> PeerState {
        let Peer { endpoint, allowed, keepalive } = peer.clone();
        PeerState { endpoint, allowed, keepalive, ..PeerState::default() }
    }

    #[test]
    fn whoever_comes_or_goes_touches_nobody_else() {
        let key = PrivateKey::generate();
        let mut wanted = Tunnel {
            private_key_file: PathBuf::new(),
            own: None,
            listen_port: 51820,
            mark: 2,
            peers: (1..=200).map(school).collect(),
        };
        let state = TunnelState {
            own: Some(key.public()),
            listen_port: 51820,
            mark: Some(2),
            peers: wanted.peers.iter().map(|(key, peer)| (*key, seen(peer))).collect(),
        };
        let nothing = Update::between(&state, &wanted, &key);
        assert!(nothing.private_key.is_none() && nothing.listen_port.is_none() && nothing.mark.is_none());
        assert!(nothing.remove.is_empty() && nothing.put.is_empty());
        let gone = WireguardKey([7; 32]);
        wanted.peers.remove(&gone);
        wanted.peers.extend([school(201)]);
        if let Some(peer) = wanted.peers.get_mut(&WireguardKey([9; 32])) {
            peer.keepalive = None;
        }
        let update = Update::between(&state, &wanted, &key);
        assert_eq!(update.remove, [gone]);
        let put: Vec<_> = update.put.iter().map(|(key, _)| *key).collect();
        assert_eq!(put, [WireguardKey([9; 32]), WireguardKey([201; 32])]);
    }
}
