//! What is in an image, written beside it, and how two images differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use seimon_boot::Digest;
use serde::{Deserialize, Serialize};

use crate::settings::Lock;
use crate::tree::{Node, Tree};

/// `contents.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub(crate) board: String,
    pub(crate) version: String,
    pub(crate) epoch: u32,
    pub(crate) kernel: String,
    /// Debian packages and crates, with their versions. A crate may be there twice.
    pub(crate) packages: BTreeMap<String, BTreeSet<String>>,
    pub(crate) files: BTreeMap<String, About>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Octal, with the kind: `100644`, `040755`, `120777`.
    pub(crate) mode: String,
    pub(crate) size: u64,
    /// Of a file's bytes, or a link's target.
    pub(crate) sha256: String,
}

impl Contents {
    pub(crate) fn of(tree: &Tree, lock: &Lock, crates: &[crate::sbom::Crate]) -> Self {
        let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for package in &lock.package {
            packages.entry(package.name.clone()).or_default().insert(package.version.clone());
        }
        for of in crates {
            packages.entry(format!("crate {}", of.name)).or_default().insert(of.version.clone());
        }
        let about = |node: &Node| match node {
            Node::Folder { mode } => About { mode: format!("04{mode:04o}"), size: 0, sha256: String::new() },
            Node::File { mode, content } => About {
                mode: format!("10{mode:04o}"),
                size: content.len() as u64,
                sha256: Digest::of(content).to_string(),
            },
            Node::Link { target } => About {
                mode: "120777".to_owned(),
                size: target.len() as u64,
                sha256: Digest::of(target.as_bytes()).to_string(),
            },
        };
        let files = tree.iter().map(|(path, node)| (path.to_owned(), about(node))).collect();
        Self { packages, files, ..Self::default() }
    }

    /// Of the folder that an image was written to, or of the image's file in it.
    pub(crate) fn read(at: &Path) -> Result<Self> {
        let folder = if at.is_dir() { at } else { at.parent().context("no folder")? };
        let file = folder.join("contents.json");
        let text = fs::read_to_string(&file).with_context(|| {
            format!("{}: an image's folder, as `cargo xtask image` writes it, has this file", file.display())
        })?;
        serde_json::from_str(&text).with_context(|| file.display().to_string())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    pub(crate) packages: Changes<BTreeSet<String>>,
    pub(crate) files: Changes<About>,
    /// Bytes of all files: before, after.
    pub(crate) size: (u64, u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Changes<T> {
    pub(crate) added: BTreeMap<String, T>,
    pub(crate) removed: BTreeMap<String, T>,
    pub(crate) changed: BTreeMap<String, (T, T)>,
}

impl<T> Default for Changes<T> {
    fn default() -> Self {
        Self { added: BTreeMap::new(), removed: BTreeMap::new(), changed: BTreeMap::new() }
    }
}

impl<T: Clone + PartialEq> Changes<T> {
    fn between(old: &BTreeMap<String, T>, new: &BTreeMap<String, T>) -> Self {
        let only = |of: &BTreeMap<String, T>, other: &BTreeMap<String, T>| {
            of.iter()
                .filter(|(key, _)| !other.contains_key(*key))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect()
        };
        let changed = old
            .iter()
            .filter_map(|(key, before)| {
                let after = new.get(key).filter(|after| *after != before)?;
                Some((key.clone(), (before.clone(), after.clone())))
            })
            .collect();
        Self { added: only(new, old), removed: only(old, new), changed }
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl Difference {
    pub(crate) fn between(old: &Contents, new: &Contents) -> Self {
        let size = |of: &Contents| of.files.values().map(|about| about.size).sum();
        Self {
            packages: Changes::between(&old.packages, &new.packages),
            files: Changes::between(&old.files, &new.files),
            size: (size(old), size(new)),
        }
    }

    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Self { packages, files, size } = self;
        let versions = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
        let mut lines = Vec::new();
        if packages.is_empty() && files.is_empty() {
            lines.push("no difference".to_owned());
        }
        lines.extend(packages.added.iter().map(|(name, v)| format!("+ {name} {}", versions(v))));
        lines.extend(packages.removed.iter().map(|(name, v)| format!("- {name} {}", versions(v))));
        lines.extend(
            packages.changed.iter().map(|(n, (a, b))| format!("~ {n} {} → {}", versions(a), versions(b))),
        );
        lines.extend(files.added.iter().map(|(path, about)| format!("+ /{path} ({} bytes)", about.size)));
        lines.extend(files.removed.iter().map(|(path, about)| format!("- /{path} ({} bytes)", about.size)));
        for (path, (before, after)) in &files.changed {
            let mode = if before.mode == after.mode {
                String::new()
            } else {
                format!(", {} → {}", before.mode, after.mode)
            };
            lines.push(format!("~ /{path} ({} → {} bytes{mode})", before.size, after.size));
        }
        lines.push(format!("all files: {} → {} bytes", size.0, size.1));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(files: &[(&str, &str)], packages: &[(&str, &str)]) -> Contents {
        let mut tree = Tree::default();
        for (path, content) in files {
            tree.file(path, 0o644, *content);
        }
        let packages =
            packages.iter().map(|(n, v)| ((*n).to_owned(), BTreeSet::from([(*v).to_owned()]))).collect();
        Contents { packages, ..Contents::of(&tree, &Lock { epoch: 0, package: vec![] }, &[]) }
    }

    #[test]
    fn what_came_went_and_changed_is_told() {
        let old = contents(&[("a", "1"), ("b", "1")], &[("nft", "1"), ("gone", "1")]);
        let new = contents(&[("a", "22"), ("c", "1")], &[("nft", "2"), ("come", "1")]);
        let difference = Difference::between(&old, &new);
        let lines = difference.lines();
        for line in
            ["+ come 1", "- gone 1", "~ nft 1 → 2", "+ /c (1 bytes)", "- /b (1 bytes)", "~ /a (1 → 2 bytes)"]
        {
            assert!(lines.iter().any(|found| found == line), "{line}: {lines:?}");
        }
        assert_eq!(difference.size, (2, 3));
        assert_eq!(Difference::between(&old, &old).lines()[0], "no difference");
    }
}
