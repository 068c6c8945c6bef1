//! What we ask the paths' resolvers, and what we believe of their answers.

use std::time::Duration;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::question::{HEADER_LEN, UDP_PAYLOAD};

const MAX_CHAIN: usize = 16;
const MAX_TTL: u32 = 86_400;
const MAX_NEGATIVE_TTL: u32 = 900;
/// For "no such data" without an SOA record, which says no time.
const BARE_NEGATIVE_TTL: u32 = 5;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) dnssec_ok: bool,
    pub(super) checking_disabled: bool,
}

/// A query with id 0: who sends it puts in an id, and a mix of cases, that nobody can guess.
pub(super) fn query(name: &Name, kind: RecordType, flags: Flags) -> Vec<u8> {
    let mut message = Message::new(0, hickory_proto::op::MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = flags.checking_disabled;
    message.add_query(Query::query(name.to_lowercase(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD).set_version(0).set_dnssec_ok(flags.dnssec_ok);
    message.set_edns(edns);
    message.to_vec().unwrap_or_default()
}

/// Gives a query its id, and each letter of the question a random case (draft-vixie-dnsext-dns0x20). `random` gives
/// one byte a call.
pub fn disguise(query: &mut [u8], id: u16, mut random: impl FnMut() -> u8) {
    set_id(query, id);
    let Some(end) = question_end(query) else { return };
    let Some(name) = query.get_mut(HEADER_LEN..end.saturating_sub(4)) else { return };
    let mut left_of_label = 0;
    for byte in name {
        if left_of_label == 0 {
            left_of_label = usize::from(*byte);
            continue;
        }
        left_of_label -= 1;
        if byte.is_ascii_alphabetic() && random() & 1 == 1 {
            *byte ^= 0x20;
        }
    }
}

pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(start) = message.first_chunk_mut::<2>() {
        *start = id.to_be_bytes();
    }
}

/// What a datagram or message from a server is to the query that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Not an answer to this query: a forgery, or late. Go on waiting.
    Ignore,
    /// The answer, but for the case of its letters: a server that does not keep it, or a forgery. Ask over TCP.
    CaseLost,
    /// The rest is to be had over TCP.
    Truncated,
    /// The server does not know EDNS: ask again, [`plain`].
    Plainer,
    /// This server cannot or will not tell.
    Ill,
    Answer,
}

/// Judges bytes from a server that we asked. Only the question and the header are compared with what was sent; the
/// rest must be a well-formed message.
pub fn judge(sent: &[u8], received: &[u8]) -> Received {
    if let Some(header) = received.first_chunk::<HEADER_LEN>()
        && received.len() == HEADER_LEN
        && sent.starts_with(&header[..2])
        && is_reply(header)
        && is_format_error(header)
    {
        // Old servers that stumble over EDNS repeat no question. Only the id and the port speak for this, but all that
        // it brings about is a plainer question.
        return Received::Plainer;
    }
    let (Some(sent_end), Some(end)) = (question_end(sent), question_end(received)) else {
        return Received::Ignore;
    };
    let (question, echoed) = (&sent[HEADER_LEN..sent_end], &received[HEADER_LEN..end]);
    if sent[..2] != received[..2] || !is_reply(received) || !echoed.eq_ignore_ascii_case(question) {
        return Received::Ignore;
    }
    if echoed != question {
        return Received::CaseLost;
    }
    if received[2] & 0x02 != 0 {
        return Received::Truncated;
    }
    if is_format_error(received) {
        return Received::Plainer;
    }
    match Message::from_vec(received) {
        Ok(message) if believable(message.metadata.response_code) => Received::Answer,
        Ok(_) | Err(_) => Received::Ill,
    }
}

/// As [`judge`], for messages that pass untouched: any response code is the server's own word.
pub fn judge_raw(sent: &[u8], received: &[u8]) -> Received {
    match (question_end(sent), question_end(received)) {
        (Some(sent_end), Some(end))
            if sent[..2] == received[..2]
                && is_reply(received)
                && received[HEADER_LEN..end].eq_ignore_ascii_case(&sent[HEADER_LEN..sent_end]) =>
        {
            Received::Answer
        }
        (_, _) => Received::Ignore,
    }
}

/// The query without EDNS, for servers that do not know it.
pub fn plain(query: &mut Vec<u8>) {
    if let Some(end) = question_end(query) {
        query.truncate(end);
        query[10..HEADER_LEN].fill(0);
    }
}

/// An answer to a standard query, by its header.
fn is_reply(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0xf8 == 0x80)
}

