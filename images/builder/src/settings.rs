//! `images/packages.toml` (what is wanted) and `images/packages.lock` (what exactly that is).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use seimon_boot::Digest;
use serde::{Deserialize, Serialize};

use crate::tree::matches;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Packages {
    pub(crate) wanted: Vec<String>,
    /// With the reason.
    pub(crate) left_out: BTreeMap<String, String>,
    only: BTreeMap<String, Vec<String>>,
    never: Never,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Never {
    paths: Vec<String>,
}

impl Packages {
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let file = root.join("images/packages.toml");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        toml::from_str(&text).with_context(|| file.display().to_string())
    }

    /// Whether a path of a package goes into the image.
    pub(crate) fn takes(&self, package: &str, path: &str) -> bool {
        let one_of = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, path));
        !one_of(&self.never.paths) && self.only.get(package).is_none_or(|only| one_of(only))
    }

    /// Patterns that match nothing: a package has moved its files, or somebody misspelt one.
    pub(crate) fn idle<'a>(&'a self, package: &str, paths: &[String]) -> Vec<&'a str> {
        let idle = |pattern: &&String| !paths.iter().any(|path| matches(pattern, path));
        self.only.get(package).into_iter().flatten().filter(idle).map(String::as_str).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lock {
    /// Seconds since 1970: the time that every file of an image has.
    pub(crate) epoch: u64,
    pub(crate) package: Vec<Package>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
    /// Of the package's file.
    pub(crate) sha256: Digest,
    pub(crate) size: u64,
    /// The source package and its version, by which security notices name it.
    pub(crate) source: String,
    pub(crate) source_version: String,
}

const HEAD: &str =
    "# Written by `cargo xtask image lock`. Every byte of Debian in an image is one of these files'.\n";

impl Lock {
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let file = root.join("images/packages.lock");
        let text = fs::read_to_string(&file)
            .with_context(|| format!("{}: make it with `cargo xtask image lock`", file.display()))?;
        toml::from_str(&text).with_context(|| file.display().to_string())
    }

    pub(crate) fn write(&self, root: &Path) -> Result<()> {
        let file = root.join("images/packages.lock");
        fs::write(&file, format!("{HEAD}{}", toml::to_string(self)?))
            .with_context(|| file.display().to_string())
    }
}
