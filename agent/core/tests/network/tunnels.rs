//! A path that is a tunnel: what is configured, what may come in, and which way its outer packets go.

use seimon_board::MacAddress;
use seimon_core::network_plan::{
    Allocation, Change, Discrepancy, Family, LinkKind, NetworkPlan, Observed, PathIndex, RouteKind,
    RuleAction, diff, verify,
};
use seimon_plan::{LineId, PathId, ValidSitePlan};

use crate::common;
use crate::interpreter::{Fate, Machine, Packet};

/// The same town without the plain path: nothing but the tunnel uses the line.
fn tunnel_only() -> ValidSitePlan {
    let mut plan: toml::Table = common::one_line_text().parse().unwrap();
    plan["paths"].as_table_mut().unwrap().remove("direct");
    for route in plan["migration"]["routes"].as_array_mut().unwrap() {
        route.as_table_mut().unwrap().insert("paths".into(), vec![toml::Value::from("closed")].into());
    }
    plan["gateway"].as_table_mut().unwrap().insert("paths".into(), vec![toml::Value::from("closed")].into());
    common::valid(&plan.to_string())
}

fn index(net: &NetworkPlan, path: &str) -> PathIndex {
    net.allocation.paths[&PathId::new(path).unwrap()]
}

fn packet(iif: &str, source: &str, destination: &str, protocol: u8, ports: (u16, u16)) -> Packet {
    Packet {
        iif: iif.into(),
        mac: MacAddress([2, 0, 0, 0, 0, 9]),
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol,
        source_port: ports.0,
        port: ports.1,
        state: "new",
        ct_mark: 0,
        mark: 0,
    }
}

