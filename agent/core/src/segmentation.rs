//! Zones × services → typed ruleset.
