//! The kernel's modules: which are taken, with all that they need, and in which order the first ones are loaded.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};

use crate::tree::{Node, Tree};

/// A kernel's modules by name, as their own `.modinfo` sections describe them.
pub(crate) struct Modules {
    /// `usr/lib/modules/VERSION`.
    pub(crate) folder: String,
    by_name: BTreeMap<String, Module>,
    /// Module by each of its aliases that is a plain name, e.g. `crypto-sha256`.
    by_alias: BTreeMap<String, BTreeSet<String>>,
    built_in: BTreeSet<String>,
}

struct Module {
    path: String,
    needs: Vec<String>,
    /// Soft dependencies, to be loaded before, if they are there.
    before: Vec<String>,
}

/// What a list of the repository asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Names, with all that they need, in an order in which they can be loaded.
    pub(crate) all: Vec<String>,
    /// Marked with `!`: loaded at every start.
    pub(crate) loaded: Vec<String>,
    /// Asked for, and neither a module of this kernel nor built in.
    pub(crate) missing: Vec<String>,
}

impl Modules {
    /// # Errors
    /// There are no modules, or of more than one kernel.
    pub(crate) fn find(tree: &Tree) -> Result<Self> {
        let mut folders: BTreeSet<String> = BTreeSet::new();
        for (path, _) in tree.below("usr/lib/modules") {
            if let Some(version) = path.split('/').nth(3) {
                folders.insert(format!("usr/lib/modules/{version}"));
            }
        }
        let [folder] = folders.into_iter().collect::<Vec<_>>().try_into().map_err(|found: Vec<String>| {
            anyhow::anyhow!("one kernel is wanted, and there are {}: {}", found.len(), found.join(", "))
        })?;
        let mut modules = Self {
            built_in: BTreeSet::new(),
            by_name: BTreeMap::new(),
            by_alias: BTreeMap::new(),
            folder: folder.clone(),
        };
        let built_in = tree.content(&format!("{folder}/modules.builtin")).context("modules.builtin")?;
        modules.built_in = String::from_utf8_lossy(built_in).lines().map(name_of).collect();
        for (path, node) in tree.below(&folder) {
            if let (Node::File { content, .. }, true) = (node, path.ends_with(".ko")) {
                modules.add(path, content);
            }
        }
        Ok(modules)
    }

    fn add(&mut self, path: &str, content: &[u8]) {
        let name = name_of(path);
        let (mut needs, mut before) = (Vec::new(), Vec::new());
        for (key, value) in information(content) {
            match key {
                "depends" => needs.extend(value.split(',').filter(|name| !name.is_empty()).map(canonical)),
                "softdep" => {
                    // pre: A B post: C
                    let pre = value.split("post:").next().and_then(|text| text.split_once("pre:"));
                    before.extend(
                        pre.into_iter().flat_map(|(_, names)| names.split_whitespace()).map(canonical),
                    );
                }
                "alias" if !value.contains([':', '*']) => {
                    self.by_alias.entry(canonical(value)).or_default().insert(name.clone());
                }
                _ => {}
            }
        }
        self.by_name.insert(name, Module { path: path.to_owned(), needs, before });
    }

    pub(crate) fn path(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(|module| module.path.as_str())
    }

    /// # Errors
    /// A module needs one that is not there.
    pub(crate) fn choose<'a>(&self, lines: impl IntoIterator<Item = &'a str>) -> Result<Chosen> {
        let mut chosen = Chosen::default();
        let mut seen = BTreeSet::new();
        for line in lines {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (wanted, always) = line.strip_prefix('!').map_or((line, false), |rest| (rest, true));
            if wanted.ends_with('/') {
                let folder = format!("{}/kernel/{wanted}", self.folder);
                let below = self.by_name.iter().filter(|(_, module)| module.path.starts_with(&folder));
                for name in below.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                    self.take(&name, &mut seen, &mut chosen.all)?;
                }
                continue;
            }
            let name = canonical(wanted);
            if self.built_in.contains(&name) {
                continue;
            }
            if !self.by_name.contains_key(&name) {
                chosen.missing.push(wanted.to_owned());
                continue;
            }
            self.take(&name, &mut seen, &mut chosen.all)?;
            if always {
                chosen.loaded.push(name);
            }
        }
        Ok(chosen)
    }

    /// Those that it needs first.
    fn take(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<String>) -> Result<()> {
        if !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(module) = self.by_name.get(name) else {
            if self.built_in.contains(name) {
                return Ok(());
            }
            bail!("the kernel module {name} is needed by another and is not there");
        };
        for before in &module.before {
            let those = self.by_alias.get(before).into_iter().flatten().chain([before]);
            for name in those.filter(|name| self.by_name.contains_key(*name)) {
                self.take(name, seen, order)?;
            }
        }
        for need in &module.needs {
            self.take(need, seen, order)?;
        }
        order.push(name.to_owned());
        Ok(())
    }
}

