//! Command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Makes the gateway's image.
#[derive(Debug, Parser)]
#[command(name = "seimon-image", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// The repository.
    #[arg(long, value_name = "DIR", default_value = ".", global = true)]
    pub(crate) root: PathBuf,
    /// Where builds go; default: target in the repository.
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) target_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a signed image, its contents and its SBOM.
    Make(Make),
    /// Resolves images/packages.toml to exact packages and writes images/packages.lock.
    Lock,
    /// What came, went and changed between two images.
    Diff {
        /// An image, or the folder it was written to.
        old: PathBuf,
        new: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Known holes of the packages. Exit status 3: cannot tell.
    Cve {
        /// The Debian security tracker's JSON.
        #[arg(long, value_name = "FILE")]
        database: Option<PathBuf>,
        #[arg(long, default_value = "bookworm")]
        release: String,
        #[arg(long)]
        json: bool,
    },
    /// Starts an image in QEMU.
    Vm(Vm),
}

#[derive(Debug, Args)]
pub(crate) struct Make {
    /// A board of board/boards that is real hardware or QEMU's.
    #[arg(long, value_name = "ID")]
    pub(crate) board: String,
    /// Where to write; default: target/images/BOARD.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// At most 24 characters; default: the workspace's.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    pub(crate) version: String,
    /// Security epoch: a box that has confirmed a higher one refuses this image.
    #[arg(long, default_value_t = 1)]
    pub(crate) epoch: u32,
    /// The maker's ed25519 key (32 bytes); default: one for trying things out.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Folder with programs that are built already: PROGRAMS and `static` below it.
    #[arg(long, value_name = "DIR")]
    pub(crate) built: Option<PathBuf>,
    /// Also writes a whole disk with this boot guardian (BOOTAA64.EFI) on its ESP.
    #[arg(long, value_name = "FILE")]
    pub(crate) guardian: Option<PathBuf>,
    /// Do not compress.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Looks for what must not be in an image, and writes none.
    #[arg(long)]
    pub(crate) check: bool,
    /// Only the SBOM, on standard output.
    #[arg(long)]
    pub(crate) sbom: bool,
    /// The result as JSON on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Vm {
    #[arg(long, value_name = "ID", default_value = "qemu-virt-edk2")]
    pub(crate) board: String,
    /// Where `make` wrote the image; default: target/images/BOARD.
    #[arg(long, value_name = "DIR")]
    pub(crate) image: Option<PathBuf>,
    /// The disk, made if it is not there; default: a new one that is gone afterwards.
    #[arg(long, value_name = "FILE")]
    pub(crate) disk: Option<PathBuf>,
    /// A plan to give to the gateway.
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// Certificate of an authority that the plan names as lab-ca.pem.
    #[arg(long, value_name = "FILE")]
    pub(crate) authority: Option<PathBuf>,
    /// Start through this boot guardian (BOOTAA64.EFI); without it QEMU starts the kernel itself.
    #[arg(long, value_name = "FILE")]
    pub(crate) guardian: Option<PathBuf>,
    /// Switches off as soon as the agent is ready (or, without a plan, the maintenance port answers).
    #[arg(long)]
    pub(crate) exit_when_ready: bool,
    /// MiB of memory.
    #[arg(long, default_value_t = 1024)]
    pub(crate) memory: u32,
    /// Times and memory as JSON on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}
