//! The zones' name server.
//!
//! [`names`] decides: DNS messages in, DNS messages out, `now` passed in, no I/O. [`shell`] moves the bytes between it
//! and the clients, the paths' resolvers and the agent, in a process without any privilege.
//!
//! A named service is answered with its stable inside address, and only once the agent has said that the real
//! addresses of the path in use are in force in the kernel.

pub mod names;
pub mod shell;
