//! What the gateway's kernel has, as text to compare.

use anyhow::Result;

use super::world::World;

/// Our table with the handle of everything in it, without what changes while traffic flows. The same text later: nobody
/// has made the table, a chain or a rule anew.
pub(crate) fn table(world: &World) -> Result<String> {
    world.gw("nft -s -a -t list table inet seimon")
}

pub(crate) fn table_exists(world: &World) -> bool {
    world.gw("nft -t list table inet seimon").is_ok()
}

/// Rules, routes and addresses of both families, without interfaces of the probe, which come and go with it.
pub(crate) fn routing(world: &World) -> Result<String> {
    world.gw(
        "ip rule; ip -6 rule; \
         (ip route show table all; ip -6 route show table all) | grep -v 'dev pr' | grep -v fe80 | grep -v ff00; \
         ip -o address | grep -v ': pr' | grep -v fe80 | sed 's/^[0-9]*: //'",
    )
}

/// Everything of others that must stay as it is.
pub(crate) fn foreign(world: &World) -> Result<String> {
    let nft = world.gw("nft -s -a list table inet theirs; nft -s list table ip other")?;
    let rest = world.gw(
        "ip rule list pref 50; ip rule list pref 20000; ip route show table 4242; ip route show table main; \
         ip -o address show dev theirs | sed 's/^[0-9]*: //'; cat /etc/resolv.conf",
    )?;
    Ok(nft + &rest)
}

pub(crate) fn forwarding(world: &World) -> Result<bool> {
    Ok(world.gw("cat /proc/sys/net/ipv4/ip_forward")?.trim() == "1")
}
