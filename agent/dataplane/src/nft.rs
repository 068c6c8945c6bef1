//! Runs of the `nft` program: whole rulesets as text in, listings as JSON out.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use seimon_core::network_plan::ApplyError;

use crate::ours::Ours;

/// A run that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(10);
/// nft echoes the whole line that it dislikes; of its words so many bytes are kept.
const WORDS: usize = 400;
/// More output than this means that something is very wrong.
const OUTPUT: u64 = 64 * 1024 * 1024;

/// Runs one transaction.
pub(crate) fn run_script(script: &str, ours: &Ours) -> Result<(), ApplyError> {
    run(&["-f", "-"], script, ours).map(|_| ())
}

/// Whether the kernel takes a transaction. It is carried out: let it leave nothing behind.
pub(crate) fn takes(script: &str, ours: &Ours) -> Result<bool, ApplyError> {
    match run_script(script, ours) {
        Ok(()) => Ok(true),
        Err(ApplyError::NftRefused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Chains and rules of all `inet` tables, without elements. Asking for the whole family and not for our table by name:
/// nft 1.0.6 reads every element of a table asked for by name.
pub(crate) fn list(ours: &Ours) -> Result<String, ApplyError> {
    run(&["-j", "-t", "list", "ruleset", "inet"], "", ours)
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].into_iter().map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join("nft")).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

fn run(arguments: &[&str], input: &str, ours: &Ours) -> Result<String, ApplyError> {
    let program = program().ok_or_else(|| ApplyError::NftMissing(io::ErrorKind::NotFound.into()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ApplyError::NftMissing)?;
    ours.add_process(child.id());
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (output, words, ended) = std::thread::scope(|scope| {
        let output = scope.spawn(move || read_all(stdout, OUTPUT));
        let words = scope.spawn(move || read_all(stderr, OUTPUT));
        scope.spawn(move || {
            // An nft that stops reading says why on its own.
            let _ = stdin.map(|mut stdin| stdin.write_all(input.as_bytes()));
        });
        let ended = wait(&mut child);
        (output.join().unwrap_or_default(), words.join().unwrap_or_default(), ended)
    });
    let status = ended.map_err(|source| ApplyError::Kernel { doing: "let nft finish".into(), source })?;
    if status.success() {
        return Ok(output);
    }
    let message = capped(words.trim());
    if words.contains("Operation not permitted") || words.contains("you must be root") {
        return Err(ApplyError::NotPermitted { doing: format!("nft: {message}") });
    }
    Err(ApplyError::NftRefused { message: if message.is_empty() { status.to_string() } else { message } })
}

fn read_all(pipe: Option<impl Read>, at_most: u64) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is still worth having; nft's status tells the rest.
    let _ = pipe.map(|pipe| pipe.take(at_most).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the child, and ends it when it takes too long.
fn wait(child: &mut Child) -> io::Result<std::process::ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let ends = pidfd_open(pid, PidfdFlags::empty())?;
    let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    loop {
        match poll(&mut [PollFd::new(&ends, PollFlags::IN)], Some(&patience)) {
            Ok(0) => {
                child.kill()?;
                child.wait()?;
                return Err(io::ErrorKind::TimedOut.into());
            }
            Ok(_) => return child.wait(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn capped(words: &str) -> String {
    let mut end = words.len().min(WORDS);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    if end < words.len() { format!("{}…", &words[..end]) } else { words.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_are_cut_between_characters() {
        let long = "門".repeat(200);
        let cut = capped(&long);
        assert!(cut.len() <= WORDS + '…'.len_utf8() && cut.ends_with('…'));
        assert_eq!(capped("short"), "short");
    }
}
