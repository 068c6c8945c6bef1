//! Which slot starts.
//!
//! ```text
//!            ┌────────── staged by the agent: written whole, head last ─────────┐
//!            ▼                                                                  │
//!   Empty ──▶ Trial(3) ──start: 2, 1, 0──▶ Bad(never confirmed) ────────────────┤
//!               │                           ▲                                   │
//!               │ users are well            │ refused: signature, epoch, board, │
//!               ▼                           │ a part is damaged                 │
//!            Confirmed ────────────────────-┘                                   │
//!               │  any number of starts                                         │
//!               └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! - A trial's tries are written down as used *before* the jump. A confirmed slot's starts are not tries: somebody
//!   pulling the plug all morning never brings the old image back.
//! - After [`SUSPECT`] starts in a row without a word from the agent, the whole slot is verified, root file system and
//!   all: damage is found, and impatience is not taken for damage.
//! - Never an empty or bad slot. Where none is left: rescue.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::state::{BootState, Fall, Request, Slot, SlotState, Status, Version};
use crate::{Manifest, SignedHead};

/// How often an image that was never confirmed is started.
pub const TRIES: u8 = 3;
/// From so many starts in a row without a word from the agent on, everything is verified before the next.
pub const SUSPECT: u16 = 2;

/// Why a slot was left. Numbers are on disks: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    NeverConfirmed,
    NoImage,
    BadSignature,
    BadManifest,
    OtherBoard,
    OldEpoch,
    GuardianTooOld,
    CorruptKernel,
    CorruptInitramfs,
    CorruptRoot,
    /// The disk could not be read.
    Unreadable,
    /// The kernel was refused by the boot firmware.
    NotStarted,
    /// The agent: users were worse off than with the image before.
    UsersSuffered,
    /// Somebody asked for it.
    Requested,
    /// Both copies of the boot state were gone.
    StateLost,
}

impl Reason {
    pub const ALL: [Self; 15] = [
        Self::NeverConfirmed,
        Self::NoImage,
        Self::BadSignature,
        Self::BadManifest,
        Self::OtherBoard,
        Self::OldEpoch,
        Self::GuardianTooOld,
        Self::CorruptKernel,
        Self::CorruptInitramfs,
        Self::CorruptRoot,
        Self::Unreadable,
        Self::NotStarted,
        Self::UsersSuffered,
        Self::Requested,
        Self::StateLost,
    ];

    /// 1 to 15; the LED's blinks too.
    pub fn code(self) -> u8 {
        self as u8 + 1
    }

    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code.checked_sub(1)?)).copied()
    }

    /// For people, in English.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NeverConfirmed => "it was started three times and users were never well with it",
            Self::NoImage => "there is no image in the slot",
            Self::BadSignature => "its signature is wrong",
            Self::BadManifest => "its manifest cannot be used",
            Self::OtherBoard => "it is for another board",
            Self::OldEpoch => "it is older than this box allows",
            Self::GuardianTooOld => "it needs a newer boot guardian",
            Self::CorruptKernel => "its kernel is damaged",
            Self::CorruptInitramfs => "its initramfs is damaged",
            Self::CorruptRoot => "its root file system is damaged",
            Self::Unreadable => "the disk could not be read",
            Self::NotStarted => "the boot firmware would not start its kernel",
            Self::UsersSuffered => "users were worse off than with the image before",
            Self::Requested => "somebody asked to go back",
            Self::StateLost => "both copies of the boot state were damaged",
        }
    }

    /// For people, in Japanese.
    pub fn sentence_ja(self) -> &'static str {
        match self {
            Self::NeverConfirmed => "三回起動しましたが、利用者の通信が一度も良好になりませんでした",
            Self::NoImage => "起動イメージがありません",
            Self::BadSignature => "署名が正しくありません",
            Self::BadManifest => "イメージの目録を読み取れません",
            Self::OtherBoard => "別の機種向けのイメージです",
            Self::OldEpoch => "この機器で許可された版より古いイメージです",
            Self::GuardianTooOld => "新しい起動プログラムが必要です",
            Self::CorruptKernel => "カーネルが壊れています",
            Self::CorruptInitramfs => "初期ファイルシステムが壊れています",
            Self::CorruptRoot => "ルートファイルシステムが壊れています",
            Self::Unreadable => "ディスクを読み取れません",
            Self::NotStarted => "カーネルを起動できませんでした",
            Self::UsersSuffered => "更新前より利用者の通信が悪くなりました",
            Self::Requested => "戻すよう指示されました",
            Self::StateLost => "起動情報が二つとも壊れていました",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// How much of a slot is verified before it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Head, kernel and initramfs; the root file system is verified block by block as it is read (dm-verity).
    WhatIsLoaded,
    /// The root file system too, before the start.
    Everything,
}

