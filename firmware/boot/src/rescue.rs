//! The status page that is shown when nothing is started, and as much HTTP as one page needs.
//!
//! For whoever stands in the school with a laptop: Japanese first, then English, one page without links, scripts or
//! anything to press.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use crate::board::Seen;
use crate::state::{Fall, SlotState};
use crate::{BootState, Slot, Status};

/// Why nothing is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Neither slot can be.
    NothingBootable,
    /// Somebody asked for this page.
    Requested,
    /// There is no disk to decide about; with what is wrong and what to do.
    Disk(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingBootable => f.write_str(
                "neither slot can be started: write an image onto the disk; what still verifies is tried again in 10 minutes",
            ),
            Self::Requested => {
                f.write_str("nothing is started because somebody asked for it: cut the power, or wait 10 minutes, to start")
            }
            Self::Disk(what) => f.write_str(what),
        }
    }
}

impl Trouble {
    fn ja(&self) -> &'static str {
        match self {
            Self::NothingBootable => {
                "起動できるイメージがありません。十分ごとに再試行します。保守担当者にこの画面を伝えてください。"
            }
            Self::Requested => "指示により起動を止めています。電源を入れ直すか、十分待つと起動します。",
            Self::Disk(_) => "ディスクを使えません。保守担当者にこの画面を伝えてください。",
        }
    }
}

/// What the page is made of.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The guardian's version.
    pub guardian: &'a str,
    pub seen: &'a Seen,
    pub trouble: &'a Trouble,
    pub state: Option<&'a BootState>,
    /// As on the console.
    pub lines: &'a [String],
}

/// What a browser wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// More bytes are to come.
    NotYet,
    Page,
    Head,
    Other,
}

/// A request is no longer than this.
const REQUEST_MOST: usize = 4096;

pub fn asked(request: &[u8]) -> Asked {
    if !request.windows(4).any(|end| end == b"\r\n\r\n") {
        return if request.len() < REQUEST_MOST { Asked::NotYet } else { Asked::Other };
    }
    if request.starts_with(b"GET ") {
        Asked::Page
    } else if request.starts_with(b"HEAD ") {
        Asked::Head
    } else {
        Asked::Other
    }
}

/// The bytes to send. [`Asked::NotYet`] is answered as the page.
pub fn answer(asked: Asked, page: &[u8]) -> Vec<u8> {
    let (status, body): (_, &[u8]) = match asked {
        Asked::Page | Asked::NotYet | Asked::Head => ("200 OK", page),
        Asked::Other => ("405 Method Not Allowed", b"only GET\r\n"),
    };
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    if asked != Asked::Head {
        bytes.extend_from_slice(body);
    }
    bytes
}

/// HTML, in UTF-8.
pub fn page(report: &Report<'_>) -> Vec<u8> {
    let Report { guardian, seen, trouble, state, lines } = *report;
    let mut html = String::from(
        "<!doctype html><html lang=\"ja\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>正門 Seimon</title><style>body{font:16px/1.6 sans-serif;max-width:46em;margin:2em auto;padding:0 1em}\
         td,th{padding:.2em 1em .2em 0;text-align:left;vertical-align:top}pre{overflow:auto;background:#eee;padding:1em}\
         </style><h1>正門は起動していません</h1>",
    );
    let mut put = |text: &str| html.push_str(text);
    put(&format!("<p>{}</p><p lang=\"en\">{}</p>", trouble.ja(), Escaped(&trouble.to_string())));
    if let Some(state) = state {
        if let Some(Fall { slot, reason, version, sequence: _ }) = &state.last_fall {
            let version = version.as_str();
            put(&format!(
                "<p>直近の失敗：スロット{slot}（{}）{}。</p><p lang=\"en\">Last failure: slot {slot} (version {}): {}.</p>",
                Escaped(version),
                reason.sentence_ja(),
                Escaped(version),
                reason.sentence()
            ));
        }
        put("<table><tr><th>スロット Slot<th>版 Version<th>状態 State");
        for slot in Slot::BOTH {
            let SlotState { status, version, .. } = state.slot(slot);
            put(&format!("<tr><td>{slot}<td>{}<td>{}", Escaped(version.as_str()), status_words(*status)));
        }
        put("</table>");
    }
    put(&format!(
        "<table><tr><th>機種 Board<td>{}<tr><th>起動プログラム Boot guardian<td>{}</table><h2 lang=\"en\">Console</h2><pre lang=\"en\">",
        Escaped(&seen.to_string()),
        Escaped(guardian)
    ));
    for line in lines {
        put(&format!("{}\n", Escaped(line)));
    }
    put("</pre></html>\n");
    html.into_bytes()
}

fn status_words(status: Status) -> &'static str {
    match status {
        Status::Empty => "空 empty",
        Status::Trial => "試用中 on trial",
        Status::Confirmed => "確認済み confirmed",
        Status::Bad => "使用不可 bad",
    }
}

/// Text within HTML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            other => f.write_char(other),
        })
    }
}