/// What servers say that do not know EDNS (RFC 6891, section 7): FORMERR, or NOTIMP.
fn is_format_error(message: &[u8]) -> bool {
    message.get(3).is_some_and(|flags| matches!(flags & 0x0f, 1 | 4))
}

fn believable(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// Where the only question of a message ends. `None`: not one question, or not one that can be read byte by byte (a
/// question needs no compression).
fn question_end(message: &[u8]) -> Option<usize> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER_LEN;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => at += length,
            _ => return None,
        }
    }
    let end = at + 4;
    (end <= message.len()).then_some(end)
}

/// What is left of a server's answer after everything was thrown away that the question did not ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Believed {
    pub(super) code: ResponseCode,
    /// The chain of aliases from the question's name and the records at its end.
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) ttl: Duration,
}

/// The answer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unbelievable {
    #[error("not a DNS message")]
    Malformed,
    #[error("the server failed")]
    Failed,
    #[error("the answer's aliases lead nowhere")]
    Chain,
}

/// Reads an answer to (name, kind). Owner names become lower case, the additional section and all that is outside the
/// question's chain of aliases is dropped: a resolver of one path can never say anything about other names.
pub(super) fn believe(
    bytes: &[u8],
    name: &Name,
    kind: RecordType,
    flags: Flags,
) -> Result<Believed, Unbelievable> {
    question_end(bytes).ok_or(Unbelievable::Malformed)?;
    let message = Message::from_vec(bytes).map_err(|_| Unbelievable::Malformed)?;
    let code = message.metadata.response_code;
    if !believable(code) {
        return Err(Unbelievable::Failed);
    }
    let mut at = name.to_lowercase();
    let mut answers = Vec::new();
    let mut found = false;
    for step in 0.. {
        if step > MAX_CHAIN {
            return Err(Unbelievable::Chain);
        }
        let here = |record: &&Record| record.dns_class == DNSClass::IN && record.name == at;
        let before = answers.len();
        answers.extend(message.answers.iter().filter(here).filter(|r| r.record_type() == kind).cloned());
        found = answers.len() > before;
        let signatures = |r: &&Record| flags.dnssec_ok && r.record_type() == RecordType::RRSIG;
        let alias = message.answers.iter().filter(here).find_map(|record| {
            if let RData::CNAME(target) = &record.data {
                Some((record, target.0.to_lowercase()))
            } else {
                None
            }
        });
        let next = match alias {
            Some((record, target)) if !found => {
                answers.push(record.clone());
                Some(target)
            }
            Some(_) | None => None,
        };
        if next.is_some() || found {
            answers.extend(message.answers.iter().filter(here).filter(signatures).cloned());
        }
        match next {
            Some(target) => at = target,
            None => break,
        }
    }
    for record in &mut answers {
        record.name = record.name.to_lowercase();
        record.ttl = record.ttl.min(MAX_TTL);
        if let RData::CNAME(target) = &mut record.data {
            target.0 = target.0.to_lowercase();
        }
    }
    if found {
        let ttl = answers.iter().map(|record| record.ttl).min().unwrap_or(0);
        let ttl = Duration::from_secs(ttl.into());
        return Ok(Believed { code: ResponseCode::NoError, answers, authorities: Vec::new(), ttl });
    }
    negative(message, code, answers, &at, flags)
}

fn negative(
    message: Message,
    code: ResponseCode,
    answers: Vec<Record>,
    end: &Name,
    flags: Flags,
) -> Result<Believed, Unbelievable> {
    let mut ttl = None;
    let mut authorities = Vec::new();
    for mut record in message.authorities {
        if record.dns_class != DNSClass::IN {
            continue;
        }
        if let RData::SOA(soa) = &record.data {
            if ttl.is_none() && record.name.zone_of(end) {
                // RFC 2308, section 5.
                let seconds = record.ttl.min(soa.minimum).min(MAX_NEGATIVE_TTL);
                ttl = Some(seconds);
                record.ttl = seconds;
                authorities.push(record);
            }
        } else if flags.dnssec_ok
            && matches!(record.record_type(), RecordType::RRSIG | RecordType::NSEC | RecordType::NSEC3)
        {
            record.ttl = record.ttl.min(MAX_NEGATIVE_TTL);
            authorities.push(record);
        }
    }
    if ttl.is_none() && !answers.is_empty() && code == ResponseCode::NoError {
        // An alias whose end the server did not look up.
        return Err(Unbelievable::Chain);
    }
    let alias_ttl = answers.iter().map(|record| record.ttl).min().unwrap_or(u32::MAX);
    let ttl = Duration::from_secs(ttl.unwrap_or(BARE_NEGATIVE_TTL).min(alias_ttl).into());
    Ok(Believed { code, answers, authorities, ttl })
}
