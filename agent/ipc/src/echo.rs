//! The municipality's UDP echo service: it answers each request with the source address and port that it saw.
//!
//! ```text
//! request  (32 bytes)                     answer (36 bytes)
//!  0 ┌──────────────────────────┐          0 ┌──────────────────────────┐
//!    │ "SEIMONQ1"               │            │ "SEIMONA1"               │
//!  8 ├──────────────────────────┤          8 ├──────────────────────────┤
//!    │ nonce                    │            │ nonce, as received       │
//! 16 ├──────────────────────────┤         16 ├──────────────────────────┤
//!    │ zeros                    │            │ source port, big endian  │
//!    │                          │         18 │ family: 4 or 6           │
//!    │                          │         19 │ 0                        │
//!    │                          │         20 │ source address           │
//! 32 └──────────────────────────┘         36 └─(IPv4: 4 bytes, then 0)──┘
//! ```
//! A longer request is padded with zeros, and so is its answer, to the same length: so it is seen whether packets of full
//! size pass. The answer is at most 1.2 times the request, so the service is of no use as an amplifier.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const REQUEST_LEN: usize = 32;
pub const ANSWER_LEN: usize = 36;

const REQUEST_MAGIC: &[u8; 8] = b"SEIMONQ1";
const ANSWER_MAGIC: &[u8; 8] = b"SEIMONA1";

pub fn request(nonce: u64) -> [u8; REQUEST_LEN] {
    let mut packet = [0; REQUEST_LEN];
    packet[..8].copy_from_slice(REQUEST_MAGIC);
    packet[8..16].copy_from_slice(&nonce.to_be_bytes());
    packet
}

/// A request of `length` bytes, at least [`REQUEST_LEN`].
pub fn request_of(nonce: u64, length: usize) -> Vec<u8> {
    let mut packet = request(nonce).to_vec();
    packet.resize(length.max(REQUEST_LEN), 0);
    packet
}

/// What the echo service sends back for a packet that came from `seen`; `None`: nothing.
pub fn answer_to(packet: &[u8], seen: SocketAddr) -> Option<Vec<u8>> {
    let nonce = parse_request(packet)?;
    let mut answer = answer(nonce, seen).to_vec();
    answer.resize(packet.len().max(ANSWER_LEN), 0);
    Some(answer)
}

/// The nonce of a well-formed request.
pub fn parse_request(packet: &[u8]) -> Option<u64> {
    if packet.len() < REQUEST_LEN || &packet[..8] != REQUEST_MAGIC {
        return None;
    }
    packet[8..16].try_into().ok().map(u64::from_be_bytes)
}

/// IPv4-mapped IPv6 sources are answered as IPv4.
pub fn answer(nonce: u64, seen: SocketAddr) -> [u8; ANSWER_LEN] {
    let mut packet = [0; ANSWER_LEN];
    packet[..8].copy_from_slice(ANSWER_MAGIC);
    packet[8..16].copy_from_slice(&nonce.to_be_bytes());
    packet[16..18].copy_from_slice(&seen.port().to_be_bytes());
    match seen.ip().to_canonical() {
        IpAddr::V4(address) => {
            packet[18] = 4;
            packet[20..24].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            packet[18] = 6;
            packet[20..36].copy_from_slice(&address.octets());
        }
    }
    packet
}

/// Nonce and observed source of a well-formed answer.
pub fn parse_answer(packet: &[u8]) -> Option<(u64, SocketAddr)> {
    if packet.len() < ANSWER_LEN || &packet[..8] != ANSWER_MAGIC {
        return None;
    }
    let nonce = u64::from_be_bytes(packet[8..16].try_into().ok()?);
    let port = u16::from_be_bytes(packet[16..18].try_into().ok()?);
    let address = match packet[18] {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&packet[20..24]).ok()?)),
        6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&packet[20..36]).ok()?)),
        _ => return None,
    };
    Some((nonce, SocketAddr::new(address, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_and_seen_comes_back() {
        assert_eq!(parse_request(&request(7)), Some(7));
        for seen in ["192.0.2.2:4000", "[2001:db8::2]:4001"] {
            let seen: SocketAddr = seen.parse().unwrap();
            assert_eq!(parse_answer(&answer(9, seen)), Some((9, seen)));
        }
    }

    #[test]
    fn a_long_request_has_an_answer_as_long_and_a_short_one_no_longer_than_it_was() {
        let seen: SocketAddr = "192.0.2.2:4000".parse().unwrap();
        for length in [REQUEST_LEN, 40, 1472] {
            let request = request_of(7, length);
            assert_eq!(request.len(), length);
            let answer = answer_to(&request, seen).unwrap();
            assert_eq!(answer.len(), length.max(ANSWER_LEN));
            assert_eq!(parse_answer(&answer), Some((7, seen)));
        }
        assert_eq!(answer_to(b"hello", seen), None);
    }

    #[test]
    fn anything_else_is_not_an_answer() {
        assert_eq!(parse_answer(&request(1)), None);
        assert_eq!(parse_request(&request(1)[..31]), None);
        let mut packet = answer(1, "192.0.2.2:1".parse().unwrap());
        packet[18] = 5;
        assert_eq!(parse_answer(&packet), None);
    }
}
