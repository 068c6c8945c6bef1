//! From text to a valid hub plan, or to everything that is wrong with it.

use jiff::tz::TimeZone;
use seimon_board::Board;
use toml::de::{DeTable, DeValue};

use super::model::HubPlan;
use super::rules;
use super::valid::ValidHubPlan;
use crate::error::PlanErrors;
use crate::parse::{Draft, draft, utf8};

/// What a plan makes of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A site plan: the gateway of a school.
    School,
    /// A hub plan.
    Hub,
}

/// What the text says that it is, however much else is wrong with it: a hub's says `role = "hub"` at its top.
pub fn role_of(text: &str) -> Role {
    let (table, _) = DeTable::parse_recoverable(text.strip_prefix('\u{feff}').unwrap_or(text));
    match table.get_ref().get("role").map(toml::Spanned::get_ref) {
        Some(DeValue::String(role)) if role == "hub" => Role::Hub,
        Some(_) | None => Role::School,
    }
}

/// The schema of a hub plan.
pub fn hub_schema() -> serde_json::Value {
    schemars::schema_for!(HubPlan).to_value()
}

/// Reads and validates a hub plan for a board. `file` is only named in errors; all of them are returned.
pub fn parse_hub(bytes: &[u8], file: &str, board: &Board) -> Result<ValidHubPlan, PlanErrors> {
    let text = utf8(bytes, file)?;
    let Draft { source, tree, plan, mut errors } = draft::<HubPlan>(text, file, &hub_schema())?;
    errors.extend(rules::check(&plan, board, &source, &tree));
    match TimeZone::get(&plan.hub.timezone) {
        Ok(zone) if errors.is_empty() => Ok(ValidHubPlan { plan, board: board.clone(), zone }),
        Ok(_) | Err(_) => Err(PlanErrors::new(errors)),
    }
}
