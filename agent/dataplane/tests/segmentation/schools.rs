//! The plans under test.

use anyhow::{Context as _, Result, anyhow};
use seimon_board::Board;
use seimon_plan::{ValidSitePlan, parse};

const TOWN: &str = include_str!("../../../../provisioning/plan/examples/two-line-town.toml");

/// Two uplinks, six LAN ports.
const BOARD: &str = r#"
id = "lab-namespace"
description = "test"
[ports]
WAN1 = { interface = "wan1", role = "wan" }
WAN2 = { interface = "wan2", role = "wan" }
LAN1 = { interface = "lan1", role = "lan" }
LAN2 = { interface = "lan2", role = "lan" }
LAN3 = { interface = "lan3", role = "lan" }
LAN4 = { interface = "lan4", role = "lan" }
LAN5 = { interface = "lan5", role = "lan" }
LAN6 = { interface = "lan6", role = "lan" }
"#;

/// The example, its internet line narrowed as PPPoE does.
fn narrow_town() -> String {
    TOWN.replacen("[lines.internet]", "[lines.internet]\nmtu = 1454", 1)
}

pub(crate) fn two_line_town() -> Result<ValidSitePlan> {
    valid(&narrow_town())
}

/// The same town with six zones, all with IPv6. The hub belongs to affairs and management; every other zone is closed to it.
pub(crate) fn six_zones() -> Result<ValidSitePlan> {
    let mut plan: toml::Table = narrow_town().parse().context("the example")?;
    let zones: toml::Table = SIX.parse().context("zones")?;
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
    valid(&plan.to_string())
}

fn valid(text: &str) -> Result<ValidSitePlan> {
    let board = Board::parse(BOARD, "board.toml").map_err(|error| anyhow!("{error}"))?;
    parse(text, "plan.toml", &board).map_err(|errors| anyhow!("{errors}"))
}

const SIX: &str = r#"
[zones.affairs]
role = "affairs"
ports = ["LAN1"]
ipv4 = "10.20.1.1/24"
ipv6 = "fd20:0:0:1::1/64"
internet = "listed"
[zones.learning]
role = "learning"
ports = ["LAN2"]
ipv4 = "10.20.2.1/24"
ipv6 = "fd20:0:0:2::1/64"
internet = "open"
[zones.printers]
role = "printers"
ports = ["LAN3"]
ipv4 = "10.20.3.1/24"
ipv6 = "fd20:0:0:3::1/64"
internet = "listed"
[zones.staff]
role = "staff"
ports = ["LAN4"]
ipv4 = "10.20.4.1/24"
ipv6 = "fd20:0:0:4::1/64"
internet = "open"
[zones.guest]
role = "guest"
ports = ["LAN5"]
ipv4 = "10.20.5.1/24"
ipv6 = "fd20:0:0:5::1/64"
internet = "open"
[zones.management]
role = "management"
ports = ["LAN6"]
ipv4 = "10.20.6.1/24"
ipv6 = "fd20:0:0:6::1/64"
internet = "listed"
[[permits]]
from = "affairs"
to = "service:affairs"
who = "w"
why = "y"
until = "2099-03-31"
[[permits]]
from = "affairs"
to = "service:idp"
who = "w"
why = "y"
until = "2099-03-31"
[[permits]]
from = "learning"
to = "service:learning"
who = "w"
why = "y"
until = "2099-03-31"
[[permits]]
from = "learning"
to = "service:drill"
who = "w"
why = "y"
until = "2099-03-31"
[[permits]]
from = "affairs"
to = "zone:printers"
ports = ["tcp/9100", "tcp/631"]
who = "w"
why = "y"
until = "2099-03-31"
[[permits]]
from = "learning"
to = "zone:printers"
ports = ["tcp/631"]
who = "w"
why = "y"
until = "2099-03-31"
[[permits]]
from = "staff"
to = "zone:printers"
who = "w"
why = "everything"
until = "2099-03-31"
[[permits]]
from = "staff"
to = "zone:affairs"
ports = ["tcp/445"]
who = "w"
why = "y"
until = "2099-03-31"
[[permits]]
from = "management"
to = "zone:affairs"
ports = ["tcp/22", "udp/161"]
who = "w"
why = "y"
until = "2099-03-31"
[[permits]]
from = "management"
to = "zone:printers"
ports = ["udp/100-300"]
who = "w"
why = "y"
until = "2099-03-31"
[[routes]]
zone = "staff"
group = "internet"
paths = ["closed", "direct"]
[[routes]]
zone = "guest"
group = "internet"
paths = ["direct"]
"#;
