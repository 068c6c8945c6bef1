//! Told by the kernel when others change what is ours, and when interfaces come and go.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::sockopt;
use seimon_board::InterfaceName;
use seimon_core::network_plan::Ruleset;

use crate::attributes::{Attribute, Attributes};
use crate::ours::Ours;
use crate::rt::{
    RTM_DELADDR, RTM_DELLINK, RTM_DELROUTE, RTM_DELRULE, RTM_NEWLINK, RTM_NEWROUTE, RTM_NEWRULE, SeenLink,
    is_our_address, is_our_rule, is_our_table, table_of,
};
use crate::socket::{Message, messages};

const NFNLGRP_NFTABLES: u32 = 7;
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV4_RULE: u32 = 8;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const RTNLGRP_IPV6_RULE: u32 = 19;
/// Forwarding was switched, among others.
const RTNLGRP_IPV4_NETCONF: u32 = 24;
const RTNLGRP_IPV6_NETCONF: u32 = 25;
const RTM_NEWNETCONF: u16 = 80;
/// Family and padding.
const NETCONFMSG: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
/// "Interface" of the switch for all of them.
const NETCONFA_IFINDEX_ALL: u32 = u32::MAX;
const NF_TABLES: u16 = 10;
const NFT_MSG_NEWGEN: u16 = 15;
const NFPROTO_INET: u8 = 1;
const GENMSG: usize = 4;
/// In messages about tables, chains, rules, sets and elements alike.
const NFTA_TABLE: u16 = 1;
const NFTA_GEN_PROC_PID: u16 = 2;
const NFTA_GEN_PROC_NAME: u16 = 3;
const BUFFER: usize = 1024 * 1024;
const RECEIVE: usize = 64 * 1024;

/// What others did, or what happened to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody else changed our table; who, as the kernel names that process.
    TableChanged {
        process: u32,
        name: String,
    },
    /// Somebody else changed, or an interface that went away took with it, routes in our tables, rules or addresses of
    /// ours; took a port out of its bridge; or switched forwarding off.
    RoutingChanged,
    LinkUp(InterfaceName),
    LinkDown(InterfaceName),
    LinkRenamed {
        from: InterfaceName,
        to: InterfaceName,
    },
    LinkGone(InterfaceName),
    /// More happened than the kernel could tell: look at everything.
    Overrun,
}

/// A subscription. Readable (as a file descriptor) when there may be something in [`Watch::events`].
#[derive(Debug)]
pub struct Watch {
    poll: OwnedFd,
    nf: Socket,
    rt: Socket,
    ours: Ours,
    links: BTreeMap<u32, SeenLink>,
    /// The transaction being told about touches our table, and its author's socket is not one of ours.
    touched: bool,
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

fn subscribe(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER);
    for group in groups {
        socket.add_membership(*group)?;
    }
    socket.set_non_blocking(true)?;
    Ok(socket)
}

impl Watch {
    pub(crate) fn open(ours: Ours) -> io::Result<Self> {
        let nf = subscribe(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES])?;
        let groups = [
            RTNLGRP_LINK,
            RTNLGRP_IPV4_IFADDR,
            RTNLGRP_IPV4_ROUTE,
            RTNLGRP_IPV4_RULE,
            RTNLGRP_IPV6_IFADDR,
            RTNLGRP_IPV6_ROUTE,
            RTNLGRP_IPV6_RULE,
            RTNLGRP_IPV4_NETCONF,
            RTNLGRP_IPV6_NETCONF,
        ];
        let rt = subscribe(NETLINK_ROUTE, &groups)?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (number, socket) in [&nf, &rt].into_iter().enumerate() {
            epoll::add(&poll, socket, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
        }
        let mut router = crate::rt::Router::open()?;
        let links = router.links().map_err(io::Error::other)?;
        let links = links.iter().map(|link| (link.index, link.clone())).collect();
        Ok(Self { poll, nf, rt, ours, links, touched: false })
    }

