//! Links, addresses, routes and rules.

use anyhow::{Result, ensure};
use seimon_core::network_plan::{
    Address, ApplyError, Change, ChangeSet, Dataplane, Family, IpRule, Link, LinkKind, Route, RouteKind,
    RuleAction, RuleMatch,
};
use seimon_dataplane::Linux;

use crate::{apply, in_fresh_namespace, interface, sh};

/// Two ports with cables: p1 and p2 (their other ends x1, x2).
const PORTS: &str = "ip link add p1 type veth peer x1; ip link add p2 type veth peer x2; ip link set x1 up; ip link set x2 up";

fn bridge(members: &[&str]) -> Link {
    let members = members.iter().map(|member| interface(member)).collect();
    Link { name: interface("z-affairs"), kind: LinkKind::Bridge { members }, mtu: None }
}

fn probe() -> Result<Link> {
    let kind = LinkKind::Probe {
        bridge: interface("z-affairs"),
        far: interface("pr1"),
        far_mac: "02:00:5e:10:00:01".parse()?,
    };
    Ok(Link { name: interface("pn1"), kind, mtu: None })
}

#[test]
fn links_are_made_kept_and_removed() -> Result<()> {
    in_fresh_namespace("routing::links_are_made_kept_and_removed", || {
        sh(PORTS)?;
        sh("ip link add foreign type bridge")?;
        let mut linux = Linux::open()?;
        let uplink = Link { name: interface("p2"), kind: LinkKind::Uplink, mtu: Some(1454) };
        let changes = || -> Result<Vec<Change>> {
            Ok(vec![
                Change::LinkUp(bridge(&["p1"])),
                Change::LinkUp(probe()?),
                Change::LinkUp(uplink.clone()),
            ])
        };
        apply(&mut linux, changes()?)?;
        let first = linux.observe(&[])?;
        let indexes = sh("ip -o link")?;
        apply(&mut linux, changes()?)?;
        ensure!(linux.observe(&[])? == first, "doing it twice is doing it once");
        ensure!(sh("ip -o link")? == indexes);

        let kinds: Vec<_> = first.links.iter().map(|link| (link.name.as_str(), link.kind.clone())).collect();
        ensure!(kinds.len() == 2, "{kinds:?}");
        ensure!(kinds.contains(&("z-affairs", bridge(&["p1"]).kind)), "{kinds:?}");
        ensure!(kinds.contains(&("pn1", probe()?.kind)), "{kinds:?}");
        ensure!(first.interfaces[&interface("z-affairs")] && first.interfaces[&interface("p1")]);
        ensure!(!first.interfaces[&interface("foreign")], "{:?}", first.interfaces);
        let details = sh("ip -d link show z-affairs")?;
        ensure!(details.contains("forward_delay 0") && details.contains("stp_state 0"), "{details}");
        let mac = |name: &str| sh(&format!("ip -o link show {name} | grep -o 'link/ether [0-9a-f:]*'"));
        ensure!(mac("z-affairs")? == mac("p1")?, "a stable address");
        ensure!(mac("pr1")?.contains("02:00:5e:10:00:01"));
        ensure!(sh("ip link show p2")?.contains("mtu 1454"));

        // The far end moves away; its near end is still known for what it is.
        let mut sleeper = std::process::Command::new("unshare").args(["--net", "sleep", "60"]).spawn()?;
        let there =
            format!("test $(readlink /proc/{}/ns/net) != $(readlink /proc/self/ns/net)", sleeper.id());
        while sh(&there).is_err() {}
        linux.move_link_to_process(&interface("pr1"), sleeper.id())?;
        ensure!(linux.observe(&[])?.links.contains(&Link { mtu: Some(1500), ..probe()? }));
        ensure!(sh("ip link show pr1").is_err());
        apply(&mut linux, [Change::LinkUp(probe()?)])?;
        ensure!(
            sh(&format!("nsenter -t {} -n ip link show pr1", sleeper.id()))?.contains("02:00:5e:10:00:01")
        );

        // Members follow the plan; probes and the bridge's address stay.
        let address = mac("z-affairs")?;
        apply(&mut linux, [Change::LinkUp(bridge(&["x1"]))])?;
        ensure!(mac("z-affairs")? == address, "clients would lose their gateway");
        ensure!(linux.observe(&[])?.links.iter().any(|link| link.kind == bridge(&["x1"]).kind));
        ensure!(linux.observe(&[])?.links.iter().any(|link| link.name == interface("pn1")));
        for name in ["pn1", "z-affairs", "z-affairs", "foreign", "p1"] {
            apply(&mut linux, [Change::LinkRemove(interface(name))])?;
        }
        let seen = linux.observe(&[])?;
        ensure!(seen.links.is_empty(), "{:?}", seen.links);
        ensure!(seen.interfaces.contains_key(&interface("foreign")), "others' links are not ours to remove");
        ensure!(seen.interfaces.contains_key(&interface("p1")));
        sleeper.kill()?;
        sleeper.wait()?;
        Ok(())
    })
}

