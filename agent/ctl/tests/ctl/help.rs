//! The help of every command, as somebody on a screen of 80 columns sees it.

use std::process::Stdio;

use anyhow::{Result, ensure};
use unicode_width::UnicodeWidthStr;

use crate::common::{Outcome, golden, outcome, seimonctl};

const COMMANDS: &[&str] = &[
    "",
    "status",
    "plan",
    "plan check",
    "plan show",
    "plan diff",
    "apply",
    "explain",
    "migrate",
    "migrate start",
    "migrate pause",
    "migrate resume",
    "migrate rollback",
    "migrate status",
    "pac",
    "events",
    "acceptance",
    "acceptance verify",
    "sheet",
    "line",
    "line may-cancel",
    "update",
    "update status",
    "update check",
    "update stage",
    "update apply",
    "update confirm",
    "update rollback",
    "reset",
    "diagnostics",
    "hub",
    "hub status",
    "hub explain",
    "wireguard",
    "wireguard rotate",
    "wireguard switch",
    "wireguard keygen",
    "wireguard pubkey",
    "egress",
    "egress letter",
    "completions",
];

fn run(arguments: &[&str]) -> Result<Outcome> {
    Ok(outcome(seimonctl().env("COLUMNS", "80").stdin(Stdio::null()).args(arguments).output()?))
}

fn help(lang: &str, command: &str) -> Result<String> {
    let words = command.split_whitespace();
    let shown = run(&["--lang", lang].into_iter().chain(words).chain(["--help"]).collect::<Vec<_>>())?;
    ensure!(shown.code == Some(0) && shown.err.is_empty(), "{command}: {}", shown.err);
    Ok(shown.out)
}

#[test]
fn the_help_of_every_command_is_there_in_both_languages() -> Result<()> {
    for lang in ["ja", "en"] {
        let mut all = String::new();
        for command in COMMANDS {
            all.push_str(&format!("$ seimonctl {command} --help\n").replace("  ", " "));
            all.push_str(&help(lang, command)?);
            all.push('\n');
        }
        golden(&format!("tests/golden/help.{lang}.txt"), &all);
        for line in all.lines() {
            assert!(line.width() <= 80, "wider than the screen: {line}");
        }
    }
    Ok(())
}

/// Every command and option has its line, and each of them has words of the reader's.
#[test]
fn nothing_in_the_japanese_help_is_english_or_missing() -> Result<()> {
    let japanese = |text: &str| text.chars().any(|c| ('\u{3040}'..'\u{a000}').contains(&c));
    for command in COMMANDS {
        let text = help("ja", command)?;
        assert!(text.lines().next().is_some_and(japanese), "{text}");
        let listed = text.lines().filter(|line| {
            line.starts_with("  -") || line.starts_with("      --") || line.starts_with("  <")
        });
        for line in listed {
            assert!(japanese(line), "{command}: {line}");
        }
        let listed = text.lines().skip_while(|line| *line != "コマンド:").skip(1);
        for line in listed.take_while(|line| !line.is_empty()) {
            assert!(japanese(line), "{command}: {line}");
            let name = line.split_whitespace().next().unwrap_or_default();
            let known = format!("{command} {name}");
            let goes_on = line.starts_with("   ");
            assert!(
                goes_on || name == "help" || COMMANDS.contains(&known.trim_start()),
                "{known} is not tested here"
            );
        }
    }
    Ok(())
}

#[test]
fn help_follows_the_language_wherever_it_is_asked_for() -> Result<()> {
    for arguments in [["--lang", "ja", "--help"].as_slice(), &["--lang=ja", "-h"], &["--lang", "ja", "help"]]
    {
        let shown = run(arguments)?;
        assert!(shown.out.contains("使い方:"), "{arguments:?}: {}{}", shown.out, shown.err);
    }
    let shown =
        outcome(seimonctl().env("LC_ALL", "ja_JP.UTF-8").args(["migrate", "help", "start"]).output()?);
    assert!(shown.out.contains("移行を始めます"), "{}{}", shown.out, shown.err);
    let shown = outcome(seimonctl().env("LC_ALL", "ja_JP.UTF-8").args(["--lang", "en", "--help"]).output()?);
    assert!(shown.out.contains("Usage:"), "{}", shown.out);
    Ok(())
}

#[test]
fn wrong_usage_in_japanese_says_where_the_right_one_is() -> Result<()> {
    for arguments in [["--lang", "ja", "sttus"].as_slice(), &["--lang", "ja", "migrate", "start", "affairs"]]
    {
        let shown = run(arguments)?;
        assert_eq!((shown.code, shown.out.as_str()), (Some(2), ""));
        assert!(shown.err.contains("使い方は seimonctl --help"), "{}", shown.err);
    }
    let shown = outcome(seimonctl().env("LANG", "ja_JP.UTF-8").stdin(Stdio::null()).output()?);
    assert_eq!(shown.code, Some(2));
    assert!(shown.err.contains("使い方: seimonctl"), "{}", shown.err);
    // Not a language: what is wrong is said nevertheless.
    let shown = run(&["--lang", "fr", "status"])?;
    assert_eq!(shown.code, Some(2));
    assert!(shown.err.contains("fr"), "{}", shown.err);
    Ok(())
}
