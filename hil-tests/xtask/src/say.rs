//! Output: plain lines, nothing that needs a terminal.

use std::io::Write;

/// Writes `text` as it is. A closed pipe is nobody's problem.
pub(crate) fn out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

pub(crate) fn line(text: &str) {
    out(&format!("{text}\n"));
}

/// One line about what is about to happen, for work that takes a while.
pub(crate) fn step(text: &str) {
    out(&format!("== {text}\n"));
}

pub(crate) fn problem(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{text}");
}