/// What the guardian does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Verify { slot: Slot, depth: Depth },
    Rescue { why: WhyRescue },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyRescue {
    /// Neither slot can be started.
    NothingBootable,
    Requested,
}

impl BootState {
    /// Says which slot to verify. Trials that are used up fall here, which changes the state: write it with the start.
    pub fn choose(&mut self) -> Choice {
        if self.request == Request::Rescue {
            return Choice::Rescue { why: WhyRescue::Requested };
        }
        for slot in Slot::BOTH {
            let SlotState { status, tries_left, .. } = *self.slot(slot);
            if status == Status::Trial && tries_left == 0 {
                self.fall(slot, Reason::NeverConfirmed);
            }
        }
        let startable =
            |slot: Slot| matches!(self.slot(slot).status, Status::Trial | Status::Confirmed).then_some(slot);
        let Some(slot) = startable(self.preferred).or_else(|| startable(self.preferred.other())) else {
            return Choice::Rescue { why: WhyRescue::NothingBootable };
        };
        let depth = if self.slot(slot).starts >= SUSPECT { Depth::Everything } else { Depth::WhatIsLoaded };
        Choice::Verify { slot, depth }
    }

    /// The slot is about to be started. Must be on the disk before the jump.
    pub fn starting(&mut self, slot: Slot) {
        self.preferred = slot;
        let state = self.slot_mut(slot);
        state.starts = state.starts.saturating_add(1);
        if state.status == Status::Trial {
            state.tries_left = state.tries_left.saturating_sub(1);
        }
    }

    /// The slot cannot be started, or was given up. The other one is next; whether it can be is [`BootState::choose`]'s
    /// affair.
    pub fn fall(&mut self, slot: Slot, reason: Reason) {
        let version = self.slot(slot).version;
        self.last_fall = Some(Fall { slot, reason, version, sequence: self.sequence });
        self.slot_mut(slot).status = Status::Bad;
        self.slot_mut(slot).tries_left = 0;
        if self.preferred == slot {
            self.preferred = slot.other();
        }
    }

    /// Before the first byte of a slot is overwritten: whatever was there is there no more.
    pub fn writing(&mut self, slot: Slot) {
        *self.slot_mut(slot) = SlotState::EMPTY;
    }

    /// An image lies whole and verified in the slot. It is not started before [`BootState::apply`].
    pub fn staged(&mut self, slot: Slot, head: &SignedHead) {
        let Manifest { version, epoch, .. } = head.manifest();
        *self.slot_mut(slot) = SlotState {
            status: Status::Trial,
            tries_left: TRIES,
            starts: 0,
            epoch: *epoch,
            digest: head.digest(),
            version: Version::new(version),
        };
    }

    /// The staged image is what the next start tries. `false`: there is none.
    #[must_use]
    pub fn apply(&mut self, slot: Slot) -> bool {
        let staged = self.slot(slot).status == Status::Trial && self.slot(slot).tries_left > 0;
        if staged {
            self.preferred = slot;
        }
        staged
    }

    /// The running slot has served users well. Its epoch becomes the lowest that may run. `false`: it is not one that
    /// could be confirmed.
    #[must_use]
    pub fn confirm(&mut self, slot: Slot) -> bool {
        let state = self.slot_mut(slot);
        if !matches!(state.status, Status::Trial | Status::Confirmed) {
            return false;
        }
        state.status = Status::Confirmed;
        state.tries_left = 0;
        state.starts = 0;
        let epoch = state.epoch;
        self.epoch = self.epoch.max(epoch);
        true
    }

    /// A confirmed slot runs well again: its starts were not a row.
    pub fn healthy(&mut self, slot: Slot) {
        self.slot_mut(slot).starts = 0;
    }

