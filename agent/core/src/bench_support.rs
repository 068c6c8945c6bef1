//! Plans of any size, and other rulesets to compare ours with. For benches and tests only.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use seimon_board::InterfaceName;

use crate::network_plan::{KeyPart, Rule, Ruleset, Value, Verdict};

/// A site plan (TOML, for the board `lab-namespace`) in which zone `affairs` (port LAN1, 10.20.1.1/24) has `permits` permits to
/// as many services `s<i>.bench.example`, tcp/443, all of group `affairs`, over the paths `closed` (WAN1, 10.10.0.1/30, next hop
/// 10.10.0.2) and `direct` (WAN2, 192.0.2.2/30, next hop 192.0.2.1), both with masquerading.
pub fn plan_text(permits: usize) -> String {
    let mut text = String::from(HEAD);
    for i in 0..permits {
        let _ = write!(
            text,
            "[services.s{i}]\ngroup = \"affairs\"\nnames = [\"s{i}.bench.example\"]\nports = [\"tcp/443\"]\n"
        );
    }
    for i in 0..permits {
        let _ = write!(
            text,
            "[[permits]]\nfrom = \"affairs\"\nto = \"service:s{i}\"\nwho = \"bench\"\nwhy = \"bench\"\nuntil = \"2099-03-31\"\n"
        );
    }
    text
}

const HEAD: &str = r#"version = 1
[site]
id = "bench"
name = "bench"
board = "lab-namespace"
timezone = "Asia/Tokyo"
[inside]
ipv4 = "100.127.0.0/16"
ipv6 = "fd53:6569:6d6f::/64"
[lines.carrier]
port = "WAN1"
ipv4 = "10.10.0.1/30"
gateway4 = "10.10.0.2"
[lines.internet]
port = "WAN2"
ipv4 = "192.0.2.2/30"
gateway4 = "192.0.2.1"
ipv6 = "2001:db8:2::2/64"
gateway6 = "2001:db8:2::1"
[paths.closed]
line = "carrier"
kind = "plain"
ipv6 = "none"
nat4 = "masquerade"
resolvers = ["10.10.0.2"]
[paths.direct]
line = "internet"
kind = "plain"
ipv6 = "nat66"
resolvers = ["203.0.113.53"]
[zones.affairs]
role = "affairs"
ports = ["LAN1"]
ipv4 = "10.20.1.1/24"
ipv6 = "fd20:0:0:1::1/64"
internet = "listed"
[echo]
ipv4 = "203.0.113.7"
port = 7007
[gateway]
paths = ["direct", "closed"]
[[migration.routes]]
zone = "affairs"
group = "affairs"
paths = ["closed", "direct"]
"#;

/// The same policy, walked instead of looked up: every element of `permit4` and `permit6` becomes a rule, and so does every
/// element of `real4` and `real6`, in the order of their keys. Everything else stays.
pub fn linear(ruleset: &Ruleset) -> Ruleset {
    let mut linear = ruleset.clone();
    for (permits, ip) in [("permit4", "ip"), ("permit6", "ip6")] {
        let rules: Vec<(InterfaceName, Rule)> = ruleset
            .maps
            .get(permits)
            .map(|map| map.elements.iter())
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| {
                let [KeyPart::Ifname(from), address, protocol, port] = key.0.as_slice() else {
                    return None;
                };
                let text = format!(
                    "iifname \"{from}\" {ip} daddr {address} meta l4proto {protocol} th dport {port} {value}"
                );
                Some((from.clone(), Rule { text, because: "one rule a permit".into() }))
            })
            .collect();
        let lookup = format!("@{permits}");
        for chain in linear.chains.values_mut() {
            splice(&mut chain.rules, &lookup, || rules.iter().map(|(_, rule)| rule.clone()).collect());
        }
        linear.maps.remove(permits);
    }
    for (real, ip) in [("real4", "ip"), ("real6", "ip6")] {
        let rules: Vec<Rule> = ruleset
            .maps
            .get(real)
            .map(|map| map.elements.iter())
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| {
                let [path, address] = key.0.as_slice() else { return None };
                let text = format!("ct mark & 0xff == {path} {ip} daddr {address} dnat {ip} to {value}");
                Some(Rule { text, because: "one rule a name and path".into() })
            })
            .collect();
        let lookup = format!("@{real}");
        for chain in linear.chains.values_mut() {
            splice(&mut chain.rules, &lookup, || rules.clone());
        }
        linear.maps.remove(real);
    }
    linear
}

/// Puts others in the place of the rule that uses the lookup.
fn splice(rules: &mut Vec<Rule>, lookup: &str, others: impl Fn() -> Vec<Rule>) {
    if let Some(at) = rules.iter().position(|rule| rule.text.split(' ').any(|word| word == lookup)) {
        rules.splice(at..=at, others());
    }
}

/// The least that a gateway with the same NAT and conntrack can do, as nft text (`table inet bare`): what is established passes,
/// what begins in `zone` passes to `uplinks`, sources are masqueraded, and destinations translated by a map.
pub fn bare(
    zone: &InterfaceName,
    uplinks: &[InterfaceName],
    destinations: &[(Ipv4Addr, Ipv4Addr)],
) -> String {
    let uplinks = uplinks.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let pairs = destinations.iter().map(|(inside, real)| format!("{inside} : {real}")).collect::<Vec<_>>();
    let elements =
        if pairs.is_empty() { String::new() } else { format!("elements = {{ {} }}", pairs.join(", ")) };
    format!(
        "table inet bare {{
	map real {{ type ipv4_addr : ipv4_addr; {elements}
	}}
	chain to_real {{
		type nat hook prerouting priority -100; policy accept;
		dnat ip to ip daddr map @real
	}}
	chain between {{
		type filter hook forward priority 0; policy drop;
		ct state established,related accept
		iifname \"{zone}\" oifname {{ {uplinks} }} accept
	}}
	chain leaving {{
		type nat hook postrouting priority 100; policy accept;
		oifname {{ {uplinks} }} masquerade
	}}
}}
"
    )
}

/// Number of permits that a ruleset looks up by hash.
pub fn permit_count(ruleset: &Ruleset) -> usize {
    let leaves =
        |value: &Value| !matches!(value, Value::Verdict(Verdict::Goto(chain)) if chain == "as_local");
    let of =
        |name: &str| ruleset.maps.get(name).map_or(0, |m| m.elements.values().filter(|v| leaves(v)).count());
    of("permit4") + of("permit6")
}
