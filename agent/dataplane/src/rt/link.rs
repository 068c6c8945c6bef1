//! Bridges, veth pairs, tunnels, uplinks.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rustix::io::Errno;
use seimon_board::{InterfaceName, MacAddress};
use seimon_core::network_plan::{ApplyError, Link, LinkKind, PortVlans};

use super::{OURS, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK, Router, failed};
use crate::attributes::{Attribute, Attributes};
use crate::socket::{NLM_F_CREATE, NLM_F_EXCL};

/// `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_BR_VLAN_FILTERING: u16 = 7;

/// A link as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenLink {
    pub(crate) index: u32,
    pub(crate) name: InterfaceName,
    pub(crate) up: bool,
    mac: Option<MacAddress>,
    mtu: Option<u16>,
    pub(crate) master: Option<u32>,
    kind: String,
    alias: String,
    pub(super) ours: bool,
    /// Of a VLAN: the link below, and its number.
    pub(super) vlan: Option<(u32, u16)>,
    pub(super) filters_vlans: bool,
}

impl SeenLink {
    /// Reads the payload of an `RTM_NEWLINK` or `RTM_DELLINK`; `None` for names that we would not use.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let attributes = Attributes::after(payload, IFINFOMSG);
        let text = |kind| attributes.find(kind).and_then(Attribute::text).unwrap_or_default().to_owned();
        let number = |kind| attributes.find(kind).and_then(Attribute::u32);
        let info = attributes.find(IFLA_LINKINFO).map(Attribute::nested);
        let kind = info.and_then(|info| info.find(IFLA_INFO_KIND));
        let kind = kind.and_then(Attribute::text).unwrap_or_default().to_owned();
        let data = info.and_then(|info| info.find(IFLA_INFO_DATA)).map(Attribute::nested);
        let of_kind = |wanted: &str, what| data.filter(|_| kind == wanted).and_then(|data| data.find(what));
        let id = of_kind("vlan", IFLA_VLAN_ID).and_then(Attribute::u16);
        let filters_vlans = of_kind("bridge", IFLA_BR_VLAN_FILTERING).and_then(Attribute::u8) == Some(1);
        Some(Self {
            vlan: number(IFLA_LINK).zip(id),
            filters_vlans,
            index: u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?),
            name: InterfaceName::new(attributes.find(IFLA_IFNAME)?.text()?).ok()?,
            up: u32::from_ne_bytes(payload.get(8..12)?.try_into().ok()?) & IFF_UP != 0,
            mac: attributes.find(IFLA_ADDRESS).and_then(|mac| mac.value.try_into().ok()).map(MacAddress),
            mtu: number(IFLA_MTU).and_then(|mtu| u16::try_from(mtu).ok()),
            master: number(IFLA_MASTER),
            kind,
            alias: text(IFLA_IFALIAS),
            ours: number(IFLA_GROUP) == Some(u32::from(OURS)),
        })
    }

    pub(crate) const fn is_ours(&self) -> bool {
        self.ours
    }

    /// Carried by the kernel itself.
    pub(crate) fn is_wireguard(&self) -> bool {
        self.kind == "wireguard"
    }

    /// The far end's name and address, which the alias of a near end of ours tells even when the far end is in
    /// another namespace.
    fn far_end(&self) -> Option<(InterfaceName, MacAddress)> {
        let mut words = self.alias.strip_prefix("seimon probe ")?.split(' ');
        (self.ours && self.kind == "veth").then_some(())?;
        Some((InterfaceName::new(words.next()?).ok()?, words.next()?.parse().ok()?))
    }
}

fn far_alias(far: &InterfaceName, mac: MacAddress) -> String {
    format!("seimon probe {far} {mac}")
}

/// All links of the namespace.
#[derive(Debug, Default)]
pub(crate) struct Links(BTreeMap<u32, SeenLink>);

impl Links {
    pub(crate) fn by_index(&self, index: u32) -> Option<&SeenLink> {
        self.0.get(&index)
    }

    pub(crate) fn by_name(&self, name: &InterfaceName) -> Option<&SeenLink> {
        self.0.values().find(|link| link.name == *name)
    }

