//! The kernel in memory, and the one that fails on demand.

use std::time::Duration;

use anyhow::{Result, ensure};
use seimon_board::InterfaceName;
use seimon_core::network_plan::{
    AffinityEntry, ApplyError, Change, ChangeSet, Dataplane, Element, Key, KeyPart, Mark, PathIndex, Sysctl,
    Value, Verdict, ZoneGroupIndex,
};
use seimon_dataplane::{Fake, Faulty, Moment};

const TABLE: &str = r#"
add table inet seimon
delete table inet seimon
table inet seimon {
	set aff_1 { type mark . ether_addr; flags dynamic, timeout; size 65535;
	}
	set ranges { type ifname . ipv4_addr . inet_service; flags interval;
		elements = {
			"br0" . 10.0.0.0/8 . 100-200,
			"br1" . 10.0.0.1/32 . 80
		}
	}
	map current { type mark : verdict;
		elements = {
			0x100 : goto use_1_1
		}
	}
	chain pre {
		type filter hook prerouting priority -150; policy accept;
		ct mark & 0xfff00 vmap @current comment "s:00000001"
	}
	chain use_1_1 {
		accept comment "s:00000002"
	}
}
"#;

fn nft(script: &str) -> ChangeSet {
    ChangeSet { changes: vec![Change::Nft { script: script.to_owned() }] }
}

fn fake() -> Result<Fake> {
    let mut fake = Fake::new([InterfaceName::new("p1")?]);
    fake.apply(&nft(TABLE))?;
    Ok(fake)
}

fn key(zone_group: u16) -> Key {
    Key(vec![KeyPart::Mark(ZoneGroupIndex(zone_group).mark())])
}

fn goto(chain: &str) -> Option<Value> {
    Some(Value::Verdict(Verdict::Goto(chain.into())))
}

#[test]
fn the_fake_reads_our_transactions() -> Result<()> {
    let mut fake = fake()?;
    let table = fake.observe(&[])?.table.expect("a table");
    ensure!(table.chains["pre"].base == "filter prerouting -150 accept");
    ensure!(table.chains["pre"].rule_tags == [Some("00000001".to_owned())]);
    ensure!(table.containers["aff_1"] == "set mark . ether_addr dynamic 65535");
    ensure!(table.containers["current"] == "map mark : verdict");
    ensure!(table.containers["ranges"] == "set ifname . ipv4_addr . inet_service interval");
    ensure!(!table.elements.contains_key("aff_1"));
    ensure!(table.elements["current"].get(&key(1)) == Some(&goto("use_1_1")));
    let single = Key(vec![
        KeyPart::Ifname(InterfaceName::new("br1")?),
        KeyPart::Ipv4("10.0.0.1".parse()?),
        KeyPart::Port(80),
    ]);
    ensure!(table.elements["ranges"].contains_key(&single), "{:?}", table.elements["ranges"]);

    fake.apply(&nft(
        "flush chain inet seimon pre\ndelete element inet seimon current { 0x100 }\ndelete chain inet seimon use_1_1\n\
         table inet seimon {\n\tchain pre {\n\t\taccept comment \"s:00000009\"\n\t}\n}\nadd element inet seimon current { 0x200 : drop }\n",
    ))?;
    let table = fake.observe(&[])?.table.expect("a table");
    ensure!(table.chains["pre"].rule_tags == [Some("00000009".to_owned())]);
    ensure!(!table.chains.contains_key("use_1_1") && table.elements["current"].len() == 1);
    Ok(())
}

#[test]
fn a_transaction_that_the_kernel_would_refuse_changes_nothing() -> Result<()> {
    let mut fake = fake()?;
    let before = fake.observe(&[])?;
    for script in [
        "delete chain inet seimon use_1_1\n",
        "add element inet seimon current { 0x300 : goto nowhere }\n",
        "add element inet seimon current { 0x100 : drop }\n",
        "flush chain inet seimon pre\nflush chain inet seimon nowhere\n",
        "delete map inet seimon current\n",
        "conquer the world\n",
    ] {
        let refused = fake.apply(&nft(script));
        ensure!(matches!(refused, Err(ApplyError::NftRefused { .. })), "{script}: {refused:?}");
        ensure!(fake.observe(&[])? == before, "{script}");
    }
    Ok(())
}

#[test]
fn clones_share_one_kernel() -> Result<()> {
    let mut fake = fake()?;
    let seen = fake.clone();
    let element = |chain: &str| Element { container: "current".into(), key: key(1), value: goto(chain) };
    let move_to = |chain: &str| ChangeSet {
        changes: vec![Change::Elements { remove: vec![element(chain)], add: vec![element(chain)] }],
    };
    ensure!(fake.apply(&move_to("nowhere")).is_err());
    ensure!(seen.lookup("current", &key(1)) == Some(goto("use_1_1")));
    fake.apply(&move_to("pre"))?;
    ensure!(seen.lookup("current", &key(1)) == Some(goto("pre")));
    ensure!(seen.lookup("current", &Key(vec![KeyPart::Mark(Mark(9))])).is_none());
    ensure!(seen.with(|kernel| kernel.log.len()) == 2);
    Ok(())
}

#[test]
fn affinity_is_replaced_not_doubled() -> Result<()> {
    let mut fake = fake()?;
    let entry = |path, minutes: u64| AffinityEntry {
        path: PathIndex(path),
        zone_group: ZoneGroupIndex(1),
        client: "02:00:5e:00:00:01".parse().expect("mac"),
        remaining: Duration::from_secs(60 * minutes),
    };
    let add = |entry| ChangeSet { changes: vec![Change::Affinity { add: vec![entry], remove: vec![] }] };
    fake.apply(&add(entry(1, 5)))?;
    fake.apply(&add(entry(1, 9)))?;
    ensure!(fake.affinity(&[PathIndex(1)])? == [entry(1, 9)]);
    ensure!(fake.apply(&add(entry(2, 5))).is_err(), "there is no set for path 2");
    Ok(())
}

#[test]
fn a_fault_comes_when_it_was_asked_for_and_once() -> Result<()> {
    let set = |value: &str| Change::SysctlSet(Sysctl { path: "net/x".into(), value: value.into() });
    let two = ChangeSet { changes: vec![set("1"), set("2")] };
    let value = |faulty: &Faulty<Fake>| faulty.inner().with(|kernel| kernel.sysctls.get("net/x").cloned());

    let mut faulty = Faulty::new(Fake::default());
    faulty.fail_in(2, Moment::Before);
    ensure!(faulty.apply(&two).is_err() && value(&faulty).as_deref() == Some("1"));
    faulty.apply(&two)?;
    ensure!(faulty.operations() == 4);

    faulty.fail_in(1, Moment::After);
    ensure!(
        faulty.apply(&two).is_err() && value(&faulty).as_deref() == Some("1"),
        "done, but said to have failed"
    );

    faulty.corrupt_in(1, |observed| observed.sysctls.clear());
    let names = ["net/x".to_owned()];
    ensure!(faulty.observe(&names)?.sysctls.is_empty());
    ensure!(!faulty.observe(&names)?.sysctls.is_empty());
    Ok(())
}
