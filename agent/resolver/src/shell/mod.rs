//! Moves bytes: between clients, the paths' resolvers, the agent and [`crate::names`]. One thread, no files.
//!
//! ```text
//! listeners (serve) ──query──→ ┌────────┐ ──Ask──→ a task for each (ask) ──→ servers
//!         ↑───────answer────── │ engine │ ←─────────outcome─────┘
//!            agent (link) ←──→ └────────┘
//! ```
//! Only the engine touches the decisions. All other tasks may be dropped at any await: what they hold is a client's or a
//! server's message, which both sides know how to lose.

mod ask;
pub mod confine;
mod engine;
pub mod inherit;
mod link;
mod serve;

use anyhow::Context;
use seimon_ipc::resolver::Listener;
use tokio::sync::mpsc;

use crate::names::{Limits, Without};
use inherit::Inherited;

/// Events that wait for the engine. More than that come from clients faster than they can be read: dropped.
const EVENTS: usize = 1_024;

/// Runs until the agent closes its socket.
pub async fn run(inherited: Inherited, without: Without) -> anyhow::Result<()> {
    let Inherited { agent, udp, tcp } = inherited;
    let (events, queue) = mpsc::channel(EVENTS);
    let (words, to_agent) = mpsc::unbounded_channel();
    let agent = tokio::net::UnixStream::from_std(agent).context("the agent's socket cannot be used")?;
    for (Listener { zone, address, .. }, socket) in udp {
        let socket = tokio::net::UdpSocket::from_std(socket)
            .with_context(|| format!("the UDP socket of zone {zone} at {address} cannot be used"))?;
        tokio::spawn(serve::udp(zone, socket.into(), events.clone()));
    }
    let connections = serve::Connections::default();
    for (Listener { zone, address, .. }, socket) in tcp {
        let socket = tokio::net::TcpListener::from_std(socket)
            .with_context(|| format!("the TCP socket of zone {zone} at {address} cannot be used"))?;
        tokio::spawn(serve::tcp(zone, socket, connections.clone(), events.clone()));
    }
    let (from_agent, to) = agent.into_split();
    tokio::spawn(link::write(to, to_agent));
    tokio::spawn(link::read(from_agent, events.clone()));
    engine::run(Limits::default(), without, events, queue, words).await
}
