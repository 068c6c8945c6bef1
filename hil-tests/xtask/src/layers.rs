//! Dependencies point by layer, never back: types → pure logic → I/O → binaries → tests.
//!
//! Every crate of the workspace is in the table below; one that is missing is an error, so that nobody adds a crate
//! without deciding where it belongs. Types and pure logic must not reach, even through others, a crate that does I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::build;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Types,
    Pure,
    Io,
    Binary,
    Tests,
}

const TABLE: [(&str, Layer); 25] = [
    ("seimon-board", Layer::Types),
    ("seimon-boot", Layer::Pure),
    ("seimon-plan", Layer::Types),
    ("seimon-core", Layer::Pure),
    ("seimon-ipc", Layer::Pure),
    ("seimon-update", Layer::Pure),
    ("seimon-journal", Layer::Io),
    ("seimon-dataplane", Layer::Io),
    ("seimon-probe", Layer::Binary),
    ("seimon-resolver", Layer::Binary),
    ("seimon-page", Layer::Binary),
    ("seimon-tunnel", Layer::Binary),
    ("seimon-updater", Layer::Binary),
    ("seimon-agent", Layer::Binary),
    ("seimonctl", Layer::Binary),
    ("seimon-maintenance", Layer::Binary),
    ("seimon-init", Layer::Binary),
    ("seimon-image", Layer::Tests),
    ("seimon-lab", Layer::Tests),
    ("seimon-sim", Layer::Tests),
    ("seimon-machine", Layer::Tests),
    ("seimon-fuzz", Layer::Tests),
    ("seimon-vmlab", Layer::Tests),
    ("seimon-guest", Layer::Tests),
    ("xtask", Layer::Tests),
];

/// Sockets, processes, clocks that tick by themselves: nothing of it below I/O.
const NOT_PURE: [&str; 14] = [
    "async-io",
    "command-fds",
    "landlock",
    "mio",
    "netlink-packet-core",
    "netlink-packet-route",
    "netlink-sys",
    "nix",
    "rustix",
    "rustls",
    "sd-notify",
    "socket2",
    "tokio",
    "tracing-subscriber",
];

