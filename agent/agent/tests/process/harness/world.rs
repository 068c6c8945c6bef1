//! Private namespaces for one test, and the town in them.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

const INSIDE: &str = "SEIMON_TEST_INSIDE";
/// A test that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The two-line town's plan, as the examples have it.
pub(crate) const PLAN: &str = include_str!("../../../../../provisioning/plan/examples/two-line-town.toml");

/// Cables: namespace and interface at either end, and what the outer end is.
const TOWN: &str = "
link add lan1 netns gw type veth peer name eth0 netns affairs
link add lan2 netns gw type veth peer name eth0 netns learning
link add lan3 netns gw type veth peer name eth0 netns printers
link add lan4 netns gw type veth peer name spare netns printers
link add wan1 netns gw type veth peer name eth0 netns carrier
link add wan2 netns gw type veth peer name eth0 netns internet
";

const NODES: [(&str, &str); 6] = [
    ("gw", ""),
    ("affairs", "10.20.1.100/24 fd20:0:0:1::100/64 via 10.20.1.1 fd20:0:0:1::1"),
    ("learning", "10.20.2.100/24 fd20:0:0:2::100/64 via 10.20.2.1 fd20:0:0:2::1"),
    ("printers", "10.20.3.100/24 via 10.20.3.1"),
    ("carrier", "10.10.0.2/30 10.50.0.53/32 203.0.113.7/32 203.0.113.99/32 via 10.10.0.1"),
    (
        "internet",
        "192.0.2.1/30 203.0.113.7/32 203.0.113.53/32 203.0.113.99/32 2001:db8:2::1/64 2001:db8:113::7/128 via 192.0.2.2",
    ),
];

/// The town, alive while this process is.
#[derive(Debug)]
pub(crate) struct World {
    directory: TempDir,
}

/// Runs the test `body` in a town of its own, in a process of its own. Its name is taken from the type: call this with a
/// closure directly in the test function.
pub(crate) fn in_world<F: FnOnce(&World) -> Result<()>>(body: F) -> Result<()> {
    let full = std::any::type_name::<F>();
    let name = full
        .split_once("::")
        .map(|(_, rest)| rest.trim_end_matches("::{{closure}}"))
        .context("a test is in a module")?;
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        return body(&World::raise()?);
    }
    let mut command = match outer_command() {
        Ok(command) => command,
        Err(error) => {
            eprintln!("skipped: {error:#}");
            return Ok(());
        }
    };
    let mut child = command
        .arg(std::env::current_exe()?)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let readers = [std::thread::spawn(move || read(stdout)), std::thread::spawn(move || read(stderr))];
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut words = String::new();
    for reader in readers {
        words += &reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
    }
    eprintln!("{words}");
    let status = status.with_context(|| format!("the test did not end within {PATIENCE:?}"))?;
    ensure!(status.success(), "it failed inside its namespaces");
    ensure!(words.contains("1 passed"), "no test is called {name}");
    Ok(())
}

fn read(pipe: Option<impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is still worth having.
    let _ended = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn outer_command() -> Result<Command> {
    let mut flags = vec!["-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc"];
    if !rustix::process::geteuid().is_root() {
        flags.insert(0, "-Ur");
    }
    let tried = Command::new("unshare")
        .args(&flags)
        .args([
            "sh",
            "-ec",
            "nft list ruleset; ip -V >/dev/null; nsenter --version >/dev/null; mount -t tmpfs t /run",
        ])
        .stdin(Stdio::null())
        .output()
        .context("unshare")?;
    ensure!(
        tried.status.success(),
        "private namespaces with nft and ip are not to be had here: {}",
        String::from_utf8_lossy(&tried.stderr).trim()
    );
    for program in ["seimon-resolver", "seimon-probe", "seimon-page"] {
        let file = Path::new(env!("CARGO_BIN_EXE_seimon-agent")).with_file_name(program);
        ensure!(file.exists(), "{program} is not built: run `cargo build` for the whole workspace first");
    }
    let mut command = Command::new("unshare");
    command.args(&flags);
    Ok(command)
}

impl World {
    fn raise() -> Result<Self> {
        mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).context("tmpfs on /run")?;
        fs::create_dir("/run/netns")?;
        // Below /run, which vanishes with the namespaces.
        let directory = tempfile::Builder::new().prefix("town-").tempdir_in("/run")?;
        let world = Self { directory };
        for (name, _) in NODES {
            world.sh(&format!("ip netns add {name}; ip -n {name} link set lo up"))?;
        }
        feed("ip", &["-batch", "-"], TOWN)?;
        for (name, words) in NODES {
            world.address(name, words)?;
        }
        fs::write(world.path("plan.toml"), PLAN)?;
        fs::write(world.path("clock-trusted"), "")?;
        fs::write(world.path("lab-ca.pem"), authority()?)?;
        Ok(world)
    }

    fn address(&self, name: &str, words: &str) -> Result<()> {
        let (addresses, gateways) = words.split_once(" via ").unwrap_or((words, ""));
        let mut batch = String::new();
        for address in addresses.split_whitespace() {
            // No duplicate address detection: it would keep IPv6 addresses unusable for seconds.
            let nodad = if address.contains(':') { " nodad" } else { "" };
            batch += &format!("address add {address} dev eth0{nodad}\n");
        }
        if !addresses.is_empty() {
            batch += "link set eth0 up\n";
        }
        for gateway in gateways.split_whitespace() {
            batch += &format!("route add default via {gateway}\n");
        }
        feed("ip", &["-n", name, "-batch", "-"], &batch).map(drop)
    }

    /// A file or folder in the test's own directory: `plan.toml`, `state`, `run`, ….
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Shell lines outside the nodes' network namespaces.
    pub(crate) fn sh(&self, script: &str) -> Result<String> {
        said(Command::new("sh").args(["-ec", script]), script)
    }

    /// Shell lines in the gateway's network namespace.
    pub(crate) fn gw(&self, script: &str) -> Result<String> {
        self.at("gw", script)
    }

    pub(crate) fn at(&self, node: &str, script: &str) -> Result<String> {
        said(command_at(node, "sh").args(["-ec", script]), script)
    }
}

/// A command that will run in a node's network namespace (`nsenter` becomes it: the process id stays).
pub(crate) fn command_at(node: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{node}")).arg("--").arg(program).stdin(Stdio::null());
    command
}

/// Runs `work` on a thread in a node's network namespace; sockets made there stay there.
pub(crate) fn inside<T: Send>(node: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let file = File::open(format!("/run/netns/{node}")).with_context(|| node.to_owned())?;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            })
            .join()
            .map_err(|_| anyhow::anyhow!("a thread at {node} panicked"))?
    })
}

pub(crate) fn said(command: &mut Command, what: &str) -> Result<String> {
    let Output { status, stdout, stderr } = command.output().with_context(|| what.to_owned())?;
    if !status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&stderr).trim());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

pub(crate) fn feed(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let file = tempfile::NamedTempFile::new_in("/run")?;
    fs::write(file.path(), input)?;
    said(Command::new(program).args(arguments).stdin(File::open(file.path())?), program)
}

fn authority() -> Result<String> {
    let key = rcgen::KeyPair::generate()?;
    let mut parameters = rcgen::CertificateParams::new(Vec::new())?;
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    Ok(parameters.self_signed(&key)?.pem())
}
