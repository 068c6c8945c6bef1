//! The Linux data plane on the real kernel, each test in a network namespace of its own.
//!
//! A test starts itself again under `unshare --net`; where that is not permitted it says `skipped`.

mod elements;
mod flows;
mod observe;
mod plan;
mod routing;
mod watch;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use seimon_board::InterfaceName;
use seimon_core::network_plan::{Change, ChangeSet, Dataplane};
use seimon_dataplane::Linux;

const INSIDE: &str = "SEIMON_TEST_INSIDE";

/// Runs `body` in a fresh network namespace. `name` is the test's full name.
fn in_fresh_namespace(name: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        sh("ip link set lo up")?;
        return body();
    }
    let permitted = Command::new("unshare").args(["--net", "nft", "list", "ruleset"]).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: network namespaces or nft are not to be had here");
        return Ok(());
    }
    let output = Command::new("unshare")
        .args(["--net", "--"])
        .arg(std::env::current_exe()?)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .output()?;
    let words =
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{words}");
    ensure!(output.status.success(), "inside the namespace: {words}");
    ensure!(words.contains("1 passed"), "no test is called {name}");
    Ok(())
}

fn sh(command: &str) -> Result<String> {
    let output = Command::new("sh").args(["-ec", command]).output().context("sh")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command}: {words}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn nft(script: &str) -> Change {
    Change::Nft { script: script.to_owned() }
}

fn apply(linux: &mut Linux, changes: impl IntoIterator<Item = Change>) -> Result<()> {
    linux.apply(&ChangeSet { changes: changes.into_iter().collect() })?;
    Ok(())
}

fn interface(name: &str) -> InterfaceName {
    InterfaceName::new(name).expect("a good name")
}

/// A table with every kind of set and map.
const TABLE: &str = r#"
table inet seimon {
	set aff_1 { type mark . ether_addr; size 65535; flags dynamic,timeout; timeout 30m; }
	set permits { type ifname . ipv4_addr . inet_proto . inet_service; elements = { "br0" . 10.0.0.1 . 6 . 443 }; }
	set ranges { type ifname . ipv4_addr . inet_service; flags interval; elements = { "br0" . 10.0.0.0/8 . 100-200, "br1" . 10.0.0.1 . 80 }; }
	set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 11.0.0.0/8, 192.168.1.1 }; }
	set nets6 { type ipv6_addr; flags interval; elements = { fd00::/8, 2001:db8::1 }; }
	set ports { type inet_service; flags interval; elements = { 10-20, 65000-65535 }; }
	map current { type mark : verdict; elements = { 0x100 : goto use_1_1, 0x200 : drop } }
	map real4 { type mark . ipv4_addr : ipv4_addr; elements = { 0x1 . 100.127.0.5 : 93.184.216.34 } }
	map real6 { type mark . ipv6_addr : ipv6_addr; elements = { 0x1 . fd00::1 : 2001:db8::1 } }
	map pins { type ifname . ether_addr : mark; elements = { "z-a" . 02:00:5e:00:00:01 : 0x7 } }
	chain use_1_1 {
		ct mark set ct mark & 0xfff00 | 0x1 comment "s:0000abcd"
		update @aff_1 { ct mark & 0xfff00 . ether saddr timeout 30m } comment "s:0000abce"
		counter accept
	}
	chain use_1_2 {
		accept comment "s:0000abcf"
	}
	chain pre {
		type filter hook prerouting priority -150; policy accept;
		ct mark & 0xfff00 vmap @current comment "s:00000001"
		ct mark & 0xff vmap { 0x1 : accept, 0x2 : drop } comment "s:00000002"
	}
	chain translate {
		type nat hook prerouting priority -100; policy accept;
		dnat ip to ct mark & 0xff . ip daddr map @real4 comment "s:00000003"
	}
	chain forwarded {
		type filter hook forward priority 0; policy drop;
		tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu comment "s:00000004"
		reject with icmpx admin-prohibited comment "s:00000005"
	}
}
"#;