    pub(crate) fn index(&self, name: &InterfaceName) -> Result<u32, ApplyError> {
        self.by_name(name).map(|link| link.index).ok_or_else(|| ApplyError::NoSuchInterface(name.clone()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SeenLink> {
        self.0.values()
    }

    /// Bridges, near ends and tunnels of ours. Members are in order of name, without near ends; a near end that is in no
    /// bridge is left out.
    ///
    /// `carried`: what ports of bridges carry, by index.
    pub(crate) fn ours(&self, carried: &BTreeMap<u32, PortVlans>) -> Vec<Link> {
        let of = |link: &SeenLink| {
            let kind = if let Some((far, far_mac)) = link.far_end() {
                LinkKind::Probe { bridge: self.by_index(link.master?)?.name.clone(), far, far_mac }
            } else if link.ours && link.filters_vlans {
                let ports = self.iter().filter(|port| port.master == Some(link.index));
                let vlans = |port: &SeenLink| carried.get(&port.index).cloned().unwrap_or_default();
                LinkKind::Trunk { ports: ports.map(|port| (port.name.clone(), vlans(port))).collect() }
            } else if let (true, Some((over, id))) = (link.ours, link.vlan) {
                LinkKind::Vlan { over: self.by_index(over)?.name.clone(), id }
            } else if link.ours && link.kind == "bridge" {
                let members = self.iter().filter(|member| member.master == Some(link.index));
                let mut members: Vec<_> = members
                    .filter(|member| member.far_end().is_none())
                    .map(|member| member.name.clone())
                    .collect();
                members.sort();
                LinkKind::Bridge { members }
            } else if link.ours && (link.kind == "tun" || link.is_wireguard()) {
                LinkKind::Tunnel
            } else {
                return None;
            };
            Some(Link { name: link.name.clone(), kind, mtu: link.mtu })
        };
        self.iter().filter_map(of).collect()
    }
}

pub(super) fn change_of(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

impl Router {
    pub(crate) fn links(&mut self) -> Result<Links, ApplyError> {
        let found = self.list(RTM_GETLINK, RTM_NEWLINK, IFINFOMSG, SeenLink::read);
        let found = found.map_err(|error| failed("list interfaces", error))?;
        Ok(Links(found.into_iter().map(|link| (link.index, link)).collect()))
    }

    /// Makes the link so, and up; whatever is so already stays untouched.
    pub(crate) fn link_up(&mut self, link: &Link) -> Result<(), ApplyError> {
        let Link { name, kind, mtu } = link;
        match kind {
            // A tunnel is made by whoever carries it.
            LinkKind::Uplink | LinkKind::Tunnel => {}
            LinkKind::Bridge { members } => self.bridge(name, members)?,
            LinkKind::Trunk { ports } => self.trunk(name, ports)?,
            LinkKind::Vlan { over, id } => self.vlan(name, over, *id)?,
            LinkKind::Probe { bridge, far, far_mac } => self.probe(name, bridge, far, *far_mac)?,
        }
        let links = self.links()?;
        let seen = links.by_name(name).ok_or_else(|| ApplyError::NoSuchInterface(name.clone()))?;
        if let Some(mtu) = mtu.filter(|mtu| seen.mtu != Some(*mtu)) {
            self.ask(RTM_NEWLINK, 0, &change_of(seen.index, vec![LinkAttribute::Mtu(u32::from(mtu))]))
                .map_err(|error| failed(format!("set the MTU of {name} to {mtu}"), error))?;
        }
        self.set_up(seen)
    }

    pub(super) fn set_up(&mut self, link: &SeenLink) -> Result<(), ApplyError> {
        if link.up {
            return Ok(());
        }
        let mut message = change_of(link.index, Vec::new());
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.ask(RTM_NEWLINK, 0, &message).map_err(|error| failed(format!("set {} up", link.name), error))
    }

    fn set_master(&mut self, link: &SeenLink, master: Option<u32>) -> Result<(), ApplyError> {
        if link.master == master {
            return Ok(());
        }
        let attributes = vec![LinkAttribute::Controller(master.unwrap_or(0))];
        self.ask(RTM_NEWLINK, 0, &change_of(link.index, attributes))
            .map_err(|error| failed(format!("put {} into or out of its bridge", link.name), error))
    }

    fn bridge(&mut self, name: &InterfaceName, members: &[InterfaceName]) -> Result<(), ApplyError> {
        self.bridge_with(name, members, &[])
    }

    /// `more`: what is said of the bridge when it is made.
    pub(super) fn bridge_with(
        &mut self,
        name: &InterfaceName,
        members: &[InterfaceName],
        more: &[InfoBridge],
    ) -> Result<(), ApplyError> {
        let before = self.links()?;
        let first_mac = members.iter().find_map(|member| before.by_name(member)?.mac);
        if before.by_name(name).is_none() {
            let mut attributes = vec![
                LinkAttribute::IfName(name.to_string()),
                LinkAttribute::Group(u32::from(OURS)),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::Kind(InfoKind::Bridge),
                    LinkInfo::Data(InfoData::Bridge(
                        [InfoBridge::StpState(BridgeStpState::Disabled), InfoBridge::ForwardDelay(0)]
                            .into_iter()
                            .chain(more.iter().cloned())
                            .collect(),
                    )),
                ]),
            ];
            // An address of its own choice would change with its members, and every client's idea of the gateway too.
            attributes.extend(first_mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
            self.ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &change_of(0, attributes))
                .map_err(|error| failed(format!("make bridge {name}"), error))?;
        }
        let links = self.links()?;
        let bridge = links.by_name(name).ok_or_else(|| ApplyError::NoSuchInterface(name.clone()))?;
        if !bridge.ours {
            let attributes = vec![LinkAttribute::Group(u32::from(OURS))];
            self.ask(RTM_NEWLINK, 0, &change_of(bridge.index, attributes))
                .map_err(|error| failed(format!("mark {name} as ours"), error))?;
        }
        for link in links.iter() {
            if members.contains(&link.name) {
                self.set_master(link, Some(bridge.index))?;
                self.set_up(link)?;
            } else if link.master == Some(bridge.index) && link.far_end().is_none() {
                self.set_master(link, None)?;
            }
        }
        // A port that is gone does not take the others with it.
        self.set_up(bridge)?;
        match members.iter().find(|member| links.by_name(member).is_none()) {
            Some(missing) => Err(ApplyError::NoSuchInterface(missing.clone())),
            None => Ok(()),
        }
    }

    fn probe(
        &mut self,
        near: &InterfaceName,
        bridge: &InterfaceName,
        far: &InterfaceName,
        far_mac: MacAddress,
    ) -> Result<(), ApplyError> {
        let before = self.links()?;
        let bridge = before.index(bridge)?;
        let alias = far_alias(far, far_mac);
        let seen = before.by_name(near);
        if let Some(other) = seen.filter(|seen| seen.alias != alias) {
            if other.far_end().is_none() {
                let doing = format!("make {near}: an interface of that name, and not of ours, is there");
                return Err(ApplyError::Kernel { doing, source: Errno::EXIST.into() });
            }
            self.remove_link(near)?;
        }
        if seen.is_none_or(|seen| seen.alias != alias) {
            let peer = change_of(
                0,
                vec![LinkAttribute::IfName(far.to_string()), LinkAttribute::Address(far_mac.0.to_vec())],
            );
            let attributes = vec![
                LinkAttribute::IfName(near.to_string()),
                LinkAttribute::Group(u32::from(OURS)),
                LinkAttribute::IfAlias(alias),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::Kind(InfoKind::Veth),
                    LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
                ]),
            ];
            self.ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &change_of(0, attributes))
                .map_err(|error| failed(format!("make the veth pair {near}, {far}"), error))?;
            let index = self.links()?.index(near)?;
            self.ask(
                RTM_NEWLINK,
                0,
                &change_of(index, vec![LinkAttribute::IfAlias(far_alias(far, far_mac))]),
            )
            .map_err(|error| failed(format!("describe {near}"), error))?;
        }
        let links = self.links()?;
        let seen = links.by_name(near).ok_or_else(|| ApplyError::NoSuchInterface(near.clone()))?;
        self.set_master(seen, Some(bridge))
    }

    /// Makes a WireGuard interface of ours; `false` where the kernel has no such thing.
    pub(crate) fn make_wireguard(&mut self, name: &InterfaceName) -> Result<bool, ApplyError> {
        let attributes = vec![
            LinkAttribute::IfName(name.to_string()),
            LinkAttribute::Group(u32::from(OURS)),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]),
        ];
        match self.ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &change_of(0, attributes)) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(failed(format!("make tunnel {name}"), error)),
        }
    }

    /// Marks an interface that we made in another way as ours.
    pub(crate) fn take_over(&mut self, name: &InterfaceName) -> Result<(), ApplyError> {
        let index = self.links()?.index(name)?;
        let attributes = vec![LinkAttribute::Group(u32::from(OURS))];
        self.ask(RTM_NEWLINK, 0, &change_of(index, attributes))
            .map_err(|error| failed(format!("mark {name} as ours"), error))
    }

    /// Removes a bridge, veth pair or tunnel of ours. Other links are left as they are: they are the board's.
    pub(crate) fn remove_link(&mut self, name: &InterfaceName) -> Result<(), ApplyError> {
        let links = self.links()?;
        match links.by_name(name) {
            Some(link) if link.ours => self
                .ask_idempotent(RTM_DELLINK, 0, &change_of(link.index, Vec::new()), &[Errno::NODEV])
                .map_err(|error| failed(format!("remove {name}"), error)),
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn move_link(
        &mut self,
        name: &InterfaceName,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), ApplyError> {
        let index = self.links()?.index(name)?;
        let attributes = vec![LinkAttribute::NetNsFd(namespace.as_raw_fd())];
        self.ask(RTM_NEWLINK, 0, &change_of(index, attributes))
            .map_err(|error| failed(format!("move {name} into another namespace"), error))
    }
}
