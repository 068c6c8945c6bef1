//! What tunnels need that only the gateway knows: the private key (its place, its public half), and where a far end that
//! has a name is now. A tunnel that cannot be had is left out of the network, as a line without an interface is: the other
//! paths are not to suffer for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use seimon_board::{Instant, InterfaceName};
use seimon_core::network_plan::{Change, ChangeSet, Dataplane, Observed, TunnelState, tunnel_name};
use seimon_dataplane::{Made, PrivateKey};
use seimon_plan::{Endpoint, PathId, ValidSitePlan, Wireguard, WireguardKey};

use super::Network;

/// A session ends three minutes after its handshake (WireGuard's `REJECT_AFTER_TIME`): the far end is no longer there.
const STALE: Duration = Duration::from_secs(180);
/// Between look-ups of a far end that is not known or through which nothing comes, and of one whose session is old.
const UNKNOWN_AGAIN: Duration = Duration::from_secs(5);
const STALE_AGAIN: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Tunnels {
    /// Where the agent may write, and nobody else: key files are relative to it.
    pub(super) folder: PathBuf,
    endpoints: BTreeMap<InterfaceName, SocketAddr>,
    asked: BTreeMap<InterfaceName, Instant>,
    seen: BTreeMap<InterfaceName, TunnelState>,
    seen_at: Instant,
    pub(super) unusable: BTreeMap<InterfaceName, String>,
    made: Vec<(InterfaceName, WireguardKey)>,
}

/// A far end whose name is to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) interface: InterfaceName,
    pub(crate) path: PathId,
    pub(crate) name: String,
    /// Of outer packets: the question takes the same line.
    pub(crate) mark: u32,
}

/// What is known of a far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nowhere,
    /// Nothing comes through the tunnel.
    Dead,
    /// Its last handshake, if there was one.
    Somewhere(Option<Duration>),
}

/// Whether a far end is to be looked for again.
fn is_due(known: Known, asked: Option<Instant>, now: Instant) -> bool {
    let pause = match known {
        Known::Nowhere | Known::Dead => UNKNOWN_AGAIN,
        Known::Somewhere(Some(age)) if age <= STALE => return false,
        Known::Somewhere(Some(_) | None) => STALE_AGAIN,
    };
    asked.is_none_or(|at| now.since(at) >= pause)
}

impl Network {
    /// Key files of the plan are in this folder, where the plan does not say an absolute name.
    pub(crate) fn keep_keys_in(&mut self, folder: &Path) {
        self.tunnels.folder = folder.to_owned();
    }

    /// Puts into the plan what only the gateway knows. Keys are made where there are none.
    pub(super) fn ground_tunnels(&mut self) {
        let Self { compiled, tunnels, .. } = self;
        tunnels.unusable.clear();
        for (name, tunnel) in &mut compiled.tunnels {
            // An absolute name stays what it is.
            tunnel.private_key_file = tunnels.folder.join(&tunnel.private_key_file);
            match PrivateKey::load_or_make(&tunnel.private_key_file) {
                Ok((key, made)) => {
                    tunnel.own = Some(key.public());
                    if made == Made::Now {
                        tunnels.made.push((name.clone(), key.public()));
                    }
                }
                Err(error) => {
                    tunnels.unusable.insert(name.clone(), error.to_string());
                }
            }
            for peer in tunnel.peers.values_mut().filter(|peer| peer.endpoint.is_none()) {
                peer.endpoint = tunnels.endpoints.get(name).copied();
            }
        }
    }

    /// Notes how the tunnels are, as just seen.
    pub(super) fn note_tunnels(&mut self, observed: &Observed, now: Instant) {
        self.tunnels.seen.clone_from(&observed.tunnels);
        self.tunnels.seen_at = now;
    }

    /// Keys that were made since the last call, for people to be told.
    pub(crate) fn take_made_keys(&mut self) -> Vec<(InterfaceName, WireguardKey)> {
        std::mem::take(&mut self.tunnels.made)
    }

    /// Tunnels that cannot be had, and why.
    pub(crate) fn unusable_tunnels(&self) -> &BTreeMap<InterfaceName, String> {
        &self.tunnels.unusable
    }

    /// The path's tunnel: our public key, and how it was when last looked at.
    pub(crate) fn tunnel(&self, path: &PathId, now: Instant) -> Option<(Option<WireguardKey>, TunnelState)> {
        let name = tunnel_name(path).ok()?;
        let planned = self.compiled.tunnels.get(&name)?;
        let mut state = self.tunnels.seen.get(&name).cloned().unwrap_or_default();
        for peer in state.peers.values_mut() {
            peer.handshake = peer.handshake.map(|age| age + now.since(self.tunnels.seen_at));
        }
        Some((planned.own, state))
    }

