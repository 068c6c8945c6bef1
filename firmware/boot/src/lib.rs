//! What firmware, agent and image builder must mean the same by: the boot state, the policy of the two slots, and the
//! signed manifest of an image.
//!
//! `no_std` with `alloc`, without I/O: bytes come in, decisions and bytes go out. The boot guardian (`firmware/guardian`)
//! calls it before there is an operating system; the update engine calls it in the running one.
//!
//! ```text
//!  disk (GPT)
//!  ┌──────────────┬────────────┬──────────────────────────┬──────────────────────────┬──────────────┐
//!  │ ESP          │ boot-state │ slot-a                   │ slot-b                   │ data (LUKS)  │
//!  │ BOOTAA64.EFI │ two copies │ head kernel initramfs root│ head kernel initramfs root│              │
//!  └──────────────┴────────────┴──────────────────────────┴──────────────────────────┴──────────────┘
//! ```
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod board;
mod digest;
pub mod disk;
pub mod gpt;
pub mod guardian;
pub mod image;
pub mod policy;
pub mod rescue;
pub mod state;

pub use digest::{Digest, Hasher, InvalidDigest};
pub use image::{Anchors, Manifest, Refusal, SignedHead};
pub use policy::{Choice, Reason};
pub use state::{BootState, Slot, SlotState, Status};

/// What a manifest's `guardian` is compared with: raised when an image needs something that older guardians cannot do.
pub const GUARDIAN_VERSION: u16 = 1;

/// Names of the partitions in the GPT, which is how all of ours are found on the disk that was started from.
pub mod partition {
    pub const ESP: &str = "esp";
    pub const BOOT_STATE: &str = "boot-state";
    pub const SLOT_A: &str = "slot-a";
    pub const SLOT_B: &str = "slot-b";
    pub const DATA: &str = "data";
}
