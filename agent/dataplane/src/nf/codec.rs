//! Keys and values of set elements as bytes, exactly as nft 1.0.6 writes them.
//!
//! A key of several fields is their concatenation, each padded to four bytes; a key of one field has that field's own
//! length. Marks are in host byte order, everything else in network order; interface names fill 16 bytes.
//!
//! In the kernel's listing of an interval set, a single value and a prefix or range of one value are the same: they are
//! decoded as the single value. A range that is a prefix is decoded as the prefix.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use seimon_board::{InterfaceName, MacAddress};
use seimon_core::network_plan::{Key, KeyPart, KeyType, Mark, Value, ValueType, Verdict};

use crate::attributes::{Attributes, PutAttributes};

const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
/// `NF_DROP`, `NF_ACCEPT` and `enum nft_verdicts`.
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

/// `enum datatypes` of nft's `include/datatype.h`.
pub(super) fn key_type(nft_type: u32) -> Option<KeyType> {
    Some(match nft_type {
        7 => KeyType::Ipv4,
        8 => KeyType::Ipv6,
        9 => KeyType::Ether,
        12 => KeyType::Proto,
        13 => KeyType::Port,
        19 => KeyType::Mark,
        41 => KeyType::Ifname,
        _ => return None,
    })
}

/// The fields of a concatenated type (six bits each, the first uppermost); `None` when one is unknown to us.
pub(super) fn key_types(mut nft_type: u32) -> Option<Vec<KeyType>> {
    let mut fields = Vec::new();
    while nft_type != 0 {
        fields.push(key_type(nft_type & 0x3f)?);
        nft_type >>= 6;
    }
    fields.reverse();
    (!fields.is_empty()).then_some(fields)
}

pub(super) fn value_type(nft_type: u32) -> Option<ValueType> {
    Some(match nft_type {
        0xffff_ff00 => ValueType::Verdict,
        7 => ValueType::Ipv4,
        8 => ValueType::Ipv6,
        19 => ValueType::Mark,
        _ => return None,
    })
}

const fn width(field: KeyType) -> usize {
    match field {
        KeyType::Ifname | KeyType::Ipv6 => 16,
        KeyType::Ipv4 | KeyType::Mark => 4,
        KeyType::Ether => 6,
        KeyType::Proto => 1,
        KeyType::Port => 2,
    }
}

const fn padded(len: usize) -> usize {
    (len + 3) & !3
}

/// Which end of an interval.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Last,
}

impl End {
    fn of<T>(self, first: T, last: T) -> T {
        match self {
            Self::First => first,
            Self::Last => last,
        }
    }
}

fn put_part(bytes: &mut Vec<u8>, part: &KeyPart, end: End) {
    match part {
        KeyPart::Ifname(name) => {
            let start = bytes.len();
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.resize(start + 16, 0);
        }
        KeyPart::Ipv4(address) => bytes.extend_from_slice(&address.octets()),
        KeyPart::Ipv4Prefix(net) => {
            bytes.extend_from_slice(&end.of(net.network(), net.broadcast()).octets());
        }
        KeyPart::Ipv6(address) => bytes.extend_from_slice(&address.octets()),
        KeyPart::Ipv6Prefix(net) => {
            bytes.extend_from_slice(&end.of(net.network(), net.broadcast()).octets());
        }
        KeyPart::Ether(mac) => bytes.extend_from_slice(&mac.0),
        KeyPart::Mark(mark) => bytes.extend_from_slice(&mark.0.to_ne_bytes()),
        KeyPart::Proto(number) => bytes.push(*number),
        KeyPart::Port(port) => bytes.extend_from_slice(&port.to_be_bytes()),
        KeyPart::PortRange(first, last) => bytes.extend_from_slice(&end.of(*first, *last).to_be_bytes()),
    }
}

const fn is_range(part: &KeyPart) -> bool {
    matches!(part, KeyPart::Ipv4Prefix(_) | KeyPart::Ipv6Prefix(_) | KeyPart::PortRange(..))
}

