//! Which flows between zones a plan permits: what the lab does not count as leaks.

use std::time::SystemTime;

use jiff::Timestamp;
use seimon_board::Board;
use seimon_plan::{PermitTarget, Protocol};

use crate::capture::{PermittedFlow, Ports};

/// None: the text is no valid plan, and no gateway will go by it.
pub(super) fn between_zones(plan: &str, board: &Board, now: SystemTime) -> Option<Vec<PermittedFlow>> {
    let plan = seimon_plan::parse(plan, "plan.toml", board).ok()?;
    let plan = plan.in_force_at(Timestamp::try_from(now).ok()?);
    let mut flows = Vec::new();
    for permit in &plan.permits {
        let PermitTarget::Zone(to) = &permit.to else { continue };
        let flow = |ports| PermittedFlow { from: permit.from.to_string(), to: to.to_string(), ports };
        if permit.ports.is_empty() {
            flows.push(flow(None));
        }
        flows.extend(permit.ports.iter().map(|ports| {
            let protocol = match ports.protocol {
                Protocol::Tcp => 6,
                Protocol::Udp => 17,
            };
            flow(Some(Ports { protocol, first: ports.first, last: ports.last }))
        }));
    }
    Some(flows)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::runner::plan_text;

    /// 1 July 2027.
    const SUMMER: Duration = Duration::from_secs(1_814_400_000);

    fn permitted(permits: &str) -> Option<Vec<(String, String, Option<Ports>)>> {
        let set: toml::Table = permits.parse().unwrap();
        let set: BTreeMap<String, toml::Value> = set.into_iter().collect();
        let text = plan_text("town.toml", Path::new("x.toml"), &[&set]).unwrap();
        let board = Board::shipped("lab-namespace").unwrap();
        let flows = between_zones(&text, &board, SystemTime::UNIX_EPOCH + SUMMER)?;
        Some(flows.into_iter().map(|flow| (flow.from, flow.to, flow.ports)).collect())
    }

    #[test]
    fn permits_that_a_scenario_sets_are_no_leaks_while_they_are_in_force() {
        let tcp = |first, last| Some(Ports { protocol: 6, first, last });
        let flow = |from: &str, ports| (from.to_owned(), "printers".to_owned(), ports);
        let shipped = vec![
            flow("affairs", tcp(9100, 9100)),
            flow("affairs", tcp(631, 631)),
            flow("learning", tcp(631, 631)),
        ];
        assert_eq!(permitted("").unwrap(), shipped);
        let permit = |from: &str, to: &str, ports: &str, until: &str| {
            format!(
                "[[permits]]\nfrom = \"{from}\"\nto = \"{to}\"\nports = [{ports}]\n\
                 who = \"x\"\nwhy = \"y\"\nuntil = \"{until}\"\n"
            )
        };
        let text = [
            // Without these two the plan's routes would lead nowhere.
            permit("affairs", "service:affairs", "", "2029-03-31"),
            permit("learning", "service:learning", "", "2029-03-31"),
            permit("learning", "zone:printers", "\"tcp/9100-9102\"", "2029-03-31"),
            permit("affairs", "zone:printers", "", "2029-03-31"),
            permit("learning", "zone:printers", "\"tcp/631\"", "2026-03-31"),
        ]
        .concat();
        let set = vec![flow("learning", tcp(9100, 9102)), flow("affairs", None)];
        assert_eq!(permitted(&text).unwrap(), set, "the last has passed");
        assert_eq!(permitted("nonsense = 1\n"), None);
    }
}
