//! A message on the wire: its length in bytes (u32, little-endian), then so many bytes of JSON.
//!
//! A virtio-serial port has no connections of its own. When the bench hangs up, the gateway reads an end of file and forgets
//! what was half read; the rest of a frame that has begun must follow within [`PATIENCE`], or it is forgotten, too. A
//! bench takes only the reply whose `id` is its question's.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest message, in bytes.
pub const MOST: usize = 8 << 20;
/// From a frame's first byte to its last.
pub const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a message of {0} bytes is longer than {MOST}")]
    TooLong(usize),
    #[error("a message that is none of this version's: {text}")]
    NotAMessage {
        text: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("a message cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
    #[error("the port")]
    Port(#[source] io::Error),
}

pub fn write<M: Serialize>(port: &mut impl Write, message: &M) -> Result<(), FrameError> {
    let json = serde_json::to_vec(message).map_err(FrameError::Unwritable)?;
    let length = u32::try_from(json.len())
        .ok()
        .filter(|_| json.len() <= MOST)
        .ok_or(FrameError::TooLong(json.len()))?;
    let bytes = [&length.to_le_bytes()[..], &json].concat();
    port.write_all(&bytes).and_then(|()| port.flush()).map_err(FrameError::Port)
}

/// The next message; empty frames are passed over.
pub fn read<M: DeserializeOwned>(port: &mut impl Read) -> Result<M, FrameError> {
    loop {
        let mut length = [0; 4];
        port.read_exact(&mut length).map_err(FrameError::Port)?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length == 0 {
            continue;
        }
        if length > MOST {
            return Err(FrameError::TooLong(length));
        }
        let mut json = vec![0; length];
        port.read_exact(&mut json).map_err(FrameError::Port)?;
        return serde_json::from_slice(&json).map_err(|source| FrameError::NotAMessage {
            text: String::from_utf8_lossy(&json[..json.len().min(80)]).into_owned(),
            source,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Question, Request, VERSION};

    fn question() -> Question {
        Question { version: VERSION, id: 7, request: Request::Status }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut wire = vec![0; 4];
        write(&mut wire, &question()).unwrap();
        write(&mut wire, &question()).unwrap();
        let mut rest = wire.as_slice();
        assert_eq!(read::<Question>(&mut rest).unwrap(), question());
        assert_eq!(read::<Question>(&mut rest).unwrap(), question());
        assert!(matches!(read::<Question>(&mut rest), Err(FrameError::Port(_))));
    }

    #[test]
    fn a_frame_is_its_length_and_json() {
        let mut wire = Vec::new();
        write(&mut wire, &question()).unwrap();
        assert_eq!(wire, b"\x2f\0\0\0{\"version\":1,\"id\":7,\"request\":{\"ask\":\"status\"}}");
    }

    #[test]
    fn a_length_out_of_bounds_is_refused_before_it_is_made_room_for() {
        let wire = u32::MAX.to_le_bytes();
        assert!(matches!(read::<Question>(&mut wire.as_slice()), Err(FrameError::TooLong(_))));
    }
}
