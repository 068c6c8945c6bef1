//! Elements of our table's sets and maps over netlink: moves, affinity, listings.
//!
//! A move is one transaction of two small messages, whatever the size of the map.

mod codec;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;
use seimon_core::network_plan::{Element, Key, KeyType, Ruleset, Value, ValueType, key_type_text};

use crate::attributes::{Attribute, Attributes, PutAttributes};
use crate::socket::{Messages, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, Netlink, NetlinkError, Refusal};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const NFPROTO_INET: u8 = 1;
/// `struct nfgenmsg`.
const GENMSG: usize = 4;

const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DESC: u16 = 9;
const NFTA_SET_DESC_SIZE: u16 = 1;
const SET_ANONYMOUS: u32 = 0x1;
const SET_INTERVAL: u32 = 0x4;
const SET_MAP: u32 = 0x8;
const SET_EVAL: u32 = 0x20;

const NFTA_LIST_TABLE: u16 = 1;
const NFTA_LIST_SET: u16 = 2;
const NFTA_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_ELEM_KEY: u16 = 1;
const NFTA_ELEM_DATA: u16 = 2;
const NFTA_ELEM_FLAGS: u16 = 3;
const NFTA_ELEM_TIMEOUT: u16 = 4;
const NFTA_ELEM_EXPIRATION: u16 = 5;
const NFTA_ELEM_KEY_END: u16 = 10;
const NFTA_DATA_VALUE: u16 = 1;
const ELEM_INTERVAL_END: u32 = 1;

/// Times that a transaction is tried without what the kernel no longer has (elements expire and are learnt meanwhile).
const TRIES: u32 = 6;

/// A set or map as the kernel declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) flags: u32,
    /// `None`: with a field that we do not know.
    pub(crate) key: Option<Vec<KeyType>>,
    pub(crate) value: Option<ValueType>,
    pub(crate) size: Option<u32>,
    raw_types: (u32, Option<u32>),
}

impl Container {
    pub(crate) const fn is_dynamic(&self) -> bool {
        self.flags & SET_EVAL != 0
    }

    const fn is_map(&self) -> bool {
        self.flags & SET_MAP != 0
    }

    /// The same text as `Set::fingerprint` and `Map::fingerprint` give for an equal declaration.
    pub(crate) fn fingerprint(&self) -> String {
        let key = match &self.key {
            Some(key) => key_type_text(key),
            None => format!("type-{:#x}", self.raw_types.0),
        };
        let interval = if self.flags & SET_INTERVAL != 0 { " interval" } else { "" };
        if self.is_map() {
            let value = match self.value {
                Some(value) => value.nft_name().to_owned(),
                None => format!("type-{:#x}", self.raw_types.1.unwrap_or_default()),
            };
            return format!("map {key} : {value}{interval}");
        }
        let dynamic = if self.is_dynamic() {
            format!(" dynamic {}", self.size.unwrap_or_default())
        } else {
            String::new()
        };
        format!("set {key}{interval}{dynamic}")
    }
}

/// An element to put in, with a time to live where the set has time-outs.
#[derive(Clone, Debug)]
pub(crate) struct Put<'a> {
    pub(crate) element: &'a Element,
    pub(crate) lifetime: Option<Duration>,
}

/// An element with its value (in maps) and the time that it has left (where it has a time-out).
pub(crate) type Decoded = (Key, Option<Value>, Option<Duration>);

/// What an observation shows of a container.
pub(crate) type Elements = BTreeMap<Key, Option<Value>>;

#[derive(Debug)]
pub(crate) struct NfTables {
    netlink: Netlink,
}

