//! Finding a scenario's plan and changing what the scenario says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The shipped plan that suits a lab: `two-line-town.toml` with a window that is always open and times that fit into
/// a minute.
const TOWN: &str = "town.toml";
const TOWN_IS: &str = "two-line-town.toml";
/// The same with a third path, `vpn`: a tunnel over the internet line to the hub.
const VPN_TOWN: &str = "vpn-town.toml";
/// `one-line-town.toml` likewise: its closed path is a tunnel over its only line.
const ONE_LINE: &str = "one-line.toml";
const ONE_LINE_IS: &str = "one-line-town.toml";

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("no plan `{name}` beside the scenario nor among the shipped ones ({TOWN}, {VPN_TOWN}, {ONE_LINE}, {})", .shipped.join(", "))]
    NotFound { name: String, shipped: Vec<String> },
    #[error("{} cannot be read", .file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not TOML: {reason}", .file.display())]
    NotToml { file: PathBuf, reason: String },
    #[error("`{key}` cannot be set: {why}")]
    NotSettable { key: String, why: String },
}

pub(crate) fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// The lab's board descriptor.
pub fn board_file() -> PathBuf {
    repository().join("board/boards/lab-namespace.toml")
}

/// A file of the shipped scenarios' folder.
pub fn scenario_file(name: &str) -> PathBuf {
    repository().join("hil-tests/scenarios").join(name)
}

/// Every shipped scenario file, by name. The demo's acts are in a folder of their own.
pub fn shipped_scenarios() -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(repository().join("hil-tests/scenarios"))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    Ok(files)
}