/// Every breach, in words. Empty: in order.
pub(crate) fn check() -> Result<Vec<String>> {
    let output = build::cargo()
        .args(["metadata", "--format-version", "1", "--quiet"])
        .stderr(Stdio::inherit())
        .output()
        .context("cargo metadata could not be started")?;
    if !output.status.success() {
        bail!("cargo metadata failed");
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    breaches(&metadata, &TABLE)
}

fn breaches(metadata: &Value, table: &[(&str, Layer)]) -> Result<Vec<String>> {
    let table: BTreeMap<&str, Layer> = table.iter().copied().collect();
    let graph = Graph::read(metadata)?;
    let mut found = Vec::new();
    for member in &graph.members {
        let name = graph.name(member);
        let Some(layer) = table.get(name).copied() else {
            found.push(format!(
                "{name}: not in the layer table (hil-tests/xtask/src/layers.rs): decide where it belongs"
            ));
            continue;
        };
        for (dependency, _) in graph.dependencies(member) {
            if let Some(below) = table.get(graph.name(dependency)).copied().filter(|below| *below > layer) {
                found.push(format!(
                    "{name} ({layer:?}) depends on {} ({below:?}): dependencies point by layer, never back",
                    graph.name(dependency)
                ));
            }
        }
        if layer <= Layer::Pure {
            for reached in graph.reached(member) {
                if NOT_PURE.contains(&reached) {
                    found.push(format!(
                        "{name} ({layer:?}) reaches {reached}: sockets, processes and clocks belong to I/O"
                    ));
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What `cargo metadata` says, by package id.
struct Graph<'a> {
    names: BTreeMap<&'a str, &'a str>,
    members: Vec<&'a str>,
    /// (dependency, whether it is part of what is shipped: not only for tests or build scripts).
    edges: BTreeMap<&'a str, Vec<(&'a str, Shipped)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shipped {
    Yes,
    No,
}

impl<'a> Graph<'a> {
    fn read(metadata: &'a Value) -> Result<Self> {
        let list = |v: &'a Value| v.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut names = BTreeMap::new();
        for package in list(&metadata["packages"]) {
            let id = package["id"].as_str().context("a package without an id")?;
            names.insert(id, package["name"].as_str().context("a package without a name")?);
        }
        let members = list(&metadata["workspace_members"]).iter().filter_map(Value::as_str).collect();
        let mut edges = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let id = node["id"].as_str().context("a node without an id")?;
            let to = list(&node["deps"])
                .iter()
                .filter_map(|dep| {
                    // `kind` is null for an ordinary dependency, else `dev` or `build`.
                    let ordinary = list(&dep["dep_kinds"]).iter().any(|k| k["kind"].is_null());
                    let shipped = if ordinary { Shipped::Yes } else { Shipped::No };
                    dep["pkg"].as_str().map(|pkg| (pkg, shipped))
                })
                .collect();
            edges.insert(id, to);
        }
        Ok(Self { names, members, edges })
    }

    fn name(&self, id: &str) -> &'a str {
        self.names.get(id).copied().unwrap_or("?")
    }

    fn dependencies(&self, id: &str) -> &[(&'a str, Shipped)] {
        self.edges.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Names of everything shipped with a package, however deep.
    fn reached(&self, from: &'a str) -> BTreeSet<&'a str> {
        let mut seen = BTreeSet::from([from]);
        let mut open = vec![from];
        while let Some(id) = open.pop() {
            for (dependency, shipped) in self.dependencies(id) {
                if *shipped == Shipped::Yes && seen.insert(dependency) {
                    open.push(dependency);
                }
            }
        }
        seen.into_iter().map(|id| self.name(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// (package, [(dependency, kind)]).
    type Package<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)]);

    /// Packages without a `!` are members.
    fn metadata(packages: &[Package<'_>]) -> Value {
        let bare = |n: &str| n.trim_start_matches('!').to_owned();
        json!({
            "packages": packages.iter().map(|(n, _)| json!({"id": bare(n), "name": bare(n)})).collect::<Vec<_>>(),
            "workspace_members": packages.iter().filter(|(n, _)| !n.starts_with('!')).map(|(n, _)| bare(n)).collect::<Vec<_>>(),
            "resolve": {"nodes": packages.iter().map(|(n, deps)| json!({
                "id": bare(n),
                "deps": deps.iter().map(|(d, k)| json!({"pkg": d, "dep_kinds": [{"kind": k}]})).collect::<Vec<_>>(),
            })).collect::<Vec<_>>()},
        })
    }

    const SMALL: [(&str, Layer); 3] =
        [("types", Layer::Types), ("logic", Layer::Pure), ("daemon", Layer::Binary)];

    fn found(packages: &[Package<'_>]) -> Vec<String> {
        breaches(&metadata(packages), &SMALL).unwrap()
    }

    #[test]
    fn dependencies_that_point_down_are_in_order() {
        assert!(
            found(&[("types", &[]), ("logic", &[("types", None)]), ("daemon", &[("logic", None)])])
                .is_empty()
        );
    }

    #[test]
    fn a_dependency_that_points_back_is_named_even_if_only_for_tests() {
        let breaches = found(&[("logic", &[("daemon", Some("dev"))]), ("daemon", &[])]);
        assert_eq!(breaches.len(), 1);
        assert!(breaches[0].contains("logic (Pure) depends on daemon (Binary)"), "{breaches:?}");
    }

    #[test]
    fn a_crate_that_nobody_placed_is_an_error() {
        assert!(found(&[("newcomer", &[])])[0].contains("not in the layer table"));
    }

    #[test]
    fn pure_logic_may_not_reach_io_through_another_crate() {
        let through =
            [("logic", &[("!helper", None)][..]), ("!helper", &[("tokio", None)][..]), ("!tokio", &[][..])];
        let through: Vec<_> = through
            .iter()
            .map(|(n, deps)| {
                (*n, deps.iter().map(|(d, k)| (d.trim_start_matches('!'), *k)).collect::<Vec<_>>())
            })
            .collect();
        let through: Vec<Package<'_>> = through.iter().map(|(n, d)| (*n, d.as_slice())).collect();
        assert!(found(&through)[0].contains("logic (Pure) reaches tokio"));
    }

    #[test]
    fn pure_logic_may_use_io_in_its_tests() {
        assert!(found(&[("logic", &[("tokio", Some("dev"))]), ("!tokio", &[])]).is_empty());
    }
}
