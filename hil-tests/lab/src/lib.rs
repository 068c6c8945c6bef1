//! The lab: a town of namespaces, its loads and events, and what can be measured from outside.

pub mod bench;
mod capture;
pub mod demo;
mod dns;
pub mod load;
pub mod netns;
pub mod nodes;
pub mod report;
pub mod result;
pub mod runner;
pub mod scenario;
mod servers;
pub mod vocabulary;
pub mod wire;
pub mod world;
