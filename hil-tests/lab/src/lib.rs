//! The lab: a town of namespaces, its loads and events, and what can be measured from outside.

pub mod nodes;
pub mod wire;
mod capture;
mod dns;
mod servers;
pub mod load;
pub mod netns;
pub mod scenario;
pub mod vocabulary;
pub mod world;
pub mod report;
pub mod result;
pub mod runner;
pub mod bench;
pub mod demo;