/// One message of a transaction.
#[derive(Clone, Debug)]
enum Step<'a> {
    Take(&'a Element),
    Put(Put<'a>),
}

impl NfTables {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(NETLINK_NETFILTER)? })
    }

    /// The socket's port number.
    pub(crate) const fn port(&self) -> u32 {
        self.netlink.port()
    }

    /// True when the element is there, with just this value. Asks for this one only.
    pub(crate) fn holds(&mut self, element: &Element) -> Result<bool, NetlinkError> {
        let put = Put { element, lifetime: None };
        let found = self.netlink.fetch(SUBSYSTEM | GETSETELEM, |message| put_element(message, &put, false));
        let payload = match found {
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        let list = Attributes::after(&payload, GENMSG).find(NFTA_LIST_ELEMENTS);
        let Some(item) = list.and_then(|list| list.nested().find(NFTA_LIST_ELEM)) else { return Ok(false) };
        let data = item.nested().find(NFTA_ELEM_DATA);
        let kind = match &element.value {
            None => return Ok(data.is_none()),
            Some(Value::Verdict(_)) => ValueType::Verdict,
            Some(Value::Mark(_)) => ValueType::Mark,
            Some(Value::Ipv4(_)) => ValueType::Ipv4,
            Some(Value::Ipv6(_)) => ValueType::Ipv6,
        };
        Ok(data.and_then(|data| codec::decode_value(kind, data.nested())) == element.value)
    }

    /// Takes elements out and puts elements in, all or nothing. What is to be taken out and is not there is passed over;
    /// what is to be put in and is there with another value is replaced.
    pub(crate) fn change(&mut self, take: &[Element], put: &[Put<'_>]) -> Result<(), NetlinkError> {
        let mut steps: Vec<Step<'_>> = take.iter().map(Step::Take).collect();
        steps.extend(put.iter().cloned().map(Step::Put));
        for attempt in 1.. {
            if steps.is_empty() {
                break;
            }
            let (first, refusals) = self.transact(&steps)?;
            if refusals.is_empty() {
                break;
            }
            if attempt == TRIES || !mend(&mut steps, first, &refusals) {
                let worst = refusals.into_iter().find(|refusal| refusal.errno != Errno::NOENT);
                let worst = worst.unwrap_or(Refusal {
                    seq: first,
                    errno: Errno::NOENT,
                    words: format!("is there no table {}, or no such set or chain in it?", Ruleset::TABLE),
                });
                return Err(NetlinkError::Refused(worst));
            }
        }
        Ok(())
    }

    /// Sends one transaction; returns the number of its first step and what was refused.
    fn transact(&mut self, steps: &[Step<'_>]) -> Result<(u32, Vec<Refusal>), NetlinkError> {
        let mut batch = Messages::default();
        let begin = self.netlink.next_seq();
        batch.push(BATCH_BEGIN, NLM_F_REQUEST, begin, |message| {
            message.extend_from_slice(&[0, 0, 0, (SUBSYSTEM >> 8) as u8]);
        });
        let (mut first, mut last) = (begin, begin);
        for (index, step) in steps.iter().enumerate() {
            last = self.netlink.next_seq();
            if index == 0 {
                first = last;
            }
            let acknowledged = if index + 1 == steps.len() { NLM_F_ACK } else { 0 };
            let (kind, flags, put) = match step {
                Step::Take(element) => (DELSETELEM, 0, Put { element, lifetime: None }),
                Step::Put(put) => (NEWSETELEM, NLM_F_CREATE, put.clone()),
            };
            batch.push(SUBSYSTEM | kind, NLM_F_REQUEST | acknowledged | flags, last, |message| {
                put_element(message, &put, kind == NEWSETELEM);
            });
        }
        let end = self.netlink.next_seq();
        batch.push(BATCH_END, NLM_F_REQUEST, end, |message| {
            message.extend_from_slice(&[0, 0, 0, (SUBSYSTEM >> 8) as u8]);
        });
        let refusals = self.netlink.exchange(&batch.bytes, begin, last)?;
        Ok((first, refusals))
    }

    /// Declarations of all named sets and maps of our table; none when there is no table.
    pub(crate) fn containers(&mut self) -> Result<Vec<Container>, NetlinkError> {
        let mut found = Vec::new();
        let result = self.netlink.dump(
            SUBSYSTEM | GETSET,
            |message| {
                message.extend_from_slice(&[NFPROTO_INET, 0, 0, 0]);
                message.put_text(NFTA_SET_TABLE, Ruleset::TABLE);
            },
            |message| match message {
                None => found.clear(),
                Some((kind, payload)) if kind == SUBSYSTEM | NEWSET => found.extend(container(payload)),
                Some(_) => {}
            },
        );
        match result {
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(Vec::new()),
            other => other.map(|()| found),
        }
    }

    /// Elements with the time that each has left; those that we cannot express are left out.
    pub(crate) fn elements(&mut self, container: &Container) -> Result<Vec<Decoded>, NetlinkError> {
        let Some(fields) = &container.key else { return Ok(Vec::new()) };
        let mut raw = Vec::new();
        self.netlink.dump(
            SUBSYSTEM | GETSETELEM,
            |message| {
                message.extend_from_slice(&[NFPROTO_INET, 0, 0, 0]);
                message.put_text(NFTA_LIST_TABLE, Ruleset::TABLE);
                message.put_text(NFTA_LIST_SET, &container.name);
            },
            |message| match message {
                None => raw.clear(),
                Some((_, payload)) => raw.extend(raw_elements(payload, container.value)),
            },
        )?;
        Ok(if container.flags & SET_INTERVAL != 0 && fields.len() == 1 {
            pair_ends(fields, raw)
        } else {
            plain(fields, raw)
        })
    }
}

/// Leaves out what is not there to be taken, and takes out what is in the way of what is to be put. False when the
/// refusals are of another kind.
fn mend(steps: &mut Vec<Step<'_>>, first: u32, refusals: &[Refusal]) -> bool {
    let mut gone = Vec::new();
    let mut in_the_way = Vec::new();
    for refusal in refusals {
        let Ok(index) = usize::try_from(refusal.seq.wrapping_sub(first)) else { return false };
        match (steps.get(index), refusal.errno) {
            (Some(Step::Take(_)), Errno::NOENT) => gone.push(index),
            (Some(Step::Put(put)), Errno::EXIST | Errno::BUSY) => in_the_way.push(Step::Take(put.element)),
            _ => return false,
        }
    }
    for index in gone.into_iter().rev() {
        steps.remove(index);
    }
    steps.splice(0..0, in_the_way);
    true
}

fn put_element(message: &mut Vec<u8>, put: &Put<'_>, with_data: bool) {
    let Put { element, lifetime } = put;
    let key = codec::key_bytes(&element.key);
    message.extend_from_slice(&[NFPROTO_INET, 0, 0, 0]);
    message.put_text(NFTA_LIST_TABLE, Ruleset::TABLE);
    message.put_text(NFTA_LIST_SET, &element.container);
    message.put_nested(NFTA_LIST_ELEMENTS, |list| {
        list.put_nested(NFTA_LIST_ELEM, |item| {
            item.put_nested(NFTA_ELEM_KEY, |data| data.put(NFTA_DATA_VALUE, &key.first));
            if let (true, Some(last)) = (key.concatenated, &key.last) {
                item.put_nested(NFTA_ELEM_KEY_END, |data| data.put(NFTA_DATA_VALUE, last));
            }
            if !with_data {
                return;
            }
            if let Some(value) = &element.value {
                item.put_nested(NFTA_ELEM_DATA, |data| codec::put_value(data, value));
            }
            if let Some(lifetime) = lifetime {
                let millis = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).max(1);
                item.put_u64_be(NFTA_ELEM_TIMEOUT, millis);
                item.put_u64_be(NFTA_ELEM_EXPIRATION, millis);
            }
        });
        if let (false, Some(last)) = (key.concatenated, &key.last)
            && let Some(end) = codec::successor(last)
        {
            list.put_nested(NFTA_LIST_ELEM, |item| {
                item.put_nested(NFTA_ELEM_KEY, |data| data.put(NFTA_DATA_VALUE, &end));
                item.put_u32_be(NFTA_ELEM_FLAGS, ELEM_INTERVAL_END);
            });
        }
    });
}

fn container(payload: &[u8]) -> Option<Container> {
    let attributes = Attributes::after(payload, GENMSG);
    let number = |kind| attributes.find(kind).and_then(Attribute::u32_be);
    if attributes.find(NFTA_SET_TABLE)?.text()? != Ruleset::TABLE || payload.first() != Some(&NFPROTO_INET) {
        return None;
    }
    let flags = number(NFTA_SET_FLAGS).unwrap_or_default();
    if flags & SET_ANONYMOUS != 0 {
        return None;
    }
    let key_type = number(NFTA_SET_KEY_TYPE).unwrap_or_default();
    let data_type = number(NFTA_SET_DATA_TYPE);
    Some(Container {
        name: attributes.find(NFTA_SET_NAME)?.text()?.to_owned(),
        flags,
        key: codec::key_types(key_type),
        value: data_type.and_then(codec::value_type),
        size: attributes
            .find(NFTA_SET_DESC)
            .and_then(|d| d.nested().find(NFTA_SET_DESC_SIZE))
            .and_then(Attribute::u32_be),
        raw_types: (key_type, data_type),
    })
}

/// An element before its key is decoded.
struct Raw {
    first: Vec<u8>,
    last: Option<Vec<u8>>,
    is_end: bool,
    value: Option<Value>,
    remaining: Option<Duration>,
}

fn raw_elements(payload: &[u8], value: Option<ValueType>) -> Vec<Raw> {
    let Some(list) = Attributes::after(payload, GENMSG).find(NFTA_LIST_ELEMENTS) else { return Vec::new() };
    let element = |attributes: Attributes<'_>| {
        let data = |kind| Some(attributes.find(kind)?.nested().find(NFTA_DATA_VALUE)?.value.to_vec());
        let flags = attributes.find(NFTA_ELEM_FLAGS).and_then(Attribute::u32_be).unwrap_or_default();
        let expiration = attributes.find(NFTA_ELEM_EXPIRATION).and_then(Attribute::u64_be);
        Some(Raw {
            first: data(NFTA_ELEM_KEY)?,
            last: data(NFTA_ELEM_KEY_END),
            is_end: flags & ELEM_INTERVAL_END != 0,
            value: value
                .and_then(|kind| codec::decode_value(kind, attributes.find(NFTA_ELEM_DATA)?.nested())),
            remaining: expiration.map(Duration::from_millis),
        })
    };
    list.nested().into_iter().filter_map(|item| element(item.nested())).collect()
}

fn plain(fields: &[KeyType], raw: Vec<Raw>) -> Vec<Decoded> {
    raw.into_iter()
        .filter_map(|raw| {
            let key = codec::decode_key(fields, &raw.first, raw.last.as_deref())?;
            Some((key, raw.value, raw.remaining))
        })
        .collect()
}

/// Intervals over one field are listed as beginnings and (exclusive) ends.
fn pair_ends(fields: &[KeyType], mut raw: Vec<Raw>) -> Vec<Decoded> {
    // Where one interval ends another may begin: the end comes first.
    raw.sort_by(|a, b| (&a.first, !a.is_end).cmp(&(&b.first, !b.is_end)));
    let mut decoded = Vec::new();
    let mut rest = raw.into_iter().peekable();
    while let Some(raw) = rest.next() {
        if raw.is_end {
            continue;
        }
        let last = match rest.peek() {
            Some(next) => codec::predecessor(&next.first),
            None => Some(vec![0xff; raw.first.len()]),
        };
        if let Some(key) = codec::decode_key(fields, &raw.first, last.as_deref()) {
            decoded.push((key, raw.value, raw.remaining));
        }
    }
    decoded
}
