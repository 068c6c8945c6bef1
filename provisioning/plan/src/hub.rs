//! The hub plan: the far end of the schools' tunnels, in a town hall or a data centre. A file of its own, with
//! `role = "hub"` at its top; the same agent carries it out.
//!
//! As with a school's plan, [`ValidHubPlan`] is the witness of validation and [`parse_hub`] the only road to one. All
//! mistakes are told at once, each with its line and what to do.

mod model;
mod parse;
mod rules;
mod valid;

pub use model::{
    Cap, HubControl, HubDns, HubEgress, HubKey, HubPlan, HubRole, HubSchool, HubSite, HubTunnel, Town,
};
pub use parse::{Role, hub_schema, parse_hub, role_of};
pub use rules::hub_rules;
pub use valid::ValidHubPlan;
