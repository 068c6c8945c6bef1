//! `seimon-probe`: started by `seimon-agent` with its socket pair as file descriptor 3; of no use by hand.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use seimon_probe::{End, ProbeError, run};

/// Start me again: the hosts have changed, and I may no longer change them.
const AGAIN: u8 = 10;

fn main() -> ExitCode {
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
    // SAFETY: nothing in this process has opened or taken a descriptor before this first act of `main`, so number 3
    // is either the one that the parent left for us, or closed, which the calls below find out before anything else
    // can reuse the number.
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
