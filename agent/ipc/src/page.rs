//! Agent → `seimon-page`: the school's status page.
//!
//! The page's server is started by the agent with no privilege at all: the socket pair is file descriptor [`SOCKET_FD`], the
//! listening TCP sockets follow it; there are as many as [`LISTENERS_ENV`] says. It knows nothing but the page it was last told.

use serde::{Deserialize, Serialize};

pub const VERSION: u32 = 1;

/// Inherited file descriptor of the socket pair.
pub const SOCKET_FD: i32 = 3;

/// How many listening sockets follow it.
pub const LISTENERS_ENV: &str = "SEIMON_PAGE_LISTENERS";

/// After this many milliseconds without a page the last one is not shown any more.
pub const STALE_MS: u64 = 180_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToPage {
    /// In place of the page before. Sent at least once a minute.
    Show { html: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromPage {
    Hello { version: u32 },
}
