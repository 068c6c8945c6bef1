//! The boot state on its partition: what the guardian left, and taking back a request that was carried out.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use seimon_boot::BootState;
use seimon_boot::state::{Copy, Found, RECORD, Request, newest};

use crate::{Doing as _, Result};

/// # Errors
/// The partition cannot be read.
pub fn read(partition: &File) -> Result<Found> {
    let mut copies = [[0; RECORD]; 2];
    for (copy, bytes) in [Copy::First, Copy::Second].into_iter().zip(&mut copies) {
        partition.read_exact_at(bytes, copy.offset()).doing("reading the boot state")?;
    }
    Ok(newest(&copies[0], &copies[1]))
}

/// What the next start is asked to do.
///
/// # Errors
/// The partition cannot be read.
pub fn request(partition: &File) -> Result<Request> {
    Ok(read(partition)?.state.map_or(Request::None, |state| state.request))
}

/// Takes the request back. On the disk when this returns.
///
/// # Errors
/// The partition cannot be written; the request stands.
pub fn done(partition: &File) -> Result<()> {
    let found = read(partition)?;
    let Some(state) = found.state else { return Ok(()) };
    let next = BootState { request: Request::None, ..state }.advanced();
    partition
        .write_all_at(&next.encode(), found.write_to.offset())
        .and_then(|()| partition.sync_all())
        .doing("writing the boot state")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_stands_until_it_is_taken_back_and_nothing_else_changes() {
        let partition = tempfile::tempfile().unwrap();
        partition.set_len(1 << 20).unwrap();
        assert_eq!(request(&partition).unwrap(), Request::None);
        done(&partition).unwrap();
        assert!(read(&partition).unwrap().state.is_none(), "no state is made up");

        let asked = BootState { request: Request::Wipe, epoch: 7, ..BootState::fresh() };
        partition.write_all_at(&asked.encode(), 0).unwrap();
        assert_eq!(request(&partition).unwrap(), Request::Wipe);
        done(&partition).unwrap();
        let after = read(&partition).unwrap().state.unwrap();
        assert_eq!(after, BootState { request: Request::None, sequence: 2, ..asked });
        assert_eq!(BootState::decode(&bytes_at(&partition, 0)), Some(asked), "the old copy is still there");
    }

    fn bytes_at(partition: &File, at: u64) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        partition.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }
}