#[test]
fn a_missing_interface_is_named() -> Result<()> {
    in_fresh_namespace("routing::a_missing_interface_is_named", || {
        let mut linux = Linux::open()?;
        let address = Address { interface: interface("nope"), address: "192.0.2.1/24".parse()? };
        let uplink = Link { name: interface("nope"), kind: LinkKind::Uplink, mtu: None };
        for change in [Change::AddressAdd(address), Change::LinkUp(uplink), Change::LinkUp(bridge(&["nope"]))]
        {
            let refused = linux.apply(&ChangeSet { changes: vec![change.clone()] });
            let named = matches!(&refused, Err(ApplyError::NoSuchInterface(name)) if name.as_str() == "nope");
            ensure!(named, "{change:?}: {refused:?}");
        }
        // The ports that are there serve on.
        sh(PORTS)?;
        ensure!(linux.apply(&ChangeSet { changes: vec![Change::LinkUp(bridge(&["nope", "p1"]))] }).is_err());
        let seen = linux.observe(&[])?;
        ensure!(seen.interfaces[&interface("z-affairs")] && seen.interfaces[&interface("p1")]);
        ensure!(seen.links.iter().any(|link| link.kind == bridge(&["p1"]).kind), "{:?}", seen.links);
        Ok(())
    })
}

#[test]
fn addresses_have_no_prefix_route_and_foreign_ones_are_left_alone() -> Result<()> {
    in_fresh_namespace("routing::addresses_have_no_prefix_route_and_foreign_ones_are_left_alone", || {
        sh(PORTS)?;
        sh("ip link set p1 up; ip addr add 198.51.100.9/24 dev p1")?;
        let mut linux = Linux::open()?;
        let at = |text: &str| -> Result<Address> {
            Ok(Address { interface: interface("p1"), address: text.parse()? })
        };
        let ours = [at("192.168.1.2/24")?, at("2001:db8:1::2/64")?];
        for _ in 0..2 {
            apply(&mut linux, ours.iter().cloned().map(Change::AddressAdd))?;
        }
        let seen: Vec<_> = linux.observe(&[])?.addresses.into_iter().collect();
        ensure!(seen == ours, "{seen:?}");
        let routes = sh("ip route; ip -6 route")?;
        ensure!(!routes.contains("192.168.1.0/24") && !routes.contains("2001:db8:1::/64"), "{routes}");
        ensure!(routes.contains("198.51.100.0/24"));
        ensure!(!sh("ip -6 addr show dev p1")?.contains("tentative noprefixroute"));
        for _ in 0..2 {
            apply(&mut linux, ours.iter().cloned().map(Change::AddressRemove))?;
        }
        ensure!(linux.observe(&[])?.addresses.is_empty());
        ensure!(sh("ip addr show dev p1")?.contains("198.51.100.9/24"));
        Ok(())
    })
}

