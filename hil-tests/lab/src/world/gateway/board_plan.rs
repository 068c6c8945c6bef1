//! A plan for the lab's board, as the same plan for another board.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use seimon_board::Board;

/// The lab board's word for a port (`WAN1`) → where that is on another board.
pub type PortMap = BTreeMap<String, Socket>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// A port, by its word.
    Port(String),
    /// A VLAN on a trunk: a zone's only.
    Vlan { trunk: String, tag: u16 },
}

/// Where a gateway keeps the lab's authority; the plan's folder is not the same for every plan there.
const AUTHORITY: &str = "/etc/seimon/lab-ca.pem";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plan uses port {port}, and {board} has no such port")]
pub struct UnknownPort {
    pub port: String,
    pub board: String,
}

/// Names the board and its ports instead of the lab's.
///
/// # Errors
/// The text is no TOML, or the plan uses a port that `ports` does not have ([`UnknownPort`]).
pub fn on_board(plan: &str, board: &str, ports: &PortMap) -> Result<String> {
    let mut plan: toml::Table = plan.parse().context("the plan is not TOML")?;
    if let Some(site) = plan.get_mut("site").and_then(toml::Value::as_table_mut) {
        site.insert("board".to_owned(), board.into());
    }
    let socket = |port: &str| {
        let unknown = || UnknownPort { port: port.to_owned(), board: board.to_owned() };
        ports.get(port).ok_or_else(unknown)
    };
    for line in tables(&mut plan, "lines") {
        let Some(port) = line.get_mut("port") else { continue };
        match socket(port.as_str().unwrap_or_default())? {
            Socket::Port(other) => *port = other.as_str().into(),
            Socket::Vlan { .. } => bail!("{port}: a line has a port of its own"),
        }
    }
    for zone in tables(&mut plan, "zones") {
        let list = zone.get("ports").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        let (mut own, mut trunks) = (Vec::new(), Vec::new());
        for port in &list {
            match socket(port.as_str().unwrap_or_default())? {
                Socket::Port(other) => own.push(toml::Value::from(other.as_str())),
                Socket::Vlan { trunk, tag } => {
                    trunks.push(toml::Value::from(trunk.as_str()));
                    zone.insert("vlan".to_owned(), i64::from(*tag).into());
                }
            }
        }
        zone.insert("ports".to_owned(), own.into());
        if !trunks.is_empty() {
            zone.insert("trunks".to_owned(), trunks.into());
        }
    }
    for service in tables(&mut plan, "services") {
        let file = service.get_mut("health").and_then(|health| health.get_mut("ca_file"));
        if let Some(file) = file.filter(|file| file.as_str() == Some("lab-ca.pem")) {
            *file = AUTHORITY.into();
        }
    }
    Ok(toml::to_string(&plan)?)
}

fn tables<'a>(plan: &'a mut toml::Table, section: &str) -> impl Iterator<Item = &'a mut toml::Table> {
    plan.get_mut(section)
        .and_then(toml::Value::as_table_mut)
        .into_iter()
        .flat_map(|section| section.iter_mut())
        .filter_map(|(_, value)| value.as_table_mut())
}

/// The lab's ports that a board has by the same word.
pub(super) fn same_words(board: &Board) -> PortMap {
    board.ports.keys().map(|port| (port.clone(), Socket::Port(port.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"
[site]
board = "lab-namespace"
[lines.internet]
port = "WAN2"
[zones.affairs]
ports = ["LAN1"]
[services.affairs]
health = { name = "a", ca_file = "lab-ca.pem" }
"#;

    #[test]
    fn board_ports_and_authority_are_the_other_gateways() {
        let ports = [("WAN2", "SFP1"), ("LAN1", "LAN4")];
        let ports = ports.map(|(lab, board)| (lab.to_owned(), Socket::Port(board.to_owned())));
        let text = on_board(PLAN, "bananapi-bpi-r3", &ports.into()).unwrap();
        for part in ["bananapi-bpi-r3", "port = \"SFP1\"", "[\"LAN4\"]", AUTHORITY] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_zone_may_be_a_vlan_on_a_trunk_and_a_line_may_not() {
        let vlan = Socket::Vlan { trunk: "TRUNK".to_owned(), tag: 10 };
        let wan = Socket::Port("WAN2".to_owned());
        let mut ports = PortMap::from([("WAN2".to_owned(), wan), ("LAN1".to_owned(), vlan.clone())]);
        let text = on_board(PLAN, "qemu-virt-edk2", &ports).unwrap();
        for part in ["ports = []", "trunks = [\"TRUNK\"]", "vlan = 10"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        ports.insert("WAN2".to_owned(), vlan);
        assert!(on_board(PLAN, "qemu-virt-edk2", &ports).is_err());
    }

    #[test]
    fn a_port_that_the_board_has_not_is_named() {
        let error = on_board(PLAN, "small", &PortMap::new()).unwrap_err();
        let unknown = error.downcast_ref::<UnknownPort>().unwrap();
        assert_eq!(unknown, &UnknownPort { port: "WAN2".into(), board: "small".into() });
    }
}
