//! What a test bench and a gateway say to each other over the maintenance port.
//!
//! The port is a virtio-serial port of the name [`PORT`]; hardware has none, and without it the gateway's end is never
//! started. The bench asks, the gateway answers, one question at a time: [`Question`] and [`Reply`], each in a frame
//! ([`frame`]). There is no shell and no command of the asker's choice: a question is one of [`Request`]'s, files are
//! named by what they are for, processes by what they do. [`client`] is the end of a bench. See `docs/maintenance.md`.

pub mod client;
pub mod frame;
mod words;

pub use words::{
    Act, Answer, Boot, FileFor, Memory, Outcome, Process, ProcessUsage, Question, Reply, Request, Status,
};

/// Name of the virtio-serial port; in the guest it is [`DEVICE`].
pub const PORT: &str = "seimon.maintenance";
pub const DEVICE: &str = "/dev/virtio-ports/seimon.maintenance";
/// A question of another version is refused; words are only added.
pub const VERSION: u16 = 1;
