//! The agent's socket: pages come in, JSON lines.

use anyhow::Context as _;
use seimon_ipc::frame::{self, LineBuffer};
use seimon_ipc::page::{FromPage, ToPage, VERSION};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::serve::Shown;

/// Shows what the agent says until it hangs up.
pub(crate) async fn follow(mut agent: UnixStream, shown: &Shown) -> anyhow::Result<()> {
    agent.write_all(&frame::encode(&FromPage::Hello { version: VERSION })?).await?;
    let mut lines = LineBuffer::default();
    let mut bytes = vec![0; 16 << 10];
    loop {
        while let Some(line) = lines.next_line().context("what the agent says")? {
            let ToPage::Show { html } = frame::decode(&line).context("what the agent says")?;
            shown.show(html);
        }
        match agent.read(&mut bytes).await {
            Ok(0) => return Ok(()),
            Ok(length) => lines.push(&bytes[..length]),
            // The agent was killed with words of ours unread.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error).context("the agent's socket"),
        }
    }
}
