//! Links, addresses, routes, rules and neighbours over rtnetlink.
//!
//! What we make carries our number ([`OURS`]) where the kernel has a place for it: links in their group, addresses,
//! routes and rules in their protocol. Only such things, and routes in our own tables, are listed or taken away.
//!
//! Requests are written with the types of `netlink-packet-route`; answers are read attribute by attribute, so that
//! somebody else's odd link or route does not make ours unreadable.

mod link;
mod route;
mod vlan;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;
use seimon_board::{InterfaceName, MacAddress};
use seimon_core::network_plan::{Address, ApplyError};

use crate::attributes::{Attribute, Attributes};
use crate::socket::{NLM_F_CREATE, NLM_F_REPLACE, Netlink, NetlinkError};

pub(crate) use link::{Links, SeenLink};
pub(crate) use route::{is_our_rule, is_our_table, table_of};

/// Our number as a protocol (`RTPROT`, `IFAPROT`) and as a group of links.
pub(crate) const OURS: u8 = 0x5e;

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
pub(crate) const RTM_NEWRULE: u16 = 32;
pub(crate) const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;

/// `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_PROTO: u16 = 11;
/// `struct ndmsg`.
const NDMSG: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// `NUD_INCOMPLETE | NUD_FAILED | NUD_NOARP`.
const NUD_UNUSABLE: u16 = 0x01 | 0x20 | 0x40;

const NUD_PERMANENT: u16 = 0x80;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;
const AF_BRIDGE: u8 = 7;

#[derive(Debug)]
pub(crate) struct Router {
    netlink: Netlink,
}

fn failed(doing: impl Into<String>, error: NetlinkError) -> ApplyError {
    crate::failure(doing, error)
}

/// True for an address message with our protocol number.
pub(crate) fn is_our_address(payload: &[u8]) -> bool {
    Attributes::after(payload, IFADDRMSG).find(IFA_PROTO).and_then(Attribute::u8) == Some(OURS)
}

