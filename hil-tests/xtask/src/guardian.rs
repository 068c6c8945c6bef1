//! `cargo xtask guardian`: builds `BOOTAA64.EFI`, and tells its stories in QEMU.
//!
//! The guardian is for `aarch64-unknown-uefi`. Where rustup has that target's library, the ordinary toolchain builds it.
//! Elsewhere the standard library is built from its source, with Debian's compiler and its `rust-web-src`.
//!
//! The bytes depend on the source, the toolchain and the anchors, not on the folder: paths are remapped, and the linker
//! writes a digest where others write the time.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{build, deps, say};

const TARGET: &str = "aarch64-unknown-uefi";
/// Debian's, whose versions go together.
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/Cargo.toml";
const LINKER: &str = "/usr/bin/lld-link";
const PACKAGES: [(&str, &str); 4] = [
    (DEBIAN_CARGO, "cargo-web"),
    (DEBIAN_RUSTC, "rustc-web"),
    (DEBIAN_SOURCE, "rust-web-src"),
    (LINKER, "lld"),
];

const HELP: &str = "\
guardian build --anchors FILE [--out FILE] [--payload FILE]
    --anchors: one or two ed25519 public keys, 32 or 64 bytes: whom the guardian believes
    --out:     default target/guardian/BOOTAA64.EFI
    --payload: also build what stands in for a kernel in tests
guardian test [--story NAME] [--firmware edk2|u-boot] [--cuts N] [--jobs N] [--json FILE]";

pub(crate) fn run(arguments: &[String], consent: deps::Consent) -> Result<ExitCode> {
    let Some((command, rest)) = arguments.split_first() else { bail!("{HELP}") };
    match command.as_str() {
        "build" => {
            let wanted = Wanted::parse(rest)?;
            let toolchain = Toolchain::choose(consent)?;
            for (from, to) in wanted.outputs()? {
                toolchain.build(&wanted, from, &to)?;
                let kib = std::fs::metadata(&to)?.len().div_ceil(1024);
                say::line(&format!("{} ({kib} KiB)", to.display()));
            }
            Ok(ExitCode::SUCCESS)
        }
        "test" => {
            let mut command = build::cargo();
            command.args(["run", "--quiet", "--package", "seimon-vmlab", "--"]).args(rest);
            build::exit_of(&mut command)
        }
        other => bail!("no command `guardian {other}`\n{HELP}"),
    }
}

struct Wanted {
    anchors: PathBuf,
    out: Option<PathBuf>,
    payload: Option<PathBuf>,
}

impl Wanted {
    fn parse(arguments: &[String]) -> Result<Self> {
        let (mut anchors, mut out, mut payload) =
            (std::env::var_os("SEIMON_ANCHORS").map(PathBuf::from), None, None);
        let mut left = arguments.iter().filter(|argument| *argument != "--yes");
        while let Some(argument) = left.next() {
            let mut value =
                || left.next().map(PathBuf::from).with_context(|| format!("{argument} wants a file"));
            match argument.as_str() {
                "--anchors" => anchors = Some(value()?),
                "--out" => out = Some(value()?),
                "--payload" => payload = Some(value()?),
                other => bail!("no option `{other}`\n{HELP}"),
            }
        }
        let anchors = anchors
            .context("whom is the guardian to believe? --anchors FILE: one or two ed25519 public keys")?;
        let anchors = anchors.canonicalize().with_context(|| anchors.display().to_string())?;
        Ok(Self { anchors, out, payload })
    }

    /// (what cargo builds, where it goes).
    fn outputs(&self) -> Result<Vec<(&'static str, PathBuf)>> {
        let default = build::target_dir()?.join("guardian/BOOTAA64.EFI");
        let guardian = ("seimon-guardian", self.out.clone().unwrap_or(default));
        Ok([Some(guardian), self.payload.clone().map(|file| ("seimon-payload", file))]
            .into_iter()
            .flatten()
            .collect())
    }
}

enum Toolchain {
    /// The ordinary one, with the target's library.
    Rustup,
    /// Debian's, which builds the library too.
    Debian,
}

impl Toolchain {
    fn choose(consent: deps::Consent) -> Result<Self> {
        if target_library_is_there() {
            return Ok(Self::Rustup);
        }
        let missing: Vec<&str> = PACKAGES
            .iter()
            .filter(|(file, _)| !Path::new(file).is_file())
            .map(|(_, package)| *package)
            .collect();
        if !missing.is_empty() {
            say::line(&format!(
                "missing: {TARGET}'s standard library. Either `rustup target add {TARGET}`, or these packages of Debian"
            ));
            deps::install(&missing, consent)?;
        }
        Ok(Self::Debian)
    }

    fn build(&self, wanted: &Wanted, package: &str, to: &Path) -> Result<()> {
        say::step(&format!("building {package} for {TARGET}"));
        let root = build::root()?;
        let target = build::target_dir()?.join("guardian");
        let mut command = match self {
            Self::Rustup => build::cargo(),
            Self::Debian => {
                let mut command = Command::new(DEBIAN_CARGO);
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command.env("CARGO_TARGET_AARCH64_UNKNOWN_UEFI_LINKER", LINKER);
                command.env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTDOC").env_remove("CARGO");
                command
            }
        };
        command.current_dir(root.join("firmware"));
        command.args(["build", "--quiet", "--locked", "--release", "--target", TARGET, "--package", package]);
        command.arg("--target-dir").arg(&target);
        if matches!(self, Self::Debian) {
            command.args(["-Z", "build-std=core,alloc,compiler_builtins"]);
            command.args(["-Z", "build-std-features=compiler-builtins-mem"]);
        }
        command.env("SEIMON_ANCHORS", &wanted.anchors);
        command.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags(&root, &target)?.join("\u{1f}"));
        if !command.stdin(Stdio::null()).status().context("cargo could not be started")?.success() {
            bail!("the build failed (see above)");
        }
        let built = target.join(TARGET).join("release").join(format!("{package}.efi"));
        if let Some(folder) = to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        std::fs::copy(&built, to).with_context(|| format!("{} to {}", built.display(), to.display()))?;
        Ok(())
    }
}

/// Whatever the folders are called, the program does not know.
fn flags(root: &Path, target: &Path) -> Result<Vec<String>> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    Ok(vec![
        // The last that fits counts, and the target folder may lie in the repository.
        remap(&home, "/cargo"),
        remap(root, "/seimon"),
        remap(target, "/target"),
        "-Clink-arg=/Brepro".to_owned(),
        // The debug file, which nobody keeps, has the linker's command line in it, and the program its digest.
        "-Clink-arg=/DEBUG:NONE".to_owned(),
    ])
}

fn target_library_is_there() -> bool {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    output.is_ok_and(|output| {
        let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&folder).is_dir()
    })
}
