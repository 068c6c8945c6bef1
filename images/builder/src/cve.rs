//! Which known holes an image has, by the Debian security tracker's JSON, where somebody has fetched it:
//! `{ SOURCE: { CVE: { "releases": { "bookworm": { "status": "open"|"resolved"|"undetermined", "fixed_version": …, "urgency": … }}}}}`.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::settings::Lock;

#[derive(Deserialize)]
struct Hole {
    #[serde(default)]
    releases: BTreeMap<String, Release>,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Release {
    status: String,
    fixed_version: Option<String>,
    #[serde(default)]
    urgency: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Found {
    pub(crate) cve: String,
    pub(crate) source: String,
    pub(crate) version: String,
    /// The version that mends it; `None`: there is none yet.
    pub(crate) fixed_in: Option<String>,
    pub(crate) urgency: String,
    pub(crate) description: String,
}

/// Holes of the lock's packages in Debian's `release`. What Debian calls unimportant is no hole.
pub(crate) fn holes(lock: &Lock, database: &str, release: &str) -> Result<Vec<Found>> {
    let database: BTreeMap<String, BTreeMap<String, Hole>> =
        serde_json::from_str(database).context("the database is not the Debian security tracker's JSON")?;
    let mut found = Vec::new();
    let mut sources: Vec<(&str, &str)> = lock
        .package
        .iter()
        .map(|package| (package.source.as_str(), package.source_version.as_str()))
        .collect();
    sources.sort_unstable();
    sources.dedup();
    for (source, version) in sources {
        // Signed kernels are built from another source, which the tracker does not know.
        let tracked = if source.starts_with("linux-signed") { "linux" } else { source };
        for (cve, hole) in database.get(tracked).into_iter().flatten() {
            let Some(Release { status, fixed_version, urgency }) = hole.releases.get(release) else {
                continue;
            };
            let fixed = fixed_version.as_deref().filter(|fixed| *fixed != "0");
            let open = match (status.as_str(), fixed) {
                ("resolved", Some(fixed)) => is_older(version, fixed)?,
                ("resolved", None) => false,
                _ => true,
            };
            if open && urgency != "unimportant" {
                found.push(Found {
                    cve: cve.clone(),
                    source: source.to_owned(),
                    version: version.to_owned(),
                    fixed_in: fixed.map(str::to_owned),
                    urgency: urgency.clone(),
                    description: hole.description.chars().take(160).collect(),
                });
            }
        }
    }
    found.sort();
    Ok(found)
}

/// By Debian's order of versions, which dpkg knows.
fn is_older(version: &str, than: &str) -> Result<bool> {
    // `6.1.170+3` is the signed package's way to write `6.1.170-3`.
    let version = version.replace("+3", "-3");
    let status = Command::new("dpkg")
        .args(["--compare-versions", &version, "lt", than])
        .status()
        .context("dpkg could not be started")?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Package;
    use seimon_boot::Digest;

    #[test]
    fn open_and_later_mended_holes_are_found_and_mended_ones_are_not() {
        let lock = Lock {
            epoch: 0,
            package: vec![Package {
                name: "libx".into(),
                version: "1.0-2+b1".into(),
                architecture: "arm64".into(),
                sha256: Digest([0; 32]),
                size: 1,
                source: "x".into(),
                source_version: "1.0-2".into(),
            }],
        };
        let hole = |status: &str, fixed: &str, urgency: &str| {
            format!(
                "{{\"releases\":{{\"bookworm\":{{\"status\":\"{status}\",\"fixed_version\":{fixed},\"urgency\":\"{urgency}\"}}}}}}"
            )
        };
        let database = format!(
            "{{\"x\":{{\"A\":{},\"B\":{},\"C\":{},\"D\":{},\"E\":{}}},\"y\":{{\"F\":{}}}}}",
            hole("open", "null", "high"),
            hole("resolved", "\"1.0-3\"", "low"),
            hole("resolved", "\"1.0-2\"", "low"),
            hole("resolved", "\"0\"", "low"),
            hole("open", "null", "unimportant"),
            hole("open", "null", "high"),
        );
        let found = holes(&lock, &database, "bookworm").unwrap();
        let names: Vec<&str> = found.iter().map(|found| found.cve.as_str()).collect();
        assert_eq!(names, ["A", "B"]);
        assert_eq!(found[1].fixed_in.as_deref(), Some("1.0-3"));
        assert!(holes(&lock, "[]", "bookworm").is_err());
    }
}
