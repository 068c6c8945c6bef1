//! The one durable log. A record that [`Journal::append`] accepted is on disk, synced, before it returns; a power cut at
//! any byte afterwards does not lose it.
//!
//! ```text
//!  FOLDER/journal          header │ record │ record │ … │ (torn end: cut off when opened, and reported)
//!  FOLDER/journal.new      a creation or compaction that is not finished; of no meaning when found
//!  FOLDER/journal.bad-N    kept aside because its middle was damaged
//!  FOLDER/journal.lock     held while open
//! ```
//! Room for some hundred records is set aside behind the journal's end, so that a full disk does not keep anybody from writing
//! down how to get back to where all was well.
//!
//! All calls block. The disk is behind [`Disk`], so that tests can cut the power after every byte.

mod disk;
mod format;
mod journal;

#[cfg(feature = "sabotage")]
pub use disk::Without;
pub use disk::{Disk, Folder};
pub use format::{FORMAT_VERSION, MAX_PAYLOAD, Record};
pub use journal::{AppendError, Journal, MAX_BYTES, Note, OpenError, Opened};
