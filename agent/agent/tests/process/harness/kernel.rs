//! What the gateway's kernel has, as text to compare.

use anyhow::{Context as _, Result};

use super::world::World;

/// Our table with the handle of everything in it, without what changes while traffic flows. The same text later: nobody
/// has made the table, a chain or a rule anew.
pub(crate) fn table(world: &World) -> Result<String> {
    world.gw("nft -s -a -t list table inet seimon")
}

pub(crate) fn table_exists(world: &World) -> bool {
    world.gw("nft -t list table inet seimon").is_ok()
}

/// Rules, routes and addresses of both families, without carriers, which follow the cables, and without interfaces of the probe, which come and go with it.
pub(crate) fn routing(world: &World) -> Result<String> {
    world.gw(
        "ip rule | sort; ip -6 rule | sort; \
         (ip route show table all; ip -6 route show table all) | grep -v 'dev p[nf]-' | grep -v fe80 | grep -v ff00 | sed 's/ linkdown//'; \
         ip -o address | grep -v ': p[nf]-' | grep -v fe80 | sed 's/^[0-9]*: //'",
    )
}

/// Our table without anything that changes while traffic flows or that a new table would number anew.
pub(crate) fn rules(world: &World) -> Result<String> {
    world.gw("nft -s -t list table inet seimon")
}

/// Things of others in the gateway: tables, marks, an interface, a rule, a route.
pub(crate) fn move_in(world: &World) -> Result<()> {
    world
        .gw("nft -f - <<'END'
table inet theirs {
    set guests { type ipv4_addr; elements = { 192.0.2.77 } }
    chain before { type filter hook prerouting priority -180; policy accept;
        ct mark set ct mark | 0x40000000
        meta mark set meta mark | 0x20000000
    }
    chain watching { type filter hook forward priority 10; policy accept;
        ip saddr @guests drop
        meta mark & 0x20000000 == 0x20000000 counter name marked
    }
    counter marked { }
}
table ip other {
    chain out { type nat hook postrouting priority 120; policy accept; oifname theirs masquerade; }
}
END
        ip link add theirs type veth peer name theirs-far
        ip address add 172.20.0.1/24 dev theirs
        ip link set theirs up; ip link set theirs-far up
        ip rule add pref 50 from 172.20.0.5 lookup 4242
        ip rule add pref 20000 fwmark 0x10000000/0x10000000 lookup 4242
        ip -6 rule add pref 20000 fwmark 0x10000000/0x10000000 lookup 4242
        ip route add 172.21.0.0/16 via 172.20.0.2 table 4242
        ip route add 172.22.0.0/16 via 172.20.0.2")
        .map(drop)
}

/// What [`move_in`] brought, as text.
pub(crate) fn theirs(world: &World) -> Result<String> {
    world.gw(
        "nft -s -a list table inet theirs | sed 's/packets [0-9]* bytes [0-9]*//'; nft -s -a list table ip other
         ip rule list pref 50; ip rule list pref 20000; ip -6 rule list pref 20000
         ip route show table 4242; ip route show table main dev theirs
         ip -o -4 address show dev theirs; cat /etc/resolv.conf",
    )
}

/// The counter of forwarded packets that still carry the others' mark.
pub(crate) fn marked_by_others(world: &World) -> Result<u64> {
    let text = world.gw("nft list counter inet theirs marked")?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "packets").context("no counter")?;
    Ok(words.get(at + 1).context("no count")?.parse()?)
}

pub(crate) fn forwarding(world: &World) -> Result<bool> {
    Ok(world.gw("cat /proc/sys/net/ipv4/ip_forward")?.trim() == "1")
}
