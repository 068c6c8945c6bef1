//! WireGuard's configuration protocol ("cross-platform userspace implementation"), as far as it is spoken to us: no
//! pre-shared keys, no packet marks (those take a capability).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::{Device, Key, begin, free_index};

/// Errors in the protocol are the kernel's numbers.
const PERMISSION: i32 = 1;
const IN_USE: i32 = 98;
const INVALID: i32 = 22;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Result<Key, i32> {
    if text.len() != 64 || !text.is_ascii() {
        return Err(INVALID);
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| INVALID)?;
    }
    Ok(bytes)
}

/// What is said of one peer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    remove: bool,
    update_only: bool,
    replace_allowed: bool,
    endpoint: Option<SocketAddr>,
    /// `Some(None)`: off.
    keepalive: Option<Option<u16>>,
    allowed: Vec<IpNet>,
}

impl Said {
    fn hear(&mut self, key: &str, value: &str) -> Result<(), i32> {
        let is_true = |value: &str| if value == "true" { Ok(true) } else { Err(INVALID) };
        match key {
            "remove" => self.remove = is_true(value)?,
            "update_only" => self.update_only = is_true(value)?,
            "replace_allowed_ips" => self.replace_allowed = is_true(value)?,
            "endpoint" => self.endpoint = Some(value.parse().map_err(|_| INVALID)?),
            "persistent_keepalive_interval" => {
                let seconds: u16 = value.parse().map_err(|_| INVALID)?;
                self.keepalive = Some((seconds > 0).then_some(seconds));
            }
            "allowed_ip" => self.allowed.push(value.parse().map_err(|_| INVALID)?),
            "protocol_version" if value == "1" => {}
            _ => return Err(INVALID),
        }
        Ok(())
    }
}

impl Device {
    pub(super) fn answer(&mut self, request: &str, out: &mut [u8]) -> String {
        let mut lines = request.lines().filter(|line| !line.is_empty());
        match lines.next() {
            Some("get=1") => {
                let mut text = self.get();
                text.push_str("errno=0\n\n");
                text
            }
            Some("set=1") => {
                let errno = self.set(lines, out).err().unwrap_or(0);
                format!("errno={errno}\n\n")
            }
            Some(_) | None => format!("errno={INVALID}\n\n"),
        }
    }

    fn get(&self) -> String {
        let mut text = String::new();
        if let Some(own) = &self.own {
            let _ = writeln!(text, "own_public_key={}", hex(own.public.as_bytes()));
        }
        let _ = writeln!(text, "listen_port={}", self.port);
        for (key, peer) in &self.peers {
            let _ = writeln!(text, "public_key={}", hex(key));
            if let Some(endpoint) = peer.endpoint {
                let _ = writeln!(text, "endpoint={endpoint}");
            }
            if let Some(seconds) = peer.keepalive {
                let _ = writeln!(text, "persistent_keepalive_interval={seconds}");
            }
            for net in &peer.allowed {
                let _ = writeln!(text, "allowed_ip={net}");
            }
            if let Some(age) = peer.handshake() {
                let (seconds, nanoseconds) = (age.as_secs(), age.subsec_nanos());
                let _ = writeln!(
                    text,
                    "last_handshake_time_sec={seconds}\nlast_handshake_time_nsec={nanoseconds}"
                );
            }
            let (sent, received) = peer.bytes();
            let _ = writeln!(text, "rx_bytes={received}\ntx_bytes={sent}");
        }
        text
    }

    fn set<'a>(&mut self, lines: impl Iterator<Item = &'a str>, out: &mut [u8]) -> Result<(), i32> {
        let mut peer: Option<(Key, Said)> = None;
        for line in lines {
            let (key, value) = line.split_once('=').ok_or(INVALID)?;
            if key == "public_key" {
                let next = unhex(value)?;
                if let Some((key, said)) = peer.replace((next, Said::default())) {
                    self.set_peer(key, said, out)?;
                }
                continue;
            }
            match (&mut peer, key) {
                (Some((_, said)), _) => said.hear(key, value)?,
                (None, "private_key") => self.set_key(unhex(value)?, out),
                (None, "listen_port") => {
                    let port = value.parse().map_err(|_| INVALID)?;
                    self.listen(port).map_err(|error| error.raw_os_error().unwrap_or(IN_USE))?;
                }
                (None, "replace_peers") if value == "true" => {
                    for key in self.peers.keys().copied().collect::<Vec<_>>() {
                        self.remove(&key);
                    }
                }
                (None, "fwmark") if value != "0" => return Err(PERMISSION),
                (None, "fwmark") => {}
                (None, _) => return Err(INVALID),
            }
        }
        match peer {
            Some((key, said)) => self.set_peer(key, said, out),
            None => Ok(()),
        }
    }

    /// In place: whoever is a peer already keeps its session.
    fn set_peer(&mut self, key: Key, said: Said, out: &mut [u8]) -> Result<(), i32> {
        let Said { remove, update_only, replace_allowed, endpoint, keepalive, allowed } = said;
        if remove {
            self.remove(&key);
            return Ok(());
        }
        if update_only && !self.peers.contains_key(&key) {
            return Ok(());
        }
        self.add(key).ok_or(INVALID)?;
        let (own, index) = (self.own.clone().ok_or(INVALID)?, free_index(&self.indices));
        let Some(peer) = self.peers.get_mut(&key) else { return Err(INVALID) };
        if let Some(keepalive) = keepalive.filter(|keepalive| *keepalive != peer.keepalive) {
            self.ends += 1;
            self.indices.insert(index, (key, self.ends));
            peer.set_keepalive(keepalive, &own, index, self.ends);
            let known: Vec<u64> = peer.numbers().collect();
            self.indices.retain(|_, (owner, end)| *owner != key || known.contains(end));
        }
        let wanted: BTreeSet<IpNet> = allowed.into_iter().map(|net| net.trunc()).collect();
        if replace_allowed {
            for net in peer.allowed.iter().filter(|net| !wanted.contains(net)) {
                self.allowed.take_out(*net, &key);
            }
            peer.allowed.retain(|net| wanted.contains(net));
        }
        for net in wanted {
            self.allowed.insert(net, key);
            peer.allowed.insert(net);
        }
        // Told where it is: asked there at once, whether it is known to be elsewhere or has fallen silent.
        if let Some(endpoint) = endpoint {
            peer.endpoint = Some(endpoint);
            begin(&self.sockets, peer, out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_peer_is_understood_or_refused() {
        let mut said = Said::default();
        for (key, value) in [
            ("endpoint", "[2001:db8::1]:51820"),
            ("persistent_keepalive_interval", "0"),
            ("replace_allowed_ips", "true"),
            ("allowed_ip", "10.0.0.0/8"),
        ] {
            assert_eq!(said.hear(key, value), Ok(()), "{key}");
        }
        assert_eq!((said.keepalive, said.replace_allowed, said.allowed.len()), (Some(None), true, 1));
        for (key, value) in [("remove", "yes"), ("endpoint", "here"), ("allowed_ip", "10"), ("what", "ever")]
        {
            assert_eq!(said.hear(key, value), Err(INVALID), "{key}");
        }
    }

    #[test]
    fn a_key_is_64_digits() {
        assert_eq!(unhex(&hex(&[0xa5; 32])), Ok([0xa5; 32]));
        for bad in ["", "a5", &"z".repeat(64), &"é".repeat(32)] {
            assert_eq!(unhex(bad), Err(INVALID), "{bad}");
        }
    }
}
