//! Agent ↔ `seimon-page`: the school's status page, and the zones' PAC files.
//!
//! The page's server is started by the agent with no privilege at all: the socket pair is file descriptor [`SOCKET_FD`], the
//! listening TCP sockets follow it; there are as many as [`LISTENERS_ENV`] says. It knows nothing but the
//! page and the PAC files that it was last told, and tells who took a PAC file.

use std::net::IpAddr;

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
    /// In place of those before: one for each listening socket, in their order; `None`: there is none.
    Pacs { serial: u64, files: Vec<Option<String>> },
    /// What was said with [`FromPage::TookPac`] is taken note of: the files of this number may be given to this client.
    Noted { client: IpAddr, serial: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromPage {
    Hello {
        version: u32,
    },
    /// Somebody is about to get the PAC file of this number at this listening socket, counted from 0. He is kept waiting for
    /// [`ToPage::Noted`], for a moment: with the file in his hands he may go another way in the middle of his work.
    TookPac {
        listener: usize,
        client: IpAddr,
        serial: u64,
    },
}
