//! The real program, with real sockets, in a network namespace of its own: a fake agent on its socket, fake servers on
//! port 53 of loopback addresses.

mod scenarios;
mod world;

use std::process::{Command, Stdio};

const INSIDE: &str = "SEIMON_TEST_IN_NAMESPACE";

/// Runs the test `name` again, inside a network namespace. `true`: we are inside, go on.
fn in_namespace(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.is_ok_and(|status| status.success()), "lo cannot be brought up");
        return true;
    }
    let ways: [&[&str]; 2] = [&["--user", "--map-root-user", "--net"], &["--net"]];
    let works = |way: &&&[&str]| {
        let tried = Command::new("unshare")
            .args(**way)
            .args(["ip", "link", "set", "lo", "up"])
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    };
    let Some(way) = ways.iter().find(works) else {
        eprintln!("skipped: no network namespace can be made here");
        return false;
    };
    let me = std::env::current_exe().expect("this program");
    let output = Command::new("unshare")
        .args(*way)
        .arg(me)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        // Not on ours: its summary would be counted as another test's.
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .expect("unshare runs");
    let summary = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "failed inside the namespace: {summary}");
    assert!(summary.contains("1 passed"), "{name} is not a test's name: {summary}");
    false
}
