//! A whole gateway on a bench: a virtual machine that is started here, or a box (or a machine) that somebody else started,
//! given as its maintenance line and network interfaces.
//!
//! - [`qemu`]: the virtual machine of a board file, its cards in the board's order; its power and its cables.
//! - [`port`]: the maintenance port, which everything inside the gateway is asked over (`docs/maintenance.md`).
//! - [`control`]: the agent's control socket, reached over that port.
//! - [`bench`]: the file that describes a bench of real boards (`docs/bench.md`).
//!
//! What town the gateway stands in is not known here; that is the lab's (`seimon-lab`).

pub mod bench;
pub mod control;
pub mod port;
pub mod qemu;
