//! `seimon-tunnel`: WireGuard in user space, for kernels that have none. One process an interface.
//!
//! ```text
//!  seimon-agent ── socket pair (fd 3): WireGuard's configuration protocol ──▶ ┌───────────────┐
//!               ── TUN interface (fd 4), which only the agent may make ─────▶ │ seimon-tunnel │ ── UDP ──▶ the far end
//!                                                                            └───────────────┘
//! ```
//! What comes from the network is read here, where there is no capability, no file and no way to any other interface.
//! Its outer packets are not marked (that takes a capability): routing and nft know them by their UDP port. When the
//! agent goes, this process goes, and the TUN interface with it.

mod confine;
mod device;
mod resolve;

use std::error::Error;
use std::io::{self, Write};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::process::ExitCode;

use device::Device;
use tracing_subscriber::EnvFilter;

const SOCKET_FD: RawFd = 3;
const TUN_FD: RawFd = 4;
const WRONG_USAGE: u8 = 2;

const HELP: &str = "\
WireGuard in user space, for kernels that have none.

Started by seimon-agent with its sockets inherited; of no use by hand, and it has no other options.
How a tunnel is doing: seimonctl status

Usage: seimon-tunnel INTERFACE

Options:
  -h, --help     Print help
  -V, --version  Print version
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["-h" | "--help"] => print(HELP),
        ["-V" | "--version"] => print(&format!("seimon-tunnel {}\n", env!("CARGO_PKG_VERSION"))),
        ["--resolve", name] => resolve::run(name),
        [name] if !name.starts_with('-') => carry(),
        _ => {
            tell("the name of one interface is wanted: seimon-agent starts this program; see --help");
            return ExitCode::from(WRONG_USAGE);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            tell(&text);
            ExitCode::FAILURE
        }
    }
}

/// Nothing can be done when nobody reads it.
fn tell(text: &str) {
    let _closed = writeln!(io::stderr().lock(), "seimon-tunnel: {text}");
}

fn print(text: &str) -> Result<(), Box<dyn Error>> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // The reader has seen enough, as with `| head`.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn carry() -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_from_env("SEIMON_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    let socket = inherited(SOCKET_FD)?;
    let tun = inherited(TUN_FD)?;
    match rustix::net::sockopt::socket_domain(&socket) {
        Ok(rustix::net::AddressFamily::UNIX) => {}
        Ok(_) | Err(_) => {
            return Err("descriptor 3 is not the agent's socket: seimon-agent starts this program".into());
        }
    }
    confine::confine()?;
    Ok(Device::new(tun, socket.into())?.run()?)
}

/// A descriptor that the agent has left for us.
fn inherited(number: RawFd) -> Result<OwnedFd, Box<dyn Error>> {
    #[expect(unsafe_code, reason = "the only way to take over an inherited file descriptor")]
    // SAFETY: nothing in this process has opened or taken a descriptor before this, so the number is either the one that
    // the agent left for us, or closed, which the call below finds out before anything else can reuse the number.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    match rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC) {
        Ok(()) => Ok(fd),
        Err(_) => {
            // It is not ours to close.
            std::mem::forget(fd);
            Err(format!("descriptor {number} is missing: seimon-agent starts this program").into())
        }
    }
}
