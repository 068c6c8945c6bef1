//! Elements: moves, replacement, affinity, speed.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use seimon_board::MacAddress;
use seimon_core::network_plan::{
    AffinityEntry, ApplyError, Change, ChangeSet, Dataplane, Element, Key, KeyPart, Mark, PathIndex, Value,
    Verdict, ZoneGroupIndex,
};
use seimon_dataplane::Linux;

use crate::{TABLE, apply, in_fresh_namespace, interface, nft, sh};

fn current(zone_group: u16, chain: &str) -> Element {
    Element {
        container: "current".into(),
        key: Key(vec![KeyPart::Mark(ZoneGroupIndex(zone_group).mark())]),
        value: Some(Value::Verdict(Verdict::Goto(chain.into()))),
    }
}

fn listed(set: &str) -> Result<String> {
    Ok(sh(&format!("nft list map inet seimon {set} || nft list set inet seimon {set}"))?
        .replace(['\n', '\t'], " "))
}

#[test]
fn moving_a_service_replaces_one_element() -> Result<()> {
    in_fresh_namespace("elements::moving_a_service_replaces_one_element", || {
        let mut linux = Linux::open()?;
        apply(&mut linux, [nft(TABLE)])?;
        let [old, new] = [current(1, "use_1_1"), current(1, "use_1_2")];
        apply(&mut linux, [Change::Elements { remove: vec![old], add: vec![new.clone()] }])?;
        ensure!(listed("current")?.contains("0x00000100 : goto use_1_2"), "{}", listed("current")?);
        // What is there under another value is replaced even when nobody said so; what is not there is no hindrance.
        let other = current(1, "use_1_1");
        let absent = current(77, "use_1_1");
        apply(&mut linux, [Change::Elements { remove: vec![absent.clone()], add: vec![other] }])?;
        ensure!(listed("current")?.contains("0x00000100 : goto use_1_1"), "{}", listed("current")?);
        apply(&mut linux, [Change::Elements { remove: vec![absent], add: vec![] }])?;
        apply(&mut linux, [Change::Elements { remove: vec![new], add: vec![] }])?;
        ensure!(!listed("current")?.contains("0x00000100"), "{}", listed("current")?);
        ensure!(listed("current")?.contains("0x00000200 : drop"), "others stay: {}", listed("current")?);
        Ok(())
    })
}

#[test]
fn a_transaction_that_cannot_be_whole_changes_nothing() -> Result<()> {
    in_fresh_namespace("elements::a_transaction_that_cannot_be_whole_changes_nothing", || {
        let mut linux = Linux::open()?;
        apply(&mut linux, [nft(TABLE)])?;
        let change = Change::Elements {
            remove: vec![current(1, "use_1_1")],
            add: vec![current(3, "use_1_2"), current(4, "no_such_chain")],
        };
        let refused = linux.apply(&ChangeSet { changes: vec![change] });
        ensure!(matches!(refused, Err(ApplyError::Kernel { .. })), "{refused:?}");
        ensure!(listed("current")?.contains("0x00000100 : goto use_1_1"), "{}", listed("current")?);
        ensure!(!listed("current")?.contains("0x00000300"), "{}", listed("current")?);
        Ok(())
    })
}

