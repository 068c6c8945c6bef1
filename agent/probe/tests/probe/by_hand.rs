//! What somebody is told who starts the program by hand.

use std::process::{Command, Output, Stdio};

use anyhow::Result;

fn run(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_seimon-probe")).args(arguments).stdin(Stdio::null()).output()?)
}

#[test]
fn help_and_version_say_what_it_is_and_who_starts_it() -> Result<()> {
    for option in ["-h", "--help"] {
        let output = run(&[option])?;
        let text = String::from_utf8(output.stdout)?;
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
        assert!(text.contains("Started by seimon-agent") && text.contains("Usage: seimon-probe"), "{text}");
    }
    for option in ["-V", "--version"] {
        let output = run(&[option])?;
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(
            String::from_utf8(output.stdout)?,
            concat!("seimon-probe ", env!("CARGO_PKG_VERSION"), "\n")
        );
    }
    Ok(())
}

#[test]
fn anything_else_by_hand_is_refused_and_names_the_agent() -> Result<()> {
    for (arguments, code) in [(vec![], 1), (vec!["--listen"], 2)] {
        let output = run(&arguments)?;
        let text = String::from_utf8(output.stderr)?;
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(code), b"".as_slice()), "{text}");
        assert!(text.contains("seimon-agent starts this program"), "{text}");
    }
    Ok(())
}
