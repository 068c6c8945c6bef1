//! The private world: namespaces that vanish with this process.

#![expect(unsafe_code, reason = "a descriptor that came through exec has to be taken by its number")]

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};

const INSIDE: &str = "SEIMON_LAB_INSIDE";
/// Number of the file descriptor that is the host's network namespace.
const HOST: &str = "SEIMON_LAB_HOST_NET";

/// Makes sure that this process lives in a private network, mount and process namespace, by running itself again inside
/// `unshare` (as root, or rootless with a user namespace). Call it first in `main`: in the outer process it does not
/// return but exits with the inner one's status. Kill the outer process and everything is gone.
///
/// # Errors
/// The machine permits neither; the message says why (a caller that is a test prints `skipped: …`).
pub fn enter_or_reexec() -> Result<()> {
    if is_inside() {
        return prepare();
    }
    let mut command = outer_command()?;
    command.arg(std::env::current_exe().context("cannot find this program's own file")?);
    command.args(std::env::args_os().skip(1)).env(INSIDE, "1");
    // For benches, whose cards and power switches are the host's; closed to everyone else by `prepare`.
    let host = fs::File::open("/proc/self/ns/net").context("this host's network namespace")?;
    rustix::io::fcntl_setfd(&host, rustix::io::FdFlags::empty())?;
    command.env(HOST, host.as_raw_fd().to_string());
    Err(command.exec()).context("cannot run `unshare` (Debian package util-linux)")
}

/// For tests: runs the test `name` of the current test binary inside a private world and returns in the outer process
/// what came of it; inside, returns [`Inside::Yes`] and the test goes on.
///
/// # Errors
/// As [`enter_or_reexec`].
pub fn rerun_test(name: &str) -> Result<Inside> {
    if is_inside() {
        prepare()?;
        return Ok(Inside::Yes);
    }
    // The harness may be killed: what runs inside must not outlive it.
    let outer = outer_command()?;
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(outer.get_program())
        .args(outer.get_args())
        .arg(std::env::current_exe()?)
        .args(["--exact", name, "--nocapture", "--include-ignored", "--test-threads", "1"])
        .env(INSIDE, "1")
        .status()
        .context("cannot run `unshare`")?;
    Ok(if status.success() {
        Inside::Done
    } else {
        Inside::Failed(format!("code {:?}, signal {:?}", status.code(), status.signal()))
    })
}

/// Where [`rerun_test`] returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inside {
    /// In the private world: do the test.
    Yes,
    /// Outside; the test inside succeeded.
    Done,
    /// Outside; the test inside failed in this way.
    Failed(String),
}

fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// `unshare` with the options that this machine permits.
fn outer_command() -> Result<Command> {
    let mut flags: Vec<&str> = vec!["-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc"];
    if !rustix::process::geteuid().is_root() {
        flags.insert(0, "-Ur");
    }
    let tried = Command::new("unshare")
        .args(&flags)
        .arg("true")
        .stdin(Stdio::null())
        .output()
        .context("cannot run `unshare` (Debian package util-linux)")?;
    if !tried.status.success() {
        bail!(
            "this machine permits no private namespaces: {}; run it as root or allow unprivileged user namespaces",
            String::from_utf8_lossy(&tried.stderr).trim()
        );
    }
    for (program, package) in
        [("ip", "iproute2"), ("nft", "nftables"), ("ethtool", "ethtool"), ("nsenter", "util-linux")]
    {
        if Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_err()
        {
            bail!("`{program}` is missing: install the Debian package {package}");
        }
    }
    let mut command = Command::new("unshare");
    command.args(&flags);
    Ok(command)
}

/// Inside: an own /run/netns, loopback up, and Ctrl-C works although this is process 1.
fn prepare() -> Result<()> {
    if fs::metadata("/run/netns/.seimon-lab").is_ok() {
        return Ok(());
    }
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).context("cannot mount a tmpfs on /run")?;
    fs::create_dir("/run/netns")?;
    fs::write("/run/netns/.seimon-lab", "")?;
    if let Some(host) = host() {
        // SAFETY: the number is that of a descriptor which this program opened before it ran itself, and which nothing
        // closes.
        let host = unsafe { BorrowedFd::borrow_raw(host) };
        rustix::io::fcntl_setfd(host, rustix::io::FdFlags::CLOEXEC)
            .context("the host's network namespace")?;
    }
    quit_on_signals()?;
    run("ip", &["link", "set", "lo", "up"])
}

/// Process 1 of a PID namespace ignores signals for which it has no handler.
fn quit_on_signals() -> Result<()> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            let _ = ready.send(());
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            std::process::exit(130);
        });
    })?;
    is_ready.recv().context("cannot listen for signals")
}

fn host() -> Option<i32> {
    std::env::var(HOST).ok()?.parse().ok()
}

/// A command that runs in the host's network; where no host was left (tests), in this process's own.
fn at_the_host(program: &str) -> Command {
    let Some(host) = host() else { return Command::new(program) };
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/fd/{host}", std::process::id())).arg(program);
    command
}

/// Moves one of the host's network interfaces into a node. A card goes back when the node is gone.
pub(crate) fn take_interface(interface: &str, node: &str) -> Result<()> {
    said(at_the_host("ip").args(["link", "set", interface, "netns", node]))
        .with_context(|| format!("interface {interface} of this host, for the lab"))
}

/// Runs a program and its arguments on the host (a power switch).
pub(crate) fn on_host(words: &[String]) -> Result<()> {
    let (program, arguments) = words.split_first().context("no program to run")?;
    said(at_the_host(program).args(arguments))
}

/// Its stderr is in the error.
fn said(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Runs a program; its stderr is in the error.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    feed(program, args, "").map(drop)
}

/// Runs a program with `input` on stdin and returns its stdout; its stderr is in the error.
pub(crate) fn feed(program: &str, args: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{program}`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let mut stdout = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut stdout)?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("`{program} {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(stdout)
}
