//! What the boot guardian does, without the boot firmware: from a disk to bytes that may be started, or to rescue.
//!
//! ```text
//!   open: partitions, newest boot state (both torn: rebuilt from what the slots prove)
//!     │
//!     ▼            refused: fall, written down, said
//!   choose ──▶ load and verify ──────────────────────────┐
//!     │ ▲               │ good                           │
//!     │ └───────────────┼────────────────────────────────┘
//!     ▼                 ▼
//!   rescue      the start is written down ──▶ Ready (the caller jumps; what comes back is [`Guardian::not_started`])
//! ```
//!
//! Nothing here panics or runs on for ever, whatever the disk holds or does. Where the state cannot be written, a confirmed
//! image starts all the same: a box that boots with a broken record is worth more than one that does not.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::board::Seen;
use crate::digest::Hasher;
use crate::disk::{Disk, DiskError};
use crate::gpt::{self, GptError, Partition, Partitions};
use crate::image::{HEAD, Here, PartName};
use crate::policy::{Choice, Depth, WhyRescue};
use crate::state::{COPY_DISTANCE, Copy, RECORD, Request, newest};
use crate::{Anchors, BootState, Reason, Refusal, SignedHead, Slot, Status};

/// Read and hashed at a time.
const PIECE: usize = 1024 * 1024;

/// Where lines for people go.
pub type Say<'a> = &'a mut dyn FnMut(fmt::Arguments<'_>);

/// Verified, and written down as started.
#[derive(Debug)]
pub struct Ready {
    pub slot: Slot,
    pub version: String,
    pub kernel: Vec<u8>,
    pub initramfs: Vec<u8>,
    pub command_line: String,
}

#[derive(Debug)]
pub enum Next {
    Start(Ready),
    Rescue(WhyRescue),
}

/// Why a slot cannot be started.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    NoPartition(&'static str),
    Disk(DiskError),
    Refused(Refusal),
    TooLittleMemory(u64),
}

impl Failure {
    fn reason(&self) -> Reason {
        match self {
            Self::NoPartition(_) => Reason::NoImage,
            Self::Disk(_) => Reason::Unreadable,
            Self::Refused(refusal) => refusal.reason(),
            Self::TooLittleMemory(_) => Reason::NotStarted,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPartition(name) => {
                write!(f, "the disk has no partition `{name}`: write the image onto the disk again")
            }
            Self::Disk(error) => fmt::Display::fmt(error, f),
            Self::Refused(refusal) => fmt::Display::fmt(refusal, f),
            Self::TooLittleMemory(bytes) => {
                write!(f, "there is no memory for {bytes} bytes: this board has less than the image needs")
            }
        }
    }
}

/// The disk that we were loaded from, and what is known of it.
pub struct Guardian<'a> {
    disk: &'a mut dyn Disk,
    anchors: &'a Anchors,
    seen: &'a Seen,
    partitions: Partitions,
    state: BootState,
    /// Where the next state is written.
    write_to: Copy,
}

impl fmt::Debug for Guardian<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { disk: _, anchors: _, seen, partitions, state, write_to } = self;
        f.debug_struct("Guardian")
            .field("seen", seen)
            .field("partitions", partitions)
            .field("state", state)
            .field("write_to", write_to)
            .finish_non_exhaustive()
    }
}

impl<'a> Guardian<'a> {
    /// Reads partitions and boot state. An error means that there is nothing on this disk to decide about.
    pub fn open(
        disk: &'a mut dyn Disk,
        anchors: &'a Anchors,
        seen: &'a Seen,
        say: Say<'_>,
    ) -> Result<Self, GptError> {
        let partitions = gpt::partitions(disk)?;
        let mut guardian =
            Self { disk, anchors, seen, partitions, state: BootState::fresh(), write_to: Copy::First };
        guardian.read_state(say);
        Ok(guardian)
    }

    pub fn state(&self) -> &BootState {
        &self.state
    }

