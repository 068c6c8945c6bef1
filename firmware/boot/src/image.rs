//! An image as it lies in a slot, and in a file: a signed head, then the parts that it names.
//!
//! ```text
//!   0        8      12      16                 16+n             +72 each
//!   SEIMONIM length  count   manifest (JSON)    key id, signature …        (HEAD bytes in all, the rest zero)
//!   kernel.offset …  kernel;  initramfs.offset … initramfs;  root.offset … file system, then its dm-verity tree
//! ```
//!
//! Integers are little-endian. A signature is ed25519 (RFC 8032, verified strictly) over [`SIGNED_FOR`] and the manifest's
//! bytes as they are. What an image is *for* is within what is signed: boards, epoch, the guardian that it needs. The
//! bytes of a file and of a slot are the same, so that an image is verified in the same way wherever it lies.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::board::{BoardId, Seen};
use crate::policy::Reason;
use crate::{Digest, GUARDIAN_VERSION};

pub const MAGIC: [u8; 8] = *b"SEIMONIM";
/// The first bytes of a slot and of an image's file; parts begin after them.
pub const HEAD: usize = 64 * 1024;
/// A manifest is no longer than this, so that noise is refused before it is read.
pub const MANIFEST_MOST: usize = 32 * 1024;
/// A kernel and an initramfs are held in memory by the guardian.
pub const LOADED_MOST: u64 = 256 * 1024 * 1024;
/// Parts begin at multiples of a file system's block.
pub const ALIGNMENT: u64 = 4096;
pub const SIGNED_FOR: &[u8] = b"seimon image manifest 1\0";
const SIGNATURES_MOST: u32 = 2;
const SIGNATURE: usize = 8 + 64;

/// What an image says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1.
    pub format: u16,
    /// For people, at most [`crate::state::VERSION_MOST`] bytes of printable ASCII.
    pub version: String,
    /// Raised when an older image must never run again. A box takes no image below the highest that it has confirmed.
    pub epoch: u32,
    /// The lowest guardian that can start it.
    pub guardian: u16,
    pub boards: Vec<BoardId>,
    /// Given to the kernel; the guardian adds only `seimon.slot=a|b`.
    pub command_line: String,
    pub kernel: Part,
    pub initramfs: Part,
    pub root: Root,
}

/// A piece of an image. Offsets and lengths in bytes, offsets from the image's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub offset: u64,
    pub length: u64,
    pub sha256: Digest,
}

/// The root file system with its dm-verity hash tree right behind it, hashed as one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    pub part: Part,
    /// Length of the file system; what follows within the part is the hash tree (veritysetup format 1, SHA-256, 4 KiB
    /// blocks, without superblock).
    pub data_length: u64,
    pub verity_root: Digest,
    pub verity_salt: Digest,
}

/// Whom we believe: one key, or two while one replaces the other.
#[derive(Clone, Debug)]
pub struct Anchors(Vec<VerifyingKey>);

impl Anchors {
    /// From public keys of 32 bytes, one after the other. `None`: none, more than two, or no such keys.
    pub fn new(keys: &[u8]) -> Option<Self> {
        if keys.is_empty() || !keys.len().is_multiple_of(32) || keys.len() > 64 {
            return None;
        }
        let keys = keys.as_chunks::<32>().0;
        let keys: Result<Vec<VerifyingKey>, _> = keys.iter().map(VerifyingKey::from_bytes).collect();
        keys.ok().filter(|keys| keys.iter().all(|key| !key.is_weak())).map(Self)
    }

    fn by_id(&self, id: &[u8]) -> Option<&VerifyingKey> {
        self.0.iter().find(|key| key_id(key.as_bytes()) == id)
    }
}

/// The first eight bytes of a public key's SHA-256.
pub fn key_id(key: &[u8; 32]) -> [u8; 8] {
    let mut id = [0; 8];
    id.copy_from_slice(&Digest::of(key).0[..8]);
    id
}

