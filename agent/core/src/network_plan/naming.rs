//! Names that follow from identifiers: stable, within the kernel's limits, never an nft keyword.

use seimon_board::{InterfaceName, InvalidInterfaceName};
use seimon_plan::{PathId, ZoneId};

/// 32-bit FNV-1a: short fingerprints of texts that we wrote ourselves. Not for anything that an adversary chooses.
pub(crate) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a str>) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }
    hash
}

/// The zone's bridge: `z-<zone>`, shortened with a fingerprint where the zone's name is longer than 13 characters.
pub fn bridge_name(zone: &ZoneId) -> Result<InterfaceName, InvalidInterfaceName> {
    let id = zone.as_str();
    if id.len() <= 13 {
        InterfaceName::new(format!("z-{id}"))
    } else {
        InterfaceName::new(format!("z-{}-{:04x}", &id[..8], fingerprint([id]) & 0xffff))
    }
}

/// The bridge behind all trunk ports.
pub const TRUNK: &str = "trunk";

/// A VLAN of the trunk's: `trunk.20`. Within the kernel's 15 bytes for every number.
pub fn vlan_name(id: u16) -> Result<InterfaceName, InvalidInterfaceName> {
    InterfaceName::new(format!("{TRUNK}.{id}"))
}

/// A tunnel's interface: `wg-<path>`, shortened with a fingerprint where the path's name is longer than 12 characters.
pub fn tunnel_name(path: &PathId) -> Result<InterfaceName, InvalidInterfaceName> {
    let id = path.as_str();
    if id.len() <= 12 {
        InterfaceName::new(format!("wg-{id}"))
    } else {
        InterfaceName::new(format!("wg-{}-{:04x}", &id[..7], fingerprint([id]) & 0xffff))
    }
}

/// Set of the clients that are plugged in at a port of a bridge, and the chain that fills it.
pub(crate) fn port_names(port: &InterfaceName) -> (String, String) {
    let number = fingerprint([port.as_str()]);
    (format!("at_{number:08x}"), format!("port_{number:08x}"))
}

/// An identifier as a part of a chain's name: at most 16 characters of a-z, 0-9 and `_`; different identifiers of a plan
/// give different parts.
pub(crate) fn slug(id: &str) -> String {
    if id.len() <= 16 && !id.contains(['-', '_']) {
        return id.to_owned();
    }
    let plain: String = id.chars().take(10).map(|c| if c == '-' { '_' } else { c }).collect();
    format!("{plain}_{:05x}", fingerprint([id]) & 0xf_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_the_kernels_limits_and_differ() {
        let zones = ["affairs", "a-very-long-zone-name-1", "a-very-long-zone-name-2", "a_b", "a-b"];
        let names: std::collections::BTreeSet<_> =
            zones.iter().map(|z| bridge_name(&ZoneId::new(*z).unwrap()).unwrap()).collect();
        assert_eq!(names.len(), zones.len());
        let tunnels = ["closed", "closed-internet-vpn-1", "closed-internet-vpn-2"];
        let names: std::collections::BTreeSet<_> =
            tunnels.iter().map(|path| tunnel_name(&PathId::new(*path).unwrap()).unwrap()).collect();
        assert_eq!(names.len(), tunnels.len());
        assert_eq!(vlan_name(4094).unwrap().as_str(), "trunk.4094");
        let slugs: std::collections::BTreeSet<_> = zones.iter().map(|z| slug(z)).collect();
        assert_eq!(slugs.len(), zones.len());
        assert!(slugs.iter().all(|s| s.len() <= 16));
    }
}
