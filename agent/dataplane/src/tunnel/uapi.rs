//! WireGuard's own words between a process that carries a tunnel and whoever configures it ("cross-platform userspace
//! implementation", the configuration protocol): lines of `key=value`, an empty line at the end.

use std::fmt::Write as _;
use std::time::Duration;

use ipnet::IpNet;
use seimon_core::network_plan::{PeerState, TunnelState};
use seimon_plan::WireguardKey;

use super::Update;

pub(super) const GET: &str = "get=1\n\n";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<WireguardKey> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(WireguardKey(bytes))
}

/// The requests that make the change, in order: the key first, for peers need it. One peer a request, so that a refusal is
/// about one.
pub(super) fn set(update: &Update<'_>) -> Vec<String> {
    let Update { private_key, listen_port, mark, remove, put } = update;
    let mut requests = Vec::new();
    let own = [
        private_key.map(|key| format!("private_key={}\n", hex(key.key().as_bytes()))),
        mark.map(|mark| format!("fwmark={mark}\n")),
        listen_port.map(|port| format!("listen_port={port}\n")),
    ];
    let own: String = own.into_iter().flatten().collect();
    if !own.is_empty() {
        requests.push(format!("set=1\n{own}\n"));
    }
    requests.extend(remove.iter().map(|peer| format!("set=1\npublic_key={}\nremove=true\n\n", hex(&peer.0))));
    for (key, peer) in put {
        let mut text = format!("set=1\npublic_key={}\n", hex(&key.0));
        if let Some(endpoint) = peer.endpoint {
            let _ = writeln!(text, "endpoint={endpoint}");
        }
        let _ = writeln!(text, "persistent_keepalive_interval={}", peer.keepalive.unwrap_or(0));
        text.push_str("replace_allowed_ips=true\n");
        for net in &peer.allowed {
            let _ = writeln!(text, "allowed_ip={net}");
        }
        text.push('\n');
        requests.push(text);
    }
    requests
}

/// What an answer says; `Err`: what is wrong with it. Keys that are not known are passed over.
pub(super) fn read(answer: &str) -> Result<TunnelState, String> {
    let mut state = TunnelState::default();
    let mut peer: Option<(WireguardKey, PeerState)> = None;
    let mut age: Option<u64> = None;
    for line in answer.lines().filter(|line| !line.is_empty()) {
        let bad = || format!("not understood: {}", line.chars().take(40).collect::<String>());
        let (key, value) = line.split_once('=').ok_or_else(bad)?;
        match (key, &mut peer) {
            ("own_public_key", _) => state.own = Some(unhex(value).ok_or_else(bad)?),
            ("listen_port", _) => state.listen_port = value.parse().map_err(|_| bad())?,
            ("public_key", _) => {
                let next = unhex(value).ok_or_else(bad)?;
                state.peers.extend(peer.replace((next, PeerState::default())));
                age = None;
            }
            ("endpoint", Some((_, peer))) => peer.endpoint = Some(value.parse().map_err(|_| bad())?),
            ("persistent_keepalive_interval", Some((_, peer))) => {
                peer.keepalive = value.parse::<u16>().ok().filter(|seconds| *seconds > 0);
            }
            ("allowed_ip", Some((_, peer))) => {
                peer.allowed.insert(value.parse::<IpNet>().map_err(|_| bad())?);
            }
            ("rx_bytes", Some((_, peer))) => peer.received = value.parse().map_err(|_| bad())?,
            ("tx_bytes", Some((_, peer))) => peer.sent = value.parse().map_err(|_| bad())?,
            // Of the one program that we start: time since the handshake, where others tell the time of day.
            ("last_handshake_time_sec", Some(_)) => age = value.parse().ok(),
            ("last_handshake_time_nsec", Some((_, peer))) => {
                let nanos: u32 = value.parse().map_err(|_| bad())?;
                peer.handshake = age.map(|seconds| Duration::new(seconds, nanos.min(999_999_999)));
            }
            ("errno", _) if value != "0" => return Err(format!("refused (errno {value})")),
            _ => {}
        }
    }
    state.peers.extend(peer);
    Ok(state)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use seimon_core::network_plan::Peer;

    use super::super::PrivateKey;
    use super::*;

    #[test]
    fn a_change_names_the_key_first_takes_out_before_it_puts_in_and_says_one_peer_a_request() {
        let key = PrivateKey::generate();
        let allowed = BTreeSet::from(["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
        let peer = Peer { endpoint: Some("[2001:db8::1]:51820".parse().unwrap()), allowed, keepalive: None };
        let (old, new) = (WireguardKey([1; 32]), WireguardKey([0xab; 32]));
        let update = Update {
            private_key: Some(&key),
            listen_port: Some(51820),
            mark: None,
            remove: vec![old],
            put: vec![(new, &peer)],
        };
        let secret = hex(key.key().as_bytes());
        let (old, new) = (hex(&old.0), hex(&new.0));
        let wanted = [
            format!("set=1\nprivate_key={secret}\nlisten_port=51820\n\n"),
            format!("set=1\npublic_key={old}\nremove=true\n\n"),
            format!(
                "set=1\npublic_key={new}\nendpoint=[2001:db8::1]:51820\npersistent_keepalive_interval=0\n\
                 replace_allowed_ips=true\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n\n"
            ),
        ];
        assert_eq!(set(&update), wanted);
        assert!(set(&Update::default()).is_empty());
    }

    #[test]
    fn an_answer_is_read_peer_by_peer_and_nonsense_is_an_error() {
        let answer = format!(
            "own_public_key={}\nlisten_port=51820\npublic_key={}\npersistent_keepalive_interval=25\n\
             endpoint=192.0.2.1:9\nallowed_ip=0.0.0.0/0\nlast_handshake_time_sec=3\nlast_handshake_time_nsec=500000000\n\
             rx_bytes=7\ntx_bytes=8\nsomething=new\npublic_key={}\nrx_bytes=0\ntx_bytes=0\nerrno=0\n\n",
            hex(&[2; 32]),
            hex(&[3; 32]),
            hex(&[4; 32])
        );
        let state = read(&answer).unwrap();
        assert_eq!(
            (state.own, state.listen_port, state.peers.len()),
            (Some(WireguardKey([2; 32])), 51820, 2)
        );
        let first = &state.peers[&WireguardKey([3; 32])];
        assert_eq!(first.handshake, Some(Duration::from_millis(3500)));
        assert_eq!((first.keepalive, first.received, first.sent), (Some(25), 7, 8));
        assert_eq!(
            state.peers[&WireguardKey([4; 32])].handshake,
            None,
            "the first one's is not the second one's"
        );
        for bad in ["errno=22\n", "listen_port=x\n", "public_key=zz\n", "what\n", "own_public_key=é\n"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
