//! The completion scripts, each read by its own shell where this machine has it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::common::{outcome, seimonctl};

fn script(lang: &str, shell: &str) -> Result<String> {
    let shown = outcome(seimonctl().args(["--lang", lang, "completions", shell]).output()?);
    ensure!(shown.code == Some(0) && shown.err.is_empty(), "{shell}: {}", shown.err);
    Ok(shown.out)
}

/// What bash offers behind these words; the last one may be unfinished.
fn offered(words: &[&str]) -> Result<Vec<String>> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("seimonctl");
    std::fs::write(&file, script("ja", "bash")?)?;
    let asks = "source \"$1\"; shift
        COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1))
        _seimonctl seimonctl \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-c", asks, "bash"]).arg(&file).arg("seimonctl").args(words);
    let answer = outcome(bash.stdin(Stdio::null()).output()?);
    ensure!(answer.code == Some(0), "{}", answer.err);
    Ok(answer.out.lines().map(str::to_owned).collect())
}

#[test]
fn bash_completes_commands_options_and_values() -> Result<()> {
    assert_eq!(offered(&["st"])?, ["status"]);
    assert_eq!(offered(&["migrate", "r"])?, ["resume", "rollback"]);
    assert_eq!(offered(&["migrate", "start", "--t"])?, ["--to"]);
    assert_eq!(offered(&["apply", "--d"])?, ["--dry-run"]);
    assert_eq!(offered(&["--lang", ""])?, ["ja", "en"]);
    assert_eq!(offered(&["completions", "z"])?, ["zsh"]);
    Ok(())
}

#[test]
fn every_shell_gets_a_script_that_it_understands_in_both_languages() -> Result<()> {
    for lang in ["ja", "en"] {
        for shell in ["bash", "zsh", "fish"] {
            let text = script(lang, shell)?;
            for word in ["status", "rollback", "dry-run", "completions"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
            let directory = tempfile::tempdir()?;
            let file = directory.path().join("script");
            std::fs::write(&file, text)?;
            match Command::new(shell).arg("-n").arg(&file).stdin(Stdio::null()).output() {
                Ok(output) => {
                    let read = outcome(output);
                    assert!(read.code == Some(0) && read.err.is_empty(), "{shell}: {}", read.err);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    eprintln!("skipped: {shell} is not to be had here");
                }
                Err(error) => return Err(error).context(shell),
            }
        }
    }
    Ok(())
}

#[test]
fn descriptions_are_in_the_readers_language() -> Result<()> {
    for shell in ["zsh", "fish"] {
        assert!(script("ja", shell)?.contains("前の経路へ戻します"), "{shell}");
        assert!(script("en", shell)?.contains("Go back to the path before"), "{shell}");
    }
    Ok(())
}

#[test]
fn another_shell_is_wrong_usage_and_the_right_ones_are_named() -> Result<()> {
    let shown = outcome(seimonctl().args(["completions", "tcsh"]).output()?);
    assert_eq!((shown.code, shown.out.as_str()), (Some(2), ""));
    assert!(shown.err.contains("bash, zsh, fish"), "{}", shown.err);
    Ok(())
}
