//! `seimon-probe`: started by `seimon-agent` with its socket pair as file descriptor 3; of no use by hand.

use std::error::Error;
use std::ffi::OsStr;
use std::io::Write;
use std::process::ExitCode;

use seimon_probe::{End, ProbeError, run};

/// Start me again: the hosts have changed, and I may no longer change them.
const AGAIN: u8 = 10;
const WRONG_USAGE: u8 = 2;

const HELP: &str = "\
A client of the gateway's own: sees the paths and services as a teacher's machine sees them.

Started by seimon-agent with its socket inherited; of no use by hand, and it has no other options.
What it finds: seimonctl status

Usage: seimon-probe

Options:
  -h, --help     Print help
  -V, --version  Print version
";

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(argument) => answer(&argument),
        None => serve(),
    }
}

/// For somebody who has found the program: nothing else has arguments for it.
fn answer(argument: &OsStr) -> ExitCode {
    let done = if argument == "-h" || argument == "--help" {
        std::io::stdout().lock().write_all(HELP.as_bytes())
    } else if argument == "-V" || argument == "--version" {
        writeln!(std::io::stdout().lock(), "seimon-probe {}", env!("CARGO_PKG_VERSION"))
    } else {
        let argument = argument.to_string_lossy();
        // Nothing can be done when nobody reads it.
        let _ = writeln!(
            std::io::stderr().lock(),
            "seimon-probe: unexpected argument {argument:?}: seimon-agent starts this program; see --help"
        );
        return ExitCode::from(WRONG_USAGE);
    };
    match done {
        // The reader has seen enough, as with `| head`.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

fn serve() -> ExitCode {
    match inherited_socket().map_err(ProbeError::Socket).and_then(run) {
        Ok(End::AgentGone) => ExitCode::SUCCESS,
        Ok(End::OtherHostsWanted) => ExitCode::from(AGAIN),
        Err(error) => {
            let mut text = format!("seimon-probe: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            // Nothing can be done when nobody reads it.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
            ExitCode::FAILURE
        }
    }
}

fn inherited_socket() -> std::io::Result<std::os::unix::net::UnixStream> {
    use std::os::fd::{FromRawFd, OwnedFd};
    #[expect(unsafe_code, reason = "the only way to take over an inherited file descriptor")]
    // SAFETY: nothing in this process has opened or taken a descriptor before this, the first act of a run without
    // arguments, so number 3 is either the one that the parent left for us, or closed, which the calls below find out
    // before anything else can reuse the number.
    let fd = unsafe { OwnedFd::from_raw_fd(seimon_ipc::probe::SOCKET_FD) };
    let checked = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)
        .and_then(|()| rustix::net::sockopt::socket_domain(&fd));
    match checked {
        Ok(rustix::net::AddressFamily::UNIX) => Ok(fd.into()),
        Ok(_) => Err(not_the_agents()),
        Err(_) => {
            // It is not ours to close.
            std::mem::forget(fd);
            Err(not_the_agents())
        }
    }
}

fn not_the_agents() -> std::io::Error {
    std::io::Error::other("file descriptor 3 is not the agent's socket: seimon-agent starts this program")
}
