//! Writing an image into the slot that does not run.
//!
//! 1. The head is read and verified: signature, board, epoch, guardian, layout. Nothing has been written.
//! 2. The boot state says that the slot is empty; the slot's head is overwritten. Whatever was there starts no more.
//! 3. The parts are written, flushed every [`STRIDE`], and how far that is kept in `staging.json`: a fetch that was cut, or
//!    a box that was, goes on from there.
//! 4. Everything is read back from the disk and compared with the signed digests.
//! 5. The head is written and flushed; then the boot state calls the slot staged.
//!
//! Power may go between any two writes: before 5 the slot has no head, and the boot state does not name it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use seimon_boot::image::{HEAD, Here, PartName};
use seimon_boot::{Digest, Refusal, SignedHead, Slot};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::disk::{DiskError, SlotDisk, StateDisk};
use crate::durable;
use crate::source::{Source, SourceError};

/// Bytes between two flushes.
const STRIDE: u64 = 8 << 20;
/// Pauses before a fetch that broke off is tried again.
const AGAIN: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(120),
];
const PROGRESS: &str = "staging.json";

#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the image broke off after {at} of {total} bytes")]
    BrokeOff {
        at: u64,
        total: u64,
        #[source]
        source: io::Error,
    },
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("{path} cannot be kept")]
    Keep {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "what was written does not read back: the {0} differs. The disk is failing, or the source is; nothing was changed"
    )]
    NotKept(PartName),
}

/// How far an image was written.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    slot: Slot,
    digest: Digest,
    /// All bytes before this one are on the disk.
    written: u64,
}

/// The source's head, verified. Its bytes come along: they are written last.
pub(crate) fn read_head(source: &Source, here: Here<'_>) -> Result<(SignedHead, Vec<u8>), StageError> {
    let mut head = Vec::with_capacity(HEAD);
    source.read_from(0, HEAD as u64)?.read_to_end(&mut head).map_err(|source| StageError::BrokeOff {
        at: 0,
        total: HEAD as u64,
        source,
    })?;
    if head.len() < HEAD {
        return Err(Refusal::NoImage.into());
    }
    let signed = SignedHead::verify(&head, here)?;
    Ok((signed, head))
}

pub(crate) struct Target<'a> {
    pub(crate) slot: Slot,
    pub(crate) disk: &'a SlotDisk,
    pub(crate) state: &'a StateDisk,
    /// Where `staging.json` is kept.
    pub(crate) folder: &'a Path,
}

/// Steps 2 to 5.
pub(crate) fn write(
    source: &Source,
    signed: &SignedHead,
    head: &[u8],
    target: &Target<'_>,
    mut report: impl FnMut(u64, u64),
) -> Result<(), StageError> {
    let (total, kept) = (signed.manifest().length(), target.folder.join(PROGRESS));
    let keep = |source| StageError::Keep { path: kept.clone(), source };
    let mut progress = match durable::read::<Progress>(&kept) {
        Some(known) if known.slot == target.slot && known.digest == signed.digest() => known,
        Some(_) | None => Progress { slot: target.slot, digest: signed.digest(), written: HEAD as u64 },
    };
    progress.written = progress.written.clamp(HEAD as u64, total);
    target.state.change(|state| state.writing(target.slot))?;
    target.disk.write_at(&[0; HEAD], 0)?;
    target.disk.sync()?;
    durable::write(&kept, &progress).map_err(keep)?;
    let mut tries = AGAIN.iter();
    while progress.written < total {
        let before = progress.written;
        let outcome = fetch(source, &mut progress, total, target, &kept, &mut report);
        let Err(error) = outcome else { continue };
        if progress.written > before {
            tries = AGAIN.iter();
        }
        let passing = match &error {
            StageError::Source(error) => error.is_passing(),
            StageError::BrokeOff { .. } => matches!(source, Source::Https { .. }),
            StageError::Refused(_)
            | StageError::Disk(_)
            | StageError::Keep { .. }
            | StageError::NotKept(_) => false,
        };
        let Some(pause) = tries.next().filter(|_| passing) else { return Err(error) };
        tracing::warn!(%error, pause = pause.as_secs(), "the fetch broke off, trying again");
        std::thread::sleep(*pause);
    }
    read_back(signed, target)?;
    target.disk.write_at(head, 0)?;
    target.disk.sync()?;
    target.state.change(|state| state.staged(target.slot, signed))?;
    durable::remove(&kept).map_err(keep)?;
    Ok(())
}

fn fetch(
    source: &Source,
    progress: &mut Progress,
    total: u64,
    target: &Target<'_>,
    kept: &Path,
    report: &mut impl FnMut(u64, u64),
) -> Result<(), StageError> {
    let mut from = source.read_from(progress.written, total - progress.written)?;
    let mut chunk = vec![0; 256 << 10];
    let mut at = progress.written;
    let mut flush = |at: u64, progress: &mut Progress| -> Result<(), StageError> {
        target.disk.sync()?;
        progress.written = at;
        durable::write(kept, progress)
            .map_err(|source| StageError::Keep { path: kept.to_owned(), source })?;
        report(at, total);
        Ok(())
    };
    loop {
        let outcome = match from.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) if at < total => Err(io::ErrorKind::UnexpectedEof.into()),
            other => other,
        };
        match outcome {
            Ok(length) => {
                target.disk.write_at(&chunk[..length], at)?;
                at += length as u64;
            }
            Err(source) => {
                flush(at, progress)?;
                return Err(StageError::BrokeOff { at, total, source });
            }
        }
        if at >= progress.written + STRIDE || at == total {
            flush(at, progress)?;
        }
        if at == total {
            return Ok(());
        }
    }
}

fn read_back(signed: &SignedHead, target: &Target<'_>) -> Result<(), StageError> {
    for name in [PartName::Kernel, PartName::Initramfs, PartName::Root] {
        let part = signed.manifest().part(name);
        let mut from = target.disk.read_back(part.offset, part.length)?;
        let mut hash = sha2::Sha256::new();
        let mut chunk = vec![0; 256 << 10];
        loop {
            match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => hash.update(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(target.disk.read_error(error).into()),
            }
        }
        if Digest(hash.finalize().into()) != part.sha256 {
            // What was fetched is not to be gone on from.
            let kept = target.folder.join(PROGRESS);
            durable::remove(&kept).map_err(|source| StageError::Keep { path: kept, source })?;
            return Err(StageError::NotKept(name));
        }
    }
    Ok(())
}
