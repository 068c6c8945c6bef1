use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    seimonctl::run(seimonctl::args::Args::parse())
}
