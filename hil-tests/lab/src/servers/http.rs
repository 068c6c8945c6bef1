//! HTTP/1.1 with keep-alive, as far as the lab's sites and clients need it.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest head accepted.
const HEAD: usize = 8192;

/// Bytes read from a connection that nobody has consumed yet.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
}

/// First line and headers of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Request or status line.
    pub(crate) first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// `name` in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn content_length(&self) -> u64 {
        self.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Method and target of a request.
    pub(crate) fn request(&self) -> Option<(&str, &str)> {
        let mut words = self.first.split(' ');
        Some((words.next()?, words.next()?))
    }

    /// Status of a response.
    pub(crate) fn status(&self) -> Option<u16> {
        self.first.split(' ').nth(1)?.parse().ok()
    }
}

/// `key` of a target's query.
pub(crate) fn parameter<'a>(target: &'a str, key: &str) -> Option<&'a str> {
    target
        .split_once('?')?
        .1
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == key))
        .map(|(_, v)| v)
}

impl Reader {
    /// The next message's head; None: the peer closed before one began.
    pub(crate) async fn head<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> std::io::Result<Option<Head>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 4);
                let mut lines = text.split("\r\n");
                let first = lines.next().unwrap_or_default().to_owned();
                let headers = lines
                    .filter_map(|line| line.split_once(':'))
                    .map(|(key, value)| (key.trim().to_ascii_lowercase(), value.trim().to_owned()))
                    .collect();
                return Ok(Some(Head { first, headers }));
            }
            if self.buffer.len() > HEAD {
                return Err(std::io::Error::other("head too long"));
            }
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).await?;
            if count == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(std::io::ErrorKind::UnexpectedEof.into())
                };
            }
            self.buffer.extend_from_slice(&piece[..count]);
        }
    }

    /// Up to `room.len()` bytes of a body; 0: the peer closed.
    pub(crate) async fn body<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        room: &mut [u8],
    ) -> std::io::Result<usize> {
        if self.buffer.is_empty() {
            return stream.read(room).await;
        }
        let count = room.len().min(self.buffer.len());
        room[..count].copy_from_slice(&self.buffer[..count]);
        self.buffer.drain(..count);
        Ok(count)
    }
}

/// Writes a whole small response.
pub(crate) async fn respond<S: AsyncWrite + Unpin>(
    stream: &mut S,
    status: &str,
    headers: &str,
    body: &str,
) -> std::io::Result<()> {
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await
}

/// Bytes that transfers consist of: not compressible to nothing, the same everywhere.
pub(crate) fn pattern() -> Vec<u8> {
    let mut random = crate::wire::Random::new(2026);
    let mut block = vec![0u8; 65_536];
    for piece in block.chunks_mut(8) {
        piece.copy_from_slice(&random.next().to_be_bytes()[..piece.len()]);
    }
    block
}

/// SHA-256 of the first `bytes` bytes of the repeated pattern, in hexadecimal. Blocks the thread: 10 MB take some 30 ms.
pub(crate) fn pattern_checksum(block: &[u8], bytes: u64) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut left = bytes;
    while left > 0 {
        let count = left.min(block.len() as u64) as usize;
        context.update(&block[..count]);
        left -= count as u64;
    }
    hex(context.finish().as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How long to wait so that `sent` bytes since the beginning keep to `pace` bytes a second.
pub(crate) fn pacing(pace: u64, sent: u64, elapsed: Duration) -> Option<Duration> {
    if pace == 0 {
        return None;
    }
    Duration::from_secs_f64(sent as f64 / pace as f64).checked_sub(elapsed).filter(|wait| !wait.is_zero())
}
