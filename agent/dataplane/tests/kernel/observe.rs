//! What is read back of the table, and how nft's refusals are told.

use anyhow::{Result, ensure};
use seimon_core::network_plan::{
    ApplyError, Change, ChangeSet, Dataplane, Key, KeyPart, KeyType, Map, Set, Sysctl, ValueType,
};
use seimon_dataplane::Linux;

use crate::{TABLE, apply, in_fresh_namespace, nft, sh};

#[test]
fn a_table_is_seen_with_chains_containers_and_elements() -> Result<()> {
    in_fresh_namespace("observe::a_table_is_seen_with_chains_containers_and_elements", || {
        let mut linux = Linux::open()?;
        ensure!(linux.observe(&[])?.table.is_none());
        sh("nft add table inet other; nft add chain inet other pre; nft add table ip seimon")?;
        ensure!(linux.observe(&[])?.table.is_none(), "neither another's table nor another family's is ours");
        apply(&mut linux, [nft(TABLE)])?;
        let table = linux.observe(&[])?.table.expect("a table");

        let names: Vec<_> = table.chains.keys().map(String::as_str).collect();
        ensure!(names == ["forwarded", "pre", "translate", "use_1_1", "use_1_2"], "{names:?}");
        ensure!(table.chains["pre"].base == "filter prerouting -150 accept");
        ensure!(table.chains["forwarded"].base == "filter forward 0 drop");
        ensure!(table.chains["translate"].base == "nat prerouting -100 accept");
        ensure!(table.chains["use_1_2"].base.is_empty());
        let tags = [Some("0000abcd".to_owned()), Some("0000abce".to_owned()), None];
        ensure!(table.chains["use_1_1"].rule_tags == tags);

        let set = |key: &[KeyType], interval, dynamic| {
            Set { key: key.to_vec(), interval, dynamic, elements: Default::default() }.fingerprint()
        };
        let map = |key: &[KeyType], value| {
            let (interval, runtime) = (false, true);
            Map { key: key.to_vec(), value, interval, runtime, elements: Default::default() }.fingerprint()
        };
        use KeyType::{Ether, Ifname, Ipv4, Ipv6, Mark, Port, Proto};
        let expected = [
            ("aff_1", set(&[Mark, Ether], false, Some(65535))),
            ("current", map(&[Mark], ValueType::Verdict)),
            ("nets", set(&[Ipv4], true, None)),
            ("nets6", set(&[Ipv6], true, None)),
            ("permits", set(&[Ifname, Ipv4, Proto, Port], false, None)),
            ("pins", map(&[Ifname, Ether], ValueType::Mark)),
            ("ports", set(&[Port], true, None)),
            ("ranges", set(&[Ifname, Ipv4, Port], true, None)),
            ("real4", map(&[Mark, Ipv4], ValueType::Ipv4)),
            ("real6", map(&[Mark, Ipv6], ValueType::Ipv6)),
        ];
        let expected = expected.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        ensure!(table.containers == expected, "{:#?}", table.containers);

        ensure!(!table.elements.contains_key("aff_1"), "what is learnt is not listed");
        let keys = |name: &str| table.elements[name].keys().cloned().collect::<Vec<_>>();
        let ports = [Key(vec![KeyPart::PortRange(10, 20)]), Key(vec![KeyPart::PortRange(65000, 65535)])];
        ensure!(keys("ports") == ports, "{:?}", keys("ports"));
        let nets: Vec<_> = keys("nets").into_iter().flat_map(|key| key.0).collect();
        let net = |text: &str| text.parse().map(KeyPart::Ipv4Prefix);
        let single = KeyPart::Ipv4("192.168.1.1".parse()?);
        ensure!(nets == [single, net("10.0.0.0/8")?, net("11.0.0.0/8")?], "{nets:?}");
        ensure!(keys("nets6").contains(&Key(vec![KeyPart::Ipv6Prefix("fd00::/8".parse()?)])));
        Ok(())
    })
}

#[test]
fn somebody_elses_rule_and_an_edited_rule_are_noticed() -> Result<()> {
    in_fresh_namespace("observe::somebody_elses_rule_and_an_edited_rule_are_noticed", || {
        let mut linux = Linux::open()?;
        apply(&mut linux, [nft(TABLE)])?;
        let before = linux.observe(&[])?.table.expect("a table");
        ensure!(linux.observe(&[])?.table.as_ref() == Some(&before), "looking twice is seeing the same");
        sh("nft insert rule inet seimon forwarded accept")?;
        let after = linux.observe(&[])?.table.expect("a table");
        ensure!(after.chains["forwarded"].rule_tags[0].is_none());
        ensure!(after.chains["forwarded"].digest != before.chains["forwarded"].digest);
        ensure!(after.chains["pre"] == before.chains["pre"]);
        // The same tag on another rule: only the digest tells.
        sh(
            "nft flush chain inet seimon use_1_2; nft add rule inet seimon use_1_2 drop comment \\\"s:0000abcf\\\"",
        )?;
        let edited = linux.observe(&[])?.table.expect("a table");
        ensure!(edited.chains["use_1_2"].rule_tags == before.chains["use_1_2"].rule_tags);
        ensure!(edited.chains["use_1_2"].digest != before.chains["use_1_2"].digest);
        Ok(())
    })
}

#[test]
fn a_refused_script_changes_nothing_and_is_told_briefly() -> Result<()> {
    in_fresh_namespace("observe::a_refused_script_changes_nothing_and_is_told_briefly", || {
        let mut linux = Linux::open()?;
        let long = "accept ".repeat(2000);
        let script = format!("table inet seimon {{ chain a {{ }} }}\nadd rule inet seimon a bogus {long}\n");
        match linux.apply(&ChangeSet { changes: vec![nft(&script)] }) {
            Err(ApplyError::NftRefused { message }) => ensure!(message.len() <= 404, "{}", message.len()),
            other => ensure!(false, "{other:?}"),
        }
        ensure!(linux.observe(&[])?.table.is_none());
        Ok(())
    })
}

#[test]
fn sysctls_are_set_read_back_and_confined() -> Result<()> {
    in_fresh_namespace("observe::sysctls_are_set_read_back_and_confined", || {
        let mut linux = Linux::open()?;
        let set = |path: &str, value: &str| {
            Change::SysctlSet(Sysctl { path: path.to_owned(), value: value.to_owned() })
        };
        apply(&mut linux, [set("net/ipv4/ip_forward", "1"), set("net/ipv4/fwmark_reflect", "1")])?;
        let names = ["net/ipv4/ip_forward", "net/ipv4/fwmark_reflect", "net/ipv4/no_such"].map(str::to_owned);
        let seen = linux.observe(&names)?.sysctls;
        ensure!(seen.len() == 2 && seen.values().all(|value| value == "1"), "{seen:?}");
        for path in ["../etc/hostname", "/etc/hostname", ""] {
            ensure!(linux.apply(&ChangeSet { changes: vec![set(path, "1")] }).is_err(), "{path}");
        }
        Ok(())
    })
}
