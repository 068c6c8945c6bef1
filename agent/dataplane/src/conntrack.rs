//! Connection tracking over netlink (`ctnetlink`): listing flows with our mark, and deleting them one by one.
//!
//! Deleting is by tuple and id, never by the kernel's filtered flush: a kernel that does not know the filter would
//! throw away everybody's flows.

use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;
use seimon_core::network_plan::{Flow, FlowKill, FlowStage, Mark};

use crate::attributes::{Attribute, Attributes, PutAttributes};
use crate::socket::{Messages, NLM_F_ACK, NLM_F_REQUEST, Netlink, NetlinkError, Refusal};

const SUBSYSTEM: u16 = 1 << 8;
const CT_NEW: u16 = 0;
const CT_GET: u16 = 1;
const CT_DELETE: u16 = 2;
const GENMSG: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_MARK: u16 = 8;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_MARK_MASK: u16 = 21;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_COUNTERS_BYTES: u16 = 2;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const IPS_SEEN_REPLY: u32 = 2;
/// `TCP_CONNTRACK_FIN_WAIT` to `TCP_CONNTRACK_CLOSE` (include/uapi/linux/netfilter/nf_conntrack_tcp.h).
const ENDING: std::ops::RangeInclusive<u8> = 4..=8;
/// Deletions sent before their answers are read.
const AT_ONCE: usize = 256;

#[derive(Debug)]
pub(crate) struct Conntrack {
    netlink: Netlink,
}

/// A flow, and what the kernel wants to hear to delete just it.
struct Entry {
    flow: Flow,
    family: u8,
    /// The original direction's tuple, as the kernel wrote it.
    tuple: Vec<u8>,
    zone: Option<Vec<u8>>,
}

impl Conntrack {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(NETLINK_NETFILTER)? })
    }

    /// Flows with any of our mark bits. Their order is the kernel's.
    pub(crate) fn flows(&mut self) -> Result<Vec<Flow>, NetlinkError> {
        Ok(self.entries(&FlowKill::default())?.into_iter().map(|entry| entry.flow).collect())
    }

    /// Deletes the flows of ours that match; returns how many are left because they are in a flowtable (some Linux before 6.4).
    pub(crate) fn kill(&mut self, which: &FlowKill) -> Result<usize, NetlinkError> {
        let entries = self.entries(which)?;
        let mut offloaded = 0;
        for some in entries.chunks(AT_ONCE) {
            let mut messages = Messages::default();
            let (mut first, mut last) = (0, 0);
            for (index, entry) in some.iter().enumerate() {
                last = self.netlink.next_seq();
                if index == 0 {
                    first = last;
                }
                messages.push(SUBSYSTEM | CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, last, |message| {
                    message.extend_from_slice(&[entry.family, 0, 0, 0]);
                    message.put(CTA_TUPLE_ORIG | 0x8000, &entry.tuple);
                    message.put_u32_be(CTA_ID, entry.flow.id);
                    if let Some(zone) = &entry.zone {
                        message.put(CTA_ZONE, zone);
                    }
                });
            }
            // One that ended by itself meanwhile is as good as deleted.
            let refusals = self.netlink.exchange_each(&messages.bytes, first, last)?;
            offloaded += refusals.iter().filter(|refusal| refusal.errno == Errno::BUSY).count();
            let real = |refusal: &Refusal| refusal.errno != Errno::NOENT && refusal.errno != Errno::BUSY;
            if let Some(other) = refusals.into_iter().find(real) {
                return Err(NetlinkError::Refused(other));
            }
        }
        Ok(offloaded)
    }

    fn entries(&mut self, which: &FlowKill) -> Result<Vec<Entry>, NetlinkError> {
        let path = which.path.map(|path| (path.mark().0, Mark::PATH_MASK));
        let zone_group = which.zone_group.map(|zone_group| (zone_group.mark().0, Mark::ZONE_GROUP_MASK));
        let (mark, mask) = [path, zone_group]
            .into_iter()
            .flatten()
            .fold((0, 0), |(mark, mask), (more, its_mask)| (mark | more, mask | its_mask));
        let mut entries = Vec::new();
        self.netlink.dump(
            SUBSYSTEM | CT_GET,
            |message| {
                message.extend_from_slice(&[0, 0, 0, 0]);
                if mask != 0 {
                    message.put_u32_be(CTA_MARK, mark);
                    message.put_u32_be(CTA_MARK_MASK, mask);
                }
            },
            |message| match message {
                None => entries.clear(),
                Some((kind, payload)) if kind == SUBSYSTEM | CT_NEW => entries.extend(entry(payload)),
                Some(_) => {}
            },
        )?;
        // Asked again here: an old kernel ignores the filter.
        entries.retain(|Entry { flow, .. }| which.matches(flow));
        // A dump that the table grew under can show a flow twice.
        entries.sort_by_key(|entry| entry.flow.id);
        entries.dedup_by_key(|entry| entry.flow.id);
        Ok(entries)
    }
}

struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
}

fn tuple(attributes: Attributes<'_>) -> Option<Tuple> {
    let ip = attributes.find(CTA_TUPLE_IP)?.nested();
    let proto = attributes.find(CTA_TUPLE_PROTO)?.nested();
    let address = |v4, v6| ip.find(v4).or_else(|| ip.find(v6)).and_then(Attribute::ip);
    let port = |kind| proto.find(kind).and_then(Attribute::u16_be);
    let icmp = port(CTA_PROTO_ICMP_ID).or_else(|| port(CTA_PROTO_ICMPV6_ID));
    Some(Tuple {
        source: address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
        destination: address(CTA_IP_V4_DST, CTA_IP_V6_DST)?,
        protocol: proto.find(CTA_PROTO_NUM)?.u8()?,
        source_port: port(CTA_PROTO_SRC_PORT).or(icmp).unwrap_or_default(),
        destination_port: port(CTA_PROTO_DST_PORT).unwrap_or_default(),
    })
}

fn entry(payload: &[u8]) -> Option<Entry> {
    let attributes = Attributes::after(payload, GENMSG);
    let number = |kind| attributes.find(kind).and_then(Attribute::u32_be);
    let original = attributes.find(CTA_TUPLE_ORIG)?;
    let sent = tuple(original.nested())?;
    let reply = tuple(attributes.find(CTA_TUPLE_REPLY)?.nested())?;
    let bytes = |kind| {
        attributes
            .find(kind)
            .and_then(|counters| counters.nested().find(CTA_COUNTERS_BYTES))
            .and_then(Attribute::u64_be)
            .unwrap_or_default()
    };
    let tcp_state = attributes
        .find(CTA_PROTOINFO)
        .and_then(|info| info.nested().find(CTA_PROTOINFO_TCP))
        .and_then(|tcp| tcp.nested().find(CTA_PROTOINFO_TCP_STATE))
        .and_then(Attribute::u8);
    let flow = Flow {
        id: number(CTA_ID)?,
        mark: Mark(number(CTA_MARK).unwrap_or_default()),
        protocol: sent.protocol,
        source: sent.source,
        source_port: sent.source_port,
        destination: sent.destination,
        destination_port: sent.destination_port,
        reply_source: reply.source,
        reply_destination: reply.destination,
        answered: number(CTA_STATUS).unwrap_or_default() & IPS_SEEN_REPLY != 0,
        stage: if tcp_state.is_some_and(|state| ENDING.contains(&state)) {
            FlowStage::Ending
        } else {
            FlowStage::Open
        },
        bytes: bytes(CTA_COUNTERS_ORIG).saturating_add(bytes(CTA_COUNTERS_REPLY)),
    };
    Some(Entry {
        flow,
        family: *payload.first()?,
        tuple: original.value.to_vec(),
        zone: attributes.find(CTA_ZONE).map(|zone| zone.value.to_vec()),
    })
}