/// Why an image is not taken. Each is said on the console and shown by `seimonctl update status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are no image's head.
    NoImage,
    /// None of the signatures is by a key that this box believes.
    UnknownKey,
    BadSignature,
    /// Signed, but not what this version can read; with what is wrong.
    BadManifest(String),
    /// For other boards, which it names.
    OtherBoard(Vec<String>),
    /// Older than what this box has confirmed.
    OldEpoch {
        image: u32,
        box_has: u32,
    },
    /// Needs a newer guardian.
    GuardianTooOld {
        needs: u16,
        here: u16,
    },
    /// A part would not lie within the slot, or over another.
    BadLayout(&'static str),
    /// A part's bytes are not those that were signed.
    Corrupt(PartName),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartName {
    Kernel,
    Initramfs,
    Root,
}

impl Refusal {
    /// As it is kept in the boot state.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoImage => Reason::NoImage,
            Self::UnknownKey | Self::BadSignature => Reason::BadSignature,
            Self::BadManifest(_) | Self::BadLayout(_) => Reason::BadManifest,
            Self::OtherBoard(_) => Reason::OtherBoard,
            Self::OldEpoch { .. } => Reason::OldEpoch,
            Self::GuardianTooOld { .. } => Reason::GuardianTooOld,
            Self::Corrupt(PartName::Kernel) => Reason::CorruptKernel,
            Self::Corrupt(PartName::Initramfs) => Reason::CorruptInitramfs,
            Self::Corrupt(PartName::Root) => Reason::CorruptRoot,
        }
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::Root => "root file system",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoImage => f.write_str("there is no image here: take one made by `cargo xtask image`"),
            Self::UnknownKey => f.write_str(
                "signed by nobody this box believes: sign it with the key that the box was made for",
            ),
            Self::BadSignature => f.write_str("the signature is wrong: fetch the image again from its maker"),
            Self::BadManifest(what) => write!(f, "the manifest cannot be used: {what}"),
            Self::OtherBoard(boards) => write!(f, "this image is for other boards: {}", boards.join(", ")),
            Self::OldEpoch { image, box_has } => write!(
                f,
                "the image is of security epoch {image}, this box has confirmed {box_has}: take a newer image"
            ),
            Self::GuardianTooOld { needs, here } => write!(
                f,
                "the image needs boot guardian {needs}, this box has {here}: update the guardian first"
            ),
            Self::BadLayout(what) => write!(f, "the image's layout is impossible: {what}"),
            Self::Corrupt(part) => write!(f, "the {part} is damaged: fetch the image again"),
        }
    }
}

impl core::error::Error for Refusal {}

/// What a box is, for the question whether an image may run on it.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    pub anchors: &'a Anchors,
    pub seen: &'a Seen,
    /// The boot state's.
    pub epoch: u32,
    /// Bytes of the slot.
    pub slot_length: u64,
}

/// A head whose signature, addressee and layout have been found right. The only way to a [`Manifest`] to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    manifest: Manifest,
    digest: Digest,
}

impl SignedHead {
    /// Verifies the first [`HEAD`] bytes of an image. The parts themselves are verified with [`SignedHead::verify_part`].
    pub fn verify(head: &[u8], here: Here<'_>) -> Result<Self, Refusal> {
        let (json, signatures) = split(head)?;
        verify_signature(json, signatures, here.anchors)?;
        let manifest: Manifest =
            serde_json::from_slice(json).map_err(|error| Refusal::BadManifest(alloc::format!("{error}")))?;
        manifest.check(here.slot_length)?;
        if manifest.guardian > GUARDIAN_VERSION {
            return Err(Refusal::GuardianTooOld { needs: manifest.guardian, here: GUARDIAN_VERSION });
        }
        if !manifest.boards.iter().any(|board| here.seen.is(board)) {
            return Err(Refusal::OtherBoard(manifest.boards.iter().map(|board| board.id.clone()).collect()));
        }
        if manifest.epoch < here.epoch {
            return Err(Refusal::OldEpoch { image: manifest.epoch, box_has: here.epoch });
        }
        Ok(Self { digest: Digest::of(json), manifest })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Of the manifest: by it the boot state knows an image again.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn verify_part(&self, name: PartName, bytes: &[u8]) -> Result<(), Refusal> {
        let part = self.manifest.part(name);
        let same = u64::try_from(bytes.len()) == Ok(part.length) && Digest::of(bytes) == part.sha256;
        if same { Ok(()) } else { Err(Refusal::Corrupt(name)) }
    }
}

impl Manifest {
    pub fn part(&self, name: PartName) -> &Part {
        match name {
            PartName::Kernel => &self.kernel,
            PartName::Initramfs => &self.initramfs,
            PartName::Root => &self.root.part,
        }
    }