    /// Both copies are gone: what the slots themselves prove is all that is known. Whatever verifies is on trial again, and
    /// nothing older than the newest epoch found may run.
    pub fn rebuilt(heads: [Option<&SignedHead>; 2]) -> Self {
        let mut state = Self::fresh();
        for (slot, head) in Slot::BOTH.into_iter().zip(heads) {
            if let Some(head) = head {
                state.staged(slot, head);
                state.epoch = state.epoch.max(head.manifest().epoch);
            }
        }
        if state.a.status == Status::Empty
            || (state.b.status != Status::Empty && state.b.epoch > state.a.epoch)
        {
            state.preferred = Slot::B;
        }
        state.last_fall = Some(Fall {
            slot: state.preferred,
            reason: Reason::StateLost,
            version: state.slot(state.preferred).version,
            sequence: state.sequence,
        });
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use crate::state::tests::any_state;
    use proptest::prelude::*;

    fn slot(status: Status) -> SlotState {
        SlotState { status, tries_left: TRIES, epoch: 1, digest: Digest([1; 32]), ..SlotState::EMPTY }
    }

    fn state(a: Status, b: Status) -> BootState {
        BootState { a: slot(a), b: slot(b), ..BootState::fresh() }
    }

    const ALL: [Status; 4] = [Status::Empty, Status::Trial, Status::Confirmed, Status::Bad];

    #[test]
    fn the_preferred_slot_starts_else_the_other_else_nothing() {
        let good = |status| matches!(status, Status::Trial | Status::Confirmed);
        for a in ALL {
            for b in ALL {
                let expected = match (good(a), good(b)) {
                    (true, _) => Choice::Verify { slot: Slot::A, depth: Depth::WhatIsLoaded },
                    (false, true) => Choice::Verify { slot: Slot::B, depth: Depth::WhatIsLoaded },
                    (false, false) => Choice::Rescue { why: WhyRescue::NothingBootable },
                };
                assert_eq!(state(a, b).choose(), expected, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn an_image_that_is_never_confirmed_gives_way_after_three_starts() {
        let mut state = state(Status::Trial, Status::Confirmed);
        for _ in 0..TRIES {
            assert!(matches!(state.choose(), Choice::Verify { slot: Slot::A, .. }));
            state.starting(Slot::A);
        }
        assert!(matches!(state.choose(), Choice::Verify { slot: Slot::B, .. }));
        assert_eq!(
            state.last_fall.map(|fall| (fall.slot, fall.reason)),
            Some((Slot::A, Reason::NeverConfirmed))
        );
        state.starting(Slot::B);
        for _ in 0..100 {
            assert!(matches!(state.choose(), Choice::Verify { slot: Slot::B, .. }));
            state.starting(Slot::B);
        }
        assert_eq!(state.b.status, Status::Confirmed, "a confirmed slot's starts are no tries");
    }

    #[test]
    fn silence_after_two_starts_has_everything_verified() {
        let mut state = state(Status::Confirmed, Status::Empty);
        state.starting(Slot::A);
        assert_eq!(state.choose(), Choice::Verify { slot: Slot::A, depth: Depth::WhatIsLoaded });
        state.starting(Slot::A);
        assert_eq!(state.choose(), Choice::Verify { slot: Slot::A, depth: Depth::Everything });
        state.healthy(Slot::A);
        assert_eq!(state.choose(), Choice::Verify { slot: Slot::A, depth: Depth::WhatIsLoaded });
    }

    #[test]
    fn confirming_raises_the_epoch_and_nothing_else_does() {
        let mut state = state(Status::Trial, Status::Confirmed);
        state.a.epoch = 7;
        state.starting(Slot::A);
        assert_eq!(state.epoch, 0);
        assert!(state.confirm(Slot::A));
        assert_eq!((state.epoch, state.a.status), (7, Status::Confirmed));
        for status in [Status::Empty, Status::Bad] {
            state.b.status = status;
            assert!(!state.confirm(Slot::B));
        }
    }

    #[test]
    fn a_staged_image_waits_until_it_is_applied() {
        let mut state = state(Status::Confirmed, Status::Trial);
        assert!(matches!(state.choose(), Choice::Verify { slot: Slot::A, .. }));
        assert!(state.apply(Slot::B));
        assert!(matches!(state.choose(), Choice::Verify { slot: Slot::B, .. }));
        state.writing(Slot::B);
        assert!(!state.apply(Slot::B), "half-written is not staged");
        assert!(matches!(state.choose(), Choice::Verify { slot: Slot::A, .. }));
    }

    #[test]
    fn every_reason_has_its_number() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(Reason::from_code(0), None);
        assert_eq!(Reason::from_code(16), None);
    }

    proptest! {
        /// Whatever the state: a bounded number of refusals later, something starts or rescue shows.
        #[test]
        fn it_never_starts_what_is_empty_or_bad_and_always_ends(mut state in any_state()) {
            for _ in 0..3 {
                match state.choose() {
                    Choice::Verify { slot, depth: _ } => {
                        prop_assert!(matches!(state.slot(slot).status, Status::Trial | Status::Confirmed));
                        prop_assert!(state.slot(slot).status == Status::Confirmed || state.slot(slot).tries_left > 0);
                        state.fall(slot, Reason::CorruptKernel);
                    }
                    Choice::Rescue { .. } => return Ok(()),
                }
            }
            prop_assert!(false, "went on for ever");
        }
    }
}
