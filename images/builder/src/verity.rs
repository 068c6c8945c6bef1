//! A dm-verity hash tree: veritysetup's format 1, SHA-256, blocks of 4 KiB, salt before the block, without superblock.
//!
//! ```text
//!  data: 4 KiB blocks          tree, right behind it:  [top level: 1 block] [next] … [lowest: the data's own hashes]
//! ```
//! Each hash block holds 128 digests; the last one of a level is filled up with zeros.

use seimon_boot::Digest;
use sha2::{Digest as _, Sha256};

pub(crate) const BLOCK: usize = 4096;
const DIGEST: usize = 32;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) root: Digest,
    pub(crate) bytes: Vec<u8>,
}

/// `data` must be whole blocks, at least two.
pub(crate) fn tree(data: &[u8], salt: &Digest) -> Option<Tree> {
    if data.len() < 2 * BLOCK || !data.len().is_multiple_of(BLOCK) {
        return None;
    }
    let mut levels = vec![level(data, salt)];
    while let Some(last) = levels.last().filter(|last| last.len() > BLOCK) {
        levels.push(level(last, salt));
    }
    let root = levels.last().map(|top| block_digest(top, salt))?;
    Some(Tree { root: Digest(root), bytes: levels.into_iter().rev().flatten().collect() })
}

/// The digests of all blocks, in whole blocks. Large data is shared out to all processors.
fn level(data: &[u8], salt: &Digest) -> Vec<u8> {
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = (data.len() / BLOCK).div_ceil(workers).max(1024) * BLOCK;
    let mut hashes: Vec<u8> = std::thread::scope(|scope| {
        let parts: Vec<_> = data
            .chunks(share)
            .map(|part| {
                scope.spawn(move || part.chunks(BLOCK).flat_map(|block| block_digest(block, salt)).collect())
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|_| Vec::<u8>::new())).collect()
    });
    hashes.resize(hashes.len().next_multiple_of(BLOCK), 0);
    hashes
}

fn block_digest(block: &[u8], salt: &Digest) -> [u8; DIGEST] {
    Sha256::new().chain_update(salt.0).chain_update(block).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn data(blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK).map(|at| (at / 7 % 251) as u8).collect()
    }

    const SALT: Digest = Digest([0x5a; 32]);

    #[test]
    fn sizes_follow_from_128_digests_a_block() {
        for (blocks, tree_blocks) in
            [(2, 1), (128, 1), (129, 3), (128 * 128, 129), (128 * 128 + 1, 129 + 1 + 2)]
        {
            assert_eq!(
                tree(&data(blocks), &SALT).unwrap().bytes.len(),
                tree_blocks * BLOCK,
                "{blocks} blocks"
            );
        }
        assert_eq!(tree(&data(1), &SALT), None);
        assert_eq!(tree(&data(2)[1..], &SALT), None);
    }

    #[test]
    fn every_changed_byte_changes_the_root() {
        let mut data = data(130);
        let root = tree(&data, &SALT).unwrap().root;
        for at in [0, 4095, 4096, 129 * BLOCK + 1, 130 * BLOCK - 1] {
            data[at] ^= 1;
            assert_ne!(tree(&data, &SALT).unwrap().root, root, "byte {at}");
            data[at] ^= 1;
        }
        assert_ne!(tree(&data, &Digest([0; 32])).unwrap().root, root);
    }

    /// Against the program that defines the format, where it is installed.
    #[test]
    fn veritysetup_agrees() {
        let Some(veritysetup) = ["/usr/sbin/veritysetup", "/sbin/veritysetup"]
            .into_iter()
            .find(|file| std::path::Path::new(file).is_file())
        else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        for blocks in [2, 127, 128, 129, 200, 128 * 128 + 5] {
            let data = data(blocks);
            let tree = tree(&data, &SALT).unwrap();
            let file = folder.path().join("image");
            std::fs::write(&file, [&data[..], &tree.bytes].concat()).unwrap();
            let verify = |root: &str| {
                let output = Command::new(veritysetup)
                    .args(["verify", "--no-superblock", "--format=1", "--hash=sha256"])
                    .args(["--data-block-size=4096", "--hash-block-size=4096"])
                    .arg(format!("--data-blocks={blocks}"))
                    .arg(format!("--hash-offset={}", data.len()))
                    .arg(format!("--salt={SALT}"))
                    .args([&file, &file])
                    .arg(root)
                    .output()
                    .unwrap();
                output.status.success()
            };
            assert!(verify(&tree.root.to_string()), "{blocks} blocks");
            assert!(!verify(&Digest([1; 32]).to_string()), "and it would have said so");
        }
    }
}