    /// Bytes of the whole image.
    pub fn length(&self) -> u64 {
        // The root comes last: `check` has seen that.
        self.root.part.offset.saturating_add(self.root.part.length)
    }

    fn check(&self, slot_length: u64) -> Result<(), Refusal> {
        let Self { format, version, epoch: _, guardian: _, boards: _, command_line, kernel, initramfs, root } =
            self;
        let bad = |what: &str| Err(Refusal::BadManifest(what.into()));
        if *format != 1 {
            return bad("its format is not 1");
        }
        let printable = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if version.is_empty() || version.len() > crate::state::VERSION_MOST || !printable(version) {
            return bad("its version is not 1 to 24 printable ASCII characters");
        }
        if command_line.len() > 1800 || !printable(command_line) {
            // COMMAND_LINE_SIZE is 2048 on arm64.
            return bad("its command line is longer than 1800 characters, or not printable ASCII");
        }
        let mut end = HEAD as u64;
        for part in [kernel, initramfs, &root.part] {
            if part.offset < end || !part.offset.is_multiple_of(ALIGNMENT) || part.length == 0 {
                return Err(Refusal::BadLayout("parts overlap, are empty or not aligned"));
            }
            end = part.offset.checked_add(part.length).ok_or(Refusal::BadLayout("a part ends nowhere"))?;
        }
        if end > slot_length {
            return Err(Refusal::BadLayout("it is larger than the slot"));
        }
        if kernel.length > LOADED_MOST || initramfs.length > LOADED_MOST {
            return Err(Refusal::BadLayout("kernel or initramfs is larger than 256 MiB"));
        }
        if root.data_length == 0
            || !root.data_length.is_multiple_of(ALIGNMENT)
            || root.data_length >= root.part.length
        {
            return Err(Refusal::BadLayout("the root file system leaves no room for its hash tree"));
        }
        Ok(())
    }
}

/// The manifest's bytes and the signatures'.
fn split(head: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let rest = head.strip_prefix(&MAGIC).ok_or(Refusal::NoImage)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(Refusal::NoImage)?;
    let (count, rest) = rest.split_first_chunk::<4>().ok_or(Refusal::NoImage)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Refusal::NoImage)?;
    let count = u32::from_le_bytes(*count);
    if length > MANIFEST_MOST || count == 0 || count > SIGNATURES_MOST {
        return Err(Refusal::NoImage);
    }
    let (json, rest) = rest.split_at_checked(length).ok_or(Refusal::NoImage)?;
    let signatures = rest.get(..count as usize * SIGNATURE).ok_or(Refusal::NoImage)?;
    Ok((json, signatures))
}

/// One good signature by a key that is believed is enough; a bad one by such a key is never passed over.
fn verify_signature(json: &[u8], signatures: &[u8], anchors: &Anchors) -> Result<(), Refusal> {
    let message = [SIGNED_FOR, json].concat();
    let mut good = false;
    for (id, signature) in signatures.as_chunks::<SIGNATURE>().0.iter().map(|both| both.split_at(8)) {
        let Some(key) = anchors.by_id(id) else { continue };
        let signature = Signature::from_slice(signature).map_err(|_| Refusal::BadSignature)?;
        key.verify_strict(&message, &signature).map_err(|_| Refusal::BadSignature)?;
        good = true;
    }
    if good { Ok(()) } else { Err(Refusal::UnknownKey) }
}

/// Puts a head together; `signatures` are (public key, signature over [`to_be_signed`]), one or two.
pub fn assemble_head(json: &[u8], signatures: &[([u8; 32], [u8; 64])]) -> Option<Vec<u8>> {
    if json.len() > MANIFEST_MOST || signatures.is_empty() || signatures.len() > SIGNATURES_MOST as usize {
        return None;
    }
    let mut head = Vec::with_capacity(HEAD);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&u32::try_from(json.len()).ok()?.to_le_bytes());
    head.extend_from_slice(&u32::try_from(signatures.len()).ok()?.to_le_bytes());
    head.extend_from_slice(json);
    for (key, signature) in signatures {
        head.extend_from_slice(&key_id(key));
        head.extend_from_slice(signature);
    }
    head.resize(HEAD, 0);
    Some(head)
}

/// What a maker signs.
pub fn to_be_signed(json: &[u8]) -> Vec<u8> {
    [SIGNED_FOR, json].concat()
}

#[cfg(test)]
pub(crate) mod tests;
