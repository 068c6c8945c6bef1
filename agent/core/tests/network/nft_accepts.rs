//! The real nft takes what is rendered. Needs nft and the right to make a network namespace.

use crate::common;

use std::io::Write;
use std::process::{Command, Stdio};

use seimon_core::network_plan::render;

/// `Some(Err)`: nft refused. `None`: cannot be tried here.
fn nft(script: &str, arguments: &[&str]) -> Option<Result<String, String>> {
    let mut child = Command::new("unshare")
        .args(["-n", "nft"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(script.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if error.contains("unshare failed")
        || error.contains("Operation not permitted")
        || error.contains("failed to execute")
    {
        return None;
    }
    if output.status.success() {
        Some(Ok(String::from_utf8_lossy(&output.stdout).into_owned()))
    } else {
        Some(Err(error))
    }
}

#[test]
fn nft_takes_the_two_line_town() {
    let text = render(&common::compiled(&common::town()).ruleset);
    match nft(&text, &["-f", "-"]) {
        Some(result) => {
            result.unwrap_or_else(|error| panic!("{error}\n{text}"));
        }
        None => println!("skipped: no nft, or no right to make a network namespace"),
    }
}