/// A key's bytes, and those of its last value where it is an interval (inclusive).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyBytes {
    pub(super) first: Vec<u8>,
    pub(super) last: Option<Vec<u8>>,
    /// Several fields: an interval is one element with two ends. One field: it is two elements.
    pub(super) concatenated: bool,
}

pub(super) fn key_bytes(key: &Key) -> KeyBytes {
    let concatenated = key.0.len() > 1;
    let side = |end| {
        let mut bytes = Vec::with_capacity(32);
        for part in &key.0 {
            put_part(&mut bytes, part, end);
            if concatenated {
                bytes.resize(padded(bytes.len()), 0);
            }
        }
        bytes
    };
    let last = key.0.iter().any(is_range).then(|| side(End::Last));
    KeyBytes { first: side(End::First), last, concatenated }
}

/// The value one above, as nft marks the end of a single-field interval; `None` when it ends at the highest.
pub(super) fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carry) = byte.overflowing_add(1);
        *byte = sum;
        if !carry {
            return Some(next);
        }
    }
    None
}

/// The value one below.
pub(super) fn predecessor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut previous = bytes.to_vec();
    for byte in previous.iter_mut().rev() {
        let (difference, borrow) = byte.overflowing_sub(1);
        *byte = difference;
        if !borrow {
            return Some(previous);
        }
    }
    None
}

/// Decodes a key; `last` is the inclusive upper end where the kernel gave one. `None` when it does not fit the fields.
pub(super) fn decode_key(fields: &[KeyType], first: &[u8], last: Option<&[u8]>) -> Option<Key> {
    let mut offset = 0;
    let mut parts = Vec::with_capacity(fields.len());
    for field in fields {
        let end = offset + width(*field);
        let low = first.get(offset..end)?;
        let high = match last {
            Some(last) => last.get(offset..end)?,
            None => low,
        };
        parts.push(decode_part(*field, low, high)?);
        offset = if fields.len() > 1 { padded(end) } else { end };
    }
    Some(Key(parts))
}

fn decode_part(field: KeyType, low: &[u8], high: &[u8]) -> Option<KeyPart> {
    let single = low == high;
    Some(match field {
        KeyType::Ifname => {
            let end = low.iter().position(|byte| *byte == 0).unwrap_or(low.len());
            KeyPart::Ifname(InterfaceName::new(std::str::from_utf8(&low[..end]).ok()?).ok()?)
        }
        KeyType::Ipv4 => {
            let octets = |bytes: &[u8]| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?));
            let (low, high) = (octets(low)?, octets(high)?);
            if single {
                KeyPart::Ipv4(low)
            } else {
                let bits = (u32::from(low) ^ u32::from(high)).leading_zeros();
                let net = Ipv4Net::new(low, u8::try_from(bits).ok()?).ok()?;
                (net.network() == low && net.broadcast() == high).then_some(KeyPart::Ipv4Prefix(net))?
            }
        }
        KeyType::Ipv6 => {
            let octets = |bytes: &[u8]| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?));
            let (low, high) = (octets(low)?, octets(high)?);
            if single {
                KeyPart::Ipv6(low)
            } else {
                let bits = (u128::from(low) ^ u128::from(high)).leading_zeros();
                let net = Ipv6Net::new(low, u8::try_from(bits).ok()?).ok()?;
                (net.network() == low && net.broadcast() == high).then_some(KeyPart::Ipv6Prefix(net))?
            }
        }
        KeyType::Ether => KeyPart::Ether(MacAddress(low.try_into().ok()?)),
        KeyType::Mark => KeyPart::Mark(Mark(u32::from_ne_bytes(low.try_into().ok()?))),
        KeyType::Proto => KeyPart::Proto(*low.first()?),
        KeyType::Port => {
            let port = |bytes: &[u8]| Some(u16::from_be_bytes(bytes.try_into().ok()?));
            let (low, high) = (port(low)?, port(high)?);
            if single { KeyPart::Port(low) } else { KeyPart::PortRange(low, high) }
        }
    })
}

