//! `plan check` without an agent, and the documented schema.

use crate::common::{Outcome, golden, outcome, seimonctl};
use anyhow::Result;
use schemars::JsonSchema;
use seimon_ipc::control::{Event, Request, Response};
use seimonctl::CheckedPlan;

const BOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../board/boards/lab-namespace.toml");

fn check(bytes: &[u8], options: &[&str]) -> Result<Outcome> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("site.toml"), bytes)?;
    let mut command = seimonctl();
    command.current_dir(directory.path()).args(options).args([
        "plan",
        "check",
        "site.toml",
        "--board",
        BOARD,
    ]);
    Ok(outcome(command.output()?))
}

#[test]
fn every_error_of_a_plan_is_printed_with_its_line_and_what_to_do() -> Result<()> {
    let plan = "version = 1\nfoo = 1\n[site]\nid = \"BAD ID\"\n";
    let shown = check(plan.as_bytes(), &[])?;
    assert_eq!((shown.code, shown.out.as_str()), (Some(1), ""));
    for words in ["site.toml:2:", "site.toml:4:", "foo = 1", "to do:"] {
        assert!(shown.err.contains(words), "{words}: {}", shown.err);
    }
    let shown = check(plan.as_bytes(), &["--lang", "ja"])?;
    assert!(shown.err.contains("対処:"), "{}", shown.err);

    let shown = check(plan.as_bytes(), &["--json"])?;
    assert_eq!(shown.code, Some(1));
    let checked: CheckedPlan = serde_json::from_str(&shown.out)?;
    assert!(!checked.valid && checked.errors.iter().any(|error| error.line == 2 && !error.fix.ja.is_empty()));
    Ok(())
}

#[test]
fn what_is_no_plan_at_all_is_said_to_be_none() -> Result<()> {
    let noise: Vec<u8> = (0..10_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for bytes in [noise.as_slice(), b"\xff\xfe", b"", b"[[[["] {
        let shown = check(bytes, &[])?;
        assert_eq!(shown.code, Some(1), "{}", shown.err);
        assert!(!shown.err.is_empty() && shown.err.len() < 100_000 && !shown.err.contains("panicked"));
    }
    Ok(())
}

#[test]
fn files_that_cannot_be_read_are_named() -> Result<()> {
    let shown = outcome(seimonctl().args(["plan", "check", "/nonexistent.toml", "--board", BOARD]).output()?);
    assert_eq!(shown.code, Some(1));
    assert!(shown.err.contains("/nonexistent.toml"), "{}", shown.err);
    let shown =
        outcome(seimonctl().args(["plan", "check", BOARD, "--board", "/nonexistent-board.toml"]).output()?);
    assert_eq!(shown.code, Some(1));
    assert!(shown.err.contains("/nonexistent-board.toml"), "{}", shown.err);
    Ok(())
}

#[test]
fn the_examples_are_good_plans() -> Result<()> {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../provisioning/plan/examples");
    let Ok(entries) = std::fs::read_dir(examples) else {
        eprintln!("skipped: there are no example plans");
        return Ok(());
    };
    for entry in entries {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            let shown =
                outcome(seimonctl().args(["plan", "check"]).arg(&file).args(["--board", BOARD]).output()?);
            assert_eq!(shown.code, Some(0), "{}: {}", file.display(), shown.err);
        }
    }
    Ok(())
}

/// What goes over the control socket, and what `plan check` prints.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct Control {
    /// A line from a tool to the agent.
    request: Request,
    /// The agent's answer, which `seimonctl --json` prints as it came; of `events` only the events, one a line.
    response: Response,
    /// A line of `seimonctl --json events`.
    event: Event,
    /// What `seimonctl --json plan check` prints.
    plan_check: CheckedPlan,
}

#[test]
fn the_documented_schema_is_current() -> Result<()> {
    let mut text = serde_json::to_string_pretty(&schemars::schema_for!(Control))?;
    text.push('\n');
    golden("../../docs/control.schema.json", &text);
    Ok(())
}
