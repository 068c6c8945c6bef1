//! The plans under test.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, anyhow};
use seimon_board::Board;
use seimon_plan::{ValidSitePlan, parse};

const TOWN: &str = include_str!("../../../../provisioning/plan/examples/two-line-town.toml");

/// Two uplinks, six LAN ports.
const BOARD: &str = include_str!("../../../core/tests/network/segmentation/six-lan-ports.toml");

/// The example, its internet line narrowed as PPPoE does.
fn narrow_town() -> String {
    TOWN.replacen("[lines.internet]", "[lines.internet]\nmtu = 1454", 1)
}

pub(crate) fn two_line_town() -> Result<ValidSitePlan> {
    valid(&narrow_town())
}

/// The town whose affairs may try a new path in part; the room `office` is 10.20.1.101.
pub(crate) fn town_with_canary(who: &str) -> Result<ValidSitePlan> {
    let paths = "group = \"affairs\"\npaths = [\"closed\", \"direct\"]";
    let room =
        "[migration.rooms.office]\nzone = \"affairs\"\nprefixes = [\"10.20.1.101/32\"]\n[migration.times]";
    let text = narrow_town().replacen(paths, &format!("{paths}\ncanary = {{ {who}, time = \"1h\" }}"), 1);
    valid(&text.replacen("[migration.times]", room, 1))
}

/// The town whose affairs zone has a second port; who is there may try a new path.
pub(crate) fn town_with_canary_at(port: &str) -> Result<ValidSitePlan> {
    let paths = "group = \"affairs\"\npaths = [\"closed\", \"direct\"]";
    let canary = format!("{paths}\ncanary = {{ ports = [\"{port}\"], time = \"1h\" }}");
    let ports = "ports = [\"LAN1\"]\nipv4";
    let both = format!("ports = [\"LAN1\", \"{port}\"]\nipv4");
    valid(&narrow_town().replacen(paths, &canary, 1).replacen(ports, &both, 1))
}

/// The same town with six zones, all with IPv6. The hub belongs to affairs and management; every other zone is closed to it.
pub(crate) fn six_zones() -> Result<ValidSitePlan> {
    valid(&six_zones_text()?)
}

/// The six zones without the permit from one zone to another.
pub(crate) fn six_zones_without(from: &str, to: &str) -> Result<ValidSitePlan> {
    let mut plan: toml::Table = six_zones_text()?.parse().context("the plan")?;
    let permits = plan.get_mut("permits").and_then(toml::Value::as_array_mut).context("permits")?;
    let is = |permit: &toml::Value, key: &str, value: &str| {
        permit.get(key).and_then(toml::Value::as_str) == Some(value)
    };
    let before = permits.len();
    permits.retain(|permit| !(is(permit, "from", from) && is(permit, "to", &format!("zone:{to}"))));
    anyhow::ensure!(permits.len() + 1 == before, "no such permit");
    valid(&plan.to_string())
}

fn six_zones_text() -> Result<String> {
    let mut plan: toml::Table = narrow_town().parse().context("the example")?;
    let zones: toml::Table = six().parse().context("zones")?;
    for key in ["zones", "permits"] {
        let value = zones.get(key).context("a key")?.clone();
        plan.insert(key.to_owned(), value);
    }
    let hub = plan.get_mut("hub").and_then(toml::Value::as_table_mut).context("hub")?;
    hub.insert("zones".into(), vec!["affairs", "management"].into());
    let migration = plan.get_mut("migration").and_then(toml::Value::as_table_mut).context("migration")?;
    let routes = migration.get_mut("routes").and_then(toml::Value::as_array_mut).context("routes")?;
    let more = zones.get("routes").and_then(toml::Value::as_array).context("routes")?;
    routes.extend(more.iter().cloned());
    Ok(plan.to_string())
}

/// The same six zones behind a switch: printers have a port of their own, all others VLAN 10 times their number on the trunk.
pub(crate) fn six_zones_on_a_trunk() -> Result<ValidSitePlan> {
    let mut text = six_zones_text()?;
    for (n, (zone, _)) in (1..).zip(ZONES).filter(|(_, (zone, _))| *zone != "printers") {
        let port = format!("ports = [\"LAN{n}\"]");
        anyhow::ensure!(text.contains(&port), "{zone}: {port}");
        text = text.replacen(&port, &format!("trunks = [\"LAN6\"]\nvlan = {}", n * 10), 1);
    }
    valid(&text)
}

fn valid(text: &str) -> Result<ValidSitePlan> {
    let board = Board::parse(BOARD, "board.toml").map_err(|error| anyhow!("{error}"))?;
    parse(text, "plan.toml", &board).map_err(|errors| anyhow!("{errors}"))
}

/// In the order of their ports. The role of a zone is its name; the second word is its `internet`.
const ZONES: [(&str, &str); 6] = [
    ("affairs", "listed"),
    ("learning", "open"),
    ("printers", "listed"),
    ("staff", "open"),
    ("guest", "open"),
    ("management", "listed"),
];

/// From, to, ports. None of them: a service's own, a zone's all.
const PERMITS: [(&str, &str, &[&str]); 10] = [
    ("affairs", "service:affairs", &[]),
    ("affairs", "service:idp", &[]),
    ("learning", "service:learning", &[]),
    ("learning", "service:drill", &[]),
    ("affairs", "zone:printers", &["tcp/9100", "tcp/631"]),
    ("learning", "zone:printers", &["tcp/631"]),
    ("staff", "zone:printers", &[]),
    ("staff", "zone:affairs", &["tcp/445"]),
    ("management", "zone:affairs", &["tcp/22", "udp/161"]),
    ("management", "zone:printers", &["udp/100-300"]),
];

/// To the internet, beside the example's.
const ROUTES: [(&str, &[&str]); 2] = [("staff", &["closed", "direct"]), ("guest", &["direct"])];

/// Zone number n, counted from 1: port LANn, 10.20.n.0/24, fd20:0:0:n::/64.
fn six() -> String {
    let mut text = String::new();
    for (n, (zone, internet)) in (1..).zip(ZONES) {
        let _ = write!(
            text,
            "[zones.{zone}]\nrole = \"{zone}\"\nports = [\"LAN{n}\"]\nipv4 = \"10.20.{n}.1/24\"\n\
             ipv6 = \"fd20:0:0:{n}::1/64\"\ninternet = \"{internet}\"\n"
        );
    }
    for (from, to, ports) in PERMITS {
        let _ = write!(
            text,
            "[[permits]]\nfrom = \"{from}\"\nto = \"{to}\"\nports = {ports:?}\n\
             who = \"w\"\nwhy = \"y\"\nuntil = \"2099-03-31\"\n"
        );
    }
    for (zone, paths) in ROUTES {
        let _ = write!(text, "[[routes]]\nzone = \"{zone}\"\ngroup = \"internet\"\npaths = {paths:?}\n");
    }
    text
}
