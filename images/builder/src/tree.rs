//! A file tree in memory: what will be in the root file system, before any file system is made. Paths have no `/` in
//! front; order is by name, so the same content is the same tree wherever it was put together.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Puts a node, and the folders that lead to it. What was there is replaced; a folder keeps what is in it.
    pub(crate) fn put(&mut self, path: &str, node: Node) {
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Node::Folder { mode: 0o755 });
        }
        self.0.insert(path.to_owned(), node);
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.put(path, Node::File { mode, content: content.into() });
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.put(path, Node::Link { target: target.to_owned() });
    }

    pub(crate) fn folder(&mut self, path: &str) {
        self.put(path, Node::Folder { mode: 0o755 });
    }

    pub(crate) fn remove(&mut self, path: &str) -> Option<Node> {
        self.0.remove(path)
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }

    pub(crate) fn content(&self, path: &str) -> Option<&[u8]> {
        match self.get(path)? {
            Node::File { content, mode: _ } => Some(content),
            Node::Folder { .. } | Node::Link { .. } => None,
        }
    }

    /// By name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }

    pub(crate) fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a Node)> {
        self.iter()
            .filter(move |(path, _)| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    }

    /// Folders with nothing in them go, but those that a running system needs as they are.
    pub(crate) fn prune(&mut self, keep: &[&str]) {
        loop {
            let is_empty = |path: &str| {
                let next = self.0.range(format!("{path}/")..).next();
                !next.is_some_and(|(name, _)| name.starts_with(&format!("{path}/")))
            };
            let gone: Vec<String> = self
                .0
                .iter()
                .filter(|(path, node)| {
                    matches!(node, Node::Folder { .. }) && !keep.contains(&path.as_str()) && is_empty(path)
                })
                .map(|(path, _)| path.clone())
                .collect();
            if gone.is_empty() {
                return;
            }
            for path in gone {
                self.0.remove(&path);
            }
        }
    }

    /// Copies a folder of the repository into the tree: files are 0644, links stay links.
    pub(crate) fn overlay(&mut self, from: &Path, to: &str) -> Result<()> {
        let mut entries: Vec<_> =
            fs::read_dir(from).with_context(|| from.display().to_string())?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let name = name.to_str().with_context(|| format!("{name:?} is not UTF-8"))?;
            let path = if to.is_empty() { name.to_owned() } else { format!("{to}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.overlay(&entry.path(), &path)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(entry.path())?;
                self.link(&path, target.to_str().context("a link's target is not UTF-8")?);
            } else {
                self.file(&path, 0o644, fs::read(entry.path())?);
            }
        }
        Ok(())
    }

    /// Writes it out below `top`, which must be empty: for a program that makes a file system of a folder.
    pub(crate) fn write(&self, top: &Path) -> Result<()> {
        if fs::read_dir(top)?.next().is_some() {
            bail!("{} is not empty", top.display());
        }
        for (path, node) in self.iter() {
            let at = top.join(path);
            let written = match node {
                Node::Folder { .. } => fs::create_dir(&at),
                Node::File { mode, content } => fs::write(&at, content)
                    .and_then(|()| fs::set_permissions(&at, fs::Permissions::from_mode(*mode))),
                Node::Link { target } => symlink(target, &at),
            };
            written.with_context(|| at.display().to_string())?;
        }
        // Folders last, from the innermost: one may forbid writing.
        for (path, node) in self.0.iter().rev() {
            if let Node::Folder { mode } = node {
                fs::set_permissions(top.join(path), fs::Permissions::from_mode(*mode))?;
            }
        }
        Ok(())
    }
}

/// Whether a path matches a pattern in which `*` is anything.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == path };
    let Some(mut left) = path.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_folders_go_with_those_that_held_only_them() {
        let mut tree = Tree::default();
        tree.folder("a/b/c");
        tree.folder("tmp");
        tree.file("d/e", 0o644, "x");
        tree.folder("d2");
        tree.prune(&["tmp"]);
        let left: Vec<_> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(left, ["d", "d/e", "tmp"]);
    }

    #[test]
    fn patterns_match_whole_paths() {
        for (pattern, path, expected) in [
            ("etc/fstab", "etc/fstab", true),
            ("etc/fstab", "etc/fstab2", false),
            ("usr/share/doc/*", "usr/share/doc/a/b", true),
            ("usr/share/doc/*", "usr/share/docs", false),
            ("lib/*.so*", "lib/libc.so.6", true),
            ("lib/*.so*", "lib/libc.a", false),
            ("a/*/copyright", "a/b/copyright", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }
}
