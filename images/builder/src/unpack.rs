//! Debian packages into a tree: unpacked, never configured. None of their scripts is run.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::settings::Packages;
use crate::tree::{Node, Tree};

/// Adds what the package brings, as far as it is wanted. All that goes to /lib, /bin and /sbin lands below /usr.
pub(crate) fn package(tree: &mut Tree, name: &str, deb: &Path, packages: &Packages) -> Result<()> {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .context("dpkg-deb could not be started")?;
    let out = child.stdout.take().context("dpkg-deb has no output")?;
    let mut archive = tar::Archive::new(out);
    let mut paths = Vec::new();
    let mut hard_links = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_str().context("a path is not UTF-8")?.to_owned();
        let Some(path) = merged(&path) else { continue };
        paths.push(path.clone());
        let kind = entry.header().entry_type();
        // Folders are made for what is in them.
        if kind.is_dir() || !packages.takes(name, &path) {
            continue;
        }
        let target = entry.link_name()?.map(|target| target.to_string_lossy().into_owned());
        if kind.is_symlink() {
            tree.link(&path, &target.context("a link without a target")?);
        } else if kind.is_hard_link() {
            let target = merged(&target.context("a link without a target")?).context("a link to nowhere")?;
            hard_links.push((path, target));
        } else if kind.is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            // What a package would run as somebody else, nobody runs here.
            let mode = entry.header().mode()? & 0o755;
            tree.file(&path, mode, content);
        } else {
            bail!("{path}: neither file, folder nor link");
        }
    }
    for (path, target) in hard_links {
        let node = tree.get(&target).cloned().with_context(|| format!("{path}: a hard link to {target}"))?;
        ensure!(matches!(node, Node::File { .. }), "{path}: a hard link to no file");
        tree.put(&path, node);
    }
    ensure!(child.wait()?.success(), "dpkg-deb --fsys-tarfile {} failed", deb.display());
    let idle = packages.idle(name, &paths);
    ensure!(idle.is_empty(), "packages.toml: only.{name}: nothing matches {}", idle.join(", "));
    Ok(())
}

/// `./lib/x` → `usr/lib/x`; `None`: the top itself.
fn merged(path: &str) -> Option<String> {
    let path =
        path.strip_prefix("./").or_else(|| path.strip_prefix('/')).unwrap_or(path).trim_end_matches('/');
    if path.is_empty() || path == "." || path.split('/').any(|part| part == "..") {
        return None;
    }
    let moved = ["lib", "bin", "sbin"]
        .iter()
        .any(|top| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    Some(if moved { format!("usr/{path}") } else { path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_folders_lead_below_usr() {
        assert_eq!(merged("./lib/systemd/systemd").as_deref(), Some("usr/lib/systemd/systemd"));
        assert_eq!(merged("./libx/y").as_deref(), Some("libx/y"));
        assert_eq!(merged("./usr/sbin/nft").as_deref(), Some("usr/sbin/nft"));
        assert_eq!(merged("./"), None);
        assert_eq!(merged("./../etc/passwd"), None);
    }
}
