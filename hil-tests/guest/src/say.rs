//! Words for people.

use std::io::Write as _;

pub(crate) fn out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

pub(crate) fn step(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "── {text}");
}

pub(crate) fn problem(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "seimon-guest: {text}");
}
