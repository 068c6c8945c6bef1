//! The migration machine against a small world: stories, the whole table, and random schedules.

mod emergency;
mod promises;
mod simulation;
mod story;
mod table;
mod world;
