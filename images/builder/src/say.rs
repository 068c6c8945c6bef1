//! Progress on standard error, so that standard output is the result's alone.

use std::io::Write as _;

pub(crate) fn line(text: &str) {
    let _nobody_reads = writeln!(std::io::stderr().lock(), "{text}");
}

/// About what is begun now and takes a while.
pub(crate) fn step(text: &str) {
    line(&format!("== {text}"));
}

/// To standard output.
pub(crate) fn result(text: &str) {
    let _nobody_reads = writeln!(std::io::stdout().lock(), "{text}");
}