    /// Far ends to be looked up now. Those with an address that do not answer any more are sent back to it, and asked for a
    /// handshake: a far end that was started again knows nothing of the session. `is_dead`: nothing comes over the path.
    pub(crate) fn tend_tunnels(
        &mut self,
        is_dead: impl Fn(&PathId) -> bool,
        now: Instant,
    ) -> Result<Vec<Wanted>> {
        let (mut wanted, mut back) = (Vec::new(), Vec::new());
        let again = !self.sabotage.off("roaming");
        for (path, settings) in tunnels_of(&self.plan) {
            let Ok(interface) = tunnel_name(path) else { continue };
            let Some(planned) = self.compiled.tunnels.get(&interface) else { continue };
            if self.tunnels.unusable.contains_key(&interface) {
                continue;
            }
            let seen =
                self.tunnels.seen.get(&interface).and_then(|seen| seen.peers.get(&settings.public_key));
            let handshake =
                seen.and_then(|peer| peer.handshake).map(|age| age + now.since(self.tunnels.seen_at));
            let asked = self.tunnels.asked.get(&interface).copied();
            let known = if is_dead(path) { Known::Dead } else { Known::Somewhere(handshake) };
            match &settings.endpoint {
                Endpoint::Address(address) => {
                    let roamed = seen.is_some_and(|peer| peer.endpoint != Some(*address));
                    if again && (roamed || known == Known::Dead) && is_due(known, asked, now) {
                        self.tunnels.asked.insert(interface.clone(), now);
                        back.push((interface, settings.public_key, *address));
                    }
                }
                Endpoint::Name(name, _) => {
                    let is_known = self.tunnels.endpoints.contains_key(&interface);
                    let known = if is_known { known } else { Known::Nowhere };
                    if (again || !is_known) && is_due(known, asked, now) {
                        self.tunnels.asked.insert(interface.clone(), now);
                        let (name, mark) = (name.clone(), planned.mark);
                        wanted.push(Wanted { interface, path: path.clone(), name, mark });
                    }
                }
            }
        }
        for (interface, peer, endpoint) in back {
            let change = Change::TunnelEndpoint { interface, peer, endpoint };
            self.dataplane.apply(&ChangeSet { changes: vec![change] })?;
        }
        Ok(wanted)
    }

    /// A far end was found: a handshake begins there.
    pub(crate) fn found_far_end(&mut self, wanted: &Wanted, addresses: &[std::net::IpAddr]) -> Result<()> {
        let Some(settings) = self.plan.paths.get(&wanted.path).and_then(|path| path.wireguard.clone()) else {
            return Ok(());
        };
        let Endpoint::Name(_, port) = &settings.endpoint else { return Ok(()) };
        let line = self.plan.paths.get(&wanted.path).and_then(|path| self.plan.lines.get(&path.line));
        let (four, six) = line.map_or((false, false), |line| (line.ipv4.is_some(), line.ipv6.is_some()));
        let addresses: Vec<_> =
            addresses.iter().filter(|ip| if ip.is_ipv4() { four } else { six }).copied().collect();
        let before = self.tunnels.endpoints.get(&wanted.interface).copied();
        // One that is still among the answers is kept.
        let kept = before.filter(|before| addresses.contains(&before.ip()));
        let Some(endpoint) = kept.or_else(|| addresses.first().map(|ip| SocketAddr::new(*ip, *port))) else {
            return Ok(());
        };
        let change = Change::TunnelEndpoint {
            interface: wanted.interface.clone(),
            peer: settings.public_key,
            endpoint,
        };
        self.dataplane.apply(&ChangeSet { changes: vec![change] })?;
        self.tunnels.endpoints.insert(wanted.interface.clone(), endpoint);
        for plan in [Some(&mut self.compiled), self.verified.as_mut()].into_iter().flatten() {
            let tunnel = plan.tunnels.get_mut(&wanted.interface);
            if let Some(peer) = tunnel.and_then(|tunnel| tunnel.peers.get_mut(&settings.public_key)) {
                peer.endpoint = Some(endpoint);
            }
        }
        Ok(())
    }
}

fn tunnels_of(plan: &ValidSitePlan) -> impl Iterator<Item = (&PathId, &Wireguard)> {
    plan.paths.iter().filter_map(|(id, path)| Some((id, path.wireguard.as_ref()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_end_is_looked_up_until_it_is_known_and_again_when_it_falls_silent() {
        let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
        let fresh = Known::Somewhere(Some(Duration::from_secs(100)));
        let stale = Known::Somewhere(Some(Duration::from_secs(200)));
        let never = Known::Somewhere(None);
        for (known, asked, now, due) in [
            (Known::Nowhere, None, at(0), true),
            (Known::Nowhere, Some(at(10)), at(12), false),
            (Known::Nowhere, Some(at(10)), at(15), true),
            (Known::Dead, Some(at(10)), at(14), false),
            (Known::Dead, Some(at(10)), at(15), true),
            (fresh, Some(at(10)), at(9_999), false),
            (stale, Some(at(10)), at(30), false),
            (stale, Some(at(10)), at(40), true),
            (never, Some(at(10)), at(39), false),
            (never, Some(at(10)), at(40), true),
        ] {
            assert_eq!(is_due(known, asked, now), due, "{known:?} {asked:?} {now:?}");
        }
    }
}
