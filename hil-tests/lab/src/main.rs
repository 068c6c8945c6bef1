//! `seimon-lab`: plays scenarios, the demo and the benches. `cargo xtask` builds and starts it.

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "A town in network namespaces: scenarios, demo, benches")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play scenarios.
    Run(RunArgs),
    /// Play one scenario in this very process (what `run` starts for each).
    #[command(hide = true)]
    Play(PlayArgs),
    /// Move a small town's services, live, and prove that nobody noticed.
    Demo(DemoArgs),
    /// The shipped scenarios.
    List,
    /// Every word a scenario may use.
    Vocabulary {
        #[arg(long)]
        json: bool,
    },
    /// Raise the town with its gateway and look around.
    Shell(ShellArgs),
    /// Measure, in ratios.
    Bench(BenchArgs),
}

#[derive(Args)]
struct RunArgs {
    files: Vec<PathBuf>,
    /// Every shipped scenario.
    #[arg(long, conflicts_with = "files")]
    all: bool,
    /// Only those marked `short = true`.
    #[arg(long, requires = "all")]
    short: bool,
    /// Write the results here (format 1).
    #[arg(long)]
    json: Option<PathBuf>,
    /// Switch a mechanism off, to see the scenario fail; several with commas.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Play each scenario with its own `sabotage` switched off; good is when every one of them fails.
    #[arg(long)]
    sabotaged: bool,
    /// Play so many at a time, each in a town of its own. What is measured in milliseconds is truest with one.
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Folder of the gateway's programs.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
}

#[derive(Args)]
struct GatewayArgs {
    /// namespace (the programs themselves), qemu-virt-edk2, qemu-virt-uboot (the image in QEMU; with `:trunk` the zones are
    /// VLANs on one cable), or a bench file (*.toml).
    #[arg(long, default_value = "namespace")]
    gateway: String,
    /// Image for QEMU: a folder of `cargo xtask image` with a disk in it (default: `target/images/BOARD`), or a whole disk.
    #[arg(long)]
    image: Option<PathBuf>,
}

#[derive(Args)]
struct PlayArgs {
    file: PathBuf,
    #[arg(long)]
    json: PathBuf,
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    #[arg(long)]
    bin_dir: PathBuf,
    /// Folder for report and logs.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Args)]
struct DemoArgs {
    #[arg(long)]
    json: Option<PathBuf>,
    /// Language on the screen; the report has both.
    #[arg(long, default_value = "en")]
    lang: String,
    #[arg(long)]
    bin_dir: Option<PathBuf>,
}

#[derive(Args)]
struct ShellArgs {
    /// Run this instead of an interactive shell.
    #[arg(long)]
    exec: Option<String>,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[arg(long)]
    bin_dir: Option<PathBuf>,
}

#[derive(Args)]
struct BenchArgs {
    /// One group of measurements.
    #[arg(long)]
    only: Option<String>,
    #[arg(long)]
    json: Option<PathBuf>,
    #[arg(long)]
    bin_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => commands::run(&args),
        Command::Play(args) => commands::play(&args),
        Command::Demo(args) => commands::demo(&args),
        Command::List => commands::list(),
        Command::Vocabulary { json } => commands::vocabulary(json),
        Command::Shell(args) => commands::shell(&args),
        Command::Bench(args) => commands::bench(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}
