//! `seimon-page`: started by `seimon-agent`, shows everybody in the school how the network is.
//!
//! ```text
//! agent ──page──▶ [`link`] ──▶ the page of the moment ──▶ [`serve`] ◀──GET / ── browsers in the zones
//!                                the zone's PAC file  ──▶         ◀──GET /proxy.pac, /wpad.dat
//! ```
//! The process has no privilege, no files, and knows nothing but that page and those files. One thread. What a browser sends is read as far as
//! its first line and thrown away.

mod confine;
mod inherit;
mod link;
mod serve;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::inherit::Inherited;
use crate::serve::Shown;

/// Words to the agent that wait; what is more is not told.
const NEWS: usize = 256;

/// The school's status page.
///
/// Started by seimon-agent with its sockets inherited; it has no options.
#[derive(Debug, Parser)]
#[command(name = "seimon-page", version)]
struct Arguments {}

fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is closed there is nobody to tell.
            let _ = writeln!(std::io::stderr().lock(), "seimon-page: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    // Before anything can open a descriptor of its own.
    let Inherited { agent, listeners } = Inherited::take()?;
    confine::confine().context("privileges remain: not running like this")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let (tell, news) = tokio::sync::mpsc::channel(NEWS);
        let shown = Shown::new(tell);
        for (number, listener) in listeners.into_iter().enumerate() {
            let listener = tokio::net::TcpListener::from_std(listener).context("a listening socket")?;
            tokio::task::spawn_local(serve::listen(number, listener, shown.clone()));
        }
        let agent = tokio::net::UnixStream::from_std(agent).context("the agent's socket")?;
        link::follow(agent, &shown, news).await
    })
}
