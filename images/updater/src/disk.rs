//! The disk as the updater sees it: the boot state's partition and the two slots, given as paths (block devices, or
//! files in tests).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};
use seimon_boot::state::{COPY_DISTANCE, Copy, Found, RECORD, newest};
use seimon_boot::{BootState, Slot};

#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("{what} ({path}) cannot be {done}")]
    Io {
        what: &'static str,
        path: PathBuf,
        done: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(
        "both copies of the boot state ({path}) are damaged: restart the box, the boot guardian makes them anew"
    )]
    StateLost { path: PathBuf },
    #[error("the boot state ({path}) does not read back as it was written: the disk is failing, replace it")]
    NotKept { path: PathBuf },
}

/// The boot state's partition.
#[derive(Debug)]
pub(crate) struct StateDisk {
    path: PathBuf,
    file: File,
}

impl StateDisk {
    pub(crate) fn open(path: &Path) -> Result<Self, DiskError> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|source| error("the boot state", path, "opened", source))?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn find(&self) -> Result<Found, DiskError> {
        // What the kernel remembers of the disk is not what is on it.
        fadvise(&self.file, 0, None, Advice::DontNeed)
            .map_err(|errno| error("the boot state", &self.path, "read", errno.into()))?;
        let read = |copy: Copy| {
            let mut bytes = [0; RECORD];
            match self.file.read_exact_at(&mut bytes, copy.offset()) {
                Ok(()) => Ok(bytes),
                Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => Ok([0; RECORD]),
                Err(source) => Err(error("the boot state", &self.path, "read", source)),
            }
        };
        Ok(newest(&read(Copy::First)?, &read(Copy::Second)?))
    }

    pub(crate) fn read(&self) -> Result<BootState, DiskError> {
        self.find()?.state.ok_or_else(|| DiskError::StateLost { path: self.path.clone() })
    }

    /// Reads, changes and writes; returns what is on the disk when it returns.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut BootState) -> T,
    ) -> Result<(BootState, T), DiskError> {
        let found = self.find()?;
        let mut state = found.state.ok_or_else(|| DiskError::StateLost { path: self.path.clone() })?;
        let before = state;
        let outcome = change(&mut state);
        if state == before {
            return Ok((state, outcome));
        }
        let state = state.advanced();
        debug_assert!(found.write_to.offset() <= COPY_DISTANCE);
        self.file
            .write_all_at(&state.encode(), found.write_to.offset())
            .and_then(|()| self.file.sync_data())
            .map_err(|source| error("the boot state", &self.path, "written", source))?;
        if self.find()?.state != Some(state) {
            return Err(DiskError::NotKept { path: self.path.clone() });
        }
        Ok((state, outcome))
    }
}

/// One slot's partition.
#[derive(Debug)]
pub(crate) struct SlotDisk {
    path: PathBuf,
    pub(crate) file: File,
    pub(crate) length: u64,
}

impl SlotDisk {
    pub(crate) fn open(path: &Path) -> Result<Self, DiskError> {
        let opened = OpenOptions::new().read(true).write(true).open(path).and_then(|mut file| {
            let length = file.seek(SeekFrom::End(0))?;
            Ok((file, length))
        });
        let (file, length) = opened.map_err(|source| error("the slot", path, "opened", source))?;
        Ok(Self { path: path.to_owned(), file, length })
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|source| error("the slot", &self.path, "written", source))
    }

    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(|source| error("the slot", &self.path, "flushed", source))
    }

    /// From the disk itself, not from what the kernel remembers of it.
    pub(crate) fn read_back(&self, offset: u64, length: u64) -> Result<impl Read, DiskError> {
        fadvise(&self.file, 0, None, Advice::DontNeed)
            .map_err(|errno| error("the slot", &self.path, "read", errno.into()))?;
        let mut file =
            self.file.try_clone().map_err(|source| error("the slot", &self.path, "read", source))?;
        file.seek(SeekFrom::Start(offset)).map_err(|source| error("the slot", &self.path, "read", source))?;
        Ok(file.take(length))
    }

    pub(crate) fn read_error(&self, source: io::Error) -> DiskError {
        error("the slot", &self.path, "read", source)
    }
}

/// Where the slots are.
#[derive(Clone, Debug)]
pub(crate) struct SlotPaths {
    pub(crate) a: PathBuf,
    pub(crate) b: PathBuf,
}

impl SlotPaths {
    pub(crate) fn of(&self, slot: Slot) -> &Path {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }
}

fn error(what: &'static str, path: &Path, done: &'static str, source: io::Error) -> DiskError {
    DiskError::Io { what, path: path.to_owned(), done, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_survives_the_loss_of_either_copy_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let mut bytes = vec![0; 1 << 20];
        bytes[..RECORD].copy_from_slice(&BootState::fresh().encode());
        std::fs::write(&path, &bytes).unwrap();
        let disk = StateDisk::open(&path).unwrap();
        for round in 1..6_u32 {
            let (state, ()) = disk.change(|state| state.epoch = round).unwrap();
            assert_eq!((state.epoch, state.sequence), (round, u64::from(round) + 1));
            assert_eq!(disk.read().unwrap(), state);
        }
        let (state, ()) = disk.change(|_| ()).unwrap();
        assert_eq!(state.sequence, 6, "nothing changed, nothing written");
        // The newest is lost: the one before is still there.
        let (newest_at, before) = if state.sequence.is_multiple_of(2) { (COPY_DISTANCE, 5) } else { (0, 5) };
        disk.file.write_all_at(&[0xff; RECORD], newest_at).unwrap();
        assert_eq!(disk.read().unwrap().sequence, before);
        disk.file.write_all_at(&[0xff; RECORD], COPY_DISTANCE - newest_at).unwrap();
        assert!(matches!(disk.read(), Err(DiskError::StateLost { .. })));
        assert!(matches!(disk.change(|state| state.epoch = 9), Err(DiskError::StateLost { .. })));
    }
}
