//! Somebody who has found the program.

use std::process::Command;

use anyhow::Result;

fn run(arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_seimon-tunnel")).args(arguments).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status.code(), text(output.stdout), text(output.stderr)))
}

#[test]
fn it_says_who_starts_it_and_does_nothing() -> Result<()> {
    let (code, out, _) = run(&["--help"])?;
    assert_eq!(code, Some(0));
    assert!(out.contains("seimon-agent"), "{out}");
    for arguments in [vec![], vec!["--what"], vec!["a", "b"]] {
        let (code, _, error) = run(&arguments)?;
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(error.contains("--help"), "{error}");
    }
    let (code, _, error) = run(&["wg-closed"])?;
    assert_eq!(code, Some(1));
    assert!(error.contains("seimon-agent starts this program"), "{error}");
    let (code, _, error) = run(&["--resolve", "hub.town.example"])?;
    assert_eq!(code, Some(1), "{error}");
    Ok(())
}
