//! The site plan: what a town intends for one school, as a TOML file that people write.
//!
//! [`model`] holds the types. A plan becomes usable only as a [`ValidSitePlan`], and validation ([`parse`]) is the
//! only road to one:
//!
//! ```text
//! bytes ─UTF-8, size→ text ─TOML→ tree with places ─schema→ SitePlan ─rules, board→ ValidSitePlan
//!                                      │                        │
//!                                      └──── every error: file, line, quoted line, rule, what to do
//! ```
//!
//! Nothing here reads a clock or a file: `now` and text are passed in.

mod calendar;
mod error;
mod format;
mod hub;
pub mod model;
mod overrides;
mod parse;
mod rules;
mod shape;
mod tree;
mod valid;

pub use calendar::{WindowState, window_state};
pub use error::{PlanError, PlanErrors, Text};
pub use hub::{
    Cap, HubControl, HubDns, HubEgress, HubKey, HubPlan, HubRole, HubSchool, HubSite, HubTunnel, Role, Town,
    ValidHubPlan, hub_rules, hub_schema, parse_hub, role_of,
};
pub use model::*;
pub use overrides::{OverrideError, with_overrides};
pub use parse::{LARGEST, VERSION, parse, parse_at, parse_bytes};
pub use rules::rules;
pub use shape::schema;
pub use valid::ValidSitePlan;
