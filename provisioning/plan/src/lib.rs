//! The site plan: what a town intends for one school, as a TOML file that people write.
//!
//! [`model`] holds the types. A plan becomes usable only as a [`ValidSitePlan`], and validation is the only road to
//! one.

pub mod model;

pub use model::*;