    /// Everything told since the last call, in order within netfilter and within routing. Never blocks.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut buffer = Vec::with_capacity(RECEIVE);
        while let Some(complete) = receive(&self.nf, &mut buffer) {
            if !complete {
                events.push(Event::Overrun);
            }
            for message in messages(&buffer) {
                self.netfilter(&message, &mut events);
            }
        }
        while let Some(complete) = receive(&self.rt, &mut buffer) {
            if !complete {
                events.push(Event::Overrun);
            }
            for message in messages(&buffer) {
                self.routing(&message, &mut events);
            }
        }
        events
    }

    /// A transaction is told object by object; the new generation ends it and names who made it.
    fn netfilter(&mut self, message: &Message<'_>, events: &mut Vec<Event>) {
        if message.kind >> 8 != NF_TABLES {
            return;
        }
        let attributes = Attributes::after(message.payload, GENMSG);
        if message.kind & 0xff == NFT_MSG_NEWGEN {
            if std::mem::take(&mut self.touched) {
                let process =
                    attributes.find(NFTA_GEN_PROC_PID).and_then(Attribute::u32_be).unwrap_or_default();
                let name = attributes.find(NFTA_GEN_PROC_NAME).and_then(Attribute::text).unwrap_or_default();
                if !self.ours.has_process(process) {
                    events.push(Event::TableChanged { process, name: name.to_owned() });
                }
            }
        } else {
            let table = attributes.find(NFTA_TABLE).and_then(Attribute::text);
            let ours = message.payload.first() == Some(&NFPROTO_INET) && table == Some(Ruleset::TABLE);
            // nft's socket has its process's number, as that process itself sees it; the generation has the number as
            // the outermost PID namespace sees it. Where the two differ, this one is right.
            let by_us = self.ours.has_port(message.port) || self.ours.has_process(message.port);
            self.touched |= ours && !by_us;
        }
    }

    fn routing(&mut self, message: &Message<'_>, events: &mut Vec<Event>) {
        match message.kind {
            RTM_NEWLINK => {
                events.extend(SeenLink::read(message.payload).into_iter().flat_map(|l| self.seen(l)))
            }
            RTM_DELLINK => {
                // Leaving a bridge is told as the deletion of the bridge's view of it (family AF_BRIDGE).
                let whole = message.payload.first() == Some(&0);
                if let Some(link) = SeenLink::read(message.payload).filter(|_| whole) {
                    self.links.remove(&link.index);
                    events.push(Event::LinkGone(link.name));
                }
            }
            RTM_NEWROUTE | RTM_DELROUTE => {
                let ours = table_of(message.payload).is_some_and(is_our_table);
                if ours && !self.ours.has_port(message.port) {
                    events.push(Event::RoutingChanged);
                }
            }
            RTM_DELADDR if is_our_address(message.payload) && !self.ours.has_port(message.port) => {
                events.push(Event::RoutingChanged);
            }
            // Written to a file: there is no telling by whom. We only ever switch it off when we go.
            RTM_NEWNETCONF if is_forwarding_off(message.payload) => events.push(Event::RoutingChanged),
            RTM_NEWRULE | RTM_DELRULE
                if is_our_rule(message.payload) && !self.ours.has_port(message.port) =>
            {
                events.push(Event::RoutingChanged);
            }
            _ => {}
        }
    }

    fn seen(&mut self, link: SeenLink) -> Vec<Event> {
        let mut events = Vec::new();
        let before = self.links.insert(link.index, link.clone());
        if let Some(before) = before.as_ref().filter(|before| before.name != link.name) {
            events.push(Event::LinkRenamed { from: before.name.clone(), to: link.name.clone() });
        }
        // We put ports into bridges and take none out.
        if before.as_ref().is_some_and(|before| before.master.is_some() && before.master != link.master) {
            events.push(Event::RoutingChanged);
        }
        match (before.map(|before| before.up), link.up) {
            (Some(false) | None, true) => events.push(Event::LinkUp(link.name)),
            (Some(true), false) => events.push(Event::LinkDown(link.name)),
            (Some(false) | None, false) | (Some(true), true) => {}
        }
        events
    }
}

/// Forwarding as a whole was switched off.
fn is_forwarding_off(payload: &[u8]) -> bool {
    let attributes = Attributes::after(payload, NETCONFMSG);
    let number = |kind| attributes.find(kind).and_then(Attribute::u32);
    number(NETCONFA_IFINDEX) == Some(NETCONFA_IFINDEX_ALL) && number(NETCONFA_FORWARDING) == Some(0)
}

/// `None`: nothing more. `Some(false)`: notifications were lost, and the buffer is empty.
fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> Option<bool> {
    loop {
        buffer.clear();
        match socket.recv(buffer, 0) {
            Ok(_) => return Some(true),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::INTR) => {}
                Some(Errno::NOBUFS) => return Some(false),
                Some(_) | None => return None,
            },
        }
    }
}
