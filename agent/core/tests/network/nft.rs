//! The real nft in a network namespace of its own.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::OnceLock;

pub(crate) const SKIPPED: &str = "skipped: no nft, or no right to make a network namespace";

/// A script without what the kernel here may lack.
fn as_here(script: &str) -> String {
    static FLOWTABLES: OnceLock<bool> = OnceLock::new();
    let has_flowtables = FLOWTABLES.get_or_init(|| {
        let trial = "table inet t { flowtable fast { hook ingress priority 0; counter; }; }";
        let tried = Command::new("unshare")
            .args(["-n", "nft", trial])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .output();
        tried.is_ok_and(|output| output.status.success())
    });
    let speaks = |line: &&str| !line.contains("flowtable ") && !line.contains(" flow add @");
    if *has_flowtables {
        script.to_owned()
    } else {
        script.lines().filter(speaks).flat_map(|line| [line, "\n"]).collect()
    }
}

/// Runs each script as one transaction, in order, and returns the table that is then there. `Err`: what nft said.
/// `None`: cannot be tried here.
pub(crate) fn transactions(scripts: &[&str]) -> Option<Result<String, String>> {
    let folder = tempfile::tempdir().ok()?;
    let mut command = String::from("set -e\n");
    for (i, script) in scripts.iter().enumerate() {
        std::fs::write(folder.path().join(i.to_string()), as_here(script)).ok()?;
        command.push_str(&format!("nft -f {i}\n"));
    }
    command.push_str("nft list table inet seimon\n");
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", &command])
        .current_dir(folder.path())
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .ok()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if error.contains("unshare") || error.contains("not permitted") || error.contains("not found") {
        return None;
    }
    if output.status.success() {
        Some(Ok(String::from_utf8_lossy(&output.stdout).into_owned()))
    } else {
        Some(Err(error))
    }
}

/// A listing by block (`chain pre`, `map current`…), without the order of elements.
pub(crate) fn blocks(listing: &str) -> BTreeMap<String, Vec<String>> {
    let mut blocks = BTreeMap::new();
    let mut name = String::new();
    for line in listing.lines() {
        let line = line.trim();
        let head = ["chain ", "set ", "map ", "flowtable "].iter().any(|word| line.starts_with(word))
            && line.ends_with('{');
        if head {
            name = line.trim_end_matches(" {").to_owned();
            blocks.insert(name.clone(), Vec::new());
        } else if line.is_empty() || line == "}" {
            continue;
        } else if let Some(block) = blocks.get_mut(&name) {
            if name.starts_with("chain") {
                block.push(line.to_owned());
            } else {
                block.extend(
                    line.split(',')
                        .map(|part| part.trim_matches([' ', '{', '}']).replace("elements = { ", "")),
                );
            }
        }
    }
    for (name, block) in &mut blocks {
        if !name.starts_with("chain") {
            block.retain(|part| !part.is_empty());
            block.sort();
        }
    }
    blocks
}
