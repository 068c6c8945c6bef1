//! One JSON object a line, at most [`MAX_LINE`] bytes. Encoding and decoding only; reading and writing is the caller's.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest line that is read, in bytes, its end included.
pub const MAX_LINE: usize = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a line is longer than {MAX_LINE} bytes")]
    TooLong,
    #[error("a line is not a message of this version")]
    NotAMessage(#[source] serde_json::Error),
    #[error("a message cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
}

/// The message as a line, `\n` included.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut line = serde_json::to_vec(message).map_err(FrameError::Unwritable)?;
    line.push(b'\n');
    if line.len() > MAX_LINE { Err(FrameError::TooLong) } else { Ok(line) }
}

pub fn decode<M: DeserializeOwned>(line: &[u8]) -> Result<M, FrameError> {
    if line.len() > MAX_LINE {
        return Err(FrameError::TooLong);
    }
    serde_json::from_slice(line).map_err(FrameError::NotAMessage)
}

/// Collects bytes and gives back whole lines.
#[derive(Debug, Default)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    searched: usize,
}

impl LineBuffer {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line without its `\n`, or `None` when more bytes are needed.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        if let Some(at) = self.bytes[self.searched..].iter().position(|&b| b == b'\n') {
            let end = self.searched + at;
            let rest = self.bytes.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.bytes, rest);
            line.pop();
            self.searched = 0;
            return if line.len() >= MAX_LINE { Err(FrameError::TooLong) } else { Ok(Some(line)) };
        }
        self.searched = self.bytes.len();
        if self.bytes.len() >= MAX_LINE { Err(FrameError::TooLong) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_the_bytes_arrive() {
        let mut buffer = LineBuffer::default();
        for byte in b"{\"a\":1}\n\n{\"b\"" {
            buffer.push(&[*byte]);
        }
        assert_eq!(buffer.next_line().unwrap().unwrap(), b"{\"a\":1}");
        assert_eq!(buffer.next_line().unwrap().unwrap(), b"");
        assert!(buffer.next_line().unwrap().is_none());
        buffer.push(b":2}\nx");
        assert_eq!(buffer.next_line().unwrap().unwrap(), b"{\"b\":2}");
        assert!(buffer.next_line().unwrap().is_none());
    }

    #[test]
    fn an_endless_line_is_an_error_and_not_all_of_memory() {
        let mut buffer = LineBuffer::default();
        buffer.push(&vec![b'x'; MAX_LINE]);
        assert!(matches!(buffer.next_line(), Err(FrameError::TooLong)));
    }
}
