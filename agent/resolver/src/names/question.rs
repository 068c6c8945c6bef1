//! What a client asks: read from untrusted bytes.

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use seimon_ipc::resolver::Transport;

use super::reply;

pub(super) const HEADER_LEN: usize = 12;

/// Largest UDP message that is sent or asked for (DNS flag day 2020: never fragmented).
pub(super) const UDP_PAYLOAD: u16 = 1232;

const UDP_WITHOUT_EDNS: u16 = 512;

/// One question of one client, with what its answer must honour.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) id: u16,
    pub(super) recursion_desired: bool,
    pub(super) checking_disabled: bool,
    /// In the client's own mix of cases (0x20).
    pub(super) name: Name,
    /// Lower case, without the dot at the end.
    pub(super) key: String,
    pub(super) kind: RecordType,
    /// Empty until [`Question::read_rest`]; stays so without EDNS.
    pub(super) edns: Option<ClientEdns>,
    pub(super) transport: Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientEdns {
    pub(super) payload: u16,
    pub(super) dnssec_ok: bool,
}

/// Why a message is not a question that can be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoQuestion {
    /// Answering could start a loop, or there is nobody to answer.
    Drop,
    Reply(Vec<u8>),
}

impl Question {
    /// Reads header and question, nothing behind them.
    pub(super) fn read(bytes: &[u8], transport: Transport) -> Result<Self, NoQuestion> {
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else { return Err(NoQuestion::Drop) };
        let [id0, id1, flags0, flags1, questions0, questions1, ..] = *header;
        if flags0 & 0x80 != 0 {
            return Err(NoQuestion::Drop);
        }
        let bare = |code| Err(NoQuestion::Reply(reply::bare(header, code)));
        if OpCode::from_u8(flags0 >> 3 & 0x0f) != OpCode::Query {
            return bare(ResponseCode::NotImp);
        }
        // Before any parsing: the library reserves room for as many questions as the header claims.
        if u16::from_be_bytes([questions0, questions1]) != 1 {
            return bare(ResponseCode::FormErr);
        }
        let mut decoder = BinDecoder::new(bytes).clone(HEADER_LEN as u16);
        let Ok(query) = Query::read(&mut decoder) else { return bare(ResponseCode::FormErr) };
        let name = query.name;
        let question = Self {
            id: u16::from_be_bytes([id0, id1]),
            recursion_desired: flags0 & 1 != 0,
            checking_disabled: flags1 & 0x10 != 0,
            key: key_of(&name),
            name,
            kind: query.query_type,
            edns: None,
            transport,
        };
        if query.query_class != DNSClass::IN {
            return Err(NoQuestion::Reply(reply::Reply::code(ResponseCode::Refused).encode(&question)));
        }
        Ok(question)
    }

    /// Reads the rest of the message: EDNS, and whether it is well-formed at all.
    pub(super) fn read_rest(&mut self, bytes: &[u8]) -> Result<(), NoQuestion> {
        let Ok(message) = Message::from_vec(bytes) else {
            return Err(NoQuestion::Reply(reply::Reply::code(ResponseCode::FormErr).encode(self)));
        };
        let Some(edns) = message.edns else { return Ok(()) };
        self.edns = Some(ClientEdns { payload: edns.max_payload(), dnssec_ok: edns.flags().dnssec_ok });
        if edns.version() != 0 {
            return Err(NoQuestion::Reply(reply::Reply::code(ResponseCode::BADVERS).encode(self)));
        }
        Ok(())
    }

    /// Bytes that the answer may have.
    pub(super) fn limit(&self) -> usize {
        match (self.transport, self.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => usize::from(UDP_WITHOUT_EDNS),
            (Transport::Udp, Some(edns)) => usize::from(edns.payload.clamp(UDP_WITHOUT_EDNS, UDP_PAYLOAD)),
        }
    }

    pub(super) fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// The OPT record that the answer carries: one when the client sent one (RFC 6891, section 7).
    pub(super) fn edns_for_answer(&self) -> Option<Edns> {
        let client = self.edns?;
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD).set_version(0).set_dnssec_ok(client.dnssec_ok);
        Some(edns)
    }
}

/// The form in which names are compared and configured. Dots inside a label are escaped, so that two different names
/// never share a key.
pub(super) fn key_of(name: &Name) -> String {
    let mut key = name.to_lowercase().to_ascii();
    if key.ends_with('.') {
        key.pop();
    }
    key
}
