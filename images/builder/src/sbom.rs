//! What an image is made of, for others' programs: SPDX 2.3 as JSON.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cross;
use crate::settings::{Lock, Package};

/// A crate of ours or another's in a program of the image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Of its file, where it is from the registry.
    pub(crate) sha256: Option<String>,
    license: Option<String>,
}

#[derive(Deserialize)]
struct CargoLock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// Every crate that is compiled into one of the image's programs.
pub(crate) fn crates(root: &Path) -> Result<Vec<Crate>> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(root)
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}|{l}"]);
    command.args(["--target", cross::TARGET, "--package", "seimon-init"]);
    for package in cross::PACKAGES {
        command.args(["--package", package]);
    }
    let output = command.output().context("cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let locked = std::fs::read_to_string(root.join("Cargo.lock")).context("Cargo.lock")?;
    let locked: CargoLock = toml::from_str(&locked).context("Cargo.lock")?;
    let mut found: Vec<Crate> =
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| of_tree(line, &locked)).collect();
    found.sort();
    found.dedup();
    ensure!(!found.is_empty(), "cargo tree names no crates");
    Ok(found)
}

/// `NAME vVERSION (…)|LICENCE`
fn of_tree(line: &str, locked: &CargoLock) -> Option<Crate> {
    let (package, license) = line.split_once('|')?;
    let mut words = package.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    let entry = locked.package.iter().find(|entry| entry.name == name && entry.version == version)?;
    let license = license.trim_end_matches(" (*)").trim();
    Some(Crate {
        name: name.to_owned(),
        version: version.to_owned(),
        sha256: entry.checksum.clone(),
        license: (!license.is_empty()).then(|| license.to_owned()),
    })
}

pub(crate) fn spdx(lock: &Lock, crates: &[Crate], board: &str, version: &str, image_sha256: &str) -> Value {
    let image = "SPDXRef-Image";
    let mut packages = vec![json!({
        "SPDXID": image,
        "name": format!("seimon-{board}"),
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": image_sha256 }],
    })];
    packages.extend(lock.package.iter().map(debian));
    packages.extend(crates.iter().map(rust));
    let relationships: Vec<Value> = packages[1..]
        .iter()
        .map(|package| {
            json!({ "spdxElementId": image, "relationshipType": "CONTAINS", "relatedSpdxElement": package["SPDXID"] })
        })
        .chain([json!({ "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": image })])
        .collect();
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("seimon-{board}-{version}"),
        "documentNamespace": format!("urn:seimon:image:{image_sha256}"),
        "creationInfo": { "created": timestamp(lock.epoch), "creators": ["Tool: seimon-image"] },
        "packages": packages,
        "relationships": relationships,
    })
}

fn debian(package: &Package) -> Value {
    let Package { name, version, architecture, sha256, size: _, source, source_version } = package;
    json!({
        "SPDXID": format!("SPDXRef-deb-{}", id(name)),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "supplier": "Organization: Debian",
        "sourceInfo": format!("built from source package: {source} {source_version}"),
        "checksums": [{ "algorithm": "SHA256", "checksumValue": sha256.to_string() }],
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": format!("pkg:deb/debian/{name}@{}?arch={architecture}", version.replace('+', "%2B").replace(':', "%3A")),
        }],
    })
}

fn rust(of: &Crate) -> Value {
    let Crate { name, version, sha256, license } = of;
    let mut value = json!({
        "SPDXID": format!("SPDXRef-crate-{}-{}", id(name), id(version)),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        // Older manifests write / for OR.
        "licenseDeclared": license.as_ref().map_or_else(|| "NOASSERTION".to_owned(), |text| text.replace('/', " OR ")),
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": format!("pkg:cargo/{name}@{}", version.replace('+', "%2B")),
        }],
    });
    if let Some(sha256) = sha256 {
        value["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": sha256 }]);
    }
    value
}

/// What SPDX allows in an identifier.
fn id(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

/// Seconds since 1970 as `YYYY-MM-DDThh:mm:ssZ`.
pub(crate) fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days from 0000-03-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use seimon_boot::Digest;

    #[test]
    fn times_are_written_as_spdx_wants_them() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(timestamp(1_796_083_199), "2026-11-30T23:59:59Z");
    }

    #[test]
    fn every_package_is_contained_in_the_image() {
        let package = |name: &str| Package {
            name: name.into(),
            version: "1:2.0+b1".into(),
            architecture: "arm64".into(),
            sha256: Digest([1; 32]),
            size: 1,
            source: "src".into(),
            source_version: "1:2.0".into(),
        };
        let lock = Lock { epoch: 0, package: vec![package("libc6"), package("libstdc++6")] };
        let locked = CargoLock {
            package: vec![Locked {
                name: "serde".into(),
                version: "1.0.1".into(),
                checksum: Some("ab".into()),
            }],
        };
        let of = of_tree("serde v1.0.1|MIT/Apache-2.0 (*)", &locked).unwrap();
        let document = spdx(&lock, &[of], "board", "1", "cd");
        let packages = document["packages"].as_array().unwrap();
        let related = document["relationships"].as_array().unwrap();
        assert_eq!((packages.len(), related.len()), (4, 4));
        assert_eq!(packages[2]["SPDXID"], "SPDXRef-deb-libstdc--6");
        assert_eq!(
            packages[1]["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/libc6@1%3A2.0%2Bb1?arch=arm64"
        );
        assert_eq!(packages[3]["licenseDeclared"], "MIT OR Apache-2.0");
    }
}
