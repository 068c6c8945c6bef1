//! The agent's socket: pages and PAC files come in, who took one goes out; JSON lines.

use anyhow::Context as _;
use seimon_ipc::frame::{self, LineBuffer};
use seimon_ipc::page::{FromPage, ToPage, VERSION};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::serve::Shown;

/// Shows what the agent says, and tells it what `news` brings, until it hangs up.
pub(crate) async fn follow(
    mut agent: UnixStream,
    shown: &Shown,
    mut news: mpsc::Receiver<FromPage>,
) -> anyhow::Result<()> {
    agent.write_all(&frame::encode(&FromPage::Hello { version: VERSION })?).await?;
    let mut lines = LineBuffer::default();
    let mut bytes = vec![0; 16 << 10];
    loop {
        while let Some(line) = lines.next_line().context("what the agent says")? {
            match frame::decode(&line).context("what the agent says")? {
                ToPage::Show { html } => shown.show(html),
                ToPage::Pacs { serial, files } => shown.serve_pacs(serial, files),
                ToPage::Noted { client, serial } => shown.note(client, serial),
            }
        }
        let read = tokio::select! {
            read = agent.read(&mut bytes) => read,
            Some(word) = news.recv() => {
                agent.write_all(&frame::encode(&word)?).await?;
                continue;
            }
        };
        match read {
            Ok(0) => return Ok(()),
            Ok(length) => lines.push(&bytes[..length]),
            // The agent was killed with words of ours unread.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error).context("the agent's socket"),
        }
    }
}
