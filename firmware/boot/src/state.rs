//! The boot state: which slot is to start, how often it may still be tried, and why the last one fell.
//!
//! Two copies of [`RECORD`] bytes in a raw partition of its own, [`COPY_DISTANCE`] apart so that they share no erase
//! block. A writer always overwrites the older (or broken) copy with the next sequence number, then flushes. So whatever
//! instant the power goes, one whole copy is there: the old state or the new one.
//!
//! | bytes | what (little-endian) |
//! |---|---|
//! | 0..8 | `SEIMONBS` |
//! | 8..10 | layout, 1 |
//! | 10 | the slot to start: 0 is A, 1 is B |
//! | 11 | request: 0 none, 1 rescue, 2 factory reset, 3 wipe |
//! | 12..16 | lowest security epoch that may run |
//! | 16..24 | sequence |
//! | 24..96, 96..168 | slots A and B: status, tries left, starts since it was last healthy (u16), epoch (u32), manifest's digest (32), version (24), 8 bytes zero |
//! | 168..208 | last fall: slot, reason, 6 bytes zero, version (24), sequence (8) |
//! | 208..508 | zero |
//! | 508..512 | CRC-32 (IEEE) of what is before |

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::policy::Reason;

/// Bytes of one copy: a sector, which a disk writes whole or not at all where it keeps its promise.
pub const RECORD: usize = 512;
/// Bytes from the first copy's beginning to the second's.
pub const COPY_DISTANCE: u64 = 64 * 1024;
/// Bytes of a version's text.
pub const VERSION_MOST: usize = 24;
const MAGIC: [u8; 8] = *b"SEIMONBS";
const LAYOUT: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    A,
    B,
}

impl Slot {
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub fn partition(self) -> &'static str {
        match self {
            Self::A => crate::partition::SLOT_A,
            Self::B => crate::partition::SLOT_B,
        }
    }

    /// As in `seimon.slot=` on the kernel's command line.
    pub fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::BOTH.get(usize::from(byte)).copied()
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing was ever written whole.
    Empty,
    /// Written and verified, not yet confirmed by users' health.
    Trial,
    /// Has served users well. Its tries are never counted.
    Confirmed,
    /// Was refused or given up; the last fall says why.
    Bad,
}

/// A version's text, padded with zeros.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Version([u8; VERSION_MOST]);

impl Version {
    /// Cut off at [`VERSION_MOST`] bytes: a manifest with a longer one is refused before.
    pub fn new(text: &str) -> Self {
        let mut bytes = [0; VERSION_MOST];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Self(bytes)
    }

    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(VERSION_MOST);
        core::str::from_utf8(&self.0[..end]).unwrap_or("?")
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotState {
    pub status: Status,
    /// Only of a trial.
    pub tries_left: u8,
    /// Starts since the agent last said that it is well. From [`crate::policy::SUSPECT`] on, the whole slot is verified.
    pub starts: u16,
    pub epoch: u32,
    pub digest: Digest,
    pub version: Version,
}

impl SlotState {
    pub const EMPTY: Self = Self {
        status: Status::Empty,
        tries_left: 0,
        starts: 0,
        epoch: 0,
        digest: Digest([0; 32]),
        version: Version([0; VERSION_MOST]),
    };
}

/// What somebody asked the next start to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    None,
    /// Start nothing; show the status page.
    Rescue,
    /// Forget the school's settings, keep the box's identity.
    FactoryReset,
    /// Forget everything, identity and all.
    Wipe,
}

/// Why a slot was left for the other, kept for the agent and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fall {
    pub slot: Slot,
    pub reason: Reason,
    pub version: Version,
    /// Sequence of the state that first said so.
    pub sequence: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootState {
    pub sequence: u64,
    pub preferred: Slot,
    pub request: Request,
    pub epoch: u32,
    pub a: SlotState,
    pub b: SlotState,
    pub last_fall: Option<Fall>,
}

/// Which of the two copies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    First,
    Second,
}

impl Copy {
    /// Bytes from the partition's beginning.
    pub fn offset(self) -> u64 {
        match self {
            Self::First => 0,
            Self::Second => COPY_DISTANCE,
        }
    }
}

/// What the two copies said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// `None`: neither copy is whole.
    pub state: Option<BootState>,
    /// Where the next state is to be written.
    pub write_to: Copy,
}

/// Takes the newer of the copies that are whole.
pub fn newest(first: &[u8], second: &[u8]) -> Found {
    match (BootState::decode(first), BootState::decode(second)) {
        (Some(one), Some(two)) if two.sequence > one.sequence => {
            Found { state: Some(two), write_to: Copy::First }
        }
        (Some(one), _) => Found { state: Some(one), write_to: Copy::Second },
        (None, two) => Found { state: two, write_to: Copy::First },
    }
}

impl BootState {
    /// Of a disk just made: one image in slot A, on trial until it has served users well.
    pub fn fresh() -> Self {
        Self {
            sequence: 1,
            preferred: Slot::A,
            request: Request::None,
            epoch: 0,
            a: SlotState::EMPTY,
            b: SlotState::EMPTY,
            last_fall: None,
        }
    }

    pub fn slot(&self, slot: Slot) -> &SlotState {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }

    pub fn slot_mut(&mut self, slot: Slot) -> &mut SlotState {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }

    /// The next state to be written: the sequence moves on.
    #[must_use]
    pub fn advanced(self) -> Self {
        Self { sequence: self.sequence.saturating_add(1), ..self }
    }