#[test]
fn every_kind_of_element_reads_back_as_written() -> Result<()> {
    in_fresh_namespace("elements::every_kind_of_element_reads_back_as_written", || {
        let mut linux = Linux::open()?;
        apply(&mut linux, [nft(TABLE)])?;
        let element = |container: &str, parts: Vec<KeyPart>, value| Element {
            container: container.into(),
            key: Key(parts),
            value,
        };
        let mac = KeyPart::Ether("02:00:5e:00:00:09".parse()?);
        let add = vec![
            current(5, "use_1_2"),
            element("current", vec![KeyPart::Mark(Mark(0x600))], Some(Value::Verdict(Verdict::Accept))),
            element(
                "current",
                vec![KeyPart::Mark(Mark(0x700))],
                Some(Value::Verdict(Verdict::Jump("use_1_2".into()))),
            ),
            element(
                "real4",
                vec![KeyPart::Mark(Mark(2)), KeyPart::Ipv4("100.127.0.6".parse()?)],
                Some(Value::Ipv4("198.51.100.7".parse()?)),
            ),
            element(
                "real6",
                vec![KeyPart::Mark(Mark(2)), KeyPart::Ipv6("fd00::6".parse()?)],
                Some(Value::Ipv6("2001:db8::7".parse()?)),
            ),
            element("pins", vec![KeyPart::Ifname(interface("z-b")), mac], Some(Value::Mark(Mark(9)))),
            element(
                "permits",
                vec![
                    KeyPart::Ifname(interface("z-b")),
                    KeyPart::Ipv4("100.127.0.6".parse()?),
                    KeyPart::Proto(17),
                    KeyPart::Port(443),
                ],
                None,
            ),
            element(
                "ranges",
                vec![
                    KeyPart::Ifname(interface("z-b")),
                    KeyPart::Ipv4Prefix("100.64.0.0/10".parse()?),
                    KeyPart::PortRange(5000, 5999),
                ],
                None,
            ),
            element("nets", vec![KeyPart::Ipv4Prefix("172.16.0.0/12".parse()?)], None),
        ];
        apply(&mut linux, [Change::Elements { remove: vec![], add: add.clone() }])?;
        let table = linux.observe(&[])?.table.expect("a table");
        for element @ Element { container, key, value } in &add {
            ensure!(table.elements[container].get(key) == Some(value), "{container} {key:?}");
            if !["ranges", "nets"].contains(&container.as_str()) {
                ensure!(linux.in_force(std::slice::from_ref(element))?, "{container} {key:?}");
            }
        }
        let another = Element { value: Some(Value::Verdict(Verdict::Drop)), ..add[0].clone() };
        ensure!(!linux.in_force(&[another])? && !linux.in_force(&[current(99, "use_1_2")])?);
        // nft, which wrote the others, means the same by them.
        ensure!(listed("ranges")?.contains(r#""z-b" . 100.64.0.0/10 . 5000-5999"#), "{}", listed("ranges")?);
        ensure!(listed("nets")?.contains("172.16.0.0/12"), "{}", listed("nets")?);
        ensure!(listed("permits")?.contains(r#""z-b" . 100.127.0.6 . udp . 443"#), "{}", listed("permits")?);
        apply(&mut linux, [Change::Elements { remove: add.clone(), add: vec![] }])?;
        let table = linux.observe(&[])?.table.expect("a table");
        for Element { container, key, .. } in &add {
            ensure!(!table.elements[container].contains_key(key), "{container} {key:?}");
        }
        Ok(())
    })
}

#[test]
fn affinity_is_refreshed_read_back_and_taken_away() -> Result<()> {
    in_fresh_namespace("elements::affinity_is_refreshed_read_back_and_taken_away", || {
        let mut linux = Linux::open()?;
        apply(&mut linux, [nft(TABLE)])?;
        let entry = |last: u8, minutes: u64| AffinityEntry {
            path: PathIndex(1),
            zone_group: ZoneGroupIndex(3),
            client: MacAddress([2, 0, 0x5e, 0, 0, last]),
            remaining: Duration::from_secs(60 * minutes),
        };
        apply(&mut linux, [Change::Affinity { add: vec![entry(1, 5), entry(2, 5)], remove: vec![] }])?;
        apply(
            &mut linux,
            [Change::Affinity { add: vec![entry(1, 20), entry(3, 7)], remove: vec![entry(2, 0)] }],
        )?;
        let seen = linux.affinity(&[PathIndex(1), PathIndex(9)])?;
        let minutes: Vec<_> =
            seen.iter().map(|e| (e.client.0[5], e.remaining.as_secs().div_ceil(60))).collect();
        ensure!(minutes == [(1, 20), (3, 7)], "{seen:?}");
        ensure!(seen.iter().all(|e| e.zone_group == ZoneGroupIndex(3) && e.path == PathIndex(1)));
        Ok(())
    })
}

/// A learnt entry is the same to us as one that we put in.
#[test]
fn what_a_rule_learnt_is_read_and_refreshed() -> Result<()> {
    in_fresh_namespace("elements::what_a_rule_learnt_is_read_and_refreshed", || {
        sh("ip link add p1 type veth peer x1; ip link set x1 address 02:00:5e:00:00:21; ip link set p1 up; ip link set x1 up
            sysctl -qw net.ipv6.conf.x1.disable_ipv6=1")?;
        let mut linux = Linux::open()?;
        let learning = r#"table inet seimon {
            set aff_3 { type mark . ether_addr; size 65535; flags dynamic,timeout; }
            chain pre {
                type filter hook prerouting priority -150; policy accept;
                iifname "p1" ct mark set ct mark & 0xfff00000 | 0x203
                iifname "p1" update @aff_3 { ct mark & 0xfff00 . ether saddr timeout 30m }
            }
        }"#;
        apply(&mut linux, [nft(learning)])?;
        // A frame from x1 with an IPv4 packet in it: the kernel sends one for a neighbour that it believes to know.
        sh(
            "ip addr add 10.0.0.1/24 dev x1; ip neigh add 10.0.0.9 lladdr $(ip -o link show p1 | grep -o 'ether [0-9a-f:]*' | cut -d' ' -f2) dev x1",
        )?;
        let client = UdpSocket::bind("10.0.0.1:0")?;
        client.send_to(b"hello", "10.0.0.9:9")?;
        let seen = linux.affinity(&[PathIndex(3)])?;
        ensure!(seen.len() == 1, "{seen:?}");
        ensure!(seen[0].client == "02:00:5e:00:00:21".parse()? && seen[0].zone_group == ZoneGroupIndex(2));
        ensure!(seen[0].remaining > Duration::from_secs(29 * 60), "{seen:?}");
        let shorter = AffinityEntry { remaining: Duration::from_secs(60), ..seen[0].clone() };
        apply(&mut linux, [Change::Affinity { add: vec![shorter], remove: vec![] }])?;
        let seen = linux.affinity(&[PathIndex(3)])?;
        ensure!(seen.len() == 1 && seen[0].remaining <= Duration::from_secs(60), "{seen:?}");
        client.send_to(b"hello again", "10.0.0.9:9")?;
        let seen = linux.affinity(&[PathIndex(3)])?;
        ensure!(seen[0].remaining > Duration::from_secs(60), "the rule goes on refreshing it: {seen:?}");
        Ok(())
    })
}

/// The value under the key that is moved.
fn listed_value(linux: &mut Linux) -> Result<Option<Value>> {
    let key = Key(vec![KeyPart::Mark(Mark(3)), KeyPart::Ipv4(50.into())]);
    Ok(linux.observe(&[])?.table.expect("a table").elements["real4"].get(&key).cloned().flatten())
}

/// Prints the time of one move. Meant to be read; fails only when a move depends on the size of the map.
#[test]
fn a_move_takes_no_longer_in_a_big_map() -> Result<()> {
    in_fresh_namespace("elements::a_move_takes_no_longer_in_a_big_map", || {
        let mut linux = Linux::open()?;
        apply(&mut linux, [nft(TABLE)])?;
        let mut medians = Vec::new();
        for size in [100u32, 100_000] {
            let fill = (1..=size).map(|i| Element {
                container: "real4".into(),
                key: Key(vec![KeyPart::Mark(Mark(3)), KeyPart::Ipv4(i.into())]),
                value: Some(Value::Ipv4(i.into())),
            });
            apply(&mut linux, [Change::Elements { remove: vec![], add: fill.collect() }])?;
            let place = |value: u32| Element {
                container: "real4".into(),
                key: Key(vec![KeyPart::Mark(Mark(3)), KeyPart::Ipv4(50.into())]),
                value: Some(Value::Ipv4(value.into())),
            };
            let mut times = Vec::new();
            for round in 0..501u32 {
                let changes = ChangeSet {
                    changes: vec![Change::Elements { remove: vec![place(0)], add: vec![place(round)] }],
                };
                let start = Instant::now();
                linux.apply(&changes)?;
                times.push(start.elapsed());
            }
            ensure!(listed_value(&mut linux)? == Some(Value::Ipv4(500.into())), "every move was one");
            times.sort();
            println!("one move among {size} elements: median {:?}, 99% {:?}", times[250], times[495]);
            medians.push(times[250]);
            let start = Instant::now();
            let found = linux.observe(&[])?.table.expect("a table").elements["real4"].len();
            println!("a whole observation with {found} elements: {:?}", start.elapsed());
        }
        ensure!(medians[1] < medians[0] * 5, "{medians:?}");
        Ok(())
    })
}
