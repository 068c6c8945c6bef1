//! An image's file: head, kernel, initramfs, root file system with its hash tree; see `seimon_boot::image`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ed25519_dalek::{Signer as _, SigningKey};
use seimon_board::hardware::Hardware;
use seimon_boot::board::{BoardId, Seen, Smbios};
use seimon_boot::image::{ALIGNMENT, HEAD, Here, Part, PartName, Root, assemble_head, to_be_signed};
use seimon_boot::{Anchors, Digest, GUARDIAN_VERSION, Manifest, SignedHead};

use crate::cpio::{self, Entry};
use crate::system::{System, fresh};
use crate::tree::Tree;
use crate::{gpt, say, verity};

/// What the maker decides.
pub(crate) struct Decided<'a> {
    pub(crate) board: &'a str,
    pub(crate) hardware: &'a Hardware,
    pub(crate) version: &'a str,
    pub(crate) epoch: u32,
    pub(crate) key: &'a SigningKey,
}

pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    pub(crate) head: SignedHead,
    /// Of the root file system, without its hash tree.
    pub(crate) root_length: u64,
}

/// # Errors
/// Something does not fit; the words say what.
pub(crate) fn assemble(
    system: &System,
    init: Vec<u8>,
    epoch_seconds: u64,
    decided: &Decided<'_>,
    work: &Path,
) -> Result<Image> {
    let Decided { board, hardware, version, epoch, key } = decided;
    let root = erofs(&system.tree, epoch_seconds, &format!("{board} {version}"), work)?;
    say::step("making the hash tree");
    let salt = Digest::of(format!("seimon verity salt {board} {version}").as_bytes());
    let tree = verity::tree(&root, &salt).context("the root file system is empty")?;
    let initramfs = initramfs(init, &system.initramfs_modules);

    let mut bytes = vec![0; HEAD];
    let mut put = |content: &[u8]| {
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
        let part =
            Part { offset: bytes.len() as u64, length: content.len() as u64, sha256: Digest::of(content) };
        bytes.extend_from_slice(content);
        part
    };
    let kernel = put(&system.kernel);
    let initramfs = put(&initramfs);
    let root_length = root.len() as u64;
    let part = put(&[root, tree.bytes].concat());
    let root = Root { part, data_length: root_length, verity_root: tree.root, verity_salt: salt };
    let manifest = Manifest {
        format: 1,
        version: (*version).to_owned(),
        epoch: *epoch,
        guardian: GUARDIAN_VERSION,
        boards: vec![board_id(board, hardware)],
        command_line: command_line(hardware, &root),
        kernel,
        initramfs,
        root,
    };
    let json = serde_json::to_vec(&manifest)?;
    let signature = key.sign(&to_be_signed(&json)).to_bytes();
    let public = key.verifying_key().to_bytes();
    let head = assemble_head(&json, &[(public, signature)]).context("the manifest is too long")?;
    bytes[..HEAD].copy_from_slice(&head);

    // As a box would.
    let anchors = Anchors::new(&public).context("the key is no good")?;
    let seen = seen(&manifest.boards[0]);
    let slot_length = u64::from(hardware.storage.slot_mib) << 20;
    let here = Here { anchors: &anchors, seen: &seen, epoch: *epoch, slot_length };
    let head = SignedHead::verify(&bytes[..HEAD], here)
        .map_err(|refusal| anyhow::anyhow!("a box would refuse it: {refusal}"))?;
    for name in [PartName::Kernel, PartName::Initramfs, PartName::Root] {
        let Part { offset, length, .. } = *head.manifest().part(name);
        let part = &bytes[usize::try_from(offset)?..usize::try_from(offset + length)?];
        head.verify_part(name, part)
            .map_err(|refusal| anyhow::anyhow!("a box would refuse it: {refusal}"))?;
    }
    Ok(Image { bytes, head, root_length })
}

/// What is the same for every start. The guardian adds the slot.
fn command_line(hardware: &Hardware, root: &Root) -> String {
    let console = &hardware.console;
    let Root { part, data_length, verity_root, verity_salt } = root;
    [
        format!("console={},{}", console.device, console.baud),
        // Warnings and worse; what fails is said at level 1.
        "loglevel=4".to_owned(),
        "panic=10".to_owned(),
        // Ports are named by the board file, in the kernel's order.
        "net.ifnames=0".to_owned(),
        format!("seimon.disk={}", hardware.storage.device),
        format!("seimon.root={}:{data_length}:{}:{verity_root}:{verity_salt}", part.offset, part.length),
    ]
    .join(" ")
}

pub(crate) fn board_id(id: &str, hardware: &Hardware) -> BoardId {
    let identity = &hardware.identity;
    let smbios = identity
        .smbios
        .as_ref()
        .map(|smbios| Smbios { manufacturer: smbios.manufacturer.clone(), product: smbios.product.clone() });
    BoardId { id: id.to_owned(), compatible: identity.compatible.clone(), smbios }
}

/// What that board says of itself.
pub(crate) fn seen(board: &BoardId) -> Seen {
    Seen { compatible: board.compatible.clone(), smbios: board.smbios.clone() }
}

fn initramfs(init: Vec<u8>, modules: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut entries = BTreeMap::from([
        ("dev/console".to_owned(), Entry::CharacterDevice { major: 5, minor: 1 }),
        ("init".to_owned(), Entry::File { mode: 0o755, content: init }),
    ]);
    for folder in ["dev", "proc", "sys", "run", "sysroot", "modules"] {
        entries.insert(folder.to_owned(), Entry::Folder);
    }
    let mut list = String::new();
    for (name, content) in modules {
        list.push_str(&format!("/modules/{name}\n"));
        entries.insert(format!("modules/{name}"), Entry::File { mode: 0o644, content: content.clone() });
    }
    entries.insert("modules.list".to_owned(), Entry::File { mode: 0o644, content: list.into_bytes() });
    cpio::archive(&entries)
}

/// Uncompressed: what is shipped is compressed as a whole, and what is read at run time is hashed already.
fn erofs(tree: &Tree, epoch_seconds: u64, seed: &str, work: &Path) -> Result<Vec<u8>> {
    say::step("making the root file system");
    let folder = fresh(work, "root")?;
    tree.write(&folder)?;
    let file = work.join("root.erofs");
    let _none = fs::remove_file(&file);
    let uuid = gpt::text(&gpt::identifier(seed, "root file system"));
    let output = Command::new("mkfs.erofs")
        .args(["--quiet", "--all-root", "-x-1", "-U", &uuid, "-T", &epoch_seconds.to_string()])
        .args([&file, &folder])
        .output()
        .context("mkfs.erofs (Debian package erofs-utils)")?;
    ensure!(output.status.success(), "mkfs.erofs: {}", String::from_utf8_lossy(&output.stderr).trim());
    let mut bytes = fs::read(&file)?;
    bytes.resize(bytes.len().next_multiple_of(verity::BLOCK), 0);
    fs::remove_dir_all(&folder)?;
    fs::remove_file(&file)?;
    Ok(bytes)
}
