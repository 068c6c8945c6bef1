//! `seimon-agent`: the only process of the gateway that may change the network. See [`agent`] for the loop.

mod acceptance;
mod agent;
mod census;
mod children;
mod cli;
mod clock;
mod conduct;
mod control;
mod diagnostics;
mod events;
mod folders;
mod hub;
mod identity;
mod line_use;
mod lookups;
mod metering;
mod metrics;
mod network;
mod page;
mod panel;
mod plans;
mod probing;
mod proxy;
mod requests;
mod sabotage;
mod store;
mod views;
mod wording;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match carry_out(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do if standard error is closed.
            let _closed = writeln!(std::io::stderr(), "seimon-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: cli::Command) -> Result<()> {
    match command {
        cli::Command::Lockdown => agent::lockdown(&mut seimon_dataplane::Linux::open()?),
        cli::Command::Run(args) => {
            log_to_stderr(args.log);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let tasks = tokio::task::LocalSet::new();
            match plans::role(&args) {
                seimon_plan::Role::School => tasks.block_on(&runtime, agent::run(args)),
                seimon_plan::Role::Hub => tasks.block_on(&runtime, hub::run(args)),
            }
        }
    }
}

fn log_to_stderr(format: cli::LogFormat) {
    let filter = EnvFilter::try_from_env("SEIMON_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        cli::LogFormat::Text => builder.with_ansi(false).init(),
        cli::LogFormat::Json => builder.json().init(),
    }
}