    fn read_state(&mut self, say: Say<'_>) {
        let found = match self.partitions.boot_state {
            Some(partition) => {
                let mut copies = [[0; RECORD]; 2];
                for (bytes, copy) in copies.iter_mut().zip([Copy::First, Copy::Second]) {
                    if let Err(error) = self.read(partition, copy.offset(), bytes) {
                        say(format_args!("boot state, {copy:?} copy: {error}"));
                    }
                }
                newest(&copies[0], &copies[1])
            }
            None => {
                say(format_args!(
                    "the disk has no partition `{}`: starts cannot be counted; write the image onto the disk again",
                    crate::partition::BOOT_STATE
                ));
                newest(&[], &[])
            }
        };
        self.write_to = found.write_to;
        if let Some(state) = found.state {
            self.state = state;
            return;
        }
        say(format_args!("boot state: both copies are damaged; looking at what the slots prove"));
        self.state.epoch = 0;
        let heads = Slot::BOTH.map(|slot| match self.head(slot) {
            Ok((_, head)) => Some(head),
            Err(failure) => {
                say(format_args!("slot {slot}: {failure}"));
                None
            }
        });
        self.state = BootState::rebuilt([heads[0].as_ref(), heads[1].as_ref()]);
        for slot in Slot::BOTH {
            let state = self.state.slot(slot);
            if state.status != Status::Empty {
                say(format_args!("slot {slot}: version {} is on trial again", state.version.as_str()));
            }
        }
    }

    /// Goes on until something is ready to be started or nothing can be.
    pub fn next(&mut self, say: Say<'_>) -> Next {
        // Each round but the last makes a slot bad, and there are two.
        for _ in 0..=Slot::BOTH.len() {
            let before = self.state;
            match self.state.choose() {
                Choice::Rescue { why } => {
                    if why == WhyRescue::Requested {
                        // Once: the next power-on starts as usual.
                        self.state.request = Request::None;
                    }
                    self.say_falls(&before, say);
                    if self.state != before {
                        self.store_or_say(say);
                    }
                    return Next::Rescue(why);
                }
                Choice::Verify { slot, depth } => {
                    self.say_falls(&before, say);
                    match self.load(slot, depth, say) {
                        Ok(ready) => {
                            if self.note_start(slot, say) {
                                return Next::Start(ready);
                            }
                        }
                        Err(failure) => {
                            say(format_args!("slot {slot}: refused: {failure}"));
                            self.state.fall(slot, failure.reason());
                            self.store_or_say(say);
                        }
                    }
                }
            }
        }
        Next::Rescue(WhyRescue::NothingBootable)
    }

    /// The boot firmware did not start the image that was ready, or it came back.
    pub fn not_started(&mut self, slot: Slot, say: Say<'_>) {
        self.state.fall(slot, Reason::NotStarted);
        self.store_or_say(say);
    }

    /// When nothing is startable by the rules: any slot that still verifies, whole. Nobody is at the box to ask, and an image
    /// that was never confirmed, on a box with no other, is better than a page. Changes no state.
    pub fn last_resort(&mut self, say: Say<'_>) -> Option<Ready> {
        for slot in [self.state.preferred, self.state.preferred.other()] {
            if self.state.slot(slot).status == Status::Empty {
                continue;
            }
            match self.load(slot, Depth::Everything, say) {
                Ok(ready) => return Some(ready),
                Err(failure) => say(format_args!("slot {slot}: refused: {failure}")),
            }
        }
        None
    }

    /// `false`: the start could not be written down, and another slot is the better choice.
    fn note_start(&mut self, slot: Slot, say: Say<'_>) -> bool {
        self.state.starting(slot);
        let Err(error) = self.store() else { return true };
        say(format_args!("boot state: {error}"));
        let confirmed = |slot: Slot| self.state.slot(slot).status == Status::Confirmed;
        if !confirmed(slot) && confirmed(slot.other()) {
            say(format_args!(
                "slot {slot}: not started: its tries cannot be counted, and slot {} is confirmed",
                slot.other()
            ));
            self.state.fall(slot, Reason::Unreadable);
            return false;
        }
        say(format_args!("slot {slot}: started without writing it down"));
        true
    }

    fn say_falls(&self, before: &BootState, say: Say<'_>) {
        for slot in Slot::BOTH {
            if before.slot(slot).status != self.state.slot(slot).status {
                let version = before.slot(slot).version;
                say(format_args!(
                    "slot {slot}: version {} given up: {}",
                    version.as_str(),
                    Reason::NeverConfirmed
                ));
            }
        }
    }

