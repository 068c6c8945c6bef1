//! apt, kept apart from the machine's own packages: its sources and keys are used, its lists, cache and installed
//! packages are not. So the answer does not depend on what a developer has installed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use seimon_boot::Digest;

use crate::settings::{Lock, Package, Packages};
use crate::{digest_of_file, say};

pub(crate) const ARCHITECTURE: &str = "arm64";

pub(crate) struct Apt {
    configuration: PathBuf,
    cache: PathBuf,
}

impl Apt {
    /// In `work` (`target/images`).
    pub(crate) fn open(work: &Path) -> Result<Self> {
        let apt = work.join("apt");
        for folder in ["state", "lists/partial", "archives/partial"] {
            fs::create_dir_all(apt.join(folder))?;
        }
        let cache = work.join("cache");
        fs::create_dir_all(&cache)?;
        fs::write(apt.join("status"), "")?;
        let at = |name: &str| apt.join(name).display().to_string();
        let text = format!(
            "Dir::State \"{}\";\nDir::State::lists \"{}\";\nDir::State::status \"{}\";\nDir::Cache \"{}\";\n\
             Dir::Cache::archives \"{}\";\nAPT::Architecture \"{ARCHITECTURE}\";\n\
             APT::Architectures {{ \"{ARCHITECTURE}\"; }};\nAPT::Install-Recommends \"false\";\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n",
            at("state"),
            at("lists"),
            at("status"),
            apt.display(),
            at("archives"),
        );
        let configuration = apt.join("apt.conf");
        fs::write(&configuration, text)?;
        Ok(Self { configuration, cache })
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = Command::new(program)
            .args(arguments)
            .env("APT_CONFIG", &self.configuration)
            .env("LC_ALL", "C")
            .current_dir(&self.cache)
            .output()
            .with_context(|| format!("{program} could not be started"))?;
        if !output.status.success() {
            bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Resolves what is wanted to exact packages.
    pub(crate) fn resolve(&self, packages: &Packages, epoch: u64) -> Result<Lock> {
        say::step("asking for the packages of arm64");
        self.run("apt-get", &["-qq", "update"])?;
        let mut install = vec!["-qq", "--simulate", "install"];
        install.extend(packages.wanted.iter().map(String::as_str));
        let plan = self.run("apt-get", &install)?;
        // Inst NAME (VERSION REPOSITORY [ARCHITECTURE])
        let chosen: BTreeMap<&str, &str> = plan
            .lines()
            .filter_map(|line| line.strip_prefix("Inst "))
            .filter_map(|line| line.split_once(" ("))
            .filter_map(|(name, rest)| Some((name.split(':').next()?, rest.split(' ').next()?)))
            .collect();
        ensure!(
            !chosen.is_empty(),
            "apt names no packages: does this machine have Debian sources for {ARCHITECTURE}?"
        );
        let asked: Vec<String> = chosen
            .iter()
            .filter(|(name, _)| !packages.left_out.contains_key(**name))
            .map(|(name, version)| format!("{name}={version}"))
            .collect();
        let mut show = vec!["show"];
        show.extend(asked.iter().map(String::as_str));
        let about = self.run("apt-cache", &show)?;
        let mut found: Vec<Package> = about.split("\n\n").filter_map(described).collect();
        found.sort_by(|one, two| one.name.cmp(&two.name));
        found.dedup();
        ensure!(
            found.len() == asked.len(),
            "apt-cache describes {} of {} packages",
            found.len(),
            asked.len()
        );
        Ok(Lock { epoch, package: found })
    }

    /// The lock's files, from the cache or the mirror, in the lock's order. Each has the lock's hash.
    pub(crate) fn fetch(&self, lock: &Lock) -> Result<Vec<PathBuf>> {
        let place = |package: &Package| self.cache.join(format!("{}.deb", package.sha256));
        let missing: Vec<&Package> =
            lock.package.iter().filter(|package| !place(package).is_file()).collect();
        if !missing.is_empty() {
            say::step(&format!("fetching {} packages", missing.len()));
            let names: Vec<String> =
                missing.iter().map(|package| format!("{}={}", package.name, package.version)).collect();
            let mut download = vec!["-qq", "download"];
            download.extend(names.iter().map(String::as_str));
            let downloaded = self.run("apt-get", &download).or_else(|_| {
                // The lists may be older than the lock.
                self.run("apt-get", &["-qq", "update"])?;
                self.run("apt-get", &download)
            });
            downloaded.context(
                "a package of the lock is no longer on the mirror: `cargo xtask image lock`, or a mirror that keeps \
                 old versions",
            )?;
            for package in missing {
                fs::rename(self.came(package)?, place(package))?;
            }
        }
        lock.package
            .iter()
            .map(|package| {
                let file = place(package);
                let digest = digest_of_file(&file)?;
                if digest != package.sha256 {
                    fs::remove_file(&file)?;
                    bail!(
                        "{} {}: what came is not what is in the lock (sha256 {digest}, not {})",
                        package.name,
                        package.version,
                        package.sha256
                    );
                }
                Ok(file)
            })
            .collect()
    }

    /// Where apt has put what it fetched.
    fn came(&self, package: &Package) -> Result<PathBuf> {
        let Package { name, version, architecture, .. } = package;
        let file = self.cache.join(format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a")));
        ensure!(file.is_file(), "apt-get download {name}: no file {} came", file.display());
        Ok(file)
    }
}

/// A paragraph of `apt-cache show`.
fn described(paragraph: &str) -> Option<Package> {
    let field = |name: &str| {
        paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
    };
    let (name, version) = (field("Package")?, field("Version")?);
    // Source: NAME, or NAME (VERSION) where they differ.
    let source = field("Source").unwrap_or(name);
    let (source, source_version) = match source.split_once(" (") {
        Some((source, version)) => (source, version.trim_end_matches(')')),
        None => (source, version),
    };
    Some(Package {
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: field("Architecture")?.to_owned(),
        sha256: Digest::parse(field("SHA256")?).ok()?,
        size: field("Size")?.parse().ok()?,
        source: source.to_owned(),
        source_version: source_version.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_read_from_apts_words() {
        let digest = "ab".repeat(32);
        let text = format!(
            "Package: libacl1\nArchitecture: arm64\nVersion: 2.3.1-3+b1\nSource: acl (2.3.1-3)\nSize: 30768\nSHA256: {digest}\nDescription: x\n"
        );
        let package = described(&text).unwrap();
        assert_eq!((package.source.as_str(), package.source_version.as_str()), ("acl", "2.3.1-3"));
        assert_eq!((package.version.as_str(), package.size), ("2.3.1-3+b1", 30_768));
        assert!(described(&text.replace("SHA256", "MD5")).is_none());
    }
}