/// Writes the inside of an `NFTA_SET_ELEM_DATA`.
pub(super) fn put_value(message: &mut Vec<u8>, value: &Value) {
    let (code, chain) = match value {
        Value::Mark(mark) => return message.put(NFTA_DATA_VALUE, &mark.0.to_ne_bytes()),
        Value::Ipv4(address) => return message.put(NFTA_DATA_VALUE, &address.octets()),
        Value::Ipv6(address) => return message.put(NFTA_DATA_VALUE, &address.octets()),
        Value::Verdict(Verdict::Accept) => (ACCEPT, None),
        Value::Verdict(Verdict::Drop) => (DROP, None),
        Value::Verdict(Verdict::Return) => (RETURN, None),
        Value::Verdict(Verdict::Goto(chain)) => (GOTO, Some(chain)),
        Value::Verdict(Verdict::Jump(chain)) => (JUMP, Some(chain)),
    };
    message.put_nested(NFTA_DATA_VERDICT, |verdict| {
        verdict.put(NFTA_VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            verdict.put_text(NFTA_VERDICT_CHAIN, chain);
        }
    });
}

/// Reads the inside of an `NFTA_SET_ELEM_DATA`.
pub(super) fn decode_value(kind: ValueType, data: Attributes<'_>) -> Option<Value> {
    let value = data.find(NFTA_DATA_VALUE).map(|attribute| attribute.value);
    Some(match kind {
        ValueType::Mark => Value::Mark(Mark(u32::from_ne_bytes(value?.try_into().ok()?))),
        ValueType::Ipv4 => Value::Ipv4(Ipv4Addr::from(<[u8; 4]>::try_from(value?).ok()?)),
        ValueType::Ipv6 => Value::Ipv6(Ipv6Addr::from(<[u8; 16]>::try_from(value?).ok()?)),
        ValueType::Verdict => {
            let verdict = data.find(NFTA_DATA_VERDICT)?.nested();
            let code = verdict.find(NFTA_VERDICT_CODE)?.u32_be()?.cast_signed();
            let chain = || Some(verdict.find(NFTA_VERDICT_CHAIN)?.text()?.to_owned());
            Value::Verdict(match code {
                ACCEPT => Verdict::Accept,
                DROP => Verdict::Drop,
                RETURN => Verdict::Return,
                GOTO => Verdict::Goto(chain()?),
                JUMP => Verdict::Jump(chain()?),
                _ => return None,
            })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `nft --debug=netlink list ruleset` prints registers: 32-bit words of the host.
    fn words(text: &str) -> Vec<u8> {
        text.split(' ').flat_map(|word| u32::from_str_radix(word, 16).expect("hex").to_ne_bytes()).collect()
    }

    fn ifname(name: &str) -> KeyPart {
        KeyPart::Ifname(InterfaceName::new(name).expect("name"))
    }

    fn mac(text: &str) -> KeyPart {
        KeyPart::Ether(text.parse().expect("mac"))
    }

    fn ip4(text: &str) -> KeyPart {
        KeyPart::Ipv4(text.parse().expect("address"))
    }

    /// Captured from nft 1.0.6 on a little-endian host.
    #[cfg(target_endian = "little")]
    #[test]
    fn keys_are_the_bytes_that_nft_writes() {
        let cases = [
            (vec![KeyPart::Mark(Mark(0x100)), mac("02:00:5e:10:00:01")], "00000100 105e0002 00000100", None),
            (
                vec![ifname("br0"), ip4("10.0.0.1"), KeyPart::Proto(6), KeyPart::Port(443)],
                "00307262 00000000 00000000 00000000 0100000a 00000006 0000bb01",
                None,
            ),
            (
                vec![
                    ifname("br0"),
                    KeyPart::Ipv4Prefix("10.0.0.0/8".parse().expect("net")),
                    KeyPart::PortRange(100, 200),
                ],
                "00307262 00000000 00000000 00000000 0000000a 00006400",
                Some("00307262 00000000 00000000 00000000 ffffff0a 0000c800"),
            ),
            (
                vec![KeyPart::Mark(Mark(1)), KeyPart::Ipv6("fd00::1".parse().expect("address"))],
                "00000001 000000fd 00000000 00000000 01000000",
                None,
            ),
        ];
        for (parts, first, last) in cases {
            let fields: Vec<KeyType> = parts.iter().map(type_of).collect();
            let key = Key(parts);
            let bytes = key_bytes(&key);
            assert_eq!(bytes.first, words(first), "{key:?}");
            assert_eq!(bytes.last, last.map(words), "{key:?}");
            assert_eq!(decode_key(&fields, &bytes.first, bytes.last.as_deref()), Some(key));
        }
    }

    fn type_of(part: &KeyPart) -> KeyType {
        match part {
            KeyPart::Ifname(_) => KeyType::Ifname,
            KeyPart::Ipv4(_) | KeyPart::Ipv4Prefix(_) => KeyType::Ipv4,
            KeyPart::Ipv6(_) | KeyPart::Ipv6Prefix(_) => KeyType::Ipv6,
            KeyPart::Ether(_) => KeyType::Ether,
            KeyPart::Mark(_) => KeyType::Mark,
            KeyPart::Proto(_) => KeyType::Proto,
            KeyPart::Port(_) | KeyPart::PortRange(..) => KeyType::Port,
        }
    }

    #[test]
    fn a_key_of_one_field_is_not_padded() {
        assert_eq!(key_bytes(&Key(vec![KeyPart::Port(443)])).first, [0x01, 0xbb]);
        assert_eq!(key_bytes(&Key(vec![mac("02:00:5e:10:00:01")])).first.len(), 6);
    }

    #[test]
    fn every_value_is_read_back_as_it_was_written() {
        let cases = [
            (ValueType::Mark, Value::Mark(Mark(7))),
            (ValueType::Ipv4, Value::Ipv4(Ipv4Addr::new(93, 184, 216, 34))),
            (ValueType::Ipv6, Value::Ipv6("2001:db8::1".parse().expect("address"))),
            (ValueType::Verdict, Value::Verdict(Verdict::Accept)),
            (ValueType::Verdict, Value::Verdict(Verdict::Drop)),
            (ValueType::Verdict, Value::Verdict(Verdict::Return)),
            (ValueType::Verdict, Value::Verdict(Verdict::Goto("use_1_2".into()))),
            (ValueType::Verdict, Value::Verdict(Verdict::Jump("use_1_1".into()))),
        ];
        for (kind, value) in cases {
            let mut bytes = Vec::new();
            put_value(&mut bytes, &value);
            assert_eq!(decode_value(kind, Attributes::after(&bytes, 0)), Some(value));
        }
    }

    #[test]
    fn a_goto_is_the_bytes_that_nft_sends() {
        let mut bytes = Vec::new();
        put_value(&mut bytes, &Value::Verdict(Verdict::Goto("use_1_1".into())));
        let expected =
            [&[24u8, 0, 2, 0x80][..], &[8, 0, 1, 0, 0xff, 0xff, 0xff, 0xfc], &[12, 0, 2, 0], b"use_1_1\0"]
                .concat();
        #[cfg(target_endian = "little")]
        assert_eq!(bytes, expected);
        let _ = expected;
    }

    #[test]
    fn an_address_range_that_is_no_prefix_is_not_made_into_one() {
        let fields = [KeyType::Ipv4];
        assert_eq!(decode_key(&fields, &[10, 0, 0, 1], Some(&[10, 0, 0, 6])), None);
        assert_eq!(
            decode_key(&fields, &[10, 0, 0, 1], Some(&[10, 0, 0, 1])),
            Some(Key(vec![ip4("10.0.0.1")]))
        );
    }

    #[test]
    fn ends_of_intervals_carry_over_bytes() {
        assert_eq!(successor(&[10, 255, 255, 255]), Some(vec![11, 0, 0, 0]));
        assert_eq!(successor(&[255, 255]), None);
        assert_eq!(predecessor(&[11, 0, 0, 0]), Some(vec![10, 255, 255, 255]));
        assert_eq!(predecessor(&[0, 0]), None);
    }
}
