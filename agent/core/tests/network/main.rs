//! From a site plan to the network plan, its text, and what nft says of it.

mod common;
mod converges;
mod explains;
mod golden;
mod nft;
mod nft_accepts;
mod scale;