#[test]
fn routes_and_rules_read_back_as_written_and_others_stay() -> Result<()> {
    in_fresh_namespace("routing::routes_and_rules_read_back_as_written_and_others_stay", || {
        sh(PORTS)?;
        sh("ip link set p1 up; ip link set p2 up; ip addr add 198.51.100.9/24 dev p1; ip route add 203.0.113.0/24 via 198.51.100.1
            ip rule add pref 150 fwmark 7 table 100; ip route add 203.0.113.0/24 dev p2 table 100")?;
        let foreign = || sh("ip route; ip route show table 100; ip rule show pref 150; ip -6 rule");
        let before = foreign()?;
        let mut linux = Linux::open()?;
        let own = Address { interface: interface("p1"), address: "192.168.1.2/24".parse()? };
        let own6 = Address { interface: interface("p1"), address: "2001:db8:1::2/64".parse()? };
        apply(&mut linux, [Change::AddressAdd(own.clone()), Change::AddressAdd(own6.clone())])?;
        let route = |table, to: &str, kind, mtu| -> Result<Route> {
            Ok(Route { table, destination: to.parse()?, kind, mtu })
        };
        let via = |gateway: &str, source: Option<&Address>| -> Result<RouteKind> {
            let source = source.map(|address| address.address.addr());
            Ok(RouteKind::Via { gateway: gateway.parse()?, interface: interface("p1"), source })
        };
        let onlink = RouteKind::Onlink { interface: interface("p2"), source: None };
        let mut routes = [
            route(0x5e01, "0.0.0.0/0", via("192.168.1.1", Some(&own))?, Some(1400))?,
            route(0x5e01, "::/0", via("fe80::1", Some(&own6))?, None)?,
            route(0x5e00, "10.1.0.0/16", onlink.clone(), None)?,
            route(0x5e00, "fd00:1::/64", onlink, None)?,
            route(0x5e02, "0.0.0.0/0", RouteKind::Prohibit, None)?,
            route(0x5e02, "::/0", RouteKind::Prohibit, None)?,
        ];
        let rule = |family, priority, matches, action| IpRule { family, priority, matches, action };
        let mark = |mark, mask| RuleMatch { fwmark: Some((mark, mask)), ..RuleMatch::default() };
        let blocked = RuleMatch { iif: Some(interface("z-affairs")), ..mark(0, 0xff) };
        let from = RuleMatch { from: Some("100.127.255.1/32".parse()?), ..RuleMatch::default() };
        let from6 = RuleMatch { from: Some("fd00::1/128".parse()?), ..RuleMatch::default() };
        let tunnel =
            RuleMatch { iif: Some(interface("lo")), udp_source_port: Some(51820), ..RuleMatch::default() };
        let rules = [
            rule(Family::Ipv4, 140, tunnel.clone(), RuleAction::Table(0x5e01)),
            rule(Family::Ipv6, 140, tunnel.clone(), RuleAction::Table(0x5e01)),
            rule(Family::Ipv4, 900, tunnel, RuleAction::Prohibit),
            rule(Family::Ipv4, 100, RuleMatch::default(), RuleAction::Table(0x5e00)),
            rule(Family::Ipv6, 100, RuleMatch::default(), RuleAction::Table(0x5e00)),
            rule(Family::Ipv4, 150, from, RuleAction::Table(0x5e01)),
            rule(Family::Ipv6, 150, from6, RuleAction::Table(0x5e01)),
            rule(Family::Ipv4, 200, mark(1, 0xff), RuleAction::Table(0x5e01)),
            rule(Family::Ipv4, 900, blocked.clone(), RuleAction::Prohibit),
            rule(Family::Ipv6, 900, blocked, RuleAction::Prohibit),
        ];
        for _ in 0..2 {
            apply(&mut linux, routes.iter().cloned().map(Change::RouteReplace))?;
            apply(&mut linux, rules.iter().cloned().map(Change::RuleAdd))?;
        }
        let seen = linux.observe(&[])?;
        ensure!(seen.routes == routes.iter().cloned().collect(), "{:#?}", seen.routes);
        ensure!(seen.rules == rules.iter().cloned().collect(), "{:#?}", seen.rules);
        ensure!(sh("ip route show table 0x5e01")?.contains("onlink"));

        // A route of another kind takes the place of the one before.
        routes[0].kind = RouteKind::Prohibit;
        routes[0].mtu = None;
        routes[1].kind = RouteKind::Prohibit;
        routes[4].kind = via("192.168.1.1", None)?;
        routes[5].kind = via("fe80::1", None)?;
        apply(&mut linux, routes.iter().cloned().map(Change::RouteReplace))?;
        let seen = linux.observe(&[])?.routes;
        ensure!(seen == routes.iter().cloned().collect(), "{seen:#?}");

        for _ in 0..2 {
            apply(&mut linux, routes.iter().cloned().map(Change::RouteRemove))?;
            apply(&mut linux, rules.iter().cloned().map(Change::RuleRemove))?;
        }
        let seen = linux.observe(&[])?;
        ensure!(seen.routes.is_empty() && seen.rules.is_empty(), "{seen:#?}");
        ensure!(foreign()? == before, "{before}\n{}", foreign()?);
        Ok(())
    })
}
