//! From a hub plan to the network plan, its text, and what nft says of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "../network/nft.rs"]
mod nft;
mod table;