    fn head(&mut self, slot: Slot) -> Result<(Partition, SignedHead), Failure> {
        let partition = self.partitions.slot(slot).ok_or(Failure::NoPartition(slot.partition()))?;
        let mut head = vec![0; HEAD];
        self.read(partition, 0, &mut head).map_err(Failure::Disk)?;
        let here = Here {
            anchors: self.anchors,
            seen: self.seen,
            epoch: self.state.epoch,
            slot_length: partition.length,
        };
        let head = SignedHead::verify(&head, here).map_err(Failure::Refused)?;
        Ok((partition, head))
    }

    fn load(&mut self, slot: Slot, depth: Depth, say: Say<'_>) -> Result<Ready, Failure> {
        let (partition, head) = self.head(slot)?;
        let manifest = head.manifest();
        say(format_args!(
            "slot {slot}: version {}, epoch {}: signature good",
            manifest.version, manifest.epoch
        ));
        if self.state.slot(slot).digest != head.digest() && self.state.slot(slot).status != Status::Bad {
            say(format_args!("slot {slot}: not the image that the boot state knows: on trial"));
            self.state.staged(slot, &head);
        }
        let kernel = self.part(partition, &head, PartName::Kernel)?;
        let initramfs = self.part(partition, &head, PartName::Initramfs)?;
        if depth == Depth::Everything {
            say(format_args!(
                "slot {slot}: started before without a word: verifying all of it, which takes a while"
            ));
            self.root(partition, &head)?;
        }
        Ok(Ready {
            slot,
            version: manifest.version.clone(),
            kernel,
            initramfs,
            command_line: format!("{} seimon.slot={}", manifest.command_line, slot.letter()),
        })
    }

    fn part(&mut self, slot: Partition, head: &SignedHead, name: PartName) -> Result<Vec<u8>, Failure> {
        let part = *head.manifest().part(name);
        let too_little = Failure::TooLittleMemory(part.length);
        let Ok(length) = usize::try_from(part.length) else { return Err(too_little) };
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(length).is_err() {
            return Err(too_little);
        }
        bytes.resize(length, 0);
        self.read(slot, part.offset, &mut bytes).map_err(Failure::Disk)?;
        head.verify_part(name, &bytes).map_err(Failure::Refused)?;
        Ok(bytes)
    }

    fn root(&mut self, slot: Partition, head: &SignedHead) -> Result<(), Failure> {
        let part = head.manifest().root.part;
        let mut hasher = Hasher::default();
        let mut piece = vec![0; PIECE];
        let mut done = 0;
        while done < part.length {
            let left = usize::try_from(part.length - done).unwrap_or(PIECE).min(PIECE);
            let piece = &mut piece[..left];
            self.read(slot, part.offset.saturating_add(done), piece).map_err(Failure::Disk)?;
            hasher.update(piece);
            done += left as u64;
        }
        if hasher.finish() == part.sha256 {
            Ok(())
        } else {
            Err(Failure::Refused(Refusal::Corrupt(PartName::Root)))
        }
    }

    fn read(&mut self, partition: Partition, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let within = offset.checked_add(into.len() as u64).is_some_and(|end| end <= partition.length);
        if !within {
            return Err(DiskError::PastTheEnd);
        }
        self.disk.read(partition.start.saturating_add(offset), into)
    }

    fn store_or_say(&mut self, say: Say<'_>) {
        if let Err(error) = self.store() {
            say(format_args!("boot state: {error}"));
        }
    }

    /// Over the older copy, to the platter, and looked at again.
    fn store(&mut self) -> Result<(), DiskError> {
        let partition = self.partitions.boot_state.ok_or(DiskError::PastTheEnd)?;
        if partition.length < COPY_DISTANCE + RECORD as u64 {
            return Err(DiskError::PastTheEnd);
        }
        self.state = self.state.advanced();
        let bytes = self.state.encode();
        let at = partition.start.saturating_add(self.write_to.offset());
        self.disk.write(at, &bytes)?;
        self.disk.flush()?;
        let mut again = [0; RECORD];
        self.disk.read(at, &mut again)?;
        if again != bytes {
            return Err(DiskError::Forgets { offset: at });
        }
        self.write_to = match self.write_to {
            Copy::First => Copy::Second,
            Copy::Second => Copy::First,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
