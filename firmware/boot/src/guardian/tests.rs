//! The guardian's flow on disks in memory that fail, tear and lie.

use std::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::image::tests::{believed, sample, signed_head};
use crate::policy::TRIES;
use crate::state::Version;
use crate::{Manifest, SlotState, Status};

const SECTOR: usize = 512;
const STATE_AT: usize = 64 * 1024;
const SLOT: usize = 256 * 1024;
const A_AT: usize = STATE_AT + 128 * 1024;
const B_AT: usize = A_AT + SLOT;
const DISK: usize = B_AT + SLOT + 64 * 1024;

/// When the power goes, or writes begin to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// After so many bytes written in all.
    PowerCut(usize),
    WritesFail,
    /// Writes are said to succeed and are not kept.
    Forgets,
    /// Reads that touch this byte fail.
    Unreadable(usize),
}

struct Memory {
    bytes: Vec<u8>,
    fault: Fault,
}

impl Disk for Memory {
    fn sector(&self) -> u64 {
        SECTOR as u64
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let at = offset as usize;
        if let Fault::Unreadable(byte) = self.fault
            && (at..at + into.len()).contains(&byte)
        {
            return Err(DiskError::Read { offset });
        }
        into.copy_from_slice(self.bytes.get(at..at + into.len()).ok_or(DiskError::PastTheEnd)?);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut kept = bytes.len();
        match &mut self.fault {
            Fault::None | Fault::Unreadable(_) => {}
            Fault::WritesFail => return Err(DiskError::Write { offset }),
            Fault::Forgets => return Ok(()),
            Fault::PowerCut(left) => {
                kept = kept.min(*left);
                *left -= kept;
            }
        }
        self.bytes[offset as usize..][..kept].copy_from_slice(&bytes[..kept]);
        if kept == bytes.len() { Ok(()) } else { Err(DiskError::Write { offset }) }
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

fn table(bytes: &mut [u8]) {
    let sectors = (bytes.len() / SECTOR) as u64;
    let mut entries = vec![0_u8; 128 * 4];
    for (entry, (name, at, length)) in entries.chunks_exact_mut(128).zip([
        ("boot-state", STATE_AT, 128 * 1024),
        ("slot-a", A_AT, SLOT),
        ("slot-b", B_AT, SLOT),
    ]) {
        entry[0] = 1;
        entry[32..40].copy_from_slice(&((at / SECTOR) as u64).to_le_bytes());
        entry[40..48].copy_from_slice(&(((at + length) / SECTOR) as u64 - 1).to_le_bytes());
        for (unit, character) in entry[56..].chunks_exact_mut(2).zip(name.encode_utf16()) {
            unit.copy_from_slice(&character.to_le_bytes());
        }
    }
    for (at, entries_at) in [(1, 2), (sectors - 1, sectors - 2)] {
        let mut header = [0_u8; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[24..32].copy_from_slice(&at.to_le_bytes());
        header[72..80].copy_from_slice(&entries_at.to_le_bytes());
        header[80..84].copy_from_slice(&4_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
        let crc = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        bytes[at as usize * SECTOR..][..92].copy_from_slice(&header);
        bytes[entries_at as usize * SECTOR..][..entries.len()].copy_from_slice(&entries);
    }
}

fn image(version: &str, epoch: u32) -> (Vec<u8>, SlotState) {
    let (manifest, mut bytes) = sample();
    let manifest = Manifest { version: version.into(), epoch, ..manifest };
    let head = signed_head(&manifest);
    bytes[..HEAD].copy_from_slice(&head);
    let json = serde_json::to_vec(&manifest).expect("serialisable");
    let state = SlotState {
        status: Status::Confirmed,
        tries_left: 0,
        starts: 0,
        epoch,
        digest: crate::Digest::of(&json),
        version: Version::new(version),
    };
    (bytes, state)
}

/// A disk with version 1 in A and 2 in B, in these states.
fn disk(a: Status, b: Status) -> Memory {
    let mut bytes = vec![0; DISK];
    table(&mut bytes);
    let mut state = BootState::fresh();
    for (slot, at, version, status) in [(Slot::A, A_AT, "1", a), (Slot::B, B_AT, "2", b)] {
        let (image, slot_state) = image(version, 3);
        bytes[at..at + image.len()].copy_from_slice(&image);
        let tries_left = if status == Status::Trial { TRIES } else { 0 };
        *state.slot_mut(slot) = SlotState { status, tries_left, ..slot_state };
    }
    bytes[STATE_AT..][..RECORD].copy_from_slice(&state.encode());
    Memory { bytes, fault: Fault::None }
}

fn state_on(disk: &Memory) -> Option<BootState> {
    let second = STATE_AT + COPY_DISTANCE as usize;
    newest(&disk.bytes[STATE_AT..][..RECORD], &disk.bytes[second..][..RECORD]).state
}

/// What came of a start, and what was said.
fn start(disk: &mut Memory) -> (Result<Next, GptError>, Vec<String>) {
    let anchors = Anchors::new(&believed()).expect("a key");
    let seen = Seen { compatible: vec!["linux,dummy-virt".into()], smbios: None };
    let said = RefCell::new(Vec::new());
    let mut say = |line: fmt::Arguments<'_>| said.borrow_mut().push(format!("{line}"));
    let next = Guardian::open(disk, &anchors, &seen, &mut say).map(|mut guardian| guardian.next(&mut say));
    (next, said.take())
}

fn slot_of(next: &Result<Next, GptError>) -> Option<Slot> {
    match next {
        Ok(Next::Start(ready)) => Some(ready.slot),
        Ok(Next::Rescue(_)) | Err(_) => None,
    }
}

#[test]
fn a_start_is_on_the_disk_before_it_happens() {
    let mut disk = disk(Status::Trial, Status::Confirmed);
    for left in (0..TRIES).rev() {
        let (next, _) = start(&mut disk);
        assert_eq!(slot_of(&next), Some(Slot::A));
        assert_eq!(state_on(&disk).map(|state| state.a.tries_left), Some(left));
    }
    let (next, said) = start(&mut disk);
    assert_eq!(slot_of(&next), Some(Slot::B), "{said:?}");
    assert!(said.iter().any(|line| line.contains("given up")), "{said:?}");
}

#[test]
fn the_kernel_gets_the_signed_command_line_and_its_slot() {
    let (next, _) = start(&mut disk(Status::Confirmed, Status::Empty));
    let Ok(Next::Start(ready)) = next else { panic!("not started: {next:?}") };
    assert_eq!(ready.command_line, "console=ttyAMA0 seimon.slot=a");
    assert_eq!((ready.kernel.len(), ready.initramfs.len()), (5000, 300));
}

#[test]
fn a_disk_that_cannot_be_written_still_starts_what_is_confirmed() {
    for fault in [Fault::WritesFail, Fault::Forgets] {
        let mut broken = Memory { fault, ..disk(Status::Confirmed, Status::Empty) };
        assert_eq!(slot_of(&start(&mut broken).0), Some(Slot::A), "{fault:?}");
        let mut broken = Memory { fault, ..disk(Status::Trial, Status::Confirmed) };
        assert_eq!(
            slot_of(&start(&mut broken).0),
            Some(Slot::B),
            "a try that cannot be counted is not spent"
        );
        let mut broken = Memory { fault, ..disk(Status::Trial, Status::Empty) };
        assert_eq!(slot_of(&start(&mut broken).0), Some(Slot::A), "nothing else is there");
    }
}

#[test]
fn a_slot_that_cannot_be_read_gives_way_to_the_other() {
    for at in [A_AT, A_AT + HEAD + 4000] {
        let mut broken =
            Memory { fault: Fault::Unreadable(at), ..disk(Status::Confirmed, Status::Confirmed) };
        assert_eq!(slot_of(&start(&mut broken).0), Some(Slot::B));
        let fall = state_on(&broken).and_then(|state| state.last_fall).expect("kept");
        assert_eq!((fall.slot, fall.reason), (Slot::A, Reason::Unreadable));
    }
    // The first table and the first copy of the state: their seconds are used.
    for at in [SECTOR, STATE_AT] {
        let mut broken =
            Memory { fault: Fault::Unreadable(at), ..disk(Status::Confirmed, Status::Confirmed) };
        assert!(slot_of(&start(&mut broken).0).is_some(), "byte {at}");
    }
}

#[test]
fn with_both_copies_gone_the_slots_say_what_may_run() {
    let mut broken = disk(Status::Confirmed, Status::Confirmed);
    broken.bytes[STATE_AT..][..RECORD].fill(0xff);
    let (next, said) = start(&mut broken);
    assert_eq!(slot_of(&next), Some(Slot::A), "{said:?}");
    let state = state_on(&broken).expect("written again");
    assert_eq!((state.epoch, state.a.status, state.a.tries_left), (3, Status::Trial, TRIES - 1));
}

#[test]
fn another_signed_image_than_the_state_knows_is_on_trial() {
    let mut swapped = disk(Status::Confirmed, Status::Empty);
    let (other, _) = image("9", 3);
    swapped.bytes[A_AT..A_AT + other.len()].copy_from_slice(&other);
    assert_eq!(slot_of(&start(&mut swapped).0), Some(Slot::A));
    let state = state_on(&swapped).expect("whole");
    assert_eq!(
        (state.a.status, state.a.tries_left, state.a.version.as_str()),
        (Status::Trial, TRIES - 1, "9")
    );
}

#[test]
fn the_last_resort_is_what_still_verifies_and_counts_nothing() {
    let anchors = Anchors::new(&believed()).expect("a key");
    let seen = Seen { compatible: vec!["linux,dummy-virt".into()], smbios: None };
    let mut say = |_: fmt::Arguments<'_>| {};
    let mut given_up = disk(Status::Bad, Status::Empty);
    let mut guardian = Guardian::open(&mut given_up, &anchors, &seen, &mut say).expect("a table");
    assert!(matches!(guardian.next(&mut say), Next::Rescue(WhyRescue::NothingBootable)));
    assert_eq!(guardian.last_resort(&mut say).map(|ready| ready.slot), Some(Slot::A));
    let mut damaged = disk(Status::Bad, Status::Empty);
    damaged.bytes[A_AT + HEAD + 5000] ^= 1;
    damaged.bytes[A_AT + HEAD + 100] ^= 1;
    let mut guardian = Guardian::open(&mut damaged, &anchors, &seen, &mut say).expect("a table");
    assert!(guardian.last_resort(&mut say).is_none());
}

#[test]
fn two_partitions_of_one_name_are_refused() {
    let mut bytes = vec![0; DISK];
    table(&mut bytes);
    // Both tables name slot B as A.
    for at in [2 * SECTOR, DISK - 2 * SECTOR] {
        bytes[at + 2 * 128 + 56 + 10] = b'a';
        let crc = crc32fast::hash(&bytes[at..at + 512]);
        let header = if at == 2 * SECTOR { SECTOR } else { DISK - SECTOR };
        bytes[header + 88..header + 92].copy_from_slice(&crc.to_le_bytes());
        bytes[header + 16..header + 20].fill(0);
        let crc = crc32fast::hash(&bytes[header..header + 92]);
        bytes[header + 16..header + 20].copy_from_slice(&crc.to_le_bytes());
    }
    let (next, _) = start(&mut Memory { bytes, fault: Fault::None });
    assert_eq!(next.err(), Some(GptError::Twice("slot-a")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Power goes after any number of bytes, again and again: the next start finds a slot, a confirmed one loses nothing, and a
    /// trial is started no more often than it had tries.
    #[test]
    fn no_cut_of_power_leaves_a_disk_that_does_not_start(
        cuts in proptest::collection::vec(0..2 * RECORD, 1..12),
        trial_first in any::<bool>(),
    ) {
        let first = if trial_first { Status::Trial } else { Status::Confirmed };
        let mut disk = disk(first, Status::Confirmed);
        let mut trials = 0;
        for cut in cuts {
            disk.fault = Fault::PowerCut(cut);
            let (next, said) = start(&mut disk);
            // A start that was cut while it was written down did not happen.
            let happened = disk.fault != Fault::PowerCut(0);
            trials += u8::from(trial_first && happened && slot_of(&next) == Some(Slot::A));
            disk.fault = Fault::None;
            let state = state_on(&disk);
            prop_assert!(state.is_some(), "{said:?}");
            prop_assert_eq!(state.map(|state| state.b.status), Some(Status::Confirmed));
        }
        let (next, said) = start(&mut disk);
        prop_assert!(slot_of(&next).is_some(), "{said:?}");
        prop_assert!(trials <= TRIES);
    }

    /// Noise anywhere: it ends, and what it starts is verified.
    #[test]
    fn noise_on_the_disk_never_stops_the_guardian(at in 0..DISK - 4096, noise in proptest::collection::vec(any::<u8>(), 1..4096)) {
        let mut disk = disk(Status::Confirmed, Status::Confirmed);
        disk.bytes[at..at + noise.len()].copy_from_slice(&noise);
        if let (Ok(Next::Start(ready)), _) = start(&mut disk) {
            prop_assert!(ready.kernel.iter().all(|byte| *byte == 1) && ready.initramfs.iter().all(|byte| *byte == 2));
        }
    }
}
