//! Tests built for the guest, and the repository's files that they read, at the same places.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::image::Job;
use crate::{packages, root, say};

pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Files of the repository that are larger are no test's.
const LARGEST: u64 = 400_000;

/// What builds for the guest: rustup's toolchain where it has the target, else Debian's.
#[derive(Debug)]
pub(crate) struct Toolchain {
    cargo: PathBuf,
    rustc: Option<PathBuf>,
}

pub(crate) fn toolchain() -> Result<Toolchain> {
    let has = |rustc: &Path| {
        let output = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
        output.is_ok_and(|output| {
            let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            output.status.success() && Path::new(&folder).is_dir()
        })
    };
    let own = std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
    if has(&std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from)) {
        return Ok(Toolchain { cargo: own, rustc: None });
    }
    let (rustc, cargo) = (PathBuf::from("/usr/bin/rustc"), PathBuf::from("/usr/bin/cargo"));
    if has(&rustc) && cargo.is_file() {
        return Ok(Toolchain { cargo, rustc: Some(rustc) });
    }
    bail!(
        "the Rust target {TARGET} (rustup target add {TARGET}, or Debian's cargo-web, rustc-web and libstd-rust-web-dev:arm64)"
    )
}

impl Toolchain {
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        if let Some(rustc) = &self.rustc {
            command.env("RUSTC", rustc).env_remove("RUSTUP_TOOLCHAIN");
        }
        command
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
            .env("CC_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-gcc");
        command
    }
}

/// Which tests.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) package: String,
    /// Names of integration tests; none: all of the package's.
    pub(crate) targets: Vec<String>,
    pub(crate) filters: Vec<String>,
    pub(crate) environment: Vec<String>,
}

impl Request {
    pub(crate) fn read(arguments: &[String]) -> Result<Self> {
        let mut request = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().cloned().with_context(|| format!("{argument} what?"));
            match argument.as_str() {
                "--test" => request.targets.push(value()?),
                "--env" => request.environment.push(value()?),
                _ if request.package.is_empty() => request.package.clone_from(argument),
                _ => request.filters.push(argument.clone()),
            }
        }
        ensure!(!request.package.is_empty(), "which package's tests?");
        Ok(request)
    }
}

/// The tests that are quick and need the guest's kernel.
pub(crate) fn quick() -> Result<Job> {
    tests(&Request {
        package: "seimon-dataplane".into(),
        targets: vec!["segmentation".into()],
        filters: ["fast::", "wireguard::"].map(str::to_owned).to_vec(),
        ..Request::default()
    })
}

/// A job that runs the tests one after the other.
pub(crate) fn tests(request: &Request) -> Result<Job> {
    say::step(&format!("building {}'s tests for the guest", request.package));
    let built = build(request)?;
    ensure!(!built.is_empty(), "{} has no such tests", request.package);
    let mut job = Job { files: repository()?, ..Job::default() };
    job.script = String::from("export RUST_BACKTRACE=0 SEIMON_TEST_SLOW=5\nfailed=0\n");
    for variable in &request.environment {
        job.script += &format!("export {variable}\n");
    }
    for (executable, is_test) in built {
        let name = executable.display().to_string();
        job.files.push((name.clone(), 0o755, stripped(&executable)?));
        if is_test {
            let filters = request.filters.join(" ");
            job.script += &format!("{name} --test-threads=1 --nocapture {filters} || failed=1\n");
        }
    }
    job.script += "exit $failed\n";
    Ok(job)
}

/// Executables with whether each is a test.
fn build(request: &Request) -> Result<Vec<(PathBuf, bool)>> {
    let mut command = toolchain()?.cargo();
    command.current_dir(root()?).args([
        "test",
        "--no-run",
        "--target",
        TARGET,
        "--message-format=json-render-diagnostics",
    ]);
    command.args(["--package", &request.package]);
    for target in &request.targets {
        command.args(["--test", target]);
    }
    executables(&mut command)
}

fn executables(command: &mut Command) -> Result<Vec<(PathBuf, bool)>> {
    // An emulated processor is slow, and the compiler slower still.
    for package in ["board", "plan", "core", "dataplane", "journal", "ipc"] {
        command.arg("--config").arg(format!("profile.dev.package.seimon-{package}.opt-level=0"));
    }
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "it does not build for the guest (see above)");
    let mut built = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let Some(executable) = message["executable"].as_str() else { continue };
        built.push((PathBuf::from(executable), message["profile"]["test"] == true));
    }
    Ok(built)
}

/// An example of a package, for the guest.
pub(crate) fn example(package: &str, name: &str) -> Result<Vec<u8>> {
    say::step(&format!("building {name} for the guest"));
    let mut command = toolchain()?.cargo();
    command.current_dir(root()?).args([
        "build",
        "--target",
        TARGET,
        "--message-format=json-render-diagnostics",
    ]);
    command.args(["--package", package, "--example", name]);
    let built = executables(&mut command)?;
    let (file, _) =
        built.into_iter().next_back().with_context(|| format!("{package} has no example {name}"))?;
    stripped(&file)
}

/// Without symbols: the guest holds everything in memory.
pub(crate) fn stripped(file: &Path) -> Result<Vec<u8>> {
    let slim = crate::folder()?.join(format!("stripped-{}", std::process::id()));
    let program = packages::find("aarch64-linux-gnu-strip")
        .context("aarch64-linux-gnu-strip (package binutils-aarch64-linux-gnu)")?;
    let status = Command::new(program).arg("-o").arg(&slim).arg(file).status()?;
    ensure!(status.success(), "{} could not be stripped", file.display());
    let bytes = std::fs::read(&slim)?;
    std::fs::remove_file(&slim)?;
    Ok(bytes)
}

/// What tests read at run time.
fn repository() -> Result<Vec<(String, u32, Vec<u8>)>> {
    let root = root()?;
    let output =
        Command::new("git").args(["ls-files", "-z"]).current_dir(&root).output().context("git ls-files")?;
    ensure!(output.status.success(), "git ls-files failed");
    let mut files = Vec::new();
    for name in String::from_utf8_lossy(&output.stdout).split('\0').filter(|name| !name.is_empty()) {
        let file = root.join(name);
        let wanted = !name.ends_with(".rs")
            && file.metadata().is_ok_and(|facts| facts.is_file() && facts.len() <= LARGEST);
        if wanted {
            files.push((file.display().to_string(), 0o644, std::fs::read(&file)?));
        }
    }
    Ok(files)
}
