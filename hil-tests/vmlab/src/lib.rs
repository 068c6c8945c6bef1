//! Gateways in QEMU: the boot guardian on both boot firmwares, with disks that are good, bad or torn, and the power cut at
//! any instant.
//!
//! A *story* is one thing that happens to a gateway and what must be seen of it, on the serial port and on the disk. A
//! small program stands in for the kernel (`firmware/guardian/payload`): it says what it was given and does as its command
//! line says, so that a story is a boot firmware's start and little more.

pub mod dice;
pub mod disk;
pub mod image;
pub mod programs;
pub mod stories;
pub mod vm;
