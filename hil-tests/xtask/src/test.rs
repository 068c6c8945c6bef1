//! `cargo xtask test`: everything this machine can check; what it cannot is named with the reason.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{build, deps, layers, say, simulation};

#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    /// What was not checked, and why.
    skipped: Vec<String>,
    failures: Vec<String>,
}

impl Tally {
    fn step(&mut self, name: &str, outcome: Result<bool>) {
        match outcome {
            Ok(true) => self.passed += 1,
            Ok(false) => self.fail(name.to_owned()),
            Err(error) => self.fail(format!("{name}: {error:#}")),
        }
    }

    fn fail(&mut self, what: String) {
        say::problem(&format!("FAILED: {what}"));
        self.failed += 1;
        self.failures.push(what);
    }

    fn skip(&mut self, what: &str, reason: &str) {
        self.skipped.push(format!("{what}: {reason}"));
    }
}

pub(crate) fn run() -> Result<ExitCode> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let lab = match deps::ensure(deps::Need::Lab, deps::Consent::Ask) {
        Ok(()) => Ok(()),
        // Without the means for a lab, all else is still worth checking.
        Err(error) => Err(format!("{error:#}")),
    };

    formatting(&mut tally);
    say::step("layers");
    match layers::check() {
        Ok(breaches) if breaches.is_empty() => tally.passed += 1,
        Ok(breaches) => breaches.into_iter().for_each(|b| tally.fail(b)),
        Err(error) => tally.fail(format!("layers: {error:#}")),
    }
    clippy(&mut tally);
    deny(&mut tally);
    tests(&mut tally)?;
    guest(&mut tally)?;
    simulation(&mut tally)?;
    match lab {
        Ok(()) => scenarios(&mut tally)?,
        Err(reason) => tally.skip("lab scenarios", &reason),
    }

    say::line("");
    for failure in &tally.failures {
        say::line(&format!("failed: {failure}"));
    }
    for skipped in &tally.skipped {
        say::line(&format!("skipped: {skipped}"));
    }
    say::line(&format!("took {}", human(start.elapsed())));
    say::line(&format!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped.len()));
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn human(time: Duration) -> String {
    format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
}

