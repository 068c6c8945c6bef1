//! Hardware as data: board descriptors, and the vocabulary that every other crate shares.
//!
//! [`vocabulary`] is `no_std` in spirit (only `core` and `alloc`-free types) so that firmware and agent mean the
//! same thing by an instant, a MAC address or an interface name. Descriptors ([`Board`]) say which words are printed
//! on the case and which kernel interface each stands for; they know nothing of sites, policy or I/O.

mod descriptor;
pub mod hardware;
mod picture;
#[cfg(test)]
mod schema;
pub mod vocabulary;

pub use descriptor::{Board, InvalidBoard, Port, PortRole, Via};
pub use picture::svg;
pub use vocabulary::{Instant, InterfaceName, InvalidInterfaceName, InvalidMacAddress, MacAddress};
