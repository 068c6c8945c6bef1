//! Just enough of DNS messages (RFC 1035) for the lab's servers and clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Question types that the lab knows.
pub(crate) const A: u16 = 1;
pub(crate) const AAAA: u16 = 28;
const SOA: u16 = 6;

/// Response codes.
pub(crate) const NOERROR: u8 = 0;
pub(crate) const SERVFAIL: u8 = 2;
pub(crate) const NXDOMAIN: u8 = 3;

/// A question as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) id: u16,
    /// Lower case, without the final dot.
    pub(crate) name: String,
    pub(crate) qtype: u16,
    /// The question's bytes as they came, to be sent back with the same letters.
    raw: Vec<u8>,
    recursion_desired: bool,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: u8,
    pub(crate) addresses: Vec<IpAddr>,
    /// Seconds; also of the negative answer.
    pub(crate) ttl: u32,
    pub(crate) truncated: bool,
}

fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*data.get(at)?, *data.get(at + 1)?]))
}

/// Reads a name at `at`; returns it with the offset behind it. Compression pointers are followed at most 16 times.
fn name(data: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut text, mut end, mut jumps) = (String::new(), None, 0);
    loop {
        let length = usize::from(*data.get(at)?);
        if length & 0xc0 == 0xc0 {
            jumps += 1;
            if jumps > 16 {
                return None;
            }
            end.get_or_insert(at + 2);
            at = usize::from(be16(data, at)? & 0x3fff);
            continue;
        }
        if length == 0 {
            return Some((text, end.unwrap_or(at + 1)));
        }
        let label = data.get(at + 1..at + 1 + length)?;
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
        at += 1 + length;
    }
}

/// A query for one name.
pub(crate) fn query(id: u16, host: &str, qtype: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + host.len());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    push_name(&mut out, host);
    out.extend_from_slice(&qtype.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out
}

fn push_name(out: &mut Vec<u8>, host: &str) {
    for label in host.split('.').filter(|l| !l.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        out.push(label.len() as u8);
        out.extend_from_slice(label);
    }
    out.push(0);
}

/// None: not a query with one question.
pub(crate) fn parse_query(data: &[u8]) -> Option<Question> {
    if be16(data, 2)? & 0x8000 != 0 || be16(data, 4)? != 1 {
        return None;
    }
    let (text, end) = name(data, 12)?;
    let raw = data.get(12..end + 4)?.to_vec();
    let recursion_desired = data.get(2)? & 1 == 1;
    Some(Question { id: be16(data, 0)?, name: text, qtype: be16(data, end)?, raw, recursion_desired })
}

/// The message that answers `question`.
pub(crate) fn response(question: &Question, answer: &Answer) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&question.id.to_be_bytes());
    out.push(0x80 | if answer.truncated { 2 } else { 0 } | u8::from(question.recursion_desired));
    out.push(0x80 | answer.code);
    let addresses: Vec<_> = answer
        .addresses
        .iter()
        .filter(|a| (question.qtype == A && a.is_ipv4()) || (question.qtype == AAAA && a.is_ipv6()))
        .collect();
    let addresses = if answer.truncated { Vec::new() } else { addresses };
    let negative = addresses.is_empty() && !answer.truncated && answer.code != SERVFAIL;
    out.extend_from_slice(&[0, 1]);
    out.extend_from_slice(&(addresses.len() as u16).to_be_bytes());
    out.extend_from_slice(&u16::from(negative).to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&question.raw);
    for address in addresses {
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&question.qtype.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&answer.ttl.to_be_bytes());
        match address {
            IpAddr::V4(a) => {
                out.extend_from_slice(&[0, 4]);
                out.extend_from_slice(&a.octets());
            }
            IpAddr::V6(a) => {
                out.extend_from_slice(&[0, 16]);
                out.extend_from_slice(&a.octets());
            }
        }
    }
    if negative {
        // SOA of `example`, so that the answer may be kept (RFC 2308).
        push_name(&mut out, "example");
        out.extend_from_slice(&SOA.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&answer.ttl.to_be_bytes());
        let mut data = Vec::new();
        push_name(&mut data, "ns.example");
        push_name(&mut data, "hostmaster.example");
        for number in [1, 3600, 600, 86_400, answer.ttl] {
            data.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(&data);
    }
    out
}

/// Reads the answer to the query `id`; None: not an answer to it, or nonsense.
pub(crate) fn parse_response(data: &[u8], id: u16) -> Option<Answer> {
    if be16(data, 0)? != id || data.get(2)? & 0x80 == 0 {
        return None;
    }
    let (truncated, code) = (data[2] & 2 != 0, data.get(3)? & 0x0f);
    let (questions, answers, authorities) = (be16(data, 4)?, be16(data, 6)?, be16(data, 8)?);
    let mut at = 12;
    for _ in 0..questions {
        at = name(data, at)?.1 + 4;
    }
    let (mut addresses, mut ttl) = (Vec::new(), u32::MAX);
    for _ in 0..answers.saturating_add(authorities) {
        at = name(data, at)?.1;
        let rtype = be16(data, at)?;
        ttl = ttl.min(u32::from_be_bytes(data.get(at + 4..at + 8)?.try_into().ok()?));
        let length = usize::from(be16(data, at + 8)?);
        let body = data.get(at + 10..at + 10 + length)?;
        match rtype {
            A => addresses.push(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(body).ok()?))),
            AAAA => addresses.push(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(body).ok()?))),
            _ => {}
        }
        at += 10 + length;
    }
    Some(Answer { code, addresses, ttl: if ttl == u32::MAX { 0 } else { ttl }, truncated })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_asked_family_come_back_with_their_ttl() {
        let question = parse_query(&query(7, "Affairs.School.example", AAAA)).unwrap();
        assert_eq!(question.name, "affairs.school.example");
        let both = vec!["203.0.113.10".parse().unwrap(), "2001:db8:113::10".parse().unwrap()];
        let answer = Answer { code: NOERROR, addresses: both, ttl: 60, truncated: false };
        let read = parse_response(&response(&question, &answer), 7).unwrap();
        assert_eq!(read.addresses, vec!["2001:db8:113::10".parse::<IpAddr>().unwrap()]);
        assert_eq!(read.ttl, 60);
        assert!(parse_response(&response(&question, &answer), 8).is_none(), "another id");
    }

    #[test]
    fn an_unknown_name_is_answered_with_a_ttl_too() {
        let question = parse_query(&query(1, "nowhere.example", A)).unwrap();
        let answer = Answer { code: NXDOMAIN, addresses: Vec::new(), ttl: 30, truncated: false };
        let read = parse_response(&response(&question, &answer), 1).unwrap();
        assert_eq!((read.code, read.ttl, read.addresses.len()), (NXDOMAIN, 30, 0));
    }

    #[test]
    fn cut_short_and_looping_messages_are_refused() {
        let whole = query(1, "a.example", A);
        for length in 0..whole.len() {
            assert_eq!(parse_query(&whole[..length]), None);
        }
        let mut looping = whole;
        looping[12] = 0xc0;
        looping[13] = 12;
        assert_eq!(parse_query(&looping), None);
    }
}