/// A file's name is the module's, with `_` for `-`.
fn name_of(path: &str) -> String {
    canonical(path.rsplit('/').next().unwrap_or(path).trim_end_matches(".ko"))
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// `key=value` strings of an ELF file's section `.modinfo` (64 bits, little-endian, as arm64 is).
fn information(elf: &[u8]) -> Vec<(&str, &str)> {
    let section = section(elf, ".modinfo").unwrap_or_default();
    section
        .split(|byte| *byte == 0)
        .filter_map(|text| std::str::from_utf8(text).ok()?.split_once('='))
        .collect()
}

fn section<'a>(elf: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = elf.get(at..at + length)?;
        Some(bytes.iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte)))
    };
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count, names) = (number(40, 8)?, number(58, 2)?, number(60, 2)?, number(62, 2)?);
    let header = |index: usize| table + index * size;
    let names = number(header(names) + 24, 8)?;
    (0..count).find_map(|index| {
        let at = header(index);
        let start = names + number(at, 4)?;
        let found = elf.get(start..start + name.len() + 1)?;
        if &found[..name.len()] != name.as_bytes() || found[name.len()] != 0 {
            return None;
        }
        elf.get(number(at + 24, 8)?..number(at + 24, 8)? + number(at + 32, 8)?)
    })
}

/// Takes everything but the chosen modules out of the tree.
pub(crate) fn thin(tree: &mut Tree, modules: &Modules, chosen: &Chosen) {
    let kept: BTreeSet<&str> = chosen.all.iter().filter_map(|name| modules.path(name)).collect();
    let gone: Vec<String> = tree
        .below(&modules.folder)
        .filter(|(path, node)| {
            matches!(node, Node::File { .. }) && path.ends_with(".ko") && !kept.contains(path)
        })
        .map(|(path, _)| path.to_owned())
        .collect();
    for path in gone {
        tree.remove(&path);
    }
}

/// The lines of one of the sections `[NAME]` of `initramfs.list`.
pub(crate) fn section_lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let heading = format!("[{name}]");
    let mut lines = text.lines().skip_while(|line| line.trim() != heading);
    lines.next();
    lines.take_while(|line| !line.trim_start().starts_with('[')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Modules {
        let module = |path: &str, needs: &[&str], before: &[&str]| {
            let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            (name_of(path), Module { path: path.to_owned(), needs: own(needs), before: own(before) })
        };
        Modules {
            folder: "usr/lib/modules/6".to_owned(),
            by_name: BTreeMap::from([
                module("usr/lib/modules/6/kernel/lib/libcrc32c.ko", &[], &["crc32c"]),
                module("usr/lib/modules/6/kernel/crypto/crc32c_generic.ko", &[], &[]),
                module("usr/lib/modules/6/kernel/net/nf_tables.ko", &["libcrc32c", "nfnetlink"], &[]),
                module("usr/lib/modules/6/kernel/net/nfnetlink.ko", &[], &[]),
                module("usr/lib/modules/6/kernel/net/broken.ko", &["nowhere"], &[]),
            ]),
            by_alias: BTreeMap::from([("crc32c".to_owned(), BTreeSet::from(["crc32c_generic".to_owned()]))]),
            built_in: BTreeSet::from(["ipv6".to_owned()]),
        }
    }

    #[test]
    fn what_is_needed_comes_first_soft_dependencies_by_their_alias_too() {
        let chosen = modules().choose(["# a comment", "!nf-tables # the filter", "ipv6", "gone"]).unwrap();
        assert_eq!(chosen.all, ["crc32c_generic", "libcrc32c", "nfnetlink", "nf_tables"]);
        assert_eq!(chosen.loaded, ["nf_tables"]);
        assert_eq!(chosen.missing, ["gone"]);
    }

    #[test]
    fn a_folder_is_all_that_is_in_it_and_a_missing_need_is_an_error() {
        let chosen = modules().choose(["crypto/"]).unwrap();
        assert_eq!(chosen.all, ["crc32c_generic"]);
        assert!(modules().choose(["net/"]).unwrap_err().to_string().contains("nowhere"));
    }

    #[test]
    fn sections_end_at_the_next() {
        let text = "# x\n[common]\na\nb\n\n[vd]\nc\n";
        assert_eq!(section_lines(text, "common"), ["a", "b", ""]);
        assert_eq!(section_lines(text, "vd"), ["c"]);
        assert!(section_lines(text, "nvme").is_empty());
    }
}
