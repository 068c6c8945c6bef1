//! The lab: a town of namespaces, its loads and events, and what can be measured from outside.

pub mod load;
pub mod netns;
pub mod world;