#[test]
fn a_tunnel_is_made_configured_addressed_and_routed_and_its_outer_packets_carry_the_lines_mark() {
    let net = common::compiled(&common::one_line_town());
    let link = net.links.iter().find(|link| link.kind == LinkKind::Tunnel).unwrap();
    assert_eq!((link.name.as_str(), link.mtu), ("wg-closed", Some(1420)));
    let tunnel = &net.tunnels[&link.name];
    assert_eq!(tunnel.mark, index(&net, "direct").mark().0, "the line's plain path");
    assert_eq!(tunnel.listen_port, 51820);
    let [peer] = tunnel.peers.values().collect::<Vec<_>>()[..] else { panic!("one hub") };
    assert_eq!(peer.endpoint, Some("198.51.100.20:51820".parse().unwrap()));
    assert_eq!(peer.allowed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0.0.0.0/0"]);
    let inner = net.addresses.iter().find(|address| address.interface == link.name).unwrap();
    assert_eq!(inner.address.to_string(), "10.60.1.2/30");
    let table = index(&net, "closed").table();
    let routes: Vec<_> = net.routes.iter().filter(|route| route.table == table).collect();
    let [route] = routes[..] else { panic!("{routes:?}") };
    assert_eq!(route.destination.to_string(), "0.0.0.0/0");
    assert!(matches!(&route.kind, RouteKind::Onlink { interface, .. } if *interface == link.name));
}

#[test]
fn outer_packets_go_by_their_port_to_their_line_and_nowhere_else() {
    for (plan, carrier) in [(common::one_line_town(), "direct"), (tunnel_only(), "")] {
        let net = common::compiled(&plan);
        let line = net.allocation.carriers.get(&LineId::new("internet").unwrap());
        let index = if carrier.is_empty() { *line.unwrap() } else { index(&net, carrier) };
        for family in [Family::Ipv4, Family::Ipv6] {
            let mut by_port: Vec<_> = net
                .rules
                .iter()
                .filter(|rule| rule.family == family && rule.matches.udp_source_port == Some(51820))
                .collect();
            by_port.sort_by_key(|rule| rule.priority);
            let actions: Vec<_> = by_port.iter().map(|rule| (rule.priority, rule.action.clone())).collect();
            assert_eq!(actions, [(140, RuleAction::Table(index.table())), (900, RuleAction::Prohibit)]);
            assert!(by_port.iter().all(|rule| rule.matches.iif.as_ref().unwrap().as_str() == "lo"));
        }
        let wan = |route: &&seimon_core::network_plan::Route| route.table == index.table();
        assert!(
            net.routes.iter().filter(wan).any(|route| matches!(
                &route.kind,
                RouteKind::Via { interface, .. } if interface.as_str() == "wan2"
            )),
            "the line's own way out"
        );
    }
}

#[test]
fn a_line_without_a_plain_path_gets_a_number_of_its_own_and_keeps_it() {
    let plan = tunnel_only();
    let first = Allocation::default().extend(&plan).unwrap();
    let line = LineId::new("internet").unwrap();
    let number = first.carriers[&line];
    assert!(!first.paths.values().any(|path| *path == number));
    let both = first.extend(&common::one_line_town()).unwrap();
    assert!(!both.paths.values().any(|path| *path == number), "a flow under way may still carry it");
    assert!(Allocation::default().extend(&common::one_line_town()).unwrap().carriers.is_empty());
    assert!(Allocation::default().extend(&common::town()).unwrap().carriers.is_empty());
}

#[test]
fn a_plain_path_without_the_lines_ipv6_does_not_carry_a_tunnel() {
    let text = common::one_line_text().replace("ipv6 = \"nat66\"", "ipv6 = \"none\"");
    let text = text.replace("[\"203.0.113.53\", \"2001:db8:113::53\"]", "[\"203.0.113.53\"]");
    let net = common::compiled(&common::valid(&text));
    let number = net.allocation.carriers[&LineId::new("internet").unwrap()];
    let six =
        net.routes.iter().any(|route| route.table == number.table() && route.destination.addr().is_ipv6());
    assert!(six, "an endpoint may be reached over IPv6");
}

#[test]
fn the_tunnels_port_is_open_on_its_line_and_the_far_end_reaches_nothing() {
    for plan in [common::one_line_town(), tunnel_only()] {
        let net = common::compiled(&plan);
        let mut machine = Machine::read(&net).unwrap();
        let hub = "198.51.100.20";
        let knock = packet("wan2", hub, "192.0.2.2", 17, (51820, 51820));
        assert!(matches!(machine.send(knock.clone()), Fate::Delivered(_)), "the tunnel's own port");
        let other = Packet { port: 51821, ..knock.clone() };
        assert_eq!(machine.send(other), Fate::Dropped);
        let inner = Packet { iif: "wg-closed".into(), destination: "10.60.1.2".parse().unwrap(), ..knock };
        assert_eq!(machine.send(inner.clone()), Fate::Dropped, "a tunnel in the tunnel");
        for port in [22, 53, 80] {
            let inner = Packet { protocol: 6, port, ..inner.clone() };
            assert_eq!(machine.send(inner), Fate::Dropped);
        }
        let ping = Packet { protocol: 1, port: 0, source_port: 0, ..inner.clone() };
        assert!(matches!(machine.send(ping), Fate::Delivered(_)));
        let into = Packet { destination: "10.20.1.100".parse().unwrap(), ..inner };
        assert_eq!(machine.send(into), Fate::Dropped, "nobody outside begins a flow into the school");
    }
}

#[test]
fn what_takes_the_tunnel_is_told_the_tunnels_segment_size() {
    let net = common::compiled(&common::one_line_town());
    let index = index(&net, "closed");
    for chain in [format!("via_{}", index.0), format!("keep_{}", index.0)] {
        let rules: Vec<&str> =
            net.ruleset.chains[&chain].rules.iter().map(|rule| rule.text.as_str()).collect();
        assert!(rules.iter().any(|rule| rule.ends_with("maxseg size set 1380")), "{chain}: {rules:?}");
    }
    let direct = &net.ruleset.chains[&format!("keep_{}", self::index(&net, "direct").0)];
    assert!(!direct.rules.iter().any(|rule| rule.text.contains("maxseg")), "the line itself carries all");
}

#[test]
fn a_tunnel_that_nobody_answers_for_is_made_anew_and_one_configured_otherwise_is_put_right() {
    let net = common::compiled(&common::one_line_town());
    let name = net.tunnels.keys().next().unwrap().clone();
    let mut observed = crate::converges::in_force(&net);
    assert_eq!(verify(&observed, &net), []);
    observed.tunnels.get_mut(&name).unwrap().listen_port = 9;
    assert_eq!(verify(&observed, &net), [Discrepancy::Tunnel(name.clone())]);
    let changes = diff(&observed, None, &net).changes;
    assert!(
        matches!(&changes[..], [Change::TunnelSet { interface, .. }] if *interface == name),
        "{changes:?}"
    );
    observed.tunnels.clear();
    let changes = diff(&observed, None, &net).changes;
    let [Change::LinkUp(link), Change::TunnelSet { .. }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(link.name, name);
}

#[test]
fn a_tunnel_is_configured_before_it_is_addressed_and_gone_with_its_path() {
    let net = common::compiled(&common::one_line_town());
    let changes = diff(&Observed::default(), None, &net).changes;
    let first = |test: fn(&Change) -> bool| changes.iter().position(test).unwrap();
    let configured = first(|c| matches!(c, Change::TunnelSet { .. }));
    assert!(first(|c| matches!(c, Change::LinkUp(link) if link.kind == LinkKind::Tunnel)) < configured);
    assert!(configured < first(|c| matches!(c, Change::AddressAdd(_))));
    let observed = crate::converges::in_force(&net);
    let without = common::compiled(&common::town());
    let changes = diff(&observed, Some(&net), &without).changes;
    assert!(changes.iter().any(|c| matches!(c, Change::LinkRemove(name) if name.as_str() == "wg-closed")));
}
