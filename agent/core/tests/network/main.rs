//! From a site plan to the network plan, its text, and what nft says of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod canary;
mod common;
mod converges;
mod emergency;
mod explains;
mod fast;
mod golden;
mod interpreter;
mod nft;
mod nft_accepts;
mod oracle;
mod scale;
mod segmentation;
mod tunnels;
