//! Ten thousand futures of a school: every pure core of the gateway on a virtual network in virtual time, while everything
//! fails, against a reference model that was written without looking at them.
//!
//! ```text
//!  Schedule (seed) ─▶ World: lines, services, names, addresses   ◀── asks ── Gateway: health, migration, network plan,
//!                     Kernel: tables as text, read packet by packet ◀ tells ─         journal; wired as the agent is
//!                     Disk: what was synced survives             ◀─ writes ─
//!                     People: log-ins of many short connections
//!                              │ what goes over the borders, the truth
//!                              ▼
//!                     Reference: what must hold ─▶ violations
//! ```
//! The same seed gives the same future. A schedule that fails is made smaller ([`shrink`]) and kept as a file in `kept/`,
//! which is played first from then on.

pub mod border;
pub mod crash;
pub mod dice;
pub mod disk;
pub mod gateway;
pub mod ground;
pub mod kernel;
pub mod loss;
pub mod people;
pub mod play;
pub mod pulse;
pub mod reference;
pub mod report;
pub mod runs;
pub mod schedule;
pub mod shrink;
pub mod town;
pub mod versions;
pub mod world;
