//! Segmentation, proved with packets: real clients and servers in namespaces around the gateway's own.
//!
//! ```text
//!  one node a zone ── lan1… ┐      ┌ wan1 ── carrier   10.10.0.2, hub 10.50.0.53, 203.0.113.99
//!  (.100 and ::100)         ├─ gw ─┤
//!                           ┘      └ wan2 ── internet  192.0.2.1, 2001:db8:2::1, 203.0.113.99, 2001:db8:113::99
//! ```
//! Whoever is reached answers with its name and the source that it saw; every node's kernel notes what arrives. Each test
//! runs in private namespaces of its own, in a process of its own; where that is not permitted it says `skipped`.

mod canary;
mod edges;
mod fast;
mod gateway;
mod matrix;
mod moving;
mod probing;
mod schools;
mod vlan;
mod wireguard;
mod world;
