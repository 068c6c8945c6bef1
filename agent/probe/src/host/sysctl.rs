//! Settings of an interface that netlink does not offer.

use std::fs;
use std::io;

/// rp_filter: the answer to a host comes in over its own interface, but the main table knows no route back.
/// arp_ignore, arp_announce: a host speaks for its own address only (Documentation/networking/ip-sysctl.rst).
pub(super) fn ipv4(interface: &str) -> io::Result<()> {
    for (key, value) in
        [("rp_filter", "0"), ("arp_ignore", "1"), ("arp_announce", "2"), ("accept_redirects", "0")]
    {
        ensure("ipv4", interface, key, value)?;
    }
    Ok(())
}

/// Routers on the zone are none of the probe's business, and its addresses are known to be free.
pub(super) fn ipv6(interface: &str) -> io::Result<()> {
    let settings = [
        ("disable_ipv6", "0"),
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("accept_dad", "0"),
        ("accept_redirects", "0"),
    ];
    for (key, value) in settings {
        ensure("ipv6", interface, key, value)?;
    }
    Ok(())
}

/// Writes only where the value differs: /proc/sys may be mounted read-only.
fn ensure(family: &str, interface: &str, key: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{family}/conf/{interface}/{key}");
    if fs::read_to_string(&path)?.trim() == value { Ok(()) } else { fs::write(&path, value) }
}
