//! WireGuard in the kernel, over generic netlink.

use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use ipnet::IpNet;
use seimon_board::InterfaceName;
use seimon_core::network_plan::{ApplyError, Peer, PeerState, TunnelState};
use seimon_plan::WireguardKey;
use wireguard_control::{Backend, Device, DeviceUpdate, Key, PeerConfigBuilder, PeerInfo};

use super::Update;

fn failed(doing: &str, interface: &InterfaceName, source: io::Error) -> ApplyError {
    let doing = format!("{doing} tunnel {interface}");
    if source.kind() == io::ErrorKind::PermissionDenied {
        ApplyError::NotPermitted { doing }
    } else {
        ApplyError::Tunnel { interface: interface.clone(), why: format!("{doing}: {source}") }
    }
}

fn name(interface: &InterfaceName) -> Result<wireguard_control::InterfaceName, ApplyError> {
    interface.as_str().parse().map_err(|_| ApplyError::NoSuchInterface(interface.clone()))
}

pub(super) fn state(interface: &InterfaceName) -> Result<TunnelState, ApplyError> {
    let device = Device::get(&name(interface)?, Backend::Kernel)
        .map_err(|error| failed("look at", interface, error))?;
    Ok(TunnelState {
        own: device.public_key.map(|key| WireguardKey(key.0)),
        listen_port: device.listen_port.unwrap_or(0),
        mark: Some(device.fwmark.unwrap_or(0)),
        peers: device.peers.iter().map(|peer| (WireguardKey(peer.config.public_key.0), seen(peer))).collect(),
    })
}

fn seen(peer: &PeerInfo) -> PeerState {
    let allowed = peer.config.allowed_ips.iter();
    PeerState {
        endpoint: peer.config.endpoint,
        allowed: allowed.filter_map(|ip| IpNet::new(ip.address, ip.cidr).ok()).collect(),
        keepalive: peer.config.persistent_keepalive_interval.filter(|seconds| *seconds > 0),
        handshake: peer.stats.last_handshake_time.and_then(age),
        received: peer.stats.rx_bytes,
        sent: peer.stats.tx_bytes,
    }
}

/// The kernel tells the time of day of the last handshake; never, as 1970.
fn age(at: SystemTime) -> Option<std::time::Duration> {
    (at > SystemTime::UNIX_EPOCH).then(|| SystemTime::now().duration_since(at).unwrap_or_default())
}

pub(super) fn update(interface: &InterfaceName, update: &Update<'_>) -> Result<(), ApplyError> {
    let Update { private_key, listen_port, mark, remove, put } = update;
    let mut change = DeviceUpdate::new();
    if let Some(key) = private_key {
        change = change.set_private_key(key.key().clone());
    }
    if let Some(port) = listen_port {
        change = change.set_listen_port(*port);
    }
    if let Some(mark) = mark {
        change = change.set_fwmark(*mark);
    }
    for key in remove {
        change = change.remove_peer_by_key(&Key(key.0));
    }
    for (key, peer) in put {
        let mut config = PeerConfigBuilder::new(&Key(key.0)).replace_allowed_ips();
        config = config.set_persistent_keepalive_interval(peer.keepalive.unwrap_or(0));
        if let Some(endpoint) = peer.endpoint {
            config = config.set_endpoint(endpoint);
        }
        for net in &peer.allowed {
            config = config.add_allowed_ip(net.network(), net.prefix_len());
        }
        change = change.add_peer(config);
    }
    change.apply(&name(interface)?, Backend::Kernel).map_err(|error| failed("configure", interface, error))
}

/// Where the far end is now: the session goes on from there. Told where it is already, whoever asks hears nothing from there:
/// a new session is begun, which the kernel would only do after 15 s without an answer, and cannot be asked for in another way
/// than by a peer made anew.
pub(super) fn set_endpoint(
    interface: &InterfaceName,
    peer: WireguardKey,
    endpoint: SocketAddr,
) -> Result<(), ApplyError> {
    let known = state(interface)?;
    let Some(seen) = known.peers.get(&peer) else { return Ok(()) };
    if seen.endpoint == Some(endpoint) && seen.handshake.is_some() {
        let anew =
            Peer { endpoint: Some(endpoint), allowed: seen.allowed.clone(), keepalive: seen.keepalive };
        update(interface, &Update { remove: vec![peer], ..Update::default() })?;
        return update(interface, &Update { put: vec![(peer, &anew)], ..Update::default() });
    }
    DeviceUpdate::new()
        .add_peer(PeerConfigBuilder::new(&Key(peer.0)).set_endpoint(endpoint))
        .apply(&name(interface)?, Backend::Kernel)
        .map_err(|error| failed("configure", interface, error))
}