fn family_of(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

impl Router {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(NETLINK_ROUTE)? })
    }

    pub(crate) const fn port(&self) -> u32 {
        self.netlink.port()
    }

    fn ask(&mut self, kind: u16, flags: u16, message: &impl Emitable) -> Result<(), NetlinkError> {
        self.netlink.ask(kind, flags, |bytes| {
            let start = bytes.len();
            bytes.resize(start + message.buffer_len(), 0);
            message.emit(&mut bytes[start..]);
        })
    }

    /// As [`Self::ask`], but errors in `passed_over` mean that it is so already.
    fn ask_idempotent(
        &mut self,
        kind: u16,
        flags: u16,
        message: &impl Emitable,
        passed_over: &[Errno],
    ) -> Result<(), NetlinkError> {
        match self.ask(kind, flags, message) {
            Err(error) if error.errno().is_some_and(|errno| passed_over.contains(&errno)) => Ok(()),
            other => other,
        }
    }

    /// Dumps; `each` gets the payloads of messages of kind `answer`.
    fn list<T>(
        &mut self,
        request: u16,
        answer: u16,
        header: usize,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut found = Vec::new();
        self.netlink.dump(
            request,
            |message| message.resize(message.len() + header, 0),
            |message| match message {
                None => found.clear(),
                Some((kind, payload)) if kind == answer => found.extend(read(payload)),
                Some(_) => {}
            },
        )?;
        Ok(found)
    }

    /// Adds the address without a prefix route; IPv6 without duplicate detection, so that it is usable at once.
    pub(crate) fn add_address(&mut self, address: &Address) -> Result<(), ApplyError> {
        let message = self.address_message(address)?;
        self.ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &message)
            .map_err(|error| failed(format!("add {} to {}", address.address, address.interface), error))
    }

    pub(crate) fn remove_address(&mut self, address: &Address) -> Result<(), ApplyError> {
        let message = match self.address_message(address) {
            Err(ApplyError::NoSuchInterface(_)) => return Ok(()),
            other => other?,
        };
        self.ask_idempotent(RTM_DELADDR, 0, &message, &[Errno::ADDRNOTAVAIL])
            .map_err(|error| failed(format!("take {} off {}", address.address, address.interface), error))
    }

    fn address_message(&mut self, address: &Address) -> Result<AddressMessage, ApplyError> {
        let Address { interface, address } = address;
        let index = self.links()?.index(interface)?;
        let ip = address.addr();
        let mut flags = AddressFlags::Noprefixroute | AddressFlags::Permanent;
        if ip.is_ipv6() {
            flags |= AddressFlags::Nodad;
        }
        let mut message = AddressMessage::default();
        message.header.family = family_of(ip);
        message.header.prefix_len = address.prefix_len();
        message.header.flags = AddressHeaderFlags::from_bits_retain((flags.bits() & 0xff) as u8);
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(ip),
            AddressAttribute::Address(ip),
            AddressAttribute::Flags(flags),
            AddressAttribute::Protocol(AddressProtocol::Other(OURS)),
        ];
        Ok(message)
    }

    /// Addresses that carry our number.
    pub(crate) fn addresses(&mut self, links: &Links) -> Result<Vec<Address>, ApplyError> {
        let read = |payload: &[u8]| {
            let attributes = Attributes::after(payload, IFADDRMSG);
            is_our_address(payload).then_some(())?;
            let ip = attributes.find(IFA_LOCAL).or_else(|| attributes.find(IFA_ADDRESS))?.ip()?;
            let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
            let interface = links.by_index(index)?.name.clone();
            Some(Address { interface, address: IpNet::new(ip, *payload.get(1)?).ok()? })
        };
        self.list(RTM_GETADDR, RTM_NEWADDR, IFADDRMSG, read).map_err(|error| failed("list addresses", error))
    }

    /// The bridge's forwarding table, without the bridge's own addresses.
    pub(crate) fn heard_at(
        &mut self,
        bridge: &InterfaceName,
    ) -> Result<BTreeMap<MacAddress, InterfaceName>, ApplyError> {
        let links = self.links()?;
        let wanted = links.index(bridge)?;
        // Behind a VLAN of the trunk's: the trunk knows the port.
        let behind = links.iter().find(|link| link.master == Some(wanted) && link.vlan.is_some());
        let behind = behind.and_then(|link| link.vlan);
        let mut found = BTreeMap::new();
        let read = |payload: &[u8]| {
            let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
            let state = u16::from_ne_bytes(payload.get(8..10)?.try_into().ok()?);
            let attributes = Attributes::after(payload, NDMSG);
            let master = attributes.find(NDA_MASTER).and_then(Attribute::u32);
            let vlan = attributes.find(NDA_VLAN).and_then(Attribute::u16);
            let there = match behind {
                Some((trunk, id)) => master == Some(trunk) && vlan == Some(id),
                None => master == Some(wanted),
            };
            (there && state & NUD_PERMANENT == 0).then_some(())?;
            let mac = MacAddress(attributes.find(NDA_LLADDR)?.value.try_into().ok()?);
            Some((mac, links.by_index(index)?.name.clone()))
        };
        let dumped = self.netlink.dump(
            RTM_GETNEIGH,
            |message| {
                let start = message.len();
                message.resize(start + NDMSG, 0);
                message[start] = AF_BRIDGE;
            },
            |message| match message {
                None => found.clear(),
                Some((kind, payload)) if kind == RTM_NEWNEIGH => found.extend(read(payload)),
                Some(_) => {}
            },
        );
        dumped.map_err(|error| failed(format!("list who is at the ports of {bridge}"), error))?;
        Ok(found)
    }

    /// Neighbours with a usable MAC address.
    pub(crate) fn neighbours(
        &mut self,
        interface: &InterfaceName,
    ) -> Result<BTreeMap<IpAddr, MacAddress>, ApplyError> {
        let wanted = self.links()?.index(interface)?;
        let read = |payload: &[u8]| {
            let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
            let state = u16::from_ne_bytes(payload.get(8..10)?.try_into().ok()?);
            (index == wanted && state & NUD_UNUSABLE == 0).then_some(())?;
            let attributes = Attributes::after(payload, NDMSG);
            let ip = attributes.find(NDA_DST).and_then(Attribute::ip)?;
            Some((ip, MacAddress(attributes.find(NDA_LLADDR)?.value.try_into().ok()?)))
        };
        let found = self.list(RTM_GETNEIGH, RTM_NEWNEIGH, NDMSG, read);
        found
            .map(|pairs| pairs.into_iter().collect())
            .map_err(|error| failed(format!("list neighbours on {interface}"), error))
    }
}
