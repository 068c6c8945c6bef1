//! Images as small as they can be, with everything that a real one has.

use std::path::Path;

use anyhow::{Context as _, Result};
use ed25519_dalek::{Signer as _, SigningKey};
use seimon_boot::board::{BoardId, Smbios};
use seimon_boot::image::{ALIGNMENT, HEAD, Part, Root, assemble_head, to_be_signed};
use seimon_boot::policy::TRIES;
use seimon_boot::state::Version;
use seimon_boot::{Digest, Manifest, SlotState, Status};

/// Who signs. Made when first needed and kept beside the built programs, so that the guardian that believes it stays built.
#[derive(Clone, Debug)]
pub struct Key(SigningKey);

impl Key {
    pub fn kept_in(file: &Path) -> Result<Self> {
        if !file.is_file() {
            let mut seed = [0; 32];
            std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut seed)?;
            std::fs::write(file, seed).with_context(|| file.display().to_string())?;
        }
        let seed = std::fs::read(file).with_context(|| file.display().to_string())?;
        let seed =
            <[u8; 32]>::try_from(seed).ok().with_context(|| format!("{}: not 32 bytes", file.display()))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// A key that nobody believes.
    pub fn strange() -> Self {
        Self(SigningKey::from_bytes(&[0x55; 32]))
    }

    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }
}

/// The board that QEMU's `virt` machine is, on either firmware.
pub fn virt() -> BoardId {
    BoardId {
        id: "qemu-virt".into(),
        compatible: vec!["linux,dummy-virt".into()],
        smbios: Some(Smbios { manufacturer: "QEMU".into(), product: "QEMU Virtual Machine".into() }),
    }
}

/// What goes into an image.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub version: String,
    pub epoch: u32,
    pub guardian: u16,
    pub board: BoardId,
    pub command_line: String,
    pub kernel: Vec<u8>,
    pub initramfs: Vec<u8>,
    pub root: Vec<u8>,
}

impl Recipe {
    /// `told`: what the payload is to do.
    pub fn new(version: &str, payload: &[u8], told: &str) -> Self {
        Self {
            version: version.into(),
            epoch: 1,
            guardian: 1,
            board: virt(),
            command_line: format!("console=ttyAMA0 payload={told}"),
            kernel: payload.to_vec(),
            initramfs: format!("initramfs of {version}").repeat(100).into_bytes(),
            root: version.as_bytes().iter().copied().cycle().take(16 * 4096).collect(),
        }
    }

    pub fn signed(&self, key: &Key) -> Result<Image> {
        Image::assemble(self, key, |_| {})
    }
}

/// An image's bytes, as in a slot.
#[derive(Clone, Debug)]
pub struct Image {
    pub bytes: Vec<u8>,
    pub manifest: Manifest,
    digest: Digest,
}

impl Image {
    /// `change` edits the manifest before it is signed.
    pub fn assemble(recipe: &Recipe, key: &Key, change: impl FnOnce(&mut Manifest)) -> Result<Self> {
        let mut bytes = vec![0; HEAD];
        let mut part = |content: &[u8]| {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
            let offset = bytes.len() as u64;
            bytes.extend_from_slice(content);
            Part { offset, length: content.len() as u64, sha256: Digest::of(content) }
        };
        let (kernel, initramfs, root) = (part(&recipe.kernel), part(&recipe.initramfs), part(&recipe.root));
        let mut manifest = Manifest {
            format: 1,
            version: recipe.version.clone(),
            epoch: recipe.epoch,
            guardian: recipe.guardian,
            boards: vec![recipe.board.clone()],
            command_line: recipe.command_line.clone(),
            kernel,
            initramfs,
            root: Root {
                part: root,
                data_length: root.length / 2,
                verity_root: Digest([1; 32]),
                verity_salt: Digest([2; 32]),
            },
        };
        change(&mut manifest);
        let json = serde_json::to_vec(&manifest)?;
        let signature = key.0.sign(&to_be_signed(&json)).to_bytes();
        let head = assemble_head(&json, &[(key.public(), signature)]).context("the manifest is too long")?;
        bytes[..HEAD].copy_from_slice(&head);
        Ok(Self { bytes, manifest, digest: Digest::of(&json) })
    }

    /// As the update engine would have written it down.
    pub fn slot_state(&self, status: Status) -> SlotState {
        SlotState {
            status,
            tries_left: if status == Status::Trial { TRIES } else { 0 },
            starts: 0,
            epoch: self.manifest.epoch,
            digest: self.digest,
            version: Version::new(&self.manifest.version),
        }
    }

    /// Bytes of the head that mean something.
    pub fn head_used(&self) -> usize {
        self.bytes[..HEAD].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    }
}
