//! The trunk: one bridge that knows VLANs, what its ports carry, and the VLANs themselves.
//!
//! Nothing passes that was not said to: the bridge filters from the moment it is made, has no VLAN of its own for frames
//! without a tag, and a port gets its numbers after it has joined.

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoData, InfoKind, InfoVlan,
    LinkAttribute, LinkInfo, LinkMessage,
};
use rustix::io::Errno;
use seimon_board::InterfaceName;
use seimon_core::network_plan::{ApplyError, PortVlans};

use super::link::change_of;
use super::{AF_BRIDGE, OURS, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK, Router, failed};
use crate::attributes::{Attributes, PutAttributes as _};
use crate::socket::{NLM_F_CREATE, NLM_F_EXCL};

const RTM_SETLINK: u16 = 19;
const IFINFOMSG: usize = 16;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_BRVLAN: u32 = 1 << 1;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const PVID: u16 = 1 << 1;
const UNTAGGED: u16 = 1 << 2;

/// On a port, or (`itself`) on the bridge's own side.
fn message(index: u32, id: u16, flags: u16, itself: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    let info = BridgeVlanInfo { flags: BridgeVlanInfoFlags::from_bits_retain(flags), vid: id };
    let mut said = Vec::new();
    if itself {
        said.push(AfSpecBridge::Flags(BridgeFlag::LowerDev));
    }
    said.push(AfSpecBridge::VlanInfo(info));
    message.attributes = vec![LinkAttribute::AfSpecBridge(said)];
    message
}

impl Router {
    pub(super) fn trunk(
        &mut self,
        name: &InterfaceName,
        ports: &BTreeMap<InterfaceName, PortVlans>,
    ) -> Result<(), ApplyError> {
        let filtering = [InfoBridge::VlanFiltering(true), InfoBridge::VlanDefaultPvid(0)];
        match self.links()?.by_name(name) {
            Some(other) if !other.ours => {
                let doing = format!("make {name}: an interface of that name, and not of ours, is there");
                return Err(ApplyError::Kernel { doing, source: Errno::EXIST.into() });
            }
            Some(open) if !open.filters_vlans => {
                let info = vec![
                    LinkInfo::Kind(InfoKind::Bridge),
                    LinkInfo::Data(InfoData::Bridge(filtering.to_vec())),
                ];
                let change = change_of(open.index, vec![LinkAttribute::LinkInfo(info)]);
                self.ask(RTM_NEWLINK, 0, &change)
                    .map_err(|error| failed(format!("make {name} filter VLANs"), error))?;
            }
            Some(_) | None => {}
        }
        let members: Vec<InterfaceName> = ports.keys().cloned().collect();
        let missing = match self.bridge_with(name, &members, &filtering) {
            Err(ApplyError::NoSuchInterface(missing)) => Some(missing),
            other => other.map(|()| None)?,
        };
        let (links, carried) = (self.links()?, self.carried()?);
        let bridge = links.index(name)?;
        let all: BTreeSet<u16> =
            ports.values().flat_map(|port| port.tagged.iter().copied().chain(port.untagged)).collect();
        let own = PortVlans { untagged: None, tagged: all };
        self.carry(bridge, true, carried.get(&bridge), &own)?;
        for (port, vlans) in ports {
            if let Some(link) = links.by_name(port) {
                self.carry(link.index, false, carried.get(&link.index), vlans)?;
            }
        }
        missing.map_or(Ok(()), |missing| Err(ApplyError::NoSuchInterface(missing)))
    }

    fn carry(
        &mut self,
        index: u32,
        itself: bool,
        seen: Option<&PortVlans>,
        wanted: &PortVlans,
    ) -> Result<(), ApplyError> {
        let nothing = PortVlans::default();
        let seen = seen.unwrap_or(&nothing);
        let all = |port: &PortVlans| -> BTreeSet<u16> {
            port.tagged.iter().copied().chain(port.untagged).collect()
        };
        let refused = |id: u16| move |error| failed(format!("say who carries VLAN {id}"), error);
        for id in all(seen).difference(&all(wanted)) {
            self.ask(RTM_DELLINK, 0, &message(index, *id, 0, itself)).map_err(refused(*id))?;
        }
        for id in &wanted.tagged {
            if !seen.tagged.contains(id) {
                self.ask(RTM_SETLINK, 0, &message(index, *id, 0, itself)).map_err(refused(*id))?;
            }
        }
        if let Some(id) = wanted.untagged.filter(|id| seen.untagged != Some(*id)) {
            self.ask(RTM_SETLINK, 0, &message(index, id, PVID | UNTAGGED, itself)).map_err(refused(id))?;
        }
        Ok(())
    }

    /// What each port of each bridge carries, and each bridge itself, by index.
    pub(crate) fn carried(&mut self) -> Result<BTreeMap<u32, PortVlans>, ApplyError> {
        let mut found = BTreeMap::new();
        let read = |payload: &[u8]| {
            let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
            let spec = Attributes::after(payload, IFINFOMSG).find(IFLA_AF_SPEC)?.nested();
            let mut port = PortVlans::default();
            for info in spec.into_iter().filter(|attribute| attribute.kind == IFLA_BRIDGE_VLAN_INFO) {
                let flags = info.u16()?;
                let id = u16::from_ne_bytes(info.value.get(2..4)?.try_into().ok()?);
                if flags & UNTAGGED != 0 {
                    port.untagged = (flags & PVID != 0).then_some(id);
                } else {
                    port.tagged.insert(id);
                }
            }
            Some((index, port))
        };
        let dumped = self.netlink.dump(
            RTM_GETLINK,
            |message| {
                let start = message.len();
                message.resize(start + IFINFOMSG, 0);
                message[start] = AF_BRIDGE;
                message.put(IFLA_EXT_MASK, &RTEXT_FILTER_BRVLAN.to_ne_bytes());
            },
            |message| match message {
                None => found.clear(),
                Some((kind, payload)) if kind == RTM_NEWLINK => found.extend(read(payload)),
                Some(_) => {}
            },
        );
        match dumped {
            Ok(()) => Ok(found),
            // A kernel without bridges.
            Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => Ok(BTreeMap::new()),
            Err(error) => Err(failed("list what bridge ports carry", error)),
        }
    }

    pub(super) fn vlan(
        &mut self,
        name: &InterfaceName,
        over: &InterfaceName,
        id: u16,
    ) -> Result<(), ApplyError> {
        let links = self.links()?;
        let below = links.index(over)?;
        match links.by_name(name) {
            Some(seen) if seen.ours && seen.vlan == Some((below, id)) => return Ok(()),
            Some(seen) if seen.ours => self.remove_link(name)?,
            Some(_) => {
                let doing = format!("make {name}: an interface of that name, and not of ours, is there");
                return Err(ApplyError::Kernel { doing, source: Errno::EXIST.into() });
            }
            None => {}
        }
        let attributes = vec![
            LinkAttribute::IfName(name.to_string()),
            LinkAttribute::Group(u32::from(OURS)),
            LinkAttribute::Link(below),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)])),
            ]),
        ];
        self.ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &change_of(0, attributes))
            .map_err(|error| failed(format!("make VLAN {name}"), error))
    }
}
