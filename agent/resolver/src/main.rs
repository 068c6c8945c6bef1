//! `seimon-resolver`: started by `seimon-agent`, answers the zones' questions for names.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use seimon_resolver::names::Without;
use seimon_resolver::shell::{self, confine, inherit::Inherited};
use tracing_subscriber::EnvFilter;

/// The gateway's name server.
///
/// Started by seimon-agent with its sockets inherited; it has no options. SEIMON_LOG sets the log level (default: info).
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {}

fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is closed there is nobody to tell.
            let _ = writeln!(std::io::stderr().lock(), "seimon-resolver: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    // Before anything can open a descriptor of its own.
    let inherited = Inherited::take()?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("SEIMON_LOG").unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let without = without()?;
    let filesystem = confine::confine().context("privileges remain: not running like this")?;
    tracing::info!(?filesystem, udp = inherited.udp.len(), tcp = inherited.tcp.len(), "serving");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(shell::run(inherited, without))
}

#[cfg(feature = "sabotage")]
fn without() -> anyhow::Result<Without> {
    use seimon_resolver::names::Off;
    let mut without = Without::default();
    let names = std::env::var("SEIMON_WITHOUT").unwrap_or_default();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        match name {
            "inside-address" => without.inside_address = Off::Yes,
            "aaaa-withhold" => without.aaaa_withhold = Off::Yes,
            // The other mechanisms are the agent's.
            _ => continue,
        }
        tracing::warn!(name, "a mechanism is switched off");
    }
    Ok(without)
}

#[cfg(not(feature = "sabotage"))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as with the feature")]
fn without() -> anyhow::Result<Without> {
    Ok(Without::default())
}
