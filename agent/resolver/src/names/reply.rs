//! Building and encoding answers.

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{HINFO, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::question::{HEADER_LEN, Question};

/// Seconds that clients may keep what we say about a named service.
pub(super) const INSIDE_TTL: u32 = 60;

/// Number of the extended DNS error option (RFC 8914).
const EDE_OPTION: u16 = 15;

/// Extended DNS errors (RFC 8914) that we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ede {
    /// The agent could not bring the real addresses in force.
    Other = 0,
    StaleAnswer = 3,
    /// Not configured yet.
    NotReady = 14,
    /// The zone's policy does not let it look up this name.
    Blocked = 15,
    StaleNxdomain = 19,
    /// The path's resolvers did not give an answer.
    NoReachableAuthority = 22,
    /// The path is down.
    NetworkError = 23,
}

#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) code: ResponseCode,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) ede: Option<Ede>,
}

impl Reply {
    pub(super) fn code(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authorities: Vec::new(), ede: None }
    }

    pub(super) fn failure(ede: Ede) -> Self {
        Self { ede: Some(ede), ..Self::code(ResponseCode::ServFail) }
    }

    /// REFUSED, not NXDOMAIN: it is true, it is not cached beyond a change of the plan, and it says nothing about names
    /// below (RFC 8020), of which some may be named services.
    pub(super) fn blocked() -> Self {
        Self { ede: Some(Ede::Blocked), ..Self::code(ResponseCode::Refused) }
    }

    /// "The name exists, but has nothing of this type", for [`INSIDE_TTL`] seconds: without an SOA record clients would
    /// not remember it (RFC 2308) and ask again for every connection.
    pub(super) fn no_data(owner: &Name) -> Self {
        let soa = SOA::new(Name::root(), Name::root(), 1, 3600, 600, 86400, INSIDE_TTL);
        let authorities = vec![Record::from_rdata(owner.clone(), INSIDE_TTL, RData::SOA(soa))];
        Self { authorities, ..Self::code(ResponseCode::NoError) }
    }

    pub(super) fn address(owner: &Name, address: RData) -> Self {
        let answers = vec![Record::from_rdata(owner.clone(), INSIDE_TTL, address)];
        Self { answers, ..Self::code(ResponseCode::NoError) }
    }

    /// The smallest honest answer to ANY (RFC 8482, section 4.2).
    pub(super) fn any(question: &Question) -> Self {
        let hinfo = HINFO::new("RFC8482".to_owned(), String::new());
        let answers = vec![Record::from_rdata(question.name.clone(), INSIDE_TTL, RData::HINFO(hinfo))];
        Self { answers, ..Self::code(ResponseCode::NoError) }
    }

    /// Never longer than the question allows: what does not fit is left out and TC set, so that the client comes back
    /// over TCP.
    pub(super) fn encode(self, question: &Question) -> Vec<u8> {
        let Self { code, answers, authorities, ede } = self;
        let mut message = Message::new(question.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = question.recursion_desired;
        message.metadata.checking_disabled = question.checking_disabled;
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(Query::query(question.name.clone(), question.kind));
        message.answers = answers;
        message.authorities = authorities;
        if let Some(mut edns) = question.edns_for_answer() {
            if let Some(ede) = ede {
                let data = (ede as u16).to_be_bytes().to_vec();
                edns.options_mut().insert(EdnsOption::Unknown(EDE_OPTION, data));
            }
            message.set_edns(edns);
        }
        let limit = question.limit();
        if let Ok(bytes) = message.to_vec()
            && bytes.len() <= limit
        {
            return bytes;
        }
        message.answers.clear();
        message.authorities.clear();
        message.metadata.truncation = true;
        match message.to_vec() {
            Ok(bytes) if bytes.len() <= limit => bytes,
            Ok(_) | Err(_) => Vec::new(),
        }
    }
}

/// An answer without a question, for what could not be read further than its header.
pub(super) fn bare(header: &[u8; HEADER_LEN], code: ResponseCode) -> Vec<u8> {
    let [id0, id1, flags0, ..] = *header;
    vec![id0, id1, 0x80 | flags0 & 0x79, 0x80 | code.low(), 0, 0, 0, 0, 0, 0, 0, 0]
}

/// A raw answer cut down to header and question with TC set, for what a forward's server sent too long.
pub(super) fn truncated(question: &Question) -> Vec<u8> {
    let mut bytes = Reply::code(ResponseCode::NoError).encode(question);
    if let Some(flags) = bytes.get_mut(2) {
        *flags |= 0x02;
    }
    bytes
}

pub(super) fn is_service_binding(kind: RecordType) -> bool {
    matches!(kind, RecordType::HTTPS | RecordType::SVCB)
}
