//! Whatever the bytes: an answer, never a panic; and what is accepted keeps its promises.

use proptest::prelude::*;
use seimon_board::Board;
use seimon_plan::{PlanErrors, parse, parse_at, parse_bytes};

const EXAMPLES: [&str; 3] = [
    include_str!("../examples/two-line-town.toml"),
    include_str!("../examples/one-line-town.toml"),
    include_str!("../examples/behind-leased-router.toml"),
];

/// Pieces that mean something in a plan, so that edits get past the first check.
const PIECES: &[&str] = &[
    "",
    "\"",
    "[",
    "]]",
    "{",
    "}",
    "=",
    "\n",
    "#",
    ".",
    "-1",
    "0",
    "99999999999999999999",
    "1e999",
    "nan",
    "true",
    "''",
    "\"\"",
    "[[permits]]\n",
    "[zones.x]\n",
    "[paths.closed]\n",
    "\"service:\"",
    "\"0s\"",
    "\"18446744073709551615d\"",
    "\"0.0.0.0/0\"",
    "\"::/0\"",
    "\"255.255.255.255/32\"",
    "\"fe80::1/64\"",
    "\"9999-12-31\"",
    "\"-009999-01-01\"",
    "\"9999-12-31T23:59\"",
    "\"23:59\"",
    "\"Asia/Tokyo\"",
    "\"UTC\"",
    "\"internet\"",
    "\u{0}",
    "日",
    "\u{202e}",
    "1979-05-27",
];

fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let board = Board::shipped("lab-namespace").expect("shipped");
    match parse_bytes(bytes, "town.toml", &board) {
        Ok(plan) => {
            // A valid plan survives being written and read again, and its calendar answers at both ends of time.
            let written = toml::to_string(&*plan).expect("a plan is TOML");
            let again = parse(&written, "again.toml", &board);
            prop_assert_eq!(again.as_ref().map_err(PlanErrors::to_string), Ok(&plan));
            for now in ["-009999-01-03T00:00:00Z", "2027-03-15T00:00:00Z", "9999-12-30T00:00:00Z"] {
                let now = now.parse().expect("a timestamp");
                seimon_plan::window_state(&plan, now);
                plan.expired(now);
                let _ = parse_at(&written, "again.toml", &board, now);
            }
        }
        Err(errors) => {
            prop_assert!((1..=PlanErrors::MOST).contains(&errors.errors.len()));
            let lines = bytes.split(|byte| *byte == b'\n').count();
            for error in &errors {
                prop_assert!(error.line <= lines, "line {} of {lines}", error.line);
                prop_assert!(seimon_plan::rules().any(|rule| rule == error.rule), "{}", error.rule);
            }
            prop_assert!(!errors.to_string().is_empty() && !errors.ja().is_empty());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_examples_never_panic(
        example in 0..EXAMPLES.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..24, prop::sample::select(PIECES)), 1..6),
    ) {
        let mut bytes = EXAMPLES[example].as_bytes().to_vec();
        for (at, cut, piece) in edits {
            let at = at.index(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, piece.bytes());
        }
        check(&bytes)?;
    }

    #[test]
    fn examples_with_values_exchanged_never_panic(
        example in 0..EXAMPLES.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(PIECES)), 1..4),
    ) {
        let mut lines: Vec<String> = EXAMPLES[example].lines().map(str::to_owned).collect();
        for (at, piece) in edits {
            let at = at.index(lines.len());
            let line = &mut lines[at];
            if let Some((key, _)) = line.clone().split_once(" = ") {
                *line = format!("{key} = {piece}");
            }
        }
        check(lines.join("\n").as_bytes())?;
    }

    #[test]
    fn examples_without_some_lines_never_panic(
        example in 0..EXAMPLES.len(),
        drops in prop::collection::btree_set(0usize..300, 1..5),
    ) {
        let lines: Vec<&str> = EXAMPLES[example].lines().enumerate()
            .filter(|(i, _)| !drops.contains(i)).map(|(_, line)| line).collect();
        check(lines.join("\n").as_bytes())?;
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,400}") {
        check(text.as_bytes())?;
        check(format!("version = 1\n{text}").as_bytes())?;
    }
}