    pub fn encode(&self) -> [u8; RECORD] {
        let Self { sequence, preferred, request, epoch, a, b, last_fall } = self;
        let mut bytes = [0; RECORD];
        let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
        put(0, &MAGIC);
        put(8, &LAYOUT.to_le_bytes());
        put(10, &[*preferred as u8, *request as u8]);
        put(12, &epoch.to_le_bytes());
        put(16, &sequence.to_le_bytes());
        for (at, slot) in [(24, a), (96, b)] {
            let SlotState { status, tries_left, starts, epoch, digest, version } = slot;
            put(at, &[*status as u8, *tries_left]);
            put(at + 2, &starts.to_le_bytes());
            put(at + 4, &epoch.to_le_bytes());
            put(at + 8, &digest.0);
            put(at + 40, &version.0);
        }
        if let Some(Fall { slot, reason, version, sequence }) = last_fall {
            put(168, &[*slot as u8, reason.code()]);
            put(176, &version.0);
            put(200, &sequence.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..RECORD - 4]);
        bytes[RECORD - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None`: not a whole record of a layout that we know.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD] = bytes.get(..RECORD)?.try_into().ok()?;
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) || body[..8] != MAGIC {
            return None;
        }
        let u16_at = |at: usize| u16::from_le_bytes([body[at], body[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u16_at(8) != LAYOUT {
            return None;
        }
        let version = |at: usize| body[at..at + VERSION_MOST].try_into().ok().map(Version);
        let slot = |at: usize| {
            Some(SlotState {
                status: match body[at] {
                    0 => Status::Empty,
                    1 => Status::Trial,
                    2 => Status::Confirmed,
                    3 => Status::Bad,
                    _ => return None,
                },
                tries_left: body[at + 1],
                starts: u16_at(at + 2),
                epoch: u32_at(at + 4),
                digest: Digest(body[at + 8..at + 40].try_into().ok()?),
                version: version(at + 40)?,
            })
        };
        let last_fall = match body[169] {
            0 => None,
            code => Some(Fall {
                slot: Slot::from_byte(body[168])?,
                reason: Reason::from_code(code)?,
                version: version(176)?,
                sequence: u64_at(200),
            }),
        };
        Some(Self {
            sequence: u64_at(16),
            preferred: Slot::from_byte(body[10])?,
            request: match body[11] {
                0 => Request::None,
                1 => Request::Rescue,
                2 => Request::FactoryReset,
                3 => Request::Wipe,
                _ => return None,
            },
            epoch: u32_at(12),
            a: slot(24)?,
            b: slot(96)?,
            last_fall,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_state() -> impl Strategy<Value = BootState> {
        let slot = || {
            (0..4_u8, 0..4_u8, any::<u16>(), 0..5_u32, any::<u8>()).prop_map(
                |(status, tries_left, starts, epoch, digest)| SlotState {
                    status: [Status::Empty, Status::Trial, Status::Confirmed, Status::Bad]
                        [usize::from(status)],
                    tries_left,
                    starts,
                    epoch,
                    digest: Digest([digest; 32]),
                    version: Version::new("1.2.3"),
                },
            )
        };
        let fall = (any::<bool>(), 1..=Reason::ALL.len()).prop_map(|(b, reason)| Fall {
            slot: if b { Slot::B } else { Slot::A },
            reason: Reason::ALL[reason - 1],
            version: Version::new("a version of 24 letters!"),
            sequence: 9,
        });
        (any::<u64>(), any::<bool>(), 0..4_u8, 0..5_u32, slot(), slot(), proptest::option::of(fall)).prop_map(
            |(sequence, second, request, epoch, a, b, last_fall)| BootState {
                sequence,
                preferred: if second { Slot::B } else { Slot::A },
                request: [Request::None, Request::Rescue, Request::FactoryReset, Request::Wipe]
                    [usize::from(request)],
                epoch,
                a,
                b,
                last_fall,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(state in any_state()) {
            prop_assert_eq!(BootState::decode(&state.encode()), Some(state));
        }

        #[test]
        fn noise_is_no_state(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(BootState::decode(&bytes), None);
        }

        /// Power goes while a copy is written: any prefix of the new bytes over the old ones.
        #[test]
        fn a_torn_write_leaves_the_old_state_or_the_new(
            older in any_state(),
            rounds in 1..5_usize,
            cut in 0..=RECORD,
        ) {
            let mut disk = [[0xff_u8; RECORD], [0xff; RECORD]];
            disk[0] = BootState { sequence: 1, ..older }.encode();
            let mut state = newest(&disk[0], &disk[1]).state.expect("written whole");
            for round in 0..rounds {
                let found = newest(&disk[0], &disk[1]);
                prop_assert_eq!(found.state, Some(state));
                let next = BootState { epoch: round as u32, ..state }.advanced();
                let copy = &mut disk[usize::from(found.write_to == Copy::Second)];
                if round + 1 == rounds {
                    copy[..cut].copy_from_slice(&next.encode()[..cut]);
                    let after = newest(&disk[0], &disk[1]).state;
                    prop_assert!(after == Some(state) || after == Some(next));
                } else {
                    *copy = next.encode();
                    state = next;
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = BootState::fresh().encode();
        for byte in 0..RECORD {
            for bit in 0..8 {
                let mut bad = good;
                bad[byte] ^= 1 << bit;
                assert_eq!(BootState::decode(&bad), None, "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn the_broken_copy_is_written_first() {
        let good = BootState::fresh().encode();
        assert_eq!(newest(&good, &[0; RECORD]).write_to, Copy::Second);
        assert_eq!(newest(&[0; RECORD], &good).write_to, Copy::First);
        assert_eq!(newest(&[0; RECORD], &[]), Found { state: None, write_to: Copy::First });
    }
}
