//! What an update means: whether users are as well with the new image as they were with the old one ([`trial`]), and what
//! `seimonctl update` and the updater say to each other ([`wire`]).
//!
//! ```text
//!   check ─▶ stage ──────────────────▶ apply ───────────────▶ trial ──users as well as before, for a while──▶ confirmed
//!            other slot written whole,  baseline taken,         │
//!            read back, head last       next start tries it     ├─ users worse off ──▶ back to the slot before
//!                                                               └─ started three times, never well ──▶ back
//! ```
//!
//! No I/O here: `now` is passed in.

pub mod trial;
pub mod wire;
