//! What the agent's processes say to each other, and what people's tools say to the agent.
//!
//! | between | carrier | module |
//! |---|---|---|
//! | agent ↔ `seimon-resolver` | Unix socket pair, inherited | [`resolver`] |
//! | agent ↔ `seimon-probe` | Unix socket pair, inherited | [`probe`] |
//! | agent → `seimon-page` | Unix socket pair, inherited | [`page`] |
//! | agent ↔ `seimonctl`, scripts | Unix socket `control.sock` | [`control`] |
//! | probe ↔ the municipality's echo service | UDP | [`echo`] |
//!
//! [`report`] is what crosses `control.sock` and is kept; [`hub`] is what a hub says of its schools. All but [`echo`] are JSON objects, one a line ([`frame`]); the first line of either side says the version.

pub mod control;
pub mod echo;
pub mod frame;
pub mod hub;
pub mod page;
pub mod probe;
pub mod report;
pub mod resolver;