fn find(name: &str, beside: &Path) -> Result<PathBuf, PlanError> {
    let examples = repository().join("provisioning/plan/examples");
    let own = beside.parent().unwrap_or(Path::new(".")).join(name);
    if own.is_file() {
        return Ok(own);
    }
    let shipped = examples.join(match name {
        TOWN | VPN_TOWN => TOWN_IS,
        ONE_LINE => ONE_LINE_IS,
        other => other,
    });
    if shipped.is_file() {
        return Ok(shipped);
    }
    let mut names: Vec<String> = std::fs::read_dir(&examples)
        .map(|dir| dir.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    names.sort();
    Err(PlanError::NotFound { name: name.to_owned(), shipped: names })
}

/// The plan's text with `set` applied; `beside` is the scenario's file.
pub fn plan_text(
    name: &str,
    beside: &Path,
    sets: &[&BTreeMap<String, toml::Value>],
) -> Result<String, PlanError> {
    let file = find(name, beside)?;
    let text = std::fs::read_to_string(&file)
        .map_err(|source| PlanError::Unreadable { file: file.clone(), source })?;
    let mut plan: toml::Table = text.parse().map_err(|e: toml::de::Error| PlanError::NotToml {
        file: file.clone(),
        reason: e.message().to_owned(),
    })?;
    let own: Vec<(&str, toml::Value)> = match name {
        TOWN => town().into(),
        // The lab's authority, which the other example names itself.
        ONE_LINE => town().into_iter().chain(trusted().map(|key| (key, "lab-ca.pem".into()))).collect(),
        VPN_TOWN => town().into_iter().chain(vpn(&plan)).collect(),
        _ => Vec::new(),
    };
    for (key, value) in own {
        put(&mut plan, key, value)?;
    }
    for (key, value) in sets.iter().flat_map(|set| set.iter()) {
        put(&mut plan, key, value.clone())?;
    }
    toml::to_string(&plan).map_err(|e| PlanError::NotToml { file, reason: e.to_string() })
}

/// What `town.toml` sets on top of the documented example.
pub(crate) fn town() -> [(&'static str, toml::Value); 11] {
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].map(toml::Value::from).to_vec();
    let window = toml::Table::from_iter([
        ("days".to_owned(), toml::Value::Array(days)),
        ("from".to_owned(), "00:00".into()),
        ("to".to_owned(), "00:00".into()),
    ]);
    [
        ("migration.windows", toml::Value::Array(vec![window.into()])),
        ("migration.times.qualify", "5s".into()),
        ("migration.times.soak", "8s".into()),
        ("migration.times.drain", "30s".into()),
        // So quick that a qualification fits into five seconds.
        ("migration.thresholds.check_interval_moving", "700ms".into()),
        ("migration.thresholds.check_timeout", "2s".into()),
        ("migration.freezes", toml::Value::Array(Vec::new())),
        ("services.affairs.session_idle", "5s".into()),
        ("services.idp.session_idle", "5s".into()),
        ("services.learning.session_idle", "5s".into()),
        ("services.drill.session_idle", "5s".into()),
    ]
}

fn trusted() -> [&'static str; 3] {
    ["services.affairs.health.ca_file", "services.idp.health.ca_file", "services.learning.health.ca_file"]
}

/// What `vpn-town.toml` sets besides: the third path, its egress address with the service, and the affairs' way over it.
fn vpn(plan: &toml::Table) -> [(&'static str, toml::Value); 3] {
    let tunnel = toml::Table::from_iter([
        ("endpoint".to_owned(), "198.51.100.20:51820".into()),
        // The example's; the hub of the run puts its own in its place.
        ("public_key".to_owned(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into()),
        ("private_key_file".to_owned(), "wireguard.key".into()),
        ("ipv4".to_owned(), "10.60.1.2/30".into()),
    ]);
    let path = toml::Table::from_iter([
        ("line".to_owned(), "internet".into()),
        ("kind".to_owned(), "wireguard".into()),
        ("ipv6".to_owned(), "none".into()),
        ("nat4".to_owned(), "masquerade".into()),
        ("resolvers".to_owned(), toml::Value::Array(vec!["10.50.0.53".into()])),
        ("wireguard".to_owned(), tunnel.into()),
    ]);
    let list = |table: &str, key: &str| -> Vec<toml::Value> {
        let services = plan.get("services").and_then(|services| services.get(table));
        services
            .and_then(|service| service.get(key))
            .and_then(toml::Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let mut registered = list("affairs", "registered_egress");
    registered.push("198.51.100.11".into());
    let mut routes: Vec<toml::Value> = plan
        .get("migration")
        .and_then(|migration| migration.get("routes"))
        .and_then(toml::Value::as_array)
        .cloned()
        .unwrap_or_default();
    for route in &mut routes {
        if let Some(route) = route.as_table_mut().filter(|route| route["group"].as_str() == Some("affairs")) {
            let paths = ["closed", "vpn", "direct"].map(toml::Value::from).to_vec();
            route.insert("paths".to_owned(), paths.into());
        }
    }
    [
        ("paths.vpn", path.into()),
        ("services.affairs.registered_egress", registered.into()),
        ("migration.routes", routes.into()),
    ]
}

/// Sets a dotted key; tables on the way are made.
fn put(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), PlanError> {
    let wrong = |why: &str| PlanError::NotSettable { key: key.to_owned(), why: why.to_owned() };
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().ok_or_else(|| wrong("it is empty"))?;
    let mut at = table;
    for part in parts {
        let inner = at.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = inner.as_table_mut().ok_or_else(|| wrong(&format!("`{part}` is not a table")))?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dotted_key_reaches_into_tables_and_keeps_its_neighbours() {
        let mut plan: toml::Table = "[services.affairs]\ngroup = \"affairs\"\n".parse().unwrap();
        put(&mut plan, "services.affairs.session_idle", "5s".into()).unwrap();
        put(&mut plan, "migration.times.soak", "8s".into()).unwrap();
        let text = toml::to_string(&plan).unwrap();
        assert!(text.contains("group = \"affairs\"") && text.contains("session_idle = \"5s\""), "{text}");
        assert!(put(&mut plan, "services.affairs.group.more", 1.into()).is_err());
    }

    #[test]
    fn the_plan_of_every_shipped_scenario_is_valid() {
        let board = seimon_board::Board::shipped("lab-namespace").unwrap();
        let mut files = shipped_scenarios().unwrap();
        files.extend(crate::demo::ACTS.iter().map(|act| scenario_file(act.file)));
        for file in files {
            let scenario = crate::scenario::Scenario::read(&file).unwrap();
            let text = plan_text(&scenario.plan.file, &file, &[&scenario.plan.set]).unwrap();
            if let Err(errors) = seimon_plan::parse(&text, "plan.toml", &board) {
                panic!("{}: {errors}", file.display());
            }
        }
    }
}
