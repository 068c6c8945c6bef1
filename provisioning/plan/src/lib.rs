//! The site plan: what a town intends for one school, as a TOML file that people write.
//!
//! [`model`] holds the types. A plan becomes usable only as a [`ValidSitePlan`], and validation is the only road to
//! one.

mod calendar;
pub mod model;
mod valid;

pub use calendar::{WindowState, window_state};
pub use model::*;
pub use valid::ValidSitePlan;
