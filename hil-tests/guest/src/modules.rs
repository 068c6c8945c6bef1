//! Kernel modules in the order in which they can be loaded. Debian's package has no `modules.dep` (it is made at
//! installation): what a module needs is read from the module itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// In this order: without `crc32c_generic` every nft module fails, for nobody here obeys soft dependencies.
const WANTED: [&str; 59] = [
    "crc32c_generic",
    "virtio_net",
    "virtio_rng",
    "nf_tables",
    "nft_ct",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_redir",
    "nft_reject",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "nft_reject_netdev",
    "nft_limit",
    "nft_log",
    "nf_log_syslog",
    "nft_fib",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_fib_inet",
    "nft_hash",
    "nft_numgen",
    "nft_quota",
    "nft_objref",
    "nft_connlimit",
    "nft_tproxy",
    "nft_socket",
    "nft_synproxy",
    "nf_flow_table",
    "nf_flow_table_inet",
    "nft_flow_offload",
    "nf_conntrack_netlink",
    "nft_dup_netdev",
    "nft_fwd_netdev",
    "wireguard",
    "8021q",
    "bridge",
    "nft_meta_bridge",
    "veth",
    "macvlan",
    "dummy",
    "tun",
    "af_packet",
    "sch_netem",
    "sch_tbf",
    "sch_htb",
    "sch_ingress",
    "act_mirred",
    "cls_matchall",
    "cls_flower",
    "esp4",
    "esp6",
    "xfrm_user",
    "pktgen",
    "uinput",
    "evdev",
    "ledtrig-timer",
    "led-class",
];

/// Files to be loaded, first things first. A module that is built into the kernel has none.
pub(crate) fn in_order(modules: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = BTreeMap::new();
    collect(modules, &mut files)?;
    ensure!(!files.is_empty(), "no kernel modules in {}", modules.display());
    let mut order = Order { files: &files, done: BTreeSet::new(), list: Vec::new() };
    for name in WANTED {
        order.add(name)?;
    }
    Ok(order.list)
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(name.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

struct Order<'a> {
    files: &'a BTreeMap<String, PathBuf>,
    done: BTreeSet<String>,
    list: Vec<(String, Vec<u8>)>,
}

impl Order<'_> {
    fn add(&mut self, name: &str) -> Result<()> {
        let name = name.replace('-', "_");
        let Some(file) = self.files.get(&name) else { return Ok(()) };
        if !self.done.insert(name.clone()) {
            return Ok(());
        }
        let bytes = plain(file)?;
        for needed in needs(&bytes) {
            self.add(&needed)?;
        }
        self.list.push((name, bytes));
        Ok(())
    }
}

fn plain(file: &Path) -> Result<Vec<u8>> {
    let packed = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let program = match packed {
        "xz" => "xz",
        "zst" => "zstd",
        _ => return std::fs::read(file).with_context(|| file.display().to_string()),
    };
    let output =
        Command::new(program).arg("-dc").arg(file).output().with_context(|| format!("start {program}"))?;
    ensure!(output.status.success(), "{program} -dc {} failed", file.display());
    Ok(output.stdout)
}

/// `depends=a,b` in the section `.modinfo`.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = &module[at + KEY.len()..];
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&value[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_read_from_it() {
        assert_eq!(
            needs(b"ELF\0license=GPL\0depends=nf_tables,nf_conntrack\0name=x\0"),
            ["nf_tables", "nf_conntrack"]
        );
        assert!(needs(b"ELF\0depends=\0").is_empty());
        assert!(needs(b"ELF").is_empty());
    }
}