fn component(name: &str) -> bool {
    build::cargo()
        .args([name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

fn formatting(tally: &mut Tally) {
    say::step("formatting");
    if component("fmt") {
        let status = build::cargo().args(["fmt", "--all", "--check"]).stdout(Stdio::null()).status();
        tally.step("formatting (cargo fmt --all)", status.map(|s| s.success()).context("cargo fmt"));
    } else {
        tally.skip("formatting", "rustfmt is not installed (rustup component add rustfmt)");
    }
}

fn clippy(tally: &mut Tally) {
    say::step("lints");
    if component("clippy") {
        let status = build::cargo()
            .args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"])
            .status();
        tally.step("lints (cargo clippy)", status.map(|s| s.success()).context("cargo clippy"));
    } else {
        tally.skip("lints", "clippy is not installed (rustup component add clippy)");
    }
}

fn deny(tally: &mut Tally) {
    say::step("licences, bans, sources, advisories");
    if !component("deny") {
        tally.skip("licences, bans, sources, advisories", "unchecked: cargo-deny is not installed");
        return;
    }
    let status = build::cargo()
        .args(["deny", "--log-level", "error", "check", "licenses", "bans", "sources"])
        .status();
    tally.step("licences, bans, sources (cargo deny)", status.map(|s| s.success()).context("cargo deny"));
    let fetched =
        build::cargo().args(["deny", "fetch", "db"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if fetched.is_ok_and(|s| s.success()) {
        let status = build::cargo().args(["deny", "--log-level", "error", "check", "advisories"]).status();
        tally.step("advisories (cargo deny)", status.map(|s| s.success()).context("cargo deny"));
    } else {
        tally.skip("advisories", "unchecked: the advisory database could not be had");
    }
}

/// Seed of the property tests.
const SEED: &str = "PROPTEST_RNG_SEED";

/// All tests, by nextest where it is installed. What a test skipped, it says in a line `skipped: why`.
fn tests(tally: &mut Tally) -> Result<()> {
    say::step("tests");
    let nextest = component("nextest");
    let mut command = build::cargo();
    if nextest {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast", "--success-output", "final"]);
        // Tests in namespaces have time limits, and machines have bad moments: one more try, named in the output.
        command.args(["--retries", "1", "--status-level", "retry", "--final-status-level", "flaky"]);
    } else {
        command.args(["test", "--workspace", "--no-fail-fast", "--", "--show-output"]);
    }
    if std::env::var_os(SEED).is_none() {
        // The same worlds in every run; others by setting the variable.
        command.env(SEED, "1");
    }
    let text = tee(&mut command)?;
    let before = (tally.passed, tally.failed);
    for line in text.lines() {
        if let Some(reason) = line.trim_start().strip_prefix("skipped: ") {
            tally.skip("a test", reason);
        }
        if let Some(name) = line.trim_start().strip_prefix("FLAKY ") {
            tally.skip("a first try", &format!("failed, the second passed: {name}"));
        }
        if let Some(counts) = if nextest { nextest_counts(line) } else { cargo_test_counts(line) } {
            tally.passed += counts.passed;
            if counts.failed > 0 {
                tally.fail(format!("{} tests (see above)", counts.failed));
                tally.failed += counts.failed - 1;
            }
            if counts.ignored > 0 {
                tally.skip("tests marked as ignored", &counts.ignored.to_string());
            }
        }
    }
    // A test that skipped itself was counted as passed by the harness.
    let named = tally.skipped.iter().filter(|s| s.starts_with("a test: ")).count() as u64;
    tally.passed = tally.passed.saturating_sub(named).max(before.0);
    if (tally.passed, tally.failed) == before && named == 0 {
        tally.fail("tests: nothing ran (see above)".to_owned());
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// `test result: ok. 12 passed; 0 failed; 1 ignored; …`
fn cargo_test_counts(line: &str) -> Option<Counts> {
    let rest = line.trim().strip_prefix("test result: ")?;
    Some(counts(rest.split_once(". ")?.1.split(';')))
}

/// `Summary [   1.2s] 40 tests run: 39 passed (1 slow), 1 failed, 0 skipped`
fn nextest_counts(line: &str) -> Option<Counts> {
    let rest = line.trim().strip_prefix("Summary [")?;
    let mut counts = counts(rest.split_once("run: ")?.1.split(','));
    for part in rest.split_once("run: ")?.1.split(',') {
        let mut words = part.split_whitespace();
        let (Some(count), Some(word)) = (words.next().and_then(|n| n.parse::<u64>().ok()), words.next())
        else {
            continue;
        };
        match word {
            "skipped" => counts.ignored += count,
            "timed" | "exec" => counts.failed += count,
            _ => {}
        }
    }
    Some(counts)
}

fn counts<'a>(parts: impl Iterator<Item = &'a str>) -> Counts {
    let mut counts = Counts::default();
    for part in parts {
        let mut words = part.split_whitespace();
        let (Some(count), Some(word)) = (words.next().and_then(|n| n.parse().ok()), words.next()) else {
            continue;
        };
        match word {
            "passed" => counts.passed = count,
            "failed" => counts.failed = count,
            "ignored" => counts.ignored = count,
            _ => {}
        }
    }
    counts
}

/// What needs a kernel with flowtables and WireGuard, in a guest that has one.
fn guest(tally: &mut Tally) -> Result<()> {
    say::step("a guest's kernel: flowtables, WireGuard");
    let text = tee(&mut build::guest(&["quick".to_owned()]))?;
    let mut seen = 0;
    for line in text.lines() {
        if let Some(reason) = line.trim_start().strip_prefix("skipped: ") {
            tally.skip("in the guest", reason);
            seen += 1;
        }
        if let Some(counts) = cargo_test_counts(line) {
            seen += 1;
            tally.passed += counts.passed;
            for _ in 0..counts.failed {
                tally.fail("a test in the guest (see above)".to_owned());
            }
        }
    }
    if seen == 0 {
        tally.fail("the guest: nothing ran (see above)".to_owned());
    }
    Ok(())
}

/// Ten thousand futures, every crash, a hundred hours of loss.
fn simulation(tally: &mut Tally) -> Result<()> {
    say::step("simulation");
    let json = build::target_dir()?.join("test-sim.json");
    let _ = std::fs::remove_file(&json);
    let outcome = simulation::simulate(&["--json", &json.display().to_string()].map(str::to_owned));
    let read =
        std::fs::read(&json).ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let checks = read.as_ref().and_then(|results| results["checks"].as_array());
    match checks {
        Some(checks) if !checks.is_empty() => {
            for check in checks {
                tally.step(check["name"].as_str().unwrap_or("?"), Ok(check["status"] == "pass"));
            }
        }
        Some(_) | None => tally.fail(format!(
            "simulation: {}",
            outcome.map_or_else(|e| format!("{e:#}"), |_| "no result was written".to_owned())
        )),
    }
    Ok(())
}

/// The lab's short subset, with the gateway as shipped.
fn scenarios(tally: &mut Tally) -> Result<()> {
    say::step("lab: the short scenarios, on a real kernel");
    let json = build::target_dir()?.join("test-lab.json");
    let _ = std::fs::remove_file(&json);
    let arguments: Vec<String> = ["--all", "--short", "--jobs", "2", "--json"]
        .iter()
        .map(|s| (*s).to_owned())
        .chain([json.display().to_string()])
        .collect();
    let outcome = build::lab_program(&["run".to_owned()], &arguments);
    let read =
        std::fs::read(&json).ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let Some(results) = read else {
        tally.fail(format!(
            "lab: {}",
            outcome.map_or_else(|e| format!("{e:#}"), |_| "no result was written".to_owned())
        ));
        return Ok(());
    };
    let runs = results["runs"].as_array().cloned().unwrap_or_else(|| vec![results.clone()]);
    for run in &runs {
        let name = run["scenario"].as_str().unwrap_or("?");
        let checks = run["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let bad: Vec<&str> =
            checks.iter().filter(|c| c["status"] != "pass").filter_map(|c| c["name"].as_str()).collect();
        if bad.is_empty() && !checks.is_empty() {
            tally.passed += 1;
        } else {
            tally.fail(format!(
                "scenario `{name}`: {}",
                if bad.is_empty() { "no checks".to_owned() } else { bad.join(", ") }
            ));
        }
    }
    Ok(())
}

/// Runs a command; its output is seen at once and returned.
fn tee(command: &mut Command) -> Result<String> {
    use std::io::{BufRead, BufReader};
    // Both streams into one: nextest writes its summary to the error stream.
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .env("NEXTEST_HIDE_PROGRESS_BAR", "1")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    // The command holds the writing ends; while it lives, reading would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut text = String::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        say::line(&line);
        text.push_str(&line);
        text.push('\n');
    }
    child.wait()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_summary_is_understood() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(cargo_test_counts(line), Some(Counts { passed: 12, failed: 2, ignored: 1 }));
    }

    #[test]
    fn nextests_summary_is_understood() {
        let line =
            "     Summary [   1.203s] 40 tests run: 36 passed (1 slow), 1 failed, 2 timed out, 3 skipped";
        assert_eq!(nextest_counts(line), Some(Counts { passed: 36, failed: 3, ignored: 3 }));
    }

    #[test]
    fn other_lines_are_not_summaries() {
        assert_eq!(cargo_test_counts("test tests::other ... ok"), None);
        assert_eq!(nextest_counts("    Starting 40 tests across 3 binaries"), None);
    }
}
