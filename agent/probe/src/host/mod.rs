//! The probe's own network: a namespace, and in it one interface, address pair and routing table for each host.
//!
//! ```text
//! rule 1000+n   from HOST n's address   lookup 1000+n
//! table 1000+n  default via the zone's gateway, onlink, over HOST n's interface
//! ```
//! All hosts may be on one zone's bridge, so each answers ARP only on its own interface and with its own MAC.

mod netlink;
mod sysctl;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rustix::thread::{CapabilitySet, UnshareFlags};
use seimon_board::{InterfaceName, MacAddress};
use seimon_ipc::probe::Host;

use netlink::Netlink;

/// More hosts than any plan has.
pub const MOST_HOSTS: usize = 256;

/// How long the far ends of the veth pairs may take to appear.
const APPEARANCE: Duration = Duration::from_secs(5);

const FIRST_TABLE: u32 = 1000;

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(
        "no network namespace of the probe's own can be made: it needs CAP_SYS_ADMIN or unprivileged user namespaces"
    )]
    Unshare(#[source] io::Error),
    #[error("more than {MOST_HOSTS} hosts")]
    TooMany,
    #[error("two hosts have {what} {value}")]
    Twice { what: &'static str, value: String },
    #[error("{0} is not the address of a machine")]
    NotUnicast(MacAddress),
    #[error("interface {0} did not appear in the probe's namespace")]
    Missing(InterfaceName),
    #[error("{what} of {interface} cannot be set")]
    Setting { what: &'static str, interface: String, source: io::Error },
    #[error("the kernel cannot be spoken to")]
    Netlink(#[source] io::Error),
}

/// Moves this process, which must have one thread only, into an empty network namespace; without CAP_SYS_ADMIN into a
/// user namespace of its own first.
pub fn unshare() -> Result<(), HostError> {
    let may = rustix::thread::capabilities(None).map_err(|error| HostError::Unshare(error.into()))?;
    let mut flags = UnshareFlags::NEWNET;
    if !may.effective.contains(CapabilitySet::SYS_ADMIN) {
        flags |= UnshareFlags::NEWUSER;
    }
    #[expect(unsafe_code, reason = "unshare has no safe form")]
    // SAFETY: neither flag touches the file descriptor table, which is what makes unshare unsafe.
    let unshared = unsafe { rustix::thread::unshare_unsafe(flags) };
    unshared.map_err(|error| HostError::Unshare(error.into()))
}

/// Waits for the interfaces and sets everything up.
pub fn configure(hosts: &[Host]) -> Result<(), HostError> {
    validate(hosts)?;
    let mut netlink = Netlink::open().map_err(HostError::Netlink)?;
    let indices = await_interfaces(&netlink, hosts)?;
    set("loopback", "lo", || {
        let lo = netlink.index("lo")?.ok_or(io::ErrorKind::NotFound)?;
        netlink.up(lo)
    })?;
    set("IPv4 settings", "all", || sysctl::ipv4("all"))?;
    for ((host, index), table) in hosts.iter().zip(indices).zip(FIRST_TABLE..) {
        configure_one(&mut netlink, host, index, table)?;
    }
    Ok(())
}

fn validate(hosts: &[Host]) -> Result<(), HostError> {
    if hosts.len() > MOST_HOSTS {
        return Err(HostError::TooMany);
    }
    let mut seen = BTreeSet::new();
    for host in hosts {
        if host.mac.0[0] & 1 == 1 || host.mac.0 == [0; 6] {
            return Err(HostError::NotUnicast(host.mac));
        }
        let ipv6 = host.gateway6.map(|_| ("the address", host.ipv6.to_string()));
        let own = [
            ("the interface", host.interface.to_string()),
            ("the MAC address", host.mac.to_string()),
            ("the address", host.ipv4.to_string()),
            ("zone and path", format!("{}/{}", host.zone, host.path)),
        ];
        for (what, value) in own.into_iter().chain(ipv6) {
            if !seen.insert((what, value.clone())) {
                return Err(HostError::Twice { what, value });
            }
        }
    }
    Ok(())
}

fn await_interfaces(netlink: &Netlink, hosts: &[Host]) -> Result<Vec<u32>, HostError> {
    let deadline = Instant::now() + APPEARANCE;
    let mut indices = Vec::with_capacity(hosts.len());
    for host in hosts {
        let index = loop {
            if let Some(index) = netlink.index(host.interface.as_str()).map_err(HostError::Netlink)? {
                break index;
            }
            if Instant::now() >= deadline {
                return Err(HostError::Missing(host.interface.clone()));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        indices.push(index);
    }
    Ok(indices)
}

fn configure_one(netlink: &mut Netlink, host: &Host, index: u32, table: u32) -> Result<(), HostError> {
    let name = host.interface.as_str();
    set("IPv4 settings", name, || sysctl::ipv4(name))?;
    if host.gateway6.is_some() {
        set("IPv6 settings", name, || sysctl::ipv6(name))?;
    }
    set("the MAC address", name, || netlink.mac(index, host.mac))?;
    let mut families: Vec<(IpAddr, IpAddr)> = vec![(host.ipv4.into(), host.gateway4.addr().into())];
    families.extend(host.gateway6.map(|gateway| (IpAddr::from(host.ipv6), IpAddr::from(gateway.addr()))));
    for (own, _) in &families {
        set("the address", name, || netlink.address(index, *own))?;
    }
    set("up", name, || netlink.up(index))?;
    for (own, gateway) in families {
        set("the route", name, || netlink.default_route(index, gateway, table))?;
        set("the routing rule", name, || netlink.rule_from(own, table))?;
    }
    Ok(())
}

fn set(what: &'static str, interface: &str, act: impl FnOnce() -> io::Result<()>) -> Result<(), HostError> {
    act().map_err(|source| HostError::Setting { what, interface: interface.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u8) -> Host {
        Host {
            zone: seimon_plan::ZoneId::new("affairs").expect("an id"),
            path: seimon_plan::PathId::new(format!("path{n}")).expect("an id"),
            interface: format!("probe{n}").parse().expect("a name"),
            mac: MacAddress([2, 0, 0, 0, 0, n]),
            ipv4: [10, 1, 0, n].into(),
            ipv6: [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)].into(),
            gateway4: "10.1.0.254/24".parse().expect("a prefix"),
            gateway6: Some("fd00::fe/64".parse().expect("a prefix")),
        }
    }

    #[test]
    fn hosts_that_would_get_in_each_others_way_are_refused() {
        type Change = fn(&mut Host);
        assert!(validate(&[host(1), host(2)]).is_ok());
        let changes: [(&str, Change); 5] = [
            ("interface", |host| host.interface = self::host(1).interface),
            ("MAC", |host| host.mac = self::host(1).mac),
            ("10.1.0.1", |host| host.ipv4 = self::host(1).ipv4),
            ("fd00::1", |host| host.ipv6 = self::host(1).ipv6),
            ("affairs/path1", |host| host.path = self::host(1).path),
        ];
        for (says, change) in changes {
            let mut second = host(2);
            change(&mut second);
            let refused = validate(&[host(1), second]).map_err(|error| error.to_string());
            assert!(refused.is_err_and(|error| error.contains(says)), "{says}");
        }
        let everyone = Host { mac: MacAddress([0xff; 6]), ..host(1) };
        assert!(matches!(validate(&[everyone]), Err(HostError::NotUnicast(_))));
        let many: Vec<Host> = vec![host(1); MOST_HOSTS + 1];
        assert!(matches!(validate(&many), Err(HostError::TooMany)));
    }

    #[test]
    fn without_ipv6_in_the_zone_the_address_is_nobodys() {
        let without = |n| Host { gateway6: None, ipv6: std::net::Ipv6Addr::UNSPECIFIED, ..host(n) };
        assert!(validate(&[without(1), without(2)]).is_ok());
    }
}
